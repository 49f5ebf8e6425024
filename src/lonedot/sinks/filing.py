"""Messages written into folders and Maildirs, each under a name that is made of its key.

Rules: a file appears under its name whole and synced or not at all, and the folder is synced before it counts; the same
message under the same key has the same name, so that what a crash makes the relay write again takes the place of the
first; nothing of a message but its id stands in a name. Blocks: for threads.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from lonedot.sinks.calls import Failure

__all__ = ["envelope_fields", "fault_of_folder", "put_into_folder", "put_into_maildir"]

_MAILDIR = ("tmp", "new", "cur")


def fault_of_folder(path: str) -> str:
    """What is wrong with the path of a folder, in words; empty when nothing is."""
    if not path.startswith("/") or "\0" in path:
        return "write the whole path of a folder"
    return "a path must not go up" if ".." in path.split("/") else ""


def envelope_fields(sender: bytes, recipients: Iterator[bytes]) -> bytes:
    """Fields that keep the envelope with a message: `X-Envelope-From`, and an `X-Envelope-To` for each recipient."""
    lines = [b"X-Envelope-From: <" + sender + b">"]
    lines += [b"X-Envelope-To: <" + one + b">" for one in recipients]
    return b"".join(line + b"\r\n" for line in lines)


def put_into_folder(folder: str, name: str, chunks: Iterator[bytes]) -> Path:
    """A file `name.eml` of the chunks; the folder is made, and not what is above it.

    Raises:
        Failure: it cannot be written.
    """
    place = Path(folder)
    with _failing(place):
        _make(place)
        with _opened(place) as opened:
            _write(opened, f".{name}.part", opened, f"{name}.eml", chunks)
    return place / f"{name}.eml"


def put_into_maildir(maildir: str, name: str, chunks: Iterator[bytes]) -> Path:
    """A new message in a Maildir, which is made, and not what is above it.

    Raises:
        Failure: it cannot be written.
    """
    place = Path(maildir)
    with _failing(place):
        _make(place)
        for one in _MAILDIR:
            _make(place / one)
        with _opened(place / "tmp") as tmp, _opened(place / "new") as new:
            _write(tmp, name, new, name, chunks)
    return place / "new" / name


@contextlib.contextmanager
def _failing(place: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise Failure(f"{place} could not be written: {words}") from error


def _make(folder: Path) -> None:
    """The folder, with the owner of what it is in; not what is above: a disk that is not mounted is a fault."""
    try:
        folder.mkdir(0o700)
    except FileExistsError:
        return
    if os.geteuid() == 0:
        above = folder.parent.stat()
        os.chown(folder, above.st_uid, above.st_gid)
    with _opened(folder.parent) as opened:
        os.fsync(opened)


def _write(part_in: int, part: str, whole_in: int, whole: str, chunks: Iterator[bytes]) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(part, dir_fd=part_in)  # of a call that was killed
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(part, flags, 0o600, dir_fd=part_in)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if os.geteuid() == 0:
                owner = os.fstat(whole_in)
                os.fchown(descriptor, owner.st_uid, owner.st_gid)
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(descriptor)
        os.rename(part, whole, src_dir_fd=part_in, dst_dir_fd=whole_in)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part, dir_fd=part_in)
        raise
    os.fsync(whole_in)


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    """A descriptor of a folder, which is not a link: its owner would choose where we write."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
