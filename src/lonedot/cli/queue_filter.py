"""Which messages a command means: ids, or what is known of them; and long work on them in batches, with progress.

What a filter selects is settled before anything is changed, so that what comes in meanwhile, or leaves the selection
because of the change, alters nothing of it.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from functools import wraps
from typing import TypeVar

import click
import msgspec

from lonedot.admin.client import Caller
from lonedot.admin.hold_rules import octets_from
from lonedot.admin.operations import LIST, SELECT
from lonedot.admin.values import MAX_LISTED, Changed, Left, ListArguments, Listing
from lonedot.spool.interface import MessageState, Sort

__all__ = [
    "Instant",
    "Octets",
    "Progress",
    "chosen_ids",
    "filter_options",
    "in_batches",
    "page_options",
    "preview",
]

C = TypeVar("C", bound=Callable[..., object])
BATCH = 500
"""Messages that are changed in one step: what comes between two steps waits that long, some tens of milliseconds."""
_SHOWN = 10
_SAY_SECONDS = 5.0
_UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86400, "w": 604800}
_SPAN = re.compile(r"(\d{1,9})\s*(s|min|h|d|w)\Z")


class Instant(click.ParamType[float]):
    """A span before now (`90s`, `15min`, `2h`, `3d`, `1w`) or a time of this machine's zone (`2026-03-01 14:30`)."""

    name = "when"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        text = str(value).strip()
        if found := _SPAN.match(text):
            return time.time() - int(found[1]) * _UNITS[found[2]]
        try:
            return datetime.fromisoformat(text).timestamp()
        except (ValueError, OverflowError):
            self.fail(f"{text!r} is neither a span (2h, 3d) nor a time (2026-03-01 14:30)", param, ctx)


