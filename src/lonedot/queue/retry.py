"""When a deferred recipient is tried again, when its sender is told, and when we give up. Pure arithmetic."""

from __future__ import annotations

import msgspec

__all__ = ["RetrySchedule"]


class RetrySchedule(msgspec.Struct, frozen=True):
    """The schedule of a route. The last wait repeats; `jitter` spreads each wait by ± that share."""

    minutes: tuple[float, ...] = (1, 5, 15, 30, 60, 240)
    expire_seconds: float = 2 * 86400
    delay_notice_seconds: float = 4 * 3600
    jitter: float = 0.1

    def wait_seconds(self, attempts: int, random: float) -> float:
        """The wait after attempt number `attempts` (1 is the first); `random` is 0 … 1 and shifts it by the jitter."""
        minutes = self.minutes[min(attempts, len(self.minutes)) - 1]
        return minutes * 60 * (1 + self.jitter * (2 * random - 1))

    def next_at(self, attempts: int, accepted_at: float, now: float, random: float) -> float | None:
        """When to try again; None when the message has expired. The last try is never later than the expiry."""
        ends_at = accepted_at + self.expire_seconds
        if now >= ends_at:
            return None
        return min(now + self.wait_seconds(attempts, random), ends_at)

    def wants_delay_notice(self, accepted_at: float, now: float) -> bool:
        """True from the age at which the sender is told that delivery is late."""
        return now - accepted_at >= self.delay_notice_seconds
