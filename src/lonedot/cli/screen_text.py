"""The screen of `lonedot status` and `top` as lines of text. Signs that steer a terminal become escapes.

Rules: no line of words is wider than the screen; a command is never cut or parted, so that it can be copied: it stands
behind its figure where there is room, else on a line of its own.
"""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterator
from datetime import timedelta
from typing import NamedTuple

import click

from lonedot.admin.seeing import Broken, Screen, Waiting, Worker
from lonedot.evidence.events import EventKind
from lonedot.observability.levels import LogLevel
from lonedot.observability.metrics import Figures, Metric
from lonedot.queue.lanes import HopStatus
from lonedot.reception.pop3_account import AccountStatus

__all__ = ["WIDTH", "printable", "screen_lines", "span"]

WIDTH = 80

_SHOWN = 8
"""Reasons and events on the screen; the rest is counted."""

_LINES = 2
"""Of words for one figure; the rest is cut."""


class _Row(NamedTuple):
    """A figure in words, and the command that acts on it."""

    words: str
    command: str = ""
    colour: str | None = None
    is_bold: bool = False


def screen_lines(screen: Screen, width: int = WIDTH) -> Iterator[str]:
    """What is on the screen, a line at a time."""
    for number, rows in enumerate((_running(screen), _waits(screen), _broke(screen))):
        if number:
            yield ""
        for row in rows:
            yield from _fitted(row, max(40, width))


def _fitted(row: _Row, width: int) -> Iterator[str]:
    """Lines that are not wider than the screen, but for a command that is."""
    indent = " " * (len(row.words) - len(row.words.lstrip()))
    lines = textwrap.wrap(
        row.words,
        width,
        subsequent_indent=indent + "  ",
        max_lines=_LINES,
        placeholder=" …",
        drop_whitespace=True,
        break_on_hyphens=False,
    )
    command = f"→ {printable(row.command)}" if row.command else ""
    is_behind = bool(command) and len(lines[-1]) + 2 + len(command) <= width
    for number, line in enumerate(lines, 1):
        styled = click.style(line, fg=row.colour, bold=row.is_bold) if row.colour or row.is_bold else line
        if is_behind and number == len(lines):
            styled += "  " + click.style(command, fg="cyan")
        yield styled
    if command and not is_behind:
        yield f"{indent}  " + click.style(command, fg="cyan")


def _running(screen: Screen) -> Iterator[_Row]:
    if not screen.running:
        yield _Row("The relay is down.", "lonedot serve", "red", True)
        return
    head = f"{screen.hostname}: lonedot {screen.version}, config {screen.revision}"
    yield _Row(head, "lonedot config show", is_bold=True)
    for words in screen.missing:
        yield _Row(f"  {printable(words)}", colour="red", is_bold=True)
    for worker in screen.workers:
        yield _worker(worker, screen)
    for door in screen.doors:
        yield _Row(
            f"  listens at {door.address} ({printable(door.name)}), {_count(door.sessions, 'session')}"
        )
    for account in screen.mailboxes:
        yield _mailbox(account)
    yield _Row(f"  {_since_start(screen.figures)}", "lonedot top")
    yield from _sinks(screen.figures)


def _worker(worker: Worker, screen: Screen) -> _Row:
    now = screen.asked_at
    name = f"worker {worker.number}, " if len(screen.workers) > 1 else ""
    words = (
        f"  {name}process {worker.pid} for {span(now - worker.since)}, {_count(worker.sessions, 'session')}"
    )
    if worker.last_commit_at:
        words += f", last write {span(now - worker.last_commit_at)} ago"
    if worker.fault:
        words += f", cannot write the spool: {printable(worker.fault)}; {EventKind.SPOOL_FAULT.facts.action}"
        return _Row(words, "", "red", True)
    if worker.loop_lag_seconds >= 1:
        return _Row(f"{words}, {worker.loop_lag_seconds:.1f} s late", "", "yellow")
    return _Row(words)


def _mailbox(account: AccountStatus) -> _Row:
    words = f"  fetches from {account.server} ({printable(account.name)})"
    if account.words:
        again = f"{_count(account.failed, 'look')} in a row failed: "
        return _Row(f"{words}: {again}{printable(account.words)}", "lonedot pop3 list", "red")
    if account.refused:
        left = f"{_count(account.refused, 'message')} left there that cannot be taken"
        return _Row(f"{words}, {left}", "lonedot pop3 list", "yellow")
    return _Row(f"{words}, {_count(account.taken, 'message')} taken")


