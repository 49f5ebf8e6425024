"""From a file to a `Config`, or to every fault of the file with its line.

Three steps, none of which stops at the first fault: TOML is parsed, that of included files too; each table is read key
by key; what the tables say together, and what they say of the disk, is judged by `check`. A key that is wrong is left
out of step three.
Whatever the octets are, the result is a `Config` or faults: no other exception.
"""

from __future__ import annotations

import functools
import hashlib
import socket
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from lonedot.config import addresses, check, disk, values
from lonedot.config.domains import Domain
from lonedot.config.drop import Drop, folder_in
from lonedot.config.faults import ConfigFaults, Fault, Severity
from lonedot.config.files import not_plain
from lonedot.config.given import Drafts, Given
from lonedot.config.model import (
    Badmail,
    Config,
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
from lonedot.config.origins import MAX_FILES, MAX_PATTERNS, Origins, matched_files
from lonedot.config.positions import Positions
from lonedot.config.registry import Beside, ExaminedRegistry, examine_registry
from lonedot.config.rewrites import Rewrite
from lonedot.config.tables import MAX_FILE, TableReader, keys_of, parse, read_file
from lonedot.sinks.registry import Row, derived_guid
from lonedot.terms.address import Address

__all__ = ["MAX_FILE", "Examined", "examine", "examine_octets", "keys_of", "load"]

S = TypeVar("S", bound=msgspec.Struct)

_TABLES: dict[str, type[msgspec.Struct]] = {
    "server": Server,
    "pickup": Pickup,
    "badmail": Badmail,
    "drop": Drop,
    "metrics": Metrics,
    "sendmail": Sendmail,
}
_LISTS: dict[str, type[msgspec.Struct]] = {
    "listener": Listener,
    "route": Route,
    "sink": Sink,
    "source": Source,
    "domain": Domain,
    "rewrite": Rewrite,
    "pop3": Pop3,
}


INCLUDE = "include"
"""The one key that stands above all tables."""


class Examined(NamedTuple):
    """What became of a file: a configuration unless some fault is one, and all that can be said, in order of lines."""

    config: Config | None
    faults: tuple[Fault, ...]
    origins: Origins | None = None
    """Where everything stands; None when the first file could not be parsed."""
    sources: Mapping[int, tuple[str | int, ...]] = {}
    """Where each virtual server that has a table stands, by its number."""


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

    def examine(self, first: Mapping[str, object]) -> Examined:
        tables = self._with_included(first)
        for name in tables:
            if name not in _TABLES and name not in _LISTS:
                self.unknown((name,), "", name, [*_TABLES, *_LISTS, INCLUDE])
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
            drop=self.table("drop", Drop, tables, {}),
            metrics=self.table("metrics", Metrics, tables, {}),
            sendmail=self.table("sendmail", Sendmail, tables, {}),
            sources=list(self.items("source", Source, tables)),
            domains=list(self.items("domain", Domain, tables)),
            rewrites=list(self.items("rewrite", Rewrite, tables)),
            pop3=[self._finish_pop3(given) for given in self.items("pop3", Pop3, tables)],
            origins=self.origins,
        )
        registry = _registry(drafts) if self.with_registry else None
        drafts = drafts._replace(rows=_rows(drafts, registry))
        for found in check.judge(drafts):
            self.say(found.path, found.severity, found.where, found.what, found.do)
        rank = self.origins.rank
        self.faults.sort(
            key=lambda fault: (
                fault.line == 0,
                rank(fault.file),
                fault.line,
                fault.column,
                fault.severity.value,
            )
        )
        faults = (*self.faults, *(registry.faults if registry is not None else ()))
        if any(fault.severity is Severity.FAULT for fault in faults):
            return Examined(None, faults, self.origins)
        sources = {given.value.number: given.path for given in drafts.sources if given.value is not None}
        return Examined(self._config(drafts), faults, self.origins, sources)

    # --- included files ---

    def _with_included(self, first: Mapping[str, object]) -> dict[str, object]:
        """The tables of the first file and of those that it includes, put together."""
        whole = dict(first)
        for place, pattern in self._patterns(whole.pop(INCLUDE, [])):
            matched = matched_files(pattern, self.folder)
            if matched.what:
                self.say(place, Severity.FAULT, INCLUDE, matched.what, matched.do)
            elif not matched.files:
                self.say(
                    place,
                    Severity.NOTE,
                    INCLUDE,
                    f"{values.show(pattern)} matches no file",
                    "nothing, if meant",
                )
            for path in matched.files:
                self._include(path, place, whole)
        return whole

    def _patterns(self, written: object) -> Iterator[tuple[tuple[str | int, ...], object]]:
        if not isinstance(written, list):
            yield (INCLUDE,), written
            return
        if len(written) > MAX_PATTERNS:
            words = f"is a list of {len(written)} items"
            self.say((INCLUDE,), Severity.FAULT, INCLUDE, words, f"use at most {MAX_PATTERNS}")
            return
        for number, pattern in enumerate(written):
            yield (INCLUDE, number), pattern

    def _include(self, path: Path, place: tuple[str | int, ...], whole: dict[str, object]) -> None:
        fault = functools.partial(self.say, place, Severity.FAULT, INCLUDE)
        if path in self.origins.files:
            if path == self.origins.files[0]:
                fault(f"{path} is this file", 'use a folder of its own: "conf.d/*.toml"')
            return  # two patterns match it
        if len(self.origins.files) > MAX_FILES:
            if len(self.origins.files) == MAX_FILES + 1:
                fault(f"leads to more than {MAX_FILES} files", "put some of them together")
            return
        if unfit := not_plain(path):
            fault(unfit.what, unfit.do)
            return
        octets = read_file(path)
        if isinstance(octets, Fault):
            fault(f"{path} {octets.what}", "mend the name, or give the relay's user the right to read it")
            return
        parsed = parse(octets, path)
        if isinstance(parsed, Fault):
            self.faults.append(parsed)
            return
        text, tables = parsed
        positions = Positions(text)
        if INCLUDE in tables:
            spot = positions.of((INCLUDE,)) or (0, 0)
            do = f"name it in {self.path}"
            words = "stands in an included file"
            self.faults.append(Fault(str(path), *spot, Severity.FAULT, INCLUDE, words, do))
            del tables[INCLUDE]
        for clash in self.origins.take(path, positions, tables, whole):
            spots, first = clash.spot, clash.first
            words = f"stands in {first.file}:{first.line} too"
            self.faults.append(
                Fault(
                    str(spots.file),
                    spots.line,
                    spots.column,
                    Severity.FAULT,
                    clash.where,
                    words,
                    "keep one of the two",
                )
            )

    def _config(self, drafts: Drafts) -> Config:
        server = drafts.server.value
        pickup, badmail = drafts.pickup.value, drafts.badmail.value
        assert server is not None and pickup is not None and badmail is not None  # no fault: all were read
        if not drafts.pickup.has("folder"):
            pickup = msgspec.structs.replace(pickup, folder=server.paths.pickup)
        if not drafts.badmail.has("folder"):
            badmail = msgspec.structs.replace(badmail, folder=server.paths.badmail)
        drop = (drafts.drop.value if drafts.drop is not None else None) or Drop()
        if drafts.drop is None or not drafts.drop.has("folder"):
            drop = msgspec.structs.replace(drop, folder=folder_in(server.spool, 1))
        sources = {given.number: given for given in (Source(number=1), *_values(drafts.sources))}
        config = Config(
            file=self.path,
            server=server,
            listeners=_values(drafts.listeners),
            routes=_values(drafts.routes),
            sinks=_values(drafts.sinks),
            pickup=pickup,
            badmail=badmail,
            drop=drop,
            metrics=(drafts.metrics.value if drafts.metrics is not None else None) or Metrics(),
            sendmail=_with_defaults(drafts.sendmail, server),
            domains=_values(drafts.domains),
            rewrites=_values(drafts.rewrites),
            pop3=_values(drafts.pop3),
            sources=tuple(
                _in_place(sources[number], server, pickup, badmail, drop) for number in sorted(sources)
            ),
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

    def _finish_pop3(self, given: Given[Pop3]) -> Given[Pop3]:
        account = given.value
        if account is None:
            return given
        name = account.name or f"{account.user} at {account.host}"
        password = account.password or disk.find_password(account)
        if isinstance(password, values.Unfit):
            password = None  # `check` says so
        return given.with_value(msgspec.structs.replace(account, name=name, password=password))

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


def _with_defaults(given: Given[Sendmail], server: Server) -> Sendmail:
    """The socket of local programs, with what the server gives where the file says nothing."""
    sendmail = given.value
    assert sendmail is not None
    socket = sendmail.socket if given.has("socket") else server.paths.submit
    return msgspec.structs.replace(sendmail, socket=socket, domain=sendmail.domain or server.hostname)


def _in_place(source: Source, server: Server, pickup: Pickup, badmail: Badmail, drop: Drop) -> Source:
    """A virtual server with its folders. Those of the first have tables of their own."""
    if source.number == 1:
        folder = pickup.folder if pickup.enabled else None
        return msgspec.structs.replace(source, pickup=folder, badmail=badmail.folder, drop=drop.folder)
    if source.drop == Path():
        source = msgspec.structs.replace(source, drop=folder_in(server.spool, source.number))
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
