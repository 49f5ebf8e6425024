"""The octets of a message as they are put into a file or given to a program: without dots, with the line ends wanted.

Rules: as for the wire (`encode`), only canonical content is encoded, stored octets are hashed while they are read, and
the last piece is given out only when the digests agree: what was altered on the disk is never whole anywhere else.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterator

from lonedot.message.content import CHUNK_SIZE
from lonedot.message.encode import CanonicalContent, Sent, StoredAltered

__all__ = ["FileEncoder", "LineEnd"]

_TAIL = 64


class LineEnd(enum.Enum):
    """How lines end in what is written; the value is the `mode` of what was sent."""

    LF = "LF"
    CRLF = "CRLF"


class FileEncoder:
    """Use once: iterate `chunks` to its end, then ask `record`."""

    __slots__ = ("_body_sha256", "_content", "_head_sha256", "_is_done", "_line_end", "_size", "_tail")

    def __init__(self, canonical: CanonicalContent, line_end: LineEnd) -> None:
        self._content = canonical.content
        self._line_end = line_end
        self._size = 0
        self._head_sha256 = b""
        self._body_sha256 = b""
        self._tail = b""
        self._is_done = False

    def chunks(self) -> Iterator[bytes]:
        """Everything to write, head first.

        Raises:
            StoredAltered: the octets are not those that were measured; the last piece was not given.
            OSError: the stored file cannot be read; the same holds.
        """
        content = self._content
        if hashlib.sha256(content.head).digest() != content.head_measure.sha256:
            raise StoredAltered("the head is not the one that was measured")
        held = self._ended(content.head)
        self._head_sha256 = hashlib.sha256(held).digest()
        read = hashlib.sha256()
        written = hashlib.sha256()
        cut = b""
        try:
            for chunk in content.body.chunks(CHUNK_SIZE):
                read.update(chunk)
                octets = cut + chunk if cut else chunk
                # A CR at the end of a piece belongs to the LF that the next one begins with.
                cut = b"\r" if octets.endswith(b"\r") else b""
                octets = self._ended(octets[:-1] if cut else octets)
                written.update(octets)
                yield self._note(held)
                held = octets
        except ValueError as error:
            raise StoredAltered(str(error)) from error
        if cut or read.digest() != content.body_measure.sha256:
            raise StoredAltered("the stored body is not the one that was measured")
        self._body_sha256 = written.digest()
        yield self._note(held)
        self._is_done = True

    def record(self) -> Sent:
        """What was written; its mode is the line end.

        Raises:
            RuntimeError: `chunks` has not come to its end.
        """
        if not self._is_done:
            raise RuntimeError("record() before the last chunk")
        return Sent(self._line_end.value, self._size, self._head_sha256, self._body_sha256, self._tail)

    def _ended(self, octets: bytes) -> bytes:
        return octets.replace(b"\r\n", b"\n") if self._line_end is LineEnd.LF else octets

    def _note(self, octets: bytes) -> bytes:
        self._size += len(octets)
        self._tail = (self._tail + octets[-_TAIL:])[-_TAIL:]
        return octets
