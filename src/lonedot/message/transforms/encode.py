"""The transforms `encode-7bit` and `encode-long-lines`: re-encode the MIME parts concerned, and nothing else.

`encode-7bit` is for a hop without 8BITMIME (RFC 6152 §3): parts with 8-bit octets become quoted-printable (text) or
base64. `encode-long-lines` does the same to parts with a line of more than 998 octets. Header fields are encoded or
folded as far as their grammar allows.

Rules: every octet outside of the parts concerned stays; what a re-encoded part decodes to is what it held before;
signed parts are never touched (RFC 1847 §2.1); the same content gives the same octets, however it is stored.
A text becomes a quoted-printable one without another look at its charset: the octets are the same after decoding.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import assert_never

import msgspec

from lonedot.message.content import CHUNK_SIZE, Body, Content, MemoryBody
from lonedot.message.measure import measure, measure_body
from lonedot.message.mime import Kind, MimePart, Structure, walk
from lonedot.message.profile import LINE_LIMIT
from lonedot.message.survey import Region, RegionKind, Survey, by_region, survey
from lonedot.message.transforms.encode_body import (
    base64_lines,
    decode_quoted_printable,
    fold_lines,
    quoted_printable,
    rewrap_base64,
)
from lonedot.message.transforms.encode_header import CannotEncode, rewrite_header

__all__ = ["CannotEncode", "EncodedBody", "encode_7bit", "encode_long_lines"]

_MEMORY = 1024 * 1024
"""An encoded body up to this size is kept; a larger one is encoded again whenever it is read."""


class _Kind(enum.Enum):
    KEEP = "keep"
    REPLACE = "replace"
    QUOTE = "quote"
    REQUOTE = "requote"
    BASE64 = "base64"
    REWRAP = "rewrap"
    BLANK = "blank"
    """Between parts, where no reader looks: 8-bit octets become one plain sign, long lines are broken."""


class _Action(msgspec.Struct, frozen=True):
    kind: _Kind
    octets: bytes = b""
    """What replaces the region, or the sign that replaces 8-bit octets."""
    boundaries: tuple[bytes, ...] = ()
    """Of the multiparts around, whose delimiters must not come to be in quoted-printable text."""


_KEEP = _Action(_Kind.KEEP)


class EncodedBody(msgspec.Struct, frozen=True):
    """Another body with some of its regions encoded while it is read; `size` octets after that."""

    base: Body
    regions: tuple[Region, ...]
    actions: tuple[_Action, ...]
    size: int

    def chunks(self, limit: int = CHUNK_SIZE) -> Iterator[bytes]:
        for number, pieces in groupby(by_region(self.base, self.regions), itemgetter(0)):
            for piece in _perform(self.actions[number], (octets for _, octets in pieces)):
                yield from MemoryBody(piece).chunks(limit)

    def octets(self) -> bytes:
        return b"".join(self.chunks())


def _perform(action: _Action, pieces: Iterator[bytes]) -> Iterable[bytes]:
    match action.kind:
        case _Kind.KEEP:
            return pieces
        case _Kind.REPLACE:
            return (action.octets,)
        case _Kind.QUOTE:
            return quoted_printable(pieces, action.boundaries)
        case _Kind.REQUOTE:
            return quoted_printable(decode_quoted_printable(pieces), action.boundaries)
        case _Kind.BASE64:
            return base64_lines(pieces)
        case _Kind.REWRAP:
            return rewrap_base64(pieces)
        case _Kind.BLANK:
            table = bytes(range(128)) + action.octets * 128 if action.octets else None
            return fold_lines((piece.translate(table) for piece in pieces), LINE_LIMIT)
        case _:
            assert_never(action.kind)


def encode_7bit(content: Content) -> Content:
    """The content without 8-bit octets; the same one when it has none.

    Raises:
        CannotEncode: it is signed, or its structure or a field allows no encoding.
        OSError, ValueError: the body is a file that cannot be read, or is not as long as recorded.
    """
    return _Encoder(content, True).run() if content.has_eight_bit else content


def encode_long_lines(content: Content) -> Content:
    """The content without lines of more than 998 octets; the same one when it has none.

    Raises: as `encode_7bit`.
    """
    head, body = content.head_measure.profile, content.body_measure.profile
    return _Encoder(content, False).run() if head.long_line >= 0 or body.long_line >= 0 else content


class _Encoder:
    """Decides what is done with each region of one content."""

    def __init__(self, content: Content, seven_bit: bool) -> None:
        self._content = content
        self._seven_bit = seven_bit
        self._structure: Structure = walk(content)
        self._encodings: dict[int, bytes] = {}  # part: its new Content-Transfer-Encoding
        self._versions: set[int] = set()  # roots of messages that lack MIME-Version
        self._headers: set[int] = set()  # parts whose header section is rewritten

    def run(self) -> Content:
        content = self._content
        actions: dict[Region, _Action] = {}
        for region, found in survey(content.body, self._structure, encodings=not self._seven_bit).items():
            flaw = found.eight_bit if self._seven_bit else found.long_line
            actions[region] = _KEEP if flaw < 0 else self._decide(region, found)
        profile = content.head_measure.profile
        if (profile.eight_bit if self._seven_bit else profile.long_line) >= 0:
            self._headers.add(0)
        self._headers.update(self._encodings, self._versions)
        self._rewrite_headers(actions)
        head = self._rewrite(0, content.head) if 0 in self._headers else content.head
        body, body_measure = content.body, content.body_measure
        if any(action is not _KEEP for action in actions.values()):
            encoded = EncodedBody(body, tuple(actions), tuple(actions.values()), 0)
            body_measure = measure_body(encoded)
            size = body_measure.profile.size
            body = msgspec.structs.replace(encoded, size=size)
            if size <= _MEMORY:
                body = MemoryBody(body.octets())
        return Content(head, body, measure(head), body_measure)

    def _decide(self, region: Region, found: Survey) -> _Action:
        """What becomes of a region that cannot stay; notes what must change in header sections."""
        structure = self._structure
        part = structure.parts[region.part]
        if not structure.is_complete:
            raise CannotEncode("the message has more parts, or parts within parts, than are read")
        around = list(structure.ancestors(part))
        if any(outer.content_type == b"multipart/signed" for outer in around):
            raise CannotEncode(f"part {part.path} is signed; encoding it would break the signature")
        match region.kind:
            case RegionKind.HEADER:
                self._headers.add(region.part)
                return _KEEP  # replaced when all is known that changes in it
            case RegionKind.BETWEEN:
                self._relabel([part, *around])
                return _Action(_Kind.BLANK, self._plain_sign() if self._seven_bit else b"")
            case RegionKind.LEAF:
                self._relabel(around)
                return self._encode_leaf(region.part, part, found)
            case _:
                assert_never(region.kind)

    def _encode_leaf(self, number: int, part: MimePart, found: Survey) -> _Action:
        boundaries = tuple(outer.boundary for outer in self._structure.ancestors(part) if outer.boundary)
        if part.content_type.startswith(b"multipart/"):
            raise CannotEncode(
                f"part {part.path} says it is {part.content_type.decode()} but has no usable boundary"
            )
        if part.content_type in {b"message/rfc822", b"message/partial", b"message/external-body"}:
            raise CannotEncode(f"part {part.path}, {part.content_type.decode()}, must not be encoded")
        if part.encoding == b"quoted-printable":
            return _Action(_Kind.REQUOTE, boundaries=boundaries)
        if part.encoding == b"base64":
            if self._seven_bit or found.mismatch >= 0:
                raise CannotEncode(f"part {part.path} is declared base64 but holds other octets")
            return _Action(_Kind.REWRAP)
        if not part.has_identity_encoding:
            name = part.encoding.decode("ascii", "backslashreplace")
            raise CannotEncode(f"part {part.path} has the encoding {name}, which is not known here")
        is_text = part.content_type.startswith((b"text/", b"message/"))
        self._encodings[number] = b"quoted-printable" if is_text else b"base64"
        root = number
        while root and self._structure.parts[self._structure.parts[root].parent].kind is not Kind.MESSAGE:
            root = self._structure.parts[root].parent
        if not self._structure.parts[root].has_mime_version:
            self._versions.add(root)
        return _Action(_Kind.QUOTE, boundaries=boundaries) if is_text else _Action(_Kind.BASE64)

    def _relabel(self, composites: list[MimePart]) -> None:
        """What held 8-bit octets and is declared so holds none any more (RFC 2045 §6.4)."""
        if self._seven_bit:
            for part in composites:
                if part.encoding in {b"8bit", b"binary"}:
                    self._encodings[self._structure.parts.index(part)] = b"7bit"

    def _plain_sign(self) -> bytes:
        """What stands for 8-bit octets between parts: a sign of no boundary, so that no delimiter comes to be."""
        boundaries = b"".join(part.boundary for part in self._structure.parts)
        if not boundaries.isascii():
            raise CannotEncode("a boundary holds 8-bit octets")
        for sign in b"*#~%!|^":
            if sign not in boundaries:
                return bytes([sign])
        raise CannotEncode("the boundaries leave no sign for 8-bit octets between parts")

    def _rewrite_headers(self, actions: dict[Region, _Action]) -> None:
        """Replace the header sections of parts; a part that has no octets of header gets some."""
        wanted = {
            region for region in actions if region.kind is RegionKind.HEADER and region.part in self._headers
        }
        if not wanted:
            if self._headers - {0}:
                raise CannotEncode("a part has no header section")
            return
        regions = tuple(actions)
        held: dict[Region, list[bytes]] = {region: [] for region in wanted}
        for number, piece in by_region(self._content.body, regions):
            if regions[number] in wanted:
                held[regions[number]].append(piece)
        for region, pieces in held.items():
            actions[region] = _Action(_Kind.REPLACE, self._rewrite(region.part, b"".join(pieces)))
        if self._headers - {0} != {region.part for region in wanted}:
            raise CannotEncode("a part has no header section")

    def _rewrite(self, number: int, head: bytes) -> bytes:
        return rewrite_header(
            head,
            seven_bit=self._seven_bit,
            fold=not self._seven_bit,
            encoding=self._encodings.get(number),
            add_mime_version=number in self._versions,
        )
