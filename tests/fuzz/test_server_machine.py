"""Garbage into the server machine: events and well formed replies come out, never an exception."""

from __future__ import annotations

import re

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from lonedot.protocol.events import (
    AuthRequested,
    CommandHeard,
    ContentBegun,
    ContentMode,
    Event,
    MailGiven,
    RcptGiven,
    Refused,
)
from lonedot.protocol.server import ANY_VERB, ServerLimits, ServerOptions
from lonedot.terms.reply import Reply, reply
from tests.unit.protocol.driver import GO_AHEAD, LOGGED_IN, OK, Driver, accept

LIMITS = ServerLimits(size=400, recipients=4, errors=12, rejections=6, idle_commands=20, junk_line=2000)
OPTIONS = ServerOptions(
    b"mx.example.org",
    tls_available=True,
    auth_mechanisms=(b"PLAIN", b"LOGIN"),
    auth_requires_tls=False,
    limits=LIMITS,
)
REPLIES = re.compile(rb"(?:(?:[2-5][0-9][0-9]-[^\r\n\0]*\r\n)*[2-5][0-9][0-9] [^\r\n\0]*\r\n)*")
CONTROL = re.compile(rb"[\x00-\x1f\x7f]")

LINES = st.sampled_from(
    [
        b"EHLO x",
        b"HELO x",
        b"MAIL FROM:<a@example.org>",
        b"MAIL FROM:<\xc3\xa9@example.org> SMTPUTF8 SIZE=30",
        b"MAIL FROM:<> BODY=8BITMIME RET=HDRS ENVID=x",
        b"RCPT TO:<b@example.net>",
        b"rcpt to: c@example.net notify=never",
        b"DATA",
        b".",
        b"..",
        b"text",
        b"BDAT 5",
        b"BDAT 5 LAST",
        b"BDAT 0 LAST",
        b"BDAT 390",
        b"BDAT 801",
        b"BDAT x",
        b"RSET",
        b"NOOP",
        b"VRFY x",
        b"HELP",
        b"XEXAMPLE 1 2",
        b"GET / HTTP/1.1",
        b"AUTH PLAIN AGFubgBzZWNyZXQ=",
        b"AUTH LOGIN",
        b"YW5u",
        b"*",
        b"STARTTLS",
        b"QUIT",
        b"x" * 600,
    ]
)
PIECES = st.one_of(
    st.builds(
        lambda line, end: line + end, LINES, st.sampled_from([b"\r\n"] * 12 + [b"\n", b"\r", b"", b"\0\r\n"])
    ),
    st.binary(max_size=40),
)
SECRET = {b"AUTH", b"YW5U", b"MAIL", b"RCPT", b"DATA", b"BDAT"}
"""What nobody is asked about: credentials, and commands with decisions of their own."""
ASKED = st.frozensets(
    st.sampled_from([ANY_VERB, b"EHLO", b"HELO", b"NOOP", b"RSET", b"STARTTLS", b"XEXAMPLE", b"GET", *SECRET])
)
ANSWERS = st.lists(st.sampled_from(["yes"] * 8 + ["no", "later", "close"]), min_size=1, max_size=12)


class Decisions:
    """Says yes, no, later or goodbye, as drawn, over and over."""

    def __init__(self, answers: list[str]) -> None:
        self.answers = answers
        self.count = 0

    def __call__(self, event: Event) -> Reply | None:
        answer = self.answers[self.count % len(self.answers)]
        self.count += 1
        if isinstance(event, CommandHeard):
            assert event.verb not in SECRET and event.verb == event.verb.upper()
            if answer == "yes" and (event.verb == b"STARTTLS" or self.count % 3):
                return None
        if isinstance(event, MailGiven):
            assert not CONTROL.search(event.reverse_path.octets)
        elif isinstance(event, RcptGiven):
            assert not CONTROL.search(event.recipient.address.octets)
        match answer:
            case "no":
                return reply(550, "5.7.1", "No")
            case "later":
                return reply(451, "4.3.0", "Later")
            case "close":
                return reply(421, "4.3.2", "Goodbye")
        if isinstance(event, ContentBegun) and event.mode is ContentMode.DATA:
            return GO_AHEAD
        return LOGGED_IN if isinstance(event, AuthRequested) else OK


def run(
    pieces: list[bytes],
    answers: list[str],
    options: ServerOptions = OPTIONS,
    asked: frozenset[bytes] = frozenset(),
) -> Driver:
    driver = Driver(options, Decisions(answers))
    driver.machine.asked = asked
    for piece in pieces:
        if driver.wants_tls:
            driver.start_tls()
        driver.feed(piece)
        assert driver.machine.buffered <= 12288 + len(piece)
    return driver


def check(driver: Driver) -> None:
    assert REPLIES.fullmatch(driver.output)
    assert all(len(line) <= 510 for line in driver.output.split(b"\r\n"))
    assert all(len(event.command) <= 128 for event in driver.events if isinstance(event, Refused))
    assert all(len(message.content) <= LIMITS.size for message in driver.messages)
    assert all(1 <= len(message.recipients) <= LIMITS.recipients for message in driver.messages)


@given(st.lists(PIECES, max_size=30), ANSWERS)
def test_lines_in_any_order(pieces: list[bytes], answers: list[str]) -> None:
    check(run(pieces, answers))


@given(st.lists(st.binary(max_size=200), max_size=10))
def test_octets_at_random(pieces: list[bytes]) -> None:
    check(run(pieces, ["yes"]))


@given(st.lists(PIECES, max_size=30), ANSWERS)
def test_with_everything_switched_off(pieces: list[bytes], answers: list[str]) -> None:
    check(run(pieces, answers, msgspec.structs.replace(OPTIONS, keywords=frozenset())))


@given(st.lists(PIECES, max_size=30), ANSWERS, ASKED)
def test_with_questions(pieces: list[bytes], answers: list[str], asked: frozenset[bytes]) -> None:
    check(run(pieces, answers, asked=asked))


@given(st.lists(PIECES, max_size=30), ASKED)
def test_who_lets_everything_be_obeyed_might_as_well_not_be_asked(
    pieces: list[bytes], asked: frozenset[bytes]
) -> None:
    def obey(event: Event) -> Reply | None:
        return None if isinstance(event, CommandHeard) else accept(event)

    drivers = Driver(OPTIONS, obey), Driver(OPTIONS, accept)
    drivers[0].machine.asked = asked
    for driver in drivers:
        for piece in pieces:
            if driver.wants_tls:
                driver.start_tls()
            driver.feed(piece)
    assert drivers[0].output == drivers[1].output
    assert drivers[0].messages == drivers[1].messages
    assert drivers[0].heard == drivers[1].heard
    events = [event for event in drivers[0].events if not isinstance(event, CommandHeard)]
    assert events == drivers[1].events


@given(st.lists(PIECES, max_size=20), ANSWERS, st.integers(1, 30), ASKED)
def test_any_chunking_gives_the_same(
    pieces: list[bytes], answers: list[str], size: int, asked: frozenset[bytes]
) -> None:
    """Text may not stand behind DATA here, nor anything behind STARTTLS: when it comes makes a difference there."""
    octets = b"".join(
        piece for piece in pieces if b"STARTTLS" not in piece and not piece.upper().startswith(b"DATA")
    )
    whole = run([octets], answers, asked=asked)
    cut = run([octets[i : i + size] for i in range(0, len(octets), size)], answers, asked=asked)
    assert cut.output == whole.output
    assert cut.events == whole.events
    assert cut.messages == whole.messages
