"""The record of what was said to a next hop and what it said, for whoever keeps it.

Rules: octets are recorded exactly as they went, apart from two things that never are: secrets (the machine replaces
them) and content (its number of octets and its last 64 stand for it). A line is a plain tuple, so that recording
costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from lonedot.spool.interface import TranscriptRef

__all__ = ["NOTE", "PEER", "RELAY", "Line", "TranscriptSink", "content_line"]

RELAY = ">"
"""We wrote it."""
PEER = "<"
"""The next hop wrote it."""
NOTE = "#"
"""What is not octets on the wire: a connection opened, TLS begun, content elided, a connection lost."""

Line = tuple[float, str, bytes]
"""Seconds since the session began, one of the three marks, octets."""


class TranscriptSink(Protocol):
    """Keeps transcripts. Must not raise and must not block."""

    def record(self, session: str, lines: Sequence[Line], peer: str = "") -> TranscriptRef | None:
        """Keep the lines of one attempt in the session of that id; where they lie, or None when they were dropped."""
        ...


def content_line(size: int, tail: bytes) -> bytes:
    """What stands for the content: its size on the wire and its last octets, escaped."""
    return b"%d octets of content, ending in %s" % (size, repr(tail)[2:-1].encode())
