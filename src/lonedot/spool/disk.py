"""The one seam for all writes to the disk that custody makes.

Rules: nothing in this room opens a file for writing, renames, removes or syncs but through a `Disk`; the database uses
the SQLite VFS that the disk names. So tests can lose every write that was not synced, or let any of them fail.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import apsw
import msgspec

__all__ = ["Checkpointed", "Disk", "FreeSpace", "InlineSyncer", "OutFile", "RealDisk", "Slots", "Syncer"]

Answer = TypeVar("Answer")

FILE_MODE = 0o600
FOLDER_MODE = 0o700

sync_data: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)
"""Sync the octets of a file; what a platform without fdatasync does instead is stronger."""


class FreeSpace(msgspec.Struct, frozen=True):
    """Octets of a file system: those we may still use, and all there are."""

    free: int
    total: int


class OutFile(Protocol):
    """A file open for writing from its start."""

    def write(self, octets: bytes) -> None:
        """All of them. Raises OSError."""
        ...

    def close(self) -> None: ...


class Slots(Protocol):
    """A fixed run of octets that outlives the process (not the machine)."""

    def __getitem__(self, place: slice, /) -> bytes: ...

    def __setitem__(self, place: slice, octets: bytes, /) -> None: ...

    def close(self) -> None: ...


class Disk(Protocol):
    """What custody does to a disk. Every method may raise OSError."""

    @property
    def vfs(self) -> str | None:
        """Name of the SQLite VFS for the database; None for SQLite's own."""
        ...

    def create(self, path: Path) -> OutFile:
        """A new file of mode 0600. Raises FileExistsError."""
        ...

    def sync_file(self, path: Path) -> None:
        """Make the octets of a file durable."""
        ...

    def sync_folder(self, path: Path) -> None:
        """Make the names in a folder durable."""
        ...

    def write_again(self, path: Path) -> None:
        """Write a file's own octets over it and sync: after a failed sync, pages may only seem to be on the disk."""
        ...

    def unlink(self, path: Path) -> None:
        """Remove a file; no error when it is not there."""
        ...

    def make_folder(self, path: Path) -> bool:
        """A folder of mode 0700; the parents must exist. False when it is there already."""
        ...

    def free(self, path: Path) -> FreeSpace: ...

    def slots(self, path: Path, size: int) -> Slots:
        """Map a file of `size` octets, made of zeros when it is not there."""
        ...


class Checkpointed(msgspec.Struct, frozen=True):
    """How a checkpoint ended. Complete: all of the log is in the database, and the next commit starts it anew."""

    complete: bool
    error: str = ""


class Syncer(Protocol):
    """Makes things durable without stopping the loop. Answers on the loop, never inside the call."""

    @property
    def has_ended(self) -> bool:
        """It cannot be used any more; whoever waited has been told."""
        ...

    def sync_log(self, done: Callable[[OSError | None], None]) -> None:
        """Sync the log of the database. One at a time."""
        ...

    def sync_bodies(self, paths: Sequence[Path], done: Callable[[OSError | None], None]) -> None:
        """Sync files, and the folders they lie in."""
        ...

    def checkpoint(self, done: Callable[[Checkpointed], None]) -> None:
        """Copy the log into the database as far as it goes. One at a time."""
        ...

    def remove(self, paths: Iterable[Path]) -> None:
        """Unlink files some time soon; failures are left to the next recovery."""
        ...

    def close(self) -> None: ...


class _RealFile:
    __slots__ = ("_descriptor",)

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)

    def write(self, octets: bytes) -> None:
        written = os.write(self._descriptor, octets)
        while written < len(octets):
            written += os.write(self._descriptor, memoryview(octets)[written:])

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class RealDisk:
    """The disk of the machine."""

    vfs: str | None = None

    def create(self, path: Path) -> OutFile:
        return _RealFile(path)

    def sync_file(self, path: Path) -> None:
        _sync(path, os.O_RDONLY, sync_data)

    def sync_folder(self, path: Path) -> None:
        _sync(path, os.O_RDONLY | os.O_DIRECTORY, os.fsync)

    def write_again(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            place = 0
            while octets := os.pread(descriptor, 1 << 20, place):
                if os.pwrite(descriptor, octets, place) != len(octets):
                    raise OSError(f"{path}: a write was cut short")
                place += len(octets)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def unlink(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def make_folder(self, path: Path) -> bool:
        try:
            path.mkdir(FOLDER_MODE)
        except FileExistsError:
            return False
        return True

    def free(self, path: Path) -> FreeSpace:
        told = os.statvfs(path)
        return FreeSpace(told.f_bavail * told.f_frsize, told.f_blocks * told.f_frsize)

    def slots(self, path: Path, size: int) -> Slots:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        try:
            # Blocks are taken now: a full disk must not become a SIGBUS at the first write.
            os.posix_fallocate(descriptor, 0, size)
            return mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)


def _sync(path: Path, flags: int, sync: Callable[[int], None]) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


class InlineSyncer:
    """Syncs on the calling thread: for commands that run beside no session, and for tests."""

    def __init__(self, disk: Disk, database: Path, soon: Callable[[Callable[[], None]], object]) -> None:
        """`soon` runs a function in the next turn of the loop."""
        self._disk = disk
        self._database = database
        self._log = database.with_name(database.name + "-wal")
        self._soon = soon
        self.has_ended = False

    def sync_log(self, done: Callable[[OSError | None], None]) -> None:
        error: OSError | None = None
        try:
            self._disk.sync_file(self._log)
        except OSError as caught:
            error = caught
        self._answer(done, error)

    def sync_bodies(self, paths: Sequence[Path], done: Callable[[OSError | None], None]) -> None:
        error: OSError | None = None
        try:
            for path in paths:
                self._disk.sync_file(path)
            for folder in {path.parent for path in paths}:
                self._disk.sync_folder(folder)
        except OSError as caught:
            error = caught
        self._answer(done, error)

    def checkpoint(self, done: Callable[[Checkpointed], None]) -> None:
        result = checkpoint(self._database, self._disk.vfs)
        self._answer(done, result)

    def remove(self, paths: Iterable[Path]) -> None:
        for path in paths:
            try:
                self._disk.unlink(path)
            except OSError:
                pass

    def close(self) -> None:
        """Nobody who waits is answered any more."""
        self.has_ended = True

    def _answer(self, done: Callable[[Answer], None], answer: Answer) -> None:
        def tell() -> None:
            if not self.has_ended:
                done(answer)

        self._soon(tell)


def checkpoint(database: Path, vfs: str | None) -> Checkpointed:
    """Copy the log into the database through a connection of its own, as far as readers and writers allow."""
    try:
        connection = apsw.Connection(str(database), vfs=vfs, flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            connection.pragma("synchronous", "FULL")
            frames, copied = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        finally:
            connection.close()
    except apsw.Error as error:
        return Checkpointed(complete=False, error=str(error) or type(error).__name__)
    return Checkpointed(complete=frames == copied)
