"""The Drop folder of a virtual server: mail for its own domains as files, for programs that take them from there.

A file is the message as it was queued, with CR LF; before it, unless the folder is for bare messages, stand the
envelope lines `x-sender` and `x-receiver` that the Pickup folder of another relay reads.

Rules: a file appears under its name whole and synced or not at all; nothing that is there is overwritten; the name is
made of the message's id, so that what a crash makes the relay write again is found to be there when its reader has not
taken it yet. Whatever the system refuses (no room, no rights, no folder) defers.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

from lonedot.delivery.deposit import Deposit, DepositReport, refused
from lonedot.delivery.jobs import error_words
from lonedot.delivery.routing import Drop
from lonedot.message.encode import StoredAltered
from lonedot.message.filed import FileEncoder, LineEnd
from lonedot.terms.address import Address
from lonedot.terms.outcome import Outcome, Result, Stage

__all__ = ["DROPPED", "DROP_RECIPIENTS", "DropCarrier", "envelope_lines", "needs_trace"]

DROPPED = "written into the Drop folder"
DROP_RECIPIENTS = 500
"""Envelope lines in one file at most; a Pickup folder reads 1000."""

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
_LIKE_ENVELOPE = re.compile(rb"\s*x-(?:sender|receiver)\s*:", re.IGNORECASE)
_NAMES = 1000
"""Names that are tried where files of other octets have the wanted one."""
_CHUNK = 256 * 1024


class _Unreadable(Exception):
    """Our own copy could not be read; the cause says why."""


def envelope_lines(sender: Address, recipients: tuple[Address, ...]) -> bytes:
    """What stands before the message: who sent it and whom it is for."""
    lines = [b"x-sender: " + (sender.octets or b"<>")]
    lines += [b"x-receiver: " + recipient.octets for recipient in recipients]
    return b"\r\n".join(lines) + b"\r\n"


def needs_trace(target: Drop, head: bytes) -> bool:
    """The copy gets the trace fields of a last delivery.

    With the envelope lines that is so only where the message begins with a field that would be read as one of them:
    its sender must not name the recipients of whoever takes the file.
    """
    return not target.envelope or _LIKE_ENVELOPE.match(head) is not None


class DropCarrier:
    """Writes into one folder."""

    def __init__(self, folder: Path, envelope: bool) -> None:
        self._folder = folder
        self._envelope = envelope

    def place(self, recipient: Address) -> str:
        return f"drop:{self._folder}"

    def stop(self) -> None:
        """A file that is being written is finished, or left as one that readers pass over."""

    def put(self, deposit: Deposit) -> DepositReport:
        place = self.place(deposit.recipient)
        encoder = FileEncoder(deposit.canonical, LineEnd.CRLF)
        lines = envelope_lines(deposit.sender, deposit.recipients) if self._envelope else b""
        try:
            self._write(deposit, lines, encoder)
        except _Unreadable as error:
            return DepositReport(refused(place, str(error), "4.3.0"), cause=error.__cause__)
        except OSError as error:
            status = "4.3.1" if error.errno in _NO_ROOM else "4.3.0"
            words = f"the Drop folder {self._folder} could not be written: {error_words(error)}"
            return DepositReport(refused(place, words, status))
        outcome = Outcome(Result.DELIVERED, Stage.CONTENT, DROPPED, None, place, "2.0.0")
        return DepositReport(outcome, encoder.record())

    def _write(self, deposit: Deposit, lines: bytes, encoder: FileEncoder) -> None:
        with contextlib.suppress(FileExistsError):
            self._folder.mkdir(0o700)  # not what is above it: a disk that is not mounted defers
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            name = f"{deposit.id}-{deposit.index}"
            part = f".{name}.part"
            with contextlib.suppress(FileNotFoundError):
                os.unlink(part, dir_fd=folder)  # of an attempt that was killed
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(part, flags, 0o600, dir_fd=folder)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    _give_rights(descriptor, folder)
                    file.write(lines)
                    for chunk in _read(encoder):
                        file.write(chunk)
                    file.flush()
                    os.fsync(descriptor)
                _publish(folder, part, name)
            finally:
                with contextlib.suppress(OSError):
                    os.unlink(part, dir_fd=folder)
            os.fsync(folder)
        finally:
            os.close(folder)


def _give_rights(file: int, folder: int) -> None:
    """Owner and group of the folder, as far as we may; its group may do with the file what it may with the folder."""
    above = os.fstat(folder)
    with contextlib.suppress(PermissionError):
        os.fchown(file, above.st_uid if os.geteuid() == 0 else -1, above.st_gid)
    group = above.st_mode & 0o060 if os.fstat(file).st_gid == above.st_gid else 0
    os.fchmod(file, 0o600 | group)


def _publish(folder: int, part: str, name: str) -> None:
    """The file under the first name that is free, or none where an equal one has such a name.

    Raises:
        OSError: among others when `_NAMES` names are taken.
    """
    for number in range(1, _NAMES + 1):
        final = f"{name}.eml" if number == 1 else f"{name}-{number}.eml"
        try:
            _link(folder, part, final)
        except FileExistsError:
            if _are_equal(folder, part, final):
                return
            continue
        return
    raise FileExistsError(errno.EEXIST, f"{_NAMES} files of that name are there", name)


def _link(folder: int, part: str, final: str) -> None:
    try:
        os.link(part, final, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # A file system without links: a name of ours, so nobody else takes it between the two steps.
        with contextlib.suppress(FileNotFoundError):
            os.stat(final, dir_fd=folder, follow_symlinks=False)
            raise FileExistsError(errno.EEXIST, "is there", final) from None
        os.rename(part, final, src_dir_fd=folder, dst_dir_fd=folder)


def _are_equal(folder: int, one: str, other: str) -> bool:
    """Two files hold the same octets. What cannot be read, or is no file, is not equal."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

    def opened(name: str, _: int) -> int:
        return os.open(name, flags, dir_fd=folder)

    try:
        with open(one, "rb", opener=opened) as ours, open(other, "rb", opener=opened) as theirs:
            while chunk := ours.read(_CHUNK):
                if theirs.read(len(chunk)) != chunk:
                    return False
            return not theirs.read(1)
    except OSError:
        return False


def _read(encoder: FileEncoder) -> Iterator[bytes]:
    try:
        yield from encoder.chunks()
    except (OSError, StoredAltered) as error:
        raise _Unreadable(str(error)) from error
