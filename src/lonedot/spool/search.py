"""Finding messages of a shard: the listing, and the ids that a filter selects.

The first page must come at once, however long the queue is: a listing by age walks each state backwards through its
index and stops when the page is full. Another order, or a filter that few messages meet, reads them all; therefore
`Spool.search` does it beside the loop.

A row that cannot be decoded is a damaged message in the answer, never an exception for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import apsw
import msgspec

from lonedot.spool import rows, schema
from lonedot.spool.interface import (
    Filter,
    Listed,
    MessageState,
    Progress,
    RecipientState,
    RecipientStatus,
    Sort,
)
from lonedot.spool.reading import find_number, undecodable
from lonedot.spool.subject import fingerprint
from lonedot.terms.ids import MessageId, id_from_number

__all__ = ["list_messages", "select_messages"]

_LISTED = "id, state, reason, accepted_at, finished_at, size, sender, due, transport"
_LISTED_RECIPIENTS = "SELECT address, status, value FROM recipient WHERE message = ? ORDER BY number"
_NEXT = "CASE WHEN state = 'queued' AND due <> 0 THEN due END"
"""When it is due; that of a held one is no time at which anything comes."""
_ORDERS = {
    Sort.AGE: "id DESC",
    Sort.OLDEST: "id",
    Sort.SIZE: "size DESC, id",
    Sort.NEXT: f"{_NEXT} IS NULL, {_NEXT}, id",
    Sort.SENDER: "sender COLLATE NOCASE, id",
}
_ID_SHIFT = 21
"""Bits of an id below its milliseconds."""

Value = int | float | str | bytes


def _waits_for(*values: int | float | str | bytes | None) -> str:
    """Of one blob, what `Progress.waits_for` is; empty where it cannot be decoded."""
    (value,) = values
    try:
        if not isinstance(value, bytes):
            return ""
        return rows.progress_from(value).waits_for
    except msgspec.DecodeError:
        return ""


def list_messages(connection: apsw.Connection, wanted: Filter) -> list[Listed]:
    """Those that are wanted; with `Sort.AGE` the newest of them, oldest first."""
    sql, values = _statement(connection, wanted, _LISTED)
    found = schema.query(connection, sql, values)
    if wanted.sort is Sort.AGE:
        found.reverse()
    return [_row(connection, row) for row in found]


def select_messages(connection: apsw.Connection, wanted: Filter) -> list[MessageId]:
    """Ids in the order of the filter, with `Sort.AGE` newest first."""
    columns = "id, state, size, due, sender" if wanted.sort is not Sort.AGE else "id"
    sql, values = _statement(connection, wanted, columns)
    return [id_from_number(row[0]) for row in schema.query(connection, sql, values)]


def _statement(connection: apsw.Connection, wanted: Filter, columns: str) -> tuple[str, list[Value]]:
    where, given = _conditions(connection, wanted)
    order = _ORDERS[wanted.sort]
    parts: list[str] = []
    values: list[Value] = []
    for state in wanted.states or tuple(MessageState):
        # The state is written out, and `state <> 'finished'` said besides, so that the partial index serves.
        live = "" if state is MessageState.FINISHED else "state <> 'finished' AND "
        condition = " AND ".join([f"{live}state = '{state.value}'", *where])
        parts.append(
            f"SELECT * FROM (SELECT {columns} FROM message WHERE {condition} ORDER BY {order} LIMIT ?)"  # noqa: S608 — our own words
        )
        values += [*given, wanted.limit + wanted.skip]
    sql = f"SELECT * FROM ({' UNION ALL '.join(parts)}) ORDER BY {order} LIMIT ? OFFSET ?"  # noqa: S608 — our own words
    return sql, [*values, wanted.limit, wanted.skip]


def _conditions(connection: apsw.Connection, wanted: Filter) -> tuple[list[str], list[Value]]:
    where: list[str] = []
    values: list[Value] = []

    def add(condition: str, *given: Value) -> None:
        where.append(condition)
        values.extend(given)

    if wanted.ids:
        numbers = [number for id in wanted.ids if (number := find_number(id)) is not None]
        add(f"id IN ({_marks(numbers)})", *numbers)
    if wanted.below and (below := find_number(wanted.below)) is not None:
        add("id < ?", below)
    # Ids rise with time, so a time is a range of them; the exact time is compared besides, for ids made elsewhere.
    if wanted.after:
        add("id >= ? AND accepted_at >= ?", _id_at(wanted.after - 1), wanted.after)
    if wanted.before:
        add("accepted_at < ?", wanted.before)
    if wanted.larger:
        add("size >= ?", wanted.larger)
    if wanted.smaller:
        add("size < ?", wanted.smaller)
    if wanted.held_for:
        add("state = 'held' AND reason = ?", wanted.held_for)
    if wanted.sender:
        match, value = _address(wanted.sender)
        add(f"sender {match}", value)
    if wanted.address:
        match, value = _address(wanted.address)
        anybody = f"EXISTS (SELECT 1 FROM recipient r WHERE r.message = message.id AND r.address {match})"  # noqa: S608 — our own words
        add(f"(sender {match} OR {anybody})", value, value)
    if wanted.client:
        if wanted.client[-1] in ".:":
            add("client LIKE ? ESCAPE '\\'", _plain(wanted.client) + "%")
        else:
            add("client = ? COLLATE NOCASE", wanted.client)
    if wanted.subject:
        ((salt,),) = schema.query(connection, "SELECT salt FROM progress")
        add("subject = ?", fingerprint(wanted.subject, salt))
    if wanted.sink:
        connection.create_scalar_function("waits_for", _waits_for, 1, deterministic=True)
        words = _plain(wanted.sink)
        add(
            "(reason LIKE ? ESCAPE '\\' OR CASE WHEN transport IS NULL THEN 0 ELSE waits_for(transport) = ? END)",
            f"{words}:%",
            wanted.sink,
        )
    if wanted.reason:
        part = f"%{_plain(wanted.reason)}%"
        add(
            "(reason LIKE ? ESCAPE '\\' OR EXISTS (SELECT 1 FROM recipient r WHERE r.message = message.id"
            " AND r.words LIKE ? ESCAPE '\\'))",
            part,
            part,
        )
    theirs, given = _of_a_recipient(wanted)
    if theirs:
        condition = " AND ".join(theirs)
        add(f"EXISTS (SELECT 1 FROM recipient r WHERE r.message = message.id AND {condition})", *given)  # noqa: S608 — no value in it
    return where, values


def _address(text: str) -> tuple[str, str]:
    """How a column is compared with an address, or with `@domain`."""
    if text.startswith("@"):
        return "LIKE ? ESCAPE '\\'", "%" + _plain(text)
    return "= ? COLLATE NOCASE", text


def _of_a_recipient(wanted: Filter) -> tuple[list[str], list[Value]]:
    where: list[str] = []
    values: list[Value] = []
    domain = "@" + wanted.domain.removeprefix("@") if wanted.domain else ""
    for text in (wanted.recipient, domain):
        if text:
            match, value = _address(text)
            where.append(f"r.address {match}")
            values.append(value)
    if wanted.next_hop:
        where.append("r.next_hop LIKE ? ESCAPE '\\'")
        values.append(f"%{_plain(wanted.next_hop)}%")
    if wanted.route:
        where.append("r.route = ?")
        values.append(wanted.route)
    return where, values


def _id_at(at: float) -> int:
    return min(max(int(at * 1000), 0) << _ID_SHIFT, (1 << 63) - 1)


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


def _plain(text: str) -> str:
    """The same as the pattern of LIKE that matches it alone."""
    for sign in "\\%_":
        text = text.replace(sign, "\\" + sign)
    return text


def _row(connection: apsw.Connection, row: tuple[Any, ...]) -> Listed:
    number, state, reason, accepted_at, finished_at, size, sender, due, transport = row
    recipients: list[tuple[str, str, str]] = []
    attempts = 0
    for address, status, value in connection.execute(_LISTED_RECIPIENTS, (number,)):
        try:
            recipient = rows.recipient_from(value)
        except msgspec.DecodeError as error:
            state, reason = MessageState.DAMAGED.value, undecodable(error)
            recipients.append((address, status, ""))
            continue
        recipients.append((address, status, _last_words(recipient)))
        attempts = max(attempts, recipient.attempts)
    progress: Progress | None = None
    try:
        if transport is not None:
            progress = rows.progress_from(transport)
    except msgspec.DecodeError as error:
        state, reason = MessageState.DAMAGED.value, undecodable(error)
    return Listed(
        id=id_from_number(number),
        state=MessageState(state),
        reason=reason,
        accepted_at=accepted_at,
        finished_at=finished_at,
        size=size,
        sender=sender,
        recipients=tuple(recipients),
        next_at=due or 0.0 if state == MessageState.QUEUED.value else 0.0,
        attempts=attempts,
        waits_for="" if progress is None else progress.waits_for,
        put_off="" if progress is None else progress.words,
    )


def _last_words(recipient: RecipientState) -> str:
    last = recipient.last
    if last is None:
        return ""
    if last.reply is not None and recipient.status is not RecipientStatus.EXPIRED:
        return last.reply.text
    return last.reason
