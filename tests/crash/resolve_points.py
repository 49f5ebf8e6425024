"""`lonedot serve` with a trap inside the step that resolves: see `transport_points`, whose points it knows too.

By environment: `LONEDOT_KILL_POINT`, the value of a point and which of its passings kills (`copied:2`).
"""

from __future__ import annotations

import enum
import functools
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import cast

from lonedot.cli import main
from lonedot.delivery.resolve import Resolver
from tests.crash import transport_points

POINT = transport_points.POINT


class ResolvePoint(enum.Enum):
    """A step of the expansion of one message."""

    COPYING = "copying"
    """It is known who is in the list; nothing of its copy is made."""
    COPIED = "copied"
    """The copy is made, its body file is written and synced; the spool does not know of it."""


def set_trap(wanted: str) -> None:
    label, _, passing = wanted.partition(":")
    point, left = ResolvePoint(label), int(passing)
    copy = Resolver._copy

    def passes(here: ResolvePoint) -> None:
        nonlocal left
        left -= here is point
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

    @functools.wraps(copy)
    async def copied(self: Resolver, *given: object) -> object:
        passes(ResolvePoint.COPYING)
        made = await cast(Callable[..., Awaitable[object]], copy)(self, *given)
        passes(ResolvePoint.COPIED)
        return made

    Resolver._copy = copied  # type: ignore[assignment, method-assign]


if __name__ == "__main__":
    if wanted := os.environ.get(POINT, ""):
        is_ours = wanted.partition(":")[0] in {one.value for one in ResolvePoint}
        (set_trap if is_ours else transport_points.set_trap)(wanted)
    sys.argv[1:1] = ["serve", "--no-supervisor"]  # a parent would start it again, into the same trap
    main()
