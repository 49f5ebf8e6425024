"""The contract of the built-in sinks that are asked before there is a message: odd sessions, and no backend there.

Each is bound as its first configuration in the catalogue says, whose backend nobody runs: what it cannot find out it
defers. A refusal for good is its verdict, and never the end of a fault.
"""

from __future__ import annotations

import tomllib

import pytest

from lonedot.sinks.bindings import Binding
from lonedot.sinks.calls import Decision
from lonedot.sinks.catalogue import BuiltIn, built_ins
from lonedot.sinks.events import EVENTS, Event, Shows
from lonedot.sinks.load import bind, load_import
from lonedot.sinks.protocol import Session
from lonedot.testing import ask_sink, make_session

SINKS = {one.name: one for one in built_ins() if EVENTS[one.event].shows is Shows.SESSION}
LONG = "x" * 20_000
ODD: dict[str, dict[str, str]] = {
    "usual": {},
    "no sender": {"sender": ""},
    "8-bit name": {"helo": "müller.ÿ"},
    "no name": {"helo": ""},
    "long name": {"helo": LONG},
    "8-bit recipient": {"recipient": "ü@münchen.example"},
    "quoted recipient": {"recipient": '"a\\"@b"@example.org'},
    "long recipient": {"recipient": f"{LONG}@example.org"},
    "no domain": {"recipient": "postmaster"},
    "NUL": {"recipient": "a\0b@example.org", "helo": "a\0b"},
    "no address of the client": {"client": ""},
    "IPv6": {"client": "2001:db8::1"},
}
COMMANDS = ["NOOP", "HELP", "VRFY", "XEXCH50", "X-LINK2STATE", "X" * 500]
ARGUMENTS = ["", "a", LONG, "\0", "ü", "-1 2", "4294967295 2"]


def binding(one: BuiltIn) -> Binding:
    (entry,) = tomllib.loads(one.first)["sink"]
    return bind(
        load_import(entry["import"]),
        sink_class=entry["import"],
        name=entry["name"],
        settings=entry.get("settings", {}),
        deadline_seconds=5.0,
    )


def check(one: BuiltIn, session: Session) -> None:
    asked = ask_sink(binding(one), session)
    if asked.error is not None:
        assert asked.decision is Decision.DEFER, asked.story()
        assert asked.words
    elif asked.was_called:
        asked.assert_sound()
    if asked.decision is not Decision.ACCEPT:
        assert "/run/" not in asked.words or asked.error is not None, "a client reads these words"


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("name", SINKS)
def test_an_odd_session_is_answered(name: str, odd: str) -> None:
    one, given = SINKS[name], ODD[odd]
    check(
        one,
        make_session(
            one.event,
            client=given.get("client", "192.0.2.1"),
            helo=given.get("helo", "client.example.com"),
            sender=given.get("sender", "sender@example.com"),
            recipient=given.get("recipient", "recipient@example.org"),
        ),
    )


@pytest.mark.parametrize("argument", ARGUMENTS, ids=lambda argument: ascii(argument)[:12])
@pytest.mark.parametrize("verb", COMMANDS, ids=lambda verb: verb[:12])
@pytest.mark.parametrize("is_trusted", [True, False])
@pytest.mark.parametrize("name", [name for name in SINKS if SINKS[name].event is Event.VERB])
def test_an_odd_command_is_answered(name: str, is_trusted: bool, verb: str, argument: str) -> None:
    check(SINKS[name], make_session(Event.VERB, command=(verb, argument), trusted=is_trusted))


@pytest.mark.parametrize("name", [name for name in SINKS if SINKS[name].event is Event.RCPT])
def test_ten_thousand_recipients_before(name: str) -> None:
    before = [f"user{number}@example.org" for number in range(10_000)]
    check(SINKS[name], make_session(Event.RCPT, before=before))


def test_there_are_such_sinks() -> None:
    assert "milter-session" in SINKS
