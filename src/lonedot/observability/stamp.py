"""The time as it stands in a log line. The part above the millisecond is made once a second."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Stamp"]


class Stamp:
    """Formats the time of a clock (seconds since 1970)."""

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self._clock = clock or time.time
        self._second = -1
        self._utc = ""
        self._local = ""

    def utc(self) -> str:
        """`2026-11-22T12:31:32.123Z`"""
        now = self._clock()
        second = int(now)
        if second != self._second:
            self._turn(second)
        return f"{self._utc}{int((now - second) * 1000):03d}Z"

    def local(self) -> str:
        """`12:31:32`, in the zone of the machine."""
        second = int(self._clock())
        if second != self._second:
            self._turn(second)
        return self._local

    def _turn(self, second: int) -> None:
        self._second = second
        self._utc = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
        self._local = time.strftime("%H:%M:%S", time.localtime(second))
