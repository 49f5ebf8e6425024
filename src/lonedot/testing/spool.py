"""Custody in memory, with the contract of `spool.interface` and none of its durability: for tests of other rooms."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from lonedot.message.content import Content, FileBody, MemoryBody
from lonedot.message.ledger import Entry
from lonedot.spool.actions import reasons
from lonedot.spool.hold_rules import HoldRule, HoldRules
from lonedot.spool.interface import (
    Acceptance,
    Attempt,
    BodyWriter,
    Claim,
    Facts,
    Filter,
    KeyUsed,
    Listed,
    MessageState,
    NoSuchMessage,
    RecipientState,
    RecipientStatus,
    Settlement,
    SpoolFault,
    Stored,
)
from lonedot.spool.rows import current_envelope, is_remarkable, joined_ledger, new_sender
from lonedot.terms.envelope import Envelope
from lonedot.terms.ids import MessageId

__all__ = ["MemorySpool"]

Result = TypeVar("Result")


class _Kept:
    """One message."""

    def __init__(self, given: Acceptance, arrival: Content) -> None:
        self.given = given
        self.arrival: Content | None = arrival
        self.state = given.state
        self.reason = given.reason
        self.finished_at = 0.0
        self.recipients = {recipient.index: recipient for recipient in given.recipients}
        self.entries: tuple[Entry, ...] = ()
        self.attempts: tuple[Attempt, ...] = ()
        self.owner = ""
        self.epoch = 0
        self.lease_until = 0.0
        self.deleted = False
        self.transport = given.transport
        self.lane = ""
        self.lane_due = 0.0

    @property
    def ledger(self) -> tuple[Entry, ...]:
        return joined_ledger(self.given.ledger + self.entries, self.everybody)

    @property
    def sender(self) -> str:
        return (new_sender(self.entries) or self.given.envelope.reverse_path).text

    @property
    def everybody(self) -> tuple[RecipientState, ...]:
        return tuple(self.recipients[index] for index in sorted(self.recipients))

    @property
    def waiting(self) -> list[RecipientState]:
        return [r for r in self.recipients.values() if r.status is RecipientStatus.WAITING]

    @property
    def due(self) -> float | None:
        earliest = min((r.next_at for r in self.waiting), default=None)
        return self.lane_due if self.lane and earliest is not None else earliest

    def finish(self, at: float) -> None:
        self.state = MessageState.FINISHED
        self.finished_at = at

    def stored(self, *, attempts: bool = False) -> Stored:
        return Stored(
            id=self.given.id,
            state=self.state,
            reason=self.reason,
            accepted_at=self.given.accepted_at,
            finished_at=self.finished_at,
            envelope=current_envelope(self.given.envelope, self.entries, self.everybody),
            facts=self.given.facts,
            ledger=self.ledger,
            recipients=self.everybody,
            size=self.given.size,
            attempts=self.attempts if attempts else (),
            has_content=self.arrival is not None,
            transport=self.transport,
        )


class _MemoryWriter:
    def __init__(self, bodies: dict[Path, bytes], path: Path) -> None:
        self._bodies = bodies
        self._path = path
        self._octets = bytearray()

    def write(self, octets: bytes) -> None:
        self._octets += octets

    def finish(self) -> FileBody:
        self._bodies[self._path] = bytes(self._octets)
        return FileBody(self._path, len(self._octets))

    def discard(self) -> None:
        self._bodies.pop(self._path, None)


class MemorySpool:
    """See `interface.Spool`. `fault`, when set, fails every accept and settle; `room` is what `has_room` tells."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}
        self._bodies: dict[Path, bytes] = {}
        self._keys: dict[bytes, str] = {}
        self.flying: set[MessageId] = set()
        self._rules = HoldRules()
        self._next_rules = HoldRules()
        self._applied = 0
        self.fault: SpoolFault | None = None
        self.room = True
        self._now = 0.0

    def has_room(self, octets: int) -> bool:
        return self.room

    def body_writer(self, id: MessageId) -> BodyWriter:
        return _MemoryWriter(self._bodies, Path("/memory") / f"{id}.body")

    def accept(self, batch: Sequence[Acceptance]) -> asyncio.Future[None]:
        if self.fault is not None:
            return _failed(self.fault)
        keys = [given.key for given in batch if given.key]
        if len(set(keys)) < len(keys) or any(key in self._keys for key in keys):
            return _failed(KeyUsed())
        for given in batch:
            self._add(given)
        return _done(None)

    def _add(self, given: Acceptance) -> None:
        if given.state is MessageState.QUEUED and not given.owner:
            words = self.held_by(given.envelope, given.facts, given.size)
            if words:
                given = msgspec.structs.replace(given, state=MessageState.HELD, reason=words)
        arrival = given.arrival
        if isinstance(arrival.body, FileBody):
            octets = self._bodies.pop(arrival.body.path)
            arrival = msgspec.structs.replace(arrival, body=MemoryBody(octets))
        kept = _Kept(given, arrival)
        if kept.state is MessageState.FINISHED and kept.waiting:
            kept.state = MessageState.QUEUED
        if kept.state is MessageState.QUEUED and not kept.waiting:
            kept.state = MessageState.FINISHED
        if kept.state is MessageState.FINISHED:
            kept.finish(given.accepted_at)
            self._drop_content(kept)
        elif kept.state is MessageState.QUEUED and given.owner:
            kept.owner, kept.epoch, kept.lease_until = given.owner, 1, given.lease_until
        self._kept[given.id] = kept
        if given.key:
            self._keys[given.key] = given.id

    def _drop_content(self, kept: _Kept) -> None:
        if not is_remarkable(kept.ledger):
            kept.arrival = None

    def claim(
        self, owner: str, now: float, lease_seconds: float, limit: int, lane: str = ""
    ) -> Awaitable[Sequence[Claim]]:
        self._now = now
        free = [
            (due, kept)
            for kept in self._kept.values()
            if kept.state is MessageState.QUEUED
            and (not kept.owner or kept.lease_until <= now)
            and (due := kept.due) is not None
            and (kept.lane == lane if lane else due <= now)
        ]
        free.sort(key=lambda pair: pair[1].given.id if lane else pair[0])
        claims = []
        for _, kept in free[:limit]:
            kept.owner, kept.epoch, kept.lease_until = owner, kept.epoch + 1, now + lease_seconds
            claims.append(Claim(kept.stored(), kept.epoch))
        return _done(claims)

    def lanes(self) -> Sequence[str]:
        return sorted({kept.lane for kept in self._kept.values() if kept.lane and self._is_free(kept)})

    def count_lane(self, lane: str) -> int:
        return sum(kept.lane == lane and self._is_free(kept) for kept in self._kept.values())

    @staticmethod
    def _is_free(kept: _Kept) -> bool:
        return kept.state is MessageState.QUEUED and not kept.owner

    def take(
        self, owner: str, ids: Sequence[MessageId], now: float, lease_seconds: float
    ) -> Awaitable[Sequence[Claim | None]]:
        taken: list[Claim | None] = []
        for id in ids:
            kept = self._kept.get(id)
            if kept is None or kept.state not in {MessageState.QUEUED, MessageState.HELD}:
                taken.append(None)
                continue
            kept.owner, kept.epoch, kept.lease_until = owner, kept.epoch + 1, now + lease_seconds
            taken.append(Claim(kept.stored(), kept.epoch))
        return _done(taken)

    def renew(self, owner: str, lease_until: float) -> Awaitable[None]:
        for kept in self._kept.values():
            if kept.owner == owner:
                kept.lease_until = lease_until
        return _done(None)

    def next_due(self) -> float | None:
        return min(
            (
                due
                for kept in self._kept.values()
                if kept.state is MessageState.QUEUED and not kept.owner and (due := kept.due) is not None
            ),
            default=None,
        )

    def settle(self, batch: Sequence[Settlement]) -> asyncio.Future[Sequence[bool]]:
        if self.fault is not None:
            return _failed(self.fault)
        return _done([self._settle(settlement) for settlement in batch])

    def _settle(self, settlement: Settlement) -> bool:
        kept = self._kept.get(settlement.id)
        if kept is None or not kept.owner or kept.epoch != settlement.epoch:
            return False
        for recipient in settlement.recipients:
            if not (kept.deleted and recipient.status is RecipientStatus.WAITING):
                kept.recipients[recipient.index] = recipient
        kept.attempts += settlement.attempts
        kept.entries += settlement.entries
        if not isinstance(settlement.transport, msgspec.UnsetType):
            kept.transport = settlement.transport
        state, reason = settlement.state, settlement.reason
        if state is MessageState.FINISHED and kept.waiting:
            state = MessageState.QUEUED
        if kept.deleted or (state is MessageState.QUEUED and not kept.waiting and settlement.release):
            state = MessageState.FINISHED
        elif state is MessageState.QUEUED and kept.state is MessageState.HELD:
            state, reason = MessageState.HELD, kept.reason
        kept.state, kept.reason = state, reason
        if state is MessageState.FINISHED:
            kept.finish(settlement.at)
            if settlement.release:
                self._drop_content(kept)
        kept.lane, kept.lane_due = settlement.lane, settlement.due
        if settlement.release:
            kept.owner = ""
        for spawned in settlement.spawned:
            self._add(spawned)
        return True

    def owns(self, id: MessageId, epoch: int) -> bool:
        kept = self._kept.get(id)
        return (
            kept is not None
            and bool(kept.owner)
            and kept.epoch == epoch
            and kept.state is MessageState.QUEUED
        )

    def in_flight(self, id: MessageId) -> None:
        self.flying.add(id)

    def landed(self, id: MessageId) -> None:
        self.flying.discard(id)
        kept = self._kept.get(id)
        if kept is not None and kept.state is not MessageState.QUEUED:
            kept.owner = ""

    def content(self, id: MessageId) -> Content:
        kept = self._kept.get(id)
        if kept is None or kept.arrival is None:
            raise NoSuchMessage(id)
        return kept.arrival

    def show(self, id: MessageId) -> Stored:
        kept = self._kept.get(id)
        if kept is None:
            raise NoSuchMessage(id)
        return kept.stored(attempts=True)

    def listing(self, wanted: Filter) -> Sequence[Listed]:
        found = [
            _listed(kept)
            for id, kept in sorted(self._kept.items())
            if (not wanted.states or kept.state in wanted.states)
            and (not wanted.ids or id in wanted.ids)
            and (not wanted.sender or kept.sender.lower() == wanted.sender.lower())
            and (not wanted.recipient or _has_recipient(kept, wanted.recipient.lower()))
        ]
        return found[-wanted.limit :] if wanted.limit else []

    async def search(self, wanted: Filter) -> Sequence[Listed]:
        return self.listing(wanted)

    async def select(self, wanted: Filter) -> Sequence[MessageId]:
        return [MessageId(row.id) for row in reversed(self.listing(wanted))]

    def counts(self) -> dict[MessageState, int]:
        counts = dict.fromkeys(MessageState, 0)
        for kept in self._kept.values():
            counts[kept.state] += 1
        return counts

    def has_key(self, key: bytes) -> bool:
        return key in self._keys

    def hold(self, ids: Sequence[MessageId], reason: str) -> Awaitable[Sequence[bool]]:
        return _done([self._hold(id, reason) for id in ids])

    def _hold(self, id: MessageId, reason: str) -> bool:
        kept = self._kept.get(id)
        if kept is None or kept.state not in {MessageState.QUEUED, MessageState.HELD}:
            return False
        self._interrupt(kept)
        words = reasons(kept.reason, reason) if kept.state is MessageState.HELD else reason
        kept.state, kept.reason = MessageState.HELD, words
        return True

    def _interrupt(self, kept: _Kept) -> None:
        if kept.given.id not in self.flying:
            kept.owner = ""

    def release(self, ids: Sequence[MessageId], now: float) -> Awaitable[Sequence[bool]]:
        return _done([self._make_due(id, now, {MessageState.HELD, MessageState.DAMAGED}) for id in ids])

    def retry(self, ids: Sequence[MessageId], now: float) -> Awaitable[Sequence[bool]]:
        return _done([self._make_due(id, now, {MessageState.QUEUED}) for id in ids])

    def _make_due(self, id: MessageId, now: float, states: set[MessageState]) -> bool:
        kept = self._kept.get(id)
        if kept is None or kept.state not in states:
            return False
        kept.state, kept.reason = MessageState.QUEUED, ""
        for recipient in kept.waiting:
            kept.recipients[recipient.index] = msgspec.structs.replace(recipient, next_at=now)
        kept.lane = ""
        return True

    def delete(self, ids: Sequence[MessageId], now: float) -> Awaitable[Sequence[bool]]:
        return _done([self._delete(id, now) for id in ids])

    def _delete(self, id: MessageId, now: float) -> bool:
        kept = self._kept.get(id)
        if kept is None or kept.state is MessageState.FINISHED:
            return False
        self._interrupt(kept)
        kept.deleted = True
        for recipient in kept.waiting:
            kept.recipients[recipient.index] = msgspec.structs.replace(
                recipient, status=RecipientStatus.DELETED, next_at=0.0
            )
        kept.finish(now)
        self._drop_content(kept)
        return True

    def rules(self) -> HoldRules:
        return self._rules

    def held_by(self, envelope: Envelope, facts: Facts, size: int) -> str:
        addresses = [recipient.address.text for recipient in envelope.recipients]
        return self._rules.words_for(envelope.reverse_path.text, addresses, facts.client, size)

    def write_rules(self, rules: HoldRules) -> None:
        self._next_rules = rules

    def take_rules(self) -> Awaitable[Sequence[HoldRule]]:
        self._rules = self._next_rules
        return _done([rule for rule in self._rules.rules if rule.number > self._applied])

    def rules_applied(self, number: int) -> Awaitable[None]:
        self._applied = max(self._applied, number)
        return _done(None)

    def purge(self, before: float, limit: int) -> Awaitable[int]:
        old = [
            id
            for id, kept in sorted(self._kept.items())
            if kept.state is MessageState.FINISHED and kept.finished_at < before and not kept.owner
        ][:limit]
        for id in old:
            del self._kept[id]
            self._keys = {key: owner for key, owner in self._keys.items() if owner != id}
        return _done(len(old))

    async def close(self) -> None:
        for kept in self._kept.values():
            kept.owner = ""


