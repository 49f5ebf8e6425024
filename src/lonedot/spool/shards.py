"""Several shards as one spool: what a command at a spool whose relay is down works on, and a worker that adopted some.

Rules:
1. An id names the shard that it was made for; a message may lie in another one (restored, imported), so the others are
   asked when that one does not have it.
2. What is accepted goes into the first shard. A settlement and what it spawns stay in one shard.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import msgspec

from lonedot.message.content import Content, FileBody
from lonedot.spool.bodies import fault_from
from lonedot.spool.hold_rules import HoldRule, HoldRules
from lonedot.spool.interface import (
    Acceptance,
    BodyWriter,
    Claim,
    Facts,
    Filter,
    Listed,
    MessageState,
    Settlement,
    Sort,
    SpoolFault,
    Stored,
)
from lonedot.spool.merging import merge_counts, merge_rows, newest_ids
from lonedot.spool.sqlite import SqliteSpool
from lonedot.terms.envelope import Envelope
from lonedot.terms.ids import MessageId, id_shard

__all__ = ["Shards"]

R = TypeVar("R")
V = TypeVar("V")


class Shards:
    """See `interface.Spool`.

    Args:
        shards: at least one; the first is the own one, the others are only emptied.
        released: called when all are closed.
    """

    def __init__(self, shards: Sequence[SqliteSpool], released: Callable[[], None] = lambda: None) -> None:
        self._shards = tuple(shards)
        self._by_number = {one.shard: one for one in shards}
        self._released = released
        self._turn = 0
        """Which is asked first for messages that are due: none waits for ever behind another that is never empty."""

    def of(self, id: str) -> SqliteSpool:
        """The shard that has this message; where nobody has it, the first. Raises SpoolFault."""
        own = self._shards[0]
        if len(self._shards) == 1:
            return own
        try:
            likely = self._by_number.get(id_shard(id), own)
        except ValueError:
            return own
        if likely.contains(id):
            return likely
        return next((one for one in self._shards if one is not likely and one.contains(id)), own)

    # -- taking ----------------------------------------------------------------------------------------

    def has_room(self, octets: int) -> bool:
        return all(one.has_room(octets) for one in self._shards)

    def body_writer(self, id: MessageId) -> BodyWriter:
        return self._shards[0].body_writer(id)

    def accept(self, batch: Sequence[Acceptance]) -> asyncio.Future[None]:
        return self._shards[0].accept(batch)

    def settle(self, batch: Sequence[Settlement]) -> asyncio.Future[Sequence[bool]]:
        return asyncio.ensure_future(self._each(batch, [one.id for one in batch], self._settle))

    async def _settle(self, shard: SqliteSpool, batch: Sequence[Settlement]) -> Sequence[bool]:
        if shard is not self._shards[0]:
            batch = [
                msgspec.structs.replace(
                    one, spawned=tuple([_with_body_in(shard, spawned) for spawned in one.spawned])
                )
                if one.spawned
                else one
                for one in batch
            ]
        return await shard.settle(batch)

    # -- claims ----------------------------------------------------------------------------------------

    async def claim(
        self, owner: str, now: float, lease_seconds: float, limit: int, lane: str = ""
    ) -> Sequence[Claim]:
        claims: list[Claim] = []
        self._turn = (self._turn + 1) % len(self._shards)
        for one in (*self._shards[self._turn :], *self._shards[: self._turn]):
            if len(claims) < limit:
                claims += await one.claim(owner, now, lease_seconds, limit - len(claims), lane)
        return claims

    def lanes(self) -> Sequence[str]:
        return sorted({lane for one in self._shards for lane in one.lanes()})

    def count_lane(self, lane: str) -> int:
        return sum(one.count_lane(lane) for one in self._shards)

    async def take(
        self, owner: str, ids: Sequence[MessageId], now: float, lease_seconds: float
    ) -> Sequence[Claim | None]:
        return await self._each(ids, ids, lambda shard, some: shard.take(owner, some, now, lease_seconds))

    async def renew(self, owner: str, lease_until: float) -> None:
        for one in self._shards:
            await one.renew(owner, lease_until)

    def next_due(self) -> float | None:
        return min((due for one in self._shards if (due := one.next_due()) is not None), default=None)

    def owns(self, id: MessageId, epoch: int) -> bool:
        return any(one.owns(id, epoch) for one in self._shards)

    def in_flight(self, id: MessageId) -> None:
        self.of(id).in_flight(id)

    def landed(self, id: MessageId) -> None:
        self.of(id).landed(id)

    # -- reading ---------------------------------------------------------------------------------------

    def content(self, id: MessageId) -> Content:
        return self.of(id).content(id)

    def show(self, id: MessageId) -> Stored:
        return self.of(id).show(id)

    def listing(self, wanted: Filter) -> Sequence[Listed]:
        whole = _from_the_first(wanted)
        parts = [one.listing(whole) for one in self._shards]
        return merge_rows(parts, wanted.sort, wanted.skip, wanted.limit)

    async def search(self, wanted: Filter) -> Sequence[Listed]:
        whole = _from_the_first(wanted)
        parts = await asyncio.gather(*[one.search(whole) for one in self._shards])
        return merge_rows(parts, wanted.sort, wanted.skip, wanted.limit)

    async def select(self, wanted: Filter) -> Sequence[MessageId]:
        if wanted.sort is not Sort.AGE:
            return [MessageId(row.id) for row in await self.search(wanted)]
        parts = await asyncio.gather(*[one.select(_from_the_first(wanted)) for one in self._shards])
        return [MessageId(id) for id in newest_ids(parts, wanted.skip + wanted.limit)[wanted.skip :]]

    def counts(self) -> dict[MessageState, int]:
        return merge_counts(one.counts() for one in self._shards)

    def has_key(self, key: bytes) -> bool:
        return any(one.has_key(key) for one in self._shards)

    # -- by hand ---------------------------------------------------------------------------------------

    async def hold(self, ids: Sequence[MessageId], reason: str) -> Sequence[bool]:
        return await self._each(ids, ids, lambda shard, some: shard.hold(some, reason))

    async def release(self, ids: Sequence[MessageId], now: float) -> Sequence[bool]:
        return await self._each(ids, ids, lambda shard, some: shard.release(some, now))

    async def retry(self, ids: Sequence[MessageId], now: float) -> Sequence[bool]:
        return await self._each(ids, ids, lambda shard, some: shard.retry(some, now))

    async def delete(self, ids: Sequence[MessageId], now: float) -> Sequence[bool]:
        return await self._each(ids, ids, lambda shard, some: shard.delete(some, now))

    async def purge(self, before: float, limit: int) -> int:
        forgotten = 0
        for one in self._shards:
            forgotten += await one.purge(before, limit - forgotten) if forgotten < limit else 0
        return forgotten

    # -- standing rules --------------------------------------------------------------------------------

    def rules(self) -> HoldRules:
        return self._shards[0].rules()

    def held_by(self, envelope: Envelope, facts: Facts, size: int) -> str:
        return self._shards[0].held_by(envelope, facts, size)

    def write_rules(self, rules: HoldRules) -> None:
        self._shards[0].write_rules(rules)

    async def take_rules(self) -> Sequence[HoldRule]:
        """Those that some shard has not applied yet: holding twice changes nothing."""
        open_rules = await asyncio.gather(*[one.take_rules() for one in self._shards])
        return sorted({rule.number: rule for some in open_rules for rule in some}.values(), key=_number)

    async def rules_applied(self, number: int) -> None:
        for one in self._shards:
            await one.rules_applied(number)

    async def close(self) -> None:
        """Close all of them, also when one fails."""
        try:
            failed = [
                error
                for error in await asyncio.gather(
                    *[one.close() for one in self._shards], return_exceptions=True
                )
                if error is not None
            ]
        finally:
            self._released()
        if failed:
            raise failed[0]

    async def _each(
        self,
        given: Sequence[V],
        ids: Sequence[MessageId],
        act: Callable[[SqliteSpool, Sequence[V]], Awaitable[Sequence[R]]],
    ) -> list[R]:
        """Do it in each shard with what it has; what came of each stands in the order given."""
        places: dict[SqliteSpool, list[int]] = {}
        for place, id in enumerate(ids):
            places.setdefault(self.of(id), []).append(place)
        came = await asyncio.gather(
            *[act(shard, [given[place] for place in mine]) for shard, mine in places.items()]
        )
        found = {
            place: one
            for mine, results in zip(places.values(), came, strict=True)
            for place, one in zip(mine, results, strict=True)
        }
        return [found[place] for place in range(len(ids))]


def _number(rule: HoldRule) -> int:
    return rule.number


def _from_the_first(wanted: Filter) -> Filter:
    return msgspec.structs.replace(wanted, skip=0, limit=wanted.skip + wanted.limit)


def _with_body_in(shard: SqliteSpool, given: Acceptance) -> Acceptance:
    """With its body file in the shard that takes it. The one it was made in is removed when that one is next opened.

    Raises:
        SpoolFault: it cannot be copied.
    """
    body = given.arrival.body
    if not isinstance(body, FileBody):
        return given
    path = shard.body_path(given.id)
    if path.exists():  # a settlement that is handed in again
        moved = FileBody(path, body.size)
        arrival = msgspec.structs.replace(given.arrival, body=moved)
        return msgspec.structs.replace(given, arrival=arrival)
    writer = shard.body_writer(given.id)
    try:
        for chunk in body.chunks():
            writer.write(chunk)
        moved = writer.finish()
    except OSError as error:
        writer.discard()
        raise fault_from(error, f"the body of {given.id} cannot be copied") from error
    except SpoolFault:
        writer.discard()
        raise
    arrival = msgspec.structs.replace(given.arrival, body=moved)
    return msgspec.structs.replace(given, arrival=arrival)
