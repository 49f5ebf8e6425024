"""Time is passed in, so that retry, expiry and leases can be tested without waiting."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Clock"]


class Clock(Protocol):
    """Seconds. `now` is wall-clock time since 1970 (UTC); `monotonic` never steps back."""

    def now(self) -> float: ...

    def monotonic(self) -> float: ...
