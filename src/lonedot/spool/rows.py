"""Between values and rows: one place where what custody keeps is encoded and decoded.

Columns that a person or a query needs are plain; the whole value lies beside them as MessagePack. Fields are only ever
added at the end of these values, with a default: what an older version stored must stay readable.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from lonedot.message.content import Measure
from lonedot.message.findings import Severity
from lonedot.message.ledger import Action, Entry
from lonedot.spool.interface import Attempt, Facts, RecipientState, RecipientStatus
from lonedot.terms.envelope import Envelope

__all__ = [
    "Measures",
    "Record",
    "Row",
    "attempt_from",
    "encode",
    "entries_from",
    "is_remarkable",
    "measures_from",
    "recipient_from",
    "recipient_row",
    "record_from",
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
    )


_PLAIN = frozenset({Action.KEPT, Action.UNCHANGED, Action.SHADOWED})


def is_remarkable(entries: Iterable[Entry]) -> bool:
    """Something was repaired, undone, held or found: the octets are worth keeping for whoever looks into it."""
    for entry in entries:
        if entry.action not in _PLAIN:
            return True
        if entry.findings and any(finding.severity is not Severity.NOTE for finding in entry.findings):
            return True
    return False
