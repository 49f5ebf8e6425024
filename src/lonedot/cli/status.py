"""`lonedot status`: one screen: what runs, what waits and why, what broke; each with the command that acts on it."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from lonedot.admin.client import Caller
from lonedot.admin.seeing import Screen
from lonedot.admin.seeing_operations import SCREEN
from lonedot.admin.values import NoArguments
from lonedot.cli.output import json_option, print_json
from lonedot.cli.screen_text import screen_lines
from lonedot.cli.spool_access import place, place_options, work

__all__ = ["command"]


@click.command("status")
@place_options
@json_option
def command(config_file: Path, spool_folder: Path | None, as_json: bool) -> int:
    """Show what runs, what waits and why, and what broke within a day; each with the command that acts on it.

    Exits 1 when the relay is down, or cannot write its spool.
    """

    async def ask(caller: Caller) -> Screen:
        return await caller.call(SCREEN, NoArguments())

    screen = work(place(config_file, spool_folder), ask)
    if as_json:
        print_json(screen)
    else:
        for line in screen_lines(screen, shutil.get_terminal_size().columns):
            click.echo(line)
    return 0 if screen.running and not any(worker.fault for worker in screen.workers) else 1
