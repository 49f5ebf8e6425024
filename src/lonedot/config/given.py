"""Tables as far as they could be read, for the checks that look at several at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import msgspec

from lonedot.config.domains import Domain
from lonedot.config.drop import Drop
from lonedot.config.faults import Severity
from lonedot.config.model import (
    Badmail,
    Listener,
    Metrics,
    Pickup,
    Pop3,
    Route,
    Sendmail,
    Server,
    Sink,
    Source,
)
from lonedot.config.origins import Origins
from lonedot.config.rewrites import Rewrite
from lonedot.sinks.registry import Row

__all__ = ["Drafts", "Found", "Given"]

S = TypeVar("S", bound=msgspec.Struct)


class Given(Generic[S]):
    """One table: its value with defaults in place of wrong keys, or None when a required key is missing."""

    __slots__ = ("bad", "names", "path", "value", "where")

    def __init__(
        self,
        value: S | None,
        path: tuple[str | int, ...],
        where: str,
        names: frozenset[str],
        bad: frozenset[str],
    ) -> None:
        self.value = value
        self.path = path
        self.where = where
        """How faults call it: `listener 2`."""
        self.names = names
        """Known keys that the file has."""
        self.bad = bad
        """Keys that were wrong, or probably meant by a mistyped one."""

    def has(self, name: str) -> bool:
        """The file has this key, and it could be read."""
        return name in self.names and name not in self.bad

    def knows(self, *names: str) -> bool:
        """None of these keys was wrong, so what the value says of them can be judged."""
        return self.bad.isdisjoint(names)

    def fault(self, name: str, what: str, do: str) -> Found:
        """A fault of one of its keys."""
        return self._found(Severity.FAULT, name, what, do)

    def warning(self, name: str, what: str, do: str) -> Found:
        """A warning about one of its keys."""
        return self._found(Severity.WARNING, name, what, do)

    def note(self, name: str, what: str, do: str) -> Found:
        """A note about one of its keys."""
        return self._found(Severity.NOTE, name, what, do)

    def _found(self, severity: Severity, name: str, what: str, do: str) -> Found:
        where = f"{self.where}: {name}" if name else self.where
        return Found((*self.path, name), severity, where, what, do)

    def with_value(self, value: S | None) -> Given[S]:
        return Given(value, self.path, self.where, self.names, self.bad)


class Found(NamedTuple):
    """Something to say, before the place in the file is known."""

    path: tuple[str | int, ...]
    severity: Severity
    where: str
    what: str
    do: str


class Drafts(NamedTuple):
    """All tables of a file."""

    file: Path
    present: frozenset[str]
    """Names of the tables that stand in the file, readable or not."""

    server: Given[Server]
    listeners: Sequence[Given[Listener]]
    routes: Sequence[Given[Route]]
    sinks: Sequence[Given[Sink]]
    pickup: Given[Pickup]
    badmail: Given[Badmail]
    sendmail: Given[Sendmail]
    sources: Sequence[Given[Source]]
    domains: Sequence[Given[Domain]] = ()
    rewrites: Sequence[Given[Rewrite]] = ()
    pop3: Sequence[Given[Pop3]] = ()
    rows: Sequence[Row] | None = None
    """Bindings of the registry; None: not known."""
    origins: Origins | None = None
    metrics: Given[Metrics] | None = None
    drop: Given[Drop] | None = None

    def file_of(self, path: tuple[str | int, ...]) -> Path:
        """The file that something stands in."""
        return self.file if self.origins is None else self.origins.spot(path).file

    @property
    def numbers(self) -> frozenset[int]:
        """The virtual servers that there are."""
        return frozenset({1, *(given.value.number for given in self.sources if given.value is not None)})

    @property
    def served(self) -> frozenset[int]:
        """The virtual servers that take mail."""
        pickup = self.pickup.value
        by_listener = {given.value.source for given in self.listeners if given.value is not None}
        by_folder = {
            given.value.number
            for given in self.sources
            if given.value is not None and given.value.pickup is not None
        }
        by_fetching = {given.value.source for given in self.pop3 if given.value is not None}
        return frozenset(
            by_listener | by_folder | by_fetching | ({1} if pickup is None or pickup.enabled else set())
        )
