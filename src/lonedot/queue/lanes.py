"""Lanes: what waits in memory for one next hop, and in which order it is taken. No clock, nothing asynchronous.

A lane belongs to a route and a destination. Rules: no lane takes more of the memory than the others leave to it; large
messages take no more than half of what a hop is given, so that small ones go past them; within a size, what came first
goes first.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, Protocol, TypeVar

import msgspec

from lonedot.queue.pace import Pace, PaceState, Rate
from lonedot.queue.retry import RetrySchedule

__all__ = ["LARGE", "HopStatus", "Lane", "LaneState", "key_of", "parts_of"]

LARGE = 1 << 20
"""Octets from which a message is large."""


class Lane(msgspec.Struct, frozen=True):
    """The lanes of a route: how many messages of each may be at work, and when to try again."""

    name: str
    active_limit: int
    schedule: RetrySchedule
    rate: Rate | None = None
    """For each next hop."""
    has_many: bool = True
    """There is a lane for each of many destinations; else there is one."""


class HopStatus(msgspec.Struct, frozen=True):
    """A next hop, for people."""

    route: str
    destination: str
    """Empty: the hosts of the route."""
    state: str
    concurrency: int
    """Messages that may be at work."""
    limit: int
    active: int
    ready: int
    parked: int
    """Messages in the spool that wait for it."""
    failures: int
    next_try_at: float
    """0: it is not left alone."""
    reason: str
    """What was met at the last try, in the remote's words where it spoke."""


def key_of(route: str, destination: str) -> str:
    """The name of a lane in the spool."""
    return f"{route}\t{destination}" if destination else route


def parts_of(key: str) -> tuple[str, str]:
    """Route and destination of a lane in the spool."""
    route, _, destination = key.partition("\t")
    return route, destination


class Sized(Protocol):
    """What waits in a lane."""

    size: int


Job = TypeVar("Job", bound=Sized)


class LaneState(Generic[Job]):
    """One lane."""

    __slots__ = (
        "_large",
        "_small",
        "_taken",
        "active",
        "active_large",
        "destination",
        "key",
        "lane",
        "pace",
        "parkings",
        "parks",
        "slot_timer_is_set",
    )

    def __init__(self, lane: Lane, destination: str) -> None:
        self.lane = lane
        self.destination = destination
        self.key = key_of(lane.name, destination)
        self.pace = Pace(lane.active_limit, lane.rate)
        self._small: deque[tuple[int, Job]] = deque()
        self._large: deque[tuple[int, Job]] = deque()
        self._taken = 0
        self.active = 0
        self.active_large = 0
        self.parkings = 0
        """Messages on their way back to the spool."""
        self.parks = 0
        """Messages that were given back for this lane, ever."""
        self.slot_timer_is_set = False

    def __len__(self) -> int:
        return len(self._small) + len(self._large)

    @property
    def is_idle(self) -> bool:
        """Nothing is at work, ready, or on its way."""
        return not (self.active or self.parkings or len(self))

    def take(self, lane: Lane) -> None:
        """The settings of another configuration."""
        self.lane = lane
        self.pace.take(lane.active_limit, lane.rate)

    def status(self, parked: int) -> HopStatus:
        pace = self.pace
        rests = pace.state is PaceState.BACKING_OFF
        last = pace.last
        words = "" if last is None else last.reason
        if last is not None and last.reply is not None:
            words = f"{words}: {last.reply.text}"
        return HopStatus(
            self.lane.name,
            self.destination,
            pace.state.value,
            int(pace.window),
            self.lane.active_limit,
            self.active,
            len(self),
            parked,
            pace.failures,
            pace.until if rests else 0.0,
            words,
        )

    def put(self, job: Job) -> None:
        self._taken += 1
        (self._large if job.size >= LARGE else self._small).append((self._taken, job))

    def next(self) -> Job | None:
        """The next one to be sent; None when only large ones wait, and enough of those are at work."""
        small, large = self._small, self._large
        is_room = self.active_large < max(1, int(self.pace.window) // 2)
        if large and is_room and (not small or large[0][0] < small[0][0]):
            return large.popleft()[1]
        return small.popleft()[1] if small else None

    def clear(self) -> list[Job]:
        """Everything that waits, in order; the lane is empty then."""
        jobs = [job for _, job in sorted([*self._small, *self._large], key=lambda pair: pair[0])]
        self._small.clear()
        self._large.clear()
        return jobs

    def began(self, job: Job) -> None:
        self.active += 1
        self.active_large += job.size >= LARGE

    def ended(self, job: Job) -> None:
        self.active -= 1
        self.active_large -= job.size >= LARGE
