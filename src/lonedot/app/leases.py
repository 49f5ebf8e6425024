"""What a route allows to a next hop, shared by all workers: connections one by one, and the turns of its rate.

A table in memory that all workers have: a row for each next hop, a column for each worker. See
`docs/decisions/connections-are-leased.md`.

Rules:
1. What all columns of a row hold is never more than the limit that is asked with.
2. A worker writes into its own column alone, but for what a dead one has left; the time of a rate is everybody's.
3. Nothing here waits. Whoever cannot have the guard at once is told *no*, and asks again.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import time
from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import Protocol

from lonedot.app.workers import Post
from lonedot.delivery.leases import ASK_SECONDS
from lonedot.delivery.routing import Route
from lonedot.queue.lanes import key_of
from lonedot.queue.pace import Rate

__all__ = ["HOLD_SECONDS", "FileGuard", "Guard", "LeaseTable", "SharedLeases", "is_running", "shared_leases"]

WISH_SECONDS = 1.0
"""A wish that was not repeated for so long counts no more."""
HOLD_SECONDS = 1.0
"""With fewer connections than workers that want one, how long each has its own at least."""

_WORD = 8
_HEADER = 64
"""Words before the first row: one for each worker, its process."""
_WAYS = 16
"""Rows that a next hop may lie in."""
_SPINS = 20

_KEY, _TURN, _COLUMNS = 0, 1, 2
"""In a row: fingerprint of the hop, microsecond of its next turn, columns."""
_HELD, _TAKEN, _SINCE, _ASKED, _COLUMN = 0, 1, 2, 3, 4
"""In a column: connections; when the first of them was taken; since when one more is wanted; when that was last said.
Times in microseconds; 0 is never."""


class Guard(Protocol):
    """Keeps other processes from the table."""

    def enter(self) -> bool:
        """False: somebody else has it."""
        ...

    def leave(self) -> None: ...


class FileGuard:
    """A lock on a file that all processes have open; it ends with its holder."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def enter(self) -> bool:
        for _ in range(_SPINS):
            try:
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)
            except (BlockingIOError, PermissionError):  # POSIX leaves open which
                os.sched_yield()
            else:
                return True
        return False

    def leave(self) -> None:
        fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1)


