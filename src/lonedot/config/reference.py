"""The reference of the configuration, written from the model: `docs/config.md` is checked against it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from enum import Enum
from pathlib import Path

import msgspec

from lonedot.config.bindings import BindingKeys, SourceKeys
from lonedot.config.domains import Domain
from lonedot.config.drop import Drop
from lonedot.config.key import Key
from lonedot.config.load import keys_of
from lonedot.config.model import (
    Badmail,
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
from lonedot.config.registry import BindingTable
from lonedot.config.rewrites import Rewrite
from lonedot.config.values import octets_words, span_words

__all__ = ["REGISTRY_TABLES", "TABLES", "registry_tables", "tables"]

TABLES: tuple[tuple[str, type[msgspec.Struct]], ...] = (
    ("[server]", Server),
    ("[[listener]]", Listener),
    ("[[route]]", Route),
    ("[[sink]]", Sink),
    ("[pickup]", Pickup),
    ("[badmail]", Badmail),
    ("[drop]", Drop),
    ("[metrics]", Metrics),
    ("[sendmail]", Sendmail),
    ("[[source]]", Source),
    ("[[domain]]", Domain),
    ("[[rewrite]]", Rewrite),
    ("[[pop3]]", Pop3),
)
"""In the order of the reference."""


REGISTRY_TABLES: tuple[tuple[str, type[msgspec.Struct]], ...] = (
    ("[[binding]]", BindingTable),
    ("[[source]]", SourceKeys),
)


def registry_tables(_folder: Path) -> str:
    """The tables of the registry as Markdown."""
    return "\n".join(line for header, kind in REGISTRY_TABLES for line in _table(header, kind))


def tables(_folder: Path) -> str:
    """All tables as Markdown. The argument is what generators of documentation are given."""
    return "\n".join(line for header, kind in TABLES for line in _table(header, kind))


def _table(header: str, kind: type[msgspec.Struct]) -> Iterator[str]:
    yield f"### `{header}`"
    yield ""
    yield (kind.__doc__ or "").strip().split("\n")[0]
    yield ""
    yield "| key | meaning | default | example |"
    yield "|---|---|---|---|"
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    for name in _ordered(kind, fields):
        key = keys_of(kind)[name]
        default = _default(name, key, fields[name])
        yield f"| `{name}` | {_cell(key.means)} | {default} | `{name} = {_cell(key.example)}` |"
    yield ""


def _ordered(kind: type[msgspec.Struct], fields: Mapping[str, msgspec.structs.FieldInfo]) -> list[str]:
    """The order of the model; of a binding, what is required comes first, then what this kind of table alone has."""
    names = list(keys_of(kind))
    if not issubclass(kind, BindingKeys):
        return names
    shared = keys_of(BindingKeys)
    return sorted(names, key=lambda name: (not fields[name].required, name in shared))


def _default(name: str, key: Key, field: msgspec.structs.FieldInfo) -> str:
    if key.default:
        return _cell(key.default)
    if field.default_factory is not msgspec.NODEFAULT:
        return "none"
    if field.default is msgspec.NODEFAULT:
        return "**required**"
    shown = _toml(name, field.default)
    return f"`{_cell(shown)}`" if shown else "none"


def _toml(name: str, value: object) -> str:
    """A default as it would stand in a file; empty for nothing."""
    match value:
        case bool():
            return "true" if value else "false"
        case Enum():
            return f'"{value.value}"'
        case timedelta():
            return f'"{span_words(value.total_seconds())}"'
        case int() if name in ("max_size", "memory"):
            return f'"{octets_words(value)}"'
        case int() | float():
            return f"{value:g}"
        case tuple() if value:
            return f"[{', '.join(_toml(name, item) for item in value)}]"
        case _:
            return ""


def _cell(words: str) -> str:
    return words.replace("|", "\\|")
