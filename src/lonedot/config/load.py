"""From a file to a `Config`, or to every fault of the file with its line.

Three steps, none of which stops at the first fault: TOML is parsed; each table is read key by key; what the tables
say together, and what they say of the disk, is judged by `check`. A key that is wrong is left out of step three.
Whatever the octets are, the result is a `Config` or faults: no other exception.
"""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from lonedot.config import addresses, check, disk, values
from lonedot.config.faults import ConfigFaults, Fault, Severity
from lonedot.config.given import Drafts, Given
from lonedot.config.model import Badmail, Config, Listener, Pickup, Route, Server, Sink, Source
from lonedot.config.positions import Positions
from lonedot.config.registry import Beside, ExaminedRegistry, examine_registry
from lonedot.config.tables import MAX_FILE, TableReader, keys_of, parse, read_file
from lonedot.sinks.registry import Row, derived_guid
from lonedot.terms.address import Address

__all__ = ["MAX_FILE", "Examined", "examine", "examine_octets", "keys_of", "load"]

S = TypeVar("S", bound=msgspec.Struct)

_TABLES: dict[str, type[msgspec.Struct]] = {"server": Server, "pickup": Pickup, "badmail": Badmail}
_LISTS: dict[str, type[msgspec.Struct]] = {
    "listener": Listener,
    "route": Route,
    "sink": Sink,
    "source": Source,
}


class Examined(NamedTuple):
    """What became of a file: a configuration unless some fault is one, and all that can be said, in order of lines."""

    config: Config | None
    faults: tuple[Fault, ...]


def load(path: Path, *, with_registry: bool = True) -> Config:
    """The configuration in a file.

    `with_registry`: the registry that it names must be without a fault too; a command that mends it needs no such.

    Raises:
        ConfigFaults: it cannot be used. Warnings alone do not raise; `examine` returns them.
    """
    found = examine(path, with_registry=with_registry)
    if found.config is None:
        raise ConfigFaults(found.faults)
    return found.config


def examine(path: Path, *, with_registry: bool = True) -> Examined:
    """Reads and judges a file, and the files that it names."""
    octets = read_file(path)
    if isinstance(octets, Fault):
        return Examined(None, (octets,))
    return examine_octets(octets, path, with_registry=with_registry)


def examine_octets(
    octets: bytes,
    path: Path,
    machine_name: Callable[[], str] | None = None,
    *,
    with_registry: bool = True,
) -> Examined:
    """As `examine`, from the octets of a file; `path` is named in faults and gives the folder.

    `machine_name` is asked when no hostname is given; by default the system is.
    """
    parsed = parse(octets, path)
    if isinstance(parsed, Fault):
        return Examined(None, (parsed,))
    text, tables = parsed
    reading = _Reading(path, Positions(text), machine_name or _machine_name, with_registry)
    return reading.examine(tables)


def revision_of(config: Config) -> str:
    """12 hexadecimal digits over the effective values."""
    bare = msgspec.structs.replace(config, file=Path(), revision="")
    plain = msgspec.json.encode(bare, enc_hook=_plain, order="sorted")
    return hashlib.sha256(plain).hexdigest()[:12]


def _plain(value: object) -> str:
    return str(value)


