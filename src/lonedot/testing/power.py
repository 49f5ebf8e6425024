"""A disk that records all that is done to it, loses power at any point, and fails when told.

Everything is really written, below a folder of the test, so reading needs no double. Beside that a journal is kept;
`image` replays it up to any point and says what a disk would hold then: what was synced is there; of what was not,
nothing, everything, or any part, in pieces of 512 octets. A sync that fails loses what waited for it: it stays
readable, and a later sync does not bring it back.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import msgspec

from lonedot.spool.disk import FreeSpace, OutFile, RealDisk, Slots

__all__ = ["Event", "Failure", "Mark", "PowerDisk", "Survival", "everything", "nothing", "some"]

SECTOR = 512


class Write(msgspec.Struct, frozen=True):
    path: str
    offset: int
    octets: bytes


class Truncate(msgspec.Struct, frozen=True):
    path: str
    size: int


class Create(msgspec.Struct, frozen=True):
    path: str


class Unlink(msgspec.Struct, frozen=True):
    path: str


class MakeFolder(msgspec.Struct, frozen=True):
    path: str


class Sync(msgspec.Struct, frozen=True):
    path: str


class SyncFailed(msgspec.Struct, frozen=True):
    path: str


class SyncFolder(msgspec.Struct, frozen=True):
    path: str


class Mark(msgspec.Struct, frozen=True):
    """Something the test wants to find again in the journal."""

    what: object


Event = Write | Truncate | Create | Unlink | MakeFolder | Sync | SyncFailed | SyncFolder | Mark
Change = Write | Truncate
Survival = Callable[[int], list[int]]
"""Of so many things that were not synced, in order, the places of those that reached the disk."""


def nothing(count: int) -> list[int]:
    """Nothing unsynced survives."""
    return []


def everything(count: int) -> list[int]:
    """All of it survives: as after the death of the process alone."""
    return list(range(count))


def some(chance: random.Random) -> Survival:
    """Any part survives, in any order of writing."""

    def survive(count: int) -> list[int]:
        share = chance.random()
        return [place for place in range(count) if chance.random() < share]

    return survive


class Failure(msgspec.Struct):
    """Let `times` operations fail (`write`, `sync`, `create`) on paths that end in `suffix`, after `skip` of them."""

    operation: str
    suffix: str
    code: int = errno.EIO
    skip: int = 0
    times: int = 1


class PowerDisk:
    """See `lonedot.spool.disk.Disk`. Paths that are not below `root` are not recorded."""

    _made = 0

    def __init__(self, root: Path) -> None:
        self.root = root
        self.journal: list[Event] = []
        self.failures: list[Failure] = []
        self.free_octets = 1 << 40
        self._real = RealDisk()
        PowerDisk._made += 1
        self.vfs: str | None = f"power-{PowerDisk._made}"
        self._registered = _RecordingVfs(self, self.vfs)

    def close(self) -> None:
        """Unregister the VFS."""
        self._registered.unregister()

    def take_over(self) -> None:
        """Take what lies below `root` as written and synced long ago."""
        for folder, _, files in os.walk(self.root):
            self.journal.append(MakeFolder(folder))
            for name in files:
                path = os.path.join(folder, name)
                self.journal += (Create(path), Write(path, 0, Path(path).read_bytes()), Sync(path))
            self.journal.append(SyncFolder(folder))
            self.journal.append(SyncFolder(os.path.dirname(folder)))

    def mark(self, what: object) -> None:
        self.journal.append(Mark(what))

    def fail(
        self, operation: str, suffix: str, code: int = errno.EIO, *, skip: int = 0, times: int = 1
    ) -> None:
        self.failures.append(Failure(operation, suffix, code, skip, times))

    def check(self, operation: str, path: str) -> None:
        """Raises OSError when this operation is to fail."""
        for failure in self.failures:
            if failure.operation == operation and path.endswith(failure.suffix) and failure.times:
                if failure.skip:
                    failure.skip -= 1
                    continue
                failure.times -= 1
                raise OSError(failure.code, f"{os.strerror(failure.code)} (as told)", path)

    # -- Disk ------------------------------------------------------------------------------------------

    def create(self, path: Path) -> OutFile:
        self.check("create", str(path))
        file = self._real.create(path)
        self.journal.append(Create(str(path)))
        return _RecordingFile(self, str(path), file)

    def sync_file(self, path: Path) -> None:
        self.sync(str(path))

    def sync(self, path: str) -> None:
        try:
            self.check("sync", path)
        except OSError:
            self.journal.append(SyncFailed(path))
            raise
        self.journal.append(Sync(path))

    def sync_folder(self, path: Path) -> None:
        self.check("sync", str(path))
        self.journal.append(SyncFolder(str(path)))

    def write_again(self, path: Path) -> None:
        octets = path.read_bytes()
        self.check("write", str(path))
        self.journal.append(Write(str(path), 0, octets))
        self.sync(str(path))

    def unlink(self, path: Path) -> None:
        if path.exists():
            self._real.unlink(path)
            self.journal.append(Unlink(str(path)))

    def make_folder(self, path: Path) -> bool:
        made = self._real.make_folder(path)
        if made:
            self.journal.append(MakeFolder(str(path)))
        return made

    def free(self, path: Path) -> FreeSpace:
        return FreeSpace(self.free_octets, 1 << 40)

    def slots(self, path: Path, size: int) -> Slots:
        return self._real.slots(path, size)

    # -- power loss ------------------------------------------------------------------------------------

    def image(self, cut: int, survival: Survival, target: Path) -> None:
        """Write what the disk holds after the first `cut` events below `target`, in the place of `root`."""
        disk = _Platter()
        for event in self.journal[:cut]:
            disk.apply(event)
        for path, octets in disk.left(survival):
            place = target / Path(path).relative_to(self.root)
            if octets is None:
                place.mkdir(parents=True, exist_ok=True)
            else:
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(octets)


class _File:
    """What is on the platter, and what waits to get there."""

    def __init__(self) -> None:
        self.synced = bytearray()
        self.waiting: list[Change] = []

    def sync(self) -> None:
        for change in self.waiting:
            _change(self.synced, change)
        self.waiting.clear()

    def left(self, survival: Survival) -> bytes:
        octets = bytearray(self.synced)
        pieces = [piece for change in self.waiting for piece in _pieces(change)]
        for place in survival(len(pieces)):
            _change(octets, pieces[place])
        return bytes(octets)


class _Platter:
    """The state of a disk while a journal is replayed."""

    def __init__(self) -> None:
        self._names: dict[str, _File | None] = {}
        """None: a folder."""
        self._synced_names: dict[str, dict[str, _File | None]] = {}
        self._waiting_names: dict[str, list[tuple[str, _File | None, bool]]] = {}

    def apply(self, event: Event) -> None:
        match event:
            case Write(path) | Truncate(path):
                self._file(path).waiting.append(event)
            case Create(path):
                self._name(path, _File())
            case MakeFolder(path):
                self._name(path, None)
            case Unlink(path):
                self._waiting_names.setdefault(os.path.dirname(path), []).append((path, None, False))
                del self._names[path]
            case Sync(path):
                self._file(path).sync()
            case SyncFailed(path):
                self._file(path).waiting.clear()
            case SyncFolder(path):
                synced = self._synced_names.setdefault(path, {})
                for change in self._waiting_names.pop(path, []):
                    _rename(synced, change)
            case Mark():
                pass

    def _name(self, path: str, file: _File | None) -> None:
        self._names[path] = file
        self._waiting_names.setdefault(os.path.dirname(path), []).append((path, file, True))

    def _file(self, path: str) -> _File:
        file = self._names[path]
        assert file is not None
        return file

    def left(self, survival: Survival) -> Iterator[tuple[str, bytes | None]]:
        names: dict[str, _File | None] = {}
        for folder in {*self._synced_names, *self._waiting_names}:
            here = dict(self._synced_names.get(folder, {}))
            waiting = self._waiting_names.get(folder, [])
            # A folder's changes reach the disk in their order.
            for change in waiting[: len(survival(len(waiting)))]:
                _rename(here, change)
            names.update(here)
        for path, file in sorted(names.items()):
            yield path, None if file is None else file.left(survival)


def _rename(names: dict[str, _File | None], change: tuple[str, _File | None, bool]) -> None:
    path, file, there = change
    if there:
        names[path] = file
    else:
        names.pop(path, None)


def _change(octets: bytearray, change: Change) -> None:
    match change:
        case Write(_, offset, written):
            if len(octets) < offset:
                octets.extend(bytes(offset - len(octets)))
            octets[offset : offset + len(written)] = written
        case Truncate(_, size):
            if len(octets) > size:
                del octets[size:]
            else:
                octets.extend(bytes(size - len(octets)))


def _pieces(change: Change) -> Iterator[Change]:
    """A write as the sectors that can reach the platter alone."""
    if isinstance(change, Truncate):
        yield change
        return
    start = 0
    while start < len(change.octets):
        end = min(start + SECTOR - (change.offset + start) % SECTOR, len(change.octets))
        yield Write(change.path, change.offset + start, change.octets[start:end])
        start = end


class _RecordingFile:
    def __init__(self, disk: PowerDisk, path: str, file: OutFile) -> None:
        self._disk = disk
        self._path = path
        self._file = file

    def write(self, octets: bytes) -> None:
        self._disk.check("write", self._path)
        offset = os.path.getsize(self._path)
        self._file.write(octets)
        self._disk.journal.append(Write(self._path, offset, octets))

    def close(self) -> None:
        self._file.close()


class _RecordingVfs(apsw.VFS):
    """SQLite's own VFS with a journal."""

    def __init__(self, disk: PowerDisk, name: str) -> None:
        self.disk = disk
        super().__init__(name, "unix")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        new = path is not None and not os.path.exists(path)
        file = _RecordingVfsFile(self.disk, path or "", name, flags)
        if new and path is not None and os.path.exists(path):
            self.disk.journal.append(Create(path))
        return file

    def xDelete(self, filename: str, syncdir: bool) -> None:
        super().xDelete(filename, syncdir)
        self.disk.journal.append(Unlink(filename))
        if syncdir:
            self.disk.journal.append(SyncFolder(os.path.dirname(filename)))


class _RecordingVfsFile(apsw.VFSFile):
    def __init__(
        self, disk: PowerDisk, path: str, name: str | apsw.URIFilename | None, flags: list[int]
    ) -> None:
        self._disk = disk
        self._path = path
        super().__init__("unix", name, flags)

    def _check(self, operation: str) -> None:
        try:
            self._disk.check(operation, self._path)
        except OSError as error:
            kind = apsw.FullError if error.errno == errno.ENOSPC else apsw.IOError
            raise kind(str(error)) from error

    def xWrite(self, data: bytes, offset: int) -> None:
        self._check("write")
        super().xWrite(data, offset)
        self._disk.journal.append(Write(self._path, offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:
        super().xTruncate(newsize)
        self._disk.journal.append(Truncate(self._path, newsize))

    def xSync(self, flags: int) -> None:
        super().xSync(flags)
        try:
            self._disk.sync(self._path)
        except OSError as error:
            raise apsw.IOError(str(error)) from error
