"""Delivery into a Maildir: written in `tmp`, synced, renamed into `new`, and the folder synced before it counts.

Rules: nothing in an address leads out of the folders that the route names; a file appears in `new` whole or not at
all; whatever the system refuses (no room, no rights, no folder) defers, because it says nothing against the message.
After a crash the message may be there and be tried again: that is the one copy too many that can come about.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from lonedot.delivery.deposit import Deposit, DepositReport, refused
from lonedot.delivery.jobs import error_words
from lonedot.delivery.routing import LocalNames, Maildir
from lonedot.message.encode import StoredAltered
from lonedot.message.filed import FileEncoder
from lonedot.terms.address import Address
from lonedot.terms.outcome import Outcome, Result, Stage

__all__ = ["DELIVERED", "MaildirCarrier", "UnsafeAddress", "fault_of_path", "folder_for"]

DELIVERED = "written into the Maildir"

_PLACEHOLDER = re.compile(rb"\{[^{}/]*\}")
_KNOWN = (b"{local}", b"{domain}")
# What a part of an address must be to stand in a path: no separator, no way up, no hidden folder, no quotes.
_SAFE = re.compile(rb'[^./\\"\x00-\x20\x7f][^/\\"\x00-\x20\x7f]{0,199}')
_FOLDERS = ("tmp", "new", "cur")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_counter = count(1)
_ELSEWHERE = LocalNames(b"")


class UnsafeAddress(ValueError):
    """A part of the address cannot be the name of a folder."""


class _Unreadable(Exception):
    """Our own copy could not be read; the cause says why."""


def fault_of_path(path: str) -> str:
    """What is wrong with the path of a route, in words; empty when nothing is."""
    if not path.startswith("/"):
        return "the path of a Maildir must begin with /"
    if "\0" in path or ".." in path.split("/"):
        return "the path of a Maildir must not go up"
    for found in _PLACEHOLDER.findall(os.fsencode(path)):
        if found not in _KNOWN:
            return f"{os.fsdecode(found)} is not known; there are {{local}} and {{domain}}"
    if "{" in _PLACEHOLDER.sub(b"", os.fsencode(path)).decode("utf-8", "replace"):
        return "a { without its }"
    return ""


def folder_for(
    path: str, recipient: Address, names: LocalNames = _ELSEWHERE, *, is_base: bool = False
) -> Path:
    """The Maildir of a recipient, in lower case unless its domain says otherwise; `is_base`: without its extension.

    Raises:
        UnsafeAddress: a part that the path needs is missing, or cannot be the name of a folder.
    """
    local = recipient.name if names.is_case_sensitive else _folded(recipient.name)
    if is_base:
        local = local.partition(names.extension.encode())[0]
    values = {b"{local}": local, b"{domain}": _folded(recipient.domain)}

    def value(found: re.Match[bytes]) -> bytes:
        octets = values[found[0]]
        if not _SAFE.fullmatch(octets) or not _is_utf8(octets):
            what = found[0].decode("ascii").strip("{}")
            raise UnsafeAddress(f"the {what} part of {recipient.text} cannot be the name of a folder")
        return octets

    return Path(os.fsdecode(_PLACEHOLDER.sub(value, os.fsencode(path))))


def _folded(octets: bytes) -> bytes:
    return octets.decode("utf-8", "surrogateescape").lower().encode("utf-8", "surrogateescape")


def _is_utf8(octets: bytes) -> bool:
    try:
        octets.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


class MaildirCarrier:
    """Writes into the Maildirs of one route."""

    def __init__(self, target: Maildir, hostname: str) -> None:
        self._target = target
        self._names = {names.domain: names for names in target.names}
        self._hostname = hostname.replace("/", "\\057").replace(":", "\\072")
        # What stands before the first placeholder is there, or the disk is not mounted: it is never made.
        fixed = target.path.partition("{")[0]
        self._base = Path(fixed if fixed.endswith("/") or fixed == target.path else fixed.rpartition("/")[0])
        if fixed == target.path:
            self._base = self._base.parent

    def place(self, recipient: Address) -> str:
        names = self._names.get(recipient.domain, _ELSEWHERE)
        try:
            return f"maildir:{folder_for(self._target.path, recipient, names)}"
        except UnsafeAddress:
            return f"maildir:{self._target.path}"

    def stop(self) -> None:
        """A file that is being written is finished or left in `tmp`."""

    def put(self, deposit: Deposit) -> DepositReport:
        encoder = FileEncoder(deposit.canonical, self._target.line_end)
        try:
            folder = self._folder(deposit.recipient)
        except UnsafeAddress as error:
            return DepositReport(refused(f"maildir:{self._target.path}", str(error), "5.1.3"))
        place = f"maildir:{folder}"
        try:
            self._write(folder, encoder, deposit.canonical.size)
        except _Unreadable as error:
            cause = error.__cause__
            return DepositReport(refused(place, str(error), "4.3.0"), cause=cause)
        except OSError as error:
            status = "4.3.1" if error.errno in _NO_ROOM else "4.3.0"
            return DepositReport(refused(place, self._words(folder, error), status))
        outcome = Outcome(Result.DELIVERED, Stage.CONTENT, DELIVERED, None, place, "2.0.0")
        return DepositReport(outcome, encoder.record())

    def _folder(self, recipient: Address) -> Path:
        """That of the whole name, where it is there; else that of the name without its extension."""
        names = self._names.get(recipient.domain, _ELSEWHERE)
        whole = folder_for(self._target.path, recipient, names)
        if names.extension.encode() not in recipient.name[1:] or not names.extension or whole.is_dir():
            return whole
        return folder_for(self._target.path, recipient, names, is_base=True)

    def _words(self, folder: Path, error: OSError) -> str:
        words = f"the Maildir {folder} could not be written: {error_words(error)}"
        if isinstance(error, FileNotFoundError) and not self._target.create:
            words = (
                f"there is no Maildir {folder}: make it, with tmp, new and cur, or let the route create it"
            )
        return words

    def _write(self, folder: Path, encoder: FileEncoder, size: int) -> None:
        if self._target.create:
            self._make(folder)
        with _opened(folder) as maildir, _opened("tmp", maildir) as tmp, _opened("new", maildir) as new:
            now = time.time()
            name = f"{int(now)}.M{int(now % 1 * 1e6)}P{os.getpid()}Q{next(_counter)}.{self._hostname}"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            file = os.open(name, flags, 0o600, dir_fd=tmp)
            try:
                try:
                    if os.geteuid() == 0:
                        owner = os.fstat(maildir)
                        os.fchown(file, owner.st_uid, owner.st_gid)
                    for chunk in _read(encoder):
                        _write_all(file, chunk)
                    os.fsync(file)
                finally:
                    os.close(file)
                # S and W are the sizes with and without our line ends, which readers need not count then.
                final = f"{name},S={encoder.record().size},W={size}"
                os.rename(name, final, src_dir_fd=tmp, dst_dir_fd=new)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=tmp)
                raise
            os.fsync(new)

    def _make(self, folder: Path) -> None:
        """The Maildir and what lies between it and the fixed part of the path, each synced into the folder above."""
        if (folder / "cur").is_dir() and (folder / "new").is_dir() and (folder / "tmp").is_dir():
            return
        owner = self._base.stat()
        missing = [folder / name for name in _FOLDERS]
        while folder != self._base and not folder.is_dir():
            missing.append(folder)
            folder = folder.parent
        for one in reversed(missing):
            try:
                one.mkdir(0o700)
            except FileExistsError:
                continue
            if os.geteuid() == 0:
                os.chown(one, owner.st_uid, owner.st_gid)
            with _opened(one.parent) as above:
                os.fsync(above)


@contextlib.contextmanager
def _opened(folder: Path | str, within: int | None = None) -> Iterator[int]:
    """A descriptor of a folder. One inside a Maildir must not be a link: its owner would choose where we write."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (os.O_NOFOLLOW if within is not None else 0)
    descriptor = os.open(folder, flags, dir_fd=within)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _read(encoder: FileEncoder) -> Iterator[bytes]:
    try:
        yield from encoder.chunks()
    except (OSError, StoredAltered) as error:
        raise _Unreadable(str(error)) from error


def _write_all(file: int, octets: bytes) -> None:
    view = memoryview(octets)
    while view:
        view = view[os.write(file, view) :]
