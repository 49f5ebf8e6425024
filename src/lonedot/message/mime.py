"""The MIME structure of a message as spans of octets: parts, header sections, boundaries. It only reads.

Rules: whatever the octets are, `walk` returns and never raises for what it finds (a file that cannot be read still
raises); everything a stranger controls is bounded, and where a bound is met the structure says that it is not
complete; the body is read once, in chunks, and searched by operations that run in C.

All offsets count in the body, apart from those of the root's header section, which is the head. A part's body ends
before the line end that precedes the next delimiter: that line end belongs to the delimiter (RFC 2046 §5.1.1).
Delimiters are compared as whole lines, so that one boundary may be the beginning of another.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator

import msgspec

from lonedot.message.content import Content, MemoryBody

__all__ = ["HEADER_LIMIT", "Kind", "MimePart", "Structure", "walk"]

HEADER_LIMIT = 64 * 1024
"""Octets of a part's header section that are read."""
MAX_DEPTH = 16
MAX_PARTS = 2000
MAX_BOUNDARY = 200
"""RFC 2046 §5.1.1 says 70."""
MAX_PADDING = 256
"""Octets of white space behind a boundary on its line."""
MAX_LOOKALIKES = 100_000
"""Lines that begin like a delimiter and are none."""
HEADERS_TOTAL = 4 * 1024 * 1024
"""Octets of all header sections together."""
_KEEP = 2 + MAX_BOUNDARY + 2 + MAX_PADDING + 2


class Kind(enum.Enum):
    LEAF = "leaf"
    MULTIPART = "multipart"
    MESSAGE = "message"
    """A message/rfc822 whose content is walked too: its only child."""


class MimePart(msgspec.Struct, frozen=True):
    """One entity (RFC 2045 §2.4)."""

    path: str
    """Its place: `1` is the root, `1.2` its second child."""
    parent: int
    """Index in `Structure.parts`; -1 for the root."""
    depth: int
    kind: Kind
    header_start: int
    header_end: int
    """Behind the empty line. Of the root: 0 and the length of the head."""
    field_end: int
    """Where the fields end: of the empty line, or of the first line that is no field."""
    body_start: int
    body_end: int
    content_type: bytes
    """`type/subtype` in lower case; the default of RFC 2045 §5.2 when absent or malformed."""
    encoding: bytes
    """Content-Transfer-Encoding in lower case; empty when absent."""
    encoding_field: tuple[int, int]
    """The span of that field, line end included; (-1, -1) when absent."""
    boundary: bytes
    is_ended: bool
    """A multipart: its closing delimiter was found."""
    closed_at: int
    """Behind the line of the closing delimiter; -1 when there is none."""
    has_mime_version: bool

    @property
    def is_leaf(self) -> bool:
        return self.kind is Kind.LEAF

    @property
    def has_identity_encoding(self) -> bool:
        """The octets are the content itself: nothing declared, 7bit, 8bit or binary."""
        return self.encoding in _IDENTITY


class Structure(msgspec.Struct, frozen=True):
    """Every part in the order of the octets, the root first."""

    parts: tuple[MimePart, ...]
    is_complete: bool
    """False when a bound was met: what lies behind is one undivided leaf."""

    @property
    def root(self) -> MimePart:
        return self.parts[0]

    @property
    def unended(self) -> tuple[MimePart, ...]:
        """Multiparts without their closing delimiter."""
        return tuple(p for p in self.parts if p.kind is Kind.MULTIPART and not p.is_ended)

    def ancestors(self, part: MimePart) -> Iterator[MimePart]:
        """Those around a part, the nearest first."""
        while part.parent >= 0:
            part = self.parts[part.parent]
            yield part


_IDENTITY = frozenset({b"", b"7bit", b"8bit", b"binary", b"7-bit", b"8-bit"})

# A field as far as the start of the next line that is no continuation; any line end is taken.
_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:([^\r\n]*+(?:(?:\r\n|\r|\n)(?=[ \t])[^\r\n]*+)*)(?:\r\n|\r|\n|\Z)")
_LINE_END = re.compile(rb"\r\n|\r|\n")
_TYPE = re.compile(rb"[ \t]*([!#-'*+.0-9A-Z^-~-]+)/([!#-'*+.0-9A-Z^-~-]+)", re.IGNORECASE)
_PARAMETER = re.compile(rb';\s*([^\s=;"]+)\s*=\s*("[^"\\]*+(?:\\.[^"\\]*+)*"|[^;]*+)', re.DOTALL)
_QUOTED_PAIR = re.compile(rb"\\(.)", re.DOTALL)
_TOKEN = re.compile(rb"\s*([^\s;(]*)")


class _Header(msgspec.Struct):
    """What the walk needs of one header section."""

    content_type: bytes | None = None
    boundary: bytes = b""
    encoding: bytes = b""
    encoding_field: tuple[int, int] = (-1, -1)
    has_mime_version: bool = False
    field_end: int = 0
    end: int = 0


