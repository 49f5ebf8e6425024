"""What can be done with the queue, as plain functions over a spool. Every skin calls these and nothing else.

Rules:
1. Called on the thread of the spool's event loop. Reading large bodies goes to a thread; the spool itself never does.
2. The same functions serve a running relay (then the hooks tell its scheduler) and a spool whose relay is down.
3. What goes wrong is an `AdminError` that says what, where and what to do. One bad id of many stops nothing that was
   not asked for: ids are resolved before anything is changed.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import msgspec

from lonedot.admin.colleague import Colleague
from lonedot.admin.ids import resolve, resolve_all
from lonedot.admin.mailboxes import Mailboxes
from lonedot.admin.octets import arrival_form, copies_of, in_thread, octets_of, queued_form
from lonedot.admin.reload import Reloader
from lonedot.admin.routed import RouteArguments, Routed
from lonedot.admin.seeing import Seer
from lonedot.admin.sinks import Keeper
from lonedot.admin.transfer import header_of
from lonedot.admin.values import (
    MAX_LISTED,
    AdminError,
    Changed,
    ExportArguments,
    FileBegins,
    FileEnds,
    HoldArguments,
    IdArguments,
    IdsArguments,
    Left,
    ListArguments,
    Listing,
    NoArguments,
    Octets,
    OctetsArguments,
    Piece,
    Remark,
    Selected,
    Status,
)
from lonedot.diagnosis.record import Record, record_of
from lonedot.diagnosis.why import Journey, TranscriptLine, Transcripts, journey
from lonedot.evidence.events import Event
from lonedot.queue.lanes import HopStatus
from lonedot.queue.plan import Report
from lonedot.spool.backup import Saved
from lonedot.spool.interface import (
    Acceptance,
    Claim,
    Filter,
    MessageState,
    NoSuchMessage,
    RecipientStatus,
    Spool,
    Stored,
    TranscriptRef,
)
from lonedot.terms.clock import Clock
from lonedot.terms.ids import MessageId

__all__ = [
    "DELETE",
    "EXPORT",
    "HOLD",
    "LIST",
    "OCTETS",
    "RELEASE",
    "RETRY",
    "SELECT",
    "SHOW",
    "STATUS",
    "WHY",
    "Desk",
    "Operation",
    "RelayHooks",
    "Reporter",
    "SavedShard",
    "StreamOperation",
    "TranscriptReader",
]

A = TypeVar("A", bound=msgspec.Struct)
R = TypeVar("R", bound=msgspec.Struct)


class RelayHooks(Protocol):
    """What the running relay wants to know of; given by the app."""

    def kick(self, ids: Sequence[MessageId]) -> None:
        """These may be tried at once."""
        ...

    def forget(self, ids: Sequence[MessageId]) -> None:
        """These are no longer to be tried; what is on the wire already is not stopped."""
        ...


class SavedShard(Protocol):
    """A shard that can be copied while it is at work."""

    @property
    def shard(self) -> int: ...

    async def save(self, folder: Path, copied: Callable[[int, int], None]) -> Saved:
        """Raises SpoolFault."""
        ...


class Reporter(Protocol):
    """Makes the messages that tell senders what became of theirs."""

    async def report(self, claim: Claim, reports: Sequence[Report]) -> Sequence[Acceptance]:
        """Raises SpoolFault: Badmail could not be written, and nothing may be settled."""
        ...


class TranscriptReader(Protocol):
    """Reads recorded conversations, called in a thread; one that cannot be read is empty, never an error."""

    def session(self, ref: TranscriptRef) -> tuple[TranscriptLine, ...]: ...

    def attempt(self, ref: TranscriptRef) -> tuple[TranscriptLine, ...]: ...


@dataclass(frozen=True, slots=True)
class Desk:
    """What operations work on."""

    spool: Spool
    clock: Clock
    transcripts: TranscriptReader | None = None
    hooks: RelayHooks | None = None
    """None: the relay is down."""
    since: float = 0.0
    """When the relay started."""
    expire_seconds: Mapping[str, float] = field(default_factory=dict)
    """By name of the route, how long a message is tried."""
    shards: Sequence[SavedShard] = ()
    """Those that this process can copy."""
    reporter: Reporter | None = None
    """Who makes the reports to senders; None: only a running relay can."""
    keeper: Keeper | None = None
    """Who has the registry."""
    reloader: Reloader | None = None
    """Who takes a changed configuration; None: the relay is down."""
    colleague: Colleague | None = None
    """This worker, as the others see it; None: the relay is down."""
    seer: Seer | None = None
    """Who knows the processes of the relay; None: the relay is down."""
    router: Callable[[RouteArguments], Awaitable[Routed]] | None = None
    """Says where mail would go; None: the relay is down."""
    hops: Callable[[], Sequence[HopStatus]] | None = None
    """Next hops of which something is known; None: the relay is down."""
    events: Callable[[float], Sequence[Event]] | None = None
    """Reads the events since a time."""
    mailboxes: Mailboxes | None = None
    """Who fetches mail; None: the relay is down."""
    asker: int = -1
    """User who asks, as the kernel says; -1 when nobody knows."""


@dataclass(frozen=True, slots=True)
class Operation(Generic[A, R]):
    """A question with one answer."""

    name: str
    arguments: type[A]
    result: type[R]
    run: Callable[[Desk, A], Awaitable[R]]


@dataclass(frozen=True, slots=True)
class StreamOperation(Generic[A]):
    """A question answered piece by piece."""

    name: str
    arguments: type[A]
    run: Callable[[Desk, A], AsyncIterator[Piece]]


async def list_messages(desk: Desk, wanted: ListArguments) -> Listing:
    """The queue as rows, damaged and held ones with their reason."""
    chosen = filter_of(desk, wanted)
    rows = await desk.spool.search(chosen)
    return Listing(tuple(rows), _counts(desk), len(rows) >= chosen.limit, desk.clock.now())


async def select(desk: Desk, wanted: ListArguments) -> Selected:
    """The ids alone of what a filter selects: what long work goes through batch by batch."""
    chosen = filter_of(desk, wanted)
    ids = await desk.spool.select(chosen)
    return Selected(tuple(ids), len(ids) >= chosen.limit)


def filter_of(desk: Desk, wanted: ListArguments) -> Filter:
    """Raises AdminError: an id means no message or several, or a number is out of range."""
    limit = _limit(wanted.limit)
    if wanted.page < 1:
        raise AdminError(f"there is no page {wanted.page}", "page", "the first one is 1")
    ids = resolve_all(desk.spool, wanted.ids) if wanted.ids else ()
    given = msgspec.structs.asdict(wanted)
    given.pop("page")
    return Filter(**{**given, "ids": ids, "limit": limit, "skip": (wanted.page - 1) * limit})


async def show(desk: Desk, wanted: IdArguments) -> Record:
    """All that is stored of a message, but for its octets."""
    return record_of(_stored(desk, wanted.id))


async def why(desk: Desk, wanted: IdArguments) -> Journey:
    """The journey of a message."""
    stored = _stored(desk, wanted.id)
    reader = desk.transcripts
    transcripts = Transcripts() if reader is None else await asyncio.to_thread(_transcripts, reader, stored)
    return journey(stored, transcripts, desk.clock.now(), desk.expire_seconds, desk.hooks is not None)


async def hold(desk: Desk, wanted: HoldArguments) -> Changed:
    """Keep messages back until somebody releases them."""
    ids = resolve_all(desk.spool, wanted.ids)
    done = await desk.spool.hold(ids, wanted.reason[:500] or "held by hand")
    changed = _changed(desk, ids, done, "held")
    if desk.hooks is not None:
        desk.hooks.forget([MessageId(id) for id in changed.done])
    return changed


async def release(desk: Desk, wanted: IdsArguments) -> Changed:
    """Send on what is held."""
    ids = resolve_all(desk.spool, wanted.ids)
    done = await desk.spool.release(ids, desk.clock.now())
    return _kicked(desk, _changed(desk, ids, done, "released"))


async def retry(desk: Desk, wanted: IdsArguments) -> Changed:
    """Try at once what waits for a later time."""
    ids = resolve_all(desk.spool, wanted.ids)
    done = await desk.spool.retry(ids, desk.clock.now())
    return _kicked(desk, _changed(desk, ids, done, "retried"))


async def delete(desk: Desk, wanted: IdsArguments) -> Changed:
    """No further attempt. The record stays until the history ends."""
    ids = resolve_all(desk.spool, wanted.ids)
    done = await desk.spool.delete(ids, desk.clock.now())
    changed = _changed(desk, ids, done, "deleted")
    if desk.hooks is not None:
        desk.hooks.forget([MessageId(id) for id in changed.done])
    return changed


async def status(desk: Desk, _: NoArguments) -> Status:
    """Numbers of the queue, and whether the relay runs."""
    running = desk.hooks is not None
    return Status(
        running, os.getpid() if running else 0, desk.since, _counts(desk), desk.spool.next_due() or 0.0
    )


async def octets(desk: Desk, wanted: OctetsArguments) -> AsyncIterator[Piece]:
    """One form of a message, octet for octet; with SENT, compared with what was recorded when it was sent."""
    stored = _stored(desk, wanted.id)
    yield FileBegins(f"{stored.id}.{wanted.form.value}")
    async for piece in octets_of(desk.spool, stored, wanted.form, wanted.attempt, wanted.recipient):
        yield piece
    yield FileEnds()


async def export(desk: Desk, wanted: ExportArguments) -> AsyncIterator[Piece]:
    """Messages as files: `ID.eml` in the queued form, `ID.json` with envelope and ledger, and of those that wait
    `ID.message`, which another spool can take over.

    Where recipients get different copies, each is a file `ID.N.eml`, N the number of its first recipient.

    One that cannot be read is said in a `Remark`; its record is exported all the same.
    """
    ids: Sequence[str]
    if wanted.ids:
        ids = resolve_all(desk.spool, wanted.ids)
    else:
        ids = [row.id for row in (await list_messages(desk, wanted.filter)).rows]
    for id in ids:
        try:
            stored = desk.spool.show(MessageId(id))
        except NoSuchMessage:
            yield Remark(f"{id} is gone", is_fault=True)
            continue
        sidecar = msgspec.json.format(msgspec.json.encode(record_of(stored)), indent=2)
        for piece in (FileBegins(f"{id}.json"), Octets(sidecar + b"\n"), FileEnds()):
            yield piece
        async for part in _transferred(desk, stored):
            yield part
        copies = copies_of(stored)
        for recipient in copies:
            name = f"{id}.eml" if len(copies) == 1 else f"{id}.{recipient}.eml"
            try:
                content = await queued_form(desk.spool, stored, recipient)
            except AdminError as error:
                yield Remark(f"{id} has no .eml: {error.problem.what}", is_fault=True)
                break
            yield FileBegins(name)
            try:
                async for chunk in in_thread(content.chunks()):
                    yield Octets(chunk)
            except (OSError, ValueError) as error:
                yield Remark(f"{name} is not whole: {error}", is_fault=True)
            yield FileEnds()


async def _transferred(desk: Desk, stored: Stored) -> AsyncIterator[Piece]:
    """`ID.message`; nothing where no octets are, or nobody waits for it."""
    if not any(one.status is RecipientStatus.WAITING for one in stored.recipients):
        return
    try:
        arrival = arrival_form(desk.spool, stored)
    except AdminError:
        return  # the form for people, which follows, says so
    yield FileBegins(f"{stored.id}.message")
    yield Octets(header_of(stored, arrival))
    try:
        async for chunk in in_thread(arrival.chunks()):
            yield Octets(chunk)
    except (OSError, ValueError) as error:
        yield Remark(f"{stored.id}.message is not whole: {error}", is_fault=True)
    yield FileEnds()


LIST = Operation("list", ListArguments, Listing, list_messages)
SELECT = Operation("select", ListArguments, Selected, select)
SHOW = Operation("show", IdArguments, Record, show)
WHY = Operation("why", IdArguments, Journey, why)
HOLD = Operation("hold", HoldArguments, Changed, hold)
RELEASE = Operation("release", IdsArguments, Changed, release)
RETRY = Operation("retry", IdsArguments, Changed, retry)
DELETE = Operation("delete", IdsArguments, Changed, delete)
STATUS = Operation("status", NoArguments, Status, status)
OCTETS = StreamOperation("octets", OctetsArguments, octets)
EXPORT = StreamOperation("export", ExportArguments, export)


def _stored(desk: Desk, id: str) -> Stored:
    try:
        return desk.spool.show(resolve(desk.spool, id))
    except NoSuchMessage:
        raise AdminError(
            f"there is no message {id[:40]}", "spool", "lonedot queue list names those that are there"
        ) from None


def _counts(desk: Desk) -> dict[str, int]:
    counts = desk.spool.counts()
    return {state.value: counts.get(state, 0) for state in MessageState}


def _limit(limit: int) -> int:
    if limit < 1:
        raise AdminError(f"a limit of {limit} selects nothing", "limit", f"give 1 to {MAX_LISTED}")
    return min(limit, MAX_LISTED)


def _changed(desk: Desk, ids: Sequence[MessageId], done: Sequence[bool], verb: str) -> Changed:
    """What became of each; those that stayed as they were with the reason."""
    left = []
    for id, was_done in zip(ids, done, strict=True):
        if not was_done:
            try:
                state = desk.spool.show(id).state
            except NoSuchMessage:
                left.append(Left(id, "there is no such message"))
                continue
            left.append(Left(id, _WHY_LEFT.get((verb, state), f"it is {state.value}")))
    return Changed(tuple(id for id, was_done in zip(ids, done, strict=True) if was_done), tuple(left))


_WHY_LEFT = {
    ("held", MessageState.HELD): "it is held already",
    ("released", MessageState.QUEUED): "it is not held",
    ("retried", MessageState.HELD): "it is held; release it first",
    ("deleted", MessageState.FINISHED): "it is finished already",
}


def _kicked(desk: Desk, changed: Changed) -> Changed:
    if desk.hooks is not None and changed.done:
        desk.hooks.kick([MessageId(id) for id in changed.done])
    return changed


def _transcripts(reader: TranscriptReader, stored: Stored) -> Transcripts:
    ref = stored.facts.transcript
    return Transcripts(
        session=() if ref is None else reader.session(ref),
        attempts={
            number: reader.attempt(attempt.transcript)
            for number, attempt in enumerate(stored.attempts, 1)
            if attempt.transcript is not None
        },
    )
