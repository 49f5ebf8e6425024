"""Edits: what a sink wants changed, as values. Checked when they are made, lowered to splices when they are taken.

Rules: an edit never carries an octet that could end a line or a field early; a field is written with folds of its own
and never by writing the others again; what an edit touches is known from its type (`effect`), so that declared effects
can be enforced before anything is applied.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from email.errors import HeaderParseError
from email.header import Header
from typing import ClassVar, Literal, TypeAlias, assert_never

import msgspec

from lonedot.message.content import Content
from lonedot.message.findings import Part
from lonedot.message.header import Field, HeaderView
from lonedot.message.ledger import Change, EnvelopeChange, Splice
from lonedot.message.profile import LINE_LIMIT

__all__ = [
    "AddField",
    "AddRecipient",
    "AnyEdit",
    "ChangeReversePath",
    "Edit",
    "EditFault",
    "Effect",
    "RemoveField",
    "RemoveRecipient",
    "ReplaceBody",
    "ReplaceField",
    "ReplaceMessage",
    "SpliceBody",
    "format_field",
    "lower",
]

Where: TypeAlias = Literal["top", "bottom"] | int
"""Of a new field: before all others, behind them, or before the one of that number, counted from 0."""

FOLD_AT = 78
"""Octets of a line, without CRLF, where a field is folded when white space allows it (RFC 5322 §2.1.1)."""
NAME_LIMIT = 128
"""Octets of a field name."""
PATH_LIMIT = 254
"""Octets of an address: a path of 256 without its angle brackets (RFC 5321 §4.5.3.1.3)."""

_NAME = re.compile(r"[!-9;-~]+")
_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f]")
_WORDS = re.compile(rb"[ \t]+[^ \t]*|[^ \t]+")
_FORBIDDEN_IN_PATH = re.compile(rb"[\x00-\x20\x7f<>]")
_FORBIDDEN_IN_QUOTED = re.compile(rb"[\x00-\x1f\x7f]")


class EditFault(ValueError):
    """An edit that cannot be: of a form that mail does not have, or about a place that is not there."""


class Effect(enum.Enum):
    """What a binding may declare to change."""

    __hash__ = object.__hash__  # looked up for each edit
    HEADER = "header"
    BODY = "body"
    ENVELOPE = "envelope"


class Edit(msgspec.Struct, frozen=True):
    """One change wanted. Made by the class methods here; each raises EditFault when the values are not possible."""

    effect: ClassVar[Effect]

    @classmethod
    def add_field(cls, name: str, value: str, where: Where = "top") -> AddField:
        """A new field before all others, behind them, or before the one of a number, counted from 0 as they stand then.

        Text that is not ASCII is encoded (RFC 2047).
        """
        if where not in ("top", "bottom") and not (isinstance(where, int) and where >= 0):
            raise EditFault(f"where is 'top', 'bottom' or the number of a field from 0, not {where!r}")
        return AddField(format_field(name, value), where)

    @classmethod
    def replace_field(cls, name: str, value: str, occurrence: int = 1) -> ReplaceField:
        """Another value for the field of that name: the first, the second, …; -1 is the last."""
        if not occurrence:
            raise EditFault("occurrence counts from 1, or from -1 backwards")
        octets = format_field(name, value)
        return ReplaceField(name, octets, occurrence)

    @classmethod
    def remove_field(cls, name: str, occurrence: int | None = None) -> RemoveField:
        """Take away one field of that name, or all of them; none there is no fault."""
        if occurrence == 0:
            raise EditFault("occurrence counts from 1, or from -1 backwards")
        return RemoveField(_checked_name(name), occurrence)

    @classmethod
    def replace_body(cls, octets: bytes) -> ReplaceBody:
        """Another body. Its line ends are the sink's to get right: what is wrong with them is found and booked."""
        return ReplaceBody(bytes(octets))

    @classmethod
    def splice_body(cls, start: int, end: int, octets: bytes) -> SpliceBody:
        """Other octets in the place of `start:end` of the body."""
        if not 0 <= start <= end:
            raise EditFault(f"octets {start} to {end} are not a range")
        return SpliceBody(start, end, bytes(octets))

    @classmethod
    def replace_message(cls, octets: bytes) -> ReplaceMessage:
        """The whole message as rewritten by something else; it is reduced to what really differs."""
        return ReplaceMessage(bytes(octets))

    @classmethod
    def add_recipient(cls, address: str | bytes) -> AddRecipient:
        """One more recipient."""
        return AddRecipient(_checked_path(address))

    @classmethod
    def remove_recipient(cls, address: str | bytes) -> RemoveRecipient:
        """One recipient less (every one with that address)."""
        return RemoveRecipient(_checked_path(address))

    @classmethod
    def change_reverse_path(cls, address: str | bytes) -> ChangeReversePath:
        """Another reverse-path; the empty text is the null reverse-path."""
        return ChangeReversePath(_checked_path(address) if address else b"")


