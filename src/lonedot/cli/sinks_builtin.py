"""`lonedot sinks builtin`: which sinks come with the relay, their settings, and a first configuration for each."""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Iterator

import click

from lonedot.cli.output import Problem, json_option, print_json
from lonedot.sinks.catalogue import BuiltIn, SettingOf, built_ins

__all__ = ["builtin"]

WIDTH = 100


@click.command("builtin")
@click.argument("name", required=False)
@json_option
def builtin(name: str | None, as_json: bool) -> int:
    """The sinks that come with the relay, or all of the one of that NAME.

    NAME is what stands behind `import` in a [[sink]]. No configuration is read.
    """
    known = built_ins()
    if name is None:
        if as_json:
            print_json(known)
            return 0
        for line in _list_lines(known):
            click.echo(line)
        return 0
    one = _named(known, name)
    if as_json:
        print_json(one)
        return 0
    for line in _show_lines(one):
        click.echo(line)
    return 0


def _named(known: tuple[BuiltIn, ...], name: str) -> BuiltIn:
    """Raises Problem: there is none of that name."""
    for one in known:
        if name.casefold() in (one.name.casefold(), one.title.casefold(), one.code.casefold()):
            return one
    near = difflib.get_close_matches(name.casefold(), [one.name for one in known], n=1)
    do = f"did you mean {near[0]}?" if near else "`lonedot sinks builtin` lists them"
    raise Problem(f"no sink {name!r} comes with the relay", do=do)


def _list_lines(known: tuple[BuiltIn, ...]) -> Iterator[str]:
    rows = [(one.name, one.event.value, one.role.value, one.about) for one in known]
    heading = ("IMPORT", "EVENT", "ROLE", "WHAT IT IS")
    widths = [max(len(row[n]) for row in (heading, *rows)) for n in range(3)]
    for row in (heading, *rows):
        fixed = [text.ljust(width) for text, width in zip(row, widths, strict=False)]
        yield "  ".join([*fixed, row[3]])
    yield ""
    yield "lonedot sinks builtin NAME shows settings and a first configuration"


def _show_lines(one: BuiltIn) -> Iterator[str]:
    yield from textwrap.wrap(one.about, WIDTH)
    yield ""
    pairs = (
        ("import", one.name),
        ("code", one.code),
        ("event", one.event.value),
        ("priority", str(one.priority)),
        ("rule", one.rule or "every message"),
        ("reads", ",".join(part.value for part in one.reads)),
        ("effects", ",".join(effect.value for effect in one.effects) or "-"),
        ("role", one.role.value),
        ("on_damage", one.on_damage.value if one.on_damage is not None else "as its role says"),
        ("on_error", one.on_error.value),
        ("split", "yes" if one.split else "no"),
        ("page", one.page),
    )
    for key, text in pairs:
        yield f"{key:<15} {text}"
    yield ""
    yield "settings:" if one.settings else "settings: none"
    for setting in one.settings:
        yield from _setting_lines(setting)
    yield ""
    yield "a first configuration, for lonedot.toml:"
    yield ""
    yield from (f"    {line}" for line in one.first.splitlines())


def _setting_lines(setting: SettingOf) -> Iterator[str]:
    kind = ", ".join(setting.choices) if setting.choices else setting.type
    default = "required" if setting.is_required else f"default {_written(setting)}"
    yield f"    {setting.name}: {kind}; {default}"
    if setting.meaning:
        yield from textwrap.wrap(setting.meaning, WIDTH, initial_indent=" " * 8, subsequent_indent=" " * 8)


def _written(setting: SettingOf) -> str:
    match setting.default:
        case bool():
            return "true" if setting.default else "false"
        case str():
            return f'"{setting.default}"'
        case None:
            return "none"
        case _:
            return f"{setting.default:g}" if isinstance(setting.default, float) else str(setting.default)
