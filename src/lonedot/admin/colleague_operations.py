"""What workers of one relay ask each other over their control sockets. No command uses it.

Rules:
1. The first worker leads: it judges configuration and registry, has the standing of bindings, and brings the others to
   where it is (`ALIGN`) before a command that changes something is answered.
2. A new configuration is taken by all or by none: each prepares all that may fail (`PREPARE`), then each takes it
   (`COMMIT`) or lets it go (`ABANDON`).
3. A worker that starts asks the first where it is (`JOIN`); when the first starts, it tells the others. So one that was
   not there when something changed is brought along.
"""

from __future__ import annotations

from lonedot.admin.colleague import Align, Bearing, Colleague, Done, Faults, Prepare
from lonedot.admin.operations import Desk, Operation
from lonedot.admin.values import AdminError, NoArguments

__all__ = ["ABANDON", "ALIGN", "BOOK", "COMMIT", "JOIN", "PREPARE"]


def _colleague(desk: Desk) -> Colleague:
    if desk.colleague is None:
        raise AdminError("no other worker may ask this here", "relay")
    return desk.colleague


async def prepare(desk: Desk, wanted: Prepare) -> Done:
    """See `Colleague`, also for what follows."""
    await _colleague(desk).prepare(wanted.revision)
    return Done()


async def commit(desk: Desk, _: NoArguments) -> Done:
    await _colleague(desk).commit()
    return Done()


async def abandon(desk: Desk, _: NoArguments) -> Done:
    _colleague(desk).abandon()
    return Done()


async def align(desk: Desk, wanted: Align) -> Done:
    await _colleague(desk).align(wanted.bearing, wanted.anew)
    return Done()


async def join(desk: Desk, _: NoArguments) -> Bearing:
    return _colleague(desk).bearing()


async def book(desk: Desk, wanted: Faults) -> Done:
    _colleague(desk).book(wanted.faults)
    return Done()


PREPARE = Operation("worker.prepare", Prepare, Done, prepare)
COMMIT = Operation("worker.commit", NoArguments, Done, commit)
ABANDON = Operation("worker.abandon", NoArguments, Done, abandon)
ALIGN = Operation("worker.align", Align, Done, align)
JOIN = Operation("worker.join", NoArguments, Bearing, join)
BOOK = Operation("worker.book", Faults, Done, book)
