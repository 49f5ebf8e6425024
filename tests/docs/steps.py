"""A page of documentation as steps: files that it says to write, commands that it says to run, and what they print.

- A fenced block behind a line such as "Let `sinks/one.py` be:" is a file.
- A block `console` holds commands behind `$ `, each followed by what it prints; `…` stands for anything, also for
  several lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["Command", "File", "matches", "steps_of"]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NAMED = re.compile(r"\bLet `([\w./-]+)` be:\s*\Z")


class File(NamedTuple):
    """A file that the page shows."""

    path: Path
    text: str


class Command(NamedTuple):
    """A command line, and what the page says that it prints."""

    line: str
    output: str


def steps_of(page: str) -> Iterator[File | Command]:
    """The steps in the order of the page.

    Raises:
        ValueError: a block that is neither a file nor commands: nobody would run it.
    """
    for block in _FENCE.finditer(page):
        kind, text = block[1], block[2]
        if kind == "console":
            yield from _commands(text)
        elif named := _NAMED.search(page, 0, block.start()):
            yield File(Path(named[1]), text)
        else:
            raise ValueError(f"a block `{kind}` that is no step: {text[:60]!r}")


def _commands(text: str) -> Iterator[Command]:
    _, *parts = re.split(r"^\$ ", text, flags=re.MULTILINE)
    for part in parts:
        line, _, output = part.partition("\n")
        yield Command(line, output)


def matches(printed: str, wanted: str) -> bool:
    """What was printed is what the page shows."""
    pattern = ".*".join(re.escape(piece) for piece in wanted.strip().split("…"))
    return re.fullmatch(pattern, printed.strip(), re.DOTALL) is not None
