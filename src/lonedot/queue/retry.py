"""When a deferred recipient is tried again, when its sender is told, and when we give up. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from lonedot.queue.failure import WAITS, Failure
from lonedot.spool.interface import RecipientState
from lonedot.terms.envelope import Notify

__all__ = ["RetrySchedule"]

MINUTES: tuple[float, ...] = (1, 5, 15, 30, 60, 240)
"""Of a route that names none. With these, some classes of failure wait otherwise: see `failure.WAITS`."""


class RetrySchedule(msgspec.Struct, frozen=True):
    """The schedule of a route. The last wait repeats; `jitter` spreads each wait by ± that share."""

    minutes: tuple[float, ...] = MINUTES
    expire_seconds: float = 2 * 86400
    delay_notice_seconds: float = 4 * 3600
    jitter: float = 0.1

    def wait_seconds(self, attempts: int, random: float, failure: Failure = Failure.OTHER) -> float:
        """The wait after attempt number `attempts` (1 is the first); `random` is 0 … 1 and shifts it by the jitter."""
        waits = self.minutes if self.minutes != MINUTES else WAITS.get(failure, MINUTES)
        minutes = waits[min(attempts, len(waits)) - 1]
        return minutes * 60 * (1 + self.jitter * (2 * random - 1))

    def next_at(
        self,
        attempts: int,
        accepted_at: float,
        now: float,
        random: float,
        failure: Failure = Failure.OTHER,
    ) -> float | None:
        """When to try again; None when the message has expired. The last try is never later than the expiry."""
        ends_at = accepted_at + self.expire_seconds
        if now >= ends_at:
            return None
        return min(now + self.wait_seconds(attempts, random, failure), ends_at)

    def wants_delay_notice(self, accepted_at: float, now: float) -> bool:
        """True from the age at which the sender is told that delivery is late."""
        return now - accepted_at >= self.delay_notice_seconds

    def look_at(self, recipients: Iterable[RecipientState], accepted_at: float, now: float) -> float:
        """When a message that waits for its next hop is to be looked at all the same: to tell its sender of the delay,
        or because its time is over.
        """
        ends_at = accepted_at + self.expire_seconds
        notice_at = accepted_at + self.delay_notice_seconds
        if notice_at > now and any(_wants_notice(recipient) for recipient in recipients):
            return min(notice_at, ends_at)
        return ends_at

    def is_time_to_tell(self, recipients: Iterable[RecipientState], accepted_at: float, now: float) -> bool:
        """The time of a message is over, or its sender is to be told now that it is late."""
        if now >= accepted_at + self.expire_seconds:
            return True
        return self.wants_delay_notice(accepted_at, now) and any(_wants_notice(r) for r in recipients)


def _wants_notice(state: RecipientState) -> bool:
    """Its sender has not been told of a delay, and did not ask not to be (RFC 3461 §4.1)."""
    notify = state.recipient.notify
    return not state.delay_reported and (notify == Notify.UNSTATED or bool(notify & Notify.DELAY))
