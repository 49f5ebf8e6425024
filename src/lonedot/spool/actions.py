"""What is done to messages outside acceptance and settlement: claim, hold, release, retry, delete, purge.

Each action runs inside the writer's transaction and changes the claims in memory with it. It tells the writer what
else belongs to the transaction through `Effects`: whose claims it touched (they are read anew when the transaction
fails), which body files go once it is synced, and how many messages became finished.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import apsw
import msgspec

from lonedot.spool import reading, rows, schema
from lonedot.spool.bodies import Bodies
from lonedot.spool.claims import Claims, Held, waiting_of
from lonedot.spool.flight import Flight
from lonedot.spool.interface import Claim, MessageState, RecipientState, RecipientStatus, Stored
from lonedot.terms.ids import MessageId, id_from_number

__all__ = ["Actions", "Effects", "KeepContent", "reasons"]

Result = TypeVar("Result")
KeepContent = Callable[[bool], bool]
"""Whether the content of a finished message stays, by whether its ledger is remarkable."""

_CLAIMED = """
SELECT m.id, m.epoch, m.accepted_at, m.finished_at, m.size, r.value,
       (SELECT file FROM content c WHERE c.message = m.id),
       (SELECT max(number) FROM attempt a WHERE a.message = m.id), m.transport
FROM message m LEFT JOIN record r ON r.message = m.id
WHERE m.state = 'queued' AND m.owner IS NULL AND
"""
_DUE = f"{_CLAIMED} m.due <= ? ORDER BY m.due LIMIT ?"
_OF_LANE = f"{_CLAIMED} m.lane = ? AND m.lane IS NOT NULL ORDER BY m.id LIMIT ?"
_TAKEN = """
SELECT m.state, m.reason, m.epoch, m.accepted_at, m.finished_at, m.size, r.value,
       (SELECT file FROM content c WHERE c.message = m.id),
       (SELECT max(number) FROM attempt a WHERE a.message = m.id), m.transport
