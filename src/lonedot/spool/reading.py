"""Reading a shard: contents, one message, numbers. Through a connection that cannot write.

A row that cannot be decoded is a damaged message in the answer, never an exception for all.
"""

from __future__ import annotations

import hashlib

import apsw
import msgspec

from lonedot.message.content import Content, FileBody, MemoryBody
from lonedot.message.ledger import Entry
from lonedot.spool import rows, schema
from lonedot.spool.bodies import Bodies
from lonedot.spool.interface import (
    Attempt,
    ContentDamaged,
    Facts,
    MessageState,
    NoSuchMessage,
    Progress,
    RecipientState,
    Stored,
)
from lonedot.terms.address import NULL_REVERSE_PATH
from lonedot.terms.envelope import Envelope
from lonedot.terms.ids import MessageId, SessionId, number_from_id

__all__ = [
    "contains_key",
    "contains_message",
    "count_by_state",
    "count_lane",
    "find_number",
    "first_due",
    "lanes_with_messages",
    "read_content",
    "read_entries",
    "read_message",
    "read_recipients",
    "undecodable",
]

NO_ENVELOPE = Envelope(NULL_REVERSE_PATH, ())
NO_FACTS = Facts("", SessionId(""))

_SHOW = """
SELECT m.state, m.reason, m.accepted_at, m.finished_at, m.size, r.value,
       EXISTS (SELECT 1 FROM content c WHERE c.message = m.id), m.transport
FROM message m LEFT JOIN record r ON r.message = m.id WHERE m.id = ?
"""


def find_number(id: str) -> int | None:
    """The number of an id; None when the text is not an id."""
    try:
        return number_from_id(id)
    except ValueError:
        return None


def undecodable(error: Exception) -> str:
    """The reason of a message whose rows cannot be decoded."""
    return f"its record cannot be read: {error}"


def read_recipients(connection: apsw.Connection, number: int) -> tuple[RecipientState, ...]:
    """Raises msgspec.DecodeError."""
    found = connection.execute("SELECT value FROM recipient WHERE message = ? ORDER BY number", (number,))
    return tuple([rows.recipient_from(value) for (value,) in found])


def read_entries(connection: apsw.Connection, number: int) -> tuple[tuple[Entry, ...], int]:
    """Ledger entries behind those of the acceptance, and the number of the next row.

    Raises:
        msgspec.DecodeError
    """
    found = connection.execute("SELECT number, value FROM entry WHERE message = ? ORDER BY number", (number,))
    entries: tuple[Entry, ...] = ()
    after = 0
    for place, value in found:
        entries += rows.entries_from(value)
        after = place + 1
    return entries, after


def _read_attempts(connection: apsw.Connection, number: int) -> tuple[Attempt, ...]:
    found = connection.execute("SELECT value FROM attempt WHERE message = ? ORDER BY number", (number,))
    return tuple([rows.attempt_from(value) for (value,) in found])


