"""`lonedot queue hops`: next hops, what waits for each, and why."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import click

from lonedot.admin.client import Caller
from lonedot.admin.hops import HOPS, Hops
from lonedot.admin.values import NoArguments
from lonedot.cli.output import json_option, print_json
from lonedot.cli.screen_text import printable, span
from lonedot.cli.spool_access import place, place_options, work
from lonedot.queue.lanes import HopStatus
from lonedot.queue.pace import PaceState

__all__ = ["hop_lines", "hops"]


@click.command("hops")
@place_options
@json_option
def hops(config_file: Path, spool_folder: Path | None, as_json: bool) -> int:
    """List next hops, those in trouble first.

    For each: its state, how many messages are at work of how many may be, how many wait in memory and in the spool,
    when it is tried again, and what it said last. With the relay down: those for which messages are set aside.
    """

    async def ask(caller: Caller) -> Hops:
        return await caller.call(HOPS, NoArguments())

    found = work(place(config_file, spool_folder), ask)
    if as_json:
        print_json(found)
    else:
        for line in hop_lines(found):
            click.echo(line)
    return 0


def hop_lines(found: Hops) -> Iterator[str]:
    """A line for each next hop, and below it what to do about one in trouble."""
    if not found.hops:
        yield "Nothing waits for a next hop." if found.running else "No message is set aside for a next hop."
        return
    if not found.running:
        yield click.style("The relay is down.", fg="red", bold=True) + "  " + _do("lonedot serve")
    for hop in found.hops:
        yield from _hop(hop, found)


def _hop(hop: HopStatus, found: Hops) -> Iterator[str]:
    name = click.style(printable(hop.destination or hop.route), bold=True)
    over = f" over {printable(hop.route)}" if hop.destination else ""
    waits = f"{hop.ready} in memory, {hop.parked} in the spool"
    if not found.running:
        yield f"{name}{over}: {waits}"
    else:
        is_open = hop.state == PaceState.OPEN.value
        state = click.style(hop.state, fg="green" if is_open else "yellow")
        when = f", next try in {span(hop.next_try_at - found.asked_at)}" if hop.next_try_at > 0 else ""
        failed = f", {hop.failures} in a row failed" if hop.failures else ""
        window = f"{hop.active} at work of {hop.concurrency}, at most {hop.limit}"
        yield f"{name}{over}: {state}{when}{failed}; {window}; waiting: {waits}"
    if hop.reason:
        yield f"    {printable(hop.reason)}"
    if hop.failures or not found.running:
        yield "    " + _do(f"lonedot queue retry {_selecting(hop)}")
        yield "    " + _do(f"lonedot queue list {_selecting(hop)}")


def _selecting(hop: HopStatus) -> str:
    """The options that select what waits for it."""
    words = ["--route", hop.route, *(["--domain", hop.destination] if hop.destination else [])]
    return " ".join(shlex.quote(word) for word in words)


def _do(command: str) -> str:
    return click.style(f"→ {printable(command)}", fg="cyan")
