"""Which worker this is, of how many, and what follows from that: its shards, its share of limits.

Rules:
1. Worker `i` of `N` has shard `i`. A shard with a number of `N` or more is adopted by worker `number % N`, which sends
   on what lies in it and puts nothing new there.
2. What there can be only one of belongs to the first worker: Pickup, the socket of local programs, the metrics
   endpoint, the registry, the standing of bindings, the history of evidence.
"""

from __future__ import annotations

import math
import mmap
import shutil
from collections.abc import Iterable

import msgspec

from lonedot.spool.interface import SpoolPaths
from lonedot.spool.lock import SpoolLock

__all__ = ["Post", "remove_shard", "shards_of"]


class Post(msgspec.Struct, frozen=True):
    """The place of one worker among all."""

    number: int = 0
    """From 0."""
    count: int = 1
    shared: mmap.mmap | None = None
    """Memory that all workers share, and that outlives them; None without a parent."""
    lock: SpoolLock | None = None
    """The lock of the spool, held together with the parent; None: the worker takes it itself."""
    shared_file: int = -1
    """The file of the shared memory, by which it is locked (`leases`); -1: there is none."""

    @property
    def is_first(self) -> bool:
        return self.number == 0

    @property
    def others(self) -> tuple[int, ...]:
        """Numbers of the other workers."""
        return tuple(number for number in range(self.count) if number != self.number)

    def share_of(self, limit: int) -> int:
        """Its part of a limit that holds for the whole relay."""
        return math.ceil(limit / self.count)


def shards_of(post: Post, there: Iterable[int]) -> tuple[int, ...]:
    """Numbers of the shards that a worker has: its own, then those it adopts of those that are there."""
    adopted = [one for one in sorted(there) if one >= post.count and one % post.count == post.number]
    return (post.number, *adopted)


def remove_shard(paths: SpoolPaths, number: int) -> None:
    """Remove a shard without messages, closed before. Under another name first, so that half of one is never found.

    Raises:
        OSError: it cannot be moved away.
    """
    folder = paths.shard(number)
    gone = folder.with_name(f"{number}.gone")
    shutil.rmtree(gone, ignore_errors=True)
    folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)
