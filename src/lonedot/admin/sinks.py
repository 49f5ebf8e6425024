"""Bindings as every skin sees them, and what the operations on them need of the relay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import msgspec

from lonedot.admin.values import AdminError
from lonedot.message.edits import Effect
from lonedot.sinks.bindings import (
    MAXIMUM_FAULTS,
    Binding,
    Isolation,
    Mode,
    OnDamage,
    OnError,
    Part,
    Role,
    Setting,
)
from lonedot.sinks.events import Event
from lonedot.sinks.registry import Change, Origin, Row, Selected, Source, Status, rows_in_order
from lonedot.sinks.registry_text import nearest
from lonedot.sinks.standing import Standing

__all__ = [
    "ApplyArguments",
    "Bindings",
    "Keeper",
    "ListedBinding",
    "Taken",
    "find",
    "is_selected",
    "listed",
    "of_source",
    "with_events",
    "with_standing",
]


class ListedBinding(msgspec.Struct, frozen=True, kw_only=True):
    """One binding. Of an enabled one the values are those it fires with; of a disabled one those that are written."""

    guid: str
    name: str
    sink: str
    event: Event | None
    """None: what the code says, which is not loaded."""
    source: int
    status: Status
    priority: int
    priority_is_written: bool
    """False: the code says it, or nobody does and it is the default."""
    rule: str = ""
    rule_is_written: bool
    reads: tuple[Part, ...] | None = None
    """None: what the code says; what follows likewise."""
    effects: tuple[Effect, ...] | None = None
    """None: what the code says, which is not loaded."""
    role: Role | None = None
    on_damage: OnDamage | None = None
    on_error: OnError | None = None
    isolation: Isolation = Isolation.INLINE
    deadline_seconds: float
    memory_octets: int
    user: str = ""
    split: bool | None = None
    mode: Mode = Mode.LIVE
    maximum_faults: int = MAXIMUM_FAULTS
    standing: Standing | None = None
    """The faults that count now, and what was done about it."""
    group: str = ""
    source_properties: dict[str, Setting] = {}
    sink_properties: dict[str, Setting] = {}
    origin: Origin = Origin.REGISTRY

    @property
    def is_enabled(self) -> bool:
        return self.status is Status.ENABLED


class Bindings(msgspec.Struct, frozen=True, kw_only=True):
    """All bindings in firing order over all events."""

    running: bool
    """True: what a running relay fires; False: what the file says."""
    registry: str
    """Path of the registry; empty when there is none."""
    revision: str
    """Of configuration and registry, as messages carry it."""
    registry_revision: str
    sources: tuple[Source, ...]
    bindings: tuple[ListedBinding, ...]
    unloaded: str = ""
    """Why the code is not loaded, so that values which it would say are not known; empty when it is."""


class ApplyArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of them are made, or none."""

    changes: tuple[Change, ...]


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """A change, or a reload, that is in force."""

    done: tuple[str, ...] = ()
    """One line for each binding touched."""
    before: str
    """Revision of the registry before."""
    after: str
    running: bool
    """True: a running relay has taken it."""


class Keeper(Protocol):
    """Has the registry. All raise AdminError; what fails leaves file and relay as they were."""

    async def bindings(self) -> Bindings: ...

    async def apply(self, changes: Sequence[Change], uid: int) -> Taken:
        """Change the file, and take it. `uid`: who asks."""
        ...

    async def reload(self, uid: int) -> Taken:
        """Take the file and the code of the sinks as they are now."""
        ...


def listed(
    rows: Iterable[Row], bindings: Iterable[Binding], said: Mapping[str, Event]
) -> tuple[ListedBinding, ...]:
    """The rows in firing order.

    Args:
        bindings: what was made of the enabled ones.
        said: by GUID, the events that the code of bindings says.
    """
    made = {binding.guid: binding for binding in bindings}
    priorities = {guid: binding.priority for guid, binding in made.items()}
    return tuple(
        _listed(row, priority, made.get(row.guid))
        for row, priority in rows_in_order(with_events(rows, said), priorities)
    )


