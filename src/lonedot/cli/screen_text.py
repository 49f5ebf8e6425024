"""The screen of `lonedot status` and `top` as lines of text. Signs that steer a terminal become escapes."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from datetime import timedelta

import click

from lonedot.admin.seeing import Broken, Screen, Waiting, Worker
from lonedot.evidence.events import EventKind
from lonedot.observability.levels import LogLevel
from lonedot.observability.metrics import Figures, Metric
from lonedot.queue.lanes import HopStatus

__all__ = ["printable", "screen_lines", "span"]

_SHOWN = 8
"""Reasons and events on the screen; the rest is counted."""

_WIDTH = 60


def screen_lines(screen: Screen) -> Iterator[str]:
    """What is on the screen, a line at a time."""
    yield from _running(screen)
    yield ""
    yield from _waits(screen)
    yield ""
    yield from _broke(screen)


def _running(screen: Screen) -> Iterator[str]:
    if not screen.running:
        yield click.style("The relay is down.", fg="red", bold=True) + _do("lonedot serve")
        return
    head = f"{screen.hostname}: lonedot {screen.version}, config {screen.revision}"
    yield click.style(head, bold=True) + _do("lonedot config show")
    for worker in screen.workers:
        yield _worker(worker, screen.asked_at)
    for door in screen.doors:
        yield f"  listens at {door.address} ({printable(door.name)}), {_count(door.sessions, 'session')}"
    yield f"  {_since_start(screen.figures)}" + _do("lonedot top")
    yield from _sinks(screen.figures)


def _worker(worker: Worker, now: float) -> str:
    words = f"  process {worker.pid} for {span(now - worker.since)}, {_count(worker.sessions, 'session')}"
    if worker.loop_lag_seconds >= 1:
        words += click.style(f", {worker.loop_lag_seconds:.1f} s late", fg="yellow")
    if worker.last_commit_at:
        words += f", last write {span(now - worker.last_commit_at)} ago"
    if worker.fault:
        fault = click.style(f"cannot write the spool: {printable(worker.fault)}", fg="red", bold=True)
        words += f", {fault}" + _do(EventKind.SPOOL_FAULT.facts.action)
    return words


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


def _sinks(figures: Figures) -> Iterator[str]:
    faulty = sorted({one.labels[0] for one in figures.samples if one.metric is Metric.SINK_FAULTS})
    for name in faulty:
        faults = int(figures.of(Metric.SINK_FAULTS, name))
        calls = int(figures.of(Metric.SINK_CALLS, name))
        words = f"  sink {printable(name)}: {_count(faults, 'fault')} in {_count(calls, 'call')}"
        yield click.style(words, fg="yellow") + _do("lonedot sinks list")


def _waits(screen: Screen) -> Iterator[str]:
    counts = screen.counts
    total = (
        f"{counts.get('queued', 0)} queued, {counts.get('held', 0)} held, {counts.get('damaged', 0)} damaged"
    )
    oldest = f", the oldest for {span(screen.asked_at - screen.oldest_at)}" if screen.oldest_at else ""
    yield click.style(f"Waits: {total}{oldest}", bold=True) + _do("lonedot queue list")
    for group in screen.waiting[:_SHOWN]:
        yield _group(group, screen.asked_at)
    if len(screen.waiting) > _SHOWN:
        rest = sum(one.count for one in screen.waiting[_SHOWN:])
        yield f"  {rest} more for {len(screen.waiting) - _SHOWN} other reasons" + _do("lonedot status --json")
    for hop in screen.hops[:_SHOWN]:
        yield _hop(hop, screen.asked_at)
    open_ones = sum(counts.get(state, 0) for state in ("queued", "held", "damaged"))
    if open_ones > screen.looked_at:
        yield f"  (reasons of {screen.looked_at} messages of {open_ones})"


def _hop(hop: HopStatus, now: float) -> str:
    name = printable(hop.destination or hop.route)
    when = f", next try in {span(hop.next_try_at - now)}" if hop.next_try_at > now else ""
    words = f"  next hop {name}: {hop.state}{when}: {_cut(printable(hop.reason))}"
    return click.style(words, fg="yellow") + _do(f"lonedot queue list --route {shlex.quote(hop.route)}")


def _group(group: Waiting, now: float) -> str:
    when = ""
    if group.next_at:
        when = f", next try in {span(group.next_at - now)}" if group.next_at > now else ", tried now"
    reason = _cut(printable(group.reason))
    return f"  {group.count:>6} {group.state.value}: {reason}{when}" + _do(group.command)


def _broke(screen: Screen) -> Iterator[str]:
    if not screen.broken:
        yield click.style("Nothing broke within a day.", fg="green")
        return
    yield click.style("Broke within a day:", bold=True)
    for one in screen.broken[:_SHOWN]:
        yield _event(one, screen.asked_at)
    if len(screen.broken) > _SHOWN:
        yield f"  {len(screen.broken) - _SHOWN} more kinds" + _do("lonedot status --json")


def _event(one: Broken, now: float) -> str:
    colour = "red" if one.kind.facts.level is LogLevel.ERROR else "yellow"
    kind = click.style(one.kind.value, fg=colour)
    words = _cut(printable(one.words or one.kind.facts.cause))
    return f"  {one.count:>6} {kind}, last {span(now - one.last_at)} ago: {words}" + _do(one.command)


def _do(command: str) -> str:
    return "  " + click.style(f"→ {printable(command)}", fg="cyan")


def _cut(words: str) -> str:
    return words if len(words) <= _WIDTH else words[: _WIDTH - 1] + "…"


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
