"""What a milter changes, as edits. Its indices count the fields that it was shown, as they stand after what it has
changed before.

Rules: a change that says the same as what stands there is none, so that its octets stay; a header value comes with LF
for a line end and goes into the message with CRLF; what would leave its field is a `MilterFault`; the Received field
that this relay wrote is not shown and not counted, as it is with Postfix.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import assert_never

import msgspec

from lonedot.message.compare import differing_range
from lonedot.message.content import Content
from lonedot.message.edits import AddField, AnyEdit, Edit, ReplaceField, format_field
from lonedot.message.header import Field, HeaderView
from lonedot.message.intake import content_from
from lonedot.message.loosely import is_same_body, is_same_field
from lonedot.message.profile import LINE_LIMIT
from lonedot.message.transforms.crlf import repaired
from lonedot.sinks.builtin.milter_wire import (
    AddHeader,
    AddRecipient,
    ChangeHeader,
    ChangeSender,
    DeleteRecipient,
    InsertHeader,
    MilterFault,
    Modification,
    Quarantine,
    ReplaceBody,
)
from lonedot.terms.envelope import Envelope

__all__ = ["Changed", "changed", "shown_fields"]

_BARE_LF = re.compile(rb"(?<!\r)\n")
_NOT_A_FOLD = re.compile(rb"\r\n(?![ \t])|\r(?!\n)|(?<!\r)\n")


class Changed(msgspec.Struct, frozen=True):
    """What a milter has made of a message."""

    edits: tuple[AnyEdit, ...]
    quarantine: str = ""
    """Why it is to be held; empty: it is not."""
    nobody: bool = False
    """No recipient is left."""


def shown_fields(head: HeaderView, id: str) -> Sequence[Field]:
    """The fields that a milter is shown: all but the Received field that this relay has put on top."""
    fields = head.fields
    return fields[1:] if fields and _is_ours(fields[0], id) else fields


def _is_ours(field: Field, id: str) -> bool:
    return field.name.lower() == b"received" and b" id " + id.encode() in field.value


def changed(
    modifications: Sequence[Modification], content: Content, envelope: Envelope, id: str, leading_space: bool
) -> Changed:
    """All of what a milter said at the end of a message. `leading_space`: its values bring the space behind the colon.

    Reads the whole body when the milter hands one back.

    Raises:
        MilterFault, EditFault: what cannot be written into a message or its envelope.
    """
    fields = _Fields(HeaderView(content.head), id, leading_space)
    people = _People(envelope)
    pieces: list[bytes] | None = None
    quarantine = ""
    for one in modifications:
        match one:
            case AddHeader() | InsertHeader() | ChangeHeader():
                fields.take(one)
            case AddRecipient() | DeleteRecipient() | ChangeSender():
                people.take(one)
            case ReplaceBody(octets):
                pieces = [] if pieces is None else pieces
                pieces.append(octets)
            case Quarantine(words):
                quarantine = words or "no reason given"
            case _:
                assert_never(one)
    body = () if pieces is None else _body_edits(content, b"".join(pieces))
    nobody = bool(envelope.recipients) and not people.addresses
    return Changed((*fields.edits, *body, *people.edits), quarantine, nobody)


def _body_edits(content: Content, octets: bytes) -> tuple[AnyEdit, ...]:
    """The body in its place, as far as it differs. LF for every line end is a notation, and put right."""
    if b"\r\n" not in octets and b"\n" in octets:
        octets = repaired(octets)
    if is_same_body(content, content_from(content.head + octets)):
        return ()
    start, end, different = differing_range(content.body, octets)
    return () if start == end and not different else (Edit.splice_body(start, end, different),)


class _Fields:
    """The header section while it changes."""

    def __init__(self, head: HeaderView, id: str, leading_space: bool) -> None:
        self.edits: list[AnyEdit] = []
        self._leading_space = leading_space
        self._hidden = len(head.fields) - len(shown_fields(head, id))
        self._fields = [
            _Known(field.name.lower(), field, place < self._hidden) for place, field in enumerate(head.fields)
        ]

    def take(self, change: AddHeader | InsertHeader | ChangeHeader) -> None:
        match change:
            case AddHeader(name, value):
                self._add(name, value)
            case InsertHeader(index, name, value):
                # 0 is above everything, our own trace field too.
                place = min(index - 1 + self._hidden, len(self._fields)) if index else 0
                if place == len(self._fields):
                    self._add(name, value)
                else:
                    octets = self._written(name, value)
                    self._fields.insert(place, _known(name, octets))
                    self.edits.append(AddField(octets, place or "top"))
            case ChangeHeader(index, name, value):
                self._change(max(index, 1), name, value)

    def _add(self, name: bytes, value: bytes) -> None:
        octets = self._written(name, value)
        self._fields.append(_known(name, octets))
        self.edits.append(AddField(octets, "bottom"))

    def _change(self, index: int, name: bytes, value: bytes) -> None:
        wanted = name.lower()
        places = [place for place, known in enumerate(self._fields) if known.name == wanted]
        shown = [place for place in places if not self._fields[place].is_hidden]
        place = shown[index - 1] if index <= len(shown) else -1
        occurrence = places.index(place) + 1 if place >= 0 else 0
        text = name.decode("ascii")
        if not value:
            if place >= 0:
                del self._fields[place]
                self.edits.append(Edit.remove_field(text, occurrence))
            return
        if place < 0:
            self._add(name, value)
            return
        octets = self._written(name, value)
        new = _known(name, octets)
        if is_same_field(self._fields[place].field, new.field):
            return
        self._fields[place] = new
        self.edits.append(ReplaceField(text, octets, occurrence))

    def _written(self, name: bytes, value: bytes) -> bytes:
        """The whole field."""
        # Some write CRLF though LF is the protocol's; a line end at the end is that of the field.
        raw = _BARE_LF.sub(b"\r\n", value.rstrip(b"\r\n"))
        if _NOT_A_FOLD.search(raw):
            shown = name.decode("ascii", "replace")
            raise MilterFault(f"writes a line into {shown} that does not begin as a fold does")
        octets = name + (b":" if self._leading_space else b": ") + raw + b"\r\n"
        if len(octets) > LINE_LIMIT and b"\r\n" not in raw and raw.isascii():
            return format_field(name.decode("ascii"), raw.strip(b" \t").decode("ascii"))
        return octets


class _Known(msgspec.Struct, frozen=True):
    """A field as it stands now."""

    name: bytes
    """In lower case."""
    field: Field
    is_hidden: bool = False


def _known(name: bytes, octets: bytes) -> _Known:
    return _Known(name.lower(), HeaderView(octets).fields[0])


class _People:
    """The envelope while it changes."""

    def __init__(self, envelope: Envelope) -> None:
        self.edits: list[AnyEdit] = []
        self.addresses = [recipient.address.octets for recipient in envelope.recipients]
        self._sender = envelope.reverse_path.octets

    def take(self, change: AddRecipient | DeleteRecipient | ChangeSender) -> None:
        match change:
            case AddRecipient(address):
                if address not in self.addresses:
                    self.edits.append(Edit.add_recipient(address))
                    self.addresses.append(address)
            case DeleteRecipient(address):
                wanted = [address] if address in self.addresses else self._alike(address)
                for known in wanted:
                    self.edits.append(Edit.remove_recipient(known))
                    self.addresses.remove(known)
            case ChangeSender(address):
                if address != self._sender:
                    self.edits.append(Edit.change_reverse_path(address))
                    self._sender = address

    def _alike(self, address: bytes) -> list[bytes]:
        """Some milters write an address in other letters than they were told."""
        wanted = address.lower()
        return [known for known in self.addresses if known.lower() == wanted]