def _read_header(octets: bytes, start: int, stop: int, base: int) -> _Header:
    """Read the fields in `octets[start:stop]`; offsets in the result have `base` added."""
    header = _Header()
    place = start
    while found := _FIELD.match(octets, place, stop):
        name = found.group(1).lower()
        if name == b"content-type" and header.content_type is None:
            header.content_type, header.boundary = _read_type(found.group(2))
        elif name == b"content-transfer-encoding" and header.encoding_field[0] < 0:
            token = _TOKEN.match(_LINE_END.sub(b"", found.group(2)))
            header.encoding = token.group(1).lower() if token else b""
            header.encoding_field = (base + found.start(), base + found.end())
        elif name == b"mime-version":
            header.has_mime_version = True
        place = found.end()
    header.field_end = base + place
    empty = _LINE_END.match(octets, place, stop)
    header.end = base + (empty.end() if empty else place)
    return header


def _read_type(value: bytes) -> tuple[bytes | None, bytes]:
    """Type and boundary of a Content-Type value."""
    value = _LINE_END.sub(b"", value)
    found = _TYPE.match(value)
    if not found:
        return None, b""
    content_type = (found.group(1) + b"/" + found.group(2)).lower()
    if not content_type.startswith(b"multipart/"):
        return content_type, b""
    for parameter in _PARAMETER.finditer(value, found.end()):
        if parameter.group(1).lower() == b"boundary":
            boundary = parameter.group(2)
            if boundary.startswith(b'"'):
                boundary = _QUOTED_PAIR.sub(rb"\1", boundary[1:-1])
            else:
                boundary = boundary.partition(b" ")[0].partition(b"\t")[0]
            boundary = boundary.rstrip()
            return content_type, boundary if len(boundary) <= MAX_BOUNDARY else b""
    return content_type, b""


class _Window:
    """A stretch of the body in memory, moved on as it is read. Offsets are those of the body."""

    __slots__ = ("_chunks", "at_end", "base", "data", "end")

    def __init__(self, content: Content) -> None:
        body = content.body
        self._chunks = iter((body.data,)) if isinstance(body, MemoryBody) else body.chunks()
        self.data = b""
        self.base = 0
        self.end = 0
        self.at_end = False

    def reach(self, offset: int) -> None:
        """Read on until `offset` is inside, or the body has ended."""
        while self.end < offset and not self.at_end:
            self.more(self.base)

    def more(self, keep_from: int) -> None:
        """Read the next chunk and let go of what is before `keep_from`."""
        chunk = next(self._chunks, None)
        if chunk is None:
            self.at_end = True
            return
        keep_from = max(keep_from, self.base)
        self.data = self.data[keep_from - self.base :] + chunk if keep_from < self.end else chunk
        self.base = min(keep_from, self.end)
        self.end += len(chunk)


class _Entity:
    """A part while it is open."""

    __slots__ = (
        "body_end",
        "body_start",
        "children",
        "closed_at",
        "depth",
        "header",
        "header_start",
        "is_ended",
        "kind",
        "lookalikes",
        "needle",
        "next_at",
        "next_end",
        "next_is_close",
        "number",
        "parent",
        "path",
        "searched",
        "type",
    )

    def __init__(self, number: int, parent: _Entity | None, header: _Header, header_start: int) -> None:
        self.number = number
        self.parent = parent.number if parent else -1
        self.path: str = f"{parent.path}.{parent.children}" if parent else "1"
        self.depth: int = parent.depth + 1 if parent else 0
        self.header = header
        self.header_start = header_start
        self.kind = Kind.LEAF
        self.type = b""
        self.body_start = 0
        self.body_end = 0
        self.children: int = 0
        self.is_ended = False
        self.closed_at = -1
        self.needle = b""
        self.searched = 0
        self.next_at = -1
        self.next_end = -1
        self.next_is_close = False
        self.lookalikes = 0

    @property
    def is_searched(self) -> bool:
        """Its delimiters count: a multipart that is not closed."""
        return bool(self.needle) and not self.is_ended

    def find(self, window: _Window, start: int, limit: int) -> int:
        """Offset of the first delimiter of this multipart in `start:limit`, -1 for none. No octet is searched twice."""
        if self.next_at >= start:
            return self.next_at if self.next_at < limit else -1
        data, base, needle = window.data, window.base, self.needle
        place = max(start, self.searched) - base
        stop = min(limit - base + len(needle), len(data))
        while (at := data.find(needle, place, stop)) >= 0:
            if (at + base == 0 or data[at - 1] in b"\r\n") and self._ends_line(data, at + len(needle), base):
                self.next_at = at + base
                self.searched = at + base + 1
                return self.next_at if self.next_at < limit else -1
            self.lookalikes += 1
            if self.lookalikes > MAX_LOOKALIKES:
                raise _TooMuch
            place = at + 1
        self.searched = max(self.searched, limit)
        return -1

    def _ends_line(self, data: bytes, place: int, base: int) -> bool:
        """What follows the boundary leaves it a delimiter: `--` perhaps, white space, and the end of the line."""
        self.next_is_close = data[place : place + 2] == b"--"
        if self.next_is_close:
            place += 2
        rest = data[place : place + MAX_PADDING + 2].lstrip(b" \t")
        at = min(place + MAX_PADDING + 2, len(data)) - len(rest)
        if rest[:2] == b"\r\n":
            at += 2
        elif rest[:1] in (b"\r", b"\n"):
            at += 1
        elif rest or at - place > MAX_PADDING:
            return False
        self.next_end = at + base
        return True


