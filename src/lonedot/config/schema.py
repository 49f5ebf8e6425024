"""The JSON schema of a configuration, for editors that complete and check while one writes.

Made from the model, as the reference is. It is looser than `lonedot check`: what it refuses is wrong, what it lets
through may still be.
"""

from __future__ import annotations

import enum
import tomllib
import types
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec

from lonedot.config.effective import default_of, toml_of
from lonedot.config.key import Key
from lonedot.config.load import INCLUDE
from lonedot.config.reference import TABLES
from lonedot.config.tables import keys_of
from lonedot.config.values import Unfit

__all__ = ["DIALECT", "schema"]

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_TEXTS: dict[str, object] = {"type": "string", "minLength": 1}


def schema() -> dict[str, object]:
    """The schema of the first file; included files have the same tables."""
    properties: dict[str, object] = {
        INCLUDE: _one_or_many(_TEXTS)
        | {
            "description": "More files, by pattern; a path is counted from the folder of the file it stands in."
        }
    }
    for header, kind in TABLES:
        table = _table(kind)
        is_list = header.startswith("[[")
        properties[header.strip("[]")] = {"type": "array", "items": table} if is_list else table
    return {
        "$schema": DIALECT,
        "title": "Lonedot",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }


def _table(kind: type[msgspec.Struct]) -> dict[str, object]:
    hints = get_type_hints(kind, include_extras=True)
    keys = keys_of(kind)
    properties: dict[str, object] = {}
    required: list[str] = []
    for field in msgspec.structs.fields(kind):
        key = keys.get(field.encode_name)
        if key is None:
            continue
        one = _value(_bare(hints[field.name]), key)
        one["description"] = key.means.replace("`", "")
        if not field.required:
            written = toml_of(default_of(field))
            if written not in ("", "[]") and not key.default:
                one["default"] = tomllib.loads(f"x = {written}")["x"]
        elif not key.default:
            required.append(field.encode_name)
        one["examples"] = [_example(key)]
        properties[field.encode_name] = one
    table: dict[str, object] = {
        "type": "object",
        "description": (kind.__doc__ or "").strip().split("\n")[0].replace("`", ""),
        "properties": properties,
        "additionalProperties": False,
    }
    if required:
        table["required"] = required
    return table


def _example(key: Key) -> object:
    return tomllib.loads(f"x = {key.example}")["x"]


def _bare(hint: Any) -> Any:
    """The type without what is said about it, and without None."""
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    if get_origin(hint) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(hint) if kind is not type(None)]
        hint = kinds[0] if len(kinds) == 1 else str
    return hint


def _value(kind: Any, key: Key) -> dict[str, object]:
    """What may stand behind the equals sign. An example shows where a text is taken beside a number."""
    takes_text = isinstance(_example(key), str)
    if get_origin(kind) in (tuple, frozenset, list):
        return _one_or_many(_value_of(get_args(kind)[0], key, takes_text))
    return _value_of(kind, key, takes_text)


def _value_of(kind: Any, key: Key, takes_text: bool) -> dict[str, object]:
    if get_origin(kind) in (dict, Mapping) or kind is dict:
        return {"type": "object"}
    if not isinstance(kind, type):
        return {}
    if issubclass(kind, enum.Enum):
        return {"enum": [member.value for member in kind]} if _is_strict(kind, key) else dict(_TEXTS)
    if kind is bool:
        return {"type": "boolean"}
    if kind is timedelta:
        return {"type": ["number", "string"]}
    if kind is int:
        return {"type": ["integer", "string"] if takes_text else "integer"}
    if kind is float:
        return {"type": "number"}
    if issubclass(kind, msgspec.Struct) and keys_of(kind):
        return _table(kind)
    if issubclass(kind, Path | str):
        return dict(_TEXTS)
    # A value with a form of its own, written as a text; its example shows when a table or number is meant.
    return dict(_TEXTS) if takes_text or isinstance(_example(key), list) else {}


def _is_strict(kind: type[enum.Enum], key: Key) -> bool:
    """The values of the members are all that is taken, in one way of writing each."""
    for member in kind:
        try:
            key.read(f"{str(member.value).swapcase()}", Path())
        except Unfit:
            continue
        return False
    return True


def _one_or_many(item: dict[str, object]) -> dict[str, object]:
    """A single item may stand without brackets."""
    return {"anyOf": [item, {"type": "array", "items": item}]}
