"""Where each table, key and list item of a TOML text stands, because `tomllib` does not say.

A tolerant scanner, not a parser: on valid TOML it finds every place; on anything else it finds what it can and
never raises. A path is a tuple of names and list numbers (counted from 0): `("listener", 1, "relay_from", 0)`.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right

__all__ = ["Path", "Place", "Positions"]

Path = tuple[str | int, ...]
Place = tuple[int, int]
"""Line and column, counted from 1."""

_DEPTH = 60
"""Lists and tables within each other; what is deeper has the place of what holds it."""

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_LINE = re.compile(r"[^\n]*\n?")
_KEY = re.compile(r"[A-Za-z0-9_-]+|\"(?:[^\"\\\n]|\\.)*\"|'[^'\n]*'")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'',
    re.DOTALL,
)
_PLAIN = re.compile(r"[^,\]}\s#]+(?: [0-9][^,\]}\s#]*)?")
"""A number, truth value or date; the one space stands between date and time."""


class _Lost(Exception):
    """The text is not what was expected: the rest of the line is skipped."""


class Positions:
    """The places of one text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._line_starts = [0, *(found.end() for found in re.finditer("\n", text))]
        self._offsets: dict[Path, int] = {}
        self._counts: dict[Path, int] = {}
        self._scan()

    def of(self, path: Path) -> Place | None:
        """Where that path, or the nearest thing that holds it, stands; None when nothing of it does."""
        while path:
            offset = self._offsets.get(path)
            if offset is not None:
                return self.at(offset)
            path = path[:-1]
        return None

    def has(self, path: Path) -> bool:
        """The text has exactly that."""
        return path in self._offsets

    def at(self, offset: int) -> Place:
        """Line and column of an offset in the text."""
        line = bisect_right(self._line_starts, offset)
        return line, offset - self._line_starts[line - 1] + 1

    # --- statements ---

    def _scan(self) -> None:
        text, at, table = self._text, 0, Path()
        while True:
            at = self._skip(_BLANK, at)
            if at >= len(text):
                return
            try:
                if text.startswith("[[", at):
                    start = at
                    names, at = self._key(at + 2)
                    at = self._expect("]]", at)
                    table = self._new_item(names, start)
                elif text[at] == "[":
                    start = at
                    names, at = self._key(at + 1)
                    at = self._expect("]", at)
                    table = self._resolve(names)
                    for end in range(1, len(table) + 1):
                        self._note(table[:end], start)
                else:
                    at = self._pair(at, table, 0)
            except _Lost:
                at = self._skip(_LINE, at)

    def _pair(self, at: int, table: Path, depth: int) -> int:
        start = at
        names, at = self._key(at)
        at = self._expect("=", at)
        for end in range(1, len(names)):
            self._note((*table, *names[:end]), start)
        path = (*table, *names)
        self._note(path, start)
        return self._value(self._skip(_SPACE, at), path, depth)

    def _value(self, at: int, path: Path, depth: int) -> int:
        text = self._text
        sign = text[at : at + 1]
        if sign in ('"', "'") and sign:
            found = _STRING.match(text, at)
        elif sign == "[":
            return self._list(at + 1, path, depth + 1)
        elif sign == "{":
            return self._inline_table(at + 1, path, depth + 1)
        else:
            found = _PLAIN.match(text, at)
        if found is None:
            raise _Lost
        return found.end()

    def _list(self, at: int, path: Path, depth: int) -> int:
        if depth > _DEPTH:
            raise _Lost
        number = 0
        while True:
            at = self._skip(_BLANK, at)
            if self._text.startswith("]", at):
                return at + 1
            self._note((*path, number), at)
            at = self._value(at, (*path, number), depth)
            number += 1
            at = self._skip(_BLANK, at)
            if self._text.startswith(",", at):
                at += 1
            elif not self._text.startswith("]", at):
                raise _Lost

    def _inline_table(self, at: int, path: Path, depth: int) -> int:
        if depth > _DEPTH:
            raise _Lost
        while True:
            at = self._skip(_BLANK, at)
            if self._text.startswith("}", at):
                return at + 1
            at = self._pair(at, path, depth)
            at = self._skip(_BLANK, at)
            if self._text.startswith(",", at):
                at += 1
            elif not self._text.startswith("}", at):
                raise _Lost

    # --- parts ---

    def _key(self, at: int) -> tuple[tuple[str, ...], int]:
        names: list[str] = []
        while True:
            at = self._skip(_SPACE, at)
            found = _KEY.match(self._text, at)
            if found is None:
                raise _Lost
            names.append(_name(found[0]))
            at = self._skip(_SPACE, found.end())
            if not self._text.startswith(".", at):
                return tuple(names), at
            at += 1

    def _expect(self, sign: str, at: int) -> int:
        if not self._text.startswith(sign, at):
            raise _Lost
        return at + len(sign)

    def _skip(self, what: re.Pattern[str], at: int) -> int:
        found = what.match(self._text, at)
        return at if found is None else found.end()

    def _resolve(self, names: tuple[str, ...]) -> Path:
        """The path of a table header: below a list of tables it means the last of them."""
        path: Path = ()
        for name in names:
            path = (*path, name)
            if path in self._counts:
                path = (*path, self._counts[path] - 1)
        return path

    def _new_item(self, names: tuple[str, ...], start: int) -> Path:
        path = (*self._resolve(names[:-1]), names[-1])
        number = self._counts.get(path, 0)
        self._counts[path] = number + 1
        self._note(path, start)
        self._note((*path, number), start)
        return (*path, number)

    def _note(self, path: Path, offset: int) -> None:
        self._offsets.setdefault(path, offset)


def _name(written: str) -> str:
    if written[0] not in "\"'":
        return written
    try:
        decoded = tomllib.loads(f"k = {written}")["k"]
    except ValueError:
        return written
    return decoded if isinstance(decoded, str) else written
