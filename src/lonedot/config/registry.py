"""The registry file: its tables, and the way from its octets to a `Registry` or to every fault with its line.

Rules: a key exists exactly when a field here carries a `Key`; reading runs no code; what the configuration beside it
already has (names, GUIDs, virtual servers) is handed in, since both kinds of binding fire in one order.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple, TypeVar

import msgspec

from lonedot.config import check_sinks, code, disk
from lonedot.config import values as v
from lonedot.config.bindings import BindingKeys, SourceKeys, row_from
from lonedot.config.code import SinkFile, sink_code
from lonedot.config.faults import Fault, Severity
from lonedot.config.files import not_plain
from lonedot.config.given import Found, Given
from lonedot.config.key import Key
from lonedot.config.model import Config, Sink, Source
from lonedot.config.positions import Positions
from lonedot.config.tables import TableReader, parse, read_file
from lonedot.config.values import Unfit
from lonedot.sinks import registry
from lonedot.sinks.bindings import MAX_PRIORITY, Setting
from lonedot.sinks.events import Event
from lonedot.sinks.registry import Bag, Origin, Registry, Row, Status, revision_of

__all__ = [
    "ALONE",
    "Beside",
    "BindingTable",
    "ExaminedRegistry",
    "beside",
    "examine_registry",
    "examine_registry_octets",
]

T = TypeVar("T")


class BindingTable(BindingKeys, frozen=True, kw_only=True):
    """One binding: an event tied to a sink."""

    sink: Annotated[
        str,
        Key(
            v.text,
            "The code: import path or Python file. While the binding is disabled it may be any text, such as the "
            "class of another system.",
            '"sinks/stamp.py:stamp"',
        ),
    ]
    status: Annotated[
        Status,
        Key(v.one_of(Status), "`enabled`, or `disabled`: it stays in the file and never runs.", '"enabled"'),
    ] = Status.ENABLED
    source_properties: Annotated[
        Mapping[str, Setting],
        Key(
            code.property_bag,
            "Properties for the relay. `Rule` and `Priority` are the keys `rule` and `priority` by their old names.",
            "{ Priority = 28010 }",
        ),
    ] = {}
    sink_properties: Annotated[
        Mapping[str, Setting],
        Key(
            code.property_bag,
            "Properties for the sink: its settings. Case does not count in their names.",
            '{ header = "X-Stamp" }',
        ),
    ] = {}


class Beside(NamedTuple):
    """What the configuration has beside its registry; of a registry file alone, nothing is known."""

    sinks: Sequence[Sink] = ()
    sources: Sequence[Source] = ()
    served: frozenset[int] | None = None
    """Numbers of the virtual servers that take mail; None: not known."""


class ExaminedRegistry(NamedTuple):
    """What became of the file: a registry unless some fault is one, all that can be said, and where rows stand."""

    registry: Registry | None
    faults: tuple[Fault, ...]
    lines: Mapping[str, int]
    """Line of each row by its GUID."""


ALONE = Beside()


def beside(config: Config) -> Beside:
    """What a configuration has beside its registry."""
    return Beside(config.sinks, config.sources, config.served)


def examine_registry(path: Path, beside: Beside = ALONE) -> ExaminedRegistry:
    """Reads and judges a registry. A file that is not there counts as empty."""
    state = disk.state_of(path)
    if state is None and not path.is_symlink():
        return examine_registry_octets(b"", path, beside)
    if unfit := not_plain(path):
        words = f"cannot be read: it {unfit.what.removeprefix(f'{path} ')}"
        return ExaminedRegistry(None, (Fault(str(path), 0, 0, Severity.FAULT, "", words, unfit.do),), {})
    octets = read_file(path)
    if isinstance(octets, Fault):
        fault = msgspec.structs.replace(octets, do="give the relay's user the right to read it")
        return ExaminedRegistry(None, (fault,), {})
    found = examine_registry_octets(octets, path, beside)
    if state is not None and state.st_mode & stat.S_IWOTH:
        words = f"anybody may write it (mode {stat.S_IMODE(state.st_mode):04o}), and what it names is run"
        fault = Fault(str(path), 0, 0, Severity.FAULT, "", words, f"run chmod o-w {path}")
        return ExaminedRegistry(None, (*found.faults, fault), found.lines)
    return found


def examine_registry_octets(octets: bytes, path: Path, beside: Beside = ALONE) -> ExaminedRegistry:
    """As `examine_registry`, from the octets of a file; `path` is named in faults and gives the folder."""
    parsed = parse(octets, path)
    if isinstance(parsed, Fault):
        return ExaminedRegistry(None, (parsed,), {})
    written, tables = parsed
    return _Reading(path, Positions(written)).examine(tables, beside)


class _Reading(TableReader):
    def examine(self, tables: Mapping[str, object], beside: Beside) -> ExaminedRegistry:
        for name in tables:
            if name not in ("source", "binding"):
                self.unknown((name,), "", name, ["source", "binding"])
        sources = self._sources(list(self.items("source", SourceKeys, tables)), beside.sources)
        given = list(self.items("binding", BindingTable, tables))
        rows: list[Row] = []
        lines: dict[str, int] = {}
        for one in given:
            row = self._row(one)
            if row is not None:
                rows.append(row)
                place = self.positions.of(one.path)
                lines.setdefault(row.guid, place[0] if place else 0)
        for found in _judge(given, rows, sources, beside, self.folder):
            self.say(found.path, found.severity, found.where, found.what, found.do)
        self.faults.sort(key=lambda fault: (fault.line == 0, fault.line, fault.column, fault.severity.value))
        faults = tuple(self.faults)
        if any(fault.severity is Severity.FAULT for fault in faults):
            return ExaminedRegistry(None, faults, lines)
        listed = tuple(sources.values())
        return ExaminedRegistry(Registry(listed, tuple(rows), revision_of(listed, rows)), faults, lines)

    def _sources(
        self, given: Sequence[Given[SourceKeys]], beside: Sequence[Source]
    ) -> dict[int, registry.Source]:
        """Those of the configuration and of this file; where both give a name, that of the configuration counts."""
        tables: dict[int, SourceKeys] = {1: SourceKeys(number=1)}
        seen: set[int] = set()
        for one in given:
            table = one.value
            if table is None or not one.knows("number"):
                continue
            if table.number in seen:
                found = one.fault("number", f"source {table.number} stands twice", "remove one of the two")
                self.say(found.path, found.severity, found.where, found.what, found.do)
            seen.add(table.number)
            tables[table.number] = table
        for source in beside:
            if source.name or source.number not in tables:
                tables[source.number] = source
        return {number: registry.Source(number, table.shown) for number, table in sorted(tables.items())}

    def _row(self, given: Given[BindingTable]) -> Row | None:
        table = given.value
        if table is None:
            return None
        bag = Bag(table.source_properties)
        priority = self._from_bag(given, bag, "priority", table.priority, v.whole(0, MAX_PRIORITY))
        rule = self._from_bag(given, bag, "rule", table.rule, code.rule)
        table = msgspec.structs.replace(table, priority=priority, rule=rule)
        return row_from(table, table.sink.strip(), table.status, Origin.REGISTRY, table.sink_properties, bag)

    def _from_bag(
        self,
        given: Given[BindingTable],
        bag: Bag,
        key: str,
        value: T | None,
        read: v.Reader[T],
    ) -> T | None:
        """Takes rule or priority out of the bag: the same two under their old names."""
        stored = bag.stored_name(key)
        if stored is None:
            return value
        written = bag.pop(stored)
        place = (*given.path, "source_properties", stored)
        where = f"{given.where}: source_properties.{stored}"
        if given.has(key):
            self.say(
                place, Severity.FAULT, where, f"stands beside {key}", "they are the same: keep one of the two"
            )
            return value
        try:
            return read(written, self.folder)
        except Unfit as unfit:
            self.say(place, Severity.FAULT, where, unfit.what, unfit.do)
            return value


def _judge(
    given: Sequence[Given[BindingTable]],
    rows: Sequence[Row],
    sources: Mapping[int, registry.Source],
    beside: Beside,
    folder: Path,
) -> Iterator[Found]:
    """What rows say together, and what the disk says about them."""
    names = {_key(sink): f"[[sink]] {sink.name}" for sink in beside.sinks}
    guids = {sink.guid: f"[[sink]] {sink.name} of the configuration" for sink in beside.sinks}
    for one, row in zip(given, rows, strict=True):
        key = _key(row)
        if one.knows("name", "event", "source"):
            if key in names:
                yield one.fault(
                    "name", f'"{row.name}" is also the name of {names[key]}', "use different names"
                )
            elif row.guid in guids and one.knows("guid"):
                yield one.fault(
                    "guid", f"{row.guid} is also the GUID of {guids[row.guid]}", "use different ones"
                )
            names.setdefault(key, one.where)
            guids.setdefault(row.guid, one.where)
        yield from check_sinks.judge_source(one, row.source, row.is_enabled, sources, beside.served)
        if row.is_enabled and one.knows("sink", "status"):
            yield from _judge_code(one, row, folder)
        yield from check_sinks.judge_policy(one, row.role, row.on_damage, row.on_error)


def _key(binding: Sink | Row) -> tuple[int, Event, str]:
    """No two bindings have the same."""
    return binding.source, binding.event or Event.ARRIVAL, binding.name.casefold()


def _judge_code(given: Given[BindingTable], row: Row, folder: Path) -> Iterator[Found]:
    try:
        named = sink_code(row.sink, folder)
    except Unfit as unfit:
        yield given.fault("sink", unfit.what, unfit.do)
        return
    if isinstance(named, SinkFile):
        fault = disk.check_sink_file(named)
        if fault is not None:
            yield given.fault("sink", fault.what, fault.do)
        return
    missing = check_sinks.not_installed(named)
    if missing:
        yield given.fault("sink", missing, "install it where lonedot is installed, or mend the name")
