"""The writer of a shard: group commit, syncing, checkpoints, and what is done when the disk fails.

Rules: one transaction is on its way at a time, and all that arrives meanwhile is the next; nobody is answered before
the log is synced; after a failed commit or sync nothing is repeated before `_mend` has found out what is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import apsw

from lonedot.spool import reading, schema
from lonedot.spool.actions import Actions, Effects
from lonedot.spool.bodies import Bodies, fault_from
from lonedot.spool.claims import Claims, Held, waiting_of
from lonedot.spool.disk import Checkpointed, Disk, Syncer
from lonedot.spool.interface import MessageState, SpoolFault, SpoolFull
from lonedot.spool.room import Room
from lonedot.spool.work import Transaction, Work
from lonedot.terms.clock import Clock

__all__ = ["Writer"]

BATCH_WORKS = 256
BATCH_OCTETS = 4 << 20
"""What one transaction takes together: more would stop the loop for too long (4 MiB: about 5 ms)."""
PATIENCE_SECONDS = 0.002
"""How long outcomes wait for an acceptance, to share its commit: with few clients that halves the syncs. It is also how
much longer a crash can find an outcome unrecorded, and send that message again."""
PATIENCE_WORKS = 32
"""So many outcomes do not wait."""
CHECKPOINT_OCTETS = 16 << 20
MEND_AGAIN_SECONDS = 1.0


def _unnoted(seconds: float) -> None:
    pass


class Writer:
    """Owns both connections and the syncer of a shard. `notice` is told what an operator should know."""

    def __init__(
        self,
        database: Path,
        disk: Disk,
        clock: Clock,
        claims: Claims,
        actions: Actions,
        bodies: Bodies,
        room: Room,
        make_syncer: Callable[[], Syncer],
        notice: Callable[[str], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._database = database
        self._log = database.with_name(database.name + "-wal")
        self._disk = disk
        self._clock = clock
        self._claims = claims
        self._actions = actions
        self._bodies = bodies
        self._room = room
        self._make_syncer = make_syncer
        self._notice = notice
        self._pending: list[Work] = []
        self._scheduled = False
        self._patience: asyncio.TimerHandle | None = None
        """Only outcomes wait, for company."""
        self._sent: tuple[list[Work], Transaction] | None = None
        """The transaction that waits for its sync."""
        self._bodies_sent: dict[Work, list[Path]] = {}
        """Works whose body files are being synced."""
        self._number = 0
        self._broken = ""
        self._mend_at = 0.0
        self._refused: set[int] = set()
        """Messages refused while nobody knew whether they are there."""
        self._doubtful: dict[int, Held | None] = {}
        """Claims touched by transactions that failed."""
        self._log_pages = 0
        self._checkpoint_at = CHECKPOINT_OCTETS // schema.PAGE_SIZE
        self._checkpoint_from = -1
        """Pages of the log when the checkpoint that runs was ordered; -1: none runs."""
        self._pause = False
        """The next checkpoint runs between two commits."""
        self._keeping = 0
        self._kept: list[Path] = []
        """Body files that are to be removed when nobody copies the shard any more."""
        self.withdrawn = 0
        self.commits = 0
        self._committed_at = 0.0
        self.commit_took: Callable[[float], None] = _unnoted
        """Told how many seconds each commit took to be synced."""
        self.connection: apsw.Connection | None = None
        self._reader: apsw.Connection | None = None
        self._syncer: Syncer | None = None

    @property
    def fault(self) -> str:
        """Why nothing can be written at present; empty when it can."""
        return self._broken

    # -- opening and closing -------------------------------------------------------------------------

    def open(self) -> apsw.Connection:
        """Raises apsw.Error, OSError or SpoolFault."""
        connection = self.connection = schema.open_writer(self._database, self._disk.vfs)
        connection.set_wal_hook(self._count_pages)
        return connection

    def begin(self) -> None:
        """After recovery: make what was found durable, and take work."""
        connection = self.connection
        assert connection is not None
        try:
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except apsw.BusyError:
            # The process that synced for a relay that was killed may still be at its last checkpoint.
            self._disk.sync_file(self._log)
        self._disk.sync_folder(self._database.parent)
        self._read_number(connection)
        self._reader = schema.open_reader(self._database, self._disk.vfs)
        self._syncer = self._make_syncer()

    def stop(self) -> None:
        """Close everything; what waits is failed."""
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        self._pause = False  # a start may stand in the loop still, and would order the checkpoint that waits
        sent, self._sent = self._sent, None
        for work in [*(sent[0] if sent is not None else ()), *self._take_all()]:
            work.fail(SpoolFault("the spool is closed"))
        if self.connection is not None and not self._broken:
            try:
                self.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            except apsw.Error as error:
                self._notice(f"the log could not be put into the database: {error}; the next opening does it")
        self._close()
        self._broken = "the spool is closed"
        self._mend_at = float("inf")

    def _close(self) -> None:
        if self._syncer is not None:
            self._syncer.close()
            self._syncer = None
        for connection in (self._reader, self.connection):
            if connection is not None:
                try:
                    connection.close(True)
                except apsw.Error:
                    pass
        self._reader = self.connection = None

    def _read_number(self, connection: apsw.Connection) -> None:
        ((self._number,),) = schema.query(connection, "SELECT transactions FROM progress")

    def _count_pages(self, connection: apsw.Connection, name: str, pages: int) -> int:
        self._log_pages = pages
        return apsw.SQLITE_OK

    # -- what callers use ----------------------------------------------------------------------------

    @property
    def reader(self) -> apsw.Connection:
        """For reading. Raises SpoolFault while the disk is out of order."""
        if self._broken:
            self._mend_if_time()
        if self._reader is None:
            raise SpoolFault(self._broken)
        return self._reader

    @property
    def is_idle(self) -> bool:
        return not self._pending and self._sent is None and not self._bodies_sent

    def submit(self, work: Work, bodies: list[Path]) -> None:
        """Write this; its body files are synced first."""
        if self._broken and not self._mend_if_time():
            work.fail(SpoolFault(self._broken))
            return
        if not bodies:
            self._enqueue(work)
            return
        self._bodies_sent[work] = bodies
        self._living_syncer().sync_bodies(bodies, lambda error: self._bodies_synced(work, error))

    async def bodies_synced(self) -> None:
        """What waits for its body files by now is there, or has failed."""
        if waiting := [work.future for work in self._bodies_sent]:
            await asyncio.wait(waiting)

    def remove(self, paths: list[Path]) -> None:
        """Remove body files; those that stay are removed at the next opening."""
        if self._keeping:
            self._kept += paths
        elif self._syncer is not None:
            self._syncer.remove(paths)

    def keep_bodies(self, *, keep: bool) -> None:
        """While somebody copies the shard no body file is removed; when the last one is done, those that wait are."""
        self._keeping += 1 if keep else -1
        if not self._keeping:
            kept, self._kept = self._kept, []
            self.remove(kept)

    def _living_syncer(self) -> Syncer:
        """Another one when it has died while nobody waited for the log."""
        assert self._syncer is not None
        if self._syncer.has_ended and self._sent is None:
            self._notice("the process that syncs has ended; another is started")
            self._syncer.close()
            try:
                self._syncer = self._make_syncer()
            except OSError as error:
                self._notice(f"it cannot be started: {error}")  # the dead one fails whoever asks it
        return self._syncer

    # -- group commit --------------------------------------------------------------------------------

    def _bodies_synced(self, work: Work, error: OSError | None) -> None:
        bodies = self._bodies_sent.pop(work, None)
        if bodies is None:
            return
        if error is None:
            self._enqueue(work)
            return
        work.fail(fault_from(error, "a body file could not be synced"))
        self.remove(bodies)

    def _enqueue(self, work: Work) -> None:
        self._pending.append(work)
        if self._scheduled or self._sent is not None:
            return
        if not work.is_patient or len(self._pending) >= PATIENCE_WORKS:
            self._schedule()
        elif self._patience is None:
            self._patience = self._loop.call_later(PATIENCE_SECONDS, self._schedule)

    def _schedule(self) -> None:
        """Begin in the next turn of the loop, so that whoever is being answered now can still join."""
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        if self._scheduled:
            return
        self._scheduled = True
        self._loop.call_soon(self._start)

    def _start(self) -> None:
        self._scheduled = False
        if self._sent is not None:
            return
        if self._pause:
            if self._checkpoint_from < 0:
                self._order_checkpoint()
            return
        if not self._pending:
            return
        if self._broken and not self._mend_if_time():
            for work in self._take_all():
                work.fail(SpoolFault(self._broken))
            return
        if self._checkpoint_from >= 0 and self._log_pages * schema.PAGE_SIZE >= schema.LOG_LIMIT:
            return  # the checkpoint that runs must end first
        self._commit(self._take_batch())

    def _take_batch(self) -> list[Work]:
        pending = self._pending
        octets = 0
        for count, work in enumerate(pending):
            octets += work.size
            if count and (octets > BATCH_OCTETS or count >= BATCH_WORKS):
                batch = pending[:count]
                del pending[:count]
                return batch
        self._pending = []
        return pending

    def _take_all(self) -> list[Work]:
        everything = [*self._bodies_sent, *self._pending]
        self._bodies_sent.clear()
        self._pending = []
        return everything

    def _commit(self, batch: list[Work]) -> None:
        connection = self.connection
        assert connection is not None
        transaction = Transaction(connection, self._claims, self._bodies)
        try:
            connection.execute("BEGIN IMMEDIATE")
            for work in batch:
                work.build(transaction)
            transaction.flush()
            connection.execute(schema.PROGRESS, (self._number + 1, transaction.effects.finished))
            connection.execute("COMMIT")
        except Exception as error:  # whatever it is: nothing of it may stay half done
            self._doubt(batch, transaction.effects, error)
            return
        self._number += 1
        self.commits += 1
        self._committed_at = self._loop.time()
        syncer = self._living_syncer()
        self._sent = batch, transaction
        syncer.sync_log(self._synced)

    def _synced(self, error: OSError | None) -> None:
        assert self._sent is not None
        batch, transaction = self._sent
        self._sent = None
        if error is not None:
            self._number -= 1  # in doubt again
            self._doubt(batch, transaction.effects, error)
            return
        self.commit_took(self._loop.time() - self._committed_at)
        self._succeed(batch, transaction.effects)
        if self._log_pages >= self._checkpoint_at and self._checkpoint_from < 0 and not self._pause:
            self._order_checkpoint()
        pending = self._pending
        if self._pause or len(pending) >= PATIENCE_WORKS or any(not work.is_patient for work in pending):
            self._schedule()
        elif pending and self._patience is None:
            self._patience = self._loop.call_later(PATIENCE_SECONDS, self._schedule)

    def _succeed(self, batch: list[Work], effects: Effects) -> None:
        for work in batch:
            self._room.take(work.size)
            work.succeed()
        if effects.removals:
            self.remove(effects.removals)

    # -- checkpoints ---------------------------------------------------------------------------------

    def _order_checkpoint(self) -> None:
        self._checkpoint_from = self._log_pages
        self._living_syncer().checkpoint(self._checkpointed)

    def _checkpointed(self, result: Checkpointed) -> None:
        pages, self._checkpoint_from = self._checkpoint_from, -1
        between, self._pause = self._pause, False
        step = CHECKPOINT_OCTETS // schema.PAGE_SIZE
        if result.error:
            self._notice(f"checkpoint: {result.error}; the log is kept")
            self._checkpoint_at = self._log_pages + step
        elif result.complete and pages == self._log_pages and self._sent is None:
            self._checkpoint_at = step  # the next commit starts the log anew
        elif not between:
            self._pause = True  # the rest of it while nothing is committed
        else:
            self._checkpoint_at = self._log_pages + step  # somebody reads in the log
        if self._sent is None and not self._scheduled:
            self._schedule()

    # -- after a failure -----------------------------------------------------------------------------

    def _doubt(self, batch: list[Work], effects: Effects, error: Exception) -> None:
        """The transaction after `_number` failed, or its sync did: find out whether it is there."""
        fault = _fault(error)
        self._room.ask_again()
        self._notice(f"the spool failed: {fault}")
        if self.connection is not None and self.connection.in_transaction:
            try:
                self.connection.execute("ROLLBACK")
            except apsw.Error:
                pass
        number = self._number + 1
        self._doubtful.update(effects.touched)
        unsynced = list(self._bodies_sent.items())
        self._bodies_sent.clear()
        mended = self._mend(check=not isinstance(fault, SpoolFull))
        if mended and self._number >= number:
            self._doubtful.clear()
            self._succeed(batch, effects)
        else:
            for work in batch:
                if not mended:
                    self._refused.update(new.number for new in work.accepted)
                work.fail(fault)
        for work, bodies in unsynced:
            self.submit(work, bodies)
        if mended:
            self._restore()
        if self._pending and not self._scheduled:
            self._schedule()

    def _mend_if_time(self) -> bool:
        if self._clock.monotonic() < self._mend_at:
            return False
        if not self._mend(check=True):
            return False
        if not self._restore():
            return False
        self._notice("the spool works again")
        return True

    def _mend(self, *, check: bool) -> bool:
        """Close everything and open it anew, with nothing in doubt any more. False: the disk is still out of order."""
        self._close()
        self._checkpoint_from = -1
        self._pause = False
        self._checkpoint_at = CHECKPOINT_OCTETS // schema.PAGE_SIZE
        try:
            if self._log.exists():
                self._disk.write_again(self._log)
            connection = self.open()
            if check and (found := schema.query(connection, "PRAGMA quick_check(1)")) != [("ok",)]:
                raise SpoolFault(f"{self._database} is damaged: {found[0][0]}")
            self._read_number(connection)
            self._reader = schema.open_reader(self._database, self._disk.vfs)
            self._syncer = self._make_syncer()
        except (apsw.Error, OSError, SpoolFault) as error:
            self._close()
            self._broken = str(_fault(error))
            self._mend_at = self._clock.monotonic() + MEND_AGAIN_SECONDS
            return False
        self._broken = ""
        return True

    def _restore(self) -> bool:
        """Withdraw what was refused, and read the claims that failed transactions had touched. False: it failed, and
        everything is closed again."""
        connection = self.connection
        assert connection is not None
        try:
            if self._refused:
                self._withdraw(connection)
            for number, held in self._doubtful.items():
                self._claims.drop(number)
                if held is not None and (read := _read_claim(connection, held)) is not None:
                    self._claims.put(read)
            self._doubtful.clear()
        except (apsw.Error, OSError) as error:
            self._close()
            self._broken = str(_fault(error))
            self._mend_at = self._clock.monotonic() + MEND_AGAIN_SECONDS
            return False
        return True

    def _withdraw(self, connection: apsw.Connection) -> None:
        effects = Effects()
        found = 0
        with connection:
            for number in self._refused:
                found += len(schema.query(connection, "SELECT 1 FROM message WHERE id = ?", (number,)))
                self._actions.forget(connection, effects, number)
            connection.execute(schema.PROGRESS, (self._number + 1, effects.finished))
        self._disk.sync_file(self._log)
        self._number += 1
        self.withdrawn += found
        self._refused.clear()
        self.remove(effects.removals)


def _read_claim(connection: apsw.Connection, held: Held) -> Held | None:
    """The claim as the rows have it; None when there is none."""
    found = schema.query(
        connection,
        "SELECT m.owner, m.epoch, m.state, m.reason, (SELECT max(number) FROM attempt WHERE message = m.id),"
        " (SELECT max(number) FROM entry WHERE message = m.id), m.transport FROM message m WHERE m.id = ?",
        (held.number,),
    )
    if not found or found[0][0] is None:
        return None
    owner, epoch, state, reason, attempts, entries, transport = found[0]
    read = Held(
        held.number,
        owner,
        epoch,
        held.lease_until,
        waiting_of(reading.read_recipients(connection, held.number)),
        file=held.file,
        keep=held.keep,
        attempts=0 if attempts is None else attempts + 1,
        entries=0 if entries is None else entries + 1,
        state=MessageState(state),
        reason=reason,
        transport=transport,
    )
    read.deleted = read.state is MessageState.FINISHED and not read.waiting and held.deleted
    return read


def _fault(error: Exception) -> SpoolFault:
    """What failed, as custody tells it."""
    if isinstance(error, SpoolFault):
        return error
    if isinstance(error, OSError):
        return fault_from(error, "the log could not be synced")
    if isinstance(error, apsw.FullError):
        return SpoolFull(f"the disk is full: {error}")
    return SpoolFault(f"{type(error).__name__}: {error}")
