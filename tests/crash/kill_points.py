"""`lonedot serve` with a trap: the COUNT-th passing of a chosen step kills it with SIGKILL, there and then.

Run by its path in the place of the command (see `RelayProcess.program`), it runs the same command with some methods
wrapped; the product knows nothing of it. Every step is a row, or the end of a row, of the table in
`docs/spool-states.md`. What it is told, by environment:

- `LONEDOT_KILL_POINT`: the value of a `Point`, and which of its passings kill: `claimed:1`, `checkpoint:2,5`; `every:2`
  is the second passing of each point;
- `LONEDOT_KILL_WHOM`: a `Whom`;
- `LONEDOT_KILL_NOTES`: a file, to which is written, a line each and at once, so that it outlives the kill:

| line | what it says |
|---|---|
| `begin ID` | the message is noted as in flight |
| `written ID` | its end of data is about to be written to a next hop |
| `settled ID COPIES` | an outcome of it is committed, for so many copies that were written |
| `stepped ID` | what a sink did to it in custody is committed |
| `landed ID` | it is not in flight any more |
| `at POINT` | the trap falls |
| `killed WHAT` | the trap fell; what was at the point: an id, the name of a Pickup file, or nothing |

So a copy that may arrive twice because of this life of the relay is one with `written` and without `settled` behind
it, and no other.
"""

from __future__ import annotations

import asyncio
import enum
import functools
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import cast

from lonedot.cli import main
from lonedot.delivery.connection import Connection
from lonedot.delivery.courier import Courier
from lonedot.delivery.notify import Notifier
from lonedot.queue.plan import Report
from lonedot.queue.scheduler import Scheduler
from lonedot.reception.connection import Connection as ClientConnection
from lonedot.reception.pickup import PickupFolder
from lonedot.spool import writer as writer_module
from lonedot.spool.bodies import BodyFileWriter
from lonedot.spool.flight import Flight
from lonedot.spool.interface import Acceptance, Claim, Settlement
from lonedot.spool.sqlite import SqliteSpool
from lonedot.spool.syncer import ProcessSyncer
from lonedot.spool.work import Settling, Transaction, Work
from lonedot.spool.writer import Writer
from lonedot.terms.ids import id_from_number

POINT = "LONEDOT_KILL_POINT"
WHOM = "LONEDOT_KILL_WHOM"
NOTES = "LONEDOT_KILL_NOTES"
EVERY = "every"

CHECKPOINT_OCTETS = 512 * 1024
"""So soon a checkpoint is due here: a test does not write what makes one due in earnest."""
_QUEUED = re.compile(rb"queued as ([0-9a-v]{13})")


class Whom(enum.Enum):
    """Who dies."""

    RELAY = "relay"
    SYNCER = "syncer"
    """The process that syncs, alone."""
    BOTH = "both"
    SINKS = "sinks"
    """The processes of its sinks, alone."""
    ALL = "all"


class Fate(enum.Enum):
    """What the table says of the message at the point."""

    ABSENT = "absent"
    """Never kept: the client got no 250 and keeps it."""
    KEPT = "kept"
    """In custody, and the next hop has not got it from this life."""
    WINDOW = "window"
    """Perhaps the next hop has it already: it may arrive twice."""
    DONE = "done"
    """Its outcome is there: it is not sent again."""
    ANY = "any"
    """The point does not belong to one message."""


