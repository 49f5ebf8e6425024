"""Lines that are no commands: what makes one impossible, and over-long ones, which are read to their end.

Nothing of either is ever obeyed. Clean lines do not come here.
"""

from __future__ import annotations

from typing import NamedTuple

from lonedot.protocol import answers
from lonedot.terms.reply import Reply

__all__ = ["Breach", "JunkLine", "breach_in"]


class Breach(NamedTuple):
    """Why a line has no trustworthy end."""

    line: bytes
    """What stands before the octet that breaks it."""
    reply: Reply
    words: str


_BREACHES = {
    13: (answers.BARE_CR, "bare CR in a command"),
    10: (answers.BARE_LF, "bare LF in a command"),
    0: (answers.NUL, "NUL in a command"),
}


def breach_in(octets: bytes) -> Breach:
    """The first breach in `octets`, which hold a bare CR, a bare LF or a NUL before any line end."""
    first = min(place for octet in (b"\r", b"\n", b"\0") if (place := octets.find(octet)) >= 0)
    return Breach(octets[:first], *_BREACHES[octets[first]])


class JunkLine:
    """The rest of one over-long line."""

    __slots__ = ("_limit", "_swallowed", "has_ended")

    def __init__(self, limit: int) -> None:
        """`limit`: octets that are read in the hope of its end."""
        self._limit = limit
        self._swallowed = 0
        self.has_ended = False

    @property
    def is_endless(self) -> bool:
        """More than the limit has come."""
        return self._swallowed > self._limit

    def swallow(self, octets: bytes, start: int) -> int:
        """Takes it from `start` on; returns where it stops. A CR at the end of `octets` may yet get its LF."""
        end = octets.find(b"\r\n", start)
        self.has_ended = end >= 0
        stop = end if end >= 0 else len(octets) - octets.endswith(b"\r")
        self._swallowed += stop - start
        return end + 2 if end >= 0 else stop
