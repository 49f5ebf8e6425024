"""Changes by tool to the text of a registry: comments, order and everything that is not meant stay as they are.

How: the text is cut into blocks, one for each `[[binding]]` with the comment lines that stand directly above it; a
block is changed by itself and put back. What was made is read again and must say exactly what the change means, so
a text that this cannot edit is refused and never written.
"""

from __future__ import annotations

import difflib
import re
import tomllib
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import tomlkit
import tomlkit.exceptions
from tomlkit.items import AoT, Table

from lonedot.sinks.bindings import Setting
from lonedot.sinks.events import Event, event_named
from lonedot.sinks.registry import (
    Add,
    Change,
    Remove,
    Selected,
    SetKey,
    Status,
    Switch,
    UnsetKey,
    Written,
    derived_guid,
)

__all__ = ["CannotChange", "Edited", "apply_changes", "nearest"]

_BAGS = ("source_properties", "sink_properties")
_HEADER = re.compile(r"[ \t]*\[\[?[ \t]*(?P<name>[A-Za-z0-9_-]+|\"[^\"\n]*\"|'[^'\n]*')")
_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_GUID = re.compile(r"\{?[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}\}?")
_NEW_KEYS = (
    "guid",
    "name",
    "source",
    "event",
    "sink",
    "status",
    "priority",
    "rule",
    "reads",
    "effects",
    "role",
    "on_damage",
    "on_error",
    "isolation",
    "deadline",
    "memory",
    "user",
    "split",
    "mode",
    "maximum_faults",
    "group",
)
"""The order in which a new binding is written; other keys follow."""


class CannotChange(Exception):
    """The change cannot be made: `what`, and what to `do`."""

    def __init__(self, what: str, do: str) -> None:
        super().__init__(f"{what}; {do}")
        self.what = what
        self.do = do


class Edited(NamedTuple):
    text: str
    done: tuple[str, ...]
    """One line for each binding that was touched, for the audit and the person."""


class _Facts(NamedTuple):
    """What is needed to find a binding."""

    name: str
    guid: str
    group: str
    event: Event | None
    """None: its code says, and is not known; it may be any."""
    source: int


def apply_changes(text: str, changes: Iterable[Change], said: Mapping[str, Event] | None = None) -> Edited:
    """The text with every change made, in order. `said`: by GUID, the events that the code of bindings says.

    Raises:
        CannotChange: a binding is not there, there is one too many, or the text cannot be edited.
    """
    done: list[str] = []
    for change in changes:
        text, words = _apply(text, change, said or {})
        done += words
    return Edited(text, tuple(done))


def _apply(text: str, change: Change, said: Mapping[str, Event]) -> tuple[str, list[str]]:
    tables = _tables(text)
    match change:
        case Add():
            return _added(text, tables, change)
        case Remove(which):
            found = _select(tables, which, said)
            for gone, number in enumerate(reversed(found)):
                text = _without(text, number, len(tables) - gone)
            left = [table for number, table in enumerate(tables) if number not in found]
            _must_say(text, left)
            return text, [f"removed {_shown(tables[number])}" for number in found]
        case Switch(which, status):
            found = _select(tables, which, said)
            for number in found:
                text = _with(text, tables, number, "status", status.value)
            verb = "enabled" if status is Status.ENABLED else "disabled"
            return text, [f"{verb} {_shown(tables[number])}" for number in found]
        case SetKey(which, key, value):
            found = _select(tables, which, said)
            if key.casefold() in ("priority", "source_properties.priority"):
                value = _number(value)
            for number in found:
                text = _with(text, tables, number, key, value)
            # A property of a sink may be a password: what it was set to is not for audit and log.
            to = "" if key.startswith("sink_properties") else f" to {_toml(value)}"
            return text, [f"set {key} of {_shown(tables[number])}{to}" for number in found]
        case UnsetKey(which, key):
            found = _select(tables, which, said)
            for number in found:
                text = _with(text, tables, number, key, None)
            return text, [f"unset {key} of {_shown(tables[number])}" for number in found]


# --- which -----------------------------------------------------------------------------------------


