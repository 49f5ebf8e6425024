"""How many workers a configuration means on this machine."""

from __future__ import annotations

import math
import os
from pathlib import Path

from lonedot.config.model import Config
from lonedot.terms.ids import MAX_SHARDS

__all__ = ["count_workers", "usable_cores"]

_QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Of the control group that we run in (cgroup v2): microseconds of the processor, in so many."""


def count_workers(config: Config) -> int:
    """As many as it says; of `auto`, one for each usable core."""
    workers = config.server.workers
    return workers if isinstance(workers, int) else usable_cores()


def usable_cores(quota: Path = _QUOTA) -> int:
    """Cores that this process may use, by affinity and by the limit of its control group; 1 to 32."""
    cores = len(os.sched_getaffinity(0))
    try:
        limit, period = quota.read_text().split()
        cores = min(cores, math.ceil(int(limit) / int(period)))
    except (OSError, ValueError, ZeroDivisionError):
        pass  # no such file, or `max`
    return max(1, min(cores, MAX_SHARDS))
