"""The judge must itself be right: what ends a message, what is recorded, what is a fault."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.peers.strict_sink import StrictSink


@pytest.fixture
def strict_sink() -> Iterator[StrictSink]:
    with StrictSink() as sink:
        yield sink


def converse(sink: StrictSink, *writes: bytes) -> bytes:
    """Send the writes in one session, close our side, and return all that came back."""
    with socket.create_connection(("127.0.0.1", sink.port), timeout=10) as peer:
        for octets in writes:
            peer.sendall(octets)
        peer.shutdown(socket.SHUT_WR)
        answer = bytearray()
        while chunk := peer.recv(65536):
            answer += chunk
        return bytes(answer)


def transaction(text: bytes) -> bytes:
    return b"EHLO c.example\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n" + text


def test_a_message_is_recorded_octet_for_octet(strict_sink: StrictSink) -> None:
    wire = b"Subject: dots\r\n\r\n..one\r\n...\r\nend\r\n.\r\n"
    answer = converse(strict_sink, transaction(wire) + b"QUIT\r\n")
    [arrival] = strict_sink.wait_for(1)
    assert answer.endswith(b"354 go ahead\r\n250 2.0.0 taken\r\n221 2.0.0 bye\r\n")
    assert arrival.wire == wire
    assert arrival.content == b"Subject: dots\r\n\r\n.one\r\n..\r\nend\r\n"
    assert (arrival.helo, arrival.reverse_path) == (b"c.example", b"a@example.com")
    assert arrival.recipients == (b"b@example.net",)
    assert strict_sink.faults == []


def test_the_dot_line_alone_is_an_empty_message(strict_sink: StrictSink) -> None:
    converse(strict_sink, transaction(b".\r\n") + b"QUIT\r\n")
    [arrival] = strict_sink.wait_for(1)
    assert arrival.content == b""


@pytest.mark.parametrize("end", [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r\n.\r", b"\r.\r", b"\r.\r\n"])
def test_nothing_else_ends_a_message(strict_sink: StrictSink, end: bytes) -> None:
    answer = converse(strict_sink, transaction(b"text" + end))
    assert answer.endswith(b"354 go ahead\r\n")
    assert strict_sink.arrivals == []
    assert len(strict_sink.faults) == 1
    assert "closed inside a message" in strict_sink.faults[0]


def test_bare_octets_are_placed(strict_sink: StrictSink) -> None:
    converse(strict_sink, transaction(b"a\nb\rc\r\n.\r\n"))
    [arrival] = strict_sink.wait_for(1)
    assert arrival.bare_octets == (1, 3)


def test_the_end_is_found_at_any_chunking(strict_sink: StrictSink) -> None:
    octets = transaction(b"x\r\n.\r\n")
    converse(strict_sink, *(octets[place : place + 1] for place in range(len(octets))))
    [arrival] = strict_sink.wait_for(1)
    assert arrival.wire == b"x\r\n.\r\n"


def test_text_behind_the_end_of_data_is_a_fault(strict_sink: StrictSink) -> None:
    converse(strict_sink, transaction(b"x\r\n.\r\nX-More: text\r\n"))
    assert len(strict_sink.arrivals) == 1
    assert strict_sink.faults == ["no command: b'X-More: text'"]


def test_a_command_that_ends_in_a_bare_lf_is_a_fault(strict_sink: StrictSink) -> None:
    converse(strict_sink, b"NOOP\n")
    assert strict_sink.faults == ["a command line with a bare CR or LF: b'NOOP\\n'"]


def test_waiting_for_what_does_not_come_tells_what_came(strict_sink: StrictSink) -> None:
    with pytest.raises(TimeoutError, match="0 of 1 messages came"):
        strict_sink.wait_for(1, 0.01)
