"""What a configuration amounts to: each value that is in force, and where it comes from.

Rules: a secret is shown as `"***"`, whatever it comes from; every key of every table is there, also those at their
defaults, so that nothing that the relay does has a reason which is not on the page.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path

import msgspec

from lonedot.config.domains import RecipientSource
from lonedot.config.key import Key
from lonedot.config.model import Config, Source
from lonedot.config.origins import Origins
from lonedot.config.reference import TABLES
from lonedot.config.tables import keys_of
from lonedot.config.values import Secret, octets_words, size, span_words
from lonedot.observability.log import is_harmless

__all__ = ["EffectiveTable", "EffectiveValue", "Kind", "default_of", "effective", "toml_of"]


Place = tuple[str | int, ...]
"""A path in the tables of a configuration."""


class Kind(enum.Enum):
    """Where a value comes from."""

    FILE = "file"
    DEFAULT = "default"
    WORKED_OUT = "worked out"
    """From other keys, or from the machine."""


class EffectiveValue(msgspec.Struct, frozen=True):
    key: str
    value: str
    """As TOML; empty when there is none."""
    kind: Kind
    file: str = ""
    line: int = 0

    @property
    def origin(self) -> str:
        return f"{self.file}:{self.line}" if self.kind is Kind.FILE else self.kind.value


class EffectiveTable(msgspec.Struct, frozen=True):
    header: str
    """As in a file: `[server]`, `[[route]]`."""
    values: tuple[EffectiveValue, ...]


def effective(config: Config, origins: Origins, sources: Mapping[int, Place]) -> Iterator[EffectiveTable]:
    """All tables in the order of the reference. `sources` tells where each virtual server stands, by its number."""
    parts: list[object] = []
    for field in msgspec.structs.fields(config):
        value = getattr(config, field.name)
        parts.extend(value if isinstance(value, tuple) else (value,))
    for header, kind in TABLES:
        name = header.strip("[]")
        of_kind = [part for part in parts if type(part) is kind]
        for number, part in enumerate(of_kind):
            assert isinstance(part, msgspec.Struct)
            path: Place = (name, number) if header.startswith("[[") else (name,)
            if isinstance(part, Source):
                # The first is there without a table, and they are in the order of their numbers.
                path = sources.get(part.number, (name, len(of_kind)))
            yield EffectiveTable(header, tuple(_values(part, path, origins)))


def default_of(field: msgspec.structs.FieldInfo) -> object:
    """The default of a key that is not required."""
    made = field.default_factory
    return made() if callable(made) else field.default


def _values(part: msgspec.Struct, path: Place, origins: Origins) -> Iterator[EffectiveValue]:
    fields = {field.encode_name: field for field in msgspec.structs.fields(part)}
    for name, key in keys_of(type(part)).items():
        value = getattr(part, fields[name].name)
        words = HIDDEN if isinstance(value, Secret) else toml_of(value, is_size=_is_size(key))
        spot = (*path, name)
        if origins.stands(spot):
            place = origins.spot(spot)
            yield EffectiveValue(name, words, Kind.FILE, str(place.file), place.line)
        elif not fields[name].required and value == default_of(fields[name]):
            yield EffectiveValue(name, words, Kind.DEFAULT)
        else:
            yield EffectiveValue(name, words, Kind.WORKED_OUT)


HIDDEN = '"***"'
_SIZE_READER = size(0, 1).__qualname__


def _is_size(key: Key) -> bool:
    return getattr(key.read, "__qualname__", "") == _SIZE_READER


def toml_of(value: object, *, is_size: bool = False) -> str:
    """A value as it would stand in a file; empty for nothing, as which an empty text counts."""
    match value:
        case None | "":
            return ""
        case bool():
            return "true" if value else "false"
        case int() if is_size:
            return _quoted(octets_words(value)) if value >= 1024 and value % 1024 == 0 else str(value)
        case int():
            return str(value)
        case float():
            return f"{value:g}"
        case timedelta():
            return _quoted(span_words(value.total_seconds()))
        case enum.Enum():
            return _quoted(str(value.value))
        case str() | Path():
            return _quoted(_USER_AND_PASSWORD.sub(r"\1***@", str(value)))
        case tuple() | list() | frozenset():
            items = [toml_of(item) or _quoted("") for item in value]
            return f"[{', '.join(items)}]"
        case RecipientSource():
            return f"{{ {', '.join(f'{name} = {toml_of(one)}' for name, one in value.table.items())} }}"
        case Mapping():
            pairs = [f"{_quoted(str(name))} = {_shown(str(name), one)}" for name, one in value.items()]
            return f"{{ {', '.join(pairs)} }}" if pairs else "{}"
        case _:
            return _quoted(str(getattr(value, "text", value)))


_USER_AND_PASSWORD = re.compile(r"(://[^/:@\s]*:)[^@\s]*@")
"""In an address of a database."""


def _shown(name: str, value: object) -> str:
    """A setting of a sink; one whose name speaks of a secret is hidden."""
    return toml_of(value) if is_harmless(name) else HIDDEN


def _quoted(words: str) -> str:
    """A basic string: TOML escapes as JSON does, but for DEL."""
    return msgspec.json.encode(words.encode("utf-8", "replace").decode()).decode().replace("\x7f", "\\u007f")
