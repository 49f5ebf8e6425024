"""Lines that are no commands."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.protocol.lines import JunkLine, breach_in


@pytest.mark.parametrize(
    ("octets", "line", "words"),
    [
        (b"NOOP\rRSET\n", b"NOOP", "bare CR"),
        (b"NOOP\nRSET\r\0", b"NOOP", "bare LF"),
        (b"\0NOOP\n", b"", "NUL"),
    ],
)
def test_the_first_breach_counts(octets: bytes, line: bytes, words: str) -> None:
    breach = breach_in(octets)
    assert breach.line == line
    assert breach.words == f"{words} in a command"
    assert breach.reply.is_permanent


@given(st.binary(max_size=40).filter(lambda junk: b"\r\n" not in junk), st.integers(1, 40))
def test_however_it_is_cut_the_line_ends_at_its_crlf(junk: bytes, size: int) -> None:
    octets = junk.rstrip(b"\r") + b"\r\nQUIT\r\n"
    line, position, buffer = JunkLine(limit=100), 0, b""
    for start in range(0, len(octets), size):
        buffer += octets[start : start + size]
        position = line.swallow(buffer, position)
        if line.has_ended:
            break
    assert buffer[:position] == octets[: octets.index(b"\r\n") + 2]
    assert not line.is_endless


def test_an_endless_line_is_not_read_for_ever() -> None:
    line = JunkLine(limit=10)
    line.swallow(b"x" * 10, 0)
    assert not line.is_endless
    line.swallow(b"x", 0)
    assert line.is_endless
