"""A table in the settings of a sink: a row on each line, empty lines and those that begin with # passed over."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

__all__ = ["rows_of"]

Row = TypeVar("Row")


def rows_of(setting: str, text: str, limit: int, read: Callable[[str], Row]) -> tuple[Row, ...]:
    """The rows of a table, at most `limit`, each read by `read`, which raises ValueError with words for people.

    Raises:
        ValueError: a line is no row, or there are too many; the words say which, why, and what to write.
    """
    rows: list[Row] = []
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        if not line or line.startswith("#"):
            continue
        if len(rows) == limit:
            raise ValueError(f"{setting}, line {number}: more than {limit} rows; write several bindings")
        try:
            rows.append(read(line))
        except ValueError as error:
            raise ValueError(f"{setting}, line {number}: {error}") from error
    return tuple(rows)
