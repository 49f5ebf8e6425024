"""What waits to be written: acceptances, settlements and actions, as rows ready to go in.

Everything is encoded when it is handed in, on the caller's account: what cannot be encoded raises there, and a
transaction holds nothing that could spoil it for the others. Claims are changed when the rows are put in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import apsw
from msgspec import UNSET, UnsetType

from lonedot.message.content import FileBody
from lonedot.spool import rows, schema
from lonedot.spool.actions import Effects, KeepContent
from lonedot.spool.bodies import Bodies
from lonedot.spool.claims import Claims, Held, waiting_of
from lonedot.spool.interface import Acceptance, MessageState, RecipientStatus, Settlement
from lonedot.spool.subject import fingerprint_of
from lonedot.terms.ids import number_from_id

__all__ = ["Accepting", "Acting", "NewMessage", "Preparer", "Settling", "Transaction", "Work"]

Result = TypeVar("Result")

ROW_SIZE = 1024
"""What a message takes on the disk besides its content, about."""

_TRANSPORT = 10
"""Its place in the row of a message."""
_QUEUED = MessageState.QUEUED
_HELD = MessageState.HELD
_FINISHED = MessageState.FINISHED
_WAITING = RecipientStatus.WAITING


class Transaction:
    """Rows of one transaction, by table, in the order in which they must go in."""

    __slots__ = (
        "_attempts",
        "_bodies",
        "_connection",
        "_contents",
        "_drops",
        "_entries",
        "_keys",
        "_messages",
        "_recipients",
        "_records",
        "_senders",
        "_settled",
        "claims",
        "effects",
    )

    def __init__(self, connection: apsw.Connection, claims: Claims, bodies: Bodies) -> None:
        self._connection = connection
        self._bodies = bodies
        self.claims = claims
        self.effects = Effects()
        self._messages: list[rows.Row] = []
        self._records: list[rows.Row] = []
        self._contents: list[rows.Row] = []
        self._recipients: list[rows.Row] = []
        self._keys: list[rows.Row] = []
        self._entries: list[rows.Row] = []
        self._attempts: list[rows.Row] = []
        self._settled: list[rows.Row] = []
        self._senders: list[rows.Row] = []
        self._drops: list[rows.Row] = []

    def add(self, new: NewMessage) -> None:
        number = new.number
        self._messages.append(new.message)
        self._records.append((number, new.record))
        self._recipients += new.recipients
        if new.content is not None:
            self._contents.append(new.content)
        if new.key:
            self._keys.append((new.key, number))
        if new.held is not None:
            self.claims.put(new.held)
        self.effects.touched[number] = None
        if new.finished:
            self.effects.finished += 1
        if new.removal is not None:
            self.effects.removals.append(new.removal)

    def settle(self, outcome: PreparedSettlement) -> bool:
        """False: the claim is not held under that epoch; nothing was added."""
        settlement = outcome.settlement
        number = outcome.number
        held = self.claims.get(number)
        if held is None or held.epoch != settlement.epoch:
            return False
        effects = self.effects
        effects.touched.setdefault(number, held)
        waiting = held.waiting
        for recipient, row in zip(settlement.recipients, outcome.recipients, strict=True):
            if recipient.status is _WAITING:
                if held.deleted:
                    continue
                waiting[recipient.index] = recipient.next_at
            else:
                waiting.pop(recipient.index, None)
            self._recipients.append(row)
        for attempt in outcome.attempts:
            self._attempts.append((number, held.attempts, attempt))
            held.attempts += 1
        if outcome.entries is not None:
            self._entries.append((number, held.entries, outcome.entries))
            held.entries += 1
        if outcome.sender is not None:
            self._senders.append((outcome.sender, number))
        if not isinstance(outcome.transport, UnsetType):
            held.transport = outcome.transport
        held.keep = held.keep or outcome.keep
        was = held.state
        state, reason = _settled_state(settlement, held)
        held.state, held.reason = state, reason
        finished_at = 0.0
        if state is _FINISHED:
            finished_at = settlement.at
            if was is not _FINISHED:
                effects.finished += 1
            if settlement.release and not held.keep:
                self._drops.append((number,))
                if held.file:
                    effects.removals.append(self._bodies.path(settlement.id))
        owner: str | None = held.owner
        if settlement.release:
            self.claims.drop(number)
            owner = None
        due = min(waiting.values()) if waiting else None
        lane = settlement.lane or None
        if lane is not None and due is not None:
            due = settlement.due
        self._settled.append((state._value_, due, owner, finished_at, reason, held.transport, lane, number))
        for new in outcome.spawned:
            self.add(new)
        return True

    def act(self, action: Callable[[apsw.Connection, Effects], Result]) -> Result:
        """Run an action behind what was handed in before it."""
        self.flush()
        return action(self._connection, self.effects)

    def flush(self) -> None:
        """Put in what was collected."""
        for statement, collected in (
            (schema.PUT_MESSAGE, self._messages),
            (schema.PUT_RECORD, self._records),
            (schema.PUT_CONTENT, self._contents),
            (schema.PUT_KEY, self._keys),
            (schema.PUT_RECIPIENT, self._recipients),
            (schema.PUT_ENTRY, self._entries),
            (schema.PUT_ATTEMPT, self._attempts),
            (schema.SETTLE, self._settled),
            (schema.SENDER, self._senders),
            (schema.DROP_CONTENT, self._drops),
        ):
            if collected:
                self._connection.executemany(statement, collected)
                collected.clear()


def _settled_state(settlement: Settlement, held: Held) -> tuple[MessageState, str]:
    """The state after a settlement: no recipient is ended by omission, and what was held stays held."""
    if held.deleted:
        return _FINISHED, settlement.reason
    state = settlement.state
    if state is _FINISHED and held.waiting:
        state = _QUEUED
    if state is _QUEUED:
        if not held.waiting and settlement.release:
            return _FINISHED, settlement.reason
        if held.state is _HELD:
            return _HELD, held.reason
    return state, settlement.reason


class NewMessage:
    """An acceptance as rows."""

    __slots__ = (
        "content",
        "finished",
        "held",
        "key",
        "message",
        "number",
        "recipients",
        "record",
        "removal",
        "size",
    )

    number: int
    message: rows.Row
    record: bytes
    recipients: list[rows.Row]
    content: rows.Row | None
    key: bytes
    held: Held | None
    finished: bool
    removal: Path | None
    """Body file that is not kept."""
    size: int


class PreparedSettlement:
    """A settlement with its rows."""

    __slots__ = (
        "attempts",
        "entries",
        "keep",
        "number",
        "recipients",
        "sender",
        "settlement",
        "spawned",
        "transport",
    )

    settlement: Settlement
    number: int
    recipients: list[rows.Row]
    attempts: list[bytes]
    entries: bytes | None
    keep: bool
    sender: str | None
    """Another than before."""
    spawned: list[NewMessage]
    transport: bytes | UnsetType | None


class Preparer:
    """Encodes what is handed in."""

    def __init__(self, bodies: Bodies, keep_content: KeepContent) -> None:
        self._bodies = bodies
        self._keep_content = keep_content
        self.salt = b""
        """Key of the fingerprints of subjects; read when the shard is open."""

    def message(self, given: Acceptance) -> NewMessage:
        """Raises ValueError when a body file is not where `Spool.body_writer` puts it."""
        new = NewMessage()
        number = number_from_id(given.id)
        waiting = waiting_of(given.recipients)
        state = given.state
        if state is _QUEUED and not waiting:
            state = _FINISHED
        elif state is _FINISHED and waiting:
            state = _QUEUED
        arrival = given.arrival
        body = arrival.body
        file = isinstance(body, FileBody)
        if isinstance(body, FileBody) and body.path != self._bodies.path(given.id):
            raise ValueError(f"the body of {given.id} is not a file of this spool: {body.path}")
        keep = self._keep_content(rows.is_remarkable(given.ledger))
        owner = given.owner if state is _QUEUED and given.owner else None
        new.number = number
        new.finished = state is _FINISHED
        new.message = (
            number,
            state._value_,
            min(waiting.values()) if waiting else None,
            owner,
            1 if owner else 0,
            given.accepted_at,
            given.accepted_at if new.finished else 0.0,
            given.size,
            given.envelope.reverse_path.text,
            given.reason,
            None if given.transport is None else rows.encode(given.transport),
            given.facts.client,
            fingerprint_of(arrival.head, self.salt),
        )
        new.record = rows.encode(rows.Record(given.envelope, given.facts, given.ledger))
        new.recipients = [rows.recipient_row(number, recipient) for recipient in given.recipients]
        new.content = None
        new.removal = None
        if keep or not new.finished:
            octets = b"" if file else body.octets()
            measures = rows.encode(rows.Measures(arrival.head_measure, arrival.body_measure))
            new.content = (number, int(file), body.size, measures, arrival.head, octets)
            new.size = ROW_SIZE + len(arrival.head) + len(octets)
        else:
            new.size = ROW_SIZE
            if isinstance(body, FileBody):
                new.removal = body.path
        new.key = given.key
        new.held = None
        if owner is not None:
            transport = new.message[_TRANSPORT]
            new.held = Held(
                number,
                owner,
                1,
                given.lease_until,
                waiting,
                file=file,
                keep=keep,
                transport=transport if isinstance(transport, bytes) else None,
            )
        return new

    def settlement(self, given: Settlement, spawned: Sequence[Acceptance]) -> PreparedSettlement:
        """`spawned` instead of those in the settlement."""
        made = PreparedSettlement()
        number = number_from_id(given.id)
        made.settlement = given
        made.number = number
        made.recipients = [rows.recipient_row(number, recipient) for recipient in given.recipients]
        made.attempts = [rows.encode(attempt) for attempt in given.attempts]
        made.entries = rows.encode(given.entries) if given.entries else None
        remarkable = bool(given.entries) and rows.is_remarkable(given.entries)
        for attempt in given.attempts:
            if attempt.suffix:
                remarkable = remarkable or rows.is_remarkable(attempt.suffix)
        made.keep = self._keep_content(remarkable)
        sender = rows.new_sender(given.entries) if given.entries else None
        made.sender = None if sender is None else sender.text
        progress = given.transport
        if progress is None or isinstance(progress, UnsetType):
            made.transport = None if progress is None else UNSET
        else:
            made.transport = rows.encode(progress)
        made.spawned = [self.message(acceptance) for acceptance in spawned]
        return made


class Work(Protocol):
    """One call of the spool, waiting for its transaction."""

    @property
    def future(self) -> asyncio.Future[Any]: ...

    @property
    def size(self) -> int:
        """Octets it puts into the log, about."""
        ...

    @property
    def is_patient(self) -> bool:
        """Nobody waits for its answer: it may wait a little for company."""
        ...

    @property
    def accepted(self) -> Sequence[NewMessage]:
        """Messages that are there only when this is done."""
        ...

    def build(self, transaction: Transaction) -> None: ...

    def succeed(self) -> None: ...

    def fail(self, error: Exception) -> None: ...


class _Promise:
    """The future of a call. It may have been cancelled by whoever waited."""

    __slots__ = ("future",)

    is_patient = False

    def __init__(self, future: asyncio.Future[Any]) -> None:
        self.future = future

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class Accepting(_Promise):
    """A batch of new messages."""

    __slots__ = ("accepted", "size")

    def __init__(self, future: asyncio.Future[None], messages: Sequence[NewMessage]) -> None:
        super().__init__(future)
        self.accepted = messages
        self.size = sum([new.size for new in messages])

    def build(self, transaction: Transaction) -> None:
        for new in self.accepted:
            transaction.add(new)

    def succeed(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


class Settling(_Promise):
    """A batch of settlements."""

    __slots__ = ("_applied", "_settlements", "size")

    accepted: Sequence[NewMessage] = ()
    is_patient = True

    def __init__(
        self, future: asyncio.Future[Sequence[bool]], settlements: Sequence[PreparedSettlement]
    ) -> None:
        super().__init__(future)
        self._settlements = settlements
        self._applied: list[bool] = []
        self.size = ROW_SIZE * len(settlements)
        for outcome in settlements:
            for new in outcome.spawned:
                self.size += new.size

    def build(self, transaction: Transaction) -> None:
        self._applied = [transaction.settle(outcome) for outcome in self._settlements]

    def succeed(self) -> None:
        if not self.future.done():
            self.future.set_result(self._applied)


class Acting(_Promise):
    """An action (see `actions`)."""

    __slots__ = ("_action", "_result", "size")

    accepted: Sequence[NewMessage] = ()

    def __init__(
        self, future: asyncio.Future[Any], action: Callable[[apsw.Connection, Effects], object]
    ) -> None:
        super().__init__(future)
        self._action = action
        self._result: object = None
        self.size = ROW_SIZE

    def build(self, transaction: Transaction) -> None:
        self._result = transaction.act(self._action)

    def succeed(self) -> None:
        if not self.future.done():
            self.future.set_result(self._result)
