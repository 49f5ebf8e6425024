"""What can be said against a configuration: values only, so that every skin prints them its own way."""

from __future__ import annotations

import enum
from collections.abc import Sequence

import msgspec

__all__ = ["ConfigFaults", "Fault", "Severity"]


class Severity(enum.Enum):
    """FAULT: the relay does not start. WARNING: it starts, and somebody may be surprised. NOTE: worth knowing."""

    FAULT = "fault"
    WARNING = "warning"
    NOTE = "note"


class Fault(msgspec.Struct, frozen=True, order=True):
    """One thing said, sorted by place."""

    file: str
    line: int
    """Counted from 1; 0 when the file as a whole is meant."""
    column: int
    severity: Severity
    where: str
    """`listener 2: address`; empty when no key is meant."""
    what: str
    """What is there and what is wrong with it."""
    do: str
    """What to write, or what to run."""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        where = f"{self.where}: " if self.where else ""
        return f"{place}: {self.severity.value}: {where}{self.what} — {self.do}"


class ConfigFaults(Exception):
    """The configuration cannot be used; `faults` holds everything that was found, warnings too."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(map(str, self.faults)))
