"""Changing a file of logins: one login at a time, a new file in place of the old one, everything else left as it is.

Rules: passwords come in as octets and leave as hashes; the file is never readable by others, not for a moment; a reader
and a crash see the old file or the new one; two changes at one time come one after the other.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lonedot.admin.values import AdminError
from lonedot.reception.logins import FILE_LIMIT, LoginsFault, check_name, hash_of, read_logins

__all__ = ["LoginsFile"]

MODE = 0o600
"""Of a file that is made; one that is there keeps its own, without what others could do with it."""


class LoginsFile:
    """One file of logins. A link is followed once, so that the file behind it is replaced and not the link."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = Path(os.path.realpath(path))

    def names(self) -> tuple[str, ...]:
        """Who can log in, in the order of the file.

        Raises:
            AdminError: it cannot be read.
        """
        return tuple(self._parsed(self._text()))

    def put(self, name: str, password: bytes) -> bool:
        """Let `name` log in with this password, and no other; True when it is new. Takes time.

        Raises:
            AdminError: name or password cannot be used, or the file cannot be changed.
        """
        try:
            check_name(name)
            line = f"{name}:{hash_of(password)}"
        except ValueError as error:
            raise self._fault(str(error), "choose another") from None

        def change(lines: list[str]) -> bool:
            for number, known in enumerate(lines):
                if _names(known, name):
                    lines[number] = line
                    return False
            while lines and not lines[-1]:
                lines.pop()
            lines += [line, ""]
            return True

        return self._change(change)

    def remove(self, name: str) -> None:
        """Let `name` log in no more.

        Raises:
            AdminError: there is no such login, or the file cannot be changed.
        """

        def change(lines: list[str]) -> bool:
            kept = [line for line in lines if not _names(line, name)]
            if len(kept) == len(lines):
                raise self._fault(f"there is no login {name!r}", "run lonedot logins list")
            lines[:] = kept
            return True

        self._change(change)

    def _change(self, change: Callable[[list[str]], bool]) -> bool:
        try:
            with self._locked():
                lines = self._text().split("\n")
                result = change(lines)
                text = "\n".join(lines)
                self._parsed(text)
                self._replace(text.encode())
                return result
        except OSError as error:
            raise self._fault(
                f"it cannot be changed: {error.strerror or error}", "run it as its owner"
            ) from error

    def _text(self) -> str:
        try:
            with self._file.open("rb") as file:
                octets = file.read(FILE_LIMIT + 1)
            if len(octets) > FILE_LIMIT:
                raise self._fault(f"it has more than {FILE_LIMIT} octets", "name the right file")
            return octets.decode()
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError) as error:
            raise self._fault(f"it cannot be read: {error}", "name the right file, as its owner") from error

    def _parsed(self, text: str) -> list[str]:
        try:
            return list(read_logins(text))
        except LoginsFault as fault:
            raise self._fault(f"{fault}", "mend or remove that line") from None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        folder = os.open(self._file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
            os.fsync(folder)
        finally:
            os.close(folder)

    def _replace(self, octets: bytes) -> None:
        fresh = self._file.with_name(f".{self._file.name}.new")
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(octets)
                self._keep_rights(file.fileno())
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._file)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise

    def _keep_rights(self, descriptor: int) -> None:
        try:
            old = self._file.stat()
        except FileNotFoundError:
            return
        made = os.fstat(descriptor)
        if (old.st_uid, old.st_gid) != (made.st_uid, made.st_gid):
            os.fchown(descriptor, old.st_uid, old.st_gid)
        os.fchmod(descriptor, stat.S_IMODE(old.st_mode) & 0o640)

    def _fault(self, what: str, do: str) -> AdminError:
        return AdminError(what, str(self.path), do)


def _names(line: str, name: str) -> bool:
    return not line.lstrip().startswith("#") and line.partition(":")[0] == name and ":" in line