class AddField(Edit, frozen=True, tag="add-field"):
    octets: bytes
    """The whole field with its line end."""
    where: Where = "top"
    effect: ClassVar[Effect] = Effect.HEADER


class ReplaceField(Edit, frozen=True, tag="replace-field"):
    name: str
    octets: bytes
    occurrence: int = 1
    effect: ClassVar[Effect] = Effect.HEADER


class RemoveField(Edit, frozen=True, tag="remove-field"):
    name: str
    occurrence: int | None = None
    effect: ClassVar[Effect] = Effect.HEADER


class ReplaceBody(Edit, frozen=True, tag="replace-body"):
    octets: bytes
    effect: ClassVar[Effect] = Effect.BODY


class SpliceBody(Edit, frozen=True, tag="splice-body"):
    start: int
    end: int
    octets: bytes
    effect: ClassVar[Effect] = Effect.BODY


class ReplaceMessage(Edit, frozen=True, tag="replace-message"):
    """What it may change is decided by reducing it to the declared effects, so it needs none of its own."""

    octets: bytes
    effect: ClassVar[Effect] = Effect.HEADER


class AddRecipient(Edit, frozen=True, tag="add-recipient"):
    address: bytes
    effect: ClassVar[Effect] = Effect.ENVELOPE


class RemoveRecipient(Edit, frozen=True, tag="remove-recipient"):
    address: bytes
    effect: ClassVar[Effect] = Effect.ENVELOPE


class ChangeReversePath(Edit, frozen=True, tag="change-reverse-path"):
    address: bytes
    effect: ClassVar[Effect] = Effect.ENVELOPE


AnyEdit: TypeAlias = (
    AddField
    | ReplaceField
    | RemoveField
    | ReplaceBody
    | SpliceBody
    | ReplaceMessage
    | AddRecipient
    | RemoveRecipient
    | ChangeReversePath
)


def lower(edits: Sequence[AnyEdit], content: Content) -> tuple[Change, ...]:
    """The edits, one after the other, as changes on octets (for `fold.apply_changes`).

    Raises:
        EditFault: the field or the range is not there, or a whole message is among them (reduce that to intent first).
    """
    changes: list[Change] = []
    head = content.head
    body_size = content.body.size
    for edit in edits:
        match edit:
            case AddField(octets=octets, where=where):
                start = _place(HeaderView(head), where)
                if start and head[start - 1] not in b"\r\n":
                    octets = b"\r\n" + octets
                head = _splice_head(changes, head, start, start, octets)
            case ReplaceField(name=name, octets=octets, occurrence=occurrence):
                field = _pick(HeaderView(head).every(name), occurrence)
                if field is None:
                    raise EditFault(f"there is no field {name} number {occurrence} to replace")
                head = _splice_head(changes, head, field.start, field.end, octets)
            case RemoveField(name=name, occurrence=occurrence):
                fields = HeaderView(head).every(name)
                if occurrence is not None:
                    picked = _pick(fields, occurrence)
                    fields = () if picked is None else (picked,)
                for field in reversed(fields):
                    head = _splice_head(changes, head, field.start, field.end, b"")
            case ReplaceBody(octets=octets):
                head = _with_separator(changes, head, octets)
                changes.append(Splice(Part.BODY, 0, body_size, octets))
                body_size = len(octets)
            case SpliceBody(start=start, end=end, octets=octets):
                if end > body_size:
                    raise EditFault(f"octets {start} to {end} of a body of {body_size}")
                head = _with_separator(changes, head, octets)
                changes.append(Splice(Part.BODY, start, end, octets))
                body_size += len(octets) - (end - start)
            case AddRecipient(address=address):
                changes.append(EnvelopeChange(added=(address,)))
            case RemoveRecipient(address=address):
                changes.append(EnvelopeChange(removed=(address,)))
            case ChangeReversePath(address=address):
                changes.append(EnvelopeChange(reverse_path=address))
            case ReplaceMessage():
                raise EditFault("a whole message is reduced to what differs before it is taken")
            case _:
                assert_never(edit)
    return tuple(changes)


