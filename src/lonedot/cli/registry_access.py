"""How a command gets at bindings: a registry file, the running relay, or the files of one that is down."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

import click

from lonedot.admin.client import ControlClient, RelayDown, connect
from lonedot.admin.sinks import ApplyArguments, Bindings, Keeper, Taken
from lonedot.admin.sinks_operations import APPLY, BINDINGS, RELOAD
from lonedot.admin.values import AdminError, NoArguments
from lonedot.cli.output import Problem, config_option
from lonedot.config.faults import ConfigFaults, Severity
from lonedot.config.load import load
from lonedot.config.model import Config
from lonedot.sinks.registry import Change

__all__ = ["change", "config_of", "registry_options", "source_option", "with_keeper"]

C = TypeVar("C", bound=Callable[..., object])
T = TypeVar("T")


class _Remote:
    """The keeper of the running relay."""

    def __init__(self, client: ControlClient) -> None:
        self._client = client

    async def bindings(self) -> Bindings:
        return await self._client.call(BINDINGS, NoArguments())

    async def apply(self, changes: Sequence[Change], uid: int) -> Taken:
        # Who asks is what the kernel tells the relay.
        return await self._client.call(APPLY, ApplyArguments(tuple(changes)))

    async def reload(self, uid: int) -> Taken:
        return await self._client.call(RELOAD, NoArguments())


def registry_options(command: C) -> C:
    """`-c` as `config_file` and `--registry` as `registry_file`."""
    registry = click.option(
        "--registry",
        "registry_file",
        type=click.Path(path_type=Path, dir_okay=False),
        default=None,
        help="A registry file; then neither a relay nor a configuration is asked.",
    )
    return config_option(registry(command))


def source_option(command: C) -> C:
    """`--source` as `source`; 0, for all, when it is not given."""
    number = click.IntRange(min=0, max=999_999)
    return click.option(
        "--source", type=number, default=0, metavar="N", help="Of the virtual server of this number alone."
    )(command)


def config_of(config_file: Path) -> Config:
    """The configuration, whatever is wrong with its registry.

    Raises:
        Problem: it cannot be used.
    """
    try:
        return load(config_file, with_registry=False)
    except ConfigFaults as error:
        first = next(fault for fault in error.faults if fault.severity is Severity.FAULT)
        if not config_file.exists():
            raise Problem(
                "there is no configuration",
                where=str(config_file),
                do="name it with -c, or a registry file with --registry",
            ) from None
        raise Problem(
            f"the configuration cannot be used: {first.where}: {first.what}".replace(": :", ":"),
            where=f"{first.file}:{first.line}",
            do=f"run lonedot check -c {config_file}, or name a registry file with --registry",
        ) from None


def with_keeper(config_file: Path, registry_file: Path | None, task: Callable[[Keeper], Awaitable[T]]) -> T:
    """Do `task` with whoever has the bindings.

    Raises:
        Problem: it could not be done; says why.
    """
    try:
        return asyncio.run(_with_keeper(config_file, registry_file, task))
    except AdminError as error:
        problem = error.problem
        raise Problem(problem.what, where=problem.where, do=problem.do) from error


async def _with_keeper(
    config_file: Path, registry_file: Path | None, task: Callable[[Keeper], Awaitable[T]]
) -> T:
    if registry_file is not None:
        from lonedot.app.registry import RegistryKeeper

        return await task(RegistryKeeper(None, registry_file))
    config = config_of(config_file)
    try:
        return await _at_relay(config, task)
    except RelayDown:
        pass
    from lonedot.app.registry import RegistryKeeper

    result = await task(RegistryKeeper(config, config.server.registry))
    if isinstance(result, Taken):
        # A relay that has started meanwhile may have read the registry as it was.
        try:
            await _at_relay(config, lambda keeper: keeper.reload(os.geteuid()))
        except RelayDown:
            pass
    return result


async def _at_relay(config: Config, task: Callable[[Keeper], Awaitable[T]]) -> T:
    client = await connect(config.server.paths)
    try:
        return await task(_Remote(client))
    finally:
        await client.close()


def change(config_file: Path, registry_file: Path | None, changes: Sequence[Change]) -> Taken:
    """Make changes, all or none.

    Raises:
        Problem: nothing was changed; says why.
    """
    return with_keeper(config_file, registry_file, lambda keeper: keeper.apply(changes, os.geteuid()))
