"""Settings of a sink as a type of its author's: made once, when the binding is made, and faults named by their key.

Rules: names of keys are compared without case, as in the old property bags; a text is read as a number or a truth value
where one is wanted, because the old tool can write texts only; no value is ever shown, for it may be a password.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping
from typing import TypeVar

import msgspec

from lonedot.sinks.bindings import Setting

__all__ = ["SettingsFault", "check_settings_type", "typed"]

S = TypeVar("S")

_PLACE = re.compile(r"(?s)(?P<what>.*) - at `\$\.(?P<key>[^`]+)`")
_MISSING = re.compile(r"Object missing required field `(?P<key>[^`]+)`")


class SettingsFault(ValueError):
    """The settings of a binding are not what its sink takes; the words name the key and the type."""

    def __init__(self, words: str, key: str = "") -> None:
        super().__init__(words)
        self.key = key
        """The key as it was given; empty when no single one is meant."""


def check_settings_type(kind: object) -> None:
    """Raises TypeError when settings cannot become a `kind`: it must be a dataclass or a `msgspec.Struct`."""
    if not isinstance(kind, type) or not (issubclass(kind, msgspec.Struct) or dataclasses.is_dataclass(kind)):
        raise TypeError(f"settings={kind!r} is neither a dataclass nor a msgspec.Struct")


def typed(kind: type[S], settings: Mapping[str, Setting]) -> S:
    """The settings as a `kind`; what is not given has the default that `kind` says.

    Raises:
        SettingsFault: a key that `kind` does not have, one that is missing, or a value of another type.
    """
    names = {name.casefold(): name for name in _names(kind)}
    given: dict[str, Setting] = {}
    for key, value in settings.items():
        name = names.get(key.casefold())
        if name is None:
            near = difflib.get_close_matches(key.casefold(), names, n=1)
            do = (
                f"did you mean {names[near[0]]}?"
                if near
                else f"there are: {', '.join(names.values()) or 'none'}"
            )
            raise SettingsFault(f"settings.{key}: there is no such setting; {do}", key)
        if name in given:
            raise SettingsFault(f"settings.{key}: given twice, in different case", key)
        given[name] = value
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        words, key = _words(str(error))
        raise SettingsFault(
            words, next((k for k in settings if k.casefold() == key.casefold()), "")
        ) from error
    except Exception as error:  # a type of the author's may do anything when it is made
        raise SettingsFault(f"settings: {type(error).__name__}: {error}") from error


def _names(kind: type[object]) -> list[str]:
    """The keys of a type, as they are written."""
    if issubclass(kind, msgspec.Struct):
        return [field.encode_name for field in msgspec.structs.fields(kind)]
    assert dataclasses.is_dataclass(kind)
    return [field.name for field in dataclasses.fields(kind) if field.init]


def _words(said: str) -> tuple[str, str]:
    """What the conversion says, with the key in front; and the key."""
    if found := _MISSING.fullmatch(said):
        return f"settings.{found['key']}: is missing", found["key"]
    if found := _PLACE.fullmatch(said):
        what = found["what"].replace("`", "")
        return f"settings.{found['key']}: {what[:1].lower()}{what[1:]}", found["key"]
    return f"settings: {said}", ""
