"""A file of tables: from octets to TOML, from tables to values, with what is wrong by line and column.

What the configuration and the registry share. Whatever the octets are, the result is values or faults.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar, get_args, get_type_hints

import msgspec

from lonedot.config import values
from lonedot.config.faults import Fault, Severity
from lonedot.config.given import Given
from lonedot.config.key import Key
from lonedot.config.origins import Origins
from lonedot.config.positions import Positions

__all__ = ["MAX_FILE", "TableReader", "keys_of", "parse", "read_file"]

MAX_FILE = 1024 * 1024
"""Octets of a configuration file."""

S = TypeVar("S", bound=msgspec.Struct)

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


def read_file(path: Path) -> bytes | Fault:
    """The octets of a file, at most one more than `MAX_FILE`."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE + 1)
    except OSError as error:
        reason = (error.strerror or "it cannot be read").lower()
        return _hopeless(path, f"cannot be read: {reason}", "name another with -c, or write this one")


def parse(octets: bytes, path: Path) -> tuple[str, dict[str, object]] | Fault:
    """The text and its tables; `path` is named in the fault."""
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
        return text, tomllib.loads(text)
    except ValueError as error:
        return _syntax_fault(path, text, str(error))
    except RecursionError:
        return _hopeless(path, "nests lists or tables too deep", "write it flat")


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


class TableReader:
    """One file being read, or several that are put together; what is wrong gathers in `faults`."""

    def __init__(self, path: Path, positions: Positions) -> None:
        self.path = path
        self.folder = path.absolute().parent
        self.positions = positions
        self.origins = Origins(path, positions)
        self.faults: list[Fault] = []

    def table(
        self, name: str, kind: type[S], tables: Mapping[str, object], filled: Mapping[str, object]
    ) -> Given[S]:
        table = tables.get(name, {})
        if isinstance(table, list):
            self.say((name,), Severity.FAULT, name, "is a list of tables", f"write [{name}], once")
            table = table[0] if table else {}
        if not isinstance(table, dict):
            self.say((name,), Severity.FAULT, name, "is not a table", f"write [{name}] on a line of its own")
            table = {}
        return self.read(kind, table, (name,), name, filled)

    def items(self, name: str, kind: type[S], tables: Mapping[str, object]) -> Iterable[Given[S]]:
        listed = tables.get(name, [])
        if isinstance(listed, dict):
            self.say(
                (name,), Severity.FAULT, name, f"[{name}] is one table", f"write [[{name}]], once for each"
            )
            yield self.read(kind, listed, (name,), name, {})
            return
        if not isinstance(listed, list):
            self.say(
                (name,), Severity.FAULT, name, "is not a list of tables", f"write [[{name}]], once for each"
            )
            return
        if len(listed) > values.MAX_ITEMS:
            self.say(
                (name,), Severity.FAULT, name, f"stands {len(listed)} times", f"at most {values.MAX_ITEMS}"
            )
            return
        for number, table in enumerate(listed):
            where = f"{name} {number + 1}"
            if isinstance(table, dict):
                yield self.read(kind, table, (name, number), where, {})
            else:
                self.say((name, number), Severity.FAULT, where, "is not a table", f"write [[{name}]]")

    def read(
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
                meant = self.unknown((*path, name), where, name, list(keys))
                bad.add(meant)
                continue
            field = fields[name].name
            try:
                read[field] = key.read(value, self.origins.folder((*path, name)))
            except values.Unfit as first:
                for unfit in (first, *first.others):
                    place = (*path, name) if unfit.item < 0 else (*path, name, unfit.item)
                    self.say(place, Severity.FAULT, f"{where}: {name}", unfit.what, unfit.do)
                bad.add(name)
        for name, spec in fields.items():
            if not spec.required or spec.name in read:
                continue
            key = keys[name]
            if name not in bad:
                do = f"write {name} = {key.example}"
                self.say(path, Severity.FAULT, f"{where}: {name}", "is missing", do)
                bad.add(name)
            # The example stands in for it, so that the rest of the table is judged all the same.
            read[spec.name] = key.read(tomllib.loads(f"x = {key.example}")["x"], self.folder)
        given = frozenset(name for name in table if name in keys)
        return Given(kind(**read), path, where, given, frozenset(bad))

    def say(self, path: tuple[str | int, ...], severity: Severity, where: str, what: str, do: str) -> None:
        file, line, column = self.origins.spot(path)
        self.faults.append(Fault(str(file), line, column, severity, where, what, do))

    def unknown(self, path: tuple[str | int, ...], where: str, name: str, known: Sequence[str]) -> str:
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
        self.say(path, Severity.FAULT, at, f"is not a {kind} that exists here", do)
        return meant or name


def _hopeless(path: Path, what: str, do: str, line: int = 0, column: int = 0) -> Fault:
    return Fault(str(path), line, column, Severity.FAULT, "", what, do)


_PLACE = re.compile(r"\s*\((?:at line (\d+), column (\d+)|at end of document)\)\s*$")


def _syntax_fault(path: Path, text: str, words: str) -> Fault:
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
