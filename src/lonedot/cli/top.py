"""`lonedot top`: the relay as it works, renewed each second."""

from __future__ import annotations

import asyncio
import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec

from lonedot.admin.client import Caller
from lonedot.admin.seeing import Screen
from lonedot.admin.seeing_operations import SCREEN
from lonedot.admin.values import NoArguments
from lonedot.cli.output import Problem, json_option, print_json
from lonedot.cli.screen_text import screen_lines
from lonedot.cli.spool_access import place, place_options, work
from lonedot.cli.terminal import Terminal, Wake
from lonedot.observability.metrics import Figures, Metric

__all__ = ["Pace", "command", "pace_between", "pace_lines"]


class Pace(msgspec.Struct, frozen=True):
    """What happened between two looks, by the second."""

    seconds: float
    accepted: float
    refused: float
    delivered: float
    deferred: float
    failed: float
    latency_seconds: float
    """From acceptance to delivery, on average; 0 when nothing was delivered."""
    commit_seconds: float
    """From a commit until it was synced, on average."""


@click.command("top")
@click.option("--once", is_flag=True, help="Look for one interval, print, and end.")
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3600),
    default=1.0,
    show_default=True,
    help="Seconds between two looks.",
)
@place_options
@json_option
def command(once: bool, interval: float, config_file: Path, spool_folder: Path | None, as_json: bool) -> int:
    """Show the relay as it works, renewed each second. q or Ctrl-C ends it.

    With --json, or when the output is no terminal: one look after another, a line or a block for each.
    """
    where = place(config_file, spool_folder)

    async def watch(caller: Caller) -> int:
        before = await caller.call(SCREEN, NoArguments())
        if not before.running:
            raise Problem("the relay is down", where=str(where.paths.root), do="lonedot serve")
        if as_json or once or not sys.stdout.isatty():
            return await _plainly(caller, before)
        return await _live(caller, before)

    async def _next(caller: Caller, before: Screen) -> tuple[Screen, Pace]:
        await asyncio.sleep(interval)
        return await _look(caller, before)

    async def _look(caller: Caller, before: Screen) -> tuple[Screen, Pace]:
        now = await caller.call(SCREEN, NoArguments())
        return now, pace_between(before.figures, now.figures, now.asked_at - before.asked_at)

    async def _plainly(caller: Caller, before: Screen) -> int:
        while True:
            before, pace = await _next(caller, before)
            if as_json:
                print_json({"pace": pace, "screen": before})
            else:
                width = shutil.get_terminal_size().columns
                for line in [*pace_lines(pace, width), *screen_lines(before, width)]:
                    click.echo(line)
            if once:
                return 0
            sys.stdout.flush()

    async def _live(caller: Caller, before: Screen) -> int:
        from rich.live import Live
        from rich.text import Text

        def drawn(lines: Sequence[str]) -> Text:
            return Text.from_ansi("\n".join(lines), no_wrap=True, overflow="ellipsis")

        with Terminal() as terminal, Live(drawn(["looking …"]), screen=True, auto_refresh=False) as live:
            pace: Pace | None = None
            while True:
                lines = [] if pace is None else [*pace_lines(pace, live.console.width), ""]
                lines += screen_lines(before, live.console.width)
                live.update(drawn(lines[: live.console.height]), refresh=True)
                match await terminal.wait(interval):
                    case Wake.LEFT:
                        return 0
                    case Wake.TIME:
                        before, pace = await _look(caller, before)
                    case Wake.RESIZED:
                        pass

    try:
        return work(where, watch)
    except KeyboardInterrupt:
        return 0


def pace_between(before: Figures, after: Figures, seconds: float) -> Pace:
    """The difference of two looks; a relay that was started anew meanwhile counts from nothing."""
    if any(after.of(metric) < before.of(metric) for metric in (Metric.ACCEPTED, Metric.RECIPIENTS)):
        before = Figures()
    span = max(seconds, 0.001)

    def rate(metric: Metric, *labels: str) -> float:
        return round(max(0.0, after.of(metric, *labels) - before.of(metric, *labels)) / span, 2)

    return Pace(
        round(span, 3),
        rate(Metric.ACCEPTED),
        rate(Metric.REFUSED),
        rate(Metric.RECIPIENTS, "delivered"),
        rate(Metric.RECIPIENTS, "deferred"),
        rate(Metric.RECIPIENTS, "failed"),
        _mean(before, after, Metric.LATENCY),
        _mean(before, after, Metric.COMMIT),
    )


def _mean(before: Figures, after: Figures, metric: Metric) -> float:
    count = after.of(metric) - before.of(metric)
    total = sum(one.total for one in after.spreads if one.metric is metric)
    total -= sum(one.total for one in before.spreads if one.metric is metric)
    return round(total / count, 6) if count > 0 else 0.0


def pace_lines(pace: Pace, width: int) -> list[str]:
    """For people, no wider than the screen."""
    words = (
        f"per second: {pace.accepted:g} accepted, {pace.refused:g} refused, {pace.delivered:g} delivered, "
        f"{pace.deferred:g} deferred, {pace.failed:g} failed; "
        f"{pace.latency_seconds:.3f} s to deliver, {pace.commit_seconds * 1000:.2f} ms to commit"
    )
    return textwrap.wrap(words, max(40, width))
