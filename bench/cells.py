"""The cells of the relay benchmark: a message size, a number of sessions, a way to use connections."""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence

import msgspec

UNITS = {"B": 1, "KiB": 1024, "MiB": 1024 * 1024}


class Mode(enum.Enum):
    """How the generator uses its connections."""

    REUSE = "reuse"  # each session sends all its messages over one connection
    CONNECT = "conn"  # one message, one connection


class Cell(msgspec.Struct, frozen=True):
    """One kind of load."""

    size: int  # octets of body; smtp-source adds a header section of about 200
    sessions: int
    mode: Mode

    def __str__(self) -> str:
        return f"{size_text(self.size)} {self.sessions} {self.mode.value}"


SIZES = (1024, 10 * 1024, 100 * 1024, 5 * 1024 * 1024)
SESSIONS = (1, 20, 100)

QUICK_CELLS = (
    Cell(1024, 20, Mode.REUSE),
    Cell(10 * 1024, 1, Mode.REUSE),
    Cell(10 * 1024, 20, Mode.REUSE),
    Cell(10 * 1024, 20, Mode.CONNECT),
    Cell(100 * 1024, 20, Mode.REUSE),
    Cell(5 * 1024 * 1024, 1, Mode.REUSE),
)


def all_cells(
    sizes: Sequence[int] = SIZES, sessions: Sequence[int] = SESSIONS, modes: Sequence[Mode] = tuple(Mode)
) -> tuple[Cell, ...]:
    """Every combination, smallest first."""
    return tuple(Cell(size, count, mode) for size in sizes for count in sessions for mode in modes)


def parse_size(text: str) -> int:
    """Octets in "512B", "10KiB" or "5MiB".

    Raises:
        ValueError: no such form.
    """
    match = re.fullmatch(r"([1-9][0-9]{0,8})\s*(B|KiB|MiB)", text)
    if match is None:
        raise ValueError(f"a size is a number with B, KiB or MiB, such as 10KiB, not {text!r}")
    return int(match[1]) * UNITS[match[2]]


def size_text(octets: int) -> str:
    """The shortest exact form that `parse_size` reads."""
    for unit in ("MiB", "KiB"):
        if octets % UNITS[unit] == 0:
            return f"{octets // UNITS[unit]}{unit}"
    return f"{octets}B"
