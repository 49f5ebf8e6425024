"""One `deliver` of the courier: some recipients of a message, handed to one next hop after the other.

Rules: what is sent is the fold of the ledger over the arrival form, and its digests are compared with the ledger's
before anything else; only canonical content gets as far as an encoder; a message whose stored octets are not those
that were accepted, or cannot be sent, is to be *held*, never repaired here. What is changed for one hop (8-bit to
7-bit, the edits of sinks) is a ledger entry of the attempt, and so is what any sink said in it. Where nothing is bound
to a delivery event, that costs one test.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Sequence
from concurrent.futures import Executor
from typing import Protocol, TypeVar, cast

import msgspec

from lonedot.delivery.batches import Batch, plan_batches
from lonedot.delivery.classify import (
    classify_local,
    classify_refusal,
    classify_session,
    classify_sink,
    discarded_by,
)
from lonedot.delivery.deposit import HERE, Deposit, DepositReport, Depot
from lonedot.delivery.drop import needs_trace
from lonedot.delivery.form import (
    BEFORE_SIGNING,
    NEEDED,
    Form,
    downgraded,
    edited,
    folded,
    form_of,
    reads_body,
    traced,
)
from lonedot.delivery.jobs import Sending, SessionFault, TransactionReport
from lonedot.delivery.message_sinks import (
    Asking,
    Elsewhere,
    MessageSinks,
    to_end,
)
from lonedot.delivery.outcomes import outcomes_of, shared_outcome
from lonedot.delivery.pool import Pool
from lonedot.delivery.routing import Discard, Drop, Hold, Maildir, Pipe, Resolver, Route
from lonedot.delivery.session_sinks import wants_sessions
from lonedot.delivery.signing import blamed
from lonedot.delivery.tls import TlsSettingsFault
from lonedot.delivery.transcript import NOTE, Line, TranscriptSink
from lonedot.message.content import Content, MemoryBody
from lonedot.message.encode import CanonicalContent, DataEncoder, NotCanonical, StoredAltered
from lonedot.message.fold import FoldFault
from lonedot.message.ledger import Entry
from lonedot.message.transforms import CannotTransform
from lonedot.protocol.client_plan import Offer, Plan, Refusal, RefusalKind, plan_transaction
from lonedot.protocol.events import ContentMode
from lonedot.queue.courier import Delivery
from lonedot.queue.plan import no_route
from lonedot.sinks.bindings import Binding, Chains
from lonedot.sinks.calls import Decision, Dispatched
from lonedot.sinks.events import Event
from lonedot.sinks.hop import Departure, Hop
from lonedot.sinks.standing import Fault as SinkFault
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
from lonedot.terms.address import Address
from lonedot.terms.clock import Clock
from lonedot.terms.envelope import Envelope, Recipient
from lonedot.terms.ids import MessageId
from lonedot.terms.outcome import Outcome, Stage
from lonedot.terms.reply import Reply

__all__ = ["Parcel"]

T = TypeVar("T")

_TRANSACTIONS = 10
"""In one `deliver`. The others come in the next one, when what was sent is settled: after a crash in between no more
than these may arrive twice."""


class Office(Protocol):
    """The courier, as an attempt sees it."""

    clock: Clock
    loop: asyncio.AbstractEventLoop
    executor: Executor | None
    resolver: Resolver
    transcripts: TranscriptSink
    content_of: Callable[[MessageId], Content]
    chains_of: Callable[[int], Chains]
    elsewhere: Elsewhere

    def pool(self, route: Route, destination: str, server: int = 0) -> Pool: ...

    def depot(self, route: Route, server: int) -> Depot: ...

    def observe(self, work: Awaitable[None]) -> None: ...


class Parcel:
    """One `deliver`: the job that the pool sees, for one batch after the other."""

    __slots__ = (
        "_attempts",
        "_batches",
        "_claim",
        "_copy",
        "_courier",
        "_current",
        "_done",
        "_form",
        "_generation",
        "_hold",
        "_hop",
        "_next_hop",
        "_outcomes",
        "_recipients",
        "_route",
        "_route_name",
        "_server",
        "_seven_bit",
        "_sinks",
        "_started_at",
        "_suffix",
        "_tls",
        "_transcript",
        "_turned_away",
        "_whole",
        "_wire",
        "_withheld",
        "retried",
    )

    def __init__(
        self,
        courier: Office,
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
        self._batches: deque[Batch] = deque()
        self._current: tuple[RecipientState, ...] = ()
        self._copy: tuple[int, ...] | None = None
        self._whole: Form | None = None
        """The copy as it lies in the queue."""
        self._seven_bit: Form | None = None
        """`_whole` for a hop without 8BITMIME, when there was one."""
        self._form: Form | None = None
        """What goes, or went, to the hop of this attempt."""
        self._outcomes: list[tuple[int, Outcome]] = []
        self._suffix: tuple[Entry, ...] = ()
        self._wire: WireRecord | None = None
        self._transcript: TranscriptRef | None = None
        self._next_hop = ""
        self._tls = ""
        self._generation = 0
        self.retried = False
        # For sinks of delivery events; None, and all else unused, where nothing is bound to them.
        chains = courier.chains_of(claim.message.facts.server)
        self._sinks = (
            None if chains.delivery is None else MessageSinks(chains, courier.elsewhere, courier.clock)
        )
        self._server = claim.message.facts.server if wants_sessions(chains) else 0
        self._hop: Hop | None = None
        self._turned_away: tuple[Entry, ...] = ()
        """Of the recipients that a sink refused in this batch."""
        self._withheld: Dispatched | None = None
        """Why there was no DATA."""
        self._hold = ""
        """A sink wants the message held, and why."""

    # --- from recipients to batches ---------------------------------------------------------------------

    def begin(self) -> None:
        route = self._route
        assert route is not None
        match route.target:
            case Discard():
                self._batches.append(Batch("", (), tuple(self._recipients)))
                outcome = discarded_by(route.name)
                self._outcomes.extend((state.index, outcome) for state in self._recipients)
                self._conclude("", True)
            case Hold(words):
                self._conclude(f"route {route.name}: {words}", True)
            case _:
                destination = self._courier.resolver.destination
                ledger = self._claim.message.ledger
                self._batches.extend(plan_batches(route, self._recipients, ledger, destination))
                self._next(later=True)

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
        self._whole = self._seven_bit = self._form = None
        try:
            arrival = self._claim.arrival or self._courier.content_of(self._claim.message.id)
        except Exception as error:  # judged in one place
            self._cannot(error, later)
            return
        entries = self._claim.message.ledger
        recipient = batch.recipients[0].index
        if not isinstance(arrival.body, MemoryBody) and reads_body(entries):
            reading = self._courier.loop.run_in_executor(
                self._courier.executor, folded, arrival, entries, recipient
            )
            reading.add_done_callback(self._read)
            return
        try:
            self._take(folded(arrival, entries, recipient))
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
        self._whole = form_of(canonical)

    def _submit(self, later: bool = False) -> None:
        route = self._route
        assert route is not None
        self._form = self._whole
        if isinstance(route.target, Maildir | Pipe | Drop):
            self._courier.depot(route, self._claim.message.facts.server).submit(self)
            return
        try:
            pool = self._courier.pool(route, self._batches[0].destination, self._server)
        except TlsSettingsFault as error:
            fault = SessionFault(Stage.STARTTLS, str(error))
            if later:
                self._courier.loop.call_soon(self.unreachable, fault, "", [])
            else:
                self.unreachable(fault, "", [])
            return
        pool.submit(self)

    # --- the job, as the pool sees it -----------------------------------------------------------------------

    def prepare(
        self, offer: Offer, next_hop: str, hop_at: Callable[[Event], Hop]
    ) -> Sending | Awaitable[Sending | None] | None:
        """What to send in a session with that offer (see `jobs.Job`)."""
        if self._sinks is not None:
            self._hop = hop_at(Event.MESSAGE_START)
        return self._prepared(next_hop, offer, self._sending)

    def _prepared(
        self, next_hop: str, offer: Offer, ready: Callable[[Form, Plan], T]
    ) -> T | Awaitable[T | None] | None:
        """What `ready` makes of the copy when it fits; at once, or when sinks and threads are done."""
        self._generation += 1
        self._next_hop = next_hop
        if self._sinks is not None:
            self._suffix = self._turned_away
            self._withheld = None
        making = self._making(offer, ready)
        try:
            waited = next(making)
        except StopIteration as end:
            made: T | None = end.value
            return made
        return to_end(making, waited, self._is_over())

    def _is_over(self) -> Callable[[], bool]:
        """Says later whether another connection was given the job, or it has ended."""
        generation = self._generation
        return lambda: generation != self._generation

    def _making(
        self, offer: Offer, ready: Callable[[Form, Plan], T]
    ) -> Generator[Awaitable[object], object, T | None]:
        """Plan, have sinks asked, plan again. Gives what must be waited for."""
        whole, sinks = self._whole, self._sinks
        assert whole is not None
        fitted = yield from self._fitted(whole, offer)
        if fitted is not None and sinks is not None:
            asked = yield from self._asked(sinks, fitted[0])
            fitted = None if asked is None else (yield from self._fitted(asked, offer, is_edited=True))
        if fitted is None:
            return None
        return ready(*fitted)

    def _takes(self, form: Form) -> None:
        """This is what goes."""
        self._form = form
        self._suffix = (*self._turned_away, *form.entries) if self._turned_away else form.entries

    def _sending(self, form: Form, plan: Plan) -> Sending:
        self._takes(form)
        sinks = self._sinks
        encoder = DataEncoder(form.canonical, "BDAT" if plan.mode is ContentMode.BDAT else "DATA")
        asks = sinks is not None and sinks.at(Event.BEFORE_DATA)
        return Sending(plan, encoder, form.in_memory, self._before_data if asks else None)

    # --- the job, as a depot sees it ------------------------------------------------------------------------

    @property
    def deposit_for(self) -> Address:
        """As `DepositJob`."""
        return self._current[0].recipient.address

    def make_deposit(self, place: str) -> Deposit | Awaitable[Deposit | None] | None:
        """The copy for the recipients of this batch (see `deposit.DepositJob`)."""
        if self._sinks is not None:
            self._hop = Hop(event=Event.MESSAGE_START, route=self._route_name, next_hop=place)
        return self._prepared(place, HERE, self._depositing)

    def _depositing(self, form: Form, plan: Plan) -> Deposit:
        message, route = self._claim.message, self._route
        assert route is not None
        sender = message.envelope.reverse_path
        scope = tuple([state.index for state in self._current])
        recipients = tuple([state.recipient.address for state in self._current])
        is_one = len(recipients) == 1
        match route.target:
            case Drop() as target:
                is_traced = needs_trace(target, form.content.head)
            case target:
                is_traced = isinstance(target, Maildir)
        if is_traced:
            form = traced(form, sender, recipients[0] if is_one else None, scope, self._courier.clock)
        self._takes(form)
        return Deposit(message.id, sender, recipients, form.canonical, scope[0])

    def deposited(self, place: str, report: DepositReport) -> None:
        """The copy is where it stays, or why not."""
        self._generation += 1
        self._next_hop = place
        if report.lines:
            lines = report.lines
            self._transcript = self._courier.transcripts.record(self._claim.message.id, lines, place)
        if report.cause is not None:
            self._cannot(report.cause, False)
            return
        sent = report.sent
        if sent is not None:
            self._wire = WireRecord(sent.mode, sent.size, sent.head_sha256, sent.body_sha256, sent.tail)
        self._outcomes.extend((state.index, report.outcome) for state in self._current)
        self._close()

    # --- fitting a copy to a hop ----------------------------------------------------------------------------

    def _fitted(
        self, form: Form, offer: Offer, is_edited: bool = False
    ) -> Generator[Awaitable[object], object, tuple[Form, Plan] | None]:
        """The form as this hop can take it, with the plan; None: nothing is left to be sent."""
        while True:
            recipients: list[Recipient] = [state.recipient for state in self._current]
            planned = plan_transaction(self._claim.message.envelope, recipients, form.facts, offer)
            if isinstance(planned, Plan):
                return form, planned
            if planned.kind is not RefusalKind.NEEDS_SEVEN_BIT:
                if not self._refuse(planned):
                    return None
                continue
            try:
                form = yield from self._downgraded(form)
            except Exception as error:  # judged in one place
                if is_edited:
                    self._spoiled(form, error)
                else:
                    self._cannot(error, False)
                return None

    def _downgraded(self, form: Form, words: str = NEEDED) -> Generator[Awaitable[object], object, Form]:
        """Without 8-bit octets; worked on in a thread when it is large."""
        is_kept = form is self._whole and words is NEEDED
        if is_kept and self._seven_bit is not None:
            return self._seven_bit
        courier = self._courier
        if form.facts.at_hand:
            made = downgraded(form, courier.clock, words)
        else:
            later = courier.loop.run_in_executor(courier.executor, downgraded, form, courier.clock, words)
            made = cast(Form, (yield later))
        if is_kept:
            self._seven_bit = made
        return made

    def _ready_to_sign(self, sinks: MessageSinks, form: Form) -> Generator[Awaitable[object], object, Form]:
        """Without 8-bit octets, where that can be: no hop behind this one may have to encode what is signed."""
        message = self._claim.message
        if not form.content.has_eight_bit or message.envelope.smtputf8:
            return form
        if not sinks.will_sign(_shown(message.envelope, self._current), message.facts.helo):
            return form
        try:
            return (yield from self._downgraded(form, BEFORE_SIGNING))
        except CannotTransform:
            return form  # this hop takes it as it is

    # --- sinks -------------------------------------------------------------------------------------------------

    def _asked(self, sinks: MessageSinks, form: Form) -> Generator[Awaitable[object], object, Form | None]:
        """What the sinks of `message-start` and `per-recipient` make of it; None: nothing is left to be sent."""
        for bound in (sinks.editors, sinks.signers):
            if not bound:
                continue
            if bound is sinks.signers:
                form = yield from self._ready_to_sign(sinks, form)
            said = yield from self._ask(sinks, Event.MESSAGE_START, form, self._current, bound=bound)
            if said.decision is not Decision.ACCEPT:
                self._suffix = (*form.entries, *said.entries)
                self._refused(said, Stage.MAIL)
                return None
            if bound is sinks.signers:
                said = msgspec.structs.replace(said, entries=blamed(said.entries))
            form = edited(form, said)
        if not sinks.at(Event.PER_RECIPIENT):
            return form
        for state in self._current:
            said = yield from self._ask(sinks, Event.PER_RECIPIENT, form, (state,), state.recipient)
            own = tuple([msgspec.structs.replace(entry, scope=(state.index,)) for entry in said.entries])
            if said.decision is Decision.ACCEPT:
                form = msgspec.structs.replace(form, entries=(*form.entries, *own))
                continue
            self._turned_away += own
            if said.decision is Decision.HOLD:
                self._suffix = (*self._turned_away, *form.entries)
                self._refused(said, Stage.RCPT)
                return None
            self._outcomes.append((state.index, classify_sink(said, Stage.RCPT, self._next_hop)))
            self._current = tuple([left for left in self._current if left is not state])
        if self._current:
            return form
        self._suffix = (*self._turned_away, *form.entries)
        self._close(later=True)
        return None

    def _ask(
        self,
        sinks: MessageSinks,
        event: Event,
        form: Form,
        states: Sequence[RecipientState],
        recipient: Recipient | None = None,
        replies: tuple[tuple[Recipient, Reply | None], ...] | None = None,
        outcomes: tuple[tuple[Recipient, Outcome], ...] | None = None,
        bound: tuple[Binding, ...] | None = None,
    ) -> Asking:
        """Ask those of an event (or some of them) about these recipients."""
        stored = self._claim.message
        hop = self._hop
        if hop is None:
            hop = Hop(event=event, route=self._route_name, next_hop=self._next_hop)
        departure = Departure(
            event=event,
            hop=msgspec.structs.replace(hop, event=event),
            recipient=recipient,
            replies=replies,
            outcomes=outcomes,
        )
        scope = tuple([state.index for state in states])
        return sinks.ask(stored, _shown(stored.envelope, states), form, departure, scope, bound)

    def _refused(self, said: Dispatched, stage: Stage) -> None:
        """A sink lets none of these recipients have it in this attempt, or wants the message held."""
        if said.decision is Decision.HOLD:
            self._hold = _hold_words(said)
        else:
            outcome = classify_sink(said, stage, self._next_hop)
            self._outcomes.extend((state.index, outcome) for state in self._current)
        self._close(later=True)

    def _spoiled(self, form: Form, error: Exception) -> None:
        """What the sinks made of the copy cannot be sent to this hop, though what they were given could."""
        entries = list(form.entries)
        place = max((n for n, entry in enumerate(entries) if entry.binding_id and entry.changes), default=-1)
        name = "a sink"
        if place >= 0:
            name = f"sink {entries[place].binding}"
            entries[place] = msgspec.structs.replace(entries[place], fault=SinkFault.DAMAGE.value)
        self._suffix = (*self._turned_away, *entries)
        words = f"what {name} made of the message cannot be sent: the next hop does not offer 8BITMIME, and {error}"
        outcome = classify_local(words)
        self._outcomes.extend((state.index, outcome) for state in self._current)
        self._close(later=True)

    def _before_data(self, replies: tuple[Reply | None, ...]) -> bool | Awaitable[bool]:
        """Every RCPT is answered, some were taken: may the content go? (see `Sending.before_data`)"""
        sinks, form = self._sinks, self._form
        assert sinks is not None and form is not None
        answered = list(zip(self._current, replies, strict=True))
        taken = [state for state, own in answered if own is not None and own.is_positive]
        heard = tuple([(state.recipient, own) for state, own in answered])
        asking = self._ask(sinks, Event.BEFORE_DATA, form, taken, replies=heard)
        try:
            waited = next(asking)
        except StopIteration as end:
            return self._goes(end.value)
        return self._goes_later(asking, waited)

    async def _goes_later(self, asking: Asking, waited: Awaitable[Dispatched]) -> bool:
        said = await to_end(asking, waited, self._is_over())
        return said is not None and self._goes(said)

    def _goes(self, said: Dispatched) -> bool:
        self._suffix += said.entries
        if said.decision is Decision.ACCEPT:
            return True
        self._withheld = said
        return False

    def _close(self, later: bool = False) -> None:
        """The batch has its outcomes: let sinks see them, then begin the next."""
        sinks, form = self._sinks, self._form
        if sinks is None or form is None or not self._outcomes or not sinks.at(Event.OUTCOME):
            self._go_on(later)
            return
        fared = dict(self._outcomes)
        states = [state for state in self._recipients if state.index in fared]
        outcomes = tuple([(state.recipient, fared[state.index]) for state in states])
        asking = self._ask(sinks, Event.OUTCOME, form, states, outcomes=outcomes)
        try:
            waited = next(asking)
        except StopIteration as end:
            self._observed(end.value, later)
        except Exception as error:  # a bug of ours must not cost the outcome
            self._not_observed(error, later)
        else:
            self._courier.observe(self._observe(asking, waited))

    async def _observe(self, asking: Asking, waited: Awaitable[Dispatched]) -> None:
        """Whatever becomes of the sinks, and also when the relay stops: the outcome is recorded."""
        try:
            said = await to_end(asking, waited, lambda: False)
        except (Exception, asyncio.CancelledError) as error:
            self._not_observed(error, False)
            return
        assert said is not None
        self._observed(said, False)

    def _not_observed(self, error: BaseException, later: bool) -> None:
        words = f"the sinks of 'outcome' were not all told: {error!r}"
        self._courier.transcripts.record(self._claim.message.id, [(0.0, NOTE, words.encode())])
        self._go_on(later)

    def _observed(self, said: Dispatched, later: bool) -> None:
        self._suffix += said.entries
        if said.decision is Decision.HOLD:
            self._hold = self._hold or _hold_words(said)
        self._go_on(later)

    def _go_on(self, later: bool) -> None:
        """The next batch, unless a sink wants what is left to be held."""
        self._end_batch()
        if self._hold:
            self._conclude(self._hold, later)
        else:
            self._next(later)

    # --- what came of it ------------------------------------------------------------------------------------

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
        if report.fault is not None and report.fault.cause is not None:
            self._cannot(report.fault.cause, False)
            return
        withheld = self._withheld
        shared = shared_outcome(report, withheld)
        is_withheld = report.fault is None and report.is_withheld
        if is_withheld and withheld is not None and withheld.decision is Decision.HOLD:
            self._hold = _hold_words(withheld)
        self._outcomes.extend(outcomes_of(report, self._current, shared, is_held=bool(self._hold)))
        self._close()

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
        self._close()

    def not_tried(self) -> None:
        """The relay stops: the recipients without an outcome stay as they were."""
        self._conclude("", False)

    def not_routed(self) -> None:
        """There is no such route (any more)."""
        self._outcomes.extend((state.index, no_route(state.recipient.address)) for state in self._recipients)
        self._batches.append(Batch("", (), tuple(self._recipients)))
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
        self._close(later=True)
        return False

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
        self._close(later)

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
        self._suffix = self._turned_away = ()
        self._wire = self._transcript = self._hop = self._withheld = None
        self._next_hop = self._tls = ""

    def _conclude(self, hold: str, later: bool, is_altered: bool = False) -> None:
        if self._batches:
            if not self._attempts or self._outcomes or self._suffix:
                self._end_batch()
            self._batches.clear()
        delivery = Delivery(tuple(self._attempts), hold, is_altered)
        if later:
            self._courier.loop.call_soon(self._done, delivery)
        else:
            self._done(delivery)


def _shown(envelope: Envelope, states: Sequence[RecipientState]) -> Envelope:
    """The envelope with these recipients alone."""
    return msgspec.structs.replace(envelope, recipients=tuple([state.recipient for state in states]))


def _hold_words(said: Dispatched) -> str:
    """Why a message is held, with the name of the binding that wants it."""
    words = said.words
    return words if words.startswith(said.binding) else f"{said.binding}: {words}"
