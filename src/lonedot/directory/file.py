"""A file of the directory, read again when it has changed.

Rules: a look costs one `stat`; a file that cannot be read or understood answers nobody, neither yes nor no, until it is
mended; what it said before is not used any more, for somebody may have been taken out of it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from lonedot.directory.faults import DirectoryFault

__all__ = ["FAULTS_TOLD", "FILE_LIMIT", "DirectoryFile", "LineFault", "LineFaults", "lines_of"]

FILE_LIMIT = 16 * 1024 * 1024
"""Octets of one file."""

FAULTS_TOLD = 20
"""Lines of one file of which the fault is told."""

T = TypeVar("T")


class LineFault(NamedTuple):
    """What is wrong with a line, and what to write instead."""

    number: int
    what: str
    do: str = "mend the line"


class LineFaults(ValueError):
    """All lines of a file that cannot be understood."""

    def __init__(self, faults: Sequence[LineFault]) -> None:
        self.faults = tuple(faults)
        told = [f"line {one.number}: {one.what}" for one in faults[:FAULTS_TOLD]]
        if len(faults) > FAULTS_TOLD:
            told.append(f"and {len(faults) - FAULTS_TOLD} more")
        super().__init__("; ".join(told))


class DirectoryFile(Generic[T]):
    """What a file says, as it is now."""

    def __init__(self, path: Path, parse: Callable[[str], T]) -> None:
        """`parse` raises ValueError with words that name the line."""
        self.path = path
        self._parse = parse
        self._state: tuple[int, int, int, int] | None = None
        self._said: T | None = None

    def read(self) -> T:
        """What it says.

        Raises:
            DirectoryFault: it cannot be read, or not be understood.
        """
        try:
            found = os.stat(self.path)
            state = (found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev)
            if self._said is not None and state == self._state:
                return self._said
            self._said = None
            if not stat.S_ISREG(found.st_mode):  # a pipe would be waited for
                raise DirectoryFault(f"{self.path} is no plain file")
            with self.path.open("rb") as file:
                octets = file.read(FILE_LIMIT + 1)
            if len(octets) > FILE_LIMIT:
                raise DirectoryFault(f"{self.path} has more than {FILE_LIMIT} octets")
            said = self._parse(octets.decode())
        except OSError as error:
            raise DirectoryFault(f"{self.path} cannot be read: {error.strerror or error}") from error
        except ValueError as error:
            raise DirectoryFault(f"{self.path}: {error}") from error
        self._said, self._state = said, state
        return said


def lines_of(text: str) -> list[tuple[int, str]]:
    """The lines that say something, with their numbers; a comment begins with `#`."""
    return [
        (number, line)
        for number, line in enumerate(text.split("\n"), 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
