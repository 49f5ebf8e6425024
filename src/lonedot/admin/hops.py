"""Next hops, each with what is at work for it, what waits for it, and why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from lonedot.admin.operations import Desk, Operation
from lonedot.admin.values import NoArguments
from lonedot.queue.lanes import HopStatus, parts_of
from lonedot.spool.interface import Filter, MessageState, RecipientStatus

__all__ = ["HOPS", "Hops", "order_by_trouble"]

UNKNOWN = "unknown"
"""The state of a hop while nobody sends anything."""


class Hops(msgspec.Struct, frozen=True):
    """What `lonedot queue hops` shows."""

    running: bool
    asked_at: float
    hops: tuple[HopStatus, ...]
    """Those in trouble first."""


async def list_hops(desk: Desk, _: NoArguments) -> Hops:
    """Next hops of which something is known; with the relay down, those for which messages are set aside."""
    now = desk.clock.now()
    if desk.hops is not None:
        return Hops(True, now, order_by_trouble(desk.hops()))
    found = [await _left(desk, lane) for lane in desk.spool.lanes()]
    return Hops(False, now, order_by_trouble(found))


def order_by_trouble(hops: Iterable[HopStatus]) -> tuple[HopStatus, ...]:
    """Those that could not be reached first, then those with most mail."""
    return tuple(
        sorted(
            hops, key=lambda hop: (not hop.failures, -(hop.parked + hop.ready), hop.route, hop.destination)
        )
    )


async def _left(desk: Desk, lane: str) -> HopStatus:
    """What the spool alone tells of a hop. Its last words are those that the newest of its messages met."""
    route, destination = parts_of(lane)
    chosen = Filter(states=(MessageState.QUEUED,), route=route, domain=destination, limit=1)
    words = _words(
        [
            words
            for row in await desk.spool.search(chosen)
            for _, status, words in row.recipients
            if status == RecipientStatus.WAITING.value
        ]
    )
    return HopStatus(route, destination, UNKNOWN, 0, 0, 0, 0, desk.spool.count_lane(lane), 0, 0.0, words)


def _words(found: Sequence[str]) -> str:
    return next((words for words in found if words), "")


HOPS = Operation("hops", NoArguments, Hops, list_hops)
