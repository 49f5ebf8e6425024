"""The shards of one worker: its own, and those it adopted because there are fewer workers than before.

Rules:
1. All are opened under one lock. Nothing is put into an adopted shard but what its own messages bring forth.
2. An adopted shard in which there is nothing, not even history, is removed when it is opened.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from lonedot.app.workers import Post, remove_shard, shards_of
from lonedot.observability import log
from lonedot.observability.levels import LogLevel
from lonedot.spool.disk import Disk
from lonedot.spool.interface import Spool, SpoolPaths
from lonedot.spool.lock import SpoolLock
from lonedot.spool.recovery import Recovered
from lonedot.spool.shards import Shards
from lonedot.spool.sqlite import Policy, SqliteSpool, open_spool
from lonedot.terms.clock import Clock

__all__ = ["Custody", "open_custody"]


class Custody(msgspec.Struct, frozen=True):
    """What a worker has opened."""

    own: SqliteSpool
    """Takes what is accepted."""
    adopted: tuple[SqliteSpool, ...]
    whole: Spool
    """All of them as one."""
    lock: SpoolLock

    @property
    def shards(self) -> tuple[SqliteSpool, ...]:
        return (self.own, *self.adopted)

    @property
    def recovered(self) -> tuple[Recovered, ...]:
        """What the last end of the relay left behind, of each shard."""
        return tuple(shard.recovered for shard in self.shards)

    @property
    def fault(self) -> str:
        """Why nothing can be written at present; empty when it can."""
        return next((shard.fault for shard in self.shards if shard.fault), "")

    async def close(self) -> None:
        """Close all, then let the lock go. Raises SpoolFault."""
        try:
            await self.whole.close()
        finally:
            self.lock.release()


async def open_custody(
    paths: SpoolPaths,
    clock: Clock,
    policy: Policy,
    post: Post,
    disk: Disk | None,
    notice: Callable[[str], None],
) -> Custody:
    """Open the shards of a worker.

    Raises:
        SpoolLocked: another process has the spool.
        SpoolFault, OSError: a shard cannot be opened; none is left open.
    """
    lock = post.lock if post.lock is not None else SpoolLock(paths.lock)
    opened: list[SqliteSpool] = []
    try:
        for number in shards_of(post, paths.shards()):
            shard = open_spool(paths, clock, policy, shard=number, disk=disk, notice=notice, lock=lock)
            opened.append(shard)
            if number != post.number and not any(shard.counts().values()):
                opened.pop()
                await shard.close()
                _remove(paths, number)
    except BaseException:
        for shard in opened:
            await shard.close()
        lock.release()
        raise
    own, *adopted = opened
    for shard in adopted:
        log.event("shard.adopted", shard=shard.shard, worker=post.number)
    return Custody(own, tuple(adopted), Shards(opened) if adopted else own, lock)


def _remove(paths: SpoolPaths, number: int) -> None:
    try:
        remove_shard(paths, number)
    except OSError as error:
        log.event("shard.not-removed", LogLevel.WARNING, shard=number, words=str(error))
    else:
        log.event("shard.removed", shard=number)
