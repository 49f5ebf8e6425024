"""The Pickup folder: programs leave a message as a file, the relay takes it.

States of a file, and what a crash in each means:

1. in the folder: the program's; not touched until it has been still for two looks and nobody has it open for writing;
2. in `.taking`: ours (an atomic rename). After a crash it is found there and goes on from here;
3. committed, with a key made of its name, inode and time: after a crash the key says so, and the file is only removed;
4. refused for good: moved to Badmail with the reason. Refused for now: stays in `.taking` and is tried again.

One file that cannot be taken, whatever is wrong with it, never keeps the others from being taken. Names are what
programs make them: any octets; what is shown and stored of a name is always text.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from lonedot.message.door import DoorPolicy, LineEnds, LongLines
from lonedot.message.edits import Edit
from lonedot.message.intake import Arrived, HeadTooLarge, Intake
from lonedot.reception.acceptance import Acceptor, Verdict
from lonedot.reception.pickup_envelope import PickupFault, PickupStart, read_start
from lonedot.spool.badmail import file_badmail
from lonedot.spool.interface import BodyWriter, Facts
from lonedot.terms.address import Address
from lonedot.terms.ids import MessageId, SessionId

__all__ = ["PickupFolder", "PickupObserver"]

START_OCTETS = 1024 * 1024
"""Read at once: the envelope lines and the header section, whose limits are lower, are whole in it."""
CHUNK = 256 * 1024
TRY_AGAIN_SECONDS = 60.0
NAME_LIMIT = 200
"""Octets of a name that are kept: with what is put before it, it must still be a file name."""
IGNORED_SUFFIXES = (".part", ".tmp", ".temp", "~")


class PickupObserver(Protocol):
    """Is told what became of a file. Must not raise."""

    def taken(self, name: str, id: MessageId) -> None: ...

    def refused(self, name: str, words: str, for_good: bool) -> None: ...


class _File(msgspec.Struct, frozen=True):
    name: str
    inode: int
    size: int
    changed_at: int


class PickupFolder:
    """Watches one folder."""

    def __init__(
        self,
        folder: Path,
        badmail: Path,
        acceptor: Acceptor,
        has_route: Callable[[Address], bool],
        observer: PickupObserver,
        poll_seconds: float,
        max_size: int,
        revision: str,
    ) -> None:
        self.folder = folder
        self._taking = folder / ".taking"
        self._badmail = badmail
        self._acceptor = acceptor
        self._has_route = has_route
        self._observer = observer
        self._poll_seconds = poll_seconds
        self._max_size = max_size
        self._revision = revision
        self._seen: dict[str, _File] = {}
        self._later: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    def start(self) -> None:
        """Make the folders and begin to look.

        Raises:
            OSError: the folder cannot be made.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._taking.mkdir(mode=0o700, exist_ok=True)
        self._task = asyncio.get_running_loop().create_task(self._watch())

    async def stop(self) -> None:
        """Finish the file at hand and stop."""
        self._stopping.set()
        if self._task is not None:
            await self._task

    async def _watch(self) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(OSError):
                await self.look()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), self._poll_seconds)

    async def look(self) -> None:
        """One look: take what is still, and go on with what was taken before."""
        loop = asyncio.get_running_loop()
        for name in await loop.run_in_executor(None, self._take_still):
            if self._stopping.is_set():
                return
            if self._later.get(name, 0.0) <= self._acceptor.clock.monotonic():
                await self._submit(name)

    def _take_still(self) -> list[str]:
        """Rename what has not changed since the last look into `.taking`; all names there."""
        now: dict[str, _File] = {}
        for entry in os.scandir(self.folder):
            if entry.name.startswith(".") or entry.name.lower().endswith(IGNORED_SUFFIXES):
                continue
            if not entry.is_file(follow_symlinks=False):
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            now[entry.name] = _File(entry.name, status.st_ino, status.st_size, status.st_mtime_ns)
        for name, file in now.items():
            if file.size and self._seen.get(name) == file and not _is_being_written(self.folder / name):
                kept = os.fsdecode(os.fsencode(name)[-NAME_LIMIT:])
                with contextlib.suppress(OSError):  # gone, or not ours to move: the others go on
                    (self.folder / name).rename(self._taking / f"{file.inode:x}-{kept}")
        self._seen = now
        return sorted(
            entry.name for entry in os.scandir(self._taking) if entry.is_file(follow_symlinks=False)
        )

    async def _submit(self, name: str) -> None:
        """One file of `.taking`."""
        path = self._taking / name
        try:
            await self._submit_file(path, name)
        except FileNotFoundError:
            self._later.pop(name, None)
        except PickupFault as fault:
            await self._give_up(path, name, str(fault))
        except Exception as error:  # the disk, the spool, or a fault of ours: never the end of Pickup
            self._put_off(name, str(error) or type(error).__name__)

    async def _submit_file(self, path: Path, name: str) -> None:
        key = _key_of(path, name)
        if self._acceptor.spool.has_key(key):
            self._remove(path, name)
            return
        verdict, id = await self._accept(path, name, key)
        if verdict.accepted:
            self._remove(path, name)
            self._observer.taken(shown_name(name), id)
        elif verdict.reply.is_permanent:
            await self._give_up(path, name, verdict.reply.text)
        else:
            self._put_off(name, verdict.reply.text)

    async def _accept(self, path: Path, name: str, key: bytes) -> tuple[Verdict, MessageId]:
        loop = asyncio.get_running_loop()
        id = self._acceptor.new_id()
        writers: list[BodyWriter] = []
        try:
            begin, arrived = await self._read(path, id, writers)
            facts = Facts(
                source="pickup",
                session=SessionId(id),
                listener="pickup",
                client=shown_name(name).partition("-")[2],
                protocol="local",
                trusted=True,
                revision=self._revision,
                server=self._acceptor.server,
            )
            policy = DoorPolicy(LineEnds.NORMALIZE, LongLines.ENCODE, add_missing=True)
            future: asyncio.Future[Verdict] = loop.create_future()
            self._acceptor.accept(
                id,
                begin.envelope,
                facts,
                arrived,
                policy,
                future.set_result,
                key,
                edits=(Edit.remove_field("Bcc"),),
            )
            verdict = await future
        except Exception:
            _discard(writers)
            raise
        if not verdict.accepted:
            _discard(writers)
        return verdict, id

    async def _read(
        self, path: Path, id: MessageId, writers: list[BodyWriter]
    ) -> tuple[PickupStart, Arrived]:
        """Take the file in; `writers` gets the body writer when there is one.

        Raises:
            PickupFault: the file cannot be sent.
            OSError, SpoolFault: it cannot be read, or stored, now.
        """
        loop = asyncio.get_running_loop()

        def open_body() -> BodyWriter:
            writers.append(self._acceptor.spool.body_writer(id))
            return writers[0]

        intake = Intake(open_body)
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise PickupFault("it is not a regular file")
            size = os.fstat(descriptor).st_size
            if size > self._max_size:
                raise PickupFault(f"{size} octets; the limit is {self._max_size}")
            start = await loop.run_in_executor(None, file.read, START_OCTETS)
            begin = read_start(start)
            for recipient in begin.envelope.recipients:
                if not self._has_route(recipient.address):
                    raise PickupFault(f"no route to {recipient.address.text}")
            try:
                chunk = start[begin.content_at :]
                while chunk:
                    intake.feed(chunk)
                    chunk = await loop.run_in_executor(None, file.read, CHUNK)
                return begin, intake.finish()
            except HeadTooLarge as error:
                raise PickupFault(str(error)) from error

    def _remove(self, path: Path, name: str) -> None:
        path.unlink(missing_ok=True)
        self._later.pop(name, None)

    def _put_off(self, name: str, words: str) -> None:
        self._later[name] = self._acceptor.clock.monotonic() + TRY_AGAIN_SECONDS
        self._observer.refused(shown_name(name), words, for_good=False)

    async def _give_up(self, path: Path, name: str, words: str) -> None:
        """To Badmail; the file leaves `.taking` only when it is safe there."""
        shown = shown_name(name)

        def move() -> None:
            with path.open("rb") as file:
                file_badmail(
                    self._badmail,
                    f"pickup-{name}",
                    iter(lambda: file.read(CHUNK), b""),
                    words,
                    {"source": "pickup", "file": shown},
                )
            path.unlink(missing_ok=True)

        try:
            await asyncio.get_running_loop().run_in_executor(None, move)
        except OSError as error:
            self._put_off(name, f"{words}; and Badmail cannot be written: {error}")
            return
        self._later.pop(name, None)
        self._observer.refused(shown, words, for_good=True)


def _key_of(path: Path, name: str) -> bytes:
    """What tells this file, as it is, from every other."""
    status = path.stat()
    what = b"\0%d\0%d\0%d" % (status.st_ino, status.st_size, status.st_mtime_ns)
    return hashlib.sha256(os.fsencode(name) + what).digest()


def shown_name(name: str) -> str:
    """A file name as text that can be written down: octets that are no UTF-8 become escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _discard(writers: list[BodyWriter]) -> None:
    for writer in writers:
        writer.discard()


def _is_being_written(path: Path) -> bool:
    """True when some process has the file open for writing (a read lease is then refused). Linux; else False."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False