class _Reading(TableReader):
    """One configuration being read."""

    def __init__(
        self, path: Path, positions: Positions, machine_name: Callable[[], str], with_registry: bool
    ) -> None:
        super().__init__(path, positions)
        self.machine_name = machine_name
        self.with_registry = with_registry

    def examine(self, tables: Mapping[str, object]) -> Examined:
        for name in tables:
            if name not in _TABLES and name not in _LISTS:
                self.unknown((name,), "", name, [*_TABLES, *_LISTS])
        server = self._server(tables)
        drafts = Drafts(
            file=self.path,
            present=frozenset(tables),
            server=server,
            listeners=self._finish_listeners(self.items("listener", Listener, tables)),
            routes=self._finish_routes(self.items("route", Route, tables)),
            sinks=[self._finish_sink(given) for given in self.items("sink", Sink, tables)],
            pickup=self.table("pickup", Pickup, tables, {}),
            badmail=self.table("badmail", Badmail, tables, {}),
            sources=list(self.items("source", Source, tables)),
        )
        registry = _registry(drafts) if self.with_registry else None
        drafts = drafts._replace(rows=_rows(drafts, registry))
        for found in check.judge(drafts):
            self.say(found.path, found.severity, found.where, found.what, found.do)
        self.faults.sort(key=lambda fault: (fault.line == 0, fault.line, fault.column, fault.severity.value))
        faults = (*self.faults, *(registry.faults if registry is not None else ()))
        if any(fault.severity is Severity.FAULT for fault in faults):
            return Examined(None, faults)
        return Examined(self._config(drafts), faults)

    def _config(self, drafts: Drafts) -> Config:
        server = drafts.server.value
        pickup, badmail = drafts.pickup.value, drafts.badmail.value
        assert server is not None and pickup is not None and badmail is not None  # no fault: all were read
        if not drafts.pickup.has("folder"):
            pickup = msgspec.structs.replace(pickup, folder=server.paths.pickup)
        if not drafts.badmail.has("folder"):
            badmail = msgspec.structs.replace(badmail, folder=server.paths.badmail)
        sources = {given.number: given for given in (Source(number=1), *_values(drafts.sources))}
        config = Config(
            file=self.path,
            server=server,
            listeners=_values(drafts.listeners),
            routes=_values(drafts.routes),
            sinks=_values(drafts.sinks),
            pickup=pickup,
            badmail=badmail,
            sources=tuple(_in_place(sources[number], server, pickup, badmail) for number in sorted(sources)),
            revision="",
        )
        return msgspec.structs.replace(config, revision=revision_of(config))

    # --- tables ---

    def _server(self, tables: Mapping[str, object]) -> Given[Server]:
        filled = {"spool": self.folder / "spool", "hostname": ""}
        given = self.table("server", Server, tables, filled)
        server = given.value
        if server is not None and not server.hostname:
            given = self._name_server(given, server)
            server = given.value
        if server is not None and not given.has("postmaster"):
            at_home = Address(f"postmaster@{server.hostname}".encode())
            given = given.with_value(msgspec.structs.replace(server, postmaster=at_home))
        return given

    def _name_server(self, given: Given[Server], server: Server) -> Given[Server]:
        """The hostname of the machine, when the file has none."""
        if not given.knows("hostname"):
            return given
        name = self.machine_name()
        try:
            hostname = addresses.host_name(name, self.folder)
        except values.Unfit:
            self.say(
                given.path,
                Severity.FAULT,
                "server: hostname",
                f"is missing, and this machine's name {values.show(name)} is not a full domain name",
                'write hostname = "relay.example.com" in [server]',
            )
            return Given(given.value, given.path, given.where, given.names, given.bad | {"hostname"})
        return given.with_value(msgspec.structs.replace(server, hostname=hostname))

    # --- what a table gets besides its own keys ---

    def _finish_listeners(self, items: Iterable[Given[Listener]]) -> list[Given[Listener]]:
        finished = []
        names: set[str] = set()
        for given in items:
            listener = given.value
            if listener is not None:
                name = listener.name or _fresh_name(str(listener.address), names)
                names.add(name)
                listener = msgspec.structs.replace(listener, name=name)
            finished.append(given.with_value(listener))
        return finished

    def _finish_routes(self, items: Iterable[Given[Route]]) -> list[Given[Route]]:
        finished = []
        names: set[str] = set()
        for given in items:
            route = given.value
            if route is not None:
                name = route.name or _fresh_name(", ".join(route.to), names)
                names.add(name)
                password = route.password or disk.find_password(route)
                if isinstance(password, values.Unfit):
                    password = None  # `check` says so
                route = msgspec.structs.replace(route, name=name, password=password)
            finished.append(given.with_value(route))
        return finished

    def _finish_sink(self, given: Given[Sink]) -> Given[Sink]:
        if given.value is None:
            return given
        if given.value.guid:
            return given
        sink = given.value
        guid = derived_guid(sink.name, sink.event, sink.source)
        return given.with_value(msgspec.structs.replace(sink, guid=guid))


def _registry(drafts: Drafts) -> ExaminedRegistry | None:
    """The registry that the configuration names, with faults by its own lines; None when it names none."""
    server = drafts.server.value
    if server is None or server.registry is None or not drafts.server.knows("registry"):
        return None
    beside = Beside(_values(drafts.sinks), _values(drafts.sources), drafts.served)
    return examine_registry(server.registry, beside)


def _rows(drafts: Drafts, examined: ExaminedRegistry | None) -> Sequence[Row] | None:
    """The bindings beside those of the configuration; None when there may be some that were not read."""
    if examined is not None:
        return examined.registry.rows if examined.registry is not None else None
    server = drafts.server.value
    is_named = server is None or server.registry is not None or not drafts.server.knows("registry")
    return None if is_named else ()


def _in_place(source: Source, server: Server, pickup: Pickup, badmail: Badmail) -> Source:
    """A virtual server with its folders. Those of the first have tables of their own."""
    if source.number == 1:
        folder = pickup.folder if pickup.enabled else None
        return msgspec.structs.replace(source, pickup=folder, badmail=badmail.folder)
    if source.badmail == Path():
        folder = server.paths.badmail
        return msgspec.structs.replace(source, badmail=folder.with_name(f"{folder.name}-{source.number}"))
    return source


def _fresh_name(wanted: str, taken: Collection[str]) -> str:
    """A name for what the file gives none: the wanted one, or with a number when it is taken."""
    wanted = wanted if len(wanted) <= 80 else wanted[:79] + "…"
    number, name = 1, wanted
    while name in taken:
        number += 1
        name = f"{wanted} ({number})"
    return name


def _values(given: Iterable[Given[S]]) -> tuple[S, ...]:
    return tuple(one.value for one in given if one.value is not None)


def _machine_name() -> str:
    name = socket.gethostname()
    return name if "." in name else socket.getfqdn()
