"""X-Recipient: an event in; verdict, edits and ledger line out. A Bcc is never disclosed."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.message.edits import Effect
from lonedot.message.intake import content_from
from lonedot.message.ledger import Action
from lonedot.sinks.bindings import OnError, Setting
from lonedot.sinks.builtin.x_recipient import x_recipient
from lonedot.sinks.calls import Decision, Dispatched
from lonedot.sinks.dispatch import dispatch
from lonedot.sinks.load import bind, load_import
from lonedot.sinks.verdicts import Next
from lonedot.sinks.view import Message
from lonedot.spool.interface import Facts
from lonedot.terms.address import Address
from lonedot.terms.envelope import Envelope, Recipient
from lonedot.terms.ids import SessionId
from lonedot.testing.clock import ManualClock

CLASS = "lonedot.sinks.builtin.x_recipient:x_recipient"
MAIL = b"From: <a@example.com>\r\nTo: <list@example.com>\r\nSubject: s\r\n\r\ntext\r\n.dot\r\n"
FACTS = Facts("smtp", SessionId("0000000000001"))


def envelope(*recipients: str) -> Envelope:
    return Envelope(Address(b"a@example.com"), tuple(Recipient(Address(r.encode())) for r in recipients))


def dispatched(
    *recipients: str,
    settings: Mapping[str, Setting] | None = None,
    octets: bytes = MAIL,
    split: bool | None = None,
) -> Dispatched:
    binding = bind(x_recipient, sink_class=CLASS, settings=settings, split=split)
    return dispatch("id", envelope(*recipients), FACTS, content_from(octets), [binding], ManualClock())


def test_the_recipient_as_first_addressed_stands_above_all() -> None:
    done = dispatched("Team+Lists@Example.COM")
    assert done.decision is Decision.ACCEPT
    assert done.content.octets() == b"X-Recipient: Team+Lists@Example.COM\r\n" + MAIL
    (entry,) = done.entries
    assert entry.action is Action.KEPT
    assert entry.binding == "X-Recipient"
    assert not entry.findings
    assert entry.before.body == entry.after.body
    assert entry.before.head != entry.after.head


def test_each_recipient_has_a_copy_of_its_own() -> None:
    done = dispatched("list@example.com", "hidden@example.com")
    assert [(copy.recipients, copy.content.octets()) for copy in done.copies] == [
        ((0,), b"X-Recipient: list@example.com\r\n" + MAIL),
        ((1,), b"X-Recipient: hidden@example.com\r\n" + MAIL),
    ]
    assert [entry.scope for entry in done.entries] == [(0,), (1,)]
    assert len({id(copy.content.body) for copy in done.copies}) == 1


def test_without_split_a_second_recipient_may_be_a_bcc() -> None:
    done = dispatched("list@example.com", "hidden@example.com", split=False)
    assert done.content.octets() == MAIL
    assert done.entries[0].action is Action.UNCHANGED


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"scope": "all"}, (0, 1, 2)),
        ({"scope": "lists", "lists": "Team@A.example, other@a.example"}, (0,)),
        ({"scope": "local", "domains": "b.example A.example"}, (0, 1)),
    ],
)
def test_the_scope(settings: Mapping[str, Setting], named: tuple[int, ...]) -> None:
    done = dispatched("team@a.example", "joe@A.example", "joe@c.example", settings=settings)
    found = {
        number
        for copy in done.copies
        for number in copy.recipients
        if copy.content.head.startswith(b"X-Recipient: ")
    }
    assert found == set(named)


@pytest.mark.parametrize("scope", ["lists", "local", "some"])
def test_a_scope_of_nobody_is_a_fault(scope: str) -> None:
    with pytest.raises(ValueError, match=r"lists|domains|scope"):
        bind(x_recipient, sink_class=CLASS, settings={"scope": scope})


@pytest.mark.parametrize(
    ("orcpt", "written"),
    [
        (b"rfc822;list+2Ball@example.org", b"list+all@example.org"),
        (b"x400;whatever", b"b@example.com"),
        (b"rfc822;a+0D+0ABcc:+20c@example.org", b"b@example.com"),
        (b"", b"b@example.com"),
    ],
)
def test_the_original_recipient(orcpt: bytes, written: bytes) -> None:
    recipient = Recipient(Address(b"b@example.com"), orcpt=orcpt)
    envelope_given = Envelope(Address(b"a@example.com"), (recipient,))
    made = bind(x_recipient, sink_class=CLASS, settings={"original": True})
    done = dispatch("id", envelope_given, FACTS, content_from(MAIL), [made], ManualClock())
    assert done.content.octets() == b"X-Recipient: " + written + b"\r\n" + MAIL


def test_no_recipient() -> None:
    assert dispatched().content.octets() == MAIL


def test_the_setting_names_the_field() -> None:
    done = dispatched("b@example.com", settings={"header": "X-Envelope-To"})
    assert done.content.octets() == b"X-Envelope-To: b@example.com\r\n" + MAIL


def test_a_field_that_came_along_stays_below() -> None:
    octets = b"X-Recipient: first@example.com\r\n" + MAIL
    done = dispatched("b@example.com", octets=octets)
    assert done.content.octets() == b"X-Recipient: b@example.com\r\n" + octets


def test_a_setting_that_is_no_field_name_costs_the_field_and_not_the_message() -> None:
    done = dispatched("b@example.com", settings={"header": "X Recipient"})
    assert done.decision is Decision.ACCEPT
    assert done.content.octets() == MAIL
    (entry,) = done.entries
    assert entry.action is Action.SKIPPED
    assert "X Recipient" in entry.words


def test_an_address_in_utf8_is_encoded() -> None:
    done = dispatched("jürgen@example.com")
    assert done.content.head.startswith(b"X-Recipient: =?utf-8?")
    assert done.content.head.isascii()
    assert not [finding for finding in done.entries[0].findings if finding.severity.value != "note"]


def test_what_it_declares() -> None:
    found = load_import(CLASS)
    assert found is x_recipient
    assert found.effects == {Effect.HEADER}
    assert found.priority == 28010
    assert found.on_error is OnError.SKIP


@given(st.lists(st.emails(), min_size=2, max_size=5))
def test_several_recipients_change_nothing(recipients: list[str]) -> None:
    message = Message("id", envelope(*recipients), FACTS, content_from(MAIL), {})
    assert x_recipient(message) == Next()  # shown together, as without `split`


@given(st.emails())
def test_one_recipient_adds_one_field(recipient: str) -> None:
    done = dispatched(recipient)
    assert done.content.octets() == b"X-Recipient: " + recipient.encode() + b"\r\n" + MAIL
