"""`lonedot why`: the journey of one message in plain words."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path

import click

from lonedot.admin.client import Caller
from lonedot.admin.operations import WHY
from lonedot.admin.values import IdArguments
from lonedot.cli.output import json_option, print_json
from lonedot.cli.spool_access import place, place_options, work
from lonedot.diagnosis.tell import Kind, Line, tell
from lonedot.diagnosis.why import Journey

__all__ = ["command", "print_lines"]

_MAX_WIDTH = 120


@click.command("why")
@click.argument("id", metavar="ID")
@click.option("--transcript", "transcripts", is_flag=True, help="Put the recorded conversations in.")
@place_options
@json_option
def command(id: str, transcripts: bool, config_file: Path, spool_folder: Path | None, as_json: bool) -> int:
    """Tell the journey of one message: where it came from, who changed it, where it went, what happens next.

    ID is the id of the message, or a part of at least four signs that no other message has.
    """

    async def ask(caller: Caller) -> Journey:
        return await caller.call(WHY, IdArguments(id))

    journey = work(place(config_file, spool_folder), ask)
    if as_json:
        print_json(journey)
    else:
        print_lines(tell(journey, transcripts=transcripts))
    return 0


def print_lines(lines: Iterable[Line]) -> None:
    """To standard output: wrapped and coloured on a terminal, one line for one line elsewhere."""
    width = min(shutil.get_terminal_size().columns, _MAX_WIDTH) if sys.stdout.isatty() else 0
    for line in lines:
        for text in _wrapped(line, width):
            click.echo(_coloured(line.kind, text))


def _wrapped(line: Line, width: int) -> list[str]:
    lead = "  " * line.indent
    if not width or len(lead) + len(line.text) <= width:
        return [lead + line.text if line.text else ""]
    return textwrap.wrap(
        line.text,
        max(width, 40),
        initial_indent=lead,
        subsequent_indent=lead + "    ",
        break_on_hyphens=False,
        drop_whitespace=line.kind is not Kind.OCTETS,
    )


def _coloured(kind: Kind, text: str) -> str:
    match kind:
        case Kind.TITLE | Kind.HEADING:
            return click.style(text, bold=True)
        case Kind.GOOD:
            return click.style(text, fg="green")
        case Kind.ALARM:
            return click.style(text, fg="red", bold=True)
        case Kind.OCTETS:
            return click.style(text, fg="cyan")
        case Kind.HINT:
            return click.style(text, fg="yellow")
        case Kind.TEXT | Kind.EMPTY:
            return text
