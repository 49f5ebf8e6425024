"""The header section as spans over the octets of a head. Nothing is written again; text is decoded when asked for.

A *head* is every octet up to and including the first empty line, or all of a message that has none. A line ends at
CRLF, at a lone CR or at a lone LF, so that a damaged head is read in the same way as the repaired one.

Rules: `head[field.start:field.end]` is exactly the field with its line end; fields stand one behind the other without a
gap; the first line that is neither a field nor a continuation ends the header section (`malformed` tells where).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from lonedot.message.mailboxes import Mailbox, read_mailboxes
from lonedot.message.words import decode_text

__all__ = ["Field", "HeaderView", "end_of_head"]

# RFC 5322 §2.2: a name is printable ASCII but the colon; §4.5.3: white space before the colon was once allowed.
_NAME = rb"[!-9;-~]+[ \t]*:"
_WHOLE_NAME = re.compile(rb"[!-9;-~]+")
_FIRST = re.compile(_NAME)
_NOT_A_FIELD = re.compile(rb"\n(?![ \t]|" + _NAME + rb")")
_NOT_A_FIELD_DAMAGED = re.compile(rb"(?:\r\n|\r(?!\n)|\n)(?![ \t]|" + _NAME + rb")")
_FIELD_END = re.compile(rb"\n(?![ \t])")
_FIELD_END_DAMAGED = re.compile(rb"(?:\r\n|\r(?!\n)|\n)(?![ \t])")
_EMPTY_LINES = (b"\r\n", b"\n", b"\r")


class Field(msgspec.Struct, frozen=True):
    """One header field."""

    start: int
    end: int
    """Behind its last line end."""
    name: bytes
    """As it stands, without white space before the colon."""
    raw: bytes
    """Behind the colon, folds and leading white space included, without the last line end."""

    @property
    def value(self) -> bytes:
        """The value unfolded (RFC 5322 §2.2.3), without white space around it."""
        return _unfold(self.raw)

    @property
    def text(self) -> str:
        """The value as a person reads it: encoded words decoded (RFC 2047)."""
        return decode_text(self.value)


class HeaderView:
    """Reads the header section of a head. Cheap to make; fields are found when asked for."""

    __slots__ = ("_fields", "_lower", "_section_end", "_stray", "head")

    def __init__(self, head: bytes) -> None:
        self.head = head
        self._fields: tuple[Field, ...] | None = None
        self._lower: bytes | None = None
        self._section_end = -1
        self._stray: bool | None = None

    @property
    def section_end(self) -> int:
        """Behind the last field: where the empty line stands, or what is malformed, or where the head ends."""
        if self._section_end < 0:
            head = self.head
            if not _FIRST.match(head):
                self._section_end = 0
            else:
                pattern = _NOT_A_FIELD_DAMAGED if self.has_stray else _NOT_A_FIELD
                found = pattern.search(head)
                self._section_end = found.end() if found else len(head)
        return self._section_end

    @property
    def has_stray(self) -> bool:
        """The head has a CR or LF outside of a CRLF."""
        if self._stray is None:
            head = self.head
            pairs = head.count(b"\r\n")
            self._stray = head.count(b"\n") != pairs or head.count(b"\r") != pairs
        return self._stray

    @property
    def has_separator(self) -> bool:
        """An empty line stands right behind the fields, and ends the head."""
        return self.head[self.section_end :] in _EMPTY_LINES

    @property
    def malformed(self) -> int:
        """Offset of the first line that is neither a field nor a continuation (nor the empty line); -1 if none."""
        end = self.section_end
        return -1 if end == len(self.head) or self.has_separator else end

    @property
    def is_well_formed(self) -> bool:
        """At least one field, and nothing but fields and the empty line."""
        return self.section_end > 0 and self.malformed < 0

    @property
    def fields(self) -> tuple[Field, ...]:
        """All fields in their order."""
        if self._fields is None:
            self._fields = tuple(self._read_fields())
        return self._fields

    def first(self, name: str | bytes) -> Field | None:
        """The first field of that name, in any case of letters."""
        wanted = _octets(name)
        if self._fields is None and not self.has_stray:
            start = self._find(wanted, 0)
            return self._field_at(start) if start >= 0 else None
        return next((field for field in self.fields if field.name.lower() == wanted), None)

    def get(self, name: str | bytes) -> bytes | None:
        """The unfolded value of the first field of that name."""
        field = self.first(name)
        return None if field is None else field.value

    def has(self, name: str | bytes) -> bool:
        """A field of that name is there."""
        if self._fields is None and not self.has_stray:
            return self._find(_octets(name), 0) >= 0
        return self.first(name) is not None

    def every(self, name: str | bytes) -> tuple[Field, ...]:
        """All fields of that name, in their order."""
        wanted = _octets(name)
        if self._fields is not None or self.has_stray:
            return tuple(field for field in self.fields if field.name.lower() == wanted)
        found = []
        start = self._find(wanted, 0)
        while start >= 0:
            field = self._field_at(start)
            found.append(field)
            start = self._find(wanted, field.end)
        return tuple(found)

    def all(self, name: str | bytes) -> tuple[bytes, ...]:
        """The unfolded values of all fields of that name, in their order."""
        return tuple(field.value for field in self.every(name))

    def get_text(self, name: str | bytes) -> str | None:
        """The value of the first field of that name as a person reads it: encoded words decoded (RFC 2047)."""
        value = self.get(name)
        return None if value is None else decode_text(value)

    @property
    def subject(self) -> str:
        """As a person reads it; empty when there is none."""
        return self.get_text(b"subject") or ""

    def mailboxes(self, name: str | bytes) -> tuple[Mailbox, ...]:
        """The mailboxes in all fields of that name (From, To, Cc, …), in their order."""
        return tuple(box for value in self.all(name) for box in read_mailboxes(value))

    def count_hops(self) -> int:
        """How many Received fields there are (RFC 5321 §6.3)."""
        return len(self.every(b"received"))

    def _read_fields(self) -> Iterator[Field]:
        start, end = 0, self.section_end
        while start < end:
            field = self._field_at(start)
            yield field
            start = field.end

    def _field_at(self, start: int) -> Field:
        head = self.head
        pattern = _FIELD_END_DAMAGED if self.has_stray else _FIELD_END
        found = pattern.search(head, start)
        end = found.end() if found else len(head)
        colon = head.index(b":", start)
        stop = end
        if stop > colon + 1 and head[stop - 1] == 10:
            stop -= 1
        if stop > colon + 1 and head[stop - 1] == 13 and (stop < end or head[end - 1] == 13):
            stop -= 1
        return Field(start, end, head[start:colon].rstrip(b" \t"), head[colon + 1 : stop])

    def _find(self, wanted: bytes, start: int) -> int:
        """Offset of the next field called `wanted` (lower case) from the line start `start` on; no strays."""
        if not _WHOLE_NAME.fullmatch(wanted):
            return -1
        lower = self._lower
        if lower is None:
            lower = self._lower = self.head.lower()
        end = self.section_end
        length = len(wanted)
        if start < end and lower.startswith(wanted, start) and _is_colon_next(lower, start + length):
            return start
        needle = b"\n" + wanted
        at = lower.find(needle, start, end)
        while at >= 0:
            if _is_colon_next(lower, at + 1 + length):
                return at + 1
            at = lower.find(needle, at + 1, end)
        return -1


def end_of_head(octets: bytes | bytearray, start: int = 0, complete: bool = True) -> int:
    """Where the body begins: behind the first empty line; -1 when there is none (yet).

    `start`: nothing before it needs to be searched again (0 looks at the first line as well). With `complete` false,
    octets may follow: an empty line whose CR stands last is then not taken, since its LF may still come.
    """
    if start == 0:
        lead = octets[:2]
        if lead == b"\r\n" or lead[:1] == b"\n":
            return len(lead) if lead == b"\r\n" else 1
        if lead[:1] == b"\r":
            return 1 if complete or len(lead) > 1 else -1
    # Two line ends, one behind the other: LF CR, LF LF, or a CR that is not part of a CRLF and CR. The latter two
    # matter only before the first LF CR, which is where a clean head ends.
    at = octets.find(b"\n\r", start)
    limit = at + 1 if at >= 0 else len(octets)
    for pair in (b"\n\n", b"\r\r"):
        other = octets.find(pair, start, limit)
        if other >= 0:
            at = other
            limit = other + 1
    if at < 0:
        return -1
    end = at + 2
    if octets[end - 1] == 10:
        return end
    if end < len(octets):
        return end + 1 if octets[end] == 10 else end
    return end if complete else -1


def _is_colon_next(lower: bytes, at: int) -> bool:
    if lower.startswith(b":", at):
        return True
    if not lower.startswith((b" ", b"\t"), at):
        return False
    while lower.startswith((b" ", b"\t"), at):
        at += 1
    return lower.startswith(b":", at)


def _octets(name: str | bytes) -> bytes:
    return (name.encode("utf-8", "surrogateescape") if isinstance(name, str) else name).lower()


def _unfold(raw: bytes) -> bytes:
    if b"\n" in raw or b"\r" in raw:
        raw = raw.replace(b"\r", b"").replace(b"\n", b"")
    return raw.strip(b" \t")