FROM message m LEFT JOIN record r ON r.message = m.id WHERE m.id = ?
"""
_OWN = "UPDATE message SET owner = ?, epoch = ? WHERE id = ?"
_DISOWN = "UPDATE message SET owner = NULL WHERE id = ?"
_DAMAGED = "UPDATE message SET state = 'damaged', owner = NULL, reason = ? WHERE id = ?"
REASON_LIMIT = 2000
"""Signs of a reason that was added to."""
_FORGET = ("message", "record", "content", "recipient", "entry", "attempt", "source_key")


def reasons(before: str, added: str) -> str:
    """Why a message is held that was held already: the first reason stays, another is added."""
    if not before or before == added:
        return added
    return before if added in before.split("; ") else f"{before}; {added}"[:REASON_LIMIT]


class Effects:
    """What a transaction carries besides its rows."""

    __slots__ = ("finished", "removals", "touched")

    def __init__(self) -> None:
        self.touched: dict[int, Held | None] = {}
        self.removals: list[Path] = []
        self.finished = 0


class Actions:
    """The actions on one shard."""

    def __init__(self, claims: Claims, flight: Flight, bodies: Bodies, keep_content: KeepContent) -> None:
        self._claims = claims
        self._flight = flight
        self._bodies = bodies
        self._keep_content = keep_content

    # -- claims --------------------------------------------------------------------------------------

    def claim(
        self,
        connection: apsw.Connection,
        effects: Effects,
        owner: str,
        now: float,
        lease_seconds: float,
        limit: int,
        lane: str = "",
    ) -> list[Claim]:
        for ended in self._claims.ended(now):
            self._end_claim(connection, effects, ended.number)
        claimed: list[Claim] = []
        while len(claimed) < limit:
            wanted: tuple[str | float, int] = (lane or now, limit - len(claimed))
            found = schema.query(connection, _OF_LANE if lane else _DUE, wanted)
            for number, *row in found:
                one = self._claimed(
                    connection, effects, owner, now + lease_seconds, number, ("queued", "", *row)
                )
                if one is not None:
                    claimed.append(one)
            if not found:
                break
        return claimed

    def take(
        self,
        connection: apsw.Connection,
        effects: Effects,
        owner: str,
        ids: Sequence[MessageId],
        lease_until: float,
    ) -> list[Claim | None]:
        taken: list[Claim | None] = []
        for id in ids:
            number = reading.find_number(id)
            found = schema.query(connection, _TAKEN, (number,))
            one: Claim | None = None
            is_live = bool(found) and found[0][0] in ("queued", "held")
            if number is not None and is_live and self._interrupt(connection, effects, number) is None:
                one = self._claimed(connection, effects, owner, lease_until, number, found[0])
            taken.append(one)
        return taken

    def _claimed(
        self,
        connection: apsw.Connection,
        effects: Effects,
        owner: str,
        lease_until: float,
        number: int,
        row: Sequence[Any],
    ) -> Claim | None:
        """The claim on a message that nobody has; None: it is damaged, and that is noted. `row`: as of `_TAKEN`."""
        state, reason, epoch, accepted_at, finished_at, size, value, file, attempts, transport = row
        try:
            if value is None:
                raise msgspec.DecodeError("it is missing")
            record = rows.record_from(value)
            recipients = reading.read_recipients(connection, number)
            entries, after = reading.read_entries(connection, number)
            progress = None if transport is None else rows.progress_from(transport)
        except msgspec.DecodeError as error:
            connection.execute(_DAMAGED, (reading.undecodable(error), number))
            return None
        ledger = rows.joined_ledger(record.ledger + entries, recipients) if entries else record.ledger
        connection.execute(_OWN, (owner, epoch + 1, number))
        effects.touched.setdefault(number, None)
        self._claims.put(
            Held(
                number,
                owner,
                epoch + 1,
                lease_until,
                waiting_of(recipients),
                file=bool(file),
                keep=self._keep_content(rows.is_remarkable(ledger)),
                attempts=0 if attempts is None else attempts + 1,
                entries=after,
                state=MessageState(state),
                reason=reason,
                transport=transport,
            )
        )
        stored = Stored(
            id=id_from_number(number),
            state=MessageState(state),
            reason=reason,
            accepted_at=accepted_at,
            finished_at=finished_at,
            envelope=rows.current_envelope(record.envelope, entries, recipients),
            facts=record.facts,
            ledger=ledger,
            recipients=recipients,
            size=size,
            has_content=file is not None,
            transport=progress,
        )
        return Claim(stored, epoch + 1)

    def end_claims(self, connection: apsw.Connection, effects: Effects, numbers: Sequence[int]) -> None:
        """Claims nobody works on any more."""
        for number in numbers:
            self._end_claim(connection, effects, number)

    def _end_claim(self, connection: apsw.Connection, effects: Effects, number: int) -> None:
        held = self._claims.drop(number)
        if held is not None:
            effects.touched.setdefault(number, held)
            connection.execute(_DISOWN, (number,))
            if held.state is MessageState.FINISHED and not held.keep:
                self._drop_content(connection, effects, number)

    # -- by hand -------------------------------------------------------------------------------------

    def hold(
        self, connection: apsw.Connection, effects: Effects, ids: Sequence[MessageId], reason: str
    ) -> list[bool]:
        def act(number: int, state: MessageState) -> bool:
            if state not in {MessageState.QUEUED, MessageState.HELD}:
                return False
            held = self._interrupt(connection, effects, number)
            words = reason
            if state is MessageState.HELD:
                ((before,),) = schema.query(connection, "SELECT reason FROM message WHERE id = ?", (number,))
                words = reasons(before, reason)
            if held is not None:
                held.state, held.reason = MessageState.HELD, words
            connection.execute("UPDATE message SET state = 'held', reason = ? WHERE id = ?", (words, number))
            return True

        return self._each(connection, ids, act)

    def release(
        self, connection: apsw.Connection, effects: Effects, ids: Sequence[MessageId], now: float
    ) -> list[bool]:
        def act(number: int, state: MessageState) -> bool:
            if state not in {MessageState.HELD, MessageState.DAMAGED}:
                return False
            held = self._claims.get(number)
            if held is not None:
                effects.touched.setdefault(number, held)
                held.state, held.reason = MessageState.QUEUED, ""
            connection.execute(
                "UPDATE message SET state = 'queued', reason = '', deaths = 0 WHERE id = ?", (number,)
            )
            self._make_due(connection, number, now)
            return True

        return self._each(connection, ids, act)

    def retry(
        self, connection: apsw.Connection, effects: Effects, ids: Sequence[MessageId], now: float
    ) -> list[bool]:
        def act(number: int, state: MessageState) -> bool:
            if state is not MessageState.QUEUED:
                return False
            held = self._claims.get(number)
            if held is not None:
                effects.touched.setdefault(number, held)
            self._make_due(connection, number, now)
            return True

        return self._each(connection, ids, act)

    def delete(
        self, connection: apsw.Connection, effects: Effects, ids: Sequence[MessageId], now: float
    ) -> list[bool]:
        def act(number: int, state: MessageState) -> bool:
            if state is MessageState.FINISHED:
                return False
            held = self._interrupt(connection, effects, number)
            if held is not None:
                held.deleted, held.state = True, MessageState.FINISHED
            self._change_waiting(
                connection,
                number,
                lambda r: msgspec.structs.replace(r, status=RecipientStatus.DELETED, next_at=0.0),
            )
            connection.execute(
                "UPDATE recipient SET status = 'deleted', next_at = 0 WHERE message = ? AND status = 'waiting'",
                (number,),
            )
            connection.execute(
                "UPDATE message SET state = 'finished', due = NULL, finished_at = ? WHERE id = ?",
                (now, number),
            )
            effects.finished += 1
            if not self._keep_content(self._is_remarkable(connection, number)):
                self._drop_content(connection, effects, number)
            return True

        return self._each(connection, ids, act)

    def purge(self, connection: apsw.Connection, effects: Effects, before: float, limit: int) -> int:
        # A finished message was accepted before it was finished, so none with a later id can be old enough.
        greatest = max(int(before * 1000) << 21, 0)
        found = schema.query(
            connection,
            "SELECT id FROM message WHERE id < ? AND state = 'finished' AND finished_at < ? ORDER BY id LIMIT ?",
            (greatest, before, limit),
        )
        numbers = [number for (number,) in found if self._claims.get(number) is None]
        for number in numbers:
            self.forget(connection, effects, number)
        return len(numbers)

    def forget(self, connection: apsw.Connection, effects: Effects, number: int) -> None:
        """Remove a message from every table, whatever its state."""
        self._drop_content(connection, effects, number)
        ((finished,),) = schema.query(
            connection, "SELECT count(*) FROM message WHERE id = ? AND state = 'finished'", (number,)
        )
        effects.finished -= finished
        for table in _FORGET:
            column = "id" if table == "message" else "message"
            connection.execute(f"DELETE FROM {table} WHERE {column} = ?", (number,))  # noqa: S608 — our own names

    # -- parts ---------------------------------------------------------------------------------------

    def _each(
        self,
        connection: apsw.Connection,
        ids: Sequence[MessageId],
        act: Callable[[int, MessageState], bool],
    ) -> list[bool]:
        done: list[bool] = []
        for id in ids:
            number = reading.find_number(id)
            found = schema.query(connection, "SELECT state FROM message WHERE id = ?", (number,))
            done.append(number is not None and bool(found) and act(number, MessageState(found[0][0])))
        return done

    def _interrupt(self, connection: apsw.Connection, effects: Effects, number: int) -> Held | None:
        """End the claim on a message, unless it is in flight: then it is returned."""
        held = self._claims.get(number)
        if held is None:
            return None
        effects.touched.setdefault(number, held)
        if number in self._flight:
            return held
        self._end_claim(connection, effects, number)
        return None

    def _make_due(self, connection: apsw.Connection, number: int, now: float) -> None:
        self._change_waiting(connection, number, lambda r: msgspec.structs.replace(r, next_at=now))
        connection.execute("UPDATE message SET due = ?, lane = NULL WHERE id = ?", (now, number))
        held = self._claims.get(number)
        if held is not None:
            held.waiting = dict.fromkeys(held.waiting, now)

    def _change_waiting(
        self, connection: apsw.Connection, number: int, change: Callable[[RecipientState], RecipientState]
    ) -> None:
        found = schema.query(
            connection, "SELECT value FROM recipient WHERE message = ? AND status = 'waiting'", (number,)
        )
        for (value,) in found:
            try:
                changed = change(rows.recipient_from(value))
            except msgspec.DecodeError:
                continue  # damaged: the claim or the listing says so
            connection.execute(schema.PUT_RECIPIENT, rows.recipient_row(number, changed))

    def _is_remarkable(self, connection: apsw.Connection, number: int) -> bool:
        try:
            found = schema.query(connection, "SELECT value FROM record WHERE message = ?", (number,))
            if not found:
                return True
            ledger = rows.record_from(found[0][0]).ledger + reading.read_entries(connection, number)[0]
        except msgspec.DecodeError:
            return True
        return rows.is_remarkable(ledger)

    def _drop_content(self, connection: apsw.Connection, effects: Effects, number: int) -> None:
        found = schema.query(connection, "SELECT file FROM content WHERE message = ?", (number,))
        if found:
            connection.execute(schema.DROP_CONTENT, (number,))
            if found[0][0]:
                effects.removals.append(self._bodies.path(id_from_number(number)))
