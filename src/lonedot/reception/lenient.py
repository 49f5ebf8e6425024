"""The end of data as old servers took it: also after a line end that is only LF. For the recorder alone.

A relay must never read like this: whoever takes `LF . CR LF` for the end lets a sender hide a second message in the
first. The recorder can, so that one can see what an old receiver would have made of the same octets.
"""

from __future__ import annotations

import re

__all__ = ["LenientDecoder", "look_alike"]

_END = re.compile(rb"\r?\n\.\r?\n")
_LOOK_ALIKE = re.compile(rb"(?:\r\n|\r|\n)\.(?:\r\n|\r|\n)\Z")
_END_OF_DATA = b"\r\n.\r\n"


class LenientDecoder:
    """Takes the octets behind 354 and finds where an old server would have seen the end."""

    __slots__ = ("_octets", "_searched", "ended_by")

    def __init__(self) -> None:
        self._octets = bytearray()
        self._searched = 0
        self.ended_by = b""
        """The octets that were taken for the end; empty while there is none."""

    @property
    def size(self) -> int:
        return len(self._octets)

    @property
    def octets(self) -> bytes:
        """What was fed, up to and with the end."""
        return bytes(self._octets)

    def feed(self, octets: bytes) -> bytes | None:
        """Take octets. What stands behind the end, once it is there; None before."""
        taken = self._octets
        taken += octets
        if not self._searched and taken[:3] == b".\r\n":
            return self._end(0, 3)
        if not self._searched and taken[:2] == b".\n":
            return self._end(0, 2)
        found = _END.search(taken, max(0, self._searched - 4))
        self._searched = max(1, len(taken)) if len(taken) > 2 else 0
        return None if found is None else self._end(found.start(), found.end())

    def content(self) -> bytes:
        """The message: the line of the end removed, a dot at the start of a line taken away behind CRLF and LF."""
        text = self._octets[: len(self._octets) - len(self.ended_by)]
        ends_line = self.ended_by.partition(b".")[0]
        lead = text[:1] == b"."
        plain = bytes(text).replace(b"\n.", b"\n") + ends_line
        return plain[1:] if lead else plain

    def _end(self, start: int, end: int) -> bytes:
        rest = bytes(self._octets[end:])
        self.ended_by = bytes(self._octets[start:end])
        del self._octets[end:]
        return rest


def look_alike(octets: bytes) -> bytes:
    """The octets at the end that look like an end of data and are none; empty when there are none such."""
    found = _LOOK_ALIKE.search(octets[-8:])
    if found is None or found[0] == _END_OF_DATA:
        return b""
    return found[0]
