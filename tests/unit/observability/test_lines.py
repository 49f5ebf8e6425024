"""Lines on their way out never wait for their reader."""

import fcntl
import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lonedot.observability.lines import FLUSH_AT, KEEP_AT_MOST, LineWriter


@pytest.fixture
def pipe() -> Iterator[tuple[int, LineWriter]]:
    """The reading end of a small pipe, and a writer to it."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    with os.fdopen(writing, "wb", buffering=0) as stream, os.fdopen(reading, "rb", buffering=0):
        yield reading, LineWriter(stream)


def read_some(fd: int) -> bytes:
    os.set_blocking(fd, False)
    octets = b""
    while True:
        try:
            piece = os.read(fd, 65536)
        except BlockingIOError:
            return octets
        if not piece:
            return octets
        octets += piece


def test_lines_are_gathered_until_flush() -> None:
    stream = io.BytesIO()
    writer = LineWriter(stream)
    writer.write(b"one\n")
    assert stream.getvalue() == b""
    writer.flush()
    writer.flush()
    assert stream.getvalue() == b"one\n"
    writer.write(b"x" * FLUSH_AT)
    assert len(stream.getvalue()) == FLUSH_AT + 4


def test_a_reader_that_sleeps_costs_nothing_and_gets_all_later(pipe: tuple[int, LineWriter]) -> None:
    fd, writer = pipe
    lines = [b"%05d %s\n" % (number, b"x" * 100) for number in range(1000)]
    for line in lines:
        writer.write(line)
        writer.flush()
    got = b""
    while len(got) < sum(map(len, lines)):
        piece = read_some(fd)
        assert piece
        got += piece
        writer.flush()
    assert got == b"".join(lines)


def test_beyond_the_bound_lines_are_dropped_and_counted(pipe: tuple[int, LineWriter]) -> None:
    fd, writer = pipe
    line = b"y" * 8191 + b"\n"
    total = KEEP_AT_MOST // len(line) + 100
    for _ in range(total):
        writer.write(line)
    assert 0 < writer.dropped <= 100
    dropped = writer.dropped
    got = b""
    while b"dropped" not in got:
        piece = read_some(fd)
        got += piece
        writer.flush()
    writer.flush()
    got += read_some(fd)
    assert got.count(line) == total - dropped
    assert got.endswith(b"%d log lines were dropped: the reader of the log is too slow\n" % dropped)


def test_a_reader_that_is_gone_is_no_error() -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb", buffering=0) as stream:
        writer = LineWriter(stream)
        os.close(reading)
        writer.write(b"x\n")
        writer.flush()
        writer.close()


def test_a_file_takes_all_at_once(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb", buffering=0) as stream:
        writer = LineWriter(stream)
        for _ in range(1000):
            writer.write(b"z" * 999 + b"\n")
        writer.close()
    assert (tmp_path / "log").stat().st_size == 1_000_000
