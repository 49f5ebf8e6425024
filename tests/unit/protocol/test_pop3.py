"""The client's side of POP3: any cut gives the same answers; garbage is a fault and nothing else; all is bounded."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.protocol.errors import RemoteProtocolError
from lonedot.protocol.pop3 import (
    MAX_MESSAGES,
    MAX_UIDL,
    Answers,
    Piece,
    Status,
    capabilities,
    command,
    sizes,
    uidls,
)


def read(
    octets: bytes, *, multiline: bool, cuts: list[int] | None = None
) -> tuple[list[Status], bytes, bool]:
    """Status lines, content, and whether all is answered."""
    answers = Answers()
    answers.expect(multiline=multiline)
    places = sorted({min(cut, len(octets)) for cut in cuts or []} | {0, len(octets)})
    found = [
        answer for start, end in itertools.pairwise(places) for answer in answers.feed(octets[start:end])
    ]
    content = b"".join(answer.octets for answer in found if isinstance(answer, Piece))
    return [answer for answer in found if isinstance(answer, Status)], content, answers.is_idle


def test_a_message_is_unstuffed_and_ends_at_its_end() -> None:
    octets = b"+OK 12 octets\r\n..one\r\n\r\n...\r\nx.\r\n.\r\n"
    assert read(octets, multiline=True) == ([Status(True, "12 octets")], b".one\r\n\r\n..\r\nx.\r\n", True)


def test_an_empty_list_and_an_error_end_at_once() -> None:
    assert read(b"+OK\r\n.\r\n", multiline=True) == ([Status(True, "")], b"", True)
    assert read(b"-ERR [IN-USE] no\r\n", multiline=True) == ([Status(False, "no", "IN-USE")], b"", True)


@pytest.mark.parametrize("end", [b"\n.\r\n", b"\r\n.\n", b"\r.\r\n", b"\n.\n", b"\r\n.\r"])
def test_nothing_else_is_the_end(end: bytes) -> None:
    assert read(b"+OK\r\ntext" + end, multiline=True)[2] is False


@given(
    st.lists(st.sampled_from([b"a", b".", b"\r\n", b"\n", b"\r", b"..", b"\xe4", b"\0"])),
    st.lists(st.integers(0, 60)),
)
def test_any_cut_gives_the_same(parts: list[bytes], cuts: list[int]) -> None:
    text = b"".join(parts) + b"\r\n"
    stuffed = (b"\r\n" + text).replace(b"\r\n.", b"\r\n..")[2:]
    octets = b"+OK x\r\n" + stuffed + b".\r\n"
    assert read(octets, multiline=True, cuts=cuts) == ([Status(True, "x")], text, True)


@given(st.binary(max_size=200), st.booleans())
def test_garbage_is_a_fault_or_waits(octets: bytes, multiline: bool) -> None:
    answers = Answers()
    answers.expect(multiline=multiline)
    try:
        answers.feed(octets)
    except RemoteProtocolError as error:
        assert error.words.isprintable()


def test_what_nobody_asked_for_is_a_fault() -> None:
    answers = Answers()
    assert answers.feed(b"+OK\r\n") == [Status(True, "")]
    with pytest.raises(RemoteProtocolError):
        answers.feed(b"+OK\r\n")
    answers = Answers()
    answers.feed(b"+OK\r\n")
    answers.expect(multiline=False)  # STLS
    with pytest.raises(RemoteProtocolError):
        answers.feed(b"+OK begin\r\n+OK injected\r\n")


def test_a_line_has_an_end() -> None:
    with pytest.raises(RemoteProtocolError):
        Answers().feed(b"+OK " + b"x" * 5000)


def test_a_command_is_one_line() -> None:
    assert command(b"DELE", b"1") == b"DELE 1\r\n"
    for bad in (b"a\r\nDELE 1", b"a\n", b"\0"):
        with pytest.raises(ValueError, match="CR, LF"):
            command(b"USER", bad)


def test_listings() -> None:
    assert uidls(b"1 a\r\n2 b c\r\n") == {1: "a", 2: "b"}
    assert sizes(b"1 120\r\n2 what\r\n") == {1: 120, 2: 0}
    assert capabilities(b"SASL PLAIN login\r\nUIDL\r\n") == {"SASL": ("PLAIN", "LOGIN"), "UIDL": ()}
    long = b"1 " + b"x" * (MAX_UIDL + 1) + b"\r\n"
    for bad in (b"1\r\n", b"x a\r\n", b"1 a\r\n1 b\r\n", b"0 a\r\n", b"1 \xe4\r\n", long):
        with pytest.raises(RemoteProtocolError):
            uidls(bad)
    with pytest.raises(RemoteProtocolError):
        uidls(b"".join(b"%d a\r\n" % number for number in range(1, MAX_MESSAGES + 2)))
