"""Asking the running relay where mail for an address would go."""

from __future__ import annotations

from lonedot.admin.operations import Desk, Operation
from lonedot.admin.routed import RouteArguments, Routed
from lonedot.admin.values import AdminError

__all__ = ["ROUTE"]


async def route(desk: Desk, asked: RouteArguments) -> Routed:
    """By the configuration that is in force, with the answers of DNS that the relay has kept."""
    if desk.router is None:
        raise AdminError("no relay runs here", "", "ask without it: lonedot route --from-file")
    return await desk.router(asked)


ROUTE = Operation("route", RouteArguments, Routed, route)
