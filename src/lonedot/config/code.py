"""Readers of what names a sink's code, rule and settings. See `values` for what a reader is."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from lonedot.config.values import Unfit, path, show, text
from lonedot.sinks.bindings import Setting
from lonedot.sinks.events import EVENTS, Event, event_named
from lonedot.sinks.rules import RuleError, compile_rule

__all__ = [
    "SinkFile",
    "event",
    "import_path",
    "property_bag",
    "rule",
    "sink_code",
    "sink_file",
]

MAX_PROPERTIES = 1000


class SinkFile(msgspec.Struct, frozen=True):
    """A Python file and the function in it; empty when the file holds one sink only."""

    path: Path
    function: str = ""

    def __str__(self) -> str:
        return f"{self.path}:{self.function}" if self.function else str(self.path)


_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OFFERED = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
"""The name of an entry point, as far as it is taken: a dot would make it look like a module, or an old class."""


def sink_file(value: object, folder: Path) -> SinkFile:
    """`path.py` or `path.py:function`."""
    words = text(value, folder).strip()
    name, colon, function = words.rpartition(":")
    if not colon:
        name, function = words, ""
    if not name.endswith(".py") or (colon and not _NAME.fullmatch(function)):
        raise Unfit(
            f"{show(value)} is not a Python file", 'write it as "sinks/stamp.py" or "sinks/stamp.py:function"'
        )
    return SinkFile(path(name, folder), function)


def import_path(value: object, folder: Path) -> str:
    """`package.module:attribute`, or the name under which a package offers a sink."""
    words = text(value, folder).strip()
    module, colon, attribute = words.partition(":")
    parts = [*module.split("."), *attribute.split(".")]
    is_path = bool(colon) and all(_NAME.fullmatch(part) for part in parts)
    if not is_path and not _OFFERED.fullmatch(words):
        raise Unfit(
            f"{show(value)} is not an import path",
            'write it as "package.module:function", or as the name under which a package offers it',
        )
    return words


def rule(value: object, folder: Path) -> str:
    """A rule in the grammar of the sinks."""
    words = text(value, folder).strip()
    try:
        compile_rule(words)
    except RuleError as error:
        raise Unfit(
            str(error),
            'write "RCPT TO=*@example.com", "MAIL FROM=*" or "EHLO=*example.com"; separate several by ;',
        ) from None
    return words


def event(value: object, folder: Path) -> Event:
    """The name of an event, ours or that of an older system."""
    words = text(value, folder)
    try:
        return event_named(words)
    except ValueError:
        names = ", ".join(known.value for known in EVENTS)
        raise Unfit(f"{show(value)} is not an event", f"use one of: {names}") from None


def property_bag(value: object, _: Path) -> dict[str, Setting]:
    """A table of properties; two names that differ in case alone are one name."""
    if not isinstance(value, dict):
        raise Unfit(
            f"{show(value)} is not a table", 'write it as { header = "X-Stamp" }, or as a table of its own'
        )
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


def sink_code(written: str, folder: Path) -> SinkFile | str:
    """What the code of a sink is called: a file, or an import path.

    Raises:
        Unfit: neither.
    """
    name = written.rpartition(":")[0] or written
    if name.endswith(".py") or "/" in name:
        return sink_file(written, folder)
    try:
        return import_path(written, folder)
    except Unfit:
        raise Unfit(
            f"{show(written)} is neither an import path nor a Python file",
            'write "package.module:function" or "sinks/stamp.py:function", or status = "disabled"',
        ) from None
