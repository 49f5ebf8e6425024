"""From a file to a `Config`, or to every fault of the file with its line.

Three steps, none of which stops at the first fault: TOML is parsed; each table is read key by key; what the tables
say together, and what they say of the disk, is judged by `check`. A key that is wrong is left out of step three.
Whatever the octets are, the result is a `Config` or faults: no other exception.
"""

from __future__ import annotations

import difflib
import hashlib
import re
import socket
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar, get_args, get_type_hints

import msgspec

from lonedot.config import addresses, check, disk, values
from lonedot.config.faults import ConfigFaults, Fault, Severity
from lonedot.config.given import Drafts, Given
from lonedot.config.model import Badmail, Config, Key, Listener, Pickup, Route, Server, Sink
from lonedot.config.positions import Positions
from lonedot.sinks.bindings import guid_for
from lonedot.terms.address import Address

__all__ = ["Examined", "examine", "examine_octets", "keys_of", "load"]

MAX_FILE = 1024 * 1024
"""Octets of a configuration file."""

S = TypeVar("S", bound=msgspec.Struct)

_TABLES: dict[str, type[msgspec.Struct]] = {"server": Server, "pickup": Pickup, "badmail": Badmail}
_LISTS: dict[str, type[msgspec.Struct]] = {"listener": Listener, "route": Route, "sink": Sink}

# What people write who know another program, or the plural.
_MEANT = {
    "listen": "listener",
    "listeners": "listener",
    "routes": "route",
    "sinks": "sink",
    "bad_mail": "badmail",
    "mynetworks": "relay_from",
    "relayhost": "smarthost",
    "host": "smarthost",
    "domain": "to",
    "cert": "tls_certificate",
    "certificate": "tls_certificate",
    "key": "tls_key",
    "user": "login",
    "username": "login",
    "path": "file",
    "module": "import",
    "import_path": "import",
    "size_limit": "max_size",
    "port": "address",
}


class Examined(NamedTuple):
    """What became of a file: a configuration unless some fault is one, and all that can be said, in order of lines."""

    config: Config | None
    faults: tuple[Fault, ...]


def load(path: Path) -> Config:
    """The configuration in a file.

    Raises:
        ConfigFaults: it cannot be used. Warnings alone do not raise; `examine` returns them.
    """
    found = examine(path)
    if found.config is None:
        raise ConfigFaults(found.faults)
    return found.config


def examine(path: Path) -> Examined:
    """Reads and judges a file, and the files that it names."""
    try:
        with path.open("rb") as file:
            octets = file.read(MAX_FILE + 1)
    except OSError as error:
        reason = (error.strerror or "it cannot be read").lower()
        return _hopeless(path, f"cannot be read: {reason}", "name another with -c, or write this one")
    return examine_octets(octets, path)


def examine_octets(octets: bytes, path: Path, machine_name: Callable[[], str] | None = None) -> Examined:
    """As `examine`, from the octets of a file; `path` is named in faults and gives the folder.

    `machine_name` is asked when no hostname is given; by default the system is.
    """
    if len(octets) > MAX_FILE:
        return _hopeless(
            path, f"is larger than {MAX_FILE} octets", "keep lists of addresses in a file of their own"
        )
    try:
        text = octets.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = octets.count(b"\n", 0, error.start) + 1
        column = error.start - octets.rfind(b"\n", 0, error.start)
        return _hopeless(path, "holds an octet that is not UTF-8", "save the file as UTF-8", line, column)
    try:
        tables = tomllib.loads(text)
    except ValueError as error:
        return _syntax_fault(path, text, str(error))
    except RecursionError:
        return _hopeless(path, "nests lists or tables too deep", "write it flat")
    reading = _Reading(path, Positions(text), machine_name or _machine_name)
    return reading.examine(tables)


def keys_of(kind: type[msgspec.Struct]) -> dict[str, Key]:
    """The keys of a table as they stand in a file, in the order of the model."""
    known = _KEYS.get(kind)
    if known is None:
        hints = get_type_hints(kind, include_extras=True)
        known = {}
        for field in msgspec.structs.fields(kind):
            for note in get_args(hints[field.name]):
                if isinstance(note, Key):
                    known[field.encode_name] = note
        _KEYS[kind] = known
    return known


