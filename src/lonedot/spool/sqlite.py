"""Custody on the disk of one machine: a shard is a SQLite file, with the bodies of large messages beside it.

This module is the front: it turns calls into work for the `Writer` and reads through its reader. States, and what a
crash in each means: `docs/spool-states.md`. All of it runs on the event loop's thread; only syncs and checkpoints run
elsewhere (see `syncer`).
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

import apsw
import msgspec

from lonedot.message.content import Content, FileBody
from lonedot.spool import reading, recovery, schema, search
from lonedot.spool.actions import Actions, Effects
from lonedot.spool.backup import Saved, save_shard
from lonedot.spool.bodies import Bodies, fault_from
from lonedot.spool.claims import Claims
from lonedot.spool.disk import Disk, InlineSyncer, RealDisk, Syncer
from lonedot.spool.flight import SLOT_COUNT, SLOT_SIZE, Flight
from lonedot.spool.hold_rules import HoldRule, HoldRules, read_rules, write_rules
from lonedot.spool.interface import (
    Acceptance,
    BodyWriter,
    Claim,
    Facts,
    Filter,
    KeyUsed,
    Listed,
    MessageState,
    Settlement,
    SpoolFault,
    SpoolFull,
    SpoolPaths,
    Stored,
)
from lonedot.spool.lock import SpoolLock
from lonedot.spool.room import Room
from lonedot.spool.syncer import ProcessSyncer
from lonedot.spool.work import Accepting, Acting, NewMessage, Preparer, Settling
from lonedot.spool.writer import Writer
from lonedot.terms.clock import Clock
from lonedot.terms.envelope import Envelope
from lonedot.terms.ids import MessageId

__all__ = ["CONTENT_LIMIT", "KeepContent", "Policy", "SqliteSpool", "open_offline", "open_spool"]

Result = TypeVar("Result")

CONTENT_LIMIT = 256 * 1024
"""Octets of a body that lie in the database; a larger one is a file."""


class KeepContent(enum.Enum):
    """Whose content stays when it is finished, until the history ends."""

    NONE = "none"
    DAMAGED = "damaged"
    """Those in whose ledger something was repaired, undone, held or found."""
    ALL = "all"


class Policy(msgspec.Struct, frozen=True):
    """What an operator may choose."""

    keep_content: KeepContent = KeepContent.DAMAGED
    reserve: int | None = None
    """Octets of the disk to keep free; None: 5 %, from 64 MiB to 1 GiB."""
    inline_sync: bool = False
    """Sync on the calling thread instead of in a process: for short commands and tests."""


class SqliteSpool:
    """One shard. See `interface.Spool`; made by `open_spool` or `open_offline`, with the loop running."""

    def __init__(
        self,
        paths: SpoolPaths,
        shard: int,
        clock: Clock,
        policy: Policy,
        disk: Disk,
        notice: Callable[[str], None],
        lock: SpoolLock | None = None,
    ) -> None:
        """Opens and recovers it. `lock` is held by the caller, who releases it after `close`; None: it takes its own.

        Raises SpoolLocked or SpoolFault.
        """
        self._loop = asyncio.get_running_loop()
        self._clock = clock
        self._closed = False
        self._disk = disk
        self.shard = shard
        self._keys: set[bytes] = set()
        """Keys of acceptances on their way."""
        self._due: float | None = None
        self._due_at = -1
        """After which commit `_due` was read."""
        folder = paths.shard(shard)
        self._database = database = folder / "queue.db"
        try:
            _make_folders(disk, paths, shard)
            self._lock = SpoolLock(paths.lock) if lock is None else None
        except OSError as error:
            raise fault_from(error, f"cannot open the spool {paths.root}") from error
        self._room = Room(disk, folder, clock, policy.reserve)
        self._bodies = Bodies(disk, folder / "bodies", self._room)
        self._claims = Claims()
        keep_content = _keep_content(policy.keep_content)

        def make_syncer() -> Syncer:
            if policy.inline_sync:
                return InlineSyncer(disk, database, self._loop.call_soon)
            return ProcessSyncer(database)

        flight: Flight | None = None
        writer: Writer | None = None
        try:
            self._flight = flight = Flight(disk.slots(folder / "flight", SLOT_COUNT * SLOT_SIZE))
            self._actions = Actions(self._claims, flight, self._bodies, keep_content)
            self._prepare = Preparer(self._bodies, keep_content)
            self._writer = writer = Writer(
                database,
                disk,
                clock,
                self._claims,
                self._actions,
                self._bodies,
                self._room,
                make_syncer,
                notice,
            )
            self._root = paths.root
            self._rules = read_rules(paths.root)
            connection = writer.open()
            self.recovered = recovery.recover(connection, self._bodies, flight)
            flight.clear()  # counted: an opening that fails or is killed from here on must not count it again
            self._apply_rules(connection)
            writer.begin()
            ((self._prepare.salt,),) = schema.query(connection, "SELECT salt FROM progress")
            for path in self.recovered.orphans:
                disk.unlink(path)
        except (apsw.Error, OSError, ValueError, SpoolFault) as error:
            if writer is not None:
                writer.stop()
            if flight is not None:
                flight.close()
            self._release_lock()
            if isinstance(error, SpoolFault):
                raise
            raise SpoolFault(f"cannot open {database}: {error}") from error

    @property
    def withdrawn(self) -> int:
        """Messages that were refused with 451, were there after all, and were removed."""
        return self._writer.withdrawn

    @property
    def fault(self) -> str:
        """Why nothing can be written at present; empty when it can."""
        return self._writer.fault

    def tell_commits(self, tell: Callable[[float], None]) -> None:
        """`tell` is given the seconds that each commit took until it was synced."""
        self._writer.commit_took = tell

    # -- taking ----------------------------------------------------------------------------------------

    def has_room(self, octets: int) -> bool:
        return self._room.has(octets)

    def body_path(self, id: MessageId) -> Path:
        """Where the body file of a message lies."""
        return self._bodies.path(id)

    def body_writer(self, id: MessageId) -> BodyWriter:
        return self._bodies.writer(id)

    def accept(self, batch: Sequence[Acceptance]) -> asyncio.Future[None]:
        future: asyncio.Future[None] = self._loop.create_future()
        bodies: list[Path] = []
        made: list[Path] = []
        messages: list[NewMessage] = []
        keys: list[bytes] = []
        try:
            for given in batch:
                if given.key:
                    if given.key in self._keys or given.key in keys or self.has_key(given.key):
                        raise KeyUsed(given.id)
                    keys.append(given.key)
                messages.append(self._prepare.message(self._in_place(self._judged(given), bodies, made)))
            work = Accepting(future, messages)
            if not self._room.has(work.size):
                raise SpoolFull("less room on the disk than the reserve")
        except (SpoolFault, KeyUsed) as error:
            self._writer.remove(made)
            future.set_exception(error)
            return future
        if keys:
            self._keys.update(keys)
            future.add_done_callback(lambda _: self._keys.difference_update(keys))
        self._writer.submit(work, bodies)
        return future

    def _in_place(self, given: Acceptance, bodies: list[Path], made: list[Path]) -> Acceptance:
        """With a body that is too large for the database in a file.

        `bodies` takes every body file, `made` those that were written here.
        """
        body = given.arrival.body
        if isinstance(body, FileBody):
            bodies.append(body.path)
        elif body.size > CONTENT_LIMIT:
            writer = self._bodies.writer(given.id)
            try:
                for chunk in body.chunks():
                    writer.write(chunk)
                file = writer.finish()
            except SpoolFault:
                writer.discard()
                raise
            bodies.append(file.path)
            made.append(file.path)
            arrival = msgspec.structs.replace(given.arrival, body=file)
            return msgspec.structs.replace(given, arrival=arrival)
        return given

    def settle(self, batch: Sequence[Settlement]) -> asyncio.Future[Sequence[bool]]:
        future: asyncio.Future[Sequence[bool]] = self._loop.create_future()
        bodies: list[Path] = []
        made: list[Path] = []
        try:
            prepared = [
                self._prepare.settlement(
                    settlement,
                    [self._in_place(self._judged(spawned), bodies, made) for spawned in settlement.spawned],
                )
                for settlement in batch
            ]
        except SpoolFault as error:
            self._writer.remove(made)
            future.set_exception(error)
            return future
        self._writer.submit(Settling(future, prepared), bodies)
        return future

    # -- claims ----------------------------------------------------------------------------------------

    def claim(
        self, owner: str, now: float, lease_seconds: float, limit: int, lane: str = ""
    ) -> Awaitable[Sequence[Claim]]:
        return self._act(
            lambda connection, effects: self._actions.claim(
                connection, effects, owner, now, lease_seconds, limit, lane
            )
        )

    def lanes(self) -> Sequence[str]:
        try:
            return reading.lanes_with_messages(self._reader())
        except apsw.Error as error:
            raise SpoolFault(f"cannot read the queue: {error}") from error

    def count_lane(self, lane: str) -> int:
        try:
            return reading.count_lane(self._reader(), lane)
        except apsw.Error as error:
            raise SpoolFault(f"cannot read the queue: {error}") from error

    def take(
        self, owner: str, ids: Sequence[MessageId], now: float, lease_seconds: float
    ) -> Awaitable[Sequence[Claim | None]]:
        return self._act(
            lambda connection, effects: self._actions.take(
                connection, effects, owner, ids, now + lease_seconds
            )
        )

    def renew(self, owner: str, lease_until: float) -> Awaitable[None]:
        """At once: leases live in memory."""
        self._claims.renew(owner, lease_until)
        future: asyncio.Future[None] = self._loop.create_future()
        future.set_result(None)
        return future

    def next_due(self) -> float | None:
        if self._due_at != self._writer.commits:
            try:
                self._due = reading.first_due(self._reader())
            except (SpoolFault, apsw.Error):
                return self._clock.now()  # whoever claims now is told what is wrong
            self._due_at = self._writer.commits
        now = self._clock.now()
        if self._claims.ended(now):
            return now if self._due is None else min(self._due, now)
        return self._due

    def owns(self, id: MessageId, epoch: int) -> bool:
        number = reading.find_number(id)
        held = None if number is None else self._claims.get(number)
        return held is not None and held.epoch == epoch and held.state is MessageState.QUEUED

    def in_flight(self, id: MessageId) -> None:
        number = reading.find_number(id)
        if number is not None:
            self._flight.begin(number)

    def landed(self, id: MessageId) -> None:
        number = reading.find_number(id)
        if number is None:
            return
        self._flight.end(number)
        held = self._claims.get(number)
        if held is not None and held.state is not MessageState.QUEUED:
            # Held or deleted while it was in flight, and nobody goes on with it.
            self._quietly(lambda connection, effects: self._actions.end_claims(connection, effects, [number]))

    # -- reading ---------------------------------------------------------------------------------------

    def content(self, id: MessageId) -> Content:
        try:
            return reading.read_content(self._reader(), self._bodies, id)
        except (apsw.Error, OSError) as error:
            raise SpoolFault(f"cannot read the content of {id}: {error}") from error

    def contains(self, id: str) -> bool:
        """There is a message with that id, whatever its state. Raises SpoolFault."""
        try:
            return reading.contains_message(self._reader(), id)
        except apsw.Error as error:
            raise SpoolFault(f"cannot read {id}: {error}") from error

    def show(self, id: MessageId) -> Stored:
        try:
            return reading.read_message(self._reader(), id)
        except apsw.Error as error:
            raise SpoolFault(f"cannot read {id}: {error}") from error

    def listing(self, wanted: Filter) -> Sequence[Listed]:
        try:
            return search.list_messages(self._reader(), wanted)
        except apsw.Error as error:
            raise SpoolFault(f"cannot read the queue: {error}") from error

    def search(self, wanted: Filter) -> Awaitable[Sequence[Listed]]:
        return self._beside(lambda connection: search.list_messages(connection, wanted))

    def select(self, wanted: Filter) -> Awaitable[Sequence[MessageId]]:
        return self._beside(lambda connection: search.select_messages(connection, wanted))

    async def _beside(self, read: Callable[[apsw.Connection], Result]) -> Result:
        """Read in a thread, through a connection of its own."""
        self._reader()  # raises while the disk is out of order

        def work() -> Result:
            connection = schema.open_reader(self._database, self._disk.vfs)
            try:
                return read(connection)
            finally:
                connection.close(True)

        try:
            return await asyncio.to_thread(work)
        except apsw.Error as error:
            raise SpoolFault(f"cannot read the queue: {error}") from error

    async def save(self, folder: Path, copied: Callable[[int, int], None]) -> Saved:
        """Copy the shard into `folder` (see `backup`) while work goes on. `copied` is called in a thread.

        Raises:
            SpoolFault: it cannot be copied.
        """
        self._reader()  # raises while the disk is out of order
        self._writer.keep_bodies(keep=True)
        try:
            return await asyncio.to_thread(save_shard, self._database, folder, copied, self._disk.vfs)
        finally:
            self._writer.keep_bodies(keep=False)

    def counts(self) -> dict[MessageState, int]:
        try:
            return reading.count_by_state(self._reader())
        except apsw.Error as error:
            raise SpoolFault(f"cannot read the queue: {error}") from error

    def has_key(self, key: bytes) -> bool:
        try:
            return reading.contains_key(self._reader(), key)
        except apsw.Error as error:
            raise SpoolFault(f"cannot read the keys: {error}") from error

    def _reader(self) -> apsw.Connection:
        return self._writer.reader

    # -- by hand ---------------------------------------------------------------------------------------

    def hold(self, ids: Sequence[MessageId], reason: str) -> Awaitable[Sequence[bool]]:
        return self._act(lambda connection, effects: self._actions.hold(connection, effects, ids, reason))

    def release(self, ids: Sequence[MessageId], now: float) -> Awaitable[Sequence[bool]]:
        return self._act(lambda connection, effects: self._actions.release(connection, effects, ids, now))

    def retry(self, ids: Sequence[MessageId], now: float) -> Awaitable[Sequence[bool]]:
        return self._act(lambda connection, effects: self._actions.retry(connection, effects, ids, now))

    def delete(self, ids: Sequence[MessageId], now: float) -> Awaitable[Sequence[bool]]:
        return self._act(lambda connection, effects: self._actions.delete(connection, effects, ids, now))

    def purge(self, before: float, limit: int) -> Awaitable[int]:
        return self._act(lambda connection, effects: self._actions.purge(connection, effects, before, limit))

    def _act(self, action: Callable[[apsw.Connection, Effects], Result]) -> asyncio.Future[Result]:
        future: asyncio.Future[Result] = self._loop.create_future()
        self._writer.submit(Acting(future, action), [])
        return future

    def _quietly(self, action: Callable[[apsw.Connection, Effects], None]) -> None:
        """An action nobody waits for; when it fails, the next opening does as much."""
        self._act(action).add_done_callback(lambda done: done.cancelled() or done.exception())

    # -- standing rules --------------------------------------------------------------------------------

    def rules(self) -> HoldRules:
        return self._rules

    def held_by(self, envelope: Envelope, facts: Facts, size: int) -> str:
        if not self._rules.rules:
            return ""
        addresses = [recipient.address.text for recipient in envelope.recipients]
        return self._rules.words_for(envelope.reverse_path.text, addresses, facts.client, size)

    def _judged(self, given: Acceptance) -> Acceptance:
        """Held, when a standing rule says so and nobody works on it yet."""
        if not self._rules.rules or given.owner or given.state is not MessageState.QUEUED:
            return given
        words = self.held_by(given.envelope, given.facts, given.size)
        return msgspec.structs.replace(given, state=MessageState.HELD, reason=words) if words else given

    def write_rules(self, rules: HoldRules) -> None:
        try:
            write_rules(self._root, rules)
        except OSError as error:
            raise fault_from(error, "the standing rules cannot be written") from error

    async def take_rules(self) -> Sequence[HoldRule]:
        try:
            self._rules = read_rules(self._root)
        except (OSError, ValueError) as error:
            raise SpoolFault(str(error)) from error
        await self._writer.bodies_synced()
        applied = await self._act(lambda connection, effects: _applied_rule(connection))
        return [rule for rule in self._rules.rules if rule.number > applied]

    def rules_applied(self, number: int) -> Awaitable[None]:
        def note(connection: apsw.Connection, effects: Effects) -> None:
            connection.execute(schema.RULE, (number,))

        return self._act(note)

    def _apply_rules(self, connection: apsw.Connection) -> None:
        """At opening: hold what rules are about that the last process did not get round to."""
        rules = self._rules
        applied = _applied_rule(connection)
        if applied >= rules.newest:
            return
        with connection:
            for rule in rules.rules:
                if rule.number > applied:
                    ids = search.select_messages(connection, Filter.of_rule(rule, -1))
                    self._actions.hold(connection, Effects(), ids, rule.words)
            connection.execute(schema.RULE, (rules.newest,))
            connection.execute(schema.PROGRESS_STEP)

    # -- the end ---------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Commit what waits, give up claims, release the lock. May be called twice."""
        if self._closed:
            return
        self._closed = True
        numbers = [held.number for held in self._claims]
        try:
            await self._act(
                lambda connection, effects: self._actions.end_claims(connection, effects, numbers)
            )
        except SpoolFault:
            pass  # claims end at the next opening
        finally:
            self._writer.stop()
            self._flight.clear()
            self._flight.close()
            self._release_lock()

    def _release_lock(self) -> None:
        if self._lock is not None:
            self._lock.release()


