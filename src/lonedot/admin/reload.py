"""Taking a changed configuration while the relay runs."""

from __future__ import annotations

from typing import Protocol

import msgspec

__all__ = ["Reloaded", "Reloader"]


class Reloaded(msgspec.Struct, frozen=True):
    """What came of it."""

    taken: bool
    """False: the configuration has a fault, and nothing has changed."""
    file: str
    before: str
    """Revision of the configuration that was in force."""
    after: str
    faults: tuple[str, ...] = ()
    """Every fault and warning of the file, each with its place and what to do."""
    needs_restart: tuple[str, ...] = ()
    """Keys that differ from what runs and hold from the next start on."""


class Reloader(Protocol):
    """Given by the app."""

    async def reload(self, uid: int) -> Reloaded:
        """Judge the file and take it.

        Raises:
            AdminError: the file has no fault, and still cannot be taken; nothing has changed.
        """
        ...
