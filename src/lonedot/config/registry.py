"""The registry file: its tables, and the way from its octets to a `Registry` or to every fault with its line.

Rules: a key exists exactly when a field here carries a `Key`; reading runs no code; what `[[sink]]` of the
configuration already uses (names, GUIDs) is handed in, since both kinds of binding fire in one order.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, NamedTuple, TypeVar

import msgspec

from lonedot.config import check_sinks, code, disk
from lonedot.config import values as v
from lonedot.config.code import SinkFile
from lonedot.config.faults import Fault, Severity
from lonedot.config.given import Found, Given
from lonedot.config.key import Key
from lonedot.config.model import Sink
from lonedot.config.positions import Positions
from lonedot.config.tables import TableReader, parse, read_file
from lonedot.config.values import Unfit, show, text
from lonedot.message.edits import Effect
from lonedot.sinks.bindings import (
    MAX_PRIORITY,
    MAXIMUM_FAULTS,
    Isolation,
    Mode,
    OnDamage,
    OnError,
    Role,
    Setting,
)
from lonedot.sinks.events import EVENTS, Event, event_named
from lonedot.sinks.registry import (
    Bag,
    Origin,
    Registry,
    Row,
    Source,
    Status,
    derived_guid,
    revision_of,
)

__all__ = [
    "BindingTable",
    "ExaminedRegistry",
    "SourceTable",
    "examine_registry",
    "examine_registry_octets",
    "rows_of_config",
    "sink_code",
]

T = TypeVar("T")

MAX_PROPERTIES = 1000
_MAX_NUMBER = 999_999
_MIB = 1024 * 1024


def event(value: object, folder: Path) -> Event:
    """An event by our name or an old one."""
    words = text(value, folder)
    try:
        return event_named(words)
    except ValueError:
        known = ", ".join(f'"{one.value}"' for one in EVENTS)
        raise Unfit(f"{show(value)} is not an event", f"write one of {known}, or an old name") from None


def property_bag(value: object, folder: Path) -> dict[str, Setting]:
    """A table of properties; two names that differ in case alone are one name."""
    if not isinstance(value, dict):
        raise Unfit(f"{show(value)} is not a table", "write it as a table of its own, in square brackets")
    if len(value) > MAX_PROPERTIES:
        raise Unfit(f"holds {len(value)} properties", f"use at most {MAX_PROPERTIES}")
    seen: dict[str, str] = {}
    for name, one in value.items():
        if not isinstance(one, str | int | float | bool):
            raise Unfit(f"{name} is {show(one)}", "use texts, numbers, true and false only")
        folded = name.casefold()
        if folded in seen:
            raise Unfit(
                f"{name} and {seen[folded]} are the same name", "case does not count: keep one of them"
            )
        seen[folded] = name
    return dict(value)


class SourceTable(msgspec.Struct, frozen=True, kw_only=True):
    """A virtual server. Source 1 is always there."""

    number: Annotated[int, Key(v.whole(1, _MAX_NUMBER), "The number of the virtual server.", "1")]
    name: Annotated[str, Key(v.label, "Its display name.", '"smtpsvc 1"', "`smtpsvc` and the number")] = ""


class BindingTable(msgspec.Struct, frozen=True, kw_only=True):
    """One binding: an event tied to a sink."""

    name: Annotated[
        str,
        Key(v.label, "Its display name: in the ledger, in logs, in every command.", '"XRecipientList"'),
    ]
    sink: Annotated[
        str,
        Key(
            v.text,
            "The code: import path or Python file. While the binding is disabled it may be any text, such as the "
            "class of another system.",
            '"sinks/stamp.py:stamp"',
        ),
    ]
    guid: Annotated[
        str, Key(v.guid, "Its identity through changes of name.", '"{…}"', "derived from the name")
    ] = ""
    source: Annotated[
        int, Key(v.whole(1, _MAX_NUMBER), "The number of the virtual server that it belongs to.", "1")
    ] = 1
    event: Annotated[Event, Key(event, "When it fires, by our name or an old one.", '"OnArrival"')] = (
        Event.ARRIVAL
    )
    status: Annotated[
        Status,
        Key(v.one_of(Status), "`enabled`, or `disabled`: it stays in the file and never runs.", '"enabled"'),
    ] = Status.ENABLED
    priority: Annotated[
        int | None,
        Key(
            v.whole(0, MAX_PRIORITY),
            "Low numbers fire first; equal ones by name. A number, never a text.",
            "28010",
            "what the sink's own code says, else 24575",
        ),
    ] = None
    rule: Annotated[
        str | None,
        Key(
            code.rule, "Which messages.", '"RCPT TO=*@example.com"', "what the sink's own code says, else all"
        ),
    ] = None
    effects: Annotated[
        tuple[Effect, ...] | None,
        Key(
            v.many(v.one_of(Effect)),
            "What it may change: `header`, `body`, `envelope`. Anything else is undone.",
            '["header"]',
            "what the sink's own code says",
        ),
    ] = None
    role: Annotated[
        Role | None,
        Key(
            v.one_of(Role),
            "`cosmetic`: mail goes out without its work when it fails. `protective`: mail is held then.",
            '"cosmetic"',
            "what the sink's own code says, else `cosmetic`",
        ),
    ] = None
    on_damage: Annotated[
        OnDamage | None,
        Key(
            v.one_of(OnDamage),
            "When it damages a message: `undo`, `repair`, `hold` or `reject`; of a protective one only the last two.",
            '"undo"',
            "what the sink's own code says, else by role",
        ),
    ] = None
    on_error: Annotated[
        OnError | None,
        Key(
            v.one_of(OnError),
            "When it fails: `defer`, `skip` (a cosmetic one only), `reject` or `hold`.",
            '"defer"',
            "what the sink's own code says, else `defer`",
        ),
    ] = None
    isolation: Annotated[
        Isolation,
        Key(
            v.one_of(Isolation),
            "Where its code runs: in the relay (`inline`), or in a process of its own (`process`).",
            '"process"',
        ),
    ] = Isolation.INLINE
    deadline: Annotated[
        timedelta,
        Key(
            v.duration(0.1, 300),
            "How long one call may take; a process is ended then, and an inline sink has the relay started again.",
            '"10s"',
        ),
    ] = timedelta(seconds=10)
    memory: Annotated[
        int, Key(v.size(64 * _MIB, 64 * 1024 * _MIB), "Address space of its process in octets.", '"512 MiB"')
    ] = 512 * _MIB
    user: Annotated[
        str,
        Key(
            v.label, "As whom its process runs, when the relay runs as root.", '"nobody"', "that of the relay"
        ),
    ] = ""
    mode: Annotated[
        Mode,
        Key(
            v.one_of(Mode),
            "`live`, or `shadow`: it is shown live mail, and what it would have done is recorded and compared, never "
            "done. A message waits at most half a second for shadows in processes; one that runs inline takes the time "
            "it takes.",
            '"shadow"',
        ),
    ] = Mode.LIVE
    split: Annotated[
        bool | None,
        Key(
            v.boolean,
            "It is called for each recipient that the rule matches and shown that one alone; its edits are for the "
            "copy of that one. Each copy that differs is sent apart.",
            "true",
            "what the sink's own code says, else `false`",
        ),
    ] = None
    maximum_faults: Annotated[
        int,
        Key(
            v.whole(0, 1000),
            "After so many faults within an hour a cosmetic binding switches itself off until `lonedot sinks enable`; "
            "a protective one that deferred holds the messages that it fails on. 0: never.",
            "20",
        ),
    ] = MAXIMUM_FAULTS
    group: Annotated[
        str, Key(v.label, "Bindings that are enabled and disabled together.", '"XEXCH50"', "none")
    ] = ""
    source_properties: Annotated[
        Mapping[str, Setting],
        Key(
            property_bag,
            "Properties for the relay. `Rule` and `Priority` are the keys `rule` and `priority` by their old names.",
            "{ Priority = 28010 }",
        ),
    ] = {}
    sink_properties: Annotated[
        Mapping[str, Setting],
        Key(
            property_bag,
            "Properties for the sink: its settings. Case does not count.",
            '{ header = "X-Stamp" }',
        ),
    ] = {}


class ExaminedRegistry(NamedTuple):
    """What became of the file: a registry unless some fault is one, all that can be said, and where rows stand."""

    registry: Registry | None
    faults: tuple[Fault, ...]
    lines: Mapping[str, int]
    """Line of each row by its GUID."""


def examine_registry(path: Path, sinks: Sequence[Sink] = ()) -> ExaminedRegistry:
    """Reads and judges a registry. A file that is not there counts as empty.

    `sinks`: the `[[sink]]` tables of the configuration.
    """
    state = disk.state_of(path)
    if state is None and not path.is_symlink():
        return examine_registry_octets(b"", path, sinks)
    octets = read_file(path)
    if isinstance(octets, Fault):
        fault = msgspec.structs.replace(octets, do="give the relay's user the right to read it")
        return ExaminedRegistry(None, (fault,), {})
    found = examine_registry_octets(octets, path, sinks)
    if state is not None and state.st_mode & stat.S_IWOTH:
        words = f"anybody may write it (mode {stat.S_IMODE(state.st_mode):04o}), and what it names is run"
        fault = Fault(str(path), 0, 0, Severity.FAULT, "", words, f"run chmod o-w {path}")
        return ExaminedRegistry(None, (*found.faults, fault), found.lines)
    return found


def examine_registry_octets(octets: bytes, path: Path, sinks: Sequence[Sink] = ()) -> ExaminedRegistry:
    """As `examine_registry`, from the octets of a file; `path` is named in faults and gives the folder."""
    parsed = parse(octets, path)
    if isinstance(parsed, Fault):
        return ExaminedRegistry(None, (parsed,), {})
    written, tables = parsed
    return _Reading(path, Positions(written)).examine(tables, sinks)


class _Reading(TableReader):
    def examine(self, tables: Mapping[str, object], sinks: Sequence[Sink]) -> ExaminedRegistry:
        for name in tables:
            if name not in ("source", "binding"):
                self.unknown((name,), "", name, ["source", "binding"])
        sources = self._sources(list(self.items("source", SourceTable, tables)))
        given = list(self.items("binding", BindingTable, tables))
        rows: list[Row] = []
        lines: dict[str, int] = {}
        for one in given:
            row = self._row(one)
            if row is not None:
                rows.append(row)
                place = self.positions.of(one.path)
                lines.setdefault(row.guid, place[0] if place else 0)
        for found in _judge(given, rows, sources, sinks, self.folder):
            self.say(found.path, found.severity, found.where, found.what, found.do)
        self.faults.sort(key=lambda fault: (fault.line == 0, fault.line, fault.column, fault.severity.value))
        faults = tuple(self.faults)
        if any(fault.severity is Severity.FAULT for fault in faults):
            return ExaminedRegistry(None, faults, lines)
        listed = tuple(sources.values())
        return ExaminedRegistry(Registry(listed, tuple(rows), revision_of(listed, rows)), faults, lines)

    def _sources(self, given: Sequence[Given[SourceTable]]) -> dict[int, Source]:
        sources = {1: Source(1, "smtpsvc 1")}
        seen: set[int] = set()
        for one in given:
            table = one.value
            if table is None or not one.knows("number"):
                continue
            if table.number in seen:
                found = one.fault("number", f"source {table.number} stands twice", "remove one of the two")
                self.say(found.path, found.severity, found.where, found.what, found.do)
            seen.add(table.number)
            sources[table.number] = Source(table.number, table.name or f"smtpsvc {table.number}")
        return dict(sorted(sources.items()))

    def _row(self, given: Given[BindingTable]) -> Row | None:
        table = given.value
        if table is None:
            return None
        bag = Bag(table.source_properties)
        priority = self._from_bag(given, bag, "priority", table.priority, v.whole(0, MAX_PRIORITY))
        rule = self._from_bag(given, bag, "rule", table.rule, code.rule)
        return Row(
            guid=table.guid or derived_guid(table.name, table.event, table.source),
            name=table.name,
            sink=table.sink.strip(),
            event=table.event,
            source=table.source,
            status=table.status,
            priority=priority,
            rule=rule,
            effects=table.effects,
            role=table.role,
            on_damage=table.on_damage,
            on_error=table.on_error,
            isolation=table.isolation,
            deadline_seconds=table.deadline.total_seconds(),
            memory_octets=table.memory,
            user=table.user,
            mode=table.mode,
            maximum_faults=table.maximum_faults,
            split=table.split,
            group=table.group,
            source_properties=dict(bag),
            sink_properties=dict(table.sink_properties),
        )

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


def sink_code(written: str, folder: Path) -> SinkFile | str:
    """What `sink` names: a file, or an import path.

    Raises:
        Unfit: neither.
    """
    name = written.rpartition(":")[0] or written
    if name.endswith(".py") or "/" in name:
        return code.sink_file(written, folder)
    try:
        return code.import_path(written, folder)
    except Unfit:
        raise Unfit(
            f"{show(written)} is neither an import path nor a Python file",
            'write "package.module:function" or "sinks/stamp.py:function", or status = "disabled"',
        ) from None


def _judge(
    given: Sequence[Given[BindingTable]],
    rows: Sequence[Row],
    sources: Mapping[int, Source],
    sinks: Sequence[Sink],
    folder: Path,
) -> Iterator[Found]:
    """What rows say together, and what the disk says about them."""
    names = {
        (1, sink.event or Event.ARRIVAL, sink.name.casefold()): f"[[sink]] {sink.name}" for sink in sinks
    }
    guids = {sink.guid: f"[[sink]] {sink.name} of the configuration" for sink in sinks}
    for one, row in zip(given, rows, strict=True):
        key = (row.source, row.event, row.name.casefold())
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
        if one.knows("source") and row.source not in sources:
            yield one.fault(
                "source",
                f"there is no source {row.source}",
                f"write [[source]] with number = {row.source}, or source = 1",
            )
        elif row.source != 1 and row.is_enabled:
            yield one.warning(
                "source",
                f"no listener belongs to source {row.source}: it never fires",
                "write source = 1",
            )
        if row.is_enabled and one.knows("sink", "status"):
            yield from _judge_code(one, row, folder)
        yield from check_sinks.judge_policy(one, row.role, row.on_damage, row.on_error)


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


def rows_of_config(sinks: Sequence[Sink]) -> tuple[Row, ...]:
    """The `[[sink]]` tables as rows, for listings; they are changed in the configuration alone."""
    return tuple(
        Row(
            guid=sink.guid,
            name=sink.name,
            sink=sink.import_path or str(sink.file),
            event=sink.event or Event.ARRIVAL,
            status=Status.ENABLED if sink.enabled else Status.DISABLED,
            priority=sink.priority,
            rule=sink.rule,
            effects=sink.effects,
            role=sink.role,
            on_damage=sink.on_damage,
            on_error=sink.on_error,
            isolation=sink.isolation,
            deadline_seconds=sink.deadline.total_seconds(),
            memory_octets=sink.memory,
            user=sink.user,
            mode=sink.mode,
            maximum_faults=sink.maximum_faults,
            split=sink.split,
            sink_properties=dict(sink.settings),
            origin=Origin.CONFIG,
        )
        for sink in sinks
    )