class Point(enum.Enum):
    """A step; the value is its name, and its fate."""

    OPENING = "opening", Fate.ANY
    """Recovered; what was found is not made durable yet."""
    ARRIVING = "arriving", Fate.ABSENT
    """A body file, half written."""
    BODY_WRITTEN = "body-written", Fate.ABSENT
    OFFERED = "offered", Fate.ABSENT
    """`accept` was called."""
    BODY_ORDERED = "body-ordered", Fate.ABSENT
    """The sync of a body file is ordered."""
    BODY_SYNCED = "body-synced", Fate.ABSENT
    INSERTED = "inserted", Fate.ABSENT
    """Rows are in the open transaction."""
    COMMITTED = "committed", Fate.KEPT
    SYNCED = "synced", Fate.KEPT
    REPLIED = "replied", Fate.KEPT
    """250 is on the wire."""
    CLAIMED = "claimed", Fate.KEPT
    IN_FLIGHT = "in-flight", Fate.KEPT
    CONNECTED = "connected", Fate.KEPT
    """It has a connection; before MAIL."""
    INSIDE_DATA = "inside-data", Fate.KEPT
    """Some of the content is on the wire."""
    END_DUE = "end-due", Fate.KEPT
    """All content but the piece with the end of data."""
    END_WRITTEN = "end-written", Fate.WINDOW
    """The end of data is on the wire; its reply is not read."""
    ANSWERED = "answered", Fate.WINDOW
    """The reply is read; nothing is settled."""
    SETTLING = "settling", Fate.WINDOW
    """The outcome waits for its transaction."""
    SETTLE_COMMITTED = "settle-committed", Fate.DONE
    SETTLE_SYNCED = "settle-synced", Fate.DONE
    REMOVING = "removing", Fate.DONE
    """The body file of a finished message is about to be removed."""
    CHECKPOINT = "checkpoint", Fate.ANY
    """A checkpoint is ordered."""
    CHECKPOINTED = "checkpointed", Fate.ANY
    """A checkpoint is done; the log has not begun anew."""
    PICKUP_RENAMED = "pickup-renamed", Fate.ANY
    PICKUP_COMMITTED = "pickup-committed", Fate.ANY
    """Taken; the file is not removed."""
    REPORT_MADE = "report-made", Fate.KEPT
    """A DSN is made and not committed, nor is the outcome that causes it."""
    REPORT_COMMITTED = "report-committed", Fate.DONE

    def __init__(self, label: str, fate: Fate) -> None:
        self.label = label
        self.fate = fate


def hosts_of(relay: int) -> list[int]:
    """Process ids of the sinks of a relay."""
    try:
        children = Path(f"/proc/{relay}/task/{relay}/children").read_text().split()
    except OSError:
        return []
    found: list[int] = []
    for child in children:
        try:
            if b"lonedot.sinks.host" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(int(child))
        except OSError:
            continue
    return found