def _make_folders(disk: Disk, paths: SpoolPaths, shard: int) -> None:
    paths.root.parent.mkdir(parents=True, exist_ok=True)
    folder = paths.shard(shard)
    for path in (paths.root, folder.parent, folder, folder / "bodies"):
        if disk.make_folder(path):
            disk.sync_folder(path.parent)


def _keep_content(policy: KeepContent) -> Callable[[bool], bool]:
    match policy:
        case KeepContent.NONE:
            return lambda remarkable: False
        case KeepContent.DAMAGED:
            return lambda remarkable: remarkable
        case KeepContent.ALL:
            return lambda remarkable: True


def _applied_rule(connection: apsw.Connection) -> int:
    ((number,),) = schema.query(connection, "SELECT rule FROM progress")
    return int(number)


def _ignore(words: str) -> None:
    """A notice nobody asked for."""


def open_spool(
    paths: SpoolPaths,
    clock: Clock,
    policy: Policy | None = None,
    *,
    shard: int = 0,
    disk: Disk | None = None,
    notice: Callable[[str], None] = _ignore,
    lock: SpoolLock | None = None,
) -> SqliteSpool:
    """Open a shard for the relay. `notice` is told in words when the disk fails and when it works again.

    A `lock` that is given stays the caller's.

    Raises:
        SpoolLocked: another process has it.
        SpoolFault: it cannot be opened.
    """
    return SqliteSpool(paths, shard, clock, policy or Policy(), disk or RealDisk(), notice, lock)


def open_offline(
    paths: SpoolPaths,
    clock: Clock,
    keep_content: KeepContent = KeepContent.DAMAGED,
    *,
    shard: int = 0,
    lock: SpoolLock | None = None,
) -> SqliteSpool:
    """Open a shard for a command while the relay is down: with its lock, and without a process beside it.

    Raises:
        SpoolLocked: the relay has it.
        SpoolFault: there is none, or it cannot be opened.
    """
    if not (paths.shard(shard) / "queue.db").exists():
        raise SpoolFault(f"there is no spool at {paths.root}")
    policy = Policy(keep_content, inline_sync=True)
    return SqliteSpool(paths, shard, clock, policy, RealDisk(), _ignore, lock)
