"""`lonedot sinks new`: a sink that works, its test, and what to do next.

What is written is complete and passes its test as it stands, so that whoever changes it starts from something that is
known to work. Nothing that exists is written over.
"""

from __future__ import annotations

import keyword
import re
import shlex
from pathlib import Path

import click
import msgspec

from lonedot.cli.output import Problem, json_option, print_json

__all__ = ["new"]

NAME_LIMIT = 64
FIELD_LIMIT = 60
_NO_NAME = re.compile(r"[^a-z0-9]+")

SINK = '''\
"""{name}: adds the field {field} to mail that comes without it."""

from __future__ import annotations

import dataclasses

from lonedot import Edit, Message, Next, Verdict, sink


@dataclasses.dataclass(frozen=True)
class Settings:
    """What `settings = {{ … }}` of the configuration may say."""

    value: str = "yes"


@sink("{name}", on="arrival", effects={{"header"}}, settings=Settings)
def {function}(message: Message, settings: Settings) -> Verdict:
    """Called for each message, before the client is told that it was taken."""
    if message.headers.has("{field}"):
        return Next()
    return Next(edits=[Edit.add_field("{field}", settings.value)])
'''

TEST = '''\
"""Tests of the sink {name}; run them with pytest."""

from __future__ import annotations

from {function} import {function}

from lonedot.testing import StartRelay, make_message, run_sink


def test_the_field_is_added() -> None:
    run_sink({function}).assert_added("{field}", "yes")


def test_the_value_is_a_setting() -> None:
    run_sink({function}, settings={{"value": "no"}}).assert_added("{field}", "no")


def test_a_field_that_came_with_the_message_stays() -> None:
    message = make_message("{field}: mine\\n\\nhello\\n")
    run_sink({function}, message).assert_untouched()


def test_it_works_in_a_relay(lonedot_relay: StartRelay) -> None:
    relay = lonedot_relay({function})
    relay.send("Subject: an order\\n\\nten crates\\n")
    (arrival,) = relay.arrivals()
    assert arrival.headers.get("{field}") == b"yes"
'''

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
@json_option
def new(name: str, folder: Path, as_json: bool) -> int:
    """Write a sink of that NAME that works, and its test.

    Prints what belongs into the configuration, and the next commands. Files that exist are not written over.
    """
    function = _function_for(name)
    field = f"X-{_NO_NAME.sub('-', name.lower()).strip('-').title()}"[:FIELD_LIMIT]
    names = {"name": name, "function": function, "field": field}
    sink_file, test_file = folder / f"{function}.py", folder / f"test_{function}.py"
    for file in (sink_file, test_file):
        if file.exists() or file.is_symlink():
            raise Problem("is there already", where=str(file), do="choose another name or another --folder")
    _write(sink_file, SINK.format(**names))
    _write(test_file, TEST.format(**names))
    # A JSON text is a TOML text too.
    entry = ENTRY.format(name=name, file=msgspec.json.encode(str(sink_file)).decode())
    commands = (f"pytest {shlex.quote(str(test_file))}", "lonedot check --load", "lonedot serve")
    if as_json:
        print_json(Made(name, str(sink_file), str(test_file), entry, commands))
        return 0
    click.echo(f"{sink_file}: a sink that adds the field {field}; change it to what you need")
    click.echo(f"{test_file}: its test")
    click.echo(f"\nInto lonedot.toml:\n\n{entry}")
    click.echo("Next:\n")
    for command, what in zip(
        commands, ("test it", "look whether the relay would take it", "run it"), strict=True
    ):
        click.echo(f"    {command:<40} # {what}")
    return 0


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


_TAKEN = frozenset({"sink", "lonedot", "pytest", "dataclasses", "settings", "test", "message"})
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
