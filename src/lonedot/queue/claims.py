"""When the spool is asked for messages, and for which: what is due by its time, and what waits for a lane, in turns.

Rules: no more is claimed than may wait in memory. One question at a time is out. What is at work has its lease renewed
before anything is claimed: the machine may have slept, and nothing is to be claimed twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from lonedot.queue.courier import Observer
from lonedot.queue.lanes import LaneState
from lonedot.queue.pace import PaceState
from lonedot.queue.work import Desk, Job, Lanes, Spawn
from lonedot.spool.interface import Claim, Spool, SpoolFault
from lonedot.terms.clock import Clock

__all__ = ["LEASE_SECONDS", "Claims"]

LEASE_SECONDS = 600.0
CLAIM_BATCH = 200
CLAIM_AGAIN_SECONDS = 5.0
LOOK_AGAIN_SECONDS = 60.0
"""An empty queue is looked at again: what made it look empty may have been the disk."""


class Claims:
    """Of one scheduler."""

    def __init__(
        self,
        spool: Spool,
        observer: Observer,
        clock: Clock,
        owner: str,
        desk: Desk,
        spawn: Spawn,
        take: Callable[[Claim, float, bool], None],
    ) -> None:
        """`take` is given each claim, the time by which it was due, and whether it was claimed for a lane."""
        self._spool = spool
        self._observer = observer
        self._clock = clock
        self._owner = owner
        self._desk = desk
        self._spawn = spawn
        self._take = take
        self.parked: Lanes = {}
        """Lanes for which messages wait in the spool; the one that was asked for last stands last."""
        self._is_turn_of_lanes = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._renewal: asyncio.TimerHandle | None = None
        self._is_asking = False
        self._was_kicked = False
        """Somebody asked to look at the spool while it was being asked."""
        self.may_be_due = True
        """Something due may lie unclaimed in the spool."""

    def start(self) -> None:
        self._renew()
        self.pump()

    def stop(self) -> None:
        for timer in (self._timer, self._renewal):
            if timer is not None:
                timer.cancel()

    def look(self) -> None:
        """Something in the spool may be due."""
        self.may_be_due = True
        self._was_kicked = self._is_asking
        self.pump()

    def pump_low(self) -> None:
        """Look at the spool when something may lie there and little waits in memory."""
        if self.may_be_due and self._desk.is_low:
            self.pump()

    def pump(self) -> None:
        """Claim what is due when there is room, and set the timer for what is due later."""
        if self._desk.is_stopping or self._is_asking:
            return
        now = self._clock.now()
        lane = self._hungry(now) if self.parked else None
        is_due = self._is_due(now)
        if lane is not None and (self._is_turn_of_lanes or not is_due):
            self._is_turn_of_lanes = False
            del self.parked[lane.key]
            self.parked[lane.key] = lane
        elif is_due:
            self._is_turn_of_lanes = True
            lane = None
        else:
            return
        self._is_asking = True
        self._spawn(self._claim(now, lane))

    def wants(self, state: LaneState[Job], now: float) -> bool:
        """A lane can take what waits for it in the spool."""
        if state.pace.state is PaceState.OPEN:
            return len(state) < min(2 * state.pace.window, self._desk.room)
        return not state.pace.rests(now) and not len(state)

    def wake_at(self, at: float) -> None:
        """Look at the spool at that time."""
        if self._desk.is_stopping or (self._timer is not None and self._timer_at <= at):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        delay = min(max(at - self._clock.now(), 0.0), 3600.0)
        self._timer = asyncio.get_running_loop().call_later(delay, self._awake)

    def _is_due(self, now: float) -> bool:
        """Something in the spool is due by its time, and there is room for it."""
        if not self._desk.has_room_for_due:
            return False
        due = self._spool.next_due()
        if due is None:
            self.may_be_due = False
            self.wake_at(now + LOOK_AGAIN_SECONDS)
            return False
        if due > now:
            self.may_be_due = False
            self.wake_at(due)
            return False
        return True

    def _hungry(self, now: float) -> LaneState[Job] | None:
        """The next lane that can take what waits for it in the spool."""
        for state in self.parked.values():
            if self.wants(state, now):
                return state
            if state.pace.state is PaceState.BACKING_OFF and state.pace.until > now:
                self.wake_at(state.pace.until)
        return None

    async def _claim(self, now: float, lane: LaneState[Job] | None) -> None:
        limit, key, parks = CLAIM_BATCH, "", 0
        if lane is not None:
            key, parks = lane.key, lane.parks
            # No more than it will soon use: what it cannot take after all goes back with a write for each.
            soon = int(4 * lane.pace.window) if lane.pace.state is PaceState.OPEN else 1
            limit = max(1, min(CLAIM_BATCH, soon, self._desk.room - len(lane)))
        try:
            if self._desk.works:
                # The machine may have slept: what is at work here must not be claimed a second time.
                await self._spool.renew(self._owner, now + LEASE_SECONDS)
            claims = await self._spool.claim(self._owner, now, LEASE_SECONDS, limit, key)
        except Exception as error:  # of any kind: a queue that nobody looks at any more would be worse
            self._is_asking = self._was_kicked = False
            self._observer.spool_failed("claim", error)
            self.wake_at(now + CLAIM_AGAIN_SECONDS)
            return
        self._is_asking = False
        if lane is not None and len(claims) < limit and lane.parks == parks and not lane.parkings:
            self.parked.pop(key, None)
        for claim in claims:
            self._take(claim, now, lane is not None)
        was_kicked, self._was_kicked = self._was_kicked, False
        if claims or was_kicked or lane is not None:
            self.pump()
        else:
            self.wake_at(now + CLAIM_AGAIN_SECONDS)

    def _awake(self) -> None:
        self._timer = None
        self.may_be_due = True
        self.pump()

    def _renew(self) -> None:
        """Keep the lease of everything held, three times per lease."""
        if self._desk.is_stopping:
            return
        if self._desk.works:
            self._spawn(self._renewed())
        self._renewal = asyncio.get_running_loop().call_later(LEASE_SECONDS / 3, self._renew)

    async def _renewed(self) -> None:
        try:
            await self._spool.renew(self._owner, self._clock.now() + LEASE_SECONDS)
        except SpoolFault as error:
            self._observer.spool_failed("renew", error)
