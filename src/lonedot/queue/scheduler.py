"""The scheduler: takes claims, hands them to a courier by route, and settles what comes of them.

A fresh message is offered in memory by the acceptance that committed it; everything else is claimed from the spool
when it is due. What is held in memory is bounded: beyond that, messages wait in the spool unclaimed.

Rules: an outcome is never forgotten: a settlement that the disk refuses is kept and tried again, and its message is
not tried by anybody meanwhile. The settlements of one message go to the spool one after the other, each when the one
before is durable, so that the last, which gives the claim back, is never there first. A message in work is noted as in
flight, so that one that kills the relay is found.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import random
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from lonedot.message.content import MemoryBody
from lonedot.queue.failure import Failure, failure_of
from lonedot.queue.lanes import HopStatus, Lane, LaneState
from lonedot.queue.lanes import key_of as lane_key
from lonedot.queue.pace import PaceState
from lonedot.queue.plan import (
    Conclusion,
    Report,
    ReportKind,
    conclude,
    count_waiting,
    divide,
    group_by_route,
    joined,
    no_route,
)
from lonedot.queue.retry import RetrySchedule
from lonedot.queue.transport import Preparer, Step
from lonedot.spool.interface import (
    Acceptance,
    Attempt,
    Claim,
    MessageState,
    RecipientState,
    RecipientStatus,
    Settlement,
    Spool,
    SpoolFault,
    Stored,
)
from lonedot.terms.address import Address
from lonedot.terms.clock import Clock
from lonedot.terms.ids import MessageId
from lonedot.terms.outcome import Outcome, Result, Stage

__all__ = ["Courier", "Delivery", "HopStatus", "Lane", "Observer", "Reporter", "Scheduler"]

LEASE_SECONDS = 600.0
SETTLE_AGAIN_SECONDS = 5.0
CLAIM_BATCH = 200
TRANSPORT_LIMIT = 64
"""Messages whose sinks are being called at one time; others wait their turn."""
TRANSPORT_AGAIN_SECONDS = 60.0
"""After a fault of ours in transport."""
READY_LIMIT = 1000
"""Messages that wait in memory. A lane takes no more of it than it leaves to the others."""
ACTIVE_LIMIT = 1000
"""Messages at work, over all lanes, where there are many; a lane takes no more of it than it leaves."""
LANES_KEPT = 5000
"""Lanes that are remembered while nothing is done for them, and lanes for which messages are set aside."""
FULL_SECONDS = 30.0
"""A recipient of several, whose lane has no room, is looked at again after this."""
OWED_SECONDS = 60.0
"""How long the report of a failure waits for the other recipients of the message."""
HELD_OCTETS = 32 * 1024 * 1024
"""Of content kept in memory between acceptance and attempt; beyond it the octets are read again from the spool."""
CLAIM_AGAIN_SECONDS = 5.0
LOOK_AGAIN_SECONDS = 60.0
"""An empty queue is looked at again: what made it look empty may have been the disk."""


class Delivery(msgspec.Struct, frozen=True):
    """What a courier brings back for one message and route."""

    attempts: tuple[Attempt, ...]
    """One for each transaction, or for each destination that could not be reached; in that order."""
    hold: str = ""
    """Not empty: the message is to be held, and why (its octets cannot be sent)."""
    is_altered: bool = False
    """Held because the stored octets are not those that were accepted."""

    @property
    def outcomes(self) -> tuple[tuple[int, Outcome], ...]:
        """Of all attempts, by recipient number."""
        attempts = self.attempts
        if len(attempts) == 1:
            return attempts[0].outcomes
        return tuple(pair for attempt in attempts for pair in attempt.outcomes)


class Courier(Protocol):
    """Tries to hand a message on. Calls `done` exactly once, later or at once; never raises for a peer's fault.

    What it raises all the same, before `done`, is an outcome: deferred by a fault of ours.
    """

    def deliver(
        self,
        claim: Claim,
        recipients: Sequence[RecipientState],
        route: str,
        done: Callable[[Delivery], None],
    ) -> None: ...


class Reporter(Protocol):
    """Turns due reports into DSNs for custody, or files in Badmail what can be neither delivered nor returned."""

    def report(self, claim: Claim, reports: Sequence[Report]) -> Awaitable[Sequence[Acceptance]]: ...


class Observer(Protocol):
    """Is told what happened, for logs and metrics. Must not raise."""

    def attempted(self, claim: Claim, delivery: Delivery) -> None: ...

    def concluded(self, claim: Claim, conclusion: Conclusion, hold: str) -> None: ...

    def spool_failed(self, what: str, error: Exception) -> None: ...


class _Work:
    """A claimed message and the jobs that are out for it."""

    __slots__ = (
        "behind",
        "claim",
        "forgotten",
        "octets",
        "open",
        "owed",
        "owed_timer",
        "reporting",
        "rest",
        "settled",
        "settling",
        "waiting",
    )

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.octets = _in_memory(claim)
        self.open = 0
        """Jobs that are ready or out."""
        self.reporting = 0
        """Jobs whose outcome waits for its reports."""
        self.settling = 0
        """Settlements that are not durable yet: one is with the spool, the others are `behind` it."""
        self.behind: deque[Settlement] = deque()
        self.waiting = sum(r.status is RecipientStatus.WAITING for r in claim.message.recipients)
        self.forgotten = False
        self.settled: asyncio.Future[bool] | None = None
        """Of a step in transport: done when it is durable; False when the claim was no longer ours."""
        self.rest: list[tuple[LaneState[_Job], _Job]] = []
        """A courier has come back before it had tried all: the others go when what was done is durable."""
        self.owed: Conclusion | None = None
        """What is to be reported when the other jobs have ended; not settled before."""
        self.owed_timer: asyncio.TimerHandle | None = None


class _Transport(enum.Enum):
    """How the way of a message through its sinks ended."""

    THROUGH = "through"
    GIVEN_BACK = "given back"
    """Put off, held, at its end, or no longer ours."""
    INTERRUPTED = "interrupted"
    """A person holds or deletes it, or the relay stops."""


class _Job:
    __slots__ = ("is_done", "recipients", "size", "work")

    def __init__(self, work: _Work, recipients: tuple[RecipientState, ...]) -> None:
        self.work = work
        self.recipients = recipients
        self.size = work.claim.message.size
        self.is_done = False


_Lanes = dict[str, LaneState[_Job]]


class Scheduler:
    """One per worker, on its event loop."""

    def __init__(
        self,
        spool: Spool,
        courier: Courier,
        reporter: Reporter,
        observer: Observer,
        lanes: Sequence[Lane],
        choose: Callable[[Address, Stored], str | None],
        clock: Clock,
        owner: str,
        jitter: Callable[[], float] = random.random,
        preparer: Preparer | None = None,
        destination: Callable[[str, bytes], str] = lambda route, domain: "",
    ) -> None:
        """`preparer` is asked about messages in transport; without one they are held. `destination` gives, by the name
        of a route and a domain, what lanes of that route are told apart by.
        """
        self._spool = spool
        self._courier = courier
        self._reporter = reporter
        self._observer = observer
        self._routes = {lane.name: lane for lane in lanes}
        self._is_spread = len(lanes) > 1 or any(lane.has_many for lane in lanes)
        """There may be several lanes; one alone need not leave room for others."""
        self._lanes: _Lanes = {}
        self._parked: _Lanes = {}
        """Lanes for which messages wait in the spool; the one that was asked for last stands last."""
        self._lanes_turn = False
        self._blocked: _Lanes = {}
        """Lanes that wait for others to end something."""
        self._active = 0
        self._destination = destination
        self._choose = choose
        self._clock = clock
        self.owner = owner
        self._jitter = jitter
        self._preparer = preparer
        self._transport: deque[_Work] = deque()
        """In transport, waiting for their turn."""
        self._in_transport = 0
        self._ready = 0
        self._held_octets = 0
        self._works: dict[MessageId, _Work] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._renewal: asyncio.TimerHandle | None = None
        self._claiming = False
        self._kicked = False
        """Somebody asked to look at the spool while it was being asked."""
        self._spilled = True
        """Something due may lie unclaimed in the spool."""
        self._stopping = False
        self._unsettled: list[tuple[_Work, Settlement]] = []
        """Settlements that the disk refused, and what was decided since, in order."""
        self._settle_timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Future[None]] = set()
        self._idle: asyncio.Event = asyncio.Event()
        self._idle.set()

    # -- taking work -------------------------------------------------------------------------------

    @property
    def has_room(self) -> bool:
        """True while a fresh message may be offered; else it is accepted without an owner and claimed later."""
        if self._ready < READY_LIMIT and not self._stopping:
            return True
        self._spilled = True
        return False

    @property
    def active(self) -> int:
        """Messages at work or ready."""
        return len(self._works)

    def lease_until(self) -> float:
        return self._clock.now() + LEASE_SECONDS

    def start(self) -> None:
        """Begin to claim what is due, and to renew the lease of what is held."""
        try:
            for key in self._spool.lanes():
                route, _, destination = key.partition("\t")
                # Of a route that is gone, too: its messages are to be told so.
                lane = self._routes.get(route) or Lane(route, 1, RetrySchedule())
                self._parked[key] = self._lanes.get(key, LaneState(lane, destination))
                if route in self._routes:
                    self._lanes[key] = self._parked[key]
        except SpoolFault as error:
            self._observer.spool_failed("lanes", error)
        self._renew()
        self._pump()

    def offer(self, claim: Claim) -> None:
        """Take a message that was accepted with us as its owner."""
        if self._held_octets + _in_memory(claim) > HELD_OCTETS:
            claim = Claim(claim.message, claim.epoch)
        self._enqueue(claim, self._clock.now())

    def kick(self) -> None:
        """Look at the spool now: a person released or retried something. No hop is left alone for now."""
        now = self._clock.now()
        for state in (*self._lanes.values(), *self._parked.values()):
            state.pace.try_now(now)
        self._look()

    def _look(self) -> None:
        """Something in the spool may be due."""
        self._spilled = True
        self._kicked = self._claiming
        self._pump()

    def forget(self, ids: Sequence[MessageId]) -> None:
        """A person held or deleted these: start nothing more for them (what is on the wire goes on)."""
        for id in ids:
            work = self._works.get(id)
            if work is not None:
                work.forgotten = True

    def take_lanes(self, lanes: Sequence[Lane]) -> None:
        """The lanes of another configuration, in one step: what is ready is routed anew, what is with the courier ends
        in the lane that it began in."""
        self._routes = {lane.name: lane for lane in lanes}
        self._is_spread = len(lanes) > 1 or any(lane.has_many for lane in lanes)
        ready: list[_Job] = []
        for key, state in tuple(self._lanes.items()):
            ready += state.clear()
            lane = self._routes.get(state.lane.name)
            state.pace.try_now(self._clock.now())  # what was in trouble may lead elsewhere now
            if lane is None:
                del self._lanes[key]
            else:
                state.take(lane)
        self._ready -= len(ready)
        for job in ready:
            job.work.open -= 1
            self._to_lanes(job.work, job.recipients, self._clock.now(), is_claimed=True)
        self._look()

    def hops(self) -> tuple[HopStatus, ...]:
        """Next hops of which something is known, those in trouble first."""
        found = [
            state.status(self._count_parked(key)) for key, state in {**self._parked, **self._lanes}.items()
        ]
        return tuple(
            sorted(found, key=lambda hop: (not hop.failures, -hop.parked, hop.route, hop.destination))
        )

    def _count_parked(self, key: str) -> int:
        if key not in self._parked:
            return 0
        try:
            return self._spool.count_lane(key)
        except SpoolFault as error:
            self._observer.spool_failed("lanes", error)
            return 0

    async def stop(self, drain_seconds: float) -> None:
        """Start nothing new, wait for what is on the wire at most `drain_seconds`.

        What was decided is with the spool when this returns, though perhaps not durable: `Spool.close` waits for that.
        """
        self._stopping = True
        for timer in (self._timer, self._renewal):
            if timer is not None:
                timer.cancel()
        for state in self._lanes.values():
            for job in state.clear():
                job.work.open -= 1
                self._let_go(job.work)
        while self._transport:
            work = self._transport.popleft()
            work.open -= 1
            self._let_go(work)
        self._ready = 0
        for work in tuple(self._works.values()):
            self._report_owed(work)
        if self._works:
            self._idle.clear()
            try:
                await asyncio.wait_for(self._idle.wait(), drain_seconds)
            except TimeoutError:
                pass
        if self._settle_timer is not None:
            self._settle_again()
        await asyncio.sleep(0)  # a report that was begun just now must be under way to be told that it ends
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- from the spool ----------------------------------------------------------------------------

    def _pump(self) -> None:
        """Claim what is due when there is room, and set the timer for what is due later."""
        if self._stopping or self._claiming:
            return
        now = self._clock.now()
        lane = self._hungry(now) if self._parked else None
        is_due = self._is_due(now)
        if lane is not None and (self._lanes_turn or not is_due):
            self._lanes_turn = False
            del self._parked[lane.key]
            self._parked[lane.key] = lane
        elif is_due:
            self._lanes_turn = True
            lane = None
        else:
            return
        self._claiming = True
        self._spawn(self._claim(now, lane))

    def _is_due(self, now: float) -> bool:
        """Something in the spool is due by its time, and there is room for it."""
        if self._ready >= (READY_LIMIT if self._is_spread else READY_LIMIT // 2):
            return False
        due = self._spool.next_due()
        if due is None:
            self._spilled = False
            self._wake_at(now + LOOK_AGAIN_SECONDS)
            return False
        if due > now:
            self._spilled = False
            self._wake_at(due)
            return False
        return True

    def _hungry(self, now: float) -> LaneState[_Job] | None:
        """The next lane that can take what waits for it in the spool."""
        for state in self._parked.values():
            if self._wants(state, now):
                return state
            if state.pace.state is PaceState.BACKING_OFF and state.pace.until > now:
                self._wake_at(state.pace.until)
        return None

    def _wants(self, state: LaneState[_Job], now: float) -> bool:
        if state.pace.state is PaceState.OPEN:
            return len(state) < min(2 * state.pace.window, READY_LIMIT - self._ready)
        return not state.pace.rests(now) and not len(state)

    async def _claim(self, now: float, lane: LaneState[_Job] | None) -> None:
        limit, key, parks = CLAIM_BATCH, "", 0
        if lane is not None:
            key, parks = lane.key, lane.parks
            is_open = lane.pace.state is PaceState.OPEN
            limit = max(1, min(CLAIM_BATCH, READY_LIMIT - self._ready - len(lane))) if is_open else 1
        try:
            if self._works:
                # The machine may have slept: what is at work here must not be claimed a second time.
                await self._spool.renew(self.owner, now + LEASE_SECONDS)
            claims = await self._spool.claim(self.owner, now, LEASE_SECONDS, limit, key)
        except Exception as error:  # of any kind: a queue that nobody looks at any more would be worse
            self._claiming = self._kicked = False
            self._observer.spool_failed("claim", error)
            self._wake_at(now + CLAIM_AGAIN_SECONDS)
            return
        self._claiming = False
        if lane is not None and len(claims) < limit and lane.parks == parks and not lane.parkings:
            self._parked.pop(key, None)
        for claim in claims:
            self._enqueue(claim, now, is_of_lane=lane is not None)
        kicked, self._kicked = self._kicked, False
        if claims or kicked or lane is not None:
            self._pump()
        else:
            self._wake_at(now + CLAIM_AGAIN_SECONDS)

    def _wake_at(self, at: float) -> None:
        if self._stopping or (self._timer is not None and self._timer_at <= at):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        delay = min(max(at - self._clock.now(), 0.0), 3600.0)
        self._timer = asyncio.get_running_loop().call_later(delay, self._awake)

    def _awake(self) -> None:
        self._timer = None
        self._spilled = True
        self._pump()

    def _renew(self) -> None:
        """Keep the lease of everything held, three times per lease."""
        if self._stopping:
            return
        if self._works:
            self._spawn(self._renewed())
        self._renewal = asyncio.get_running_loop().call_later(LEASE_SECONDS / 3, self._renew)

    async def _renewed(self) -> None:
        try:
            await self._spool.renew(self.owner, self.lease_until())
        except SpoolFault as error:
            self._observer.spool_failed("renew", error)

    # -- in transport ------------------------------------------------------------------------------

    def _drive_transport(self) -> None:
        """Begin with those that wait, while there is room."""
        while self._transport and self._in_transport < TRANSPORT_LIMIT and not self._stopping:
            work = self._transport.popleft()
            self._ready -= 1
            if work.forgotten:
                work.open -= 1
                self._nothing_due(work)
                continue
            self._in_transport += 1
            self._spool.in_flight(work.claim.message.id)
            self._spawn(self._prepare(work))

    async def _prepare(self, work: _Work) -> None:
        """Call what is left of its sinks, step by step; then deliver it, under the same claim."""
        ended = _Transport.INTERRUPTED
        try:
            ended = await self._prepared(work)
        except Exception as error:
            # A fault of ours, or of the disk: it is asked again, and what was committed stays.
            self._observer.spool_failed("transport", error)
            self._put_off(work, f"a fault of ours: {type(error).__name__}: {error}")
            ended = _Transport.GIVEN_BACK
        finally:
            work.open -= 1
            work.settled = None
            self._in_transport -= 1
            if ended is _Transport.GIVEN_BACK or self._stopping:
                self._let_go(work)  # when the relay stops, the claim ends with the spool's own end
            elif ended is _Transport.INTERRUPTED or work.forgotten:
                self._nothing_due(work)
            else:
                self._distribute(work, self._clock.now())
            self._drive_transport()
            if self._spilled and self._ready < READY_LIMIT // 4:
                self._pump()

    async def _prepared(self, work: _Work) -> _Transport:
        message = work.claim.message
        if self._preparer is None:
            words = "sinks are still to be called for it, and cannot be called here"
            held = Settlement(message.id, work.claim.epoch, state=MessageState.HELD, reason=words)
            self._settle(work, held)
            return _Transport.GIVEN_BACK
        async with contextlib.aclosing(self._preparer.prepare(work.claim)) as steps:
            async for step in steps:
                if not await self._take(work, step) or step.gives_back:
                    return _Transport.GIVEN_BACK
                if work.forgotten or self._stopping:
                    return _Transport.INTERRUPTED
        return _Transport.THROUGH

    async def _take(self, work: _Work, step: Step) -> bool:
        """Commit a step, with the reports that it causes. False: the claim is no longer ours."""
        claim = work.claim
        spawned = tuple(await self._reporter.report(claim, step.reports)) if step.reports else ()
        settlement = Settlement(
            id=claim.message.id,
            epoch=claim.epoch,
            recipients=step.recipients,
            state=step.state,
            reason=step.reason,
            release=step.gives_back,
            entries=step.entries,
            spawned=spawned + step.spawned,
            at=self._clock.now(),
            transport=step.message.transport,
        )
        work.settled = asyncio.get_running_loop().create_future()
        self._settle(work, settlement)
        is_ours = await work.settled
        work.claim = Claim(step.message, claim.epoch, claim.arrival)
        work.waiting = sum(r.status is RecipientStatus.WAITING for r in step.message.recipients)
        return is_ours

    def _put_off(self, work: _Work, words: str) -> None:
        message, now = work.claim.message, self._clock.now()
        recipients = tuple(
            [
                msgspec.structs.replace(recipient, next_at=now + TRANSPORT_AGAIN_SECONDS)
                for recipient in message.recipients
                if recipient.status is RecipientStatus.WAITING
            ]
        )
        progress = message.transport and msgspec.structs.replace(message.transport, words=words[:500])
        settlement = Settlement(
            message.id, work.claim.epoch, recipients, at=now, transport=progress or msgspec.UNSET
        )
        self._settle(work, settlement)

    # -- to the courier ----------------------------------------------------------------------------

    def _enqueue(self, claim: Claim, now: float, is_of_lane: bool = False) -> None:
        if self._stopping:
            return  # it stays in the spool; the claim ends with the spool's own end
        work = _Work(claim)
        self._held_octets += work.octets
        self._works[claim.message.id] = work
        if claim.message.transport is not None:
            work.open = 1
            self._ready += 1
            self._transport.append(work)
            self._drive_transport()
            return
        self._to_lanes(work, claim.message.recipients, now, is_of_lane)

    def _distribute(self, work: _Work, now: float) -> None:
        """By route, to the lanes."""
        self._to_lanes(work, work.claim.message.recipients, now)

    def _to_lanes(
        self, work: _Work, recipients: Sequence[RecipientState], now: float, is_claimed: bool = False
    ) -> None:
        """Those of the recipients that are due. `is_claimed`: those whose hop could not be reached are."""
        message = msgspec.structs.replace(work.claim.message, recipients=tuple(recipients))
        jobs: list[tuple[LaneState[_Job] | None, str, _Job]] = []
        for route, group in group_by_route(message, now, self._choose, is_claimed).items():
            lane = self._routes.get(route) if route is not None else None
            if lane is None:
                jobs.append((None, route or "", _Job(work, group)))
            elif not lane.has_many:
                jobs.append((self._lane(lane, ""), lane.name, _Job(work, group)))
            else:
                parts: dict[str, list[RecipientState]] = {}
                for recipient in group:
                    destination = self._destination(lane.name, recipient.recipient.address.domain)
                    parts.setdefault(destination, []).append(recipient)
                for destination, part in parts.items():
                    jobs.append((self._lane(lane, destination), lane.name, _Job(work, tuple(part))))
        work.open += len(jobs)
        if not work.open:
            self._nothing_due(work)
            return
        for state, route, job in jobs:
            if state is None:
                outcomes = tuple((r.index, no_route(r.recipient.address, r.redirect)) for r in job.recipients)
                self._done(job, None, Delivery((Attempt(now, now, "", route, "", outcomes),)))
            else:
                self._join(state, job, now)

    def _lane(self, lane: Lane, destination: str) -> LaneState[_Job]:
        key = lane_key(lane.name, destination)
        state = self._lanes.get(key)
        if state is None:
            state = self._parked.get(key, LaneState(lane, destination))
            if len(self._lanes) >= LANES_KEPT:
                # Of a hop in trouble only what is known of it is lost, and that is soon known again.
                self._lanes = {k: s for k, s in self._lanes.items() if not s.is_idle or k in self._parked}
            self._lanes[key] = state
        return state

    def _join(self, state: LaneState[_Job], job: _Job, now: float) -> None:
        """To wait in memory, or back to the spool."""
        if state.pace.rests(now) or (self._is_spread and len(state) >= READY_LIMIT - self._ready):
            self._park(state, job, now)
            return
        state.put(job)
        self._ready += 1
        self._drive(state)

    def _park(self, state: LaneState[_Job], job: _Job, now: float) -> None:
        """Its next hop is left alone, or has enough: the claim is given back until there is room.

        A message whose sender is to be told of the delay, or whose time is over, has failed with what the hop met.
        """
        work, last, schedule = job.work, state.pace.last, state.lane.schedule
        accepted_at = work.claim.message.accepted_at
        if work.forgotten:
            self._drop(work)
            return
        if last is not None and schedule.is_time_to_tell(job.recipients, accepted_at, now):
            outcomes = tuple([(r.index, last) for r in job.recipients])
            delivery = Delivery((Attempt(now, now, "", state.lane.name, "", outcomes),))
            self._done(job, state, delivery, was_sent=False)
            return
        work.open -= 1
        is_last = not (work.open or work.reporting or work.owed)
        lane, due = "", 0.0
        recipients = [
            r if last is None or r.last is not None else msgspec.structs.replace(r, last=last)
            for r in job.recipients
        ]
        if is_last and work.waiting == len(recipients) and self._may_set_aside(state):
            lane, due = state.key, schedule.look_at(job.recipients, accepted_at, now)
            recipients = [r for r, before in zip(recipients, job.recipients, strict=True) if r is not before]
        else:
            again = max(state.pace.until, now + FULL_SECONDS) if last is None else state.pace.until
            again = again if again > now else now + FULL_SECONDS
            recipients = [msgspec.structs.replace(r, next_at=again) for r in recipients]
        self._settle(
            work,
            Settlement(
                work.claim.message.id,
                work.claim.epoch,
                tuple(recipients),
                release=is_last,
                at=now,
                lane=lane,
                due=due,
            ),
        )
        if not work.open:
            self._report_owed(work)

    def _may_set_aside(self, state: LaneState[_Job]) -> bool:
        return state.key in self._parked or len(self._parked) < LANES_KEPT

    def _drop(self, work: _Work) -> None:
        """A job of a message that a person held or deleted."""
        work.open -= 1
        if not work.open and not work.reporting:
            # Else a claim that a settlement kept for this job would be renewed for ever.
            if work.owed is not None:
                self._report_owed(work)
            else:
                self._nothing_due(work)

    def _nothing_due(self, work: _Work) -> None:
        """A claim of which nothing is to be done (its times changed meanwhile, or a person did): give it back."""
        message = work.claim.message
        state = MessageState.QUEUED if work.waiting else MessageState.FINISHED
        settlement = Settlement(message.id, work.claim.epoch, state=state, at=self._clock.now())
        self._settle(work, settlement)

    def _drive(self, state: LaneState[_Job]) -> None:
        """Hand ready jobs to the courier while the lane has room."""
        pace = state.pace
        while len(state) and not self._stopping:
            if self._is_spread and state.active >= ACTIVE_LIMIT - self._active:
                self._blocked[state.key] = state
                return
            now = self._clock.now()
            if not pace.may_start(state.active, now):
                self._wait_for_slot(state, now)
                return
            job = state.next()
            if job is None:
                return
            self._ready -= 1
            work = job.work
            if work.forgotten:
                self._drop(work)
                continue
            pace.started(now)
            state.began(job)
            self._active += 1
            self._spool.in_flight(work.claim.message.id)
            try:
                self._courier.deliver(
                    work.claim,
                    job.recipients,
                    state.lane.name,
                    lambda delivery, job=job: self._done(job, state, delivery),  # type: ignore[misc]
                )
            except Exception as error:
                self._done(job, state, _our_fault(job, state.lane.name, self._clock.now(), error))

    def _wait_for_slot(self, state: LaneState[_Job], now: float) -> None:
        """A rate allows no more for now: go on when it does."""
        seconds = state.pace.slot_at(now) - now
        if seconds <= 0 or state.slot_timer_is_set:
            return
        state.slot_timer_is_set = True
        asyncio.get_running_loop().call_later(seconds, self._slot, state)

    def _slot(self, state: LaneState[_Job]) -> None:
        state.slot_timer_is_set = False
        self._drive(state)

    def _done(
        self, job: _Job, state: LaneState[_Job] | None, delivery: Delivery, was_sent: bool = True
    ) -> None:
        if job.is_done:
            return
        job.is_done = True
        work = job.work
        claim = work.claim
        message = claim.message
        now = self._clock.now()
        outcomes = dict(delivery.outcomes)
        route = delivery.attempts[0].route if delivery.attempts else ""
        schedule = state.lane.schedule if state is not None else RetrySchedule()
        # Recipients of this job are decided now; any other that waits keeps the message in the queue.
        others = work.waiting > len(job.recipients)
        conclusion = conclude(
            job.recipients, others, outcomes, route, schedule, message.accepted_at, now, self._jitter
        )
        work.waiting -= sum(r.status is not RecipientStatus.WAITING for r in conclusion.recipients)
        work.open -= 1
        is_unreachable = not was_sent
        if state is not None and was_sent:
            state.ended(job)
            self._active -= 1
            is_unreachable = self._judge(state, delivery, now)
            self._go_on(state, job, outcomes, delivery)
        self._observer.attempted(claim, delivery)
        self._conclude(work, delivery, conclusion, state if is_unreachable else None)
        if state is None:
            self._pump_low()
            return
        if is_unreachable and was_sent:
            # What waits in memory waits in the spool from now on.
            jobs = state.clear()
            self._ready -= len(jobs)
            for waiting in jobs:
                self._park(state, waiting, now)
            self._wake_at(state.pace.until)
        self._drive(state)
        while self._blocked and self._active < ACTIVE_LIMIT:
            key = next(iter(self._blocked))
            self._drive(self._blocked.pop(key))
            if key in self._blocked:
                break
        if state.key in self._parked and self._wants(state, now):
            self._pump()
        self._pump_low()

    def _pump_low(self) -> None:
        if self._spilled and self._ready < READY_LIMIT // 4:
            self._pump()

    def _judge(self, state: LaneState[_Job], delivery: Delivery, now: float) -> bool:
        """What this says of the next hop. True: it could not be reached, and is left alone."""
        unreachable: Outcome | None = None
        is_answered = is_lost = False
        for _, outcome in delivery.outcomes:
            if outcome.result is not Result.DEFERRED:
                is_answered = True
                continue
            match failure_of(outcome):
                case Failure.UNREACHABLE:
                    unreachable = outcome
                case Failure.LOST:
                    is_lost = True
                case Failure.LOCAL:
                    pass
                case _:
                    is_answered = True
        pace = state.pace
        if is_lost:
            pace.lost()
        elif is_answered:
            pace.answered()
        elif unreachable is not None:
            pace.unreachable(now, state.lane.schedule, self._jitter(), unreachable)
            return True
        else:
            pace.undecided(now)
        return False

    def _go_on(
        self, state: LaneState[_Job], job: _Job, outcomes: Mapping[int, Outcome], delivery: Delivery
    ) -> None:
        """A courier tries so many at a time: the others go when this is durable."""
        work = job.work
        if not 0 < len(outcomes) < len(job.recipients) or delivery.hold or work.forgotten or self._stopping:
            return
        work.open += 1
        rest = tuple([r for r in job.recipients if r.index not in outcomes])
        work.rest.append((state, _Job(work, rest)))

    def _conclude(
        self, work: _Work, delivery: Delivery, conclusion: Conclusion, state: LaneState[_Job] | None
    ) -> None:
        """Settle, with the reports that are due. `state`: the lane of a hop that could not be reached.

        A failure is reported when the other jobs of the message have ended, so that its sender gets one report of all;
        until then it is not settled, and a crash makes that it is met again.
        """
        if (work.open or work.reporting) and not self._stopping:
            conclusion, owed = divide(conclusion)
            if owed is not None:
                work.owed = owed if work.owed is None else joined(work.owed, owed)
                if work.owed_timer is None:
                    loop = asyncio.get_running_loop()
                    work.owed_timer = loop.call_later(OWED_SECONDS, self._report_owed, work)
        elif work.owed is not None:
            conclusion = joined(conclusion, work.owed)
            self._paid(work)
        if conclusion.reports:
            # Counted now: another job of this message that ends in the same turn must not give the claim back.
            work.reporting += 1
            self._spawn(self._report(work, delivery, conclusion))
            return
        settlement = self._settlement(work, delivery, conclusion, ())
        if (
            state is not None
            and settlement.release
            and settlement.state is MessageState.QUEUED
            and work.waiting == count_waiting(conclusion)
            and self._may_set_aside(state)
        ):
            settlement = msgspec.structs.replace(settlement, lane=state.key, due=conclusion.next_at)
        self._settle(work, settlement)
        self._observer.concluded(work.claim, conclusion, delivery.hold)

    def _report_owed(self, work: _Work) -> None:
        owed = work.owed
        if owed is None:
            return
        self._paid(work)
        work.reporting += 1
        state = MessageState.QUEUED if work.waiting else MessageState.FINISHED
        self._spawn(self._report(work, Delivery(()), msgspec.structs.replace(owed, state=state)))

    @staticmethod
    def _paid(work: _Work) -> None:
        work.owed = None
        if work.owed_timer is not None:
            work.owed_timer.cancel()
            work.owed_timer = None

    async def _report(self, work: _Work, delivery: Delivery, conclusion: Conclusion) -> None:
        """Make the DSNs first: they are committed with the outcome that causes them."""
        spawned: tuple[Acceptance, ...] = ()
        try:
            spawned = tuple(await self._reporter.report(work.claim, conclusion.reports))
        except (Exception, asyncio.CancelledError) as error:
            # Whatever it is, and also when the relay stops: the outcome is settled, and the sender told later.
            self._observer.spool_failed("report", SpoolFault(str(error) or type(error).__name__))
            waiting_before = count_waiting(conclusion)
            conclusion = _without_reports(conclusion, self._clock.now())
            work.waiting += count_waiting(conclusion) - waiting_before
        work.reporting -= 1
        self._settle(work, self._settlement(work, delivery, conclusion, spawned))
        self._observer.concluded(work.claim, conclusion, delivery.hold)

    def _settlement(
        self,
        work: _Work,
        delivery: Delivery,
        conclusion: Conclusion,
        spawned: tuple[Acceptance, ...],
    ) -> Settlement:
        state = conclusion.state
        hold, attempts = delivery.hold, delivery.attempts
        if hold and state is MessageState.QUEUED:
            state = MessageState.HELD
        return Settlement(
            id=work.claim.message.id,
            epoch=work.claim.epoch,
            recipients=conclusion.recipients,
            attempts=attempts,
            state=state,
            reason=hold,
            release=work.open == 0 and work.reporting == 0 and work.owed is None,
            spawned=spawned,
            at=attempts[-1].ended_at if attempts else self._clock.now(),
        )

    # -- settling ----------------------------------------------------------------------------------

    def _settle(self, work: _Work, settlement: Settlement) -> None:
        work.settling += 1
        if settlement.lane and (state := self._lanes.get(settlement.lane)) is not None:
            state.parkings += 1
        if work.settling > 1:
            work.behind.append(settlement)
        else:
            self._hand_in(work, settlement)

    def _hand_in(self, work: _Work, settlement: Settlement) -> None:
        if self._unsettled:
            self._unsettled.append((work, settlement))
        else:
            self._submit(work, settlement)

    def _submit(self, work: _Work, settlement: Settlement) -> None:
        try:
            future = self._spool.settle((settlement,))
        except Exception as error:
            self._not_settled(work, settlement, error)
        else:
            future.add_done_callback(lambda done: self._settled(work, settlement, done))

    def _settled(self, work: _Work, settlement: Settlement, future: asyncio.Future[Sequence[bool]]) -> None:
        if future.cancelled():
            return
        error = future.exception()
        if error is not None:
            self._not_settled(work, settlement, error)
            return
        work.settling -= 1
        if work.settled is not None and not work.settled.done():
            work.settled.set_result(all(future.result()))
        if work.behind:
            self._hand_in(work, work.behind.popleft())
        for recipient in settlement.recipients:
            if recipient.next_at:
                self._wake_at(recipient.next_at)
        if work.rest and not work.settling:
            rest, work.rest = work.rest, []
            for lane, job in rest:
                if self._stopping:
                    work.open -= 1
                else:
                    self._join(lane, job, self._clock.now())
        if settlement.lane:
            self._set_aside(settlement.lane)
        self._let_go(work)
        if settlement.spawned:
            self._look()

    def _set_aside(self, key: str) -> None:
        """A message waits in the spool for this lane."""
        state = self._lanes.get(key, self._parked.get(key))
        if state is None:
            return  # of a route that is gone: it is found when it is due
        state.parkings -= 1
        state.parks += 1
        self._parked[key] = state
        now = self._clock.now()
        if self._wants(state, now):
            self._pump()
        elif state.pace.until > now:
            self._wake_at(state.pace.until)

    def _not_settled(self, work: _Work, settlement: Settlement, error: BaseException) -> None:
        self._observer.spool_failed(
            "settle", error if isinstance(error, Exception) else SpoolFault(str(error))
        )
        self._unsettled.append((work, settlement))
        if self._settle_timer is None:
            again = asyncio.get_running_loop().call_later(SETTLE_AGAIN_SECONDS, self._settle_again)
            self._settle_timer = again

    def _settle_again(self) -> None:
        """The disk refused: everything that was decided since, in its order. Each by itself: one may be to blame."""
        if self._settle_timer is not None:
            self._settle_timer.cancel()
            self._settle_timer = None
        batch = self._unsettled
        self._unsettled = []
        for work, settlement in batch:
            self._submit(work, settlement)

    def _let_go(self, work: _Work) -> None:
        """Drop a work that has nothing out any more."""
        if work.open or work.reporting or work.settling:
            return
        self._paid(work)
        id = work.claim.message.id
        self._held_octets -= work.octets
        work.octets = 0
        if self._works.get(id) is work:
            del self._works[id]
            self._spool.landed(id)
        if self._stopping and not any(w.open or w.reporting or w.settling for w in self._works.values()):
            self._idle.set()

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _in_memory(claim: Claim) -> int:
    """Octets that the claim keeps in memory."""
    arrival = claim.arrival
    if arrival is None:
        return 0
    return arrival.size if isinstance(arrival.body, MemoryBody) else len(arrival.head)


def _without_reports(conclusion: Conclusion, now: float) -> Conclusion:
    """The reports could not be made: failed recipients wait a little, so that their sender is told later.

    A notice of delay is due again at the next outcome. A report of success is all that can be lost.
    """
    put_back, untold = (
        {r.index for report in conclusion.reports if report.kind is kind for r in report.recipients}
        for kind in (ReportKind.FAILURE, ReportKind.DELAY)
    )
    recipients = tuple(
        msgspec.structs.replace(
            recipient,
            status=RecipientStatus.WAITING,
            next_at=now + 60,
            last=_deferred(recipient.last),
        )
        if recipient.index in put_back
        else msgspec.structs.replace(recipient, delay_reported=False)
        if recipient.index in untold
        else recipient
        for recipient in conclusion.recipients
    )
    state = MessageState.QUEUED if put_back else conclusion.state
    return Conclusion(recipients, state, now + 60 if put_back else conclusion.next_at, ())


def _deferred(outcome: Outcome | None) -> Outcome | None:
    return None if outcome is None else msgspec.structs.replace(outcome, result=Result.DEFERRED)


def _our_fault(job: _Job, route: str, now: float, error: Exception) -> Delivery:
    """The courier itself failed."""
    words = f"a fault of ours: {type(error).__name__}: {error}"
    outcome = Outcome(Result.DEFERRED, Stage.LOCAL, words, status="4.3.0")
    return Delivery((Attempt(now, now, "", route, "", tuple((r.index, outcome) for r in job.recipients)),))