def read_message(connection: apsw.Connection, id: MessageId) -> Stored:
    """Raises NoSuchMessage."""
    number = find_number(id)
    found = None if number is None else connection.execute(_SHOW, (number,)).fetchone()
    if number is None or found is None:
        raise NoSuchMessage(id)
    state, reason, accepted_at, finished_at, size, value, has_content, transport = found
    envelope, facts = NO_ENVELOPE, NO_FACTS
    ledger: tuple[Entry, ...] = ()
    recipients: tuple[RecipientState, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    progress: Progress | None = None
    try:
        if value is None:
            raise msgspec.DecodeError("it is missing")
        record = rows.record_from(value)
        envelope, facts, ledger = record.envelope, record.facts, record.ledger
        recipients = read_recipients(connection, number)
        entries = read_entries(connection, number)[0]
        if entries:
            envelope = rows.current_envelope(envelope, entries, recipients)
            ledger = rows.joined_ledger(ledger + entries, recipients)
        if transport is not None:
            progress = rows.progress_from(transport)
        attempts = _read_attempts(connection, number)
    except msgspec.DecodeError as error:
        state, reason = MessageState.DAMAGED.value, undecodable(error)
    return Stored(
        id=id,
        state=MessageState(state),
        reason=reason,
        accepted_at=accepted_at,
        finished_at=finished_at,
        envelope=envelope,
        facts=facts,
        ledger=ledger,
        recipients=recipients,
        size=size,
        attempts=attempts,
        has_content=bool(has_content),
        transport=progress,
    )


def read_content(connection: apsw.Connection, bodies: Bodies, id: MessageId) -> Content:
    """Raises NoSuchMessage (also when the content is no longer kept) or ContentDamaged."""
    number = find_number(id)
    sql = "SELECT file, size, measures, head, body FROM content WHERE message = ?"
    found = None if number is None else connection.execute(sql, (number,)).fetchone()
    if found is None:
        raise NoSuchMessage(id)
    in_file, size, value, head, octets = found
    try:
        measures = rows.measures_from(value)
    except msgspec.DecodeError as error:
        raise ContentDamaged(f"the measures of {id} cannot be read: {error}") from error
    if hashlib.sha256(head).digest() != measures.head.sha256:
        raise ContentDamaged(f"the stored head of {id} is not what was stored: its digest differs")
    if in_file:
        path = bodies.path(id)
        try:
            there = path.stat().st_size
        except FileNotFoundError:
            raise ContentDamaged(f"the body file {path} is missing") from None
        if there != size:
            raise ContentDamaged(f"the body file {path} has {there} octets, {size} were stored")
        return Content(head, FileBody(path, size), measures.head, measures.body)
    if len(octets) != size or hashlib.sha256(octets).digest() != measures.body.sha256:
        raise ContentDamaged(f"the stored body of {id} is not what was stored: its digest differs")
    return Content(head, MemoryBody(octets), measures.head, measures.body)


def first_due(connection: apsw.Connection) -> float | None:
    """When the first unclaimed message is due."""
    sql = "SELECT due FROM message WHERE state = 'queued' AND owner IS NULL AND due IS NOT NULL ORDER BY due LIMIT 1"
    found = connection.execute(sql).fetchone()
    return None if found is None else found[0]


_UNCLAIMED_IN_LANE = "state = 'queued' AND owner IS NULL AND lane IS NOT NULL"
# One step in the index for each lane, however many messages wait for it.
_LANES = f"""
WITH RECURSIVE found(lane) AS (
    SELECT min(lane) FROM message WHERE {_UNCLAIMED_IN_LANE}
    UNION ALL
    SELECT (SELECT min(lane) FROM message WHERE {_UNCLAIMED_IN_LANE} AND lane > found.lane)
    FROM found WHERE found.lane IS NOT NULL LIMIT 5000
) SELECT lane FROM found WHERE lane IS NOT NULL
"""  # noqa: S608 — our own words


def lanes_with_messages(connection: apsw.Connection) -> list[str]:
    """Lanes for which unclaimed messages wait, at most 5000."""
    return [lane for (lane,) in schema.query(connection, _LANES)]


def count_lane(connection: apsw.Connection, lane: str) -> int:
    """Unclaimed messages that wait for a lane."""
    sql = f"SELECT count(*) FROM message WHERE {_UNCLAIMED_IN_LANE} AND lane = ?"  # noqa: S608 — our own words
    ((count,),) = schema.query(connection, sql, (lane,))
    return int(count)


def count_by_state(connection: apsw.Connection) -> dict[MessageState, int]:
    counts = dict.fromkeys(MessageState, 0)
    found = connection.execute("SELECT state, count(*) FROM message WHERE state <> 'finished' GROUP BY state")
    for state, count in found:
        counts[MessageState(state)] = count
    ((counts[MessageState.FINISHED],),) = connection.execute("SELECT finished FROM progress")
    return counts


def contains_key(connection: apsw.Connection, key: bytes) -> bool:
    return connection.execute("SELECT 1 FROM source_key WHERE key = ?", (key,)).fetchone() is not None


def contains_message(connection: apsw.Connection, id: str) -> bool:
    number = find_number(id)
    return connection.execute("SELECT 1 FROM message WHERE id = ?", (number,)).fetchone() is not None
