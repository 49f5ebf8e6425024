"""Header edit: adds, replaces and removes header fields by name and value, as a table says.

A row, one on a line of the setting `edits`::

    row     := ("add" | "append" | "add-missing") name " : " value
             | "replace" name-pattern [ value-pattern ] " : " value
             | "remove" name-pattern [ value-pattern ]
    pattern := text with `*` anywhere in it, for any text

`add` puts a field above all others, `append` below, `add-missing` above where none of that name is there. In a value,
`{sender}`, `{recipient_count}`, `{client}`, `{helo}`, `{login}`, `{id}` and `{date}` stand for what they say, `{value}`
in a `replace` for the value that was there; `{{` and `}}` are braces.

Rules a change here must keep:
1. A field that came with the message is changed by the first row that fits it, and by no other; new fields come last.
2. A pattern takes time in proportion to the text, whatever either says: pieces are looked for one behind the other.
3. What strangers wrote goes into a value only without control characters, and never ends it.
4. Recipients are counted and never named: a field is read by all of them.

Settings: see `HeaderSettings`.
"""

from __future__ import annotations

import enum
import re
import time
from collections.abc import Callable, Mapping

import msgspec

from lonedot.message.edits import NAME_LIMIT, AnyEdit, Edit, RemoveField
from lonedot.message.header import Field
from lonedot.message.trace import date_time
from lonedot.sinks.sink import sink
from lonedot.sinks.tables import rows_of
from lonedot.sinks.verdicts import Next
from lonedot.sinks.view import Message

__all__ = ["Action", "HeaderEdit", "HeaderSettings", "Pattern", "Row", "TooManyFields", "read_edits"]

ROWS_LIMIT = 200
FIELDS_LIMIT = 500
"""Fields of one message that are changed; each costs a walk over the header section."""
WORD_LIMIT = 900
"""Characters after which a word of a value is broken: a line has at most 998 octets."""
VALUE_LIMIT = 64 * 1024
"""Characters of a value that a pattern is held against."""

_PLACES = re.compile(r"\{\{|\}\}|\{(\w*)\}|[{}]")
_UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_LONG_WORD = re.compile(rf"(\S{{{WORD_LIMIT}}})(?=\S)")
_SAMPLE = "sample"
_NAMES = ("sender", "recipient_count", "client", "helo", "login", "id", "date")
_VALUE = "value"


class TooManyFields(ValueError):
    """A message has more fields that fit than are changed."""

    def __init__(self) -> None:
        super().__init__(f"more than {FIELDS_LIMIT} fields of the message fit; no more are changed")


class Action(enum.Enum):
    ADD = "add"
    APPEND = "append"
    ADD_MISSING = "add-missing"
    REPLACE = "replace"
    REMOVE = "remove"


_NEW = (Action.ADD, Action.APPEND, Action.ADD_MISSING)


class Pattern:
    """Text with `*` for any text; case does not count."""

    __slots__ = ("_ends", "_first", "_last", "_middle")

    def __init__(self, text: str) -> None:
        first, *middle = text.casefold().split("*")
        self._ends = not middle
        """Without a `*`: the text is exact."""
        self._first = first
        self._last = middle.pop() if middle else ""
        self._middle = tuple(piece for piece in middle if piece)

    def fits(self, text: str) -> bool:
        text = text.casefold()
        if self._ends:
            return text == self._first
        if not text.startswith(self._first):
            return False
        place = len(self._first)
        for piece in self._middle:
            place = text.find(piece, place)
            if place < 0:
                return False
            place += len(piece)
        return len(text) - len(self._last) >= place and text.endswith(self._last)


class Row(msgspec.Struct, frozen=True):
    """One row of the table."""

    action: Action
    name: str
    named: Pattern
    valued: Pattern | None
    """None: whatever it says."""
    value: str

    def fits(self, name: str, text: Callable[[], str]) -> bool:
        return self.named.fits(name) and (self.valued is None or self.valued.fits(text()))


class HeaderSettings(msgspec.Struct, frozen=True):
    """The settings of a binding."""

    edits: str
    """The table."""

    def __post_init__(self) -> None:
        read_edits(self.edits)