def _listed(kept: _Kept) -> Listed:
    recipients = tuple(
        (
            recipient.recipient.address.text,
            recipient.status.value,
            "" if recipient.last is None else _words(recipient),
        )
        for recipient in kept.recipients.values()
    )
    return Listed(
        id=kept.given.id,
        state=kept.state,
        reason=kept.reason,
        accepted_at=kept.given.accepted_at,
        finished_at=kept.finished_at,
        size=kept.given.size,
        sender=kept.sender,
        recipients=recipients,
        next_at=(kept.due or 0.0) if kept.state is MessageState.QUEUED else 0.0,
        attempts=max((recipient.attempts for recipient in kept.recipients.values()), default=0),
        waits_for="" if kept.transport is None else kept.transport.waits_for,
        put_off="" if kept.transport is None else kept.transport.words,
    )


def _words(recipient: RecipientState) -> str:
    last = recipient.last
    if last is None:
        return ""
    if last.reply is not None and recipient.status is not RecipientStatus.EXPIRED:
        return last.reply.text
    return last.reason


def _has_recipient(kept: _Kept, wanted: str) -> bool:
    addresses = [recipient.recipient.address.text.lower() for recipient in kept.recipients.values()]
    if wanted.startswith("@"):
        return any(address.endswith(wanted) for address in addresses)
    return wanted in addresses


def _done(result: Result) -> asyncio.Future[Result]:
    future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
    future.set_result(result)
    return future


def _failed(error: Exception) -> asyncio.Future[Result]:
    future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
    future.set_exception(error)
    return future
