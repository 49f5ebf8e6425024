"""The scheduler: takes claims, hands them to a courier by route, and settles what comes of them.

A fresh message is offered in memory by the acceptance that committed it; everything else is claimed from the spool
when it is due (`claims`). What is held in memory is bounded (`work`): beyond that, messages wait in the spool
unclaimed. Outcomes become settlements in `conclusions`, and are handed to the spool by `settlements`; messages whose
sinks are still to be called go through `preparation` first.

Rules: a message in work is noted as in flight, so that one that kills the relay is found. A lane whose next hop is left
alone keeps nothing in memory.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec

from lonedot.queue.claims import LEASE_SECONDS, Claims
from lonedot.queue.conclusions import Conclusions
from lonedot.queue.courier import Courier, Delivery, Observer, Reporter, our_fault
from lonedot.queue.failure import Failure, failure_of
from lonedot.queue.lanes import HopStatus, Lane, LaneState, parts_of
from lonedot.queue.lanes import key_of as lane_key
from lonedot.queue.pace import Rate
from lonedot.queue.plan import conclude, group_by_route, no_route
from lonedot.queue.preparation import Ending, Preparation
from lonedot.queue.retry import RetrySchedule
from lonedot.queue.settlements import Settlements
from lonedot.queue.transport import Preparer
from lonedot.queue.work import Desk, Job, Lanes, Work
from lonedot.spool.interface import (
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
from lonedot.terms.outcome import Outcome, Result

__all__ = ["Scheduler"]

LANES_KEPT = 5000
"""Lanes that are remembered while nothing is done for them, and lanes for which messages are set aside."""
FULL_SECONDS = 30.0
"""A recipient of several, whose lane has no room, is looked at again after this."""


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
        turn: Callable[[str, Rate], float] | None = None,
    ) -> None:
        """`preparer` is asked about messages in transport; without one they are held. `destination` gives, by the name
        of a route and a domain, what lanes of that route are told apart by. `turn` takes the next turn of a lane with
        a rate that other workers share: the seconds to wait for it, 0 when it is taken.
        """
        self._spool = spool
        self._courier = courier
        self._reporter = reporter
        self._observer = observer
        self._destination = destination
        self._turn = turn
        self._choose = choose
        self._clock = clock
        self.owner = owner
        self._jitter = jitter
        self._desk = desk = Desk()
        self._settlements = Settlements(spool, observer, self._settled)
        self._conclusions = Conclusions(reporter, observer, clock.now, desk, self._settle, self._spawn)
        self._claims = Claims(spool, observer, clock, owner, desk, self._spawn, self._enqueue)
        self._preparation = Preparation(
            spool, preparer, reporter, observer, clock.now, desk, self._settle, self._spawn, self._prepared
        )
        self._take_routes(lanes)
        self._lanes: Lanes = {}
        self._blocked: Lanes = {}
        """Lanes that wait for others to end something."""
        self._tasks: set[asyncio.Future[None]] = set()
        self._idle: asyncio.Event = asyncio.Event()
        self._idle.set()

    # -- taking work -------------------------------------------------------------------------------

    @property
    def has_room(self) -> bool:
        """True while a fresh message may be offered; else it is accepted without an owner and claimed later."""
        if self._desk.room > 0 and not self._desk.is_stopping:
            return True
        self._claims.may_be_due = True
        return False

    @property
    def active(self) -> int:
        """Messages at work or ready."""
        return len(self._desk.works)

    def lease_until(self) -> float:
        return self._clock.now() + LEASE_SECONDS

    def start(self) -> None:
        """Begin to claim what is due, and to renew the lease of what is held."""
        try:
            for key in self._spool.lanes():
                route, destination = parts_of(key)
                # Of a route that is gone, too: its messages are to be told so.
                lane = self._routes.get(route) or Lane(route, 1, RetrySchedule())
                self._claims.parked[key] = self._lanes.get(key, LaneState(lane, destination))
                if route in self._routes:
                    self._lanes[key] = self._claims.parked[key]
        except SpoolFault as error:
            self._observer.spool_failed("lanes", error)
        self._claims.start()

    def offer(self, claim: Claim) -> None:
        """Take a message that was accepted with us as its owner."""
        if not self._desk.takes_octets_of(claim):
            claim = Claim(claim.message, claim.epoch)
        self._enqueue(claim, self._clock.now())

    def kick(self) -> None:
        """Look at the spool now: a person released or retried something. No hop is left alone for now."""
        now = self._clock.now()
        for state in (*self._lanes.values(), *self._claims.parked.values()):
            state.pace.try_now(now)
        self._claims.look()

    def forget(self, ids: Sequence[MessageId]) -> None:
        """A person held or deleted these: start nothing more for them (what is on the wire goes on)."""
        for id in ids:
            work = self._desk.works.get(id)
            if work is not None:
                work.forgotten = True

    def take_lanes(self, lanes: Sequence[Lane]) -> None:
        """The lanes of another configuration, in one step: what is ready is routed anew, what is with the courier ends
        in the lane that it began in."""
        self._take_routes(lanes)
        ready: list[Job] = []
        for key, state in tuple(self._lanes.items()):
            ready += state.clear()
            lane = self._routes.get(state.lane.name)
            state.pace.try_now(self._clock.now())  # what was in trouble may lead elsewhere now
            if lane is None:
                del self._lanes[key]
            else:
                state.take(lane)
        self._desk.ready -= len(ready)
        for job in ready:
            job.work.open -= 1
            self._to_lanes(job.work, job.recipients, self._clock.now(), is_claimed=True)
        self._claims.look()

    def _take_routes(self, lanes: Sequence[Lane]) -> None:
        self._routes = {lane.name: lane for lane in lanes}
        self._desk.is_spread = len(lanes) > 1 or any(lane.has_many for lane in lanes)

    def hops(self) -> tuple[HopStatus, ...]:
        """Next hops of which something is known, those in trouble first."""
        found = [
            state.status(self._count_parked(key))
            for key, state in {**self._claims.parked, **self._lanes}.items()
        ]
        return tuple(
            sorted(found, key=lambda hop: (not hop.failures, -hop.parked, hop.route, hop.destination))
        )

    def _count_parked(self, key: str) -> int:
        if key not in self._claims.parked:
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
        self._desk.is_stopping = True
        self._claims.stop()
        for state in self._lanes.values():
            for job in state.clear():
                job.work.open -= 1
                self._let_go(job.work)
        for work in self._preparation.clear():
            self._let_go(work)
        self._desk.ready = 0
        for work in tuple(self._desk.works.values()):
            self._conclusions.report_owed(work)
        if self._desk.works:
            self._idle.clear()
            try:
                await asyncio.wait_for(self._idle.wait(), drain_seconds)
            except TimeoutError:
                pass
        self._settlements.try_refused()
        await asyncio.sleep(0)  # a report that was begun just now must be under way to be told that it ends
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- to the courier ----------------------------------------------------------------------------

    def _enqueue(self, claim: Claim, now: float, is_of_lane: bool = False) -> None:
        if self._desk.is_stopping:
            return  # it stays in the spool; the claim ends with the spool's own end
        work = self._desk.add(claim)
        if claim.message.transport is not None:
            self._preparation.put(work)
            return
        self._to_lanes(work, claim.message.recipients, now, is_of_lane)

    def _prepared(self, work: Work, ending: Ending) -> None:
        """The sinks of a message in transport have been called, or not all of them."""
        if ending is Ending.GIVEN_BACK or self._desk.is_stopping:
            self._let_go(work)  # when the relay stops, the claim ends with the spool's own end
        elif ending is Ending.INTERRUPTED:
            self._nothing_due(work)
        else:
            self._to_lanes(work, work.claim.message.recipients, self._clock.now())
        self._claims.pump_low()

    def _to_lanes(
        self, work: Work, recipients: Sequence[RecipientState], now: float, is_claimed: bool = False
    ) -> None:
        """Those of the recipients that are due. `is_claimed`: those whose hop could not be reached are."""
        message = msgspec.structs.replace(work.claim.message, recipients=tuple(recipients))
        jobs: list[tuple[LaneState[Job] | None, str, Job]] = []
        for route, group in group_by_route(message, now, self._choose, is_claimed).items():
            lane = self._routes.get(route) if route is not None else None
            if lane is None:
                jobs.append((None, route or "", Job(work, group)))
            elif not lane.has_many:
                jobs.append((self._lane(lane, ""), lane.name, Job(work, group)))
            else:
                parts: dict[str, list[RecipientState]] = {}
                for recipient in group:
                    destination = self._destination(lane.name, recipient.recipient.address.domain)
                    parts.setdefault(destination, []).append(recipient)
                for destination, part in parts.items():
                    jobs.append((self._lane(lane, destination), lane.name, Job(work, tuple(part))))
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

    def _lane(self, lane: Lane, destination: str) -> LaneState[Job]:
        key = lane_key(lane.name, destination)
        state = self._lanes.get(key)
        if state is None:
            state = self._claims.parked.get(key, LaneState(lane, destination))
            if len(self._lanes) >= LANES_KEPT:
                # Of a hop in trouble only what is known of it is lost, and that is soon known again.
                self._lanes = {
                    k: s for k, s in self._lanes.items() if not s.is_idle or k in self._claims.parked
                }
            self._lanes[key] = state
        return state

    def _join(self, state: LaneState[Job], job: Job, now: float) -> None:
        """To wait in memory, or back to the spool."""
        if state.pace.rests(now) or (self._desk.is_spread and len(state) >= self._desk.room):
            self._park(state, job, now)
            return
        state.put(job)
        self._desk.ready += 1
        self._drive(state)

    def _park(self, state: LaneState[Job], job: Job, now: float) -> None:
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
            r
            if last is None or r.last is not None
            else msgspec.structs.replace(r, last=last, route=state.lane.name)
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
            self._conclusions.report_owed(work)

    def _may_set_aside(self, state: LaneState[Job]) -> bool:
        return state.key in self._claims.parked or len(self._claims.parked) < LANES_KEPT

    def _drop(self, work: Work) -> None:
        """A job of a message that a person held or deleted."""
        work.open -= 1
        if not work.open and not work.reporting:
            # Else a claim that a settlement kept for this job would be renewed for ever.
            if work.owed is not None:
                self._conclusions.report_owed(work)
            else:
                self._nothing_due(work)

    def _nothing_due(self, work: Work) -> None:
        """A claim of which nothing is to be done (its times changed meanwhile, or a person did): give it back."""
        message = work.claim.message
        state = MessageState.QUEUED if work.waiting else MessageState.FINISHED
        settlement = Settlement(message.id, work.claim.epoch, state=state, at=self._clock.now())
        self._settle(work, settlement)

    def _drive(self, state: LaneState[Job]) -> None:
        """Hand ready jobs to the courier while the lane has room."""
        pace = state.pace
        while len(state) and not self._desk.is_stopping:
            if self._desk.is_spread and state.active >= self._desk.room_at_work:
                self._blocked[state.key] = state
                return
            now = self._clock.now()
            if not pace.may_start(state.active, now):
                self._wait_for_slot(state, pace.slot_at(now) - now)
                return
            rate = state.lane.rate
            if rate is not None and self._turn is not None and (seconds := self._turn(state.key, rate)) > 0:
                self._wait_for_slot(state, seconds)
                return
            job = state.next()
            if job is None:
                return
            self._desk.ready -= 1
            work = job.work
            if work.forgotten or not self._spool.owns(work.claim.message.id, work.claim.epoch):
                self._drop(work)
                continue
            pace.started(now)
            state.began(job)
            self._desk.active += 1
            self._spool.in_flight(work.claim.message.id)
            try:
                self._courier.deliver(
                    work.claim,
                    job.recipients,
                    state.lane.name,
                    lambda delivery, job=job: self._done(job, state, delivery),  # type: ignore[misc]
                )
            except Exception as error:
                self._done(job, state, our_fault(job.recipients, state.lane.name, self._clock.now(), error))

    def _wait_for_slot(self, state: LaneState[Job], seconds: float) -> None:
        """A rate may allow no more for now: go on when it does."""
        if seconds <= 0 or state.slot_timer_is_set:
            return
        state.slot_timer_is_set = True
        asyncio.get_running_loop().call_later(seconds, self._slot, state)

    def _slot(self, state: LaneState[Job]) -> None:
        state.slot_timer_is_set = False
        self._drive(state)

    def _done(
        self, job: Job, state: LaneState[Job] | None, delivery: Delivery, was_sent: bool = True
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
            self._desk.active -= 1
            is_unreachable = self._judge(state, delivery, now)
            self._go_on(state, job, outcomes, delivery)
        self._observer.attempted(claim, delivery)
        lane = ""
        if state is not None and is_unreachable and self._may_set_aside(state):
            lane = state.key
        self._conclusions.conclude(work, delivery, conclusion, lane)
        if state is None:
            self._claims.pump_low()
            return
        if is_unreachable and was_sent:
            # What waits in memory waits in the spool from now on.
            jobs = state.clear()
            self._desk.ready -= len(jobs)
            for waiting in jobs:
                self._park(state, waiting, now)
            self._claims.wake_at(state.pace.until)
        self._drive(state)
        while self._blocked and self._desk.room_at_work > 0:
            key = next(iter(self._blocked))
            self._drive(self._blocked.pop(key))
            if key in self._blocked:
                break
        if state.key in self._claims.parked and self._claims.wants(state, now):
            self._claims.pump()
        self._claims.pump_low()

    def _judge(self, state: LaneState[Job], delivery: Delivery, now: float) -> bool:
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
        self, state: LaneState[Job], job: Job, outcomes: Mapping[int, Outcome], delivery: Delivery
    ) -> None:
        """A courier tries so many at a time: the others go when this is durable."""
        work = job.work
        if (
            not 0 < len(outcomes) < len(job.recipients)
            or delivery.hold
            or work.forgotten
            or self._desk.is_stopping
        ):
            return
        work.open += 1
        rest = tuple([r for r in job.recipients if r.index not in outcomes])
        work.rest.append((state, Job(work, rest)))

    # -- settling ----------------------------------------------------------------------------------

    def _settle(self, work: Work, settlement: Settlement) -> None:
        if settlement.lane and (state := self._lanes.get(settlement.lane)) is not None:
            state.parkings += 1
        self._settlements.put(work, settlement)

    def _settled(self, work: Work, settlement: Settlement) -> None:
        """It is durable: what waited for that goes on."""
        for recipient in settlement.recipients:
            if recipient.next_at:
                self._claims.wake_at(recipient.next_at)
        if work.rest and not work.settling:
            rest, work.rest = work.rest, []
            for lane, job in rest:
                if self._desk.is_stopping:
                    work.open -= 1
                else:
                    self._join(lane, job, self._clock.now())
        if settlement.lane:
            self._set_aside(settlement.lane)
        self._let_go(work)
        if settlement.spawned:
            self._claims.look()

    def _set_aside(self, key: str) -> None:
        """A message waits in the spool for this lane."""
        state = self._lanes.get(key, self._claims.parked.get(key))
        if state is None:
            return  # of a route that is gone: it is found when it is due
        state.parkings -= 1
        state.parks += 1
        self._claims.parked[key] = state
        now = self._clock.now()
        if self._claims.wants(state, now):
            self._claims.pump()
        elif state.pace.until > now:
            self._claims.wake_at(state.pace.until)

    def _let_go(self, work: Work) -> None:
        """Drop a work that has nothing out any more."""
        if work.is_busy:
            return
        self._conclusions.drop_owed(work)
        if self._desk.remove(work):
            self._spool.landed(work.id)
        if self._desk.is_stopping and not any(other.is_busy for other in self._desk.works.values()):
            self._idle.set()

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
