"""A group of commands whose help lists each with its whole first sentence; click would cut it in the middle."""

from __future__ import annotations

import inspect

import click

__all__ = ["Commands", "first_sentence"]


class Commands(click.Group):
    """A group as every other, but for the list in its help."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [
            (name, first_sentence(command.help or ""))
            for name in self.list_commands(ctx)
            if (command := self.get_command(ctx, name)) is not None and not command.hidden
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def first_sentence(text: str) -> str:
    """Of the first paragraph."""
    words = " ".join(inspect.cleandoc(text).partition("\n\n")[0].split())
    return words.partition(". ")[0].rstrip(".") + "."
