"""The parts of a message for reading: their fields, their text, what is attached; and where each stands.

Nothing is parsed before it is asked for. The structure comes from `mime.walk`, which reads the body once in chunks and
bounds depth, number and header sections; the octets of a part are read when they are wanted. Nothing here is ever
written back: to change a part, splice the body between `start` and `end`.
"""

from __future__ import annotations

import binascii
import io
from collections.abc import Iterator
from functools import cached_property
from types import MappingProxyType

from lonedot.message.content import Content
from lonedot.message.header import HeaderView
from lonedot.message.mime import Kind, MimePart, Structure, walk
from lonedot.message.parameters import read_parameters
from lonedot.message.reading import octets_at, open_range
from lonedot.message.words import decode_base64, decode_octets

__all__ = ["PART_LIMIT", "Part", "PartTooLarge", "parts_of"]

PART_LIMIT = 64 * 1024 * 1024
"""Octets of a part that are taken into memory at once; a larger one is read as a file, by `open`."""


class PartTooLarge(ValueError):
    """A part is too large to be taken into memory at once: read it with `open()`."""


class Part:
    """One part (RFC 2045 §2.4): the message itself, or a part of it. Read-only."""

    def __init__(self, content: Content, structure: Structure, number: int = 0) -> None:
        self._content = content
        self._structure = structure
        self._number = number
        self._found: MimePart = structure.parts[number]

    @property
    def path(self) -> str:
        """Its place: `1` is the message, `1.2` its second part."""
        return self._found.path

    @property
    def start(self) -> int:
        """Where its content begins, in octets of the body of the message."""
        return self._found.body_start

    @property
    def end(self) -> int:
        """Behind its content. The line end before the next boundary belongs to that boundary (RFC 2046 §5.1.1)."""
        return self._found.body_end

    @property
    def size(self) -> int:
        """Octets of its content, as it is encoded."""
        return self.end - self.start

    @property
    def content_type(self) -> str:
        """`type/subtype` in lower case; `text/plain` where none is said that can be read (RFC 2045 §5.2)."""
        return self._found.content_type.decode("ascii", "replace")

    @property
    def encoding(self) -> str:
        """Content-Transfer-Encoding in lower case; empty when there is none."""
        return self._found.encoding.decode("ascii", "replace")

    @property
    def is_multipart(self) -> bool:
        """It consists of parts, or holds a message: it has children."""
        return not self._found.is_leaf

    @property
    def is_attachment(self) -> bool:
        """It calls itself one, or has a name for a file."""
        return self.disposition == "attachment" or (not self.is_multipart and bool(self.filename))

    @cached_property
    def headers(self) -> HeaderView:
        """Its header section, every octet kept."""
        found = self._found
        if found.parent < 0:
            return HeaderView(self._content.head)
        return HeaderView(octets_at(self._content.body, found.header_start, found.header_end))

    @cached_property
    def parameters(self) -> MappingProxyType[str, str]:
        """Those of its Content-Type, by names in lower case, decoded (RFC 2231)."""
        return MappingProxyType(read_parameters(self.headers.get("Content-Type") or b"")[1])

    @cached_property
    def _disposition(self) -> tuple[str, dict[str, str]]:
        return read_parameters(self.headers.get("Content-Disposition") or b"")

    @property
    def disposition(self) -> str:
        """`attachment`, `inline`, …, in lower case; empty when it says none."""
        return self._disposition[0]

    @property
    def charset(self) -> str:
        """As it says, in lower case; empty when it says none."""
        return self.parameters.get("charset", "").strip().lower()

    @property
    def filename(self) -> str:
        """The name of the file that it is, decoded (RFC 2231, RFC 2047); empty when it has none.

        It is a stranger's text: never a path to write to.
        """
        return self._disposition[1].get("filename") or self.parameters.get("name", "")

    @property
    def children(self) -> tuple[Part, ...]:
        """Its parts, in their order."""
        return tuple(part for part in self.walk() if part._found.parent == self._number)

    def walk(self) -> Iterator[Part]:
        """Itself and every part within it, in the order of the octets."""
        parts = self._structure.parts
        number = self._number
        while True:
            yield Part(self._content, self._structure, number)
            number += 1
            if number == len(parts) or parts[number].depth <= self._found.depth:
                return

    def open(self) -> io.BufferedReader:
        """Its octets, as they are encoded, as a file."""
        return open_range(self._content.body, self.start, self.end)

    def octets(self) -> bytes:
        """Its octets, as they are encoded.

        Raises:
            PartTooLarge: there are more than `PART_LIMIT`.
        """
        if self.size > PART_LIMIT:
            raise PartTooLarge(f"part {self.path} has {self.size} octets; read it with open()")
        return octets_at(self._content.body, self.start, self.end)

    def payload(self) -> bytes:
        """Its octets decoded: base64 or quoted-printable. What is damaged is passed over.

        Raises:
            PartTooLarge: there are more than `PART_LIMIT`.
        """
        octets = self.octets()
        if self._found.kind is Kind.LEAF:
            match self._found.encoding:
                case b"base64":
                    return decode_base64(octets)
                case b"quoted-printable":
                    return binascii.a2b_qp(octets)
        return octets

    def text(self) -> str:
        """Its payload as text, by its charset; without one that is known as UTF-8, else windows-1252.

        Line ends stay as they are.

        Raises:
            PartTooLarge: there are more than `PART_LIMIT` octets.
        """
        return decode_octets(self.payload(), self.charset)

    def __repr__(self) -> str:
        return f"<Part {self.path} {self.content_type} {self.start}:{self.end}>"


def parts_of(content: Content) -> Part:
    """The message as a part; the others are found by `children` and `walk`.

    Raises:
        OSError, ValueError: the body is a file that cannot be read, or is not as long as recorded.
    """
    return Part(content, walk(content))
