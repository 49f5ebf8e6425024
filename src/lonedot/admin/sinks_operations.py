"""What can be done with bindings through the control socket."""

from __future__ import annotations

from lonedot.admin.operations import Desk, Operation
from lonedot.admin.sinks import ApplyArguments, Bindings, Keeper, Taken
from lonedot.admin.values import AdminError, NoArguments

__all__ = ["APPLY", "BINDINGS", "RELOAD"]


def _keeper(desk: Desk) -> Keeper:
    if desk.keeper is None:
        raise AdminError("this relay has no bindings to list or change", "", "start it from a configuration")
    return desk.keeper


async def bindings(desk: Desk, _: NoArguments) -> Bindings:
    """All bindings in firing order."""
    return await _keeper(desk).bindings()


async def apply(desk: Desk, wanted: ApplyArguments) -> Taken:
    """Change the registry; answers when the relay has taken it."""
    return await _keeper(desk).apply(wanted.changes, desk.asker)


async def reload(desk: Desk, _: NoArguments) -> Taken:
    """Take a registry that was edited by hand, and changed code."""
    return await _keeper(desk).reload(desk.asker)


BINDINGS = Operation("sinks.list", NoArguments, Bindings, bindings)
APPLY = Operation("sinks.apply", ApplyArguments, Taken, apply)
RELOAD = Operation("sinks.reload", NoArguments, Taken, reload)
