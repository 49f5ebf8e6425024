"""The registry on disk: who may change it, one change at a time, a new file in place of the old one, and the audit.

Rules:
1. Only root and the owner of the file (of its folder, while there is no file) may change it: what it names is run.
2. A change holds the lock from reading to renaming. The lock is a file of its own, since the registry is replaced.
3. The new file is whole and synced before it takes the name; a reader and a crash see the old one or the new one.
4. The audit has its line before the change: there is no change without one, and after a crash at most a line too many.
"""

from __future__ import annotations

import errno
import fcntl
import os
import pwd
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

__all__ = ["AuditLine", "RegistryFault", "RegistryFile", "read_audit"]

LOCK_SECONDS = 10.0
MAX_OCTETS = 1024 * 1024
_PAUSE = 0.02


class RegistryFault(Exception):
    """The file cannot be read or changed: `what`, `where`, and what to `do`."""

    def __init__(self, what: str, where: str, do: str) -> None:
        super().__init__("; ".join(part for part in (what, where, do) if part))
        self.what = what
        self.where = where
        self.do = do


class AuditLine(msgspec.Struct, frozen=True):
    """One change of the registry."""

    at: float
    """Seconds since 1970."""
    uid: int
    user: str
    """Name of that user; empty when it has none."""
    what: tuple[str, ...]
    before: str
    """Revision before the change."""
    after: str


class RegistryFile:
    """One registry. A link is followed once, so that the file behind it is replaced and not the link."""

    def __init__(self, path: Path, *, now: Callable[[], float] = time.time) -> None:
        self.path = path
        self._file = Path(os.path.realpath(path))
        self._now = now

    @property
    def audit_path(self) -> Path:
        return self._file.with_name(self._file.name + ".audit")

    @contextmanager
    def locked(self, patience: float = LOCK_SECONDS) -> Iterator[None]:
        """Nobody else changes the file inside the `with`. Blocks: not for an event loop.

        Raises:
            RegistryFault: another command does not let go, or this user may not change the file.
        """
        self._check_owner()
        name = self._file.with_name(self._file.name + ".lock")
        try:
            descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise _failed("cannot be locked", name, error) from error
        try:
            self._match_owner(descriptor)
            self._wait(descriptor, patience)
            yield
        finally:
            os.close(descriptor)

    def _wait(self, descriptor: int, patience: float) -> None:
        until = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise RegistryFault(
                        "another command is changing the registry",
                        str(self.path),
                        "try again when it is done",
                    ) from None
                time.sleep(_PAUSE)
            else:
                return

    def _check_owner(self) -> None:
        folder = self._file.parent
        try:
            owner = self._file.stat().st_uid
            kind = "file"
        except FileNotFoundError:
            try:
                owner = folder.stat().st_uid
            except OSError as error:
                raise _failed("cannot be made", self._file, error) from error
            kind = "folder"
        except OSError as error:
            raise _failed("cannot be looked at", self._file, error) from error
        if os.geteuid() not in (0, owner):
            raise RegistryFault(
                f"user {_user(os.geteuid())} may not change the registry: its {kind} belongs to {_user(owner)}",
                str(self.path),
                f"run the command as {_user(owner)} or root",
            )

    def read(self) -> bytes:
        """The octets, at most one more than are allowed; none when there is no file.

        Raises:
            RegistryFault: it cannot be read.
        """
        try:
            with self._file.open("rb") as file:
                return file.read(MAX_OCTETS + 1)
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise _failed("cannot be read", self._file, error) from error

    def replace(self, octets: bytes, what: tuple[str, ...], before: str, after: str, uid: int) -> None:
        """Book the change, then put a new file in place of the old one. Only under the lock.

        Raises:
            RegistryFault: it could not be done; the old file is there as it was.
        """
        fresh = self._file.with_name(f".{self._file.name}.new")
        try:
            self._write(fresh, octets)
            self._book(AuditLine(self._now(), uid, _name_of(uid), what, before, after))
            fresh.replace(self._file)
            _sync_folder(self._file.parent)
        except OSError as error:
            raise _failed("cannot be written", self._file, error) from error

    def _write(self, fresh: Path, octets: bytes) -> None:
        """A whole, synced file under another name. One that a crash left behind is written over."""
        fresh.unlink(missing_ok=True)
        descriptor = os.open(
            fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        try:
            self._match_owner(descriptor)
            try:
                os.fchmod(descriptor, stat.S_IMODE(self._file.stat().st_mode))
            except FileNotFoundError:
                pass
            view = memoryview(octets)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _match_owner(self, descriptor: int) -> None:
        """What root makes belongs to whom the registry belongs."""
        try:
            owner = self._file.stat()
        except FileNotFoundError:
            owner = self._file.parent.stat()
        made = os.fstat(descriptor)
        if (made.st_uid, made.st_gid) != (owner.st_uid, owner.st_gid):
            try:
                os.fchown(descriptor, owner.st_uid, owner.st_gid)
            except PermissionError:
                pass  # the group alone may differ, for one who is not in it

    def _book(self, line: AuditLine) -> None:
        descriptor = os.open(
            self.audit_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        try:
            self._match_owner(descriptor)
            os.write(descriptor, msgspec.json.encode(line) + b"\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read_audit(path: Path) -> list[AuditLine]:
    """The changes of a registry, oldest first; half a line of a crash is left out."""
    lines: list[AuditLine] = []
    try:
        octets = RegistryFile(path).audit_path.read_bytes()
    except FileNotFoundError:
        return lines
    for line in octets.splitlines():
        try:
            lines.append(msgspec.json.decode(line, type=AuditLine))
        except msgspec.DecodeError:
            continue
    return lines


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return ""


def _user(uid: int) -> str:
    return _name_of(uid) or str(uid)


def _failed(what: str, path: Path, error: OSError) -> RegistryFault:
    reason = (error.strerror or str(error)).lower()
    do = "make its folder" if error.errno == errno.ENOENT else "look at its folder: rights, room, file system"
    return RegistryFault(f"the registry {what}: {reason}", str(path), do)
