"""How much one next hop is given at a time, and when it is left alone. No clock: times are passed in.

Rules. A hop begins with a few messages at work and gets one more with each success, until the first failure; from
there on one more for as many successes as are at work. A session that is lost halves it. A hop that cannot be reached
is left alone for a while that grows with each failure, as the route's schedule does; then one message is sent ahead,
and what it meets holds for all. Any answer to a message shows that the hop can be reached.
"""

from __future__ import annotations

import enum

import msgspec

from lonedot.queue.retry import RetrySchedule
from lonedot.terms.outcome import Outcome

__all__ = ["BACK_OFF_SECONDS", "START", "UNITS", "Pace", "PaceState", "Rate"]

UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
"""In which rates are told, in seconds."""
START = 4.0
"""Messages at work for a hop of which nothing is known."""
BACK_OFF_SECONDS = 900.0
"""A hop is asked at least this often, however long the waits of the schedule."""
BURST_SECONDS = 1.0
"""What a rate allows in this time may go at once."""


class PaceState(enum.Enum):
    OPEN = "open"
    BACKING_OFF = "backing off"
    PROBING = "probing"
    """One message is out to see whether the hop can be reached again."""


class Rate(msgspec.Struct, frozen=True):
    """No more than `count` messages in `seconds`, evenly spread."""

    count: int
    seconds: float

    @property
    def text(self) -> str:
        """As it is written in the configuration."""
        unit = next((unit for unit, length in UNITS.items() if length == self.seconds), f"{self.seconds:g}s")
        return f"{self.count}/{unit}"

    @property
    def interval(self) -> float:
        """Seconds from one message to the next."""
        return self.seconds / self.count

    @property
    def burst(self) -> float:
        """Seconds whose messages may go at once."""
        return max(0.0, BURST_SECONDS - self.interval)


class Pace:
    """Of one next hop."""

    __slots__ = (
        "_is_starting",
        "_limit",
        "_rate",
        "_slot_at",
        "failures",
        "last",
        "state",
        "until",
        "window",
    )

    def __init__(self, limit: int, rate: Rate | None = None) -> None:
        """`limit`: messages at work at most."""
        self.window = START
        """Messages that may be at work; 1 … the limit."""
        self.take(limit, rate)
        self._slot_at = 0.0
        self._is_starting = True
        self.state = PaceState.OPEN
        self.until = 0.0
        """Left alone until then."""
        self.failures = 0
        """In a row, without any answer."""
        self.last: Outcome | None = None
        """What was met when it could not be reached."""

    def take(self, limit: int, rate: Rate | None) -> None:
        """Other settings; what is known of the hop stays."""
        self._limit = float(max(1, limit))
        self._rate = rate
        self.window = min(self.window, self._limit)

    def may_start(self, active: int, now: float) -> bool:
        """True when one more message may be sent, with so many at work."""
        if self._rate is not None and now < self.slot_at(now):
            return False
        match self.state:
            case PaceState.OPEN:
                return active < int(self.window)
            case PaceState.BACKING_OFF:
                return now >= self.until
            case PaceState.PROBING:
                return False

    def rests(self, now: float) -> bool:
        """True when messages for it are not even to wait in memory."""
        return self.state is PaceState.PROBING or (self.state is PaceState.BACKING_OFF and now < self.until)

    def slot_at(self, now: float) -> float:
        """When the rate allows the next message; `now` or earlier: at once."""
        if self._rate is None:
            return now
        # A clock that was set back delays one message at most.
        burst = self._rate.burst
        self._slot_at = min(self._slot_at, now + burst + self._rate.interval)
        return self._slot_at - burst

    def started(self, now: float) -> None:
        """A message goes out."""
        if self._rate is not None:
            self._slot_at = max(self._slot_at, now) + self._rate.interval
        if self.state is PaceState.BACKING_OFF:
            self.state = PaceState.PROBING

    def answered(self) -> None:
        """The hop spoke about a message, whatever it said."""
        self.state = PaceState.OPEN
        self.failures = 0
        self.last = None
        if self.window < self._limit:
            self.window = min(self._limit, self.window + (1.0 if self._is_starting else 1.0 / self.window))

    def lost(self) -> None:
        """A session ended in the middle of a message."""
        self.state = PaceState.OPEN
        self._shrink()

    def unreachable(self, now: float, schedule: RetrySchedule, random: float, last: Outcome) -> None:
        """No session could be opened, and no other works."""
        self.last = last
        if self.state is PaceState.BACKING_OFF:
            return  # of several that went out together, the first has said it
        self.failures += 1
        self._shrink()
        self.state = PaceState.BACKING_OFF
        self.until = now + min(schedule.wait_seconds(self.failures, random), BACK_OFF_SECONDS)

    def undecided(self, now: float) -> None:
        """A message came back without having met the hop: if it was sent ahead, another one is."""
        if self.state is PaceState.PROBING:
            self.state = PaceState.BACKING_OFF
            self.until = now

    def try_now(self, now: float) -> None:
        """A person wants to see it tried."""
        if self.state is PaceState.BACKING_OFF:
            self.until = min(self.until, now)

    def _shrink(self) -> None:
        self._is_starting = False
        self.window = max(1.0, self.window / 2)
