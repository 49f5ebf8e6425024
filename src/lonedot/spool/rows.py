"""Between values and rows: one place where what custody keeps is encoded and decoded.

Columns that a person or a query needs are plain; the whole value lies beside them as MessagePack. Fields are only ever
added at the end of these values, with a default: what an older version stored must stay readable.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from lonedot.message.content import Measure
from lonedot.message.findings import Severity
from lonedot.message.ledger import Action, Entry, EnvelopeChange
from lonedot.spool.interface import Attempt, Facts, Progress, RecipientState, RecipientStatus
from lonedot.terms.address import Address
from lonedot.terms.envelope import Envelope

__all__ = [
    "Measures",
    "Record",
    "Row",
    "attempt_from",
    "current_envelope",
    "encode",
    "entries_from",
    "is_remarkable",
    "joined_ledger",
    "measures_from",
    "new_sender",
    "progress_from",
    "recipient_from",
    "recipient_row",
    "record_from",
    "searched",
]


class Record(msgspec.Struct, frozen=True, array_like=True):
    """What never changes about a message: its envelope, how it came, the ledger of its acceptance."""

    envelope: Envelope
    facts: Facts
    ledger: tuple[Entry, ...]


class Measures(msgspec.Struct, frozen=True, array_like=True):
    """Profiles and digests of head and body."""

    head: Measure
    body: Measure


encode = msgspec.msgpack.Encoder().encode
record_from = msgspec.msgpack.Decoder(Record).decode
recipient_from = msgspec.msgpack.Decoder(RecipientState).decode
attempt_from = msgspec.msgpack.Decoder(Attempt).decode
entries_from = msgspec.msgpack.Decoder(tuple[Entry, ...]).decode
measures_from = msgspec.msgpack.Decoder(Measures).decode
progress_from = msgspec.msgpack.Decoder(Progress).decode

Row = tuple[int | float | str | bytes | None, ...]
_WAITING = RecipientStatus.WAITING


def recipient_row(number: int, recipient: RecipientState) -> Row:
    """For `schema.PUT_RECIPIENT`."""
    status = recipient.status
    return (
        number,
        recipient.index,
        recipient.recipient.address.text,
        status._value_,
        recipient.next_at if status is _WAITING else 0.0,
        encode(recipient),
        *searched(recipient),
    )


WORDS_LIMIT = 500
"""Signs of a remote's words that can be searched."""


def searched(recipient: RecipientState) -> tuple[str, str, str]:
    """Route, next hop, and why it waits or failed: what the queue is searched by."""
    last = recipient.last
    route = recipient.redirect or recipient.route
    if last is None:
        return route, "", ""
    if recipient.status is RecipientStatus.DELIVERED:
        return route, last.next_hop, ""
    words = last.reason if last.reply is None else f"{last.reason}: {last.reply.text}"
    return route, last.next_hop, words[:WORDS_LIMIT]


_PLAIN = frozenset({Action.KEPT, Action.UNCHANGED, Action.SHADOWED})


def is_remarkable(entries: Iterable[Entry]) -> bool:
    """Something was repaired, undone, held or found: the octets are worth keeping for whoever looks into it."""
    for entry in entries:
        if entry.action not in _PLAIN:
            return True
        if entry.findings and any(finding.severity is not Severity.NOTE for finding in entry.findings):
            return True
    return False


def new_sender(entries: Iterable[Entry]) -> Address | None:
    """The reverse-path that sinks have given to a message since it was accepted; None: the one it came with."""
    found: bytes | None = None
    for entry in entries:
        for change in entry.changes:
            if isinstance(change, EnvelopeChange) and change.reverse_path is not None:
                found = change.reverse_path
    return None if found is None else Address(found)


def current_envelope(
    envelope: Envelope, entries: Iterable[Entry], recipients: Sequence[RecipientState]
) -> Envelope:
    """The envelope as it is now.

    Args:
        envelope: as it was accepted.
        entries: of the ledger, written since then.
        recipients: all, also those that get nothing any more.
    """
    sender = new_sender(entries) or envelope.reverse_path
    if sender is envelope.reverse_path and len(recipients) == len(envelope.recipients):
        return envelope
    everybody = tuple([recipient.recipient for recipient in recipients])
    return msgspec.structs.replace(envelope, reverse_path=sender, recipients=everybody)


def joined_ledger(ledger: tuple[Entry, ...], recipients: Iterable[RecipientState]) -> tuple[Entry, ...]:
    """The ledger, where entries for the copy of one recipient hold for those too that were added to that copy later."""
    late = [recipient for recipient in recipients if recipient.joined is not None]
    if not late:
        return ledger
    whole = list(ledger)
    for recipient in late:
        other, count = recipient.joined or (0, 0)
        for place, entry in enumerate(whole[:count]):
            if other in entry.scope and recipient.index not in entry.scope:
                scope = tuple(sorted((*entry.scope, recipient.index)))
                whole[place] = msgspec.structs.replace(entry, scope=scope)
    return tuple(whole)
