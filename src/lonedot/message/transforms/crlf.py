"""The transform `crlf`: CRLF, lone CR and lone LF each become one CRLF; text that ends in none of them gets one.

This is the one repair of line ends there is. `LF CR` is two line ends and `CR CR LF` as well: nothing is guessed about
what a writer meant by them, and no octet of text is lost. Head and body are repaired each for itself, which is the same
as the repair of the whole because a head ends behind a complete line end.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from lonedot.message.content import CHUNK_SIZE, Body, Content, Measure, MemoryBody
from lonedot.message.measure import Meter, measure
from lonedot.message.profile import Profile

__all__ = ["CrlfBody", "CrlfRepair", "repair_line_ends", "repaired"]


class CrlfRepair:
    """Repairs line ends of octets that come in pieces."""

    __slots__ = ("_cr_open", "_ends_open")

    def __init__(self) -> None:
        self._cr_open = False  # a CR stood last: its LF may come
        self._ends_open = False  # the text does not end in a line end

    def feed(self, chunk: bytes) -> bytes:
        """The repaired octets, at most one line end behind what was fed."""
        if self._cr_open:
            chunk = b"\r" + chunk
            self._cr_open = False
        if chunk.endswith(b"\r"):
            self._cr_open = True
            chunk = chunk[:-1]
        if not chunk:
            return b""
        chunk = _joined(chunk)
        self._ends_open = not chunk.endswith(b"\n")
        return chunk

    def finish(self, add_final: bool = True) -> bytes:
        """What is still to come; with `add_final` also the line end that the last line lacks."""
        if self._cr_open:
            return b"\r\n"
        return b"\r\n" if self._ends_open and add_final else b""


def repaired(octets: bytes, add_final: bool = True) -> bytes:
    """All octets repaired at once."""
    octets = _joined(octets)
    if add_final and octets and not octets.endswith(b"\n"):
        octets += b"\r\n"
    return octets


class CrlfBody(msgspec.Struct, frozen=True):
    """Another body with its line ends repaired while it is read; `size` octets after the repair."""

    base: Body
    size: int

    def chunks(self, limit: int = CHUNK_SIZE) -> Iterator[bytes]:
        repair = CrlfRepair()
        for chunk in self.base.chunks(limit):
            yield from MemoryBody(repair.feed(chunk)).chunks(limit)
        if rest := repair.finish():
            yield rest

    def octets(self) -> bytes:
        return b"".join(self.chunks())


def repair_line_ends(content: Content, body_measure: Measure | None = None) -> Content:
    """The transform. `body_measure`: of the repaired body, when it is known; else a stored body is read once."""
    body, head = content.body, content.head
    head_measure = content.head_measure
    if _needs_repair(head_measure.profile, not body.size):
        head = repaired(head, not body.size)
        head_measure = measure(head)
    if not _needs_repair(content.body_measure.profile, True):
        if head is content.head:
            return content
        return Content(head, body, head_measure, content.body_measure)
    if isinstance(body, MemoryBody):
        body = MemoryBody(repaired(body.data))
        return Content(head, body, head_measure, body_measure or measure(body.data))
    if body_measure is None:
        meter = Meter()
        for chunk in CrlfBody(body, 0).chunks():
            meter.feed(chunk)
        body_measure = meter.finish()
    return Content(head, CrlfBody(body, body_measure.profile.size), head_measure, body_measure)


def _needs_repair(profile: Profile, add_final: bool) -> bool:
    return profile.bare_cr >= 0 or profile.bare_lf >= 0 or (add_final and not profile.ends_with_line_end)


def _joined(octets: bytes) -> bytes:
    return octets.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
