"""What of a changed configuration a running relay takes, and what waits for its next start.

Rule: what is not in the tables below is not taken. A new part of the configuration waits for a restart, and is named,
until the relay learns to take it.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from lonedot.config.model import Config

__all__ = ["with_what_stays"]

_S = TypeVar("_S", bound=msgspec.Struct)

TAKEN = frozenset(
    {"file", "revision", "server", "listeners", "routes", "sinks", "pickup", "badmail", "sources", "sendmail"}
)
TAKEN_OF_SERVER = frozenset(
    {
        "hostname",
        "registry",
        "postmaster",
        "max_size",
        "hop_limit",
        "memory",
        "log",
        "log_level",
        "keep_history",
        "drain_seconds",
        "drain",
    }
)


def with_what_stays(new: Config, running: Config) -> tuple[Config, tuple[str, ...]]:
    """The new configuration with what cannot change left as it runs, and the names of that.

    `server.spool`, or the name of a table.
    """
    server, of_server = _merged(new.server, running.server, TAKEN_OF_SERVER)
    merged, of_all = _merged(new, running, TAKEN)
    names = (*(f"server.{name}" for name in of_server), *of_all)
    return msgspec.structs.replace(merged, server=server), names


def _merged(new: _S, running: _S, taken: frozenset[str]) -> tuple[_S, list[str]]:
    stays = {
        field.name: getattr(running, field.name)
        for field in msgspec.structs.fields(new)
        if field.name not in taken and getattr(running, field.name) != getattr(new, field.name)
    }
    return msgspec.structs.replace(new, **stays), sorted(stays)
