"""The registry as values: sources, the rows of bindings, and what a tool may change.

Rules: a row is what a person wrote, before any code is loaded; a `Registry` is immutable and known by its revision,
so a message, the audit and a comparison mean the same one. Rule and priority of a row are its `rule` and `priority`;
in a bag of source properties they are the same two under their old names, and a row has each of them once.
"""

from __future__ import annotations

import enum
import hashlib
import uuid
from collections.abc import Iterable, Mapping

import msgspec

from lonedot.message.edits import Effect
from lonedot.sinks.bindings import (
    DEADLINE_SECONDS,
    DEFAULT_PRIORITY,
    MAXIMUM_FAULTS,
    MEMORY_OCTETS,
    Isolation,
    Mode,
    OnDamage,
    OnError,
    Part,
    Role,
    Setting,
    guid_for,
)
from lonedot.sinks.events import Event

__all__ = [
    "Add",
    "Bag",
    "Change",
    "Origin",
    "Registry",
    "Remove",
    "Row",
    "Selected",
    "SetKey",
    "Source",
    "Status",
    "Switch",
    "UnsetKey",
    "Written",
    "derived_guid",
    "revision_of",
    "rows_in_order",
    "source_guid",
]

_SOURCES = uuid.UUID("0b5f4a5e-2f61-5d0e-8a0b-3d6f2f7a9b10")
_FIRST_SOURCE = "{1B3C0666-E470-11D0-AA67-80C04FA345F6}"
"""Source 1 of the old service. Its way from base and number to a GUID is not documented, so others have our own."""


class Status(enum.Enum):
    ENABLED = "enabled"
    DISABLED = "disabled"


class Origin(enum.Enum):
    """Which file a row stands in."""

    CONFIG = "config"
    REGISTRY = "registry"


class Bag(dict[str, Setting]):
    """A property bag: names in the case they were written, compared without it."""

    def __getitem__(self, name: str) -> Setting:
        return super().__getitem__(self.stored_name(name) or name)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.stored_name(name) is not None

    def get(self, name: str, default: Setting | None = None) -> Setting | None:  # type: ignore[override]  # one of its two forms
        stored = self.stored_name(name)
        return default if stored is None else super().__getitem__(stored)

    def stored_name(self, name: str) -> str | None:
        """The name as it was written; None when there is no such property."""
        folded = name.casefold()
        return next((stored for stored in self if stored.casefold() == folded), None)


class Source(msgspec.Struct, frozen=True):
    """A virtual server."""

    number: int
    name: str

    @property
    def guid(self) -> str:
        return source_guid(self.number)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One binding as it is registered. None: what the sink's own code says."""

    guid: str
    name: str
    sink: str
    """Import path, or file and function; of a disabled row also the class of another system."""
    event: Event | None = None
    source: int = 1
    status: Status = Status.ENABLED
    priority: int | None = None
    rule: str | None = None
    reads: tuple[Part, ...] | None = None
    effects: tuple[Effect, ...] | None = None
    role: Role | None = None
    on_damage: OnDamage | None = None
    on_error: OnError | None = None
    isolation: Isolation = Isolation.INLINE
    deadline_seconds: float = DEADLINE_SECONDS
    memory_octets: int = MEMORY_OCTETS
    user: str = ""
    mode: Mode = Mode.LIVE
    maximum_faults: int = MAXIMUM_FAULTS
    split: bool | None = None
    group: str = ""
    source_properties: dict[str, Setting] = {}
    """All but rule and priority."""
    sink_properties: dict[str, Setting] = {}
    origin: Origin = Origin.REGISTRY

    @property
    def is_enabled(self) -> bool:
        return self.status is Status.ENABLED


class Registry(msgspec.Struct, frozen=True):
    """One snapshot."""

    sources: tuple[Source, ...] = (Source(1, "smtpsvc 1"),)
    rows: tuple[Row, ...] = ()
    """As they stand in the file."""
    revision: str = ""


def source_guid(number: int) -> str:
    """The GUID of a virtual server by its number."""
    if number == 1:
        return _FIRST_SOURCE
    return "{" + str(uuid.uuid5(_SOURCES, str(number))).upper() + "}"


def derived_guid(name: str, event: Event | None = None, source: int = 1) -> str:
    """The GUID of a row that gives none: the same for the same name, event and source.

    A row that leaves its event to its code has that of one at `arrival`.
    """
    if event is None:
        event = Event.ARRIVAL
    if event is Event.ARRIVAL and source == 1:
        return guid_for(name)
    return guid_for(f"{source}/{event.value}/{name}")


def revision_of(sources: Iterable[Source], rows: Iterable[Row]) -> str:
    """12 hexadecimal digits over all values; the order of the file does not count, nor do comments."""
    ordered = sorted(rows, key=lambda row: row.guid)
    plain = msgspec.json.encode((sorted(sources, key=lambda s: s.number), ordered), order="sorted")
    return hashlib.sha256(plain).hexdigest()[:12]


_RANK: dict[Event | None, int] = {event: rank for rank, event in enumerate((*Event, None))}


def rows_in_order(
    rows: Iterable[Row], priority_of: Mapping[str, int] | None = None
) -> tuple[tuple[Row, int], ...]:
    """The rows of every event in firing order, each with the priority it fires at; those without an event last.

    `priority_of`: by GUID, the priority of rows that leave it to their code; else it is the default.
    """
    known = priority_of or {}

    def priority(row: Row) -> int:
        return row.priority if row.priority is not None else known.get(row.guid, DEFAULT_PRIORITY)

    ordered = sorted(
        rows, key=lambda row: (row.source, _RANK[row.event], priority(row), row.name.casefold(), row.guid)
    )
    return tuple((row, priority(row)) for row in ordered)


# --- what a tool may change -----------------------------------------------------------------------

Written = str | int | float | bool | list[str]
"""A value that a tool writes."""


class Selected(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which bindings are meant: by display name or GUID, or all of a group. At least one must be found."""

    names: tuple[str, ...] = ()
    group: str = ""
    event: Event | None = None
    source: int = 0
    """0: of any."""
    every: bool = False
    """True: all that have that name, as the old tool did; else a name that several have is a fault."""


class Add(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="add"):
    """A new binding. `values` holds keys as they stand in a file."""

    values: dict[str, Written]
    source_properties: dict[str, Setting] = {}
    sink_properties: dict[str, Setting] = {}


class Remove(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="remove"):
    which: Selected


class Switch(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="switch"):
    """Enable or disable."""

    which: Selected
    status: Status


class SetKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="set"):
    """`key`: one of a binding, or `sink_properties.NAME`, `source_properties.NAME`."""

    which: Selected
    key: str
    value: Written


class UnsetKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="unset"):
    which: Selected
    key: str


Change = Add | Remove | Switch | SetKey | UnsetKey