@sink("Header edit", on="arrival", effects={"header"}, settings=HeaderSettings)
class HeaderEdit:
    """Edits the header section; the body is not looked at."""

    def __init__(self, settings: HeaderSettings, now: Callable[[], float] = time.time) -> None:
        rows = read_edits(settings.edits)
        self._changes = tuple(row for row in rows if row.action not in _NEW)
        self._news = tuple(row for row in rows if row.action in _NEW)
        self._now = now

    def __call__(self, message: Message) -> Next:
        """Raises TooManyFields."""
        places = self._places(message)
        edits: list[AnyEdit] = []
        gone: dict[str, int] = {}
        for name, occurrence, field, row in reversed(self._fitting(message)):
            if row.action is Action.REMOVE:
                gone[name.lower()] = gone.get(name.lower(), 0) + 1
                edits.append(RemoveField(name, occurrence))  # the name may be one that nobody could add
            elif len(name) <= NAME_LIMIT:
                value = _written(row.value, {**places, _VALUE: field.text})
                edits.append(Edit.replace_field(name, value, occurrence))
        top = [row for row in self._news if row.action is not Action.APPEND]
        for row in (*reversed(top), *(row for row in self._news if row.action is Action.APPEND)):
            left = len(message.headers.every(row.name)) - gone.get(row.name.lower(), 0)
            if row.action is Action.ADD_MISSING and left:
                continue
            value = _written(row.value, places)
            edits.append(Edit.add_field(row.name, value, "bottom" if row.action is Action.APPEND else "top"))
        return Next(edits)

    def _fitting(self, message: Message) -> list[tuple[str, int, Field, Row]]:
        """The fields that are changed: name, number among those of the name, and the row that does it."""
        found: list[tuple[str, int, Field, Row]] = []
        numbers: dict[bytes, int] = {}
        for field in message.headers.fields if self._changes else ():
            folded = field.name.lower()
            number = numbers[folded] = numbers.get(folded, 0) + 1
            name = field.name.decode("ascii", "replace")

            def text(field: Field = field) -> str:
                return field.text[:VALUE_LIMIT]

            row = next((row for row in self._changes if row.fits(name, text)), None)
            if row is None:
                continue
            if len(found) == FIELDS_LIMIT:
                raise TooManyFields
            found.append((name, number, field, row))
        return found

    def _places(self, message: Message) -> Mapping[str, str]:
        facts = message.facts
        return {
            "sender": message.envelope.reverse_path.text,
            "recipient_count": str(len(message.envelope.recipients)),
            "client": facts.client,
            "helo": facts.helo,
            "login": facts.login,
            "id": message.id,
            "date": date_time(self._now()).decode(),
        }


def read_edits(text: str) -> tuple[Row, ...]:
    """The rows of a table.

    Raises:
        ValueError: a line is no row; the words say which, why, and what to write.
    """
    return rows_of("edits", text, ROWS_LIMIT, _row)


def _row(line: str) -> Row:
    asked, colon, value = line.partition(" : ")
    said, name, pattern = (*asked.split(None, 2), "", "", "")[:3]
    try:
        action = Action(said.casefold())
    except ValueError:
        known = ", ".join(action.value for action in Action)
        raise ValueError(f"there is no edit {said!r}; there are: {known}") from None
    name, pattern, value = name.removesuffix(":"), pattern.strip(), value.strip()
    if not name:
        raise ValueError(f"`{action.value}` needs the name of a field")
    if action is Action.REMOVE:
        if colon:
            raise ValueError(
                "`remove` has no value; a value that is looked for stands behind the name, without ` : `"
            )
    elif not value:
        raise ValueError(f"`{action.value}` needs a value behind ` : `")
    if action in _NEW:
        if pattern or "*" in name:
            raise ValueError(f"`{action.value}` takes one name and no pattern")
        _check(name, value, _NAMES)
    else:
        _check(name.replace("*", "X") or "X", value or "x", (*_NAMES, _VALUE))
    return Row(action, name, Pattern(name), Pattern(pattern) if pattern else None, value)


def _check(name: str, value: str, places: tuple[str, ...]) -> None:
    """Raises ValueError when no such field can be, or the value has a place that nothing is known for."""
    for found in _PLACES.finditer(value):
        if found[0] not in ("{{", "}}") and found[1] not in places:
            known = ", ".join(f"{{{place}}}" for place in places)
            raise ValueError(f"{found[0]!r} in the value: there are {known}; a brace is written twice")
    if _UNFIT.search(value):
        raise ValueError("a control character in the value")
    Edit.add_field(name, _written(value, dict.fromkeys(places, _SAMPLE)))


def _written(value: str, places: Mapping[str, str]) -> str:
    """The value with its places filled."""

    def filled(found: re.Match[str]) -> str:
        return found[0][0] if found[1] is None else _UNFIT.sub(" ", places[found[1]])

    return _LONG_WORD.sub(r"\1 ", _PLACES.sub(filled, value)).strip()
