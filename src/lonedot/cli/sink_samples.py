"""What `lonedot sinks new` writes: for every event a sink that works and its test, by what the event shows and allows.

Rule: each sample passes its test, `ruff format` and `mypy --strict` as it stands; a test of ours runs them all.
"""

from __future__ import annotations

import msgspec

from lonedot.sinks.events import EVENTS, Event, Kind, Shows

__all__ = ["Sample", "sample_for"]


class Sample(msgspec.Struct, frozen=True):
    """Texts with the places `{name}`, `{function}`, `{field}`, `{event}`."""

    does: str
    """What it does, behind `a sink that`."""
    sink: str
    test: str


_FIELD = Sample(
    "adds the field {field}",
    '''\
"""{name}: adds the field {field} to mail that comes without it."""

from __future__ import annotations

import dataclasses

from lonedot import Edit, Message, Next, Verdict, sink


@dataclasses.dataclass(frozen=True)
class Settings:
    """What `settings = {{ … }}` of the configuration may say."""

    value: str = "yes"


@sink("{name}", on="{event}", effects={{"header"}}, settings=Settings)
def {function}(message: Message, settings: Settings) -> Verdict:
    """Called at the event {event} with each message."""
    if message.headers.has("{field}"):
        return Next()
    return Next(edits=[Edit.add_field("{field}", settings.value)])
''',
    '''\
"""Tests of the sink {name}; run them with pytest."""

from __future__ import annotations

from {function} import {function}

from lonedot.testing import make_message, run_sink


def test_the_field_is_added() -> None:
    run_sink({function}).assert_added("{field}", "yes")


def test_the_value_is_a_setting() -> None:
    run_sink({function}, settings={{"value": "no"}}).assert_added("{field}", "no")


def test_a_field_that_came_with_the_message_stays() -> None:
    message = make_message("{field}: mine\\n\\nhello\\n")
    run_sink({function}, message).assert_untouched()
''',
)

_FIELD_IN_RELAY = Sample(
    _FIELD.does,
    _FIELD.sink,
    _FIELD.test.replace("import make_message, run_sink", "import StartRelay, make_message, run_sink")
    + """

def test_it_works_in_a_relay(lonedot_relay: StartRelay) -> None:
    relay = lonedot_relay({function})
    relay.send("Subject: an order\\n\\nten crates\\n")
    (arrival,) = relay.arrivals()
    assert arrival.headers.get("{field}") == b"yes"
""",
)

_CLIENT = Sample(
    "refuses the clients that its settings name",
    '''\
"""{name}: refuses the clients that its settings name."""

from __future__ import annotations

import dataclasses

from lonedot import Next, Reject, Session, Verdict, sink


@dataclasses.dataclass(frozen=True)
class Settings:
    """What `settings = {{ … }}` of the configuration may say."""

    refused: str = ""
    """Addresses, with a space between them."""


@sink("{name}", on="{event}", settings=Settings)
def {function}(session: Session, settings: Settings) -> Verdict:
    """Called at the event {event} of each session."""
    if session.client in settings.refused.split():
        return Reject("no mail from this address, please", 550, "5.7.1")
    return Next()
''',
    '''\
"""Tests of the sink {name}; run them with pytest."""

from __future__ import annotations

from {function} import {function}

from lonedot.testing import ask_sink, make_session

REFUSED = {{"refused": "192.0.2.66 192.0.2.67"}}


def test_a_client_that_is_named_is_refused() -> None:
    session = make_session("{event}", client="192.0.2.67")
    ask_sink({function}, session, settings=REFUSED).assert_refused("no mail from this address, please")


def test_any_other_client_may_go_on() -> None:
    session = make_session("{event}", client="192.0.2.6")
    ask_sink({function}, session, settings=REFUSED).assert_passed()
    ask_sink({function}, session).assert_passed()
''',
)

_CLIENT_IN_RELAY = Sample(
    _CLIENT.does,
    _CLIENT.sink,
    _CLIENT.test.replace("import annotations\n", "import annotations\n\nimport pytest", 1).replace(
        "import ask_sink, make_session", "import Refused, StartRelay, ask_sink, bound, make_session"
    )
    + """

def test_it_works_in_a_relay(lonedot_relay: StartRelay) -> None:
    relay = lonedot_relay(bound({function}, settings={{"refused": "127.0.0.1"}}))
    with pytest.raises(Refused, match="no mail from this address"):
        relay.send()
""",
)