def _tables(text: str) -> list[dict[str, object]]:
    """The bindings as plain values.

    Raises:
        CannotChange: the text is not TOML, or its bindings are not tables.
    """
    try:
        listed = tomllib.loads(text.removeprefix("\ufeff").replace("\r\n", "\n")).get("binding", [])
    except (ValueError, RecursionError) as error:
        raise CannotChange(f"the registry is not TOML: {str(error)[:200]}", "mend it by hand") from None
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise CannotChange("binding is not a list of tables", "write [[binding]], once for each")
    return listed


def _facts(table: dict[str, object]) -> _Facts:
    name, guid = str(table.get("name", "")), str(table.get("guid", ""))
    source = table.get("source", 1)
    number = source if isinstance(source, int) else 0
    event: Event | None = None
    if "event" in table:
        try:
            event = event_named(str(table["event"]))
        except ValueError:
            pass  # reading says what is wrong with it
    guid = guid or derived_guid(name, event, number)
    return _Facts(name, _plain_guid(guid), str(table.get("group", "")), event, number)


def _plain_guid(words: str) -> str:
    return words.strip("{} ").upper()


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that was probably meant, also in another case; empty when none is near."""
    names = list(dict.fromkeys(known))
    folded = {one.casefold(): one for one in reversed(names)}
    near = difflib.get_close_matches(name[:100].casefold(), list(folded), n=1, cutoff=0.5)
    return folded[near[0]] if near else ""


def _select(tables: Sequence[dict[str, object]], which: Selected, said: Mapping[str, Event]) -> list[int]:
    """The numbers of the bindings meant, in the order of the file."""
    all_facts = [_facts(table) for table in tables]
    here = [
        number
        for number, facts in enumerate(all_facts)
        if which.event in (None, event := facts.event or said.get("{" + facts.guid + "}")) or event is None
        if not which.source or facts.source == which.source
    ]
    found: set[int] = set()
    if which.group:
        found |= {number for number in here if all_facts[number].group == which.group}
        if not found:
            groups = sorted({facts.group for facts in all_facts if facts.group})
            raise CannotChange(f"there is no group {which.group!r}", _meant(which.group, groups, "groups"))
    for name in which.names:
        if _GUID.fullmatch(name):
            matching = [number for number in here if all_facts[number].guid == _plain_guid(name)]
        else:
            matching = [number for number in here if all_facts[number].name == name]
        if not matching:
            raise CannotChange(
                f"there is no binding {name!r}{_place(which)}", _elsewhere(name, all_facts, here)
            )
        if len(matching) > 1 and not which.every:
            guids = ", ".join("{" + all_facts[number].guid + "}" for number in matching)
            raise CannotChange(
                f"{len(matching)} bindings are named {name!r}", f"name one by its GUID: {guids}"
            )
        found.update(matching)
    if not found:
        raise CannotChange("no binding was named", "give a display name, a GUID or a group")
    return sorted(found)


def _place(which: Selected) -> str:
    """` at 'arrival' of source 1`, as far as the change says it."""
    at = f" at {which.event.value!r}" if which.event is not None else ""
    return at + (f" of source {which.source}" if which.source else "")


def _elsewhere(name: str, facts: Sequence[_Facts], here: Sequence[int]) -> str:
    """The name that was meant, of those that were asked; else where there is one of that name."""
    near = nearest(name, [facts[number].name for number in here])
    if near and near != name:
        return f"did you mean {near!r}?"
    places = [one for one in facts if one.name == name or one.guid == _plain_guid(name)]
    if places:
        at = " and ".join(f"at {_event(one)} of source {one.source}" for one in places)
        return f"it is bound {at}"
    return _meant(name, [one.name for one in facts], "bindings")


def _event(facts: _Facts) -> str:
    return repr(facts.event.value) if facts.event is not None else "the event of its code,"


def _meant(name: str, known: Sequence[str], kind: str) -> str:
    near = nearest(name, known)
    if near:
        return f"did you mean {near!r}?"
    if not known:
        return f"there are no {kind} in the registry"
    listed = ", ".join(repr(one) for one in list(dict.fromkeys(known))[:10])
    return f"there are: {listed}"


def _shown(table: dict[str, object]) -> str:
    facts = _facts(table)
    return f"{facts.name!r} {{{facts.guid}}}"


# --- blocks ----------------------------------------------------------------------------------------


def _block(text: str, number: int, count: int, *, with_tail: bool = True) -> tuple[int, int]:
    """Where the block of a binding begins and ends, comment lines directly above it included.

    `with_tail`: also empty lines and comments behind its last value.

    Raises:
        CannotChange: the bindings are not written as `[[binding]]` tables.
    """
    lines = _LINE.findall(text)
    begins = _header_lines(lines)
    mine = [place for place, (_, name, is_new) in enumerate(begins) if name == "binding" and is_new]
    if len(mine) != count:
        raise CannotChange(
            "the bindings are not written as tables", "write each as [[binding]] with its keys below"
        )
    place = mine[number]
    after = next((line for line, _, is_new in begins[place + 1 :] if is_new), len(lines))
    start = _with_comments(lines, begins[place][0])
    end = after if after == len(lines) else _with_comments(lines, after)
    while not with_tail and lines[end - 1].strip()[:1] in ("", "#"):
        end -= 1
    offsets = [0]
    for line in lines:
        offsets.append(offsets[-1] + len(line))
    return offsets[start], offsets[end]


def _header_lines(lines: Sequence[str]) -> list[tuple[int, str, bool]]:
    """Each header's line, first name, and whether a new block begins with it (false of `[binding.x]`)."""
    headers: list[tuple[int, str, bool]] = []
    # A header inside a text of several lines is none: the lines of such texts are skipped.
    inside = ""
    for number, line in enumerate(lines):
        if inside:
            if inside in line:
                inside = ""
            continue
        found = _HEADER.match(line)
        if found is not None and "=" not in line.partition("]")[0]:
            name = found["name"].strip("\"'")
            is_sub = name == "binding" and not line.lstrip().startswith("[[")
            headers.append((number, name, not is_sub))
            continue
        for quotes in ('"""', "'''"):
            if line.partition("#")[0].count(quotes) % 2:
                inside = quotes
                break
    return headers


