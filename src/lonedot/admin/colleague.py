"""What workers of one relay say to each other: values, and what each of them is to the others."""

from __future__ import annotations

from typing import Protocol

import msgspec

from lonedot.sinks.standing import Fault, Standing

__all__ = ["Align", "Bearing", "Booked", "Colleague", "Done", "Faults", "Prepare"]


class Bearing(msgspec.Struct, frozen=True):
    """Where the first worker is."""

    revision: str
    """Of its configuration."""
    bindings: str
    """Revision of configuration and registry."""
    standings: tuple[Standing, ...]


class Align(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    bearing: Bearing
    anew: bool = False
    """Code of sinks is loaded anew, whatever the revisions say."""


class Prepare(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    revision: str
    """Of the configuration that the first worker has judged."""


class Booked(msgspec.Struct, frozen=True):
    """One fault of a binding."""

    guid: str
    fault: Fault
    words: str
    id: str
    """Of the message or the session."""


class Faults(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    faults: tuple[Booked, ...]


class Done(msgspec.Struct, frozen=True):
    pass


class Colleague(Protocol):
    """A worker, as the others see it. All raise AdminError."""

    async def prepare(self, revision: str) -> None:
        """Judge the configuration, which must be of that revision, and make ready all that may fail."""
        ...

    async def commit(self) -> None:
        """Take what was prepared."""
        ...

    def abandon(self) -> None:
        """Let go of what was prepared."""
        ...

    async def align(self, bearing: Bearing, anew: bool) -> None:
        """Be where the first worker is."""
        ...

    def bearing(self) -> Bearing: ...

    def book(self, faults: tuple[Booked, ...]) -> None: ...
