"""`lonedot sinks`: list, change and try bindings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import click

from lonedot.admin.sinks import Bindings, Keeper, ListedBinding, Taken, find, of_source
from lonedot.cli.commands import Commands
from lonedot.cli.output import Problem, json_option, print_json
from lonedot.cli.registry_access import change, registry_options, source_option, with_keeper
from lonedot.cli.sinks_builtin import builtin
from lonedot.cli.sinks_new import new
from lonedot.cli.sinks_text import differing_lines, list_lines, show_lines
from lonedot.cli.sinks_try import order, test
from lonedot.sinks.registry import (
    Add,
    Change,
    Origin,
    Remove,
    Selected,
    SetKey,
    Status,
    Switch,
    UnsetKey,
    Written,
)

__all__ = ["command"]

_LISTS = ("effects", "reads")
_NUMBERS = ("priority", "source", "maximum_faults")


@click.group("sinks", cls=Commands)
def command() -> None:
    """List, change and try the bindings of sinks.

    With the relay running a change is made by the relay and in force when the command returns. With --registry a
    command works on that file alone.
    """


command.add_command(builtin)
command.add_command(new)
command.add_command(order)
command.add_command(test)


def _bindings(config_file: Path, registry_file: Path | None, source: int = 0) -> Bindings:
    async def ask(keeper: Keeper) -> Bindings:
        return of_source(await keeper.bindings(), source)

    return with_keeper(config_file, registry_file, ask)


@command.command("list")
@source_option
@registry_options
@json_option
def list_(source: int, config_file: Path, registry_file: Path | None, as_json: bool) -> int:
    """All bindings, in firing order over all events."""
    listing = _bindings(config_file, registry_file, source)
    if as_json:
        print_json(listing)
        return 0
    for line in list_lines(listing):
        click.echo(line)
    if listing.unloaded and not registry_file:
        click.echo(f"the code does not load: {listing.unloaded}", err=True)
    return 0


@command.command("show")
@click.argument("name", metavar="NAME|GUID")
@source_option
@registry_options
@json_option
def show(name: str, source: int, config_file: Path, registry_file: Path | None, as_json: bool) -> int:
    """All of one binding."""

    async def ask(keeper: Keeper) -> ListedBinding:
        return find(of_source(await keeper.bindings(), source).bindings, name)

    binding = with_keeper(config_file, registry_file, ask)
    if as_json:
        print_json(binding)
    else:
        for line in show_lines(binding):
            click.echo(line)
    return 0


@command.command("add")
@click.argument("name")
@click.argument("sink", metavar="SINK")
@click.option("--event", default="", help="When it fires; what its code says when not given.")
@click.option("--priority", type=int, help="0 to 32767, low first.")
@click.option("--rule", help="Which messages.")
@click.option("--reads", help="What it is shown: envelope, header, body, separated by commas.")
@click.option("--effects", help="What it may change: header, body, envelope, separated by commas.")
@click.option("--role", help="cosmetic or protective.")
@click.option("--on-damage", help="undo, repair, hold or reject.")
@click.option("--on-error", help="defer, skip, reject or hold.")
@click.option("--isolation", help="inline or process.")
@click.option("--deadline", help="How long a call may take, such as 10s.")
@click.option("--memory", help="Address space of its process, such as 512 MiB.")
@click.option("--user", help="As whom its process runs, when the relay runs as root.")
@click.option("--split", is_flag=True, default=None, help="It is called for each recipient.")
@click.option("--maximum-faults", type=int, help="After so many within an hour it is no longer trusted.")
@click.option("--mode", help="live, or shadow: shown live mail, and nothing of what it says is done.")
@click.option("--group", help="A group that it belongs to.")
@click.option("--source", type=int, help="Number of the virtual server.")
@click.option("--guid", help="Its GUID; derived from the name when not given.")
@click.option("--disabled", is_flag=True, help="Register it without enabling it.")
@click.option(
    "--property", "properties", multiple=True, metavar="NAME=VALUE", help="A property for the sink."
)
@registry_options
@json_option
def add(
    name: str,
    sink: str,
    event: str,
    priority: int | None,
    rule: str | None,
    reads: str | None,
    effects: str | None,
    role: str | None,
    on_damage: str | None,
    on_error: str | None,
    isolation: str | None,
    deadline: str | None,
    memory: str | None,
    user: str | None,
    split: bool | None,
    maximum_faults: int | None,
    mode: str | None,
    group: str | None,
    source: int | None,
    guid: str | None,
    disabled: bool,
    properties: tuple[str, ...],
    config_file: Path,
    registry_file: Path | None,
    as_json: bool,
) -> int:
    """Register SINK (an import path, or file.py:function) under a NAME."""
    given: dict[str, Written | None] = {
        "guid": guid,
        "name": name,
        "source": source,
        "event": event or None,
        "sink": sink,
        "status": Status.DISABLED.value if disabled else None,
        "priority": priority,
        "rule": rule,
        "reads": _listed(reads) if reads is not None else None,
        "effects": _listed(effects) if effects is not None else None,
        "role": role,
        "on_damage": on_damage,
        "on_error": on_error,
        "isolation": isolation,
        "deadline": deadline,
        "memory": memory,
        "user": user,
        "split": split,
        "maximum_faults": maximum_faults,
        "mode": mode,
        "group": group,
    }
    values = {key: value for key, value in given.items() if value is not None}
    bag = {}
    for one in properties:
        key, equals, value = one.partition("=")
        if not equals or not key:
            raise Problem(f"{one!r} is no property", do="write --property NAME=VALUE", code=2)
        bag[key] = _scalar(value)
    return _change(config_file, registry_file, as_json, Add(values, sink_properties=bag))


def _selection(names: tuple[str, ...], group: str, source: int) -> Selected:
    if not names and not group:
        raise Problem("no binding is named", do="give a NAME, a GUID or --group", code=2)
    return Selected(names, group, source=source)


@command.command("remove")
@click.argument("names", metavar="NAME|GUID...", nargs=-1)
@click.option("--group", default="", help="All of a group.")
@source_option
@registry_options
@json_option
def remove(
    names: tuple[str, ...],
    group: str,
    source: int,
    config_file: Path,
    registry_file: Path | None,
    as_json: bool,
) -> int:
    """Take bindings out of the registry."""
    return _change(config_file, registry_file, as_json, Remove(_selection(names, group, source)))


@command.command("enable")
@click.argument("names", metavar="NAME|GUID...", nargs=-1)
@click.option("--group", default="", help="All of a group.")
@source_option
@registry_options
@json_option
def enable(
    names: tuple[str, ...],
    group: str,
    source: int,
    config_file: Path,
    registry_file: Path | None,
    as_json: bool,
) -> int:
    """Let bindings fire."""
    return _change(
        config_file, registry_file, as_json, Switch(_selection(names, group, source), Status.ENABLED)
    )


@command.command("disable")
@click.argument("names", metavar="NAME|GUID...", nargs=-1)
@click.option("--group", default="", help="All of a group.")
@source_option
@registry_options
@json_option
def disable(
    names: tuple[str, ...],
    group: str,
    source: int,
    config_file: Path,
    registry_file: Path | None,
    as_json: bool,
) -> int:
    """Keep bindings from firing; they stay in the registry."""
    return _change(
        config_file, registry_file, as_json, Switch(_selection(names, group, source), Status.DISABLED)
    )


@command.command("set")
@click.argument("name", metavar="NAME|GUID")
@click.argument("key")
@click.argument("value")
@click.option("--text", "as_text", is_flag=True, help="VALUE is a text, also where it looks like a number.")
@source_option
@registry_options
@json_option
def set_(
    name: str,
    key: str,
    value: str,
    as_text: bool,
    source: int,
    config_file: Path,
    registry_file: Path | None,
    as_json: bool,
) -> int:
    """Give KEY of a binding a VALUE.

    KEY is one of the binding (priority, rule, effects, …), or sink_properties.PROPERTY.
    """
    return _change(
        config_file,
        registry_file,
        as_json,
        SetKey(Selected((name,), source=source), key, _value(key, value, as_text)),
    )


@command.command("unset")
@click.argument("name", metavar="NAME|GUID")
@click.argument("key")
@source_option
@registry_options
@json_option
def unset(
    name: str, key: str, source: int, config_file: Path, registry_file: Path | None, as_json: bool
) -> int:
    """Take KEY from a binding, so that its default holds."""
    return _change(config_file, registry_file, as_json, UnsetKey(Selected((name,), source=source), key))


@command.command("reload")
@registry_options
@json_option
def reload(config_file: Path, registry_file: Path | None, as_json: bool) -> int:
    """Have the running relay take the registry, and the code of the sinks, as they are now."""
    if registry_file is not None:
        raise Problem("no relay runs from a registry file", do="name its configuration with -c", code=2)

    async def ask(keeper: Keeper) -> Taken:
        return await keeper.reload(os.geteuid())

    taken = with_keeper(config_file, None, ask)
    if as_json:
        print_json(taken)
    elif not taken.running:
        click.echo(f"no relay runs; the registry, revision {taken.after}, can be used")
    elif taken.before == taken.after:
        click.echo(f"in force: revision {taken.after}, as before; the code is loaded anew")
    else:
        click.echo(f"in force: revision {taken.after} (before: {taken.before})")
    return 0


@command.command("diff")
@click.argument("before", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("after", type=click.Path(path_type=Path, dir_okay=False), required=False)
@registry_options
@json_option
def diff(
    before: Path, after: Path | None, config_file: Path, registry_file: Path | None, as_json: bool
) -> int:
    """What differs from one registry file to another, or to the bindings in force.

    Exits 1 when something does.
    """
    if after is None:
        after = registry_file
    for file in (before, after):
        if file is not None and not file.exists():
            raise Problem("there is no such registry", where=str(file), do="mend the name")
    left = _bindings(config_file, before).bindings
    right = _bindings(config_file, after).bindings
    if after is None:
        # What the file leaves to the code cannot differ, and what stands in the configuration is in no registry.
        right = tuple(binding for binding in right if binding.origin is Origin.REGISTRY)
        known = {binding.guid: binding for binding in right}
        left = tuple(_as_far_as_written(binding, known) for binding in left)
    lines = tuple(differing_lines(left, right))
    if as_json:
        print_json({"differences": lines})
    else:
        for line in lines or ("no difference",):
            click.echo(line)
    return 1 if lines else 0


def _as_far_as_written(binding: ListedBinding, known: Mapping[str, ListedBinding]) -> ListedBinding:
    import msgspec

    other = known.get(binding.guid)
    if other is None:
        return binding
    unsaid = {
        key: getattr(other, key) for key in ListedBinding.__struct_fields__ if getattr(binding, key) is None
    }
    if not binding.rule_is_written:
        unsaid["rule"] = other.rule
    if not binding.priority_is_written:
        unsaid["priority"] = other.priority
    return msgspec.structs.replace(binding, **unsaid)


def _change(config_file: Path, registry_file: Path | None, as_json: bool, one: Change) -> int:
    taken = change(config_file, registry_file, (one,))
    if as_json:
        print_json(taken)
        return 0
    for line in taken.done:
        click.echo(line)
    how = "in force" if taken.running else "written"
    click.echo(f"{how}: revision {taken.after}")
    return 0


def _value(key: str, value: str, as_text: bool) -> Written:
    if key in _LISTS:
        return _listed(value)
    if key.partition(".")[2] and not as_text:
        return _scalar(value)
    if key == "split" and value in ("true", "false") and not as_text:
        return value == "true"
    if key in _NUMBERS and not as_text:
        try:
            return int(value)
        except ValueError:
            return value  # reading says what is wrong with it
    return value


def _scalar(value: str) -> str | int | float | bool:
    """A property as TOML would read it; what is no number and no truth value is a text."""
    if value in ("true", "false"):
        return value == "true"
    for kind in (int, float):
        try:
            number = kind(value)
        except ValueError:
            continue
        if str(number) == value:  # 007 and 1e5 are texts: they would not come out as they went in
            return number
    return value


def _listed(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]