def is_running(pid: int) -> bool:
    """There is a process of that number, whoever it is."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class LeaseTable:
    """The table, as one worker sees it. Times are seconds by a clock that all workers share."""

    def __init__(
        self,
        memory: bytearray | mmap.mmap,
        workers: int,
        number: int,
        pid: int,
        guard: Guard,
        is_alive: Callable[[int], bool] = is_running,
    ) -> None:
        """Raises ValueError when the memory is too small."""
        self._words = memoryview(memory).cast("B").cast("Q")
        self._workers = workers
        self._me = number
        self._guard = guard
        self._is_alive = is_alive
        self._row = _COLUMNS + _COLUMN * workers
        self._buckets = (len(self._words) - _HEADER) // (self._row * _WAYS)
        if self._buckets < 1 or workers > _HEADER:
            raise ValueError("too little memory for the leases of so many workers")
        self._column = _COLUMNS + _COLUMN * number
        for row in self._rows():  # what the worker before us of this number had went with it
            self._clear(row, number)
        self._words[number] = pid

    @property
    def capacity(self) -> int:
        """Next hops that there is room for."""
        return self._buckets * _WAYS

    # -- connections ---------------------------------------------------------------------------------

    def take(self, key: str, limit: int, now: float) -> bool:
        """One connection more. False: not now; the wish is noted, and is to be repeated after `ASK_SECONDS`."""
        with self._guarded() as is_ours:
            if not is_ours:
                return False
            at = _micro(now)
            row = self._make(key, at)
            if row < 0:
                return False
            held = self._held(row)
            if sum(held) >= limit:
                self._bury(row)
                held = self._held(row)
            words, mine = self._words, row + self._column
            since = words[mine + _SINCE] if self._wishes(row, self._me, at) else at
            if sum(held) >= limit or self._comes_after(row, held, limit, since, at):
                words[mine + _SINCE], words[mine + _ASKED] = since, at
                return False
            if not held[self._me]:
                words[mine + _TAKEN] = at
            words[mine + _HELD] = held[self._me] + 1
            words[mine + _SINCE] = words[mine + _ASKED] = 0
            return True

    def give(self, key: str) -> None:
        """A connection is gone."""
        # Our own column: nobody else writes it, and to have less is right at any moment.
        row = self._find(key)
        if row >= 0 and (held := self._words[row + self._column + _HELD]):
            self._words[row + self._column + _HELD] = held - 1

    def renounce(self, key: str) -> None:
        """No more are wanted."""
        row = self._find(key)
        if row >= 0:
            self._words[row + self._column + _ASKED] = 0

    def is_owed(self, key: str, limit: int, leaving: int, now: float) -> bool:
        """A connection of ours is to be closed behind its message, for another worker. `leaving`: so many of ours
        already are.
        """
        row, at = self._find(key), _micro(now)
        if row < 0:
            return False
        held = self._held(row)
        mine = held[self._me] - leaving
        wishes = self._others_that_wish(row, at)
        fair = self._fair(held, wishes, limit)
        if mine < 1 or sum(held) - leaving < limit or not any(held[other] < fair for other in wishes):
            return False
        if mine > fair:
            return True
        # All have what is fair, and that is not enough for everybody: who came first goes first.
        taken = [(self._words[self._at(row, one) + _TAKEN], one) for one, count in enumerate(held) if count]
        first, who = min(taken)
        return who == self._me and leaving == 0 and at - first >= _micro(HOLD_SECONDS)

    def is_wanted(self, key: str, limit: int, now: float) -> bool:
        """Another worker waits for a connection that we may do without."""
        row = self._find(key)
        return row >= 0 and sum(self._held(row)) >= limit and bool(self._others_that_wish(row, _micro(now)))

    # -- rates ---------------------------------------------------------------------------------------

    def turn(self, key: str, interval: float, burst: float, now: float) -> float:
        """Take the next turn. Seconds to wait before asking again; 0: it is ours, now.

        Turns are `interval` apart; `burst` seconds of them may be taken at once.
        """
        with self._guarded() as is_ours:
            at, step = _micro(now), max(1, _micro(interval))
            row = self._make(key, at) if is_ours else -1
            if row < 0:
                return ASK_SECONDS
            # A clock that was set back delays one turn at most.
            next_at = min(self._words[row + _TURN], at + _micro(burst) + step)
            wait = next_at - at - _micro(burst)
            if wait > 0:
                return wait / 1e6
            self._words[row + _TURN] = max(next_at, at) + step
            return 0.0

    # -- rows ----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[bool]:
        is_ours = self._guard.enter()
        try:
            yield is_ours
        finally:
            if is_ours:
                self._guard.leave()

    def _rows(self) -> range:
        return range(_HEADER, _HEADER + self._buckets * _WAYS * self._row, self._row)

    def _places(self, key: str) -> tuple[int, range]:
        """The mark of a next hop, and the rows that it may lie in."""
        mark = int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "little") or 1
        first = _HEADER + mark % self._buckets * _WAYS * self._row
        return mark, range(first, first + _WAYS * self._row, self._row)

    def _find(self, key: str) -> int:
        """The row of a next hop; -1 when it has none."""
        mark, rows = self._places(key)
        return next((row for row in rows if self._words[row + _KEY] == mark), -1)

    def _make(self, key: str, at: int) -> int:
        """As `_find`; without one it gets one that is free, if any is. Under the guard."""
        mark, rows = self._places(key)
        for row in rows:
            if self._words[row + _KEY] == mark:
                return row
        for bury in (False, True):
            for row in rows:
                if bury:
                    self._bury(row)
                if self._is_free(row, at):
                    for worker in range(self._workers):
                        self._clear(row, worker)
                    self._words[row + _TURN] = 0
                    self._words[row + _KEY] = mark
                    return row
        return -1

    def _is_free(self, row: int, at: int) -> bool:
        """Nobody has anything there, or wants it."""
        return self._words[row + _KEY] == 0 or not (
            self._words[row + _TURN] > at
            or any(self._held(row))
            or any(self._wishes(row, one, at) for one in range(self._workers))
        )

    def _at(self, row: int, worker: int) -> int:
        return row + _COLUMNS + _COLUMN * worker

    def _clear(self, row: int, worker: int) -> None:
        place = self._at(row, worker)
        for word in range(place, place + _COLUMN):
            self._words[word] = 0

    def _bury(self, row: int) -> None:
        """What dead workers have left in a row is nobody's."""
        for worker in range(self._workers):
            place = self._at(row, worker)
            if worker == self._me or not (self._words[place + _HELD] or self._words[place + _ASKED]):
                continue
            if not self._is_alive(self._words[worker]):
                self._clear(row, worker)

    def _held(self, row: int) -> list[int]:
        return [self._words[self._at(row, one) + _HELD] for one in range(self._workers)]

    def _wishes(self, row: int, worker: int, at: int) -> bool:
        asked = self._words[self._at(row, worker) + _ASKED]
        return asked > 0 and abs(at - asked) <= _micro(WISH_SECONDS)

    def _others_that_wish(self, row: int, at: int) -> list[int]:
        return [one for one in range(self._workers) if one != self._me and self._wishes(row, one, at)]

    def _fair(self, held: list[int], wishes: list[int], limit: int) -> int:
        """What each of those that have or want connections is to have, ourselves among them."""
        sharing = {one for one, count in enumerate(held) if count} | {self._me, *wishes}
        return max(1, limit // len(sharing))

    def _comes_after(self, row: int, held: list[int], limit: int, since: int, at: int) -> bool:
        """What is left is for others: for those with less than is fair, and among equals for who waits longest."""
        wishes = self._others_that_wish(row, at)
        if not wishes:
            return False
        fair = self._fair(held, wishes, limit)
        left = limit - sum(held)
        poorer = [one for one in wishes if held[one] < fair]
        if held[self._me] >= fair:
            return left <= sum(fair - held[one] for one in poorer)
        before = [
            one for one in poorer if (self._words[self._at(row, one) + _SINCE], one) < (since, self._me)
        ]
        return left <= len(before)


class SharedLeases:
    """The table for the parts of a worker: its pools, and its scheduler."""

    def __init__(self, table: LeaseTable, clock: Callable[[], float] = time.monotonic) -> None:
        self._table = table
        self._clock = clock

    def of(self, route: Route, destination: str) -> HopLeases:
        """As `Courier` takes them."""
        return HopLeases(self._table, self._clock, key_of(route.name, destination), route.connections)

    def turn(self, key: str, rate: Rate) -> float:
        """As `Scheduler` takes them: the next turn of a lane. Seconds to wait for it; 0: it is taken."""
        return self._table.turn(key, rate.interval, rate.burst, self._clock())


def shared_leases(post: Post) -> SharedLeases | None:
    """What this worker shares with others; None when it has all for itself."""
    if post.count == 1 or post.shared is None or post.shared_file < 0:
        return None
    guard = FileGuard(post.shared_file)
    return SharedLeases(LeaseTable(post.shared, post.count, post.number, os.getpid(), guard))


class HopLeases:
    """Satisfies `delivery.leases.Leases` for one next hop."""

    def __init__(self, table: LeaseTable, clock: Callable[[], float], key: str, limit: int) -> None:
        self._table = table
        self._clock = clock
        self._key = key
        self._limit = limit

    def take(self) -> bool:
        return self._table.take(self._key, self._limit, self._clock())

    def give(self) -> None:
        self._table.give(self._key)

    def renounce(self) -> None:
        self._table.renounce(self._key)

    def is_owed(self, leaving: int) -> bool:
        return self._table.is_owed(self._key, self._limit, leaving, self._clock())

    def is_wanted(self) -> bool:
        return self._table.is_wanted(self._key, self._limit, self._clock())


def _micro(seconds: float) -> int:
    return round(seconds * 1e6)
