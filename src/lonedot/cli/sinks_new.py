"""`lonedot sinks new`: a sink that works, its test, and what to do next.

What is written is complete and passes its test as it stands, so that whoever changes it starts from something that is
known to work. Nothing that exists is written over.
"""

from __future__ import annotations

import difflib
import keyword
import re
import shlex
from pathlib import Path

import click
import msgspec

from lonedot.cli.output import Problem, json_option, print_json
from lonedot.cli.sink_samples import sample_for
from lonedot.sinks.events import Event, event_named

__all__ = ["new"]

NAME_LIMIT = 64
FIELD_LIMIT = 60
_NO_NAME = re.compile(r"[^a-z0-9]+")

ENTRY = """\
[[sink]]
name = "{name}"
file = {file}
"""


class Made(msgspec.Struct, frozen=True):
    """What was written, for --json."""

    name: str
    sink: str
    test: str
    entry: str
    """What belongs into the configuration."""
    next: tuple[str, ...]
    """Commands."""


@click.command("new")
@click.argument("name")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("sinks"),
    show_default=True,
    help="Where the two files are written; made when it is not there.",
)
@click.option(
    "--on",
    "event_name",
    metavar="EVENT",
    default=Event.ARRIVAL.value,
    show_default=True,
    help="The event it is called at, by its name or an old one: docs/events.md lists them.",
)
@json_option
def new(name: str, folder: Path, event_name: str, as_json: bool) -> int:
    """Write a sink of that NAME that works, and its test.

    What it does depends on the event, and is meant to be changed.

    Prints what belongs into the configuration, and the next commands. Files that exist are not written over.
    """
    event = _event(event_name)
    sample = sample_for(event)
    function = _function_for(name)
    field = f"X-{_NO_NAME.sub('-', name.lower()).strip('-').title()}"[:FIELD_LIMIT]
    names = {"name": name, "function": function, "field": field, "event": event.value}
    sink_file, test_file = folder / f"{function}.py", folder / f"test_{function}.py"
    for file in (sink_file, test_file):
        if file.exists() or file.is_symlink():
            raise Problem("is there already", where=str(file), do="choose another name or another --folder")
    _write(sink_file, sample.sink.format(**names))
    _write(test_file, sample.test.format(**names))
    # A JSON text is a TOML text too.
    entry = ENTRY.format(name=name, file=msgspec.json.encode(str(sink_file)).decode())
    commands = (f"pytest {shlex.quote(str(test_file))}", "lonedot check --load", "lonedot serve")
    if as_json:
        print_json(Made(name, str(sink_file), str(test_file), entry, commands))
        return 0
    click.echo(f"{sink_file}: a sink that {sample.does.format(**names)}; change it to what you need")
    click.echo(f"{test_file}: its test")
    click.echo(f"\nInto lonedot.toml:\n\n{entry}")
    click.echo("Next:\n")
    for command, what in zip(
        commands, ("test it", "look whether the relay would take it", "run it"), strict=True
    ):
        click.echo(f"    {command:<40} # {what}")
    return 0


def _event(name: str) -> Event:
    """Raises Problem: there is no such event."""
    try:
        return event_named(name)
    except ValueError as error:
        near = difflib.get_close_matches(name.lower(), [event.value for event in Event], n=1)
        do = f"did you mean {near[0]}?" if near else "`lonedot sinks new --help`, docs/events.md"
        raise Problem(str(error), do=do, code=2) from error


def _function_for(name: str) -> str:
    """The name of the function and of the file.

    Raises:
        Problem: nothing can be made of it.
    """
    function = _NO_NAME.sub("_", name.lower()).strip("_")
    if (
        not function
        or function[0].isdigit()
        or len(name) > NAME_LIMIT
        or not name.isascii()
        or not name.isprintable()
        or any(sign in name for sign in "\"'\\{}")
    ):
        do = f"use ASCII letters, digits, space and -, a letter first, at most {NAME_LIMIT} signs"
        raise Problem(f"{name[:NAME_LIMIT]!r} cannot be the name of a sink", do=do, code=2)
    return f"{function}_sink" if keyword.iskeyword(function) or function in _TAKEN else function


_TAKEN = frozenset(
    {"sink", "lonedot", "pytest", "dataclasses", "logging", "settings", "test", "message", "session", "hop"}
)
"""Names that the two files use themselves."""


def _write(file: Path, text: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as out:
            out.write(text)
    except OSError as error:
        raise Problem(
            (error.strerror or str(error)).lower(), where=str(file), do="choose another --folder"
        ) from error
