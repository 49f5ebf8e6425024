"""How a command gets at a spool: which one is meant, and through whom (the running relay, or this process)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar

import click
import msgspec

from lonedot.admin.client import Caller, reach
from lonedot.admin.operations import Desk
from lonedot.admin.values import AdminError
from lonedot.cli.output import Problem, config_option, tell_fault
from lonedot.config.faults import ConfigFaults, Severity
from lonedot.config.load import load
from lonedot.spool.interface import SpoolPaths

__all__ = ["Place", "place", "place_options", "work"]

C = TypeVar("C", bound=Callable[..., object])
T = TypeVar("T")


class Place(msgspec.Struct, frozen=True):
    """A spool, and what its configuration says of the future of messages."""

    paths: SpoolPaths
    expire_seconds: Mapping[str, float] = {}
    keep_content: str = "damaged"


def place_options(command: C) -> C:
    """`-c` as `config_file` and `--spool` as `spool_folder`."""
    spool = click.option(
        "--spool",
        "spool_folder",
        type=click.Path(path_type=Path, file_okay=False),
        default=None,
        help="The spool folder; then no configuration is read.",
    )
    return config_option(spool(command))


def place(config_file: Path, spool_folder: Path | None) -> Place:
    """The spool meant.

    Raises:
        Problem: the configuration does not say.
    """
    if spool_folder is not None:
        return Place(SpoolPaths(spool_folder))
    try:
        config = load(config_file, with_registry=False)
    except ConfigFaults as error:
        first = next(fault for fault in error.faults if fault.severity is Severity.FAULT)
        if not config_file.exists():
            raise Problem(
                "there is no configuration",
                where=str(config_file),
                do="name it with -c, or the spool with --spool",
            ) from None
        raise Problem(
            f"the configuration cannot be used: {first.where}: {first.what}".replace(": :", ":"),
            where=f"{first.file}:{first.line}",
            do=f"run lonedot check -c {config_file}, or name the spool with --spool",
        ) from None
    return Place(
        config.server.paths,
        {route.name: route.expire.total_seconds() for route in config.routes},
        config.server.keep_content.value,
    )


def work(where: Place, task: Callable[[Caller], Awaitable[T]]) -> T:
    """Do `task` with the relay, or at the spool itself.

    Raises:
        Problem: it could not be done; says why.
    """

    async def opened() -> Desk:
        # The store is loaded only when the relay is down.
        from lonedot.admin.offline import open_desk
        from lonedot.spool.sqlite import KeepContent

        return await open_desk(where.paths, where.expire_seconds, KeepContent(where.keep_content))

    async def whole() -> T:
        async with reach(where.paths, opened) as caller:
            result = await task(caller)
            for words in caller.missing:
                tell_fault(f"{words}; what it has is left out; try again in a moment")
            return result

    try:
        return asyncio.run(whole())
    except AdminError as error:
        problem = error.problem
        raise Problem(problem.what, where=problem.where, do=problem.do) from error
