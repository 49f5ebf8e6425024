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


class MemoryBody(msgspec.Struct, frozen=True):
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
    """Another body with its octets `start:end` replaced by `data`, put together while it is read."""

    base: Body
    start: int
    end: int
    data: bytes

    @property
    def size(self) -> int:
        return self.base.size - (self.end - self.start) + len(self.data)

    def chunks(self, limit: int = CHUNK_SIZE) -> Iterator[bytes]:
        start, end = self.start, self.end
        is_open = True  # the new octets are still to come
        place = 0
        for chunk in self.base.chunks(limit):
            stop = place + len(chunk)
            if place < start:
                yield chunk if stop <= start else chunk[: start - place]
            if is_open and stop >= start:
                is_open = False
                yield from MemoryBody(self.data).chunks(limit)
            if stop > end:
                yield chunk if place >= end else chunk[end - place :]
            place = stop
        if is_open:
            yield from MemoryBody(self.data).chunks(limit)

    def octets(self) -> bytes:
        return b"".join(self.chunks())


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
    return SplicedBody(body, start, end, octets)


class Measure(msgspec.Struct, frozen=True, array_like=True):
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
        """Both sections are canonical text, and the head is made of header fields (see `header`)."""
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