def _since_start(figures: Figures) -> str:
    by_result = {
        result: int(figures.of(Metric.RECIPIENTS, result)) for result in ("delivered", "deferred", "failed")
    }
    parts = [
        f"{int(figures.of(Metric.ACCEPTED))} accepted",
        f"{int(figures.of(Metric.REFUSED))} refused",
        *(f"{count} {result}" for result, count in by_result.items()),
    ]
    return "since the start: " + ", ".join(parts)


def _sinks(figures: Figures) -> Iterator[_Row]:
    faulty = sorted({one.labels[0] for one in figures.samples if one.metric is Metric.SINK_FAULTS})
    for name in faulty:
        faults = int(figures.of(Metric.SINK_FAULTS, name))
        calls = int(figures.of(Metric.SINK_CALLS, name))
        words = f"  sink {printable(name)}: {_count(faults, 'fault')} in {_count(calls, 'call')}"
        yield _Row(words, "lonedot sinks list", "yellow")


def _waits(screen: Screen) -> Iterator[_Row]:
    counts = screen.counts
    total = (
        f"{counts.get('queued', 0)} queued, {counts.get('held', 0)} held, {counts.get('damaged', 0)} damaged"
    )
    oldest = f", the oldest for {span(screen.asked_at - screen.oldest_at)}" if screen.oldest_at else ""
    yield _Row(f"Waits: {total}{oldest}", "lonedot queue list", is_bold=True)
    for group in screen.waiting[:_SHOWN]:
        yield _group(group, screen.asked_at)
    if len(screen.waiting) > _SHOWN:
        rest = sum(one.count for one in screen.waiting[_SHOWN:])
        words = f"  {rest} more for {len(screen.waiting) - _SHOWN} other reasons"
        yield _Row(words, "lonedot status --json")
    for hop in screen.hops[:_SHOWN]:
        yield _hop(hop, screen.asked_at)
    if len(screen.hops) > _SHOWN:
        yield _Row(f"  {len(screen.hops) - _SHOWN} more next hops in trouble", "lonedot queue hops")
    open_ones = sum(counts.get(state, 0) for state in ("queued", "held", "damaged"))
    if open_ones > screen.looked_at:
        yield _Row(f"  (reasons of {screen.looked_at} messages of {open_ones})")


def _hop(hop: HopStatus, now: float) -> _Row:
    name = printable(hop.destination or hop.route)
    when = f", next try in {span(hop.next_try_at - now)}" if hop.next_try_at > now else ""
    words = f"  next hop {name}: {hop.state}{when}: {printable(hop.reason)}"
    return _Row(words, f"lonedot queue list --route {shlex.quote(hop.route)}", "yellow")


def _group(group: Waiting, now: float) -> _Row:
    when = ""
    if group.next_at:
        when = f", next try in {span(group.next_at - now)}" if group.next_at > now else ", tried now"
    return _Row(f"  {group.count:>6} {group.state.value}: {printable(group.reason)}{when}", group.command)


def _broke(screen: Screen) -> Iterator[_Row]:
    if not screen.broken:
        yield _Row("Nothing broke within a day.", colour="green")
        return
    yield _Row("Broke within a day:", is_bold=True)
    for one in screen.broken[:_SHOWN]:
        yield from _event(one, screen.asked_at)
    if len(screen.broken) > _SHOWN:
        yield _Row(f"  {len(screen.broken) - _SHOWN} more kinds", "lonedot status --json")


def _event(one: Broken, now: float) -> Iterator[_Row]:
    colour = "red" if one.kind.facts.level is LogLevel.ERROR else "yellow"
    words = printable(one.words or one.kind.facts.cause)
    yield _Row(
        f"  {one.count:>6} {one.kind.value}, last {span(now - one.last_at)} ago: {words}", colour=colour
    )
    advice = printable(one.advice)
    if one.command:
        advice = advice.partition(one.command)[0].rstrip(" :;,")
    yield _Row(f"         {advice}", one.command)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def span(seconds: float) -> str:
    """A span of time with its two largest units: `3d 4h`, `12m 5s`, `0s`."""
    whole = max(0, int(seconds))
    days, rest = timedelta(seconds=whole).days, whole % 86400
    parts = [(days, "d"), (rest // 3600, "h"), (rest % 3600 // 60, "m"), (rest % 60, "s")]
    first = next((n for n, (count, _) in enumerate(parts) if count), 3)
    return " ".join(f"{count}{unit}" for count, unit in parts[first : first + 2] if count) or "0s"


def printable(words: str) -> str:
    """Signs that steer a terminal become escapes."""
    if words.isprintable():
        return words
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in words)
