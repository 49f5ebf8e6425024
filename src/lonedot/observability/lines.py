"""Lines on their way to a log stream: gathered, written together, never waited for.

A pipe whose reader sleeps must not stop the loop. So a flush writes only what the stream takes at once; the rest
stays here, and beyond a bound whole lines are dropped and counted. The count is written as soon as there is room.
"""

from __future__ import annotations

import os
import select
import stat
import time
from typing import BinaryIO

__all__ = ["FLUSH_AT", "KEEP_AT_MOST", "LineWriter"]

FLUSH_AT = 64 * 1024
"""Octets at which a flush is made without being asked."""

KEEP_AT_MOST = 4 * 1024 * 1024
"""Octets that wait for a slow reader; more are dropped."""

_PIECE = 4096
"""What a pipe that says "writable" takes without waiting, and in one piece beside other writers (PIPE_BUF)."""


class LineWriter:
    """Writes lines to a stream: `write` gathers, `flush` hands over. One thread only."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lines: list[bytes] = []
        self._size = 0
        self._rest = b""
        """What a flush could not hand over."""
        self.dropped = 0
        """Lines dropped since the last one that says so."""
        try:
            self._fd = stream.fileno()
        except (OSError, ValueError):
            self._fd = -1
        self._may_wait = self._fd >= 0 and not stat.S_ISREG(os.fstat(self._fd).st_mode)
        self._poll = select.poll()
        if self._may_wait:
            self._poll.register(self._fd, select.POLLOUT)

    def write(self, line: bytes) -> None:
        """Take one line, its LF included."""
        if self._size > KEEP_AT_MOST:
            self.dropped += 1
            return
        self._lines.append(line)
        self._size += len(line)
        if self._size - len(self._rest) >= FLUSH_AT:
            self.flush()

    def flush(self) -> None:
        """Hand over what the stream takes at once. Never raises: there is nowhere to tell."""
        self._flush(0)

    def close(self, wait_seconds: float = 2.0) -> None:
        """Hand over what is left, waiting for a slow reader at most so long."""
        self._flush(wait_seconds)

    def _flush(self, wait_seconds: float) -> None:
        if self._lines:
            octets = self._rest + b"".join(self._lines) if self._rest else b"".join(self._lines)
            self._lines.clear()
        else:
            octets = self._rest
        if self.dropped and len(octets) < FLUSH_AT:
            octets += b"%d log lines were dropped: the reader of the log is too slow\n" % self.dropped
            self.dropped = 0
        try:
            self._rest = self._hand_over(octets, wait_seconds)
        except (OSError, ValueError):
            self._rest = b""  # the reader is gone, or the disk is full
        self._size = len(self._rest)

    def _hand_over(self, octets: bytes, wait_seconds: float) -> bytes:
        """Returns what was not taken."""
        if self._fd < 0:
            self._stream.write(octets)
            return b""
        until = time.monotonic() + wait_seconds
        at = 0
        while at < len(octets):
            if self._may_wait:
                left = max(0.0, until - time.monotonic())
                if not self._poll.poll(left * 1000):
                    break
                piece = octets[at : at + _PIECE]
                if at + _PIECE < len(octets):
                    # Whole lines, where they fit: other workers write to the same pipe.
                    piece = piece[: piece.rfind(b"\n") + 1] or piece
            else:
                piece = octets[at:]
            try:
                at += os.write(self._fd, piece)
            except BlockingIOError:
                break
        return octets[at:]
