"""`lonedot why`: the journey of one message in plain words."""

from __future__ import annotations

import re
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

__all__ = ["command", "print_lines", "wrapped"]

_MAX_WIDTH = 120
_SIGN = re.compile(r"<(?:CR|LF|[0-9A-F]{2})>|.", re.DOTALL)


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
        for text in wrapped(line, width):
            click.echo(_coloured(line.kind, text))


def wrapped(line: Line, width: int) -> list[str]:
    lead = "  " * line.indent
    if not width or len(lead) + len(line.text) <= width:
        return [lead + line.text if line.text else ""]
    if line.kind is Kind.OCTETS:
        return _wrapped_octets(line.text, lead, max(width, 40))
    return textwrap.wrap(
        line.text,
        max(width, 40),
        initial_indent=lead,
        subsequent_indent=lead + "    ",
        break_on_hyphens=False,
    )


def _wrapped_octets(text: str, lead: str, width: int) -> list[str]:
    """Filled lines, white space kept, never cut inside the name of an octet."""
    lines = [lead]
    for sign in _SIGN.findall(text):
        if len(lines[-1]) + len(sign) > width:
            lines.append(lead + "    ")
        lines[-1] += sign
    return lines


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
