"""Puts the lines of `lonedot try` on a terminal: wrapped and coloured there, one line for one line elsewhere."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from lonedot.cli.trial_story import Kind, Line

__all__ = ["Screen"]

_MAX_WIDTH = 120
_STYLES = {
    Kind.TITLE: "bold",
    Kind.STAGE: "bold",
    Kind.TEXT: "",
    Kind.OCTETS: "cyan",
    Kind.GOOD: "green",
    Kind.ALARM: "bold red",
    Kind.HINT: "yellow",
}


class Screen:
    """Where the story is told."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False, markup=False, emoji=False)

    def show(self, lines: Iterable[Line]) -> None:
        """Print the lines and flush them. Labels that are shown together share a column."""
        shown = list(lines)
        label_width = max((len(line.label) for line in shown), default=0)
        for line in shown:
            if self._console.is_terminal:
                self._show_on_terminal(line, label_width)
            else:
                self._console.file.write(_plain(line))
        self._console.file.flush()

    def _show_on_terminal(self, line: Line, label_width: int) -> None:
        console, style = self._console, _STYLES[line.kind]
        width = min(console.width, _MAX_WIDTH)
        match line.kind:
            case Kind.TITLE:
                console.print(Rule(Text(line.text, style), align="left", style="dim"), width=width)
            case Kind.STAGE:
                console.print()
                console.print(Text(line.text, style), width=width)
            case Kind.HINT:
                # Commands are to be copied: the terminal may break them, we never do.
                console.print(Text("  " * (line.indent + 1) + line.text, style), soft_wrap=True)
            case _:
                lead = 2 + 2 * line.indent
                console.print(Padding(_labelled(line, style, label_width), (0, 0, 0, lead)), width=width)


def _labelled(line: Line, style: str, label_width: int) -> Text | Table:
    text = Text(line.text, style, overflow="fold")
    if not line.label:
        return text
    table = Table.grid(padding=(0, 1))
    table.add_column(width=label_width, overflow="fold")
    table.add_column(overflow="fold")
    table.add_row(Text(line.label, "dim"), text)
    return table


def _plain(line: Line) -> str:
    lead = "" if line.kind in (Kind.TITLE, Kind.STAGE) else "  " * (line.indent + 1)
    label = f"{line.label}: " if line.label else ""
    gap = "\n" if line.kind is Kind.STAGE else ""
    return f"{gap}{lead}{label}{line.text}\n"
