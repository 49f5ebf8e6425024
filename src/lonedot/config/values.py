"""One value of the configuration at a time: what TOML gives in, what the relay works with out.

A *reader* takes the plain value and the folder of the file, and returns the value or raises `Unfit` with two
sentences: what is wrong, and what to write. Readers touch neither disk nor network; `check` does that.
"""

from __future__ import annotations

import enum
import math
import re
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

__all__ = [
    "MAX_ITEMS",
    "Reader",
    "Secret",
    "Unfit",
    "boolean",
    "count_or_auto",
    "duration",
    "guid",
    "label",
    "many",
    "number",
    "one_of",
    "path",
    "secret",
    "show",
    "size",
    "text",
    "whole",
]

T = TypeVar("T")
E = TypeVar("E", bound=enum.Enum)

Reader = Callable[[object, Path], T]

MAX_ITEMS = 10_000
"""Items in one list."""


class Unfit(Exception):
    """A value that cannot be used: `what` is wrong, what to `do`; `item` is its place in a list, or -1.

    Of a list, the first wrong item is raised and has the `others` with it.
    """

    def __init__(self, what: str, do: str, item: int = -1) -> None:
        super().__init__(what)
        self.others: list[Unfit] = []
        self.what = what
        self.do = do
        self.item = item


class Secret:
    """A password. It shows itself to nobody who does not ask by name: no repr, no encoder."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__


def show(value: object) -> str:
    """A value as a person wrote it, cut to 60 signs."""
    if isinstance(value, bool):
        words = "true" if value else "false"
    elif isinstance(value, dict):
        words = "a table"
    elif isinstance(value, list):
        words = "a list"
    else:
        words = repr(value) if isinstance(value, str) else str(value)
    words = words.replace("'", '"') if isinstance(value, str) and '"' not in words else words
    return words if len(words) <= 60 else words[:57] + "…"


# --- texts ---------------------------------------------------------------------------------------


def text(value: object, _: Path) -> str:
    """A text of 1 to 1000 signs on one line."""
    if not isinstance(value, str):
        raise Unfit(f"{show(value)} is not a text", 'put it in quotation marks: "…"')
    if not value.strip():
        raise Unfit("is empty", "give a value or remove the line")
    if len(value) > 1000:
        raise Unfit(f"is {len(value)} signs long", "use at most 1000")
    if not value.isprintable():
        raise Unfit(f"{show(value)} holds control signs", "use printable signs on one line")
    return value


def label(value: object, folder: Path) -> str:
    """A display name, at most 100 signs."""
    name = text(value, folder).strip()
    if len(name) > 100:
        raise Unfit(f"is {len(name)} signs long", "use at most 100")
    return name


def secret(value: object, folder: Path) -> Secret:
    return Secret(text(value, folder))


def path(value: object, folder: Path) -> Path:
    """A path; a relative one is counted from the folder of the configuration."""
    name = text(value, folder)
    if len(name.encode("utf-8", "surrogatepass")) > 900:
        raise Unfit("is too long for a path", "use a shorter one")
    if name.startswith("~"):
        raise Unfit(f"{show(name)} starts with ~, which only a shell understands", "write the whole path")
    return folder / name


def boolean(value: object, _: Path) -> bool:
    if not isinstance(value, bool):
        raise Unfit(
            f"{show(value)} is neither true nor false", "write true or false, without quotation marks"
        )
    return value


def one_of(kind: type[E]) -> Reader[E]:
    """The member of `kind` with that value."""
    allowed = ", ".join(f'"{member.value}"' for member in kind)

    def read(value: object, _: Path) -> E:
        try:
            return kind(value)
        except ValueError:
            raise Unfit(f"{show(value)} is not one of the choices", f"write one of {allowed}") from None

    return read


def guid(value: object, folder: Path) -> str:
    """A GUID as registries write it: upper case, in braces."""
    words = text(value, folder).strip().strip("{}")
    if re.fullmatch(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}", words) is None:
        raise Unfit(f"{show(value)} is not a GUID", 'write it as "01234567-89ab-cdef-0123-456789abcdef"')
    return "{" + str(uuid.UUID(words)).upper() + "}"


# --- numbers -------------------------------------------------------------------------------------


def whole(lowest: int, highest: int) -> Reader[int]:
    """A whole number in a range."""

    def read(value: object, _: Path) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise Unfit(f"{show(value)} is not a whole number", f"write a number from {lowest} to {highest}")
        if not lowest <= value <= highest:
            raise Unfit(f"{show(value)} is out of range", f"write a number from {lowest} to {highest}")
        return value

    return read


def count_or_auto(highest: int) -> Reader[int | str]:
    """A whole number from 1, or `auto`."""

    def read(value: object, _: Path) -> int | str:
        if value == "auto":
            return "auto"
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= highest:
            raise Unfit(f"{show(value)} is no such number", f'write "auto", or a number from 1 to {highest}')
        return value

    return read


def number(lowest: float, highest: float) -> Reader[float]:
    """A number in a range, fractions allowed."""
    range_words = f"write a number from {lowest:g} to {highest:g}"

    def read(value: object, _: Path) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Unfit(f"{show(value)} is not a number", range_words)
        if not lowest <= value <= highest:  # also false of nan
            raise Unfit(f"{show(value)} is out of range", range_words)
        return float(value)

    return read


_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)\s*([KMGT]i?B|[KMGT]|B|octets|bytes)?", re.IGNORECASE)
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def size(lowest: int, highest: int) -> Reader[int]:
    """A number of octets: 52428800, "50 MiB" (by 1024), "50 MB" (by 1000)."""
    range_words = (
        f'write octets or a text such as "50 MiB", from {octets_words(lowest)} to {octets_words(highest)}'
    )

    def read(value: object, _: Path) -> int:
        octets: float
        if isinstance(value, str):
            found = _SIZE.fullmatch(value.strip())
            if found is None:
                raise Unfit(f"{show(value)} is not a size", range_words)
            unit = (found[2] or "").upper()
            if unit in ("B", "OCTETS", "BYTES"):
                unit = ""
            base = 1000 if len(unit) == 2 else 1024
            octets = float(found[1]) * base ** _POWERS[unit[:1]]
        elif isinstance(value, int) and not isinstance(value, bool):
            octets = value
        else:
            raise Unfit(f"{show(value)} is not a size", range_words)
        if not lowest <= octets <= highest:
            raise Unfit(f"{show(value)} is out of range", range_words)
        return int(octets)

    return read


def octets_words(octets: int) -> str:
    """`50 MiB` where it comes out even, else the plain number."""
    for unit, power in (("TiB", 4), ("GiB", 3), ("MiB", 2), ("KiB", 1)):
        if octets and octets % 1024**power == 0:
            return f"{octets // 1024**power} {unit}"
    return str(octets)


_SPAN = re.compile(r"(?:(\d{1,9}(?:\.\d{1,6})?)\s*(d|h|min|m|s)\s*)+", re.IGNORECASE)
_SPAN_PART = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)\s*(d|h|min|m|s)", re.IGNORECASE)
_SPAN_SECONDS = {"d": 86400, "h": 3600, "min": 60, "m": 60, "s": 1}


def duration(lowest: float, highest: float) -> Reader[timedelta]:
    """A span of time: a number of seconds, or "30s", "5m", "4h", "2d", "1h 30m". The limits are in seconds."""
    range_words = (
        f'write seconds or a text such as "30s", "5m", "4h" or "2d", '
        f"from {span_words(lowest)} to {span_words(highest)}"
    )

    def read(value: object, _: Path) -> timedelta:
        seconds: float
        if isinstance(value, str) and len(value) <= 100 and _SPAN.fullmatch(value.strip()):
            parts = _SPAN_PART.findall(value)
            seconds = math.fsum(float(count) * _SPAN_SECONDS[unit.lower()] for count, unit in parts)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            seconds = value
        else:
            raise Unfit(f"{show(value)} is not a span of time", range_words)
        if not lowest <= seconds <= highest:
            raise Unfit(f"{show(value)} is out of range", range_words)
        return timedelta(seconds=seconds)

    return read


def span_words(seconds: float) -> str:
    """`2d`, `90s`: the largest unit in which it comes out even."""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds and seconds % length == 0:
            return f"{seconds / length:g}{unit}"
    return f"{seconds:g}s"


# --- lists ---------------------------------------------------------------------------------------


def many(item: Reader[T], *, at_least: int = 0) -> Reader[tuple[T, ...]]:
    """A list of values, each by the reader `item`; one value alone may stand without brackets."""

    def read(value: object, folder: Path) -> tuple[T, ...]:
        if not isinstance(value, list):
            return (item(value, folder),)
        if len(value) < at_least:
            raise Unfit("is an empty list", "name at least one, or remove the line")
        if len(value) > MAX_ITEMS:
            raise Unfit(f"is a list of {len(value)} items", f"use at most {MAX_ITEMS}")
        items: list[T] = []
        wrong: list[Unfit] = []
        for place, one in enumerate(value):
            try:
                items.append(item(one, folder))
            except Unfit as unfit:
                wrong.append(Unfit(unfit.what, unfit.do, place))
        if wrong:
            wrong[0].others = wrong[1:]
            raise wrong[0]
        return tuple(items)

    return read
