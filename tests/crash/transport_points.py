"""`lonedot serve` with a trap on the way of a message through its sinks: see `kill_points`, whose sister it is.

By environment: `LONEDOT_KILL_POINT`, the value of a `TransportPoint` and which of its passings kills (`handed-in:2`).
"""

from __future__ import annotations

import enum
import functools
import os
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import cast

from lonedot.cli import main
from lonedot.delivery.transport import Transport
from lonedot.queue.preparation import Ending, Preparation
from lonedot.queue.scheduler import Scheduler
from lonedot.queue.transport import Step
from lonedot.spool.interface import Claim

POINT = "LONEDOT_KILL_POINT"


class TransportPoint(enum.Enum):
    """A step of a message in transport."""

    ACCEPTED = "accepted"
    """In custody; the first sink is not asked."""
    ANSWERED = "answered"
    """A sink was asked for all copies; nothing of it is with the spool."""
    HANDED_IN = "handed-in"
    """The step is with the spool, and not committed."""
    COMMITTED = "committed"
    """The next sink is not asked."""
    THROUGH = "through"
    """The last step is committed; no attempt is made."""


class _Trap:
    def __init__(self, wanted: str) -> None:
        label, _, passing = wanted.partition(":")
        self._point = TransportPoint(label)
        self._left = int(passing)

    def passes(self, point: TransportPoint) -> None:
        if point is self._point:
            self._left -= 1
            if not self._left:
                os.kill(os.getpid(), signal.SIGKILL)


def set_trap(wanted: str) -> None:
    """Wrap what the steps go through."""
    trap = _Trap(wanted)
    prepare, take, ended = Transport.prepare, Preparation._take, Scheduler._prepared

    @functools.wraps(prepare)
    async def prepared(self: Transport, claim: Claim) -> AsyncGenerator[Step, None]:
        trap.passes(TransportPoint.ACCEPTED)
        async for step in prepare(self, claim):
            trap.passes(TransportPoint.ANSWERED)
            yield step

    async def taken(self: Preparation, work: object, step: Step) -> bool:
        waiting = cast(Callable[..., Awaitable[bool]], take)(self, work, step)
        is_ours = await _Begun(waiting, lambda: trap.passes(TransportPoint.HANDED_IN))
        trap.passes(TransportPoint.COMMITTED)
        return is_ours

    def ends(self: Scheduler, work: object, ending: Ending) -> None:
        if ending is Ending.THROUGH:
            trap.passes(TransportPoint.THROUGH)
        cast(Callable[..., None], ended)(self, work, ending)

    Transport.prepare = prepared  # type: ignore[method-assign]
    Preparation._take = taken  # type: ignore[method-assign]
    Scheduler._prepared = ends  # type: ignore[method-assign]


class _Begun:
    """Awaits, and calls `then` as soon as that waits for the first time."""

    def __init__(self, waiting: Awaitable[bool], then: Callable[[], None]) -> None:
        self._waiting = waiting
        self._then = then

    def __await__(self) -> Generator[object, object, bool]:
        inner = self._waiting.__await__()
        given = next(inner)
        self._then()
        while True:
            sent = yield given
            try:
                given = inner.send(sent)
            except StopIteration as end:
                return bool(end.value)


if __name__ == "__main__":
    if wanted := os.environ.get(POINT, ""):
        set_trap(wanted)
    sys.argv[1:1] = ["serve", "--no-supervisor"]  # a parent would start it again, into the same trap
    main()
