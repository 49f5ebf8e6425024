"""What several workers say of themselves, as one answer. Pure.

Rules: what one worker alone says stays as it is; in which order workers are put together, and in which groups, changes
nothing but the order of what has no order of its own. The first is worker 0: its name and version stand for all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import msgspec

from lonedot.admin.seeing import Broken, Door, Health, LogLine, LogLines, Screen, Waiting, order_hops
from lonedot.observability import metrics
from lonedot.queue.lanes import HopStatus
from lonedot.queue.pace import PaceState

__all__ = ["merge_health", "merge_hops", "merge_log_lines", "merge_screens"]

T = TypeVar("T")
K = TypeVar("K")

_REVISIONS = " / "


def merge_screens(parts: Sequence[Screen]) -> Screen:
    """One screen; counts are added up, of ages the oldest counts, of next tries the first."""
    first = parts[0]
    counts: dict[str, int] = {}
    for part in parts:
        for state, count in part.counts.items():
            counts[state] = counts.get(state, 0) + count
    revisions = {one for part in parts for one in part.revision.split(_REVISIONS) if one}
    return Screen(
        running=any(part.running for part in parts),
        asked_at=max(part.asked_at for part in parts),
        counts=counts,
        oldest_at=_first_time(part.oldest_at for part in parts),
        next_due=_first_time(part.next_due for part in parts),
        waiting=_merge_waiting(one for part in parts for one in part.waiting),
        looked_at=sum(part.looked_at for part in parts),
        broken=_merge_broken(one for part in parts for one in part.broken),
        hostname=first.hostname,
        version=first.version,
        revision=_REVISIONS.join(sorted(revisions)),
        workers=tuple(
            sorted((one for part in parts for one in part.workers), key=lambda one: (one.number, one.pid))
        ),
        doors=_merge_doors(one for part in parts for one in part.doors),
        hops=merge_hops(one for part in parts for one in part.hops),
        figures=metrics.merge(part.figures for part in parts),
        mailboxes=tuple(one for part in parts for one in part.mailboxes),
        missing=tuple(one for part in parts for one in part.missing),
    )


def merge_hops(hops: Iterable[HopStatus]) -> tuple[HopStatus, ...]:
    """Next hops with what all workers have for each; the one in most trouble says why and until when."""
    return order_hops(_merged(hops, lambda one: (one.route, one.destination), _both_hops))


def merge_log_lines(parts: Sequence[LogLines]) -> LogLines:
    """Lines by their time; within one worker as it wrote them."""
    last: dict[int, int] = {}
    for part in parts:
        for worker, number in part.last.items():
            last[worker] = max(number, last.get(worker, 0))
    lines = {(line.worker, line.number): line for part in parts for line in part.lines}
    return LogLines(tuple(sorted(lines.values(), key=place_of)), last)


def merge_health(parts: Sequence[Health]) -> Health:
    """The relay takes mail when none of those that run would leave a client waiting."""
    return Health(
        live=True,
        ready=all(part.ready for part in parts),
        why=tuple(dict.fromkeys(why for part in parts for why in part.why)),
        loop_lag_seconds=max(part.loop_lag_seconds for part in parts),
        last_commit_at=max(part.last_commit_at for part in parts),
        workers=sum(part.workers for part in parts),
    )


_STAMP = re.compile(r'(?:\{"at":")?([0-9][0-9T:.\-]{7,25})')


def place_of(line: LogLine) -> tuple[str, int, int]:
    """Where a line stands among those of all workers: both forms of the log begin with the time."""
    stamp = _STAMP.match(line.line)
    return stamp[1] if stamp is not None else "", line.worker, line.number


def _merged(values: Iterable[T], key: Callable[[T], K], both: Callable[[T, T], T]) -> list[T]:
    """One for each key."""
    found: dict[K, T] = {}
    for value in values:
        place = key(value)
        found[place] = both(found[place], value) if place in found else value
    return list(found.values())


def _first_time(times: Iterable[float]) -> float:
    """The least that is not 0."""
    return min((time for time in times if time), default=0.0)


def _merge_waiting(groups: Iterable[Waiting]) -> tuple[Waiting, ...]:
    def both(one: Waiting, other: Waiting) -> Waiting:
        example = min(one, other, key=lambda group: (group.example, group.command))
        return Waiting(
            one.state,
            one.reason,
            one.count + other.count,
            example.example,
            _first_time((one.next_at, other.next_at)),
            example.command,
        )

    found = _merged(groups, lambda one: (one.state, one.reason), both)
    return tuple(sorted(found, key=lambda one: (-one.count, one.state.value, one.reason)))


def _merge_broken(groups: Iterable[Broken]) -> tuple[Broken, ...]:
    def both(one: Broken, other: Broken) -> Broken:
        last = max(one, other, key=lambda group: (group.last_at, group.last_id, group.words, group.command))
        return msgspec.structs.replace(last, count=one.count + other.count)

    found = _merged(groups, lambda one: one.kind, both)
    return tuple(
        sorted(found, key=lambda one: (-one.kind.facts.level.number, -one.count, one.kind.facts.number))
    )


def _merge_doors(doors: Iterable[Door]) -> tuple[Door, ...]:
    def both(one: Door, other: Door) -> Door:
        return Door(one.name, one.address, one.sessions + other.sessions)

    return tuple(_merged(doors, lambda one: (one.name, one.address), both))


_TROUBLE = {PaceState.OPEN.value: 0, PaceState.PROBING.value: 1, PaceState.BACKING_OFF.value: 2}


def _both_hops(one: HopStatus, other: HopStatus) -> HopStatus:
    worst = max(one, other, key=lambda hop: (_TROUBLE.get(hop.state, 0), hop.next_try_at, hop.reason))
    return HopStatus(
        one.route,
        one.destination,
        worst.state,
        one.concurrency + other.concurrency,
        one.limit + other.limit,
        one.active + other.active,
        one.ready + other.ready,
        one.parked + other.parked,
        max(one.failures, other.failures),
        worst.next_try_at,
        worst.reason,
    )