class Octets(click.ParamType[int]):
    """A size: `5000`, `20k`, `3M`."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        size = octets_from(str(value))
        if size is None:
            self.fail(f"{value!r} is not a size such as 5000, 20k or 3M", param, ctx)
        return size


_STATES = [state.value for state in MessageState]
_OPTIONS = (
    click.option(
        "--state",
        "states",
        multiple=True,
        type=click.Choice([*_STATES, "all"]),
        help="Only in this state; may be given several times.",
    ),
    click.option("--sender", default="", help="Only from this address or @domain."),
    click.option("--recipient", default="", help="Only to this address or @domain."),
    click.option("--domain", default="", help="Only to a recipient of this domain."),
    click.option(
        "--next-hop", default="", help="Only last tried at a host of this name or address, or part of it."
    ),
    click.option("--route", default="", help="Only over this route, chosen for it or tried last."),
    click.option("--why", default="", help="Only held, waiting or failed with these words in the reason."),
    click.option("--sink", default="", help="Only held by this binding, or waiting for it."),
    click.option("--client", default="", help="Only from this device; `192.0.2.` means all that begin so."),
    click.option(
        "--older", "before", type=Instant(), default=0.0, help="Only accepted before: 2h, 3d, or a time."
    ),
    click.option(
        "--younger", "after", type=Instant(), default=0.0, help="Only accepted since: 2h, 3d, or a time."
    ),
    click.option("--larger", type=Octets(), default=0, help="Only of this size or more: 5000, 20k, 3M."),
    click.option("--smaller", type=Octets(), default=0, help="Only below this size."),
)


def filter_options(*default: MessageState) -> Callable[[C], C]:
    """The options of a filter, given to the command as one value `wanted`.

    Args:
        default: the states when none is named.
    """

    def decorate(function: C) -> C:
        @wraps(function)
        def with_filter(
            *args: object,
            states: tuple[str, ...],
            sender: str,
            recipient: str,
            domain: str,
            next_hop: str,
            route: str,
            why: str,
            sink: str,
            client: str,
            before: float,
            after: float,
            larger: int,
            smaller: int,
            **rest: object,
        ) -> object:
            chosen = default
            if states:
                everything = "all" in states
                chosen = tuple(MessageState) if everything else tuple(MessageState(state) for state in states)
            wanted = ListArguments(
                states=chosen,
                sender=sender,
                recipient=recipient,
                domain=domain,
                next_hop=next_hop,
                route=route,
                reason=why,
                sink=sink,
                client=client,
                before=before,
                after=after,
                larger=larger,
                smaller=smaller,
            )
            return function(*args, wanted=wanted, **rest)

        decorated: Callable[..., object] = with_filter
        for option in reversed(_OPTIONS):
            decorated = option(decorated)
        return decorated  # type: ignore[return-value]  # click takes it in place of the function

    return decorate


def page_options(function: C) -> C:
    """`--limit`, `--page` and `--sort`."""
    limit = click.option(
        "--limit", type=click.IntRange(1), default=1000, show_default=True, help="At most so many."
    )
    page = click.option(
        "--page", type=click.IntRange(1), default=1, help="The second, third, … so many of them."
    )
    sort = click.option(
        "--sort",
        type=click.Choice([sort.value for sort in Sort]),
        default=Sort.AGE.value,
        show_default=True,
        help="age: the newest, oldest first; else oldest, size, next (due) or sender.",
    )
    return limit(page(sort(function)))


async def chosen_ids(caller: Caller, wanted: ListArguments, limit: int = 0) -> tuple[str, ...]:
    """All ids that the filter selects, newest first. `limit`: at most so many; 0: all."""
    ids: list[str] = []
    below = ""
    while True:
        size = min(MAX_LISTED, limit - len(ids)) if limit else MAX_LISTED
        page = msgspec.structs.replace(wanted, limit=size, sort=Sort.AGE, page=1, below=below)
        selected = await caller.call(SELECT, page)
        ids += selected.ids
        if not selected.cut or not selected.ids or (limit and len(ids) >= limit):
            return tuple(ids)
        below = min(selected.ids)


async def preview(caller: Caller, ids: Sequence[str]) -> Listing:
    """The first of them, for a person to look at."""
    return await caller.call(LIST, ListArguments(tuple(MessageState), tuple(ids[:_SHOWN]), limit=_SHOWN))


async def in_batches(
    ids: Sequence[str], act: Callable[[tuple[str, ...]], Awaitable[Changed]], verb: str
) -> Changed:
    """Do it to all of them, some at a time."""
    done: list[str] = []
    left: list[Left] = []
    later = False
    progress = Progress(len(ids), verb)
    try:
        for start in range(0, len(ids), BATCH):
            batch = tuple(ids[start : start + BATCH])
            changed = await act(batch)
            done += changed.done
            left += changed.left
            later = later or changed.later
            progress.step(len(batch))
    finally:
        progress.end()
    return Changed(tuple(done), tuple(left), later)


class Progress:
    """How far long work has come: a bar on a terminal, a line every five seconds elsewhere; nothing for short work."""

    def __init__(self, total: int, verb: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._total = total
        self._verb = verb
        self._clock = clock
        self._done = 0
        self._said_at = clock()
        self._is_terminal = sys.stderr.isatty()
        self._is_shown = False

    def step(self, number: int) -> None:
        self._done += number
        now = self._clock()
        of = f" of {self._total}" if self._total else ""
        if self._is_terminal and (self._is_shown or self._done < self._total):
            filled = 30 * self._done // max(self._total, 1)
            bar = "#" * filled + "-" * (30 - filled)
            click.echo(f"\r[{bar}] {self._done}{of} {self._verb}", nl=False, err=True)
            self._is_shown = True
        elif not self._is_terminal and now - self._said_at >= _SAY_SECONDS:
            click.echo(f"{self._done}{of} {self._verb}", err=True)
            self._said_at = now

    def end(self) -> None:
        if self._is_shown:
            click.echo(err=True)
