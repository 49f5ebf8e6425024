"""`lonedot smtpreg`: the arguments of the old tool, in their old order, on the registry of today.

Unlike the old tool a name that is not there is an error, with a suggestion and a non-zero exit code, and a priority is
a number. Rules: event names are compared without case, display names exactly; a name that several bindings have means
all of them, as it did.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import click

from lonedot.admin.sinks import Bindings, Keeper
from lonedot.cli.output import Problem, json_option, print_json
from lonedot.cli.registry_access import change, registry_options, with_keeper
from lonedot.cli.smtpreg_text import enum_lines
from lonedot.sinks.bindings import DEFAULT_PRIORITY, MAX_PRIORITY
from lonedot.sinks.events import Event, event_named
from lonedot.sinks.registry import (
    Add,
    Change,
    Remove,
    Selected,
    SetKey,
    Status,
    Switch,
    UnsetKey,
)
from lonedot.sinks.registry_text import nearest

__all__ = ["command"]

PRIORITY_STEP = 10


class _Verb(NamedTuple):
    arguments: str
    fewest: int
    most: int
    run: Callable[[_Asked], int]


class _Asked(NamedTuple):
    """A command line, and where it is to work."""

    words: tuple[str, ...]
    config_file: Path
    registry_file: Path | None
    as_json: bool


@click.command("smtpreg", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": True})
@click.argument("words", metavar="/COMMAND [ARGUMENTS]...", nargs=-1, type=click.UNPROCESSED)
@registry_options
@json_option
def command(words: tuple[str, ...], config_file: Path, registry_file: Path | None, as_json: bool) -> int:
    """The old registration tool, with its arguments.

    \b
    /enum                                                    print all bindings
    /add     INSTANCE EVENT NAME CLASS RULE [PRIORITY]       register a sink
    /remove  INSTANCE EVENT NAME                             take it out
    /setprop INSTANCE EVENT NAME Source|Sink PROPERTY VALUE  set a property
    /delprop INSTANCE EVENT NAME Source|Sink PROPERTY        remove a property
    /enable  INSTANCE EVENT NAME                             let it fire
    /disable INSTANCE EVENT NAME                             keep it from firing

    A command may also begin with -. CLASS is an import path or file.py:function. NAME may be a GUID.
    """
    verb = words[0] if words else ""
    name = verb[1:].lower() if verb[:1] in ("/", "-") else ""
    known = _VERBS.get(name)
    if known is None:
        near = nearest(name or verb, _VERBS)
        do = f"did you mean /{near}?" if verb and near else f"use one of /{', /'.join(_VERBS)}"
        raise Problem(f"there is no command {verb!r}" if verb else "no command is given", do=do, code=2)
    rest = words[1:]
    if not known.fewest <= len(rest) <= known.most:
        raise Problem(
            f"/{name} takes {known.arguments or 'no arguments'}; {len(rest)} given",
            do="put what holds a space in quotation marks",
            code=2,
        )
    return known.run(_Asked(rest, config_file, registry_file, as_json))


def _which(words: Sequence[str]) -> Selected:
    """INSTANCE EVENT NAME."""
    instance, event, name = words[:3]
    if re.fullmatch(r"[0-9]{1,6}", instance) is None or not int(instance):
        raise Problem(f"instance {instance!r} is no number of a virtual server", do="the first one is 1")
    return Selected((name,), "", _event(event), int(instance), every=True)


def _event(name: str) -> Event:
    try:
        return event_named(name)
    except ValueError as error:
        from lonedot.sinks.events import EVENTS

        names = [known for facts in EVENTS.values() for known in facts.old_names]
        near = nearest(name, names)
        raise Problem(str(error), do=f"did you mean {near}?" if near else "") from None


def _bindings(asked: _Asked) -> Bindings:
    async def ask(keeper: Keeper) -> Bindings:
        return await keeper.bindings()

    return with_keeper(asked.config_file, asked.registry_file, ask)


def _enum(asked: _Asked) -> int:
    listing = _bindings(asked)
    if asked.as_json:
        print_json(listing)
        return 0
    for line in enum_lines(listing):
        click.echo(line)
    return 0


def _add(asked: _Asked) -> int:
    which = _which(asked.words)
    name, sink, rule = which.names[0], asked.words[3], asked.words[4]
    assert which.event is not None
    listing = _bindings(asked)
    if len(asked.words) > 5:
        if re.fullmatch(r"[0-9]{1,9}", asked.words[5]) is None:
            raise Problem(
                f"priority {asked.words[5]!r} is no number", do=f"write one from 0 to {MAX_PRIORITY}"
            )
        priority = int(asked.words[5])
        said = f"priority {priority}"
    else:
        priority, said = _next_priority(listing, which.event, which.source)
    is_guid = re.fullmatch(r"\{[0-9A-Fa-f-]{36}\}", name) is not None
    values: dict[str, str | int | float | bool | list[str]] = {
        **({"guid": name.upper()} if is_guid else {}),
        "name": name,
        "event": asked.words[1],
        "sink": sink,
        "priority": priority,
    }
    if which.source != 1:
        values["source"] = which.source
    if rule:
        values["rule"] = rule
    return _change(asked, (Add(values),), said)


def _next_priority(listing: Bindings, event: Event, source: int) -> tuple[int, str]:
    """The highest in use plus ten, as the old tool chose, and how that came about."""
    used = [
        binding.priority
        for binding in listing.bindings
        if binding.event is event and binding.source == source
    ]
    if not used:
        return 0, "priority 0: it is the first binding of this event"
    highest = max(used)
    if highest + PRIORITY_STEP > MAX_PRIORITY:
        words = f"priority {DEFAULT_PRIORITY}, the default: the highest in use is {highest}"
        return DEFAULT_PRIORITY, f"{words}, and plus {PRIORITY_STEP} would be more than {MAX_PRIORITY}"
    words = f"the highest in use, {highest}, plus {PRIORITY_STEP}: it fires last"
    return highest + PRIORITY_STEP, f"priority {highest + PRIORITY_STEP}: {words}"


def _remove(asked: _Asked) -> int:
    return _change(asked, (Remove(_which(asked.words)),))


def _set_property(asked: _Asked) -> int:
    # Values are text, as they were; the priority alone becomes the number that it is.
    key = _property(asked.words)
    return _change(asked, (SetKey(_which(asked.words), key, asked.words[5]),))


def _delete_property(asked: _Asked) -> int:
    return _change(asked, (UnsetKey(_which(asked.words), _property(asked.words)),))


def _property(words: Sequence[str]) -> str:
    bag = words[3].lower()
    if bag not in ("source", "sink"):
        raise Problem(f"there is no property bag {words[3]!r}", do="write Source or Sink")
    return f"{bag}_properties.{words[4]}"


def _enable(asked: _Asked) -> int:
    return _change(asked, (Switch(_which(asked.words), Status.ENABLED),))


def _disable(asked: _Asked) -> int:
    return _change(asked, (Switch(_which(asked.words), Status.DISABLED),))


def _change(asked: _Asked, changes: Sequence[Change], said: str = "") -> int:
    taken = change(asked.config_file, asked.registry_file, changes)
    if asked.as_json:
        print_json(taken)
        return 0
    for line in taken.done:
        click.echo(line)
    if said:
        click.echo(said)
    return 0


_NAMED = "INSTANCE EVENT NAME"
_VERBS = {
    "enum": _Verb("", 0, 0, _enum),
    "add": _Verb(f"{_NAMED} CLASS RULE [PRIORITY]", 5, 6, _add),
    "remove": _Verb(_NAMED, 3, 3, _remove),
    "setprop": _Verb(f"{_NAMED} Source|Sink PROPERTY VALUE", 6, 6, _set_property),
    "delprop": _Verb(f"{_NAMED} Source|Sink PROPERTY", 5, 5, _delete_property),
    "enable": _Verb(_NAMED, 3, 3, _enable),
    "disable": _Verb(_NAMED, 3, 3, _disable),
}
