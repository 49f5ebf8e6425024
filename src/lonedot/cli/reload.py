"""`lonedot reload`: the running relay takes its configuration as the file says now."""

from __future__ import annotations

from pathlib import Path

import click

from lonedot.admin.client import Caller
from lonedot.admin.reload import Reloaded
from lonedot.admin.reload_operations import RELOAD
from lonedot.admin.values import NoArguments
from lonedot.cli.output import json_option, print_json
from lonedot.cli.spool_access import place, place_options, work
from lonedot.config.load import examine

__all__ = ["command"]


@click.command("reload")
@place_options
@json_option
def command(config_file: Path, spool_folder: Path | None, as_json: bool) -> int:
    """Take a changed configuration without dropping a session or a message.

    The file is judged whole first; with a fault nothing changes, every fault is named, and the exit code is 1. SIGHUP
    does the same and tells the log.
    """

    if spool_folder is None:
        found = examine(config_file)
        if found.config is None:
            nothing = Reloaded(False, str(config_file), "", "", tuple(map(str, found.faults)))
            return _tell(nothing, as_json=as_json)

    async def ask(caller: Caller) -> Reloaded:
        return await caller.call(RELOAD, NoArguments())

    return _tell(work(place(config_file, spool_folder), ask), as_json=as_json)


def _tell(done: Reloaded, *, as_json: bool) -> int:
    """Print it; the exit code."""
    if as_json:
        print_json(done)
    else:
        for fault in done.faults:
            click.echo(fault, err=not done.taken)
        if not done.taken:
            click.echo(f"{done.file}: nothing has changed", err=True)
        elif done.before == done.after:
            click.echo(f"{done.file}: as before ({done.after}); files that it names were read again")
        else:
            click.echo(f"{done.file}: {done.after} is in force, before it {done.before}")
        for key in done.needs_restart:
            click.echo(f"{key} differs, and waits for a restart")
    return 0 if done.taken else 1
