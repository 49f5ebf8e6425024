"""What each stretch of a body holds: 8-bit octets, long lines, octets that contradict the declared encoding.

A *region* is a stretch of the body that is treated alike: a part's header section, the body of a leaf, or what stands
between them (delimiters, preambles, epilogues). Regions follow each other without a gap and begin at line starts.
One pass over the body, in chunks, by operations that run in C.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Iterator

import msgspec

from lonedot.message.content import Body
from lonedot.message.mime import MimePart, Structure
from lonedot.message.profile import LINE_LIMIT

__all__ = ["Region", "RegionKind", "Survey", "by_region", "regions_of", "survey"]


class RegionKind(enum.Enum):
    HEADER = "header"
    LEAF = "leaf"
    BETWEEN = "between"


class Region(msgspec.Struct, frozen=True):
    """Octets `start:end` of the body."""

    start: int
    end: int
    kind: RegionKind
    part: int
    """Index of the part that it belongs to; of a region between parts, of the innermost part around its start."""


class Survey(msgspec.Struct, frozen=True):
    """The first place of each flaw in a region, counted in the body; -1 means nowhere."""

    eight_bit: int = -1
    long_line: int = -1
    mismatch: int = -1
    """The first octet that contradicts the declared Content-Transfer-Encoding (leaves only)."""


def regions_of(structure: Structure, size: int) -> tuple[Region, ...]:
    """The regions of a body of `size` octets, in order; none is empty."""
    marks: list[tuple[int, int, RegionKind, int]] = []
    for number, part in enumerate(structure.parts):
        if number:
            marks.append((part.header_start, part.header_end, RegionKind.HEADER, number))
        if part.is_leaf:
            marks.append((part.body_start, part.body_end, RegionKind.LEAF, number))
    regions: list[Region] = []
    place = last = 0
    for start, end, kind, number in marks:
        if start > place:
            regions.append(Region(place, start, RegionKind.BETWEEN, _owner(structure, last, place)))
        if end > start:
            regions.append(Region(start, end, kind, number))
        place, last = max(place, end), number
    if place < size:
        regions.append(Region(place, size, RegionKind.BETWEEN, _owner(structure, last, place)))
    return tuple(regions)


def _owner(structure: Structure, number: int, place: int) -> int:
    """Index of the innermost composite part around `place`, going outwards from part `number`."""
    while number > 0:
        part = structure.parts[number]
        if not part.is_leaf and part.body_start <= place < part.body_end:
            return number
        number = part.parent
    return 0


def by_region(body: Body, regions: Iterable[Region]) -> Iterator[tuple[int, bytes]]:
    """The body in pieces, each with the index of its region; no piece crosses a border.

    `regions` cover the body without a gap.
    """
    ahead = iter(enumerate(regions))
    number, region = next(ahead, (0, None))
    place = 0
    for chunk in body.chunks():
        start = 0
        while start < len(chunk):
            while region is not None and place >= region.end:
                number, region = next(ahead, (number, None))
            if region is None:
                return
            stop = min(len(chunk), start + region.end - place)
            yield number, chunk[start:stop] if stop - start < len(chunk) else chunk
            place += stop - start
            start = stop


def survey(body: Body, structure: Structure, *, encodings: bool = False) -> dict[Region, Survey]:
    """Look through every region. With `encodings`, leaves are also compared with what they declare.

    Raises:
        OSError, ValueError: the body is a file that cannot be read, or is not as long as recorded.
    """
    regions = regions_of(structure, body.size)
    probes = [_Probe(region, structure.parts[region.part], encodings) for region in regions]
    for number, piece in by_region(body, regions):
        probes[number].feed(piece)
    return {probe.region: probe.finish() for probe in probes}


_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/= \t\r\n"
_BLANK = b"= \t\r\n"
_BAD_QUOTED = re.compile(rb"=(?![0-9A-Fa-f]{2}|[ \t]*(?:\r|\n|\Z))")
_RUN = LINE_LIMIT + 1


class _Probe:
    """Looks for flaws in one region."""

    __slots__ = (
        "_carry",
        "_encoding",
        "_place",
        "_run",
        "_significant",
        "eight_bit",
        "long_line",
        "mismatch",
        "region",
    )

    def __init__(self, region: Region, part: MimePart, encodings: bool) -> None:
        self.region = region
        self.eight_bit = self.long_line = self.mismatch = -1
        self._encoding = part.encoding or b"7bit" if encodings and region.kind is RegionKind.LEAF else None
        self._place = region.start
        self._run = 0  # octets since the last line end
        self._significant = 0  # of base64: octets that are neither white space nor padding
        self._carry = b""

    def feed(self, piece: bytes) -> None:
        if self.eight_bit < 0 and not piece.isascii():
            self.eight_bit = self._place + _first_eight_bit(piece)
        if self.long_line < 0:
            self._rule(piece)
        if self.mismatch < 0 and self._encoding is not None:
            match self._encoding:
                case b"base64":
                    self._compare_base64(piece)
                case b"quoted-printable":
                    self._compare_quoted(piece)
                case b"7bit":
                    self.mismatch = self.eight_bit
        self._place += len(piece)

    def finish(self) -> Survey:
        if self.mismatch < 0:
            if self._encoding == b"base64" and self._significant % 4 == 1:
                self.mismatch = max(self.region.end - 1, self.region.start)  # no octets end in one sign
            elif self._encoding == b"quoted-printable" and (found := _BAD_QUOTED.search(self._carry)):
                self.mismatch = self._place - len(self._carry) + found.start()
        return Survey(self.eight_bit, self.long_line, self.mismatch)

    def _rule(self, piece: bytes) -> None:
        """Look for a run of more than 998 octets without a line end, by jumps from line end to line end."""
        place, run, size = 0, self._run, len(piece)
        while size - place >= _RUN - run:
            stop = place + _RUN - run
            at = piece.rfind(b"\n", place, stop)
            if at < 0:
                at = piece.rfind(b"\r", place, stop)
            if at < 0:
                self.long_line = self._place + place - run
                return
            place, run = at + 1, 0
        at = max(piece.rfind(b"\n", place), piece.rfind(b"\r", place))
        self._run = run + size - place if at < 0 else size - at - 1

    def _compare_base64(self, piece: bytes) -> None:
        strange = piece.translate(None, _BASE64)
        if strange:
            self.mismatch = self._place + piece.index(strange[:1])
        else:
            self._significant += len(piece.translate(None, _BLANK))

    def _compare_quoted(self, piece: bytes) -> None:
        if self.eight_bit >= 0:
            self.mismatch = self.eight_bit
            return
        base = self._place - len(self._carry)
        data = self._carry + piece
        # An equals sign near the end is judged when what follows it has been seen.
        cut = data.rfind(b"=", max(len(data) - 200, 0))
        self._carry = data[cut:] if cut >= 0 else b""
        found = _BAD_QUOTED.search(data)
        if found and (cut < 0 or found.start() < cut):
            self.mismatch = base + found.start()


def _first_eight_bit(octets: bytes) -> int:
    try:
        octets.decode("ascii")
    except UnicodeDecodeError as error:
        return error.start
    return -1
