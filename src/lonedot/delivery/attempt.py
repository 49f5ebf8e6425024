"""The courier: takes a claimed message and some of its recipients, hands them to a next hop, says what came of it.

Rules: what is sent is the fold of the ledger over the arrival form, and its digests are compared with the ledger's
before anything else; only canonical content gets as far as an encoder; a message whose stored octets are not those
that were accepted, or cannot be sent, is to be *held*, never repaired here. What is changed for one hop (8-bit to
7-bit) is a ledger entry of the attempt. `done` is called once, never from within `deliver`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor

import msgspec

from lonedot.delivery.classify import (
    classify_fault,
    classify_local,
    classify_refusal,
    classify_reply,
    classify_session,
)
from lonedot.delivery.jobs import Fault, Sending, SessionFault, TransactionReport
from lonedot.delivery.pool import Pool, PoolState
from lonedot.delivery.routing import Resolver, Route, RouteTable
from lonedot.delivery.tls import TlsSettingsFault
from lonedot.delivery.transcript import Line, TranscriptSink
from lonedot.message.content import Content, MemoryBody
from lonedot.message.encode import CanonicalContent, DataEncoder, NotCanonical, StoredAltered, canonicalise
from lonedot.message.findings import Part
from lonedot.message.fold import FoldFault, apply_changes, changes_octets, digests_of, fold
from lonedot.message.ledger import Action, Entry, Splice, Transform
from lonedot.message.transforms import CannotTransform
from lonedot.protocol.client_plan import ContentFacts, Offer, Plan, Refusal, RefusalKind, plan_transaction
from lonedot.protocol.events import ContentMode
from lonedot.queue.plan import no_route
from lonedot.queue.scheduler import Delivery
from lonedot.spool.interface import (
    Attempt,
    Claim,
    ContentDamaged,
    NoSuchMessage,
    RecipientState,
    SpoolFault,
    TranscriptRef,
    WireRecord,
)
from lonedot.terms.clock import Clock
from lonedot.terms.envelope import Recipient
from lonedot.terms.ids import MessageId
from lonedot.terms.outcome import Outcome, Stage

__all__ = ["SEVEN_BIT", "Courier"]

SEVEN_BIT = "encode-7bit"
"""The transform for a hop without 8BITMIME."""

_INLINE_LIMIT = 256 * 1024
"""Octets in memory that are worked on at once; larger content, and files, are read in a thread."""

_TRANSACTIONS = 10
"""In one `deliver`. The others come in the next one, when what was sent is settled: after a crash in between no more
than these may arrive twice."""

_POOLS_KEPT = 1000
"""Pools beyond this number that nobody uses are forgotten."""


class Courier:
    """Delivers over the routes of one configuration. One per worker, on its event loop."""

    def __init__(
        self,
        routes: RouteTable,
        resolver: Resolver,
        transcripts: TranscriptSink,
        content_of: Callable[[MessageId], Content],
        new_session: Callable[[], str],
        clock: Clock,
        executor: Executor | None = None,
    ) -> None:
        """`content_of` is `Spool.content`; `executor` (default: the loop's) reads and encodes what lies in files."""
        self._routes = routes
        self.resolver = resolver
        self.transcripts = transcripts
        self.content_of = content_of
        self._new_session = new_session
        self.clock = clock
        self.executor = executor
        self.loop = asyncio.get_running_loop()
        self._pools: dict[tuple[str, str], Pool] = {}
        self._closing = False

    def deliver(
        self,
        claim: Claim,
        recipients: Sequence[RecipientState],
        route: str,
        done: Callable[[Delivery], None],
    ) -> None:
        """Try to hand the message on to these recipients. Later `done` is told, exactly once.

        A recipient without an outcome in the attempt was not tried.
        """
        found = self._routes.by_name(route)
        parcel = _Parcel(self, claim, found, recipients, route, done)
        if found is None or self._closing:
            self.loop.call_soon(parcel.not_routed if found is None else parcel.not_tried)
        else:
            parcel.begin()

    def pools(self) -> tuple[PoolState, ...]:
        """What each pool is doing."""
        return tuple(pool.state for pool in self._pools.values())

    async def close(self, grace_seconds: float) -> None:
        """Begin nothing new; what runs has so long to end. What does not is reported as lost and tried again."""
        self._closing = True
        await asyncio.gather(*(pool.close(grace_seconds) for pool in self._pools.values()))

    def pool(self, route: Route, destination: str) -> Pool:
        """The pool of a destination; made when it is not there.

        Raises:
            TlsSettingsFault: the route's TLS settings cannot be used.
        """
        key = (route.name, destination)
        pool = self._pools.get(key)
        if pool is None:
            if len(self._pools) >= _POOLS_KEPT:
                self._pools = {key: pool for key, pool in self._pools.items() if not pool.is_unused}
            pool = Pool(route, destination, self.resolver, self._new_session, self.executor)
            self._pools[key] = pool
        return pool


class _Batch(msgspec.Struct, frozen=True):
    """Recipients that go in one transaction: one destination, one copy."""

    destination: str
    copy: tuple[int, ...]
    """Numbers of the scoped ledger entries that hold for them and change something."""
    recipients: tuple[RecipientState, ...]


class _Parcel:
    """One `deliver`: the job that the pool sees, for one batch after the other."""

    __slots__ = (
        "_attempts",
        "_batches",
        "_canonical",
        "_claim",
        "_copy",
        "_courier",
        "_current",
        "_done",
        "_facts",
        "_generation",
        "_next_hop",
        "_outcomes",
        "_recipients",
        "_route",
        "_route_name",
        "_seven_bit",
        "_started_at",
        "_suffix",
        "_tls",
        "_transcript",
        "_wire",
        "retried",
    )

    def __init__(
        self,
        courier: Courier,
        claim: Claim,
        route: Route | None,
        recipients: Sequence[RecipientState],
        route_name: str,
        done: Callable[[Delivery], None],
    ) -> None:
        self._courier = courier
        self._claim = claim
        self._route = route
        self._route_name = route_name
        self._recipients = recipients
        self._done = done
        self._started_at = courier.clock.now()
        self._attempts: list[Attempt] = []
        self._batches: deque[_Batch] = deque()
        self._current: tuple[RecipientState, ...] = ()
        self._copy: tuple[int, ...] | None = None
        self._canonical: CanonicalContent | None = None
        self._seven_bit: tuple[CanonicalContent, Entry] | None = None
        self._facts = ContentFacts(0)
        self._outcomes: list[tuple[int, Outcome]] = []
        self._suffix: tuple[Entry, ...] = ()
        self._wire: WireRecord | None = None
        self._transcript: TranscriptRef | None = None
        self._next_hop = ""
        self._tls = ""
        self._generation = 0
        self.retried = False

    # --- from recipients to batches ---------------------------------------------------------------------

    def begin(self) -> None:
        self._batches.extend(self._plan())
        self._next(later=True)

    def _plan(self) -> list[_Batch]:
        """The recipients by destination and copy, no more in a batch than a server must take."""
        route = self._route
        assert route is not None
        scoped = [
            (n, frozenset(entry.scope))
            for n, entry in enumerate(self._claim.message.ledger)
            if entry.scope and changes_octets(entry)
        ]
        destination = self._courier.resolver.destination
        groups: dict[tuple[str, tuple[int, ...]], list[RecipientState]] = {}
        for state in self._recipients:
            copy = tuple(n for n, scope in scoped if state.index in scope) if scoped else ()
            key = (destination(route, state.recipient.address.domain), copy)
            groups.setdefault(key, []).append(state)
        step = route.recipients_per_transaction
        return [
            _Batch(to, copy, tuple(states[start : start + step]))
            for (to, copy), states in groups.items()
            for start in range(0, len(states), step)
        ]

    def _next(self, later: bool = False) -> None:
        """Begin the next batch, or end. `later`: the caller must return before anything is told."""
        if len(self._attempts) >= _TRANSACTIONS:
            self._batches.clear()
        if not self._batches:
            self._conclude("", later)
            return
        batch = self._batches[0]
        self._current = batch.recipients
        self.retried = False
        if batch.copy == self._copy:
            self._submit()
            return
        self._copy = batch.copy
        self._canonical = self._seven_bit = None
        try:
            arrival = self._claim.arrival or self._courier.content_of(self._claim.message.id)
        except Exception as error:  # judged in one place
            self._cannot(error, later)
            return
        entries = self._claim.message.ledger
        if not isinstance(arrival.body, MemoryBody) and _reads_body(entries):
            loop = self._courier.loop
            loop.run_in_executor(self._courier.executor, _folded, arrival, entries, batch).add_done_callback(
                self._read
            )
            return
        try:
            self._take(_folded(arrival, entries, batch))
        except Exception as error:  # judged in one place
            self._cannot(error, later)
            return
        self._submit(later)

    def _read(self, future: asyncio.Future[CanonicalContent]) -> None:
        """A thread has put the content together."""
        error = future.exception()
        if error is not None:
            self._cannot(error, False)
            return
        self._take(future.result())
        self._submit()

    def _take(self, canonical: CanonicalContent) -> None:
        self._canonical = canonical
        self._facts = _facts(canonical)

    def _submit(self, later: bool = False) -> None:
        route = self._route
        assert route is not None
        try:
            pool = self._courier.pool(route, self._batches[0].destination)
        except TlsSettingsFault as error:
            fault = SessionFault(Stage.STARTTLS, str(error))
            if later:
                self._courier.loop.call_soon(self.unreachable, fault, "", [])
            else:
                self.unreachable(fault, "", [])
            return
        pool.submit(self)

    # --- the job, as the pool sees it -----------------------------------------------------------------------

    def prepare(self, offer: Offer, next_hop: str) -> Sending | Awaitable[Sending | None] | None:
        """What to send in a session with that offer (see `jobs.Job`)."""
        self._generation += 1
        self._next_hop = next_hop
        canonical, facts = self._canonical, self._facts
        assert canonical is not None
        suffix: tuple[Entry, ...] = ()
        while True:
            recipients: list[Recipient] = [state.recipient for state in self._current]
            planned = plan_transaction(self._claim.message.envelope, recipients, facts, offer)
            if isinstance(planned, Plan):
                self._suffix = suffix
                encoder = DataEncoder(canonical, "BDAT" if planned.mode is ContentMode.BDAT else "DATA")
                return Sending(planned, encoder, isinstance(canonical.content.body, MemoryBody))
            if planned.kind is not RefusalKind.NEEDS_SEVEN_BIT:
                if not self._refuse(planned):
                    return None
                continue
            if self._seven_bit is None:
                if not facts.at_hand:
                    return self._prepare_later(offer, self._generation)
                try:
                    self._seven_bit = self._downgrade(canonical)
                except Exception as error:  # judged in one place
                    self._cannot(error, False)
                    return None
            canonical, entry = self._seven_bit
            facts = _facts(canonical)
            suffix = (entry,)

    async def _prepare_later(self, offer: Offer, generation: int) -> Sending | None:
        """Re-encode in a thread, then plan again."""
        canonical = self._canonical
        assert canonical is not None
        error: Exception | None = None
        made: tuple[CanonicalContent, Entry] | None = None
        try:
            made = await self._courier.loop.run_in_executor(
                self._courier.executor, self._downgrade, canonical
            )
        except Exception as raised:  # judged in one place
            error = raised
        if generation != self._generation:
            return None  # another connection was given the job meanwhile
        if error is not None:
            self._cannot(error, False)
            return None
        self._seven_bit = made
        prepared = self.prepare(offer, self._next_hop)
        return prepared if prepared is None or isinstance(prepared, Sending) else await prepared

    def finished(self, report: TransactionReport) -> None:
        """The batch was tried: one outcome for each of its recipients."""
        self._generation += 1
        hop = self._next_hop = report.next_hop
        self._tls = report.tls
        if report.lines:
            self._transcript = self._courier.transcripts.record(report.session, report.lines, hop)
        sent = report.sent
        if sent is not None:
            self._wire = WireRecord(sent.mode, sent.size, sent.head_sha256, sent.body_sha256, sent.tail)
        fault = report.fault
        if fault is not None:
            if fault.cause is not None:
                self._cannot(fault.cause, False)
                return
            base = classify_fault(fault, hop)
        elif report.reply is not None:
            base = classify_reply(report.stage, report.reply, hop, passes_dsn=report.passes_dsn)
        else:
            base = classify_fault(Fault(report.stage, "the next hop accepted no recipient", False), hop)
        outcomes = self._outcomes
        if report.stage is Stage.MAIL and report.reply is not None:
            outcomes.extend((state.index, base) for state in self._current)
        else:
            replies = report.recipients
            for place, state in enumerate(self._current):
                own = replies[place] if place < len(replies) else None
                if own is None or own.is_positive:
                    outcomes.append((state.index, base))
                else:
                    outcomes.append((state.index, classify_reply(Stage.RCPT, own, hop)))
        self._end_batch()
        self._next()

    def unreachable(self, fault: SessionFault, next_hop: str, lines: list[Line]) -> None:
        """No session: the same for all batches of that destination."""
        self._generation += 1
        self._next_hop = next_hop
        if lines:
            message = self._claim.message.id
            self._transcript = self._courier.transcripts.record(message, lines, next_hop)
        outcome = classify_session(fault, next_hop)
        destination = self._batches[0].destination
        self._outcomes.extend((state.index, outcome) for state in self._current)
        while len(self._batches) > 1 and self._batches[1].destination == destination:
            self._batches.popleft()
            self._outcomes.extend((state.index, outcome) for state in self._batches[0].recipients)
        self._end_batch()
        self._next()

    def not_tried(self) -> None:
        """The relay stops: the recipients without an outcome stay as they were."""
        self._conclude("", False)

    def not_routed(self) -> None:
        """There is no such route (any more)."""
        self._outcomes.extend((state.index, no_route(state.recipient.address)) for state in self._recipients)
        self._batches.append(_Batch("", (), tuple(self._recipients)))
        self._conclude("", False)

    # --- what goes wrong here -----------------------------------------------------------------------------------

    def _refuse(self, refusal: Refusal) -> bool:
        """Fail the recipients that this hop cannot take; True when some are left."""
        outcome = classify_refusal(refusal, self._next_hop)
        places = refusal.places or range(len(self._current))
        refused = {self._current[place].index for place in places}
        self._outcomes.extend((index, outcome) for index in sorted(refused))
        self._current = tuple(state for state in self._current if state.index not in refused)
        if self._current:
            return True
        self._end_batch()
        self._next(later=True)
        return False

    def _downgrade(self, canonical: CanonicalContent) -> tuple[CanonicalContent, Entry]:
        """The same message without 8-bit octets, and the ledger entry that says so (RFC 6152 §3)."""
        clock = self._courier.clock
        began = clock.monotonic()
        content = canonical.content
        changes = (Transform(SEVEN_BIT),)
        after = apply_changes(content, changes)
        made = canonicalise(after)
        entry = Entry(
            binding="lonedot",
            binding_id="",
            event="downgrade",
            at=clock.now(),
            took_seconds=clock.monotonic() - began,
            before=digests_of(content),
            after=digests_of(after),
            action=Action.KEPT,
            changes=changes,
            words="8-bit parts were re-encoded: the next hop does not offer 8BITMIME",
        )
        return made, entry

    def _cannot(self, error: BaseException, later: bool) -> None:
        """The octets cannot be sent. One place decides: failed, deferred, or held with the reason."""
        match error:
            case NoSuchMessage():
                self._conclude("", later)  # deleted meanwhile: nothing was tried
            case CannotTransform():
                # RFC 6152 §3: what cannot be encoded for a 7-bit hop goes back to its sender.
                outcome = classify_local(f"the next hop does not offer 8BITMIME, and {error}", "5.6.3")
                self._settle_batch(outcome, later)
            case ContentDamaged() | StoredAltered() | FoldFault() | ValueError() | FileNotFoundError():
                words = f"the stored octets are not those that were accepted: {error}"
                self._conclude(words, later, is_altered=True)
            case NotCanonical():
                self._conclude(f"the message cannot be sent as it is: {error}", later)
            case SpoolFault() | OSError() | MemoryError():
                self._settle_batch(classify_local(f"the stored message could not be read: {error}"), later)
            case _:
                self._conclude(f"the relay failed on this message: {error!r}", later)

    def _settle_batch(self, outcome: Outcome, later: bool) -> None:
        self._outcomes.extend((state.index, outcome) for state in self._current)
        self._copy = None
        self._end_batch()
        self._next(later)

    def _end_batch(self) -> None:
        """What came of the first batch is an attempt of its own; the next one begins with nothing recorded."""
        self._batches.popleft()
        now = self._courier.clock.now()
        self._attempts.append(
            Attempt(
                self._started_at,
                now,
                self._next_hop,
                self._route_name,
                self._tls,
                tuple(self._outcomes),
                self._wire,
                self._suffix,
                self._transcript,
            )
        )
        self._started_at = now
        self._outcomes.clear()
        self._suffix = ()
        self._wire = self._transcript = None
        self._next_hop = self._tls = ""

    def _conclude(self, hold: str, later: bool, is_altered: bool = False) -> None:
        if self._batches:
            if not self._attempts or self._outcomes:
                self._end_batch()
            self._batches.clear()
        delivery = Delivery(tuple(self._attempts), hold, is_altered)
        if later:
            self._courier.loop.call_soon(self._done, delivery)
        else:
            self._done(delivery)


def _reads_body(entries: Sequence[Entry]) -> bool:
    """Folding them reads the body."""
    for entry in entries:
        for change in entry.changes:
            if isinstance(change, Transform) or (isinstance(change, Splice) and change.part is Part.BODY):
                return True
    return False


def _folded(arrival: Content, entries: Sequence[Entry], batch: _Batch) -> CanonicalContent:
    """The content of a copy, ready for the encoder.

    Raises:
        NotCanonical, FoldFault, CannotTransform, OSError, ValueError.
    """
    return canonicalise(fold(arrival, entries, batch.recipients[0].index, verify=True))


def _facts(canonical: CanonicalContent) -> ContentFacts:
    content = canonical.content
    return ContentFacts(
        canonical.size,
        content.head_measure.profile.eight_bit >= 0,
        content.body_measure.profile.eight_bit >= 0,
        isinstance(content.body, MemoryBody) and canonical.size <= _INLINE_LIMIT,
    )