def _with_comments(lines: Sequence[str], line: int) -> int:
    while line and lines[line - 1].lstrip().startswith("#"):
        line -= 1
    return line


def _without(text: str, number: int, count: int) -> str:
    start, end = _block(text, number, count)
    return text[:start] + text[end:]


def _with(
    text: str, tables: Sequence[dict[str, object]], number: int, key: str, value: Written | None
) -> str:
    """The text with a key of one binding set, or unset (None)."""
    path, value = _path(tables[number], key, value)
    expected = [dict(table) for table in _tables(text)]
    mine = expected[number]
    pinned = _facts(mine).guid if path[0] in ("name", "event", "source") and "guid" not in mine else ""
    start, end = _block(text, number, len(tables), with_tail=False)
    if text[end - 1] != "\n":
        text = text[:end] + "\n" + text[end:]
        end += 1
    newline = "\r\n" if "\r\n" in text[start:end] else "\n"
    try:
        document = tomlkit.parse(text[start:end].removeprefix("\ufeff").replace("\r\n", "\n"))
        blocks = document["binding"]
        assert isinstance(blocks, AoT)
        table = blocks[0]
        assert isinstance(table, Table)
        if pinned:
            # The GUID was derived from what now changes; the binding stays the same one.
            _set(table, ("guid",), "{" + pinned + "}")
            mine["guid"] = "{" + pinned + "}"
        _set(table, path, value)
        written = tomlkit.dumps(document)
    except (tomlkit.exceptions.TOMLKitError, AssertionError, ValueError) as error:
        raise CannotChange(
            f"the table of {_shown(mine)} cannot be edited: {str(error) or type(error).__name__}",
            "edit the file by hand, then run lonedot sinks reload",
        ) from None
    _expect(mine, path, value)
    bom = "\ufeff" if text[start:end].startswith("\ufeff") else ""
    changed = text[:start] + bom + written.replace("\n", newline) + text[end:]
    _must_say(changed, expected)
    return changed


