"""Octets behind a command: where a sink may have them read, and how many."""

from __future__ import annotations

from typing import cast

import pytest

from lonedot.sinks.calls import Decision
from lonedot.sinks.protocol import Session
from lonedot.sinks.sink import sink
from lonedot.sinks.verdicts import READ_LIMIT, Accept, Verdict
from lonedot.testing import Asked, ask_sink, make_session


def asked(read: object, verb: str = "XBLOB") -> Asked:
    @sink("reads", on="verb")
    def reads(session: Session) -> Verdict:
        return Accept("taken", read=cast(int, read))

    return ask_sink(reads, make_session("verb", command=(verb, "4")))


@pytest.mark.parametrize("read", [0, 1, READ_LIMIT])
def test_some_octets_are_read(read: int) -> None:
    asked(read).assert_passed()


@pytest.mark.parametrize("read", [-1, READ_LIMIT + 1, 1 << 64, "4"])
def test_other_numbers_are_a_fault_of_the_sink(read: object) -> None:
    one = asked(read)
    assert one.decision is Decision.DEFER and one.verdict is None


@pytest.mark.parametrize("verb", ["NOOP", "RSET", "QUIT", "STARTTLS", "VRFY", "HELP"])
def test_nothing_belongs_to_a_verb_of_the_relay(verb: str) -> None:
    assert "not the relay's own" in asked(4, verb).words
    asked(0, verb).assert_passed()


def test_only_at_verb() -> None:
    @sink("reads", on="rcpt")
    def reads(session: Session) -> Verdict:
        return Accept("taken", read=4)

    one = ask_sink(reads, make_session("rcpt"))
    assert one.decision is Decision.DEFER and "only behind a verb" in one.words
