"""A body read like a file: any place of it, without having the whole in memory."""

from __future__ import annotations

import io
from typing import Protocol, runtime_checkable

from lonedot.message.content import CHUNK_SIZE, Body, FileBody, MemoryBody, SplicedBody

__all__ = ["BodyReader", "Placed", "octets_at", "open_range"]


@runtime_checkable
class Placed(Protocol):
    """A body that can be read at any place by itself."""

    def read_at(self, start: int, end: int) -> bytes:
        """The octets `start:end`; fewer only behind its end."""
        ...


def octets_at(body: Body, start: int, end: int) -> bytes:
    """The octets `start:end` of a body; fewer only behind its end.

    Raises:
        OSError, ValueError: the body is a file that cannot be read, or is shorter than recorded.
    """
    end = min(end, body.size)
    if start >= end:
        return b""
    if isinstance(body, MemoryBody):
        return body.data[start:end]
    if isinstance(body, FileBody):
        with body.path.open("rb", buffering=0) as file:
            file.seek(start)
            return _exactly(file, end - start)
    if isinstance(body, SplicedBody):
        return _of_pieces(body, start, end)
    if isinstance(body, Placed):
        return body.read_at(start, end)
    pieces = []
    place = 0
    for chunk in body.chunks():
        if place + len(chunk) > start:
            pieces.append(chunk[max(start - place, 0) : end - place])
        place += len(chunk)
        if place >= end:
            break
    return b"".join(pieces)


def _exactly(file: io.RawIOBase | io.FileIO, size: int) -> bytes:
    pieces = []
    while size:
        piece = file.read(size)
        if not piece:
            raise ValueError("the file of the body is shorter than what was stored")
        pieces.append(piece)
        size -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _of_pieces(body: SplicedBody, start: int, end: int) -> bytes:
    octets = []
    place = 0
    for piece in body.pieces:
        length = len(piece) if isinstance(piece, bytes) else piece[1] - piece[0]
        low, high = max(start - place, 0), min(end - place, length)
        if low < high:
            octets.append(
                piece[low:high]
                if isinstance(piece, bytes)
                else octets_at(body.base, piece[0] + low, piece[0] + high)
            )
        place += length
        if place >= end:
            break
    return b"".join(octets)


class BodyReader(io.RawIOBase):
    """The octets `start:end` of a body as a file that is open for reading."""

    def __init__(self, body: Body, start: int, end: int) -> None:
        self._body = body
        self._start = start
        self._size = end - start
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}.get(whence)
        if base is None or base + offset < 0:
            raise ValueError(f"seek({offset}, {whence}) in a body of {self._size} octets")
        self._place = base + offset
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]  # io's own contract
        start = self._start + self._place
        octets = octets_at(self._body, start, min(start + len(view), self._start + self._size))
        view[: len(octets)] = octets
        self._place += len(octets)
        return len(octets)


def open_range(body: Body, start: int, end: int) -> io.BufferedReader:
    """The octets `start:end` of a body as a file: `read(n)`, `seek`, lines. At most a chunk is in memory."""
    return io.BufferedReader(BodyReader(body, start, end), CHUNK_SIZE)
