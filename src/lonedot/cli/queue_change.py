"""The commands of `lonedot queue` that change messages: by id, or all that options select, in batches."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import click
import msgspec

from lonedot.admin.client import Caller
from lonedot.admin.hold_rules import (
    ADD,
    REMOVE,
    RULES,
    TAKE,
    NewRule,
    RuleNumber,
    held_by,
    parse_rule,
    queued_under,
)
from lonedot.admin.operations import DELETE, HOLD, RELEASE, RETRY
from lonedot.admin.queue_operations import BOUNCE, REROUTE
from lonedot.admin.values import (
    BounceArguments,
    Changed,
    HoldArguments,
    IdsArguments,
    ListArguments,
    NoArguments,
    RerouteArguments,
)
from lonedot.cli.output import Problem, json_option, print_json
from lonedot.cli.queue_filter import chosen_ids, filter_options, in_batches, preview
from lonedot.cli.queue_text import print_listing
from lonedot.cli.spool_access import place, place_options, work
from lonedot.diagnosis.tell import moment
from lonedot.spool.hold_rules import HoldRule
from lonedot.spool.interface import MessageState

__all__ = ["bounce", "delete", "hold", "release", "reroute", "retry", "rules"]

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


def _which_options(*states: MessageState, instead: str = "") -> Callable[[C], C]:
    """`[ID]...`, the filter, `--all`, `--limit`, `--dry-run`, and where; as one value `which`.

    Args:
        states: of the messages that are meant when none is named.
        instead: name of an option that stands in place of ids and filter; it has a value then that is not None.
    """

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
            if instead and rest[instead] is not None:
                if ids or is_filtered or everything or limit:
                    raise click.UsageError(f"--{instead} goes without ids and options that select")
                return function(which=which, **rest)
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
    when = " when the relay starts" if changed.later else ""
    if which.ids and len(which.ids) <= _MANY:
        for id in changed.done:
            click.echo(f"{id}: {done}{when}")
    else:
        click.echo(f"{_messages(len(changed.done))} {verb}{when}")
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


def hold_by_rule(which: _Which, text: str, reason: str) -> int:
    """Make a standing rule, and say what it holds already."""
    rule = parse_rule(text)

    async def task(caller: Caller) -> tuple[HoldRule, int] | None:
        if which.dry_run:
            ids = await chosen_ids(caller, queued_under(rule))
            await _say_what_would_be(caller, which, ids, "held")
            return None
        made = await caller.call(ADD, NewRule(text, reason))
        return made, (await caller.call(TAKE, NoArguments())).held

    done = work(place(which.config_file, which.spool_folder), task)
    if done is None:
        return 0
    made, held = done
    if which.as_json:
        print_json({"rule": made, "held": held})
        return 0
    click.echo(f"rule {made.number} holds {made.text}: {_messages(held)} of the queue, and all that come")
    click.echo(f"End it: lonedot queue release --rule {made.number}")
    return 0


def end_rule(which: _Which, number: int, *, and_messages: bool) -> int:
    """End a standing rule; what it holds goes on when that was asked for, or when a person at a terminal says so."""

    async def task(caller: Caller) -> tuple[HoldRule, tuple[str, ...], Changed | None]:
        if which.dry_run:
            rule = next(
                (one for one in (await caller.call(RULES, NoArguments())).rules if one.number == number), None
            )
            if rule is None:
                raise Problem(
                    f"there is no rule {number}", where="--rule", do="lonedot queue rules lists them"
                )
            return rule, await chosen_ids(caller, held_by(rule)), None
        rule = await caller.call(REMOVE, RuleNumber(number))
        await caller.call(TAKE, NoArguments())
        ids = await chosen_ids(caller, held_by(rule))
        goes = and_messages
        if ids and not goes and not which.as_json and sys.stdin.isatty() and sys.stdout.isatty():
            goes = click.confirm(f"Send on the {_messages(len(ids))} that it holds?", err=True)
        if not goes:
            return rule, ids, None
        changed = await in_batches(ids, lambda batch: caller.call(RELEASE, IdsArguments(batch)), "released")
        return rule, ids, changed

    rule, ids, changed = work(place(which.config_file, which.spool_folder), task)
    if which.as_json:
        print_json({"rule": rule, "holds": len(ids), "ended": not which.dry_run, "released": changed})
    elif which.dry_run:
        click.echo(f"rule {number} holds {_messages(len(ids))}. Nothing was changed.")
    else:
        click.echo(f"rule {number} ended: {rule.text}")
        if changed is not None:
            click.echo(f"{_messages(len(changed.done))} released")
        elif ids:
            click.echo(
                f"{_messages(len(ids))} stay held: lonedot queue release --why 'held by rule {number}:'"
            )
    return 1 if changed is not None and changed.left else 0


@click.command("rules")
@place_options
@json_option
def rules(config_file: Path, spool_folder: Path | None, as_json: bool) -> int:
    """List the standing rules that hold new messages."""
    found = work(place(config_file, spool_folder), lambda caller: caller.call(RULES, NoArguments()))
    if as_json:
        print_json(found)
        return 0
    for rule in found.rules:
        click.echo(f"{rule.number}  {rule.text}: {rule.reason} (since {moment(rule.made_at)})")
    if found.rules:
        click.echo(f"End one:  lonedot queue release --rule {found.rules[0].number}")
    else:
        click.echo("No rule holds new messages. Make one:  lonedot queue hold --rule 'to=*@example.com'")
    return 0


@click.command("hold")
@click.option("--reason", default="held by hand", show_default=True, help="Shown to all.")
@click.option(
    "--rule",
    metavar="RULE",
    help="Hold what is queued and all that comes: 'to=*@example.com', also from, domain, client, larger, smaller.",
)
@_which_options(MessageState.QUEUED, instead="rule")
def hold(which: _Which, reason: str, rule: str | None) -> int:
    """Keep messages back until they are released.

    With --rule the rule stands until lonedot queue release --rule N; lonedot queue rules lists them.
    """
    if rule is not None:
        return hold_by_rule(which, rule, reason)
    return _change(
        which,
        "held",
        "held; lonedot queue release sends it on",
        lambda caller, ids: caller.call(HOLD, HoldArguments(ids, reason)),
    )


@click.command("release")
@click.option("--rule", type=click.IntRange(1), metavar="N", help="End this rule of lonedot queue rules.")
@click.option("--and-messages", is_flag=True, help="With --rule: send on what it holds.")
@_which_options(MessageState.HELD, instead="rule")
def release(which: _Which, rule: int | None, and_messages: bool) -> int:
    """Send on messages that are held, or end a rule that holds them."""
    if rule is not None:
        return end_rule(which, rule, and_messages=and_messages)
    if and_messages:
        raise click.UsageError("--and-messages goes with --rule")
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
    """Return messages to their senders now, with a report; with the relay down, when it starts.

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
