"""Body files: where the body of a large message lies, and how it gets there.

A body file has no meaning until a committed row names it. One that no row names is removed at the next opening.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterator
from pathlib import Path

from lonedot.message.content import FileBody
from lonedot.spool.disk import Disk, OutFile
from lonedot.spool.interface import SpoolFault, SpoolFull
from lonedot.spool.room import Room
from lonedot.terms.ids import MessageId, number_from_id

__all__ = ["Bodies", "BodyFileWriter", "body_in", "fault_from"]

FOLDERS = 32
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def fault_from(error: OSError, doing: str) -> SpoolFault:
    """What the disk said, as custody tells it."""
    words = f"{doing}: {error}"
    return SpoolFull(words) if error.errno in FULL else SpoolFault(words)


def body_in(folder: Path, id: str) -> Path:
    """Where in the folder of body files that of a message lies."""
    return folder / f"{number_from_id(id) >> 21 & FOLDERS - 1:02x}" / f"{id}.body"


class Bodies:
    """The folder of body files of one shard."""

    __slots__ = ("_disk", "_known", "_room", "folder")

    def __init__(self, disk: Disk, folder: Path, room: Room) -> None:
        self.folder = folder
        self._disk = disk
        self._room = room
        self._known: set[Path] = set()

    def path(self, id: MessageId) -> Path:
        """Spread over folders by the milliseconds of the id."""
        return body_in(self.folder, id)

    def writer(self, id: MessageId) -> BodyFileWriter:
        """Raises SpoolFull or SpoolFault."""
        path = self.path(id)
        try:
            if path.parent not in self._known:
                if self._disk.make_folder(path.parent):
                    self._disk.sync_folder(self.folder)
                self._known.add(path.parent)
            return BodyFileWriter(self._disk, self._room, path, self._disk.create(path))
        except OSError as error:
            raise fault_from(error, f"cannot create {path}") from error

    def orphans(self, named: Collection[str]) -> Iterator[Path]:
        """Files that no row names (`named`: ids)."""
        for file in self.folder.glob("*/*"):
            if file.suffix != ".body" or file.stem not in named:
                yield file


class BodyFileWriter:
    """Writes one body file. See `interface.BodyWriter`."""

    __slots__ = ("_disk", "_file", "_path", "_room", "_size")

    def __init__(self, disk: Disk, room: Room, path: Path, file: OutFile) -> None:
        self._disk = disk
        self._room = room
        self._path = path
        self._file = file
        self._size = 0

    def write(self, octets: bytes) -> None:
        if not self._room.has(len(octets)):
            raise SpoolFull(f"no room left for {self._path}")
        try:
            self._file.write(octets)
        except OSError as error:
            self._room.ask_again()
            raise fault_from(error, f"cannot write {self._path}") from error
        self._room.take(len(octets))
        self._size += len(octets)

    def finish(self) -> FileBody:
        try:
            self._file.close()
        except OSError as error:
            raise fault_from(error, f"cannot close {self._path}") from error
        return FileBody(self._path, self._size)

    def discard(self) -> None:
        try:
            self._file.close()
            self._disk.unlink(self._path)
        except OSError:
            pass  # an orphan: removed at the next opening