_KEYS: dict[type[msgspec.Struct], dict[str, Key]] = {}


def revision_of(config: Config) -> str:
    """12 hexadecimal digits over the effective values."""
    bare = msgspec.structs.replace(config, file=Path(), revision="")
    plain = msgspec.json.encode(bare, enc_hook=_plain, order="sorted")
    return hashlib.sha256(plain).hexdigest()[:12]


def _plain(value: object) -> str:
    return str(value)


class _Reading:
    """One file being read."""

    def __init__(self, path: Path, positions: Positions, machine_name: Callable[[], str]) -> None:
        self.path = path
        self.folder = path.absolute().parent
        self.positions = positions
        self.machine_name = machine_name
        self.faults: list[Fault] = []

    def examine(self, tables: Mapping[str, object]) -> Examined:
        for name in tables:
            if name not in _TABLES and name not in _LISTS:
                self._unknown((name,), "", name, [*_TABLES, *_LISTS])
        server = self._server(tables)
        drafts = Drafts(
            file=self.path,
            present=frozenset(tables),
            server=server,
            listeners=self._finish_listeners(self._items("listener", Listener, tables)),
            routes=self._finish_routes(self._items("route", Route, tables)),
            sinks=[self._finish_sink(given) for given in self._items("sink", Sink, tables)],
            pickup=self._table("pickup", Pickup, tables, {}),
            badmail=self._table("badmail", Badmail, tables, {}),
        )
        for found in check.judge(drafts):
            self._say(found.path, found.severity, found.where, found.what, found.do)
        self.faults.sort(key=lambda fault: (fault.line == 0, fault.line, fault.column, fault.severity.value))
        faults = tuple(self.faults)
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
        config = Config(
            file=self.path,
            server=server,
            listeners=_values(drafts.listeners),
            routes=_values(drafts.routes),
            sinks=_values(drafts.sinks),
            pickup=pickup,
            badmail=badmail,
            revision="",
        )
        return msgspec.structs.replace(config, revision=revision_of(config))

    # --- tables ---

    def _server(self, tables: Mapping[str, object]) -> Given[Server]:
        filled = {"spool": self.folder / "spool", "hostname": ""}
        given = self._table("server", Server, tables, filled)
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
            self._say(
                given.path,
                Severity.FAULT,
                "server: hostname",
                f"is missing, and this machine's name {values.show(name)} is not a full domain name",
                'write hostname = "relay.example.com" in [server]',
            )
            return Given(given.value, given.path, given.where, given.names, given.bad | {"hostname"})
        return given.with_value(msgspec.structs.replace(server, hostname=hostname))

    def _table(
        self, name: str, kind: type[S], tables: Mapping[str, object], filled: Mapping[str, object]
    ) -> Given[S]:
        table = tables.get(name, {})
        if isinstance(table, list):
            self._say((name,), Severity.FAULT, name, "is a list of tables", f"write [{name}], once")
            table = table[0] if table else {}
        if not isinstance(table, dict):
            self._say((name,), Severity.FAULT, name, "is not a table", f"write [{name}] on a line of its own")
            table = {}
        return self._read(kind, table, (name,), name, filled)

    def _items(self, name: str, kind: type[S], tables: Mapping[str, object]) -> Iterable[Given[S]]:
        listed = tables.get(name, [])
        if isinstance(listed, dict):
            self._say(
                (name,), Severity.FAULT, name, f"[{name}] is one table", f"write [[{name}]], once for each"
            )
            yield self._read(kind, listed, (name,), name, {})
            return
        if not isinstance(listed, list):
            self._say(
                (name,), Severity.FAULT, name, "is not a list of tables", f"write [[{name}]], once for each"
            )
            return
        if len(listed) > values.MAX_ITEMS:
            self._say(
                (name,), Severity.FAULT, name, f"stands {len(listed)} times", f"at most {values.MAX_ITEMS}"
            )
            return
        for number, table in enumerate(listed):
            where = f"{name} {number + 1}"
            if isinstance(table, dict):
                yield self._read(kind, table, (name, number), where, {})
            else:
                self._say((name, number), Severity.FAULT, where, "is not a table", f"write [[{name}]]")

    def _read(
        self,
        kind: type[S],
        table: Mapping[str, object],
        path: tuple[str | int, ...],
        where: str,
        filled: Mapping[str, object],
    ) -> Given[S]:
        keys = keys_of(kind)
        fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
        read: dict[str, object] = dict(filled)
        bad: set[str] = set()
        for name, value in table.items():
            key = keys.get(name)
            if key is None:
                meant = self._unknown((*path, name), where, name, list(keys))
                bad.add(meant)
                continue
            field = fields[name].name
            try:
                read[field] = key.read(value, self.folder)
            except values.Unfit as first:
                for unfit in (first, *first.others):
                    place = (*path, name) if unfit.item < 0 else (*path, name, unfit.item)
                    self._say(place, Severity.FAULT, f"{where}: {name}", unfit.what, unfit.do)
                bad.add(name)
        for name, spec in fields.items():
            if not spec.required or spec.name in read:
                continue
            key = keys[name]
            if name not in bad:
                do = f"write {name} = {key.example}"
                self._say(path, Severity.FAULT, f"{where}: {name}", "is missing", do)
                bad.add(name)
            # The example stands in for it, so that the rest of the table is judged all the same.
            read[spec.name] = key.read(tomllib.loads(f"x = {key.example}")["x"], self.folder)
        given = frozenset(name for name in table if name in keys)
        return Given(kind(**read), path, where, given, frozenset(bad))

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
        return given.with_value(msgspec.structs.replace(given.value, guid=guid_for(given.value.name)))

    # --- faults ---

    def _say(self, path: tuple[str | int, ...], severity: Severity, where: str, what: str, do: str) -> None:
        line, column = self.positions.of(path) or (0, 0)
        self.faults.append(Fault(str(self.path), line, column, severity, where, what, do))

    def _unknown(self, path: tuple[str | int, ...], where: str, name: str, known: Sequence[str]) -> str:
        """Says that a name is unknown; returns the name that was probably meant, or the name itself."""
        shown = values.show(name)[1:-1]
        meant = _MEANT.get(name.lower(), "")
        if meant not in known:
            folded = name.lower().replace("-", "_")
            near = difflib.get_close_matches(folded[:60], known, n=1, cutoff=0.6)
            meant = near[0] if near else ""
        kind = "key" if where else "table"
        do = f"did you mean {meant}?" if meant else f"remove it, or use one of: {', '.join(known)}"
        at = f"{where}: {shown}" if where else shown
        self._say(path, Severity.FAULT, at, f"is not a {kind} that exists here", do)
        return meant or name


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


def _hopeless(path: Path, what: str, do: str, line: int = 0, column: int = 0) -> Examined:
    return Examined(None, (Fault(str(path), line, column, Severity.FAULT, "", what, do),))


_PLACE = re.compile(r"\s*\((?:at line (\d+), column (\d+)|at end of document)\)\s*$")


def _syntax_fault(path: Path, text: str, words: str) -> Examined:
    found = _PLACE.search(words)
    line, column = 0, 0
    if found is not None:
        what = words[: found.start()]
        if found[1] is not None:
            line, column = int(found[1]), int(found[2])
        else:
            line = text.rstrip("\n").count("\n") + 1
            column = len(text.rstrip("\n")) - text.rstrip("\n").rfind("\n")
    else:
        what = words
    what = what[:1].lower() + what[1:200]
    do = "mend the line; texts need quotation marks, lists need commas, a table or key may stand only once"
    return _hopeless(path, f"is not TOML: {what}", do, line, column)


def _machine_name() -> str:
    name = socket.gethostname()
    return name if "." in name else socket.getfqdn()