class _TooMuch(Exception):
    """A bound was met."""


class _Walker:
    __slots__ = ("_at", "_entities", "_header_octets", "_path", "_window")

    def __init__(self, content: Content) -> None:
        self._window = _Window(content)
        self._entities: list[_Entity] = []
        self._path: list[_Entity] = []  # the open ones, from the root inwards
        self._at = 0  # everything before it has been told apart
        self._header_octets = 0

    def run(self, content: Content) -> Structure:
        is_complete = True
        header = _read_header(content.head, 0, min(len(content.head), HEADERS_TOTAL), 0)
        root = _Entity(0, None, header, 0)
        header.end = len(content.head)
        try:
            self._enter(root, 0, b"text/plain")
            while self._step():
                pass
        except _TooMuch:
            is_complete = False
        self._close(0, content.body.size)
        return Structure(tuple(_freeze(entity) for entity in self._entities), is_complete)

    def _step(self) -> bool:
        """Go to the next delimiter and act on it; False at the end of the body."""
        owners = [entity for entity in self._path if entity.is_searched]
        if not owners:
            return False
        window = self._window
        while True:
            limit = window.end if window.at_end else window.end - _KEEP
            owner, at = owners[0], limit
            for entity in owners:
                found = entity.find(window, self._at, limit)
                if 0 <= found <= at:
                    owner, at = entity, found  # of two at one place the inner one
            if at < limit:
                break
            if window.at_end:
                return False
            window.more(max(limit, self._at) - 2)
        self._at = owner.next_end
        self._close(self._path.index(owner) + 1, self._before_line_end(at))
        if owner.next_is_close:
            owner.is_ended = True
            owner.closed_at = owner.next_end
        else:
            self._start_child(
                owner, b"message/rfc822" if owner.type == b"multipart/digest" else b"text/plain"
            )
        return True

    def _before_line_end(self, at: int) -> int:
        """Where the text before the delimiter at `at` ends."""
        data, place = self._window.data, at - self._window.base
        if data[max(place - 2, 0) : place] == b"\r\n":
            return at - 2
        return at - 1 if place > 0 else at

    def _start_child(self, parent: _Entity, default: bytes) -> None:
        """Read the header section that starts here, and go in."""
        if len(self._entities) >= MAX_PARTS or self._header_octets > HEADERS_TOTAL:
            raise _TooMuch
        window, start = self._window, self._at
        window.reach(start + HEADER_LIMIT + _KEEP)
        bound = min(start + HEADER_LIMIT, window.end)
        for entity in self._path:
            if entity.is_searched and (at := entity.find(window, start, bound)) >= 0:
                bound = at
        header = _read_header(window.data, start - window.base, bound - window.base, window.base)
        self._header_octets += header.end - start
        parent.children += 1
        self._enter(_Entity(len(self._entities), parent, header, start), header.end, default)

    def _enter(self, entity: _Entity, body_start: int, default: bytes) -> None:
        """Open an entity whose body starts at `body_start`."""
        entity.body_start = self._at = body_start
        header = entity.header
        entity.type = header.content_type or default
        self._entities.append(entity)
        self._path.append(entity)
        if entity.depth >= MAX_DEPTH:
            return
        if header.boundary:
            entity.kind = Kind.MULTIPART
            entity.needle = b"--" + header.boundary
            entity.searched = body_start
        elif entity.type == b"message/rfc822" and header.encoding in _IDENTITY:
            entity.kind = Kind.MESSAGE
            self._start_child(entity, b"text/plain")

    def _close(self, keep: int, end: int) -> None:
        """Close all open entities but the outermost `keep`; they end at `end`."""
        for entity in self._path[keep:]:
            entity.body_end = max(end, entity.body_start)
        del self._path[keep:]


def _freeze(entity: _Entity) -> MimePart:
    header = entity.header
    return MimePart(
        path=entity.path,
        parent=entity.parent,
        depth=entity.depth,
        kind=entity.kind,
        header_start=entity.header_start,
        header_end=header.end,
        field_end=header.field_end,
        body_start=entity.body_start,
        body_end=entity.body_end,
        content_type=entity.type,
        encoding=header.encoding,
        encoding_field=header.encoding_field,
        boundary=header.boundary,
        is_ended=entity.is_ended,
        closed_at=entity.closed_at,
        has_mime_version=header.has_mime_version,
    )


def walk(content: Content) -> Structure:
    """Tell the parts of a message apart. The body is read only when the root is a multipart or holds a message.

    Raises:
        OSError, ValueError: the body is a file that cannot be read, or is not as long as recorded.
    """
    return _Walker(content).run(content)
