"""Content: head and body as octets that nobody changes.

The *head* is every octet up to and including the empty line that ends the header section (all of the message when
there is no empty line); the *body* is the rest. `head + body` is always exactly the message. A body is octets in
memory or a file; it is read in chunks, so memory does not grow with size.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import msgspec

from lonedot.message.profile import Profile

__all__ = [
    "CHUNK_SIZE",
    "EMPTY_BODY",
    "Body",
    "Content",
    "FileBody",
    "Measure",
    "MemoryBody",
    "SplicedBody",
    "spliced",
]

CHUNK_SIZE = 256 * 1024


class Body(Protocol):
    """A read-only run of octets. Every call of `chunks` starts again at the first octet."""

    @property
    def size(self) -> int: ...

    def chunks(self, limit: int = CHUNK_SIZE) -> Iterator[bytes]:
        """The octets in order, in pieces of at most `limit` (never empty)."""
        ...

    def octets(self) -> bytes:
        """All octets at once: for small bodies, and for callers that have bounded the size."""
        ...


class MemoryBody(msgspec.Struct, frozen=True, gc=False):
    """A body held in memory."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def chunks(self, limit: int = CHUNK_SIZE) -> Iterator[bytes]:
        data = self.data
        if len(data) <= limit:
            if data:
                yield data
            return
        for start in range(0, len(data), limit):
            yield data[start : start + limit]

    def octets(self) -> bytes:
        return self.data


class FileBody(msgspec.Struct, frozen=True):
    """A body in a file of its own, `size` octets as recorded when it was written.

    Raises (when read):
        OSError: the file is gone or unreadable.
        ValueError: it is shorter or longer than recorded.
    """

    path: Path
    size: int

    def chunks(self, limit: int = CHUNK_SIZE) -> Iterator[bytes]:
        left = self.size
        with self.path.open("rb", buffering=0) as file:
            while chunk := file.read(limit):
                left -= len(chunk)
                if left < 0:
                    break
                yield chunk
        if left:
            raise ValueError(f"{self.path} is not the {self.size} octets that were stored")

    def octets(self) -> bytes:
        return b"".join(self.chunks())


class SplicedBody(msgspec.Struct, frozen=True):
    """Another body with octets taken out and put in, put together while it is read (once, from first to last).

    `pieces` are in order: octets of its own, or a range of `base`; ranges rise and never overlap. However many splices
    were made, it is one list over one base.
    """

    base: Body
    pieces: tuple[bytes | tuple[int, int], ...]
    size: int

    def chunks(self, limit: int = CHUNK_SIZE) -> Iterator[bytes]:
        source = self.base.chunks(limit)
        chunk = b""
        place = 0  # of the first octet of `chunk` in the base
        for piece in self.pieces:
            if isinstance(piece, bytes):
                yield from MemoryBody(piece).chunks(limit)
                continue
            start, end = piece
            while start < end:
                while place + len(chunk) <= start:
                    place += len(chunk)
                    following = next(source, None)
                    if following is None:
                        raise ValueError(
                            f"a body ends at octet {place}, before octet {end} that belongs to it"
                        )
                    chunk = following
                stop = min(end, place + len(chunk))
                whole = start == place and stop == place + len(chunk)
                yield chunk if whole else chunk[start - place : stop - place]
                start = stop

    def octets(self) -> bytes:
        return b"".join(self.chunks())

    def spliced(self, start: int, end: int, octets: bytes) -> SplicedBody:
        """The same with its own octets `start:end` replaced."""
        pieces = [*self._between(0, start), octets, *self._between(end, self.size)]
        return SplicedBody(
            self.base, tuple(piece for piece in pieces if piece), self.size - (end - start) + len(octets)
        )

    def _between(self, start: int, end: int) -> Iterator[bytes | tuple[int, int]]:
        place = 0
        for piece in self.pieces:
            if isinstance(piece, bytes):
                length = len(piece)
            else:
                length = piece[1] - piece[0]
            low, high = max(start - place, 0), min(end - place, length)
            if low < high:
                yield piece[low:high] if isinstance(piece, bytes) else (piece[0] + low, piece[0] + high)
            place += length


EMPTY_BODY = MemoryBody(b"")


def spliced(body: Body, start: int, end: int, octets: bytes) -> Body:
    """`body` with the octets `start:end` replaced: in memory when it is there already, else while it is read.

    Raises:
        ValueError: the range is not within the body.
    """
    size = body.size
    if not 0 <= start <= end <= size:
        raise ValueError(f"octets {start} to {end} of a body of {size}")
    if start == 0 and end == size:
        return MemoryBody(octets)
    if isinstance(body, MemoryBody):
        return MemoryBody(body.data[:start] + octets + body.data[end:])
    if not isinstance(body, SplicedBody):
        body = SplicedBody(body, ((0, size),), size)
    return body.spliced(start, end, octets)


class Measure(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Profile and digest of one section."""

    profile: Profile
    sha256: bytes


class Content(msgspec.Struct, frozen=True):
    """A message's octets with what is known of them."""

    head: bytes
    body: Body
    head_measure: Measure
    body_measure: Measure

    @property
    def size(self) -> int:
        return len(self.head) + self.body.size

    @property
    def is_canonical(self) -> bool:
        """Both sections are canonical text. Whether the head is made of fields is `encode.canonicalise`'s to say."""
        return self.head_measure.profile.is_canonical and self.body_measure.profile.is_canonical

    @property
    def has_eight_bit(self) -> bool:
        return self.head_measure.profile.eight_bit >= 0 or self.body_measure.profile.eight_bit >= 0

    def chunks(self, limit: int = CHUNK_SIZE) -> Iterator[bytes]:
        """Head, then body."""
        if self.head:
            yield self.head
        yield from self.body.chunks(limit)

    def octets(self) -> bytes:
        """The whole message in memory."""
        return self.head + self.body.octets()
