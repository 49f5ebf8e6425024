"""What of a changed configuration a running relay takes, and what waits for its next start.

Rule: what is not in the tables below is not taken. A new part of the configuration waits for a restart, and is named,
until the relay learns to take it.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from lonedot.app.entrances import Face
from lonedot.app.registry import FreshBindings
from lonedot.config.model import Config
from lonedot.delivery.routing import RouteTable

__all__ = ["Prepared", "with_what_stays"]

_S = TypeVar("_S", bound=msgspec.Struct)


class Prepared(NamedTuple):
    """A configuration that may come into force: all that may fail is done."""

    config: Config
    needs_restart: tuple[str, ...]
    """Keys that stay as they run."""
    faults: tuple[str, ...]
    """Warnings."""
    routes: RouteTable
    face: Face
    held: list[list[socket.socket]]
    """Listening sockets, for each listener."""
    bindings: FreshBindings


TAKEN = frozenset(
    {
        "file",
        "revision",
        "server",
        "domains",
        "listeners",
        "routes",
        "rewrites",
        "pop3",
        "sinks",
        "pickup",
        "badmail",
        "drop",
        "sources",
        "sendmail",
        "metrics",
    }
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

    A name is `server.spool`, or that of a table. Folders that lie in another spool are taken for the same in this one.
    """
    server, of_server = _merged(new.server, running.server, TAKEN_OF_SERVER)
    merged, of_all = _merged(new, running, TAKEN)
    merged = msgspec.structs.replace(merged, server=server)
    if new.server.spool != running.server.spool:
        here, there = running.server.spool, new.server.spool
        merged = msgspec.structs.replace(
            merged,
            pickup=_moved(merged.pickup, there, here),
            badmail=_moved(merged.badmail, there, here),
            drop=_moved(merged.drop, there, here),
            sendmail=_moved(merged.sendmail, there, here),
            sources=tuple([_moved(source, there, here) for source in merged.sources]),
        )
    return merged, (*(f"server.{name}" for name in of_server), *of_all)


def _moved(table: _S, there: Path, here: Path) -> _S:
    """The same with every path below `there` below `here`."""
    paths = {
        field.name: here / value.relative_to(there)
        for field in msgspec.structs.fields(table)
        if isinstance(value := getattr(table, field.name), Path) and value.is_relative_to(there)
    }
    return msgspec.structs.replace(table, **paths)


def _merged(new: _S, running: _S, taken: frozenset[str]) -> tuple[_S, list[str]]:
    stays = {
        field.name: getattr(running, field.name)
        for field in msgspec.structs.fields(new)
        if field.name not in taken and getattr(running, field.name) != getattr(new, field.name)
    }
    return msgspec.structs.replace(new, **stays), sorted(stays)
