"""The commands of `lonedot queue` that change messages: by id, or all that options select, in batches."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import click
import msgspec

from lonedot.admin.client import Caller
from lonedot.admin.operations import DELETE, HOLD, RELEASE, RETRY
from lonedot.admin.queue_operations import BOUNCE, REROUTE
from lonedot.admin.values import (
    BounceArguments,
    Changed,
    HoldArguments,
    IdsArguments,
    ListArguments,
    RerouteArguments,
)
from lonedot.cli.output import Problem, json_option, print_json
from lonedot.cli.queue_filter import chosen_ids, filter_options, in_batches, preview
from lonedot.cli.queue_text import print_listing
from lonedot.cli.spool_access import place, place_options, work
from lonedot.spool.interface import MessageState

__all__ = ["bounce", "delete", "hold", "release", "reroute", "retry"]

C = TypeVar("C", bound=Callable[..., object])
Act = Callable[[Caller, tuple[str, ...]], Awaitable[Changed]]

_LIVE = (MessageState.QUEUED, MessageState.HELD)
_MANY = 20
"""So many ids are named one by one."""


class _Which(msgspec.Struct, frozen=True):
    """Which messages, where, and what to print."""

    ids: tuple[str, ...]
    wanted: ListArguments
    everything: bool
    limit: int
    dry_run: bool
    config_file: Path
    spool_folder: Path | None
    as_json: bool


def _which_options(*states: MessageState) -> Callable[[C], C]:
    """`[ID]...`, the filter, `--all`, `--limit`, `--dry-run`, and where; as one value `which`."""

    def decorate(function: C) -> C:
        def with_which(
            ids: tuple[str, ...],
            wanted: ListArguments,
            everything: bool,
            limit: int,
            dry_run: bool,
            config_file: Path,
            spool_folder: Path | None,
            as_json: bool,
            **rest: object,
        ) -> object:
            which = _Which(ids, wanted, everything, limit, dry_run, config_file, spool_folder, as_json)
            is_filtered = wanted.selects or wanted.states != states
            if ids and (is_filtered or everything or limit):
                raise click.UsageError("give ids, or options that select, not both")
            if not (ids or is_filtered or everything):
                raise click.UsageError("name messages, give options that select some, or --all")
            return function(which=which, **rest)

        with_which.__doc__ = function.__doc__
        decorated: Callable[..., object] = filter_options(*states)(place_options(json_option(with_which)))
        for option in (
            click.option("--dry-run", is_flag=True, help="Change nothing; say how many, and show the first."),
            click.option("--limit", type=click.IntRange(0), default=0, help="At most so many, the newest."),
            click.option("--all", "everything", is_flag=True, help="All that this can be done to."),
            click.argument("ids", metavar="[ID]...", nargs=-1),
        ):
            decorated = option(decorated)
        return decorated  # type: ignore[return-value]  # click takes it in place of the function

    return decorate


def _change(which: _Which, verb: str, done: str, act: Act, ask: str = "") -> int:
    """Do it, say what was done; 1 when some stayed as they were.

    Args:
        verb: what has happened to each, as `held`.
        done: the same with what follows from it, told of each that was named.
        ask: what a person is asked before it is done; empty: nothing.
    """

    async def task(caller: Caller) -> Changed | None:
        ids = which.ids or await chosen_ids(caller, which.wanted, which.limit)
        if which.dry_run:
            await _say_what_would_be(caller, which, ids, verb)
            return None
        if ask and ids:
            _confirm(ids, ask)
        return await in_batches(ids, lambda batch: act(caller, batch), verb)

    changed = work(place(which.config_file, which.spool_folder), task)
    if changed is None:
        return 0
    if which.as_json:
        print_json(changed)
        return 1 if changed.left else 0
    if which.ids and len(which.ids) <= _MANY:
        for id in changed.done:
            click.echo(f"{id}: {done}")
    else:
        click.echo(f"{_messages(len(changed.done))} {verb}")
    for left in changed.left[:_MANY]:
        click.echo(f"{left.id}: left as it is: {left.why}", err=True)
    if len(changed.left) > _MANY:
        click.echo(f"{len(changed.left) - _MANY} more were left as they are; --json names all", err=True)
    return 1 if changed.left else 0


def _messages(number: int) -> str:
    return "1 message" if number == 1 else f"{number} messages"


async def _say_what_would_be(caller: Caller, which: _Which, ids: tuple[str, ...], verb: str) -> None:
    listing = await preview(caller, ids) if ids else None
    if which.as_json:
        print_json({"would_change": len(ids), "first": [] if listing is None else listing.rows})
        return
    if listing is not None:
        print_listing(listing, with_hints=False)
    click.echo(f"{_messages(len(ids))} would be {verb}. Nothing was changed.")


def _confirm(ids: tuple[str, ...], ask: str) -> None:
    if not sys.stdin.isatty():
        raise Problem("nobody can be asked", where="lonedot queue", do="add --yes", code=2)
    click.confirm(ask.format(ids[0] if len(ids) == 1 else f"{len(ids)} messages"), abort=True, err=True)


@click.command("hold")
@click.option("--reason", default="held by hand", show_default=True, help="Shown to all.")
@_which_options(MessageState.QUEUED)
def hold(which: _Which, reason: str) -> int:
    """Keep messages back until they are released."""
    return _change(
        which,
        "held",
        "held; lonedot queue release sends it on",
        lambda caller, ids: caller.call(HOLD, HoldArguments(ids, reason)),
    )


@click.command("release")
@_which_options(MessageState.HELD)
def release(which: _Which) -> int:
    """Send on messages that are held."""
    return _change(which, "released", "released", lambda caller, ids: caller.call(RELEASE, IdsArguments(ids)))


@click.command("retry")
@_which_options(MessageState.QUEUED)
def retry(which: _Which) -> int:
    """Try messages at once, and not at the time planned."""
    return _change(which, "due now", "due now", lambda caller, ids: caller.call(RETRY, IdsArguments(ids)))


@click.command("delete")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_which_options(*ListArguments().states)
def delete(which: _Which, yes: bool) -> int:
    """Send messages to nobody any more; no report goes to the sender.

    What is recorded of them stays until the history ends.
    """
    return _change(
        which,
        "deleted",
        "deleted",
        lambda caller, ids: caller.call(DELETE, IdsArguments(ids)),
        "" if yes else "Delete {}, without a report to the sender?",
    )


@click.command("bounce")
@click.option(
    "--reason", default="returned by the administrator", show_default=True, help="Told to the sender."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@_which_options(*_LIVE)
def bounce(which: _Which, reason: str, yes: bool) -> int:
    """Return messages to their senders now, with a report; the relay must be running.

    What was delivered stays delivered; recipients that still wait fail. A message that came without a sender goes to
    Badmail.
    """
    return _change(
        which,
        "returned",
        "returned to its sender",
        lambda caller, ids: caller.call(BOUNCE, BounceArguments(ids, reason)),
        "" if yes else "Return {} to the sender?",
    )


@click.command("reroute")
@click.option(
    "--to", "to_route", required=True, metavar="ROUTE", help="Name of a route; - for that of each address."
)
@_which_options(*_LIVE)
def reroute(which: _Which, to_route: str) -> int:
    """Send what still waits over another route, at once. What is held stays held."""
    name = "" if to_route == "-" else to_route
    return _change(
        which,
        "rerouted",
        f"goes over {to_route}" if name else "goes where its addresses lead",
        lambda caller, ids: caller.call(REROUTE, RerouteArguments(ids, name)),
    )
