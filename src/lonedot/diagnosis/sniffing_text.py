"""The text of one message as it is said on the wire: where it ends, what is wrong in it, what stood last.

The end is found by the same machine that receives mail (`lonedot.protocol.data`). Beside it runs a search for what a
strict receiver does not take for the end and a careless sender does. Nothing but the last octets is kept.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from lonedot.protocol.data import DataDecoder

__all__ = ["KEPT", "Oddity", "SentText", "wrong_end_of"]

KEPT = 64
"""Octets at the end of the text that are kept."""

_AROUND = 24

_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n")
_NOT_STUFFED = re.compile(rb"\r\n\.(?![.\r])|\r\n\.\r(?!\n)")
# What a lax server takes for an end: one of its two line ends is not CR LF. Behind it, commands.
_HIDDEN = re.compile(
    rb"(?:(?:(?<!\r)\n|\r)\.(?:\r\n|\n|\r)|\r\n\.(?:\n|\r(?!\n))|\r\n\x00\.\r\n|\r\n\.\x00\r\n)"
    rb"(?:MAIL FROM:|RCPT TO:|EHLO |HELO |LHLO |RSET\r?\n|DATA\r?\n|BDAT )",
    re.IGNORECASE,
)
_WRONG_END = re.compile(rb"(?:\r\n|\r|\n)\.(?:\r\n|\r|\n)?\Z")
_OVERLAP = 24
"""Octets of what came before that a pattern may need."""


class Oddity(NamedTuple):
    """Something wrong in the text: where it first stands, and how often it does."""

    offset: int
    around: bytes
    frame: int
    at: float
    times: int


class SentText:
    """One message after DATA. `feed` until `has_ended`."""

    def __init__(self, *, from_start: bool = True) -> None:
        """`from_start`: its first octet is known, so that a dot there begins a line."""
        self._decoder = DataDecoder()
        self._from_start = from_start
        if not from_start:
            self._decoder.feed(b"x")
        self.size = 0
        """Octets so far, the end of data with them."""
        self.tail = b""
        self.has_ended = False
        self.end_pieces = 1
        """Segments over which the end of data was spread."""
        self.frame = 0
        self.at = 0.0
        self.bare: Oddity | None = None
        self.not_stuffed: Oddity | None = None
        self.hidden: Oddity | None = None
        self._carried = b"" if not from_start else b"\r\n"
        self._sizes: list[int] = []

    @property
    def is_empty(self) -> bool:
        return self.size == 0

    def feed(self, octets: bytes, at: float, frame: int) -> int:
        """Take octets of one segment; returns how many of them belong to the text."""
        self._decoder.feed(octets)
        used = min(len(octets), self._decoder.used) if self._decoder.ended else len(octets)
        self.has_ended = self._decoder.ended
        text = octets[:used]
        self.frame, self.at = frame, at
        self._search(text)
        self.size += used
        self.tail = (self.tail + text)[-KEPT:]
        self._sizes = [*self._sizes[-4:], used]
        if self.has_ended:
            left = 5
            for pieces, size in enumerate(reversed(self._sizes), 1):
                left -= size
                if left <= 0 or pieces == len(self._sizes):
                    self.end_pieces = pieces
                    break
        return used

    def _search(self, text: bytes) -> None:
        # The last octets wait for what follows them: a CR may yet get its LF, a dot its line end.
        carried = self._carried
        joined = carried + text
        stop = len(joined) if self.has_ended else max(len(joined) - 4, 0)
        base = self.size - len(carried)
        # What lies before `begun` was judged with the octets before.
        begun = max(0, len(carried) - 4)
        if not self._from_start and not self.size:
            begun = 1  # an LF there may belong to a CR that was not caught
        self.bare = self._odd(_BARE, joined, base, begun, stop, self.bare)
        closing = len(joined) - 5 if self.has_ended else len(joined)
        self.not_stuffed = self._odd(
            _NOT_STUFFED, joined, base, begun, min(stop, max(closing, 0)), self.not_stuffed
        )
        if self.bare is not None or b"\0" in joined or self.not_stuffed is not None:
            self.hidden = self._odd(_HIDDEN, joined, base, 0, len(joined), self.hidden, once=True)
        self._carried = joined[-_OVERLAP:]

    def _odd(
        self,
        pattern: re.Pattern[bytes],
        joined: bytes,
        base: int,
        begun: int,
        stop: int,
        known: Oddity | None,
        once: bool = False,
    ) -> Oddity | None:
        if once and known is not None:
            return known
        count = 0
        for match in pattern.finditer(joined):
            place = match.start()
            if place < begun or place >= stop:
                continue
            count += 1
            if known is None:
                around = joined[max(0, place - _AROUND) : match.end() + _AROUND]
                known = Oddity(max(0, base + place), around, self.frame, self.at, 0)
            if once:
                break
        return known._replace(times=known.times + count) if known is not None and count else known

    def conclude(self) -> None:
        """Nothing more comes: judge the last octets too."""
        if not self.has_ended:
            carried = self._carried
            begun = max(0, len(carried) - 4)
            base = self.size - len(carried)
            self.bare = self._odd(_BARE, carried, base, begun, len(carried), self.bare)
            self._carried = b""


def wrong_end_of(tail: bytes) -> bytes | None:
    """What its sender took for the end of data, when the text stops with it: `LF . CR LF`, `LF . LF`, …"""
    if tail.endswith(b"\r\n.\r\n"):
        return None
    found = _WRONG_END.search(tail)
    return found[0] if found is not None else None