class Trap:
    """Counts passings of its point, and kills. Also writes the notes."""

    def __init__(self, point: str, whom: Whom, notes: str) -> None:
        label, _, passings = point.partition(":")
        self._points = {point for point in Point if label in (point.label, EVERY)}
        self._passings = {int(passing) for passing in passings.split(",")}
        self._passed: Counter[Point] = Counter()
        self._whom = whom
        self._notes = os.open(notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self.syncer = 0
        """Process id; 0 before there is one (which to `kill` would mean everybody)."""

    def note(self, kind: str, what: str) -> None:
        os.write(self._notes, f"{kind} {what}\n".encode())

    def passes(self, point: Point, what: str = "") -> None:
        """The step is reached: perhaps die here."""
        if self._is_due(point):
            self._fall(point, what)

    def passes_soon(self, point: Point, what: str = "") -> None:
        """As `passes`, when what was given to the transport has been written (the loop may do that at its turn)."""
        if self._is_due(point):
            asyncio.get_running_loop().call_soon(self._fall, point, what)

    def is_due_next(self, point: Point) -> bool:
        """The next passing kills the relay."""
        is_ours = point in self._points and self._whom not in (Whom.SYNCER, Whom.SINKS)
        return is_ours and self._passed[point] + 1 in self._passings

    def _is_due(self, point: Point) -> bool:
        if point not in self._points:
            return False
        self._passed[point] += 1
        return self._passed[point] in self._passings

    def _fall(self, point: Point, what: str) -> None:
        self.note("at", point.label)
        self.note("killed", what)
        if self._whom in (Whom.SINKS, Whom.ALL):
            for host in hosts_of(os.getpid()):
                os.kill(host, signal.SIGKILL)
        if self._whom in (Whom.SYNCER, Whom.BOTH, Whom.ALL) and self.syncer:
            os.kill(self.syncer, signal.SIGKILL)
        if self._whom not in (Whom.SYNCER, Whom.SINKS):
            os.kill(os.getpid(), signal.SIGKILL)


Call = Callable[[], object]


def _wrap(owner: type, name: str, around: Callable[..., object]) -> None:
    """Calls of the method go to `around`, with the call itself (made at will) and its arguments."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*arguments: object, **named: object) -> object:
        return around(functools.partial(original, *arguments, **named), *arguments, **named)

    setattr(owner, name, wrapped)


def _first(works: list[Work]) -> str:
    """The first message that is accepted by these; empty when none is."""
    for work in works:
        if not isinstance(work, Settling):
            for new in work.accepted:
                return str(id_from_number(new.number))
    return ""


def _has_wire(settlement: Settlement) -> bool:
    """It tells of an attempt that wrote the content."""
    return any(attempt.wire is not None for attempt in settlement.attempts)


def _settlements(works: list[Work]) -> list[Settlement]:
    return [
        outcome.settlement for work in works if isinstance(work, Settling) for outcome in work._settlements
    ]


def set_custody(trap: Trap) -> None:
    """From the first octet of a body file to the sync of the acceptance."""

    def write(call: Call, file: BodyFileWriter, octets: bytes) -> object:
        if trap.is_due_next(Point.ARRIVING):
            file._file.write(octets[: len(octets) // 2])
        trap.passes(Point.ARRIVING, file._path.stem)
        return call()

    def finish(call: Call, file: BodyFileWriter) -> object:
        finished = call()
        trap.passes(Point.BODY_WRITTEN, file._path.stem)
        return finished

    def submit(call: Call, writer: Writer, work: Work, bodies: list[object]) -> object:
        if id := _first([work]):
            trap.passes(Point.OFFERED, id)
        call()
        if id and bodies:
            trap.passes(Point.BODY_ORDERED, id)
        for settlement in filter(_has_wire, _settlements([work])):
            trap.passes(Point.SETTLING, settlement.id)
        return None

    def bodies_synced(call: Call, writer: Writer, work: Work, error: OSError | None) -> object:
        if error is None and (id := _first([work])):
            trap.passes(Point.BODY_SYNCED, id)
        return call()

    batch: list[Work] = []

    def commit(call: Call, writer: Writer, works: list[Work]) -> object:
        batch[:] = works
        return call()

    def flush(call: Call, transaction: Transaction) -> object:
        call()
        if id := _first(batch):
            trap.passes(Point.INSERTED, id)
        return None

    def sync_log(call: Call, syncer: ProcessSyncer, done: Callable[[OSError | None], None]) -> object:
        settled = _settlements(batch)
        for settlement in settled:
            if settlement.attempts:
                copies = sum(attempt.wire is not None for attempt in settlement.attempts)
                trap.note("settled", f"{settlement.id} {copies}")
            else:
                trap.note("stepped", settlement.id)
        if id := _first(batch):
            trap.passes(Point.COMMITTED, id)
        if sent := next(filter(_has_wire, settled), None):
            trap.passes(Point.SETTLE_COMMITTED, sent.id)
        if reported := [settlement for settlement in settled if settlement.spawned]:
            trap.passes(Point.REPORT_COMMITTED, reported[0].id)
        return call()

    def synced(call: Call, writer: Writer, error: OSError | None) -> object:
        works = writer._sent[0] if writer._sent is not None else []
        if error is None and (id := _first(works)):
            trap.passes(Point.SYNCED, id)
        sent = next(filter(_has_wire, _settlements(works)), None)
        call()
        if error is None and sent is not None:
            trap.passes(Point.SETTLE_SYNCED, sent.id)
        return None

    def remove(call: Call, writer: Writer, paths: list[os.PathLike[str]]) -> object:
        if paths:
            trap.passes(Point.REMOVING, os.path.basename(paths[0]).partition(".")[0])
        return call()

    _wrap(BodyFileWriter, "write", write)
    _wrap(BodyFileWriter, "finish", finish)
    _wrap(Writer, "submit", submit)
    _wrap(Writer, "_bodies_synced", bodies_synced)
    _wrap(Writer, "_commit", commit)
    _wrap(Transaction, "flush", flush)
    _wrap(ProcessSyncer, "sync_log", sync_log)
    _wrap(Writer, "_synced", synced)
    _wrap(Writer, "remove", remove)


def set_shard(trap: Trap) -> None:
    """Opening, checkpoints, and what is in flight."""
    writer_module.CHECKPOINT_OCTETS = CHECKPOINT_OCTETS

    def begin(call: Call, writer: Writer) -> object:
        trap.passes(Point.OPENING)
        return call()

    def make(call: Call, syncer: ProcessSyncer, *arguments: object) -> object:
        call()
        trap.syncer = syncer._process.pid
        return None

    def checkpoint(call: Call, syncer: ProcessSyncer, *arguments: object) -> object:
        call()
        trap.passes(Point.CHECKPOINT)
        return None

    def checkpointed(call: Call, *arguments: object) -> object:
        trap.passes(Point.CHECKPOINTED)
        return call()

    def fly(call: Call, flight: Flight, number: int) -> object:
        call()
        trap.note("begin", id_from_number(number))
        return None

    def land(call: Call, flight: Flight, number: int) -> object:
        trap.note("landed", id_from_number(number))
        return call()

    _wrap(Writer, "begin", begin)
    _wrap(ProcessSyncer, "__init__", make)
    _wrap(ProcessSyncer, "checkpoint", checkpoint)
    _wrap(Writer, "_checkpointed", checkpointed)
    _wrap(Flight, "begin", fly)
    _wrap(Flight, "end", land)


def set_queue(trap: Trap) -> None:
    """From the claim to the outcome, without the wire."""

    def enqueue(
        call: Call, scheduler: Scheduler, claim: Claim, now: float, is_of_lane: bool = False
    ) -> object:
        trap.passes(Point.CLAIMED, claim.message.id)
        return call()

    def deliver(call: Call, courier: Courier, claim: Claim, *arguments: object) -> object:
        trap.passes(Point.IN_FLIGHT, claim.message.id)
        return call()

    def settle(call: Call, spool: SqliteSpool, batch: tuple[Settlement, ...]) -> object:
        if _has_wire(batch[0]):
            trap.passes(Point.ANSWERED, batch[0].id)
        return call()

    original = Notifier.report

    async def report(notifier: Notifier, claim: Claim, reports: list[Report]) -> list[Acceptance]:
        made = await original(notifier, claim, reports)
        trap.passes(Point.REPORT_MADE, claim.message.id)
        return list(made)

    _wrap(Scheduler, "_enqueue", enqueue)
    _wrap(Courier, "deliver", deliver)
    _wrap(SqliteSpool, "settle", settle)
    setattr(Notifier, "report", report)  # noqa: B010  # an assignment would be an error to mypy


def set_wire(trap: Trap) -> None:
    """The connections on both sides."""

    def id_of(connection: Connection) -> str:
        return str(cast("_HasClaim", connection._job)._claim.message.id)

    def begin(call: Call, connection: Connection, *arguments: object) -> object:
        trap.passes(Point.CONNECTED, id_of(connection))
        return call()

    def go_on(call: Call, connection: Connection, chunk: bytes) -> object:
        was_held = connection._held
        call()
        if was_held:
            trap.passes_soon(Point.INSIDE_DATA, id_of(connection))
        return None

    def content_written(call: Call, connection: Connection) -> object:
        id = id_of(connection)
        trap.passes(Point.END_DUE, id)
        trap.note("written", id)
        call()
        trap.passes_soon(Point.END_WRITTEN, id)
        return None

    def write(call: Call, connection: ClientConnection, octets: bytes) -> object:
        call()
        if found := _QUEUED.search(octets):
            trap.passes_soon(Point.REPLIED, found[1].decode())
        return None

    _wrap(Connection, "_begin", begin)
    _wrap(Connection, "_go_on", go_on)
    _wrap(Connection, "_content_written", content_written)
    _wrap(ClientConnection, "write", write)


class _HasClaim:
    """The job of a connection, as far as its message."""

    _claim: Claim


def set_pickup(trap: Trap) -> None:
    """Files of the Pickup folder."""

    def submit(call: Call, folder: PickupFolder, name: str) -> object:
        trap.passes(Point.PICKUP_RENAMED, name)
        return call()

    def remove(call: Call, folder: PickupFolder, path: object, name: str) -> object:
        trap.passes(Point.PICKUP_COMMITTED, name)
        return call()

    _wrap(PickupFolder, "_submit", submit)
    _wrap(PickupFolder, "_remove", remove)


def set_up(trap: Trap) -> None:
    """Wrap every step."""
    set_custody(trap)
    set_shard(trap)
    set_queue(trap)
    set_wire(trap)
    set_pickup(trap)


if __name__ == "__main__":
    set_up(Trap(os.environ[POINT], Whom(os.environ[WHOM]), os.environ[NOTES]))
    sys.argv[1:1] = ["serve", "--no-supervisor"]  # a parent would start it again, into the same trap
    main()