_LOGIN = Sample(
    "refuses the logins that its settings lock",
    '''\
"""{name}: refuses the logins that its settings lock, and leaves all others to those that know the passwords."""

from __future__ import annotations

import dataclasses

from lonedot import Next, Reject, Session, Verdict, sink


@dataclasses.dataclass(frozen=True)
class Settings:
    """What `settings = {{ … }}` of the configuration may say."""

    locked: str = ""
    """Names, with a space between them."""


@sink("{name}", on="{event}", settings=Settings)
def {function}(session: Session, settings: Settings) -> Verdict:
    """Called at the event {event}, with a name and a password. Who returns Accept() has checked them."""
    if session.credentials.identity.decode("utf-8", "replace") in settings.locked.split():
        return Reject("this login is locked", 535, "5.7.8")
    return Next()
''',
    '''\
"""Tests of the sink {name}; run them with pytest."""

from __future__ import annotations

from {function} import {function}

from lonedot.testing import ask_sink, make_session

LOCKED = {{"locked": "copier-1 copier-2"}}


def test_a_locked_login_is_refused() -> None:
    session = make_session("{event}", login=("copier-2", "secret"))
    ask_sink({function}, session, settings=LOCKED).assert_refused("this login is locked")


def test_others_are_left_to_those_that_know_the_passwords() -> None:
    session = make_session("{event}", login=("copier-3", "secret"))
    ask_sink({function}, session, settings=LOCKED).assert_passed()
''',
)

_HOST = Sample(
    "defers what would go to the hosts that its settings name",
    '''\
"""{name}: defers what would go to the hosts that its settings name."""

from __future__ import annotations

import dataclasses

from lonedot import Defer, Hop, Next, Verdict, sink


@dataclasses.dataclass(frozen=True)
class Settings:
    """What `settings = {{ … }}` of the configuration may say."""

    avoided: str = ""
    """Names of hosts, with a space between them."""


@sink("{name}", on="{event}", settings=Settings)
def {function}(hop: Hop, settings: Settings) -> Verdict:
    """Called at the event {event} with each next hop."""
    if hop.host in settings.avoided.split():
        return Defer(f"{{hop.host}} is avoided")
    return Next()
''',
    '''\
"""Tests of the sink {name}; run them with pytest."""

from __future__ import annotations

from {function} import {function}

from lonedot.testing import ask_sink, make_hop

AVOIDED = {{"avoided": "mx1.example.org mx2.example.org"}}


def test_a_host_that_is_named_is_avoided() -> None:
    hop = make_hop("{event}", host="mx2.example.org")
    ask_sink({function}, hop, settings=AVOIDED).assert_refused("mx2.example.org is avoided")


def test_any_other_host_is_used() -> None:
    hop = make_hop("{event}", host="mx3.example.org")
    ask_sink({function}, hop, settings=AVOIDED).assert_passed()
''',
)

_PARTING = Sample(
    "tells of every session with a next hop that ends",
    '''\
"""{name}: tells of every session with a next hop that ends."""

from __future__ import annotations

import logging

from lonedot import Hop, Next, Verdict, sink

_log = logging.getLogger(__name__)


@sink("{name}", on="{event}")
def {function}(hop: Hop) -> Verdict:
    """Called at the event {event} with each next hop."""
    _log.info("the session with %s ends (%s)", hop.host, hop.tls or "no TLS")
    return Next()
''',
    '''\
"""Tests of the sink {name}; run them with pytest."""

from __future__ import annotations

import pytest
from {function} import {function}

from lonedot.testing import ask_sink, make_hop


def test_it_tells_of_the_session(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    ask_sink({function}, make_hop("{event}", host="mx.example.org")).assert_passed()
    assert caplog.messages == ["the session with mx.example.org ends (no TLS)"]
''',
)

