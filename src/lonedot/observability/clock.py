"""The clock of the system, as `terms.clock.Clock`."""

from __future__ import annotations

import time

__all__ = ["SystemClock"]


class SystemClock:
    """Time as the system tells it. The functions of `time` themselves: a call costs nothing on top of them."""

    __slots__ = ()

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)
