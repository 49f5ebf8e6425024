"""A spool of made-up messages in memory: just enough of custody for operations to act on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import NoReturn, TypeVar

import msgspec

from lonedot.message.content import Content
from lonedot.spool.hold_rules import HoldRule, HoldRules
from lonedot.spool.interface import (
    Acceptance,
    BodyWriter,
    Claim,
    ContentDamaged,
    Facts,
    Filter,
    Listed,
    MessageState,
    NoSuchMessage,
    RecipientStatus,
    Settlement,
    Stored,
)
from lonedot.terms.envelope import Envelope
from lonedot.terms.ids import MessageId

T = TypeVar("T")


class FixedClock:
    def __init__(self, now: float) -> None:
        self.at = now

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at


class Hooks:
    """Writes down what the relay was told."""

    def __init__(self) -> None:
        self.kicked: list[str] = []
        self.forgotten: list[str] = []

    def kick(self, ids: Sequence[MessageId]) -> None:
        self.kicked += ids

    def forget(self, ids: Sequence[MessageId]) -> None:
        self.forgotten += ids


class DoubleSpool:
    def __init__(self, *messages: tuple[Stored, Content | None]) -> None:
        self.messages = {stored.id: stored for stored, _ in messages}
        self.contents = {stored.id: content for stored, content in messages}
        self.is_closed = False

    def show(self, id: MessageId) -> Stored:
        if id not in self.messages:
            raise NoSuchMessage(id)
        return self.messages[id]

    def content(self, id: MessageId) -> Content:
        found = self.contents[id]
        if found is None:
            raise ContentDamaged(f"the body of {id} has another digest")
        return found

    def listing(self, wanted: Filter) -> Sequence[Listed]:
        rows = []
        for stored in self.messages.values():
            sender = stored.envelope.reverse_path.text
            addresses = [state.recipient.address.text for state in stored.recipients]
            fits = (
                stored.state in wanted.states
                and (not wanted.ids or stored.id in wanted.ids)
                and (not wanted.sender or sender == wanted.sender)
                and (not wanted.recipient or any(address.endswith(wanted.recipient) for address in addresses))
            )
            if fits:
                rows.append(_listed(stored))
        return rows[: wanted.limit]

    async def search(self, wanted: Filter) -> Sequence[Listed]:
        return self.listing(wanted)

    async def select(self, wanted: Filter) -> Sequence[MessageId]:
        return [MessageId(row.id) for row in reversed(self.listing(wanted))]

    def counts(self) -> dict[MessageState, int]:
        states = [stored.state for stored in self.messages.values()]
        return {state: states.count(state) for state in set(states)}

    def next_due(self) -> float | None:
        return None

    def hold(self, ids: Sequence[MessageId], reason: str) -> Awaitable[Sequence[bool]]:
        return self._change(ids, (MessageState.QUEUED,), MessageState.HELD, reason)

    def release(self, ids: Sequence[MessageId], now: float) -> Awaitable[Sequence[bool]]:
        return self._change(ids, (MessageState.HELD,), MessageState.QUEUED, "")

    def retry(self, ids: Sequence[MessageId], now: float) -> Awaitable[Sequence[bool]]:
        return self._change(ids, (MessageState.QUEUED,), MessageState.QUEUED, "")

    def delete(self, ids: Sequence[MessageId], now: float) -> Awaitable[Sequence[bool]]:
        live = (MessageState.QUEUED, MessageState.HELD, MessageState.DAMAGED)
        return self._change(ids, live, MessageState.FINISHED, "")

    def _change(
        self, ids: Sequence[MessageId], from_states: Sequence[MessageState], to: MessageState, reason: str
    ) -> Awaitable[Sequence[bool]]:
        done = []
        for id in ids:
            stored = self.messages.get(id)
            done.append(stored is not None and stored.state in from_states)
            if stored is not None and done[-1]:
                self.messages[id] = msgspec.structs.replace(stored, state=to, reason=reason)
        return _now(done)

    def close(self) -> Awaitable[None]:
        self.is_closed = True
        return _now(None)

    # What operations never ask of a spool.

    def has_room(self, octets: int) -> NoReturn:
        raise NotImplementedError

    def body_writer(self, id: MessageId) -> BodyWriter:
        raise NotImplementedError

    def accept(self, batch: Sequence[Acceptance]) -> asyncio.Future[None]:
        raise NotImplementedError

    def claim(
        self, owner: str, now: float, lease_seconds: float, limit: int, lane: str = ""
    ) -> Awaitable[Sequence[Claim]]:
        raise NotImplementedError

    def take(
        self, owner: str, ids: Sequence[MessageId], now: float, lease_seconds: float
    ) -> Awaitable[Sequence[Claim | None]]:
        raise NotImplementedError

    def lanes(self) -> Sequence[str]:
        raise NotImplementedError

    def count_lane(self, lane: str) -> int:
        raise NotImplementedError

    def renew(self, owner: str, lease_until: float) -> Awaitable[None]:
        raise NotImplementedError

    def settle(self, batch: Sequence[Settlement]) -> asyncio.Future[Sequence[bool]]:
        raise NotImplementedError

    def owns(self, id: MessageId, epoch: int) -> bool:
        raise NotImplementedError

    def in_flight(self, id: MessageId) -> None:
        raise NotImplementedError

    def landed(self, id: MessageId) -> None:
        raise NotImplementedError

    def has_key(self, key: bytes) -> bool:
        raise NotImplementedError

    def purge(self, before: float, limit: int) -> Awaitable[int]:
        raise NotImplementedError

    def rules(self) -> HoldRules:
        raise NotImplementedError

    def held_by(self, envelope: Envelope, facts: Facts, size: int) -> str:
        raise NotImplementedError

    def write_rules(self, rules: HoldRules) -> None:
        raise NotImplementedError

    def take_rules(self) -> Awaitable[Sequence[HoldRule]]:
        raise NotImplementedError

    def rules_applied(self, number: int) -> Awaitable[None]:
        raise NotImplementedError


def _now(value: T) -> Awaitable[T]:
    future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    future.set_result(value)
    return future


def _listed(stored: Stored) -> Listed:
    waiting = [state.next_at for state in stored.recipients if state.status is RecipientStatus.WAITING]
    return Listed(
        stored.id,
        stored.state,
        stored.reason,
        stored.accepted_at,
        stored.finished_at,
        stored.size,
        stored.envelope.reverse_path.text,
        tuple(
            (
                state.recipient.address.text,
                state.status.value,
                state.last.reply.text if state.last is not None and state.last.reply is not None else "",
            )
            for state in stored.recipients
        ),
        min(waiting, default=0.0) if stored.state is MessageState.QUEUED else 0.0,
        len(stored.attempts),
    )