def with_events(rows: Iterable[Row], said: Mapping[str, Event]) -> list[Row]:
    """Rows that leave their event to their code, with the event that it says, as far as it is known."""
    return [
        msgspec.structs.replace(row, event=said.get(row.guid)) if row.event is None else row for row in rows
    ]


def _listed(row: Row, priority: int, binding: Binding | None) -> ListedBinding:
    reads, effects, role, on_damage, on_error, rule = (
        row.reads,
        row.effects,
        row.role,
        row.on_damage,
        row.on_error,
        row.rule or "",
    )
    if binding is not None:
        # What is written stays in the order in which it is written.
        if effects is None:
            effects = tuple(sorted(binding.effects, key=lambda effect: effect.value))
        role, on_damage, on_error = binding.role, binding.on_damage, binding.on_error
        rule = str(binding.rule) if binding.rule is not None else ""
        if reads is None:
            reads = Part.ENVELOPE, Part.HEADER
        if binding.reads_body and Part.BODY not in reads:
            reads = *reads, Part.BODY
    return ListedBinding(
        guid=row.guid,
        name=row.name,
        sink=row.sink,
        event=row.event,
        source=row.source,
        status=row.status,
        priority=priority,
        priority_is_written=row.priority is not None,
        rule=rule,
        rule_is_written=row.rule is not None,
        reads=reads,
        effects=effects,
        role=role,
        on_damage=on_damage,
        on_error=on_error,
        isolation=row.isolation,
        deadline_seconds=row.deadline_seconds,
        memory_octets=row.memory_octets,
        user=row.user,
        split=row.split if binding is None else binding.split,
        mode=row.mode,
        maximum_faults=row.maximum_faults,
        group=row.group,
        source_properties=row.source_properties,
        sink_properties=row.sink_properties,
        origin=row.origin,
    )


def with_standing(binding: ListedBinding, standing: Standing | None) -> ListedBinding:
    """The same with what is known against it."""
    return binding if standing is None else msgspec.structs.replace(binding, standing=standing)


def is_selected(row: Row, which: Selected) -> bool:
    """A change that names bindings so means this one."""
    if None not in (which.event, row.event) and which.event is not row.event:
        return False
    if which.source not in (0, row.source):
        return False
    if which.group and row.group == which.group:
        return True
    plain = row.guid.strip("{} ").upper()
    return any(name == row.name or name.strip("{} ").upper() == plain for name in which.names)


def of_source(listing: Bindings, number: int) -> Bindings:
    """The same with the bindings of one virtual server; of all for 0.

    Raises:
        AdminError: there is no such virtual server.
    """
    if not number:
        return listing
    known = [source.number for source in listing.sources]
    if number not in known:
        there = ", ".join(str(one) for one in known)
        raise AdminError(f"there is no source {number}", "", f"there are: {there}")
    kept = tuple([binding for binding in listing.bindings if binding.source == number])
    return msgspec.structs.replace(listing, bindings=kept)


def find(bindings: Sequence[ListedBinding], name: str) -> ListedBinding:
    """The binding of that display name or GUID.

    Raises:
        AdminError: there is none, or several have the name.
    """
    plain = name.strip("{} ").upper()
    found = [one for one in bindings if one.name == name or one.guid.strip("{}") == plain]
    if len(found) == 1:
        return found[0]
    if found:
        guids = ", ".join(one.guid for one in found)
        raise AdminError(f"{len(found)} bindings are named {name!r}", "", f"name one by its GUID: {guids}")
    near = nearest(name, [one.name for one in bindings])
    do = f"did you mean {near!r}?" if near else "run lonedot sinks list for the names"
    raise AdminError(f"there is no binding {name!r}", "", do)