def format_field(name: str, value: str) -> bytes:
    """A whole header field with its line end, folded at white space.

    The value may hold folds (CRLF and white space) that are correct already; then it is taken as it stands. Text that
    is not ASCII becomes encoded words (RFC 2047).

    Raises:
        EditFault: not a field name; a control octet in the value; a line that cannot be folded to 998 octets.
    """
    lead = _checked_name(name).encode() + b": "
    if not value.isascii():
        return _encoded(name, lead, value)
    if "\r" in value or "\n" in value:
        return _folded_already(name, lead, value)
    if _CONTROL.search(value):
        raise EditFault(f"a control character in the value of {name}")
    octets = value.encode()
    if len(lead) + len(octets) <= FOLD_AT:
        return lead + octets + b"\r\n"
    return _folded(name, lead, octets)


def _encoded(name: str, lead: bytes, value: str) -> bytes:
    if _CONTROL.search(value):
        raise EditFault(f"a control character in the value of {name}")
    try:
        text = Header(value, "utf-8", FOLD_AT - 2, name, continuation_ws=" ").encode(linesep="\r\n")
    except (UnicodeError, HeaderParseError) as error:
        raise EditFault(f"the value of {name} is not text that can be encoded: {error}") from error
    return _folded_already(name, lead, text.lstrip())


def _folded_already(name: str, lead: bytes, value: str) -> bytes:
    lines = value.split("\r\n")
    for number, line in enumerate(lines):
        if _CONTROL.search(line):
            raise EditFault(f"a control character, or a CR or LF of its own, in the value of {name}")
        if number and (not line.startswith((" ", "\t")) or not line.strip(" \t")):
            raise EditFault(
                f"a line in the value of {name} does not begin as a fold does: white space, then text"
            )
        if len(line) + (0 if number else len(lead)) > LINE_LIMIT:
            raise EditFault(f"a line in the value of {name} is longer than {LINE_LIMIT} octets")
    return lead + value.encode() + b"\r\n"


def _folded(name: str, lead: bytes, value: bytes) -> bytes:
    """Break before white space: as late as the line allows, at once where a word is longer than a line."""
    lines = [lead]
    is_blank = True  # the line has no word yet: a break would leave white space alone on it
    for word in _WORDS.findall(value):
        line = lines[-1]
        if is_blank or len(line) + len(word) <= FOLD_AT or not word.strip(b" \t") or word[:1] not in b" \t":
            lines[-1] = line + word
        else:
            lines.append(word)
        is_blank = is_blank and not word.strip(b" \t")
    if any(len(line) > LINE_LIMIT for line in lines):
        raise EditFault(
            f"the value of {name} has no white space where a line of {LINE_LIMIT} octets could end"
        )
    return b"\r\n".join(lines) + b"\r\n"


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise EditFault(f"{name!r} is not a field name: printable ASCII without colon and white space")
    if len(name) > NAME_LIMIT:
        raise EditFault(f"a field name of {len(name)} octets; at most {NAME_LIMIT}")
    return name


def _checked_path(address: str | bytes) -> bytes:
    """An address as octets. The grammar proper is the protocol's; here nothing may pass that would leave its place."""
    try:
        octets = address.encode() if isinstance(address, str) else bytes(address)
    except UnicodeError as error:
        raise EditFault(f"{address!r} is not text that can be encoded") from error
    if octets.lower() == b"postmaster":  # RFC 5321 §4.5.1: the one address without a domain
        return octets
    local, at, domain = octets.rpartition(b"@")
    is_quoted = len(local) > 1 and local.startswith(b'"') and local.endswith(b'"')
    if (
        not at
        or not local
        or not domain
        or len(octets) > PATH_LIMIT
        or _FORBIDDEN_IN_PATH.search(domain)
        or (_FORBIDDEN_IN_QUOTED if is_quoted else _FORBIDDEN_IN_PATH).search(local)
    ):
        raise EditFault(f"{address!r} is not a mail address")
    return octets


def _place(view: HeaderView, where: Where) -> int:
    if where == "top":
        return 0
    if isinstance(where, int):
        if where < 0:
            raise EditFault(f"a new field before number {where}; the first is 0")
        if where < len(view.fields):
            return view.fields[where].start
    return view.section_end


def _pick(fields: tuple[Field, ...], occurrence: int) -> Field | None:
    index = occurrence - 1 if occurrence > 0 else occurrence
    return fields[index] if -len(fields) <= index < len(fields) else None


def _splice_head(changes: list[Change], head: bytes, start: int, end: int, octets: bytes) -> bytes:
    changes.append(Splice(Part.HEAD, start, end, octets))
    return head[:start] + octets + head[end:]


def _with_separator(changes: list[Change], head: bytes, octets: bytes) -> bytes:
    """A body needs the empty line before it, which a message of header alone may lack."""
    if not octets or HeaderView(head).has_separator:
        return head
    line_end = b"\r\n" if not head or head[-1] in b"\r\n" else b"\r\n\r\n"
    return _splice_head(changes, head, len(head), len(head), line_end)
