"""The Pickup folder: programs leave a message as a file, the relay takes it.

States of a file, and what a crash in each means:

1. in the folder: the program's; not touched until it has been still for two looks and nobody has it open for writing;
2. in `.taking`: ours (an atomic rename). After a crash it is found there and goes on from here;
3. committed, with a key made of its name, inode and time: after a crash the key says so, and the file is only removed;
4. refused for good: moved to Badmail with the reason. Refused for now: stays in `.taking` and is tried again.
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
from lonedot.message.intake import HeadTooLarge, Intake
from lonedot.reception.acceptance import Acceptor, Verdict
from lonedot.reception.pickup_envelope import PickupFault, read_start
from lonedot.spool.badmail import file_badmail
from lonedot.spool.interface import BodyWriter, Facts, SpoolFault
from lonedot.terms.address import Address
from lonedot.terms.ids import MessageId, SessionId

__all__ = ["PickupFolder", "PickupObserver"]

START_OCTETS = 256 * 1024
CHUNK = 256 * 1024
TRY_AGAIN_SECONDS = 60.0
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
                target = self._taking / f"{file.inode:x}-{name}"
                with contextlib.suppress(FileNotFoundError):
                    (self.folder / name).rename(target)
        self._seen = now
        return sorted(
            entry.name for entry in os.scandir(self._taking) if entry.is_file(follow_symlinks=False)
        )

    async def _submit(self, name: str) -> None:
        path = self._taking / name
        try:
            status = path.stat()
        except FileNotFoundError:
            return
        key = hashlib.sha256(
            f"{name}\0{status.st_ino}\0{status.st_size}\0{status.st_mtime_ns}".encode()
        ).digest()
        if self._acceptor.spool.has_key(key):
            path.unlink(missing_ok=True)
            return
        try:
            verdict, id = await self._accept(path, name, key)
        except PickupFault as fault:
            await self._give_up(path, name, str(fault))
            return
        except (SpoolFault, OSError) as error:
            self._put_off(name, str(error))
            return
        if verdict.accepted:
            path.unlink(missing_ok=True)
            self._later.pop(name, None)
            self._observer.taken(name, id)
        elif verdict.reply.is_permanent:
            await self._give_up(path, name, verdict.reply.text)
        else:
            self._put_off(name, verdict.reply.text)

    async def _accept(self, path: Path, name: str, key: bytes) -> tuple[Verdict, MessageId]:
        loop = asyncio.get_running_loop()
        id = self._acceptor.new_id()
        writer: list[BodyWriter] = []

        def open_body() -> BodyWriter:
            writer.append(self._acceptor.spool.body_writer(id))
            return writer[0]

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
                arrived = intake.finish()
            except HeadTooLarge as error:
                _discard(writer)
                raise PickupFault(str(error)) from error
            except SpoolFault:
                _discard(writer)
                raise
        facts = Facts(
            source="pickup",
            session=SessionId(id),
            listener="pickup",
            client=name.partition("-")[2],
            protocol="local",
            trusted=True,
            revision=self._revision,
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
        if not verdict.accepted:
            _discard(writer)
        return verdict, id

    def _put_off(self, name: str, words: str) -> None:
        self._later[name] = self._acceptor.clock.monotonic() + TRY_AGAIN_SECONDS
        self._observer.refused(name, words, for_good=False)

    async def _give_up(self, path: Path, name: str, words: str) -> None:
        """To Badmail; the file leaves `.taking` only when it is safe there."""

        def move() -> None:
            with path.open("rb") as file:
                file_badmail(
                    self._badmail,
                    f"pickup-{name}",
                    iter(lambda: file.read(CHUNK), b""),
                    words,
                    {"source": "pickup", "file": name},
                )
            path.unlink(missing_ok=True)

        try:
            await asyncio.get_running_loop().run_in_executor(None, move)
        except OSError as error:
            self._put_off(name, f"{words}; and Badmail cannot be written: {error}")
            return
        self._observer.refused(name, words, for_good=True)


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
