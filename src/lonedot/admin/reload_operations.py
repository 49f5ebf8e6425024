"""What can be done with the configuration through the control socket."""

from __future__ import annotations

from lonedot.admin.operations import Desk, Operation
from lonedot.admin.reload import Reloaded
from lonedot.admin.values import AdminError, NoArguments

__all__ = ["RELOAD"]


async def reload(desk: Desk, _: NoArguments) -> Reloaded:
    """Take the configuration as its file says now."""
    if desk.reloader is None:
        raise AdminError("no relay runs here", "", "the next start reads the configuration anyway")
    return await desk.reloader.reload(desk.asker)


RELOAD = Operation("reload", NoArguments, Reloaded, reload)