def _path(
    table: dict[str, object], key: str, value: Written | None
) -> tuple[tuple[str, ...], Written | None]:
    """Where a key stands in the table; rule and priority in the bag of the source are the keys of that name.

    Raises:
        CannotChange: it is to be unset and is not there.
    """
    bag, dot, name = key.partition(".")
    if not dot:
        path: tuple[str, ...] = (key,)
        source_bag = table.get("source_properties")
        if key in ("rule", "priority") and isinstance(source_bag, dict) and key not in table:
            stored = _stored(source_bag, key)
            if stored is not None:
                path = ("source_properties", stored)
        if value is None and path == (key,) and key not in table:
            raise CannotChange(f"{_shown(table)} does not set {key}", f"it sets: {', '.join(table)}")
        return path, value
    if bag not in _BAGS or not name:
        raise CannotChange(
            f"{key!r} is not a key of a binding", "write KEY, sink_properties.NAME or source_properties.NAME"
        )
    if bag == "source_properties" and name.casefold() in ("rule", "priority"):
        return _path(table, name.casefold(), value)
    properties = table.get(bag, {})
    stored = _stored(properties, name) if isinstance(properties, dict) else None
    if value is None and stored is None:
        known = list(properties) if isinstance(properties, dict) else []
        raise CannotChange(f"{_shown(table)} has no property {name!r}", _meant(name, known, "properties"))
    return (bag, stored or name), value


def _number(value: Written) -> Written:
    """The old tool wrote priorities as text; ours are numbers. What is none stays, and reading says so."""
    if isinstance(value, str) and re.fullmatch(r"\d{1,9}", value.strip()):
        return int(value)
    return value


def _stored(bag: dict[str, object], name: str) -> str | None:
    return next((stored for stored in bag if stored.casefold() == name.casefold()), None)


def _set(table: Table, path: tuple[str, ...], value: Written | None) -> None:
    *bags, key = path
    for bag in bags:
        if bag not in table:
            table[bag] = tomlkit.table()
        table = table[bag]
    if value is None:
        table.remove(key)
    else:
        table[key] = value


def _expect(mine: dict[str, object], path: tuple[str, ...], value: Written | None) -> None:
    *bags, key = path
    for bag in bags:
        held = mine.get(bag)
        copy: dict[str, object] = dict(held) if isinstance(held, dict) else {}
        mine[bag] = copy
        mine = copy
    if value is None:
        mine.pop(key, None)
    else:
        mine[key] = value


def _must_say(text: str, expected: list[dict[str, object]]) -> None:
    """Raises CannotChange when the text that was made does not say what was meant."""
    try:
        said = _tables(text)
    except CannotChange:
        said = None
    if said != expected:
        raise CannotChange(
            "the registry is written in a way that this command cannot edit safely; nothing was changed",
            "edit it by hand, then run lonedot sinks reload",
        )


# --- a new one ---------------------------------------------------------------------------------------


def _added(text: str, tables: Sequence[dict[str, object]], change: Add) -> tuple[str, list[str]]:
    values: dict[str, Written] = dict(change.values)
    source_bag: dict[str, Setting] = dict(change.source_properties)
    for key in ("rule", "priority"):
        stored = next((name for name in source_bag if name.casefold() == key), None)
        if stored is not None and key not in values:
            value = source_bag.pop(stored)
            values[key] = _number(value) if key == "priority" else value
    facts = _facts(dict(values))
    if facts.name and any(_identity(one) == _identity(facts) for one in map(_facts, tables)):
        raise CannotChange(f"there is a binding {facts.name!r} already", "choose another name, or change it")
    if "guid" not in values:
        taken = {_facts(table).guid for table in tables}
        # A binding that was renamed keeps the GUID of its first name.
        guid = facts.guid if facts.guid not in taken else str(uuid.uuid4()).upper()
        values = {"guid": "{" + guid + "}", **values}
    ordered = sorted(values, key=lambda key: _NEW_KEYS.index(key) if key in _NEW_KEYS else len(_NEW_KEYS))
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = ["[[binding]]", *(f"{key} = {_toml(values[key])}" for key in ordered)]
    expected: dict[str, object] = {key: values[key] for key in ordered}
    for name, bag in (("source_properties", source_bag), ("sink_properties", change.sink_properties)):
        if bag:
            lines += ["", f"[binding.{name}]"]
            lines += [f"{_key(key)} = {_toml(value)}" for key, value in bag.items()]
            expected[name] = dict(bag)
    gap = "" if not text.strip("\ufeff") else newline if text.endswith("\n") else newline * 2
    made = text + gap + newline.join(lines) + newline
    _must_say(made, [*tables, expected])
    return made, [f"added {_shown(expected)}"]


def _identity(facts: _Facts) -> tuple[str, Event, int]:
    """No two bindings have the same."""
    return facts.name.casefold(), facts.event or Event.ARRIVAL, facts.source


def _toml(value: Written) -> str:
    return tomlkit.item(value).as_string()


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else tomlkit.item(name).as_string()