_RECIPIENT = Sample(
    "refuses the recipients in the domains that its settings name",
    '''\
"""{name}: refuses the recipients in the domains that its settings name, before they are given to the next hop."""

from __future__ import annotations

import dataclasses

from lonedot import Message, Next, Reject, Verdict, sink


@dataclasses.dataclass(frozen=True)
class Settings:
    """What `settings = {{ … }}` of the configuration may say."""

    closed: str = ""
    """Domains, with a space between them."""


@sink("{name}", on="{event}", settings=Settings)
def {function}(message: Message, settings: Settings) -> Verdict:
    """Called at the event {event} for each recipient."""
    domain = message.recipient.address.domain.decode("utf-8", "replace").lower()
    if domain in settings.closed.split():
        return Reject(f"no mail goes to {{domain}}")
    return Next()
''',
    '''\
"""Tests of the sink {name}; run them with pytest."""

from __future__ import annotations

from {function} import {function}

from lonedot import Reject
from lonedot.testing import make_message, run_sink

CLOSED = {{"closed": "old.example"}}


def test_a_recipient_in_a_closed_domain_is_refused() -> None:
    message = make_message(recipients="ann@OLD.example")
    assert run_sink({function}, message, settings=CLOSED).verdict == Reject("no mail goes to old.example")


def test_any_other_recipient_is_not() -> None:
    run_sink({function}, make_message(recipients="ann@new.example"), settings=CLOSED).assert_untouched()
''',
)

_SIZE = Sample(
    "refuses what is larger than its settings say",
    '''\
"""{name}: refuses what is larger than its settings say, before it is given to the next hop."""

from __future__ import annotations

import dataclasses

from lonedot import Message, Next, Reject, Verdict, sink


@dataclasses.dataclass(frozen=True)
class Settings:
    """What `settings = {{ … }}` of the configuration may say."""

    largest: int = 10_000_000
    """Octets."""


@sink("{name}", on="{event}", settings=Settings)
def {function}(message: Message, settings: Settings) -> Verdict:
    """Called at the event {event}, when the next hop has answered for each recipient (`message.replies`)."""
    if message.size > settings.largest:
        return Reject(f"larger than {{settings.largest}} octets")
    return Next()
''',
    '''\
"""Tests of the sink {name}; run them with pytest."""

from __future__ import annotations

from {function} import {function}

from lonedot import Reject
from lonedot.testing import run_sink


def test_large_mail_is_refused() -> None:
    assert run_sink({function}, settings={{"largest": 10}}).verdict == Reject("larger than 10 octets")


def test_any_other_is_not() -> None:
    run_sink({function}).assert_untouched()
''',
)

_OUTCOME = Sample(
    "holds what a next hop has refused for good, for somebody to look at",
    '''\
"""{name}: holds what a next hop has refused for good, for somebody to look at."""

from __future__ import annotations

from lonedot import Hold, Message, Next, Result, Verdict, sink


@sink("{name}", on="{event}")
def {function}(message: Message) -> Verdict:
    """Called at the event {event} of each attempt."""
    refused = [who.address.text for who, outcome in message.outcomes if outcome.result is Result.FAILED]
    if refused:
        return Hold(f"refused for {{', '.join(refused)}}")
    return Next()
''',
    '''\
"""Tests of the sink {name}; run them with pytest."""

from __future__ import annotations

from {function} import {function}

from lonedot import Hold
from lonedot.testing import make_message, make_outcomes, run_sink


def test_what_was_refused_is_held() -> None:
    message = make_message(event="{event}", outcomes=make_outcomes("ann@example.org", "failed"))
    assert run_sink({function}, message).verdict == Hold("refused for ann@example.org")


def test_what_was_delivered_is_not() -> None:
    message = make_message(event="{event}", outcomes=make_outcomes("ann@example.org"))
    run_sink({function}, message).assert_untouched()
''',
)

_OWN = {
    Event.AUTH: _LOGIN,
    Event.MAIL: _CLIENT_IN_RELAY,
    Event.RCPT: _CLIENT_IN_RELAY,
    Event.DATA: _CLIENT_IN_RELAY,
    Event.SESSION_START: _HOST,
    Event.SESSION_END: _PARTING,
    Event.MESSAGE_START: _FIELD_IN_RELAY,
    Event.PER_RECIPIENT: _RECIPIENT,
    Event.BEFORE_DATA: _SIZE,
    Event.OUTCOME: _OUTCOME,
    Event.DSN: _FIELD,
}


def sample_for(event: Event) -> Sample:
    """What is written for a sink of that event."""
    if event in _OWN:
        return _OWN[event]
    facts = EVENTS[event]
    if facts.shows is Shows.SESSION:
        return _CLIENT
    assert facts.kind is not Kind.DELIVERY  # each of those has its own
    return _FIELD_IN_RELAY
