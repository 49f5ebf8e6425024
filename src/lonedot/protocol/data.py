"""The text after DATA: where it ends, and dot transparency.

Rules that must not break:

1. The end is CRLF.CRLF and nothing else, with no option. The CRLF of the DATA command counts as the first one, so
   `.` CRLF straight after the 354 ends an empty message. # RFC 5321 §4.1.1.4
2. One dot is removed from a line that starts after CRLF (or is the first line). A dot after a bare LF or a bare CR is
   text. Every other octet passes as it came. # RFC 5321 §4.5.2
3. How the octets were cut into segments makes no difference.

What could still become the start of the end (`CR`, `CRLF`, `CRLF.`, `CRLF.CR` as the last octets of a segment) is held
back until the next segment decides. Clean text is searched by memchr for its dots and never copied line by line.
"""

from __future__ import annotations

__all__ = ["DataDecoder"]

_END = b"\r\n.\r\n"
_LINE_DOT = b"\r\n."
_FEW_DOTS = 24
"""So many dots are looked at one by one (each costs a memchr); text with more is searched for `CRLF.` in one go."""


class DataDecoder:
    """Decodes one message. `feed` until `ended`; then `used` says where the end of data stands."""

    __slots__ = ("_held", "_is_virtual", "ended", "used")

    def __init__(self) -> None:
        self._held = b"\r\n"
        self._is_virtual = True  # the held CRLF is the DATA command's: it is no content
        self.ended = False
        self.used = 0
        """Octets of the last `feed`'s argument, counted from its first octet, that belong to the DATA phase."""

    @property
    def held(self) -> int:
        """How many octets wait for the next segment (0 … 4)."""
        return 0 if self._is_virtual and self._held == b"\r\n" else len(self._held)

    def feed(self, octets: bytes, start: int = 0) -> bytes:
        """The content in `octets[start:]`, dots removed; empty when all of it is held back.

        Octets behind the end of data are left alone: see `used`.
        """
        held = self._held
        if self._is_virtual:
            if start >= len(octets):
                self.used = len(octets)
                return b""
            if held == b"\r\n" and octets[start] != 46:  # no dot: nothing can end here
                self._held = held = b""
                self._is_virtual = False
        if held:
            joined = held + (octets[start:] if start else octets)
            content = self._decode(joined, 0)
            self.used += start - len(held)
            if self._is_virtual and content:
                self._is_virtual = False
                return content[2:]
            return content
        return self._decode(octets, start)

    def _decode(self, octets: bytes, start: int) -> bytes:
        stop = len(octets)
        line_dot = _find_line_dot(octets, start)
        has_stuffed = False
        if line_dot >= 0:
            if octets.startswith(b"\r\n", line_dot + 3):
                end = line_dot
            else:
                has_stuffed = line_dot + 3 < stop
                end = octets.find(_END, line_dot + 3)
            if end >= 0:
                self.ended = True
                self._held = b""
                self.used = end + 5
                # The CRLF before the lone dot is the last of the text.
                return _unstuffed(octets[start : end + 2], has_stuffed)
        self.used = stop
        keep = _held_back(octets, start, stop)
        self._held = octets[stop - keep :] if keep else b""
        if keep or start:
            octets = octets[start : stop - keep]
        return _unstuffed(octets, has_stuffed)


def _find_line_dot(octets: bytes, start: int) -> int:
    """Where `CRLF.` first stands in `octets[start:]`; -1 when nowhere."""
    position = start
    for _ in range(_FEW_DOTS):
        position = octets.find(b".", position)
        if position < 0:
            return -1
        if position - 2 >= start and octets[position - 1] == 10 and octets[position - 2] == 13:
            return position - 2
        position += 1
    return octets.find(_LINE_DOT, position)


def _unstuffed(octets: bytes, has_stuffed: bool) -> bytes:
    """`octets` hold no end of data, so every `CRLF.` in them is transparency; occurrences cannot overlap."""
    return octets.replace(_LINE_DOT, b"\r\n") if has_stuffed else octets


def _held_back(octets: bytes, start: int, stop: int) -> int:
    """How many of the last octets could be the start of the end of data."""
    last = octets[stop - 1] if stop > start else 0
    if last == 13:
        return 4 if octets.endswith(b"\r\n.\r", start) else 1
    if last == 10:
        return 2 if octets.endswith(b"\r\n", start) else 0
    if last == 46:
        return 3 if octets.endswith(b"\r\n.", start) else 0
    return 0
