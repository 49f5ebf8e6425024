"""Which file each table, key and list item of a configuration stands in, and where there.

A configuration is one file, or a first file and those that it includes. Its tables are put together into one tree;
a path in that tree (`("route", 3, "to")`) leads back to the file, its folder, and the line.

Rules:
1. Tables of a list (`[[route]]`) follow one another in the order of the files. A single table (`[server]`) is put
   together key by key; a key of it that stands twice is a fault, so that no file silently wins.
2. A path in a file is counted from the folder of that file.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from lonedot.config import positions
from lonedot.config.positions import Positions
from lonedot.config.values import show

__all__ = ["MAX_FILES", "MAX_PATTERNS", "Clash", "Matched", "Origins", "Spot", "matched_files"]

MAX_FILES = 200
"""Files that one configuration may include."""

MAX_PATTERNS = 100


class Spot(NamedTuple):
    """A place in a file; line and column are 0 when the file as a whole is meant."""

    file: Path
    line: int
    column: int


class Clash(NamedTuple):
    """Something that stands in two files and may stand in one."""

    spot: Spot
    where: str
    first: Spot


class _File(NamedTuple):
    path: Path
    folder: Path
    positions: Positions


class Origins:
    """The files of one configuration, the first one first."""

    def __init__(self, path: Path, places: Positions) -> None:
        self._files = [_File(path, path.absolute().parent, places)]
        self._items: dict[tuple[str, int], tuple[int, int]] = {}
        """Number of a table of a list in the whole: the file, and its number there. Those of the first are not here."""
        self._keys: dict[tuple[str, str], int] = {}
        """Table and key: the file, when it is not the first."""
        self._tables: dict[str, int] = {}
        """What stands in another file than the first alone."""

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(file.path for file in self._files)

    def spot(self, path: positions.Path) -> Spot:
        """Where a path, or the nearest thing that holds it, stands."""
        number, local = self._local(path)
        file = self._files[number]
        return Spot(file.path, *(file.positions.of(local) or (0, 0)))

    def stands(self, path: positions.Path) -> bool:
        """Some file has it."""
        number, local = self._local(path)
        return self._files[number].positions.has(local)

    def folder(self, path: positions.Path) -> Path:
        """From where paths are counted in the file that has it."""
        return self._files[self._local(path)[0]].folder

    def rank(self, file: str) -> int:
        """The place of a file in the order in which faults are told."""
        return next((n for n, known in enumerate(self._files) if str(known.path) == file), len(self._files))

    def take(
        self, path: Path, places: Positions, tables: Mapping[str, object], whole: dict[str, object]
    ) -> Iterator[Clash]:
        """Puts the tables of an included file into the whole; yields what stands there already."""
        number = len(self._files)
        self._files.append(_File(path, path.absolute().parent, places))
        for name, table in tables.items():
            there = whole.get(name)
            if there is None:
                whole[name] = list(table) if isinstance(table, list) else _copy(table)
                self._tables[name] = number
                if isinstance(table, list):
                    self._items.update({(name, at): (number, at) for at in range(len(table))})
            elif isinstance(there, list) and isinstance(table, list):
                for at, item in enumerate(table):
                    self._items[name, len(there)] = (number, at)
                    there.append(item)
            elif isinstance(there, dict) and isinstance(table, dict):
                for key, value in table.items():
                    if key in there:
                        yield self._clash(number, (name, key), f"{name}: {show(key)[1:-1]}")
                    else:
                        there[key] = value
                        self._keys[name, key] = number
            else:
                yield self._clash(number, (name,), show(name)[1:-1])

    def _clash(self, number: int, path: positions.Path, where: str) -> Clash:
        file = self._files[number]
        return Clash(Spot(file.path, *(file.positions.of(path) or (0, 0))), where, self.spot(path))

    def _local(self, path: positions.Path) -> tuple[int, positions.Path]:
        """The number of the file, and the path there."""
        match path:
            case (str(name), int(at), *rest) if (name, at) in self._items:
                number, local = self._items[name, at]
                return number, (name, local, *rest)
            case (str(name), str(key), *_) if (name, key) in self._keys:
                return self._keys[name, key], path
            case (str(name), *_):
                return self._tables.get(name, 0), path
            case _:
                return 0, path


def _copy(table: object) -> object:
    return dict(table) if isinstance(table, dict) else table


class Matched(NamedTuple):
    """What a pattern of `include` leads to; `fault` has what is wrong and what to do, or is empty."""

    files: tuple[Path, ...]
    what: str = ""
    do: str = ""


def matched_files(pattern: object, folder: Path) -> Matched:
    """The files of a pattern, in the order of their names; a name that begins with a dot is left out by `*`."""
    if not isinstance(pattern, str) or not pattern.strip() or not pattern.isprintable():
        return Matched((), f"{show(pattern)} is not the name of a file", 'write it as "conf.d/*.toml"')
    if len(pattern.encode("utf-8", "surrogatepass")) > 900 or "**" in pattern:
        return Matched((), f"{show(pattern)} is too long or goes through folders", 'write "conf.d/*.toml"')
    try:
        if not glob.has_magic(pattern):
            return Matched((folder / pattern,))
        names = sorted(glob.glob(pattern, root_dir=folder))
    except (OSError, ValueError, UnicodeError) as error:
        return Matched((), f"{show(pattern)} cannot be looked up: {error}"[:200], 'write "conf.d/*.toml"')
    if len(names) > MAX_FILES:
        return Matched((), f"{show(pattern)} matches {len(names)} files", f"include at most {MAX_FILES}")
    return Matched(tuple(folder / name for name in names))
