"""`ID.message`: a message with everything that another spool needs to take it over. Written by export, read by import.

One line of JSON (`Transferred`), then the octets as they arrived: head, and body.

Rule: nothing in such a file is believed. Who wrote it is not known; what does not fit together is refused whole.
"""

from __future__ import annotations

from typing import BinaryIO

import msgspec

from lonedot.message.content import Content, Measure
from lonedot.message.ledger import Entry
from lonedot.protocol.errors import RemoteProtocolError
from lonedot.protocol.grammar import is_xtext, parse_forward_path, parse_reverse_path
from lonedot.spool.interface import Facts, MessageState, Progress, RecipientState, RecipientStatus, Stored
from lonedot.terms.address import Address
from lonedot.terms.envelope import Envelope

__all__ = ["TransferFault", "Transferred", "header_of", "read_header"]

HEADER_LIMIT = 16 * 1024 * 1024
"""Octets of the line of JSON."""
HEAD_LIMIT = 16 * 1024 * 1024
RECIPIENTS_LIMIT = 100_000
ENTRIES_LIMIT = 10_000


class TransferFault(Exception):
    """Such a file is not what export writes; the words say how."""


class Transferred(msgspec.Struct, frozen=True):
    """A message without its octets, as it was when it was exported."""

    id: str
    state: MessageState
    reason: str
    accepted_at: float
    envelope: Envelope
    facts: Facts
    ledger: tuple[Entry, ...]
    recipients: tuple[RecipientState, ...]
    size: int
    transport: Progress | None
    head_size: int
    body_size: int
    head: Measure
    body: Measure
    kind: str = "lonedot message"
    version: int = 1


def header_of(stored: Stored, arrival: Content) -> bytes:
    """The line of JSON, LF included."""
    facts = msgspec.structs.replace(stored.facts, transcript=None)  # it stays where it was recorded
    recipients = tuple(
        [
            msgspec.structs.replace(one, joined=None) if one.joined is not None else one
            for one in stored.recipients  # the ledger names them already
        ]
    )
    return (
        msgspec.json.encode(
            Transferred(
                id=stored.id,
                state=stored.state,
                reason=stored.reason,
                accepted_at=stored.accepted_at,
                envelope=stored.envelope,
                facts=facts,
                ledger=stored.ledger,
                recipients=recipients,
                size=stored.size,
                transport=stored.transport,
                head_size=len(arrival.head),
                body_size=arrival.body.size,
                head=arrival.head_measure,
                body=arrival.body_measure,
            )
        )
        + b"\n"
    )


def read_header(file: BinaryIO, id: str) -> Transferred:
    """What stands in the first line; the file is then where the octets begin.

    Raises:
        TransferFault: it is not that of this message, or it contradicts itself.
        OSError: it cannot be read.
    """
    line = file.readline(HEADER_LIMIT + 1)
    if not line.endswith(b"\n"):
        raise TransferFault("it does not begin with a line of JSON")
    try:
        given = msgspec.json.decode(line, type=Transferred)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise TransferFault(f"its first line cannot be read: {error}") from error
    if given.kind != "lonedot message" or given.version != 1:
        raise TransferFault(
            f"it is a {given.kind[:40]!r} of version {given.version}; this relay reads version 1"
        )
    if given.id != id:
        raise TransferFault(f"it is that of {given.id[:40]!r}")
    if not (0 <= given.head_size <= HEAD_LIMIT and given.body_size >= 0 and given.size >= 0):
        raise TransferFault("its sizes are out of range")
    if not 0 < len(given.recipients) <= RECIPIENTS_LIMIT or len(given.ledger) > ENTRIES_LIMIT:
        raise TransferFault("it has no recipient, or too many, or a ledger that is too long")
    _judge_recipients(given)
    _judge_envelope(given.envelope)
    return given


def _judge_recipients(given: Transferred) -> None:
    envelope = given.envelope.recipients
    if len(envelope) != len(given.recipients):
        raise TransferFault("its recipients are not those of its envelope")
    for place, (state, recipient) in enumerate(zip(given.recipients, envelope, strict=True)):
        if state.index != place or state.recipient != recipient:
            raise TransferFault(f"its recipient {place} is not that of its envelope")
        if state.attempts < 0 or not 0 <= state.next_at < 1e11 or state.joined is not None:
            raise TransferFault(f"its recipient {place} has values out of range")
        if state.addressed:
            _judge_address(b"TO:", Address(state.addressed))


def _judge_envelope(envelope: Envelope) -> None:
    if not envelope.reverse_path.is_null:
        _judge_address(b"FROM:", envelope.reverse_path)
    if envelope.envid and not is_xtext(envelope.envid):
        raise TransferFault("its envelope id is not xtext")
    for recipient in envelope.recipients:
        _judge_address(b"TO:", recipient.address)
        _, mark, value = recipient.orcpt.partition(b";")
        if recipient.orcpt and not (mark and is_xtext(value) and recipient.orcpt.isascii()):
            raise TransferFault("an original recipient is not of the form type;xtext")
        if not 0 <= recipient.notify < 16:
            raise TransferFault("a recipient's NOTIFY is out of range")


def _judge_address(word: bytes, address: Address) -> None:
    """What is sent to a next hop in a command must be what a command could have brought."""
    try:
        parse = parse_reverse_path if word == b"FROM:" else parse_forward_path
        path = parse(word + b"<" + address.octets + b">")
    except RemoteProtocolError as error:
        raise TransferFault(f"{address.text[:80]!r} is not an address: {error}") from error
    if path.address != address or path.parameters:
        raise TransferFault(f"{address.text[:80]!r} is not an address")


def waits(given: Transferred) -> bool:
    """Something is still to be sent."""
    return any(state.status is RecipientStatus.WAITING for state in given.recipients)
