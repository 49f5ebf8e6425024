"""A random walk through everything that can be asked of a spool, with a record of what was promised when.

Each message has a row of versions: what it must look like after each step that was begun. A step that was done is a
promise. After a crash the message must look like the last promised version or a later one that was begun: never older,
never a mixture.
"""

from __future__ import annotations

import asyncio
import random

import msgspec

from lonedot.message.ledger import Action, Entry
from lonedot.spool.interface import (
    Acceptance,
    Claim,
    Filter,
    MessageState,
    NoSuchMessage,
    Progress,
    RecipientStatus,
    Settlement,
    Spool,
    SpoolFault,
)
from lonedot.spool.sqlite import SqliteSpool
from lonedot.terms.ids import IdSource, MessageId
from lonedot.testing.clock import ManualClock
from lonedot.testing.messages import acceptance, delivered, entry, waiting
from lonedot.testing.power import Mark, PowerDisk

QUEUED, HELD, FINISHED = MessageState.QUEUED, MessageState.HELD, MessageState.FINISHED

STEPS = 3
"""Sinks that a message in transport meets."""


class Version(msgspec.Struct, frozen=True):
    """How a message looks after a step. `epoch` is the least that a later claim must exceed."""

    state: MessageState
    statuses: tuple[RecipientStatus, ...]
    attempts: int
    epoch: int
    parent: tuple[MessageId, int] | None = None
    """The message and version this one came with, when it is a report."""
    steps: int = 0
    """Sinks whose work in custody is there."""
    in_transport: bool = False


class Begun(msgspec.Struct, frozen=True):
    id: MessageId
    version: int


class Done(msgspec.Struct, frozen=True):
    id: MessageId
    version: int


def step_of(given: Acceptance, number: int) -> Entry:
    """The entry of a sink that looked in custody."""
    return entry(given.arrival, binding=f"sink {number}")


class Walk:
    """Drives a spool on a recording disk."""

    def __init__(self, disk: PowerDisk, clock: ManualClock, chance: random.Random) -> None:
        self.disk = disk
        self.clock = clock
        self.chance = chance
        self.ids = IdSource()
        self.given: dict[MessageId, Acceptance] = {}
        self.versions: dict[MessageId, list[Version]] = {}
        self.busy: set[MessageId] = set()
        self.claims: dict[MessageId, int] = {}
        """Epochs that we hold."""
        self.refused = 0
        self._claiming = self._handling = False
        """In this turn: a claim would otherwise take what a person holds at the same moment."""

    async def run(self, spool: Spool, steps: int) -> None:
        while steps > 0:
            together = self.chance.choice([1, 1, 2, 5])
            await asyncio.gather(*(self._step(spool) for _ in range(together)))
            self.busy.clear()
            self._claiming = self._handling = False
            self.clock.advance(self.chance.choice([0, 1, 30]))
            steps -= together

    async def _step(self, spool: Spool) -> None:
        step = self.chance.choice(
            [self._accept, self._accept, self._settle, self._settle, self._claim, self._hand]
        )
        try:
            await step(spool)
        except SpoolFault:
            self.refused += 1

    # -- steps -----------------------------------------------------------------------------------------

    def _begin(self, id: MessageId, version: Version) -> Done:
        versions = self.versions.setdefault(id, [])
        versions.append(version)
        self.disk.mark(Begun(id, len(versions) - 1))
        return Done(id, len(versions) - 1)

    def _new(self, owner: str, sender: str = "scanner@example.com") -> Acceptance:
        chance = self.chance
        body = chance.randbytes(chance.choice([10, 3000, 20_000]))
        return acceptance(
            self.ids.next(self.clock.now()),
            self.clock.now(),
            body=body,
            recipients=("a@x.org", "b@y.org")[: chance.choice([1, 2])],
            owner=owner,
            sender=sender,
            lease_seconds=1e9,
            action=chance.choice([Action.KEPT, Action.UNDONE]),
        )

    def _accepted(self, given: Acceptance, parent: tuple[MessageId, int] | None = None) -> Done:
        in_transport = given.transport is not None
        self.given[given.id] = given
        self.busy.add(given.id)
        statuses = tuple(RecipientStatus.WAITING for _ in given.recipients)
        return self._begin(
            given.id, Version(QUEUED, statuses, 0, 1 if given.owner else 0, parent, 0, in_transport)
        )

    async def _accept(self, spool: Spool) -> None:
        given = self._new(self.chance.choice(["", "me"]))
        if self.chance.random() < 0.5:
            given = msgspec.structs.replace(given, transport=Progress())
        if self.chance.random() < 0.3:
            octets = self.chance.randbytes(70_000)
            large = acceptance(given.id, self.clock.now(), body=octets, owner=given.owner, lease_seconds=1e9)
            writer = spool.body_writer(given.id)
            try:
                writer.write(octets[:40_000])
                writer.write(octets[40_000:])
                arrival = msgspec.structs.replace(large.arrival, body=writer.finish())
            except SpoolFault:
                writer.discard()
                raise
            self.given[given.id] = large
            done = self._accepted(large)
            await spool.accept([msgspec.structs.replace(large, arrival=arrival)])
        else:
            done = self._accepted(given)
            await spool.accept([given])
        if given.owner:
            self.claims[given.id] = 1
        self.disk.mark(done)

    async def _settle(self, spool: Spool) -> None:
        free = [id for id in self.claims if id not in self.busy]
        if not free:
            return
        id = self.chance.choice(free)
        self.busy.add(id)
        given, epoch = self.given[id], self.claims[id]
        last = self.versions[id][-1]
        if last.in_transport:
            await self._sink(spool, given, epoch, last)
            return
        settlement: Settlement
        if self.chance.random() < 0.6:
            settlement = delivered(given, epoch, self.clock.now())
            status, state = RecipientStatus.DELIVERED, FINISHED
        else:
            settlement = waiting(
                given, epoch, self.clock.now(), self.clock.now() + self.chance.choice([1, 900])
            )
            status, state = RecipientStatus.WAITING, QUEUED
        statuses = tuple(status for _ in given.recipients)
        version = Version(state, statuses, last.attempts + 1, epoch, steps=last.steps)
        done = self._begin(id, version)
        report: Acceptance | None = None
        report_done: Done | None = None
        if self.chance.random() < 0.3:
            report = self._new("", sender="")
            report_done = self._accepted(report, (id, done.version))
            settlement = msgspec.structs.replace(settlement, spawned=(report,))
        spool.in_flight(id)
        try:
            applied = await spool.settle([settlement])
        except SpoolFault:
            self.versions[id].append(last)  # as it was: the claim is still held, and nothing was promised
            raise
        finally:
            spool.landed(id)
        assert list(applied) == [True]
        del self.claims[id]
        self.disk.mark(done)
        if report_done is not None:
            self.disk.mark(report_done)

    async def _sink(self, spool: Spool, given: Acceptance, epoch: int, last: Version) -> None:
        """What a sink did in custody; with the last of three the transport is over."""
        id, number = given.id, last.steps + 1
        on = Progress("arrival", number) if number < STEPS else None
        version = msgspec.structs.replace(last, steps=number, in_transport=on is not None)
        done = self._begin(id, version)
        step = Settlement(id, epoch, entries=(step_of(given, number),), release=False, transport=on)
        spool.in_flight(id)
        try:
            applied = await spool.settle([step])
        except SpoolFault:
            self.versions[id].append(last)
            raise
        finally:
            spool.landed(id)
        assert list(applied) == [True]
        self.disk.mark(done)

    async def _claim(self, spool: Spool) -> None:
        if self._handling:
            return
        self._claiming = True
        claims = await spool.claim("me", self.clock.now(), 1e9, self.chance.choice([1, 3]))
        for claim in claims:
            self._claimed(claim)

    def _claimed(self, claim: Claim) -> None:
        id = claim.message.id
        self.busy.add(id)
        last = self.versions[id][-1]
        assert claim.epoch > last.epoch
        self.claims[id] = claim.epoch
        self.disk.mark(self._begin(id, msgspec.structs.replace(last, epoch=claim.epoch)))

    async def _hand(self, spool: Spool) -> None:
        free = [
            id
            for id, versions in self.versions.items()
            if id not in self.busy and id not in self.claims and versions[-1].state in {QUEUED, HELD}
        ]
        if not free or self._claiming:
            return
        self._handling = True
        id = self.chance.choice(free)
        self.busy.add(id)
        last = self.versions[id][-1]
        now = self.clock.now()
        if self.chance.random() < 0.3:
            gone = tuple(
                RecipientStatus.DELETED if status is RecipientStatus.WAITING else status
                for status in last.statuses
            )
            done = self._begin(id, msgspec.structs.replace(last, state=FINISHED, statuses=gone))
            applied = await self._by_hand(id, last, spool.delete([id], now))
        elif last.state is QUEUED:
            done = self._begin(id, msgspec.structs.replace(last, state=HELD))
            applied = await self._by_hand(id, last, spool.hold([id], "a walk"))
        else:
            done = self._begin(id, msgspec.structs.replace(last, state=QUEUED))
            applied = await self._by_hand(id, last, spool.release([id], now))
        assert list(applied) == [True]
        self.disk.mark(done)

    async def _by_hand(self, id: MessageId, last: Version, result: object) -> list[bool]:
        try:
            return list(await result)  # type: ignore[misc]
        except SpoolFault:
            self.versions[id].append(last)
            raise

    # -- checks ----------------------------------------------------------------------------------------

    def allowed(self, cut: int) -> dict[MessageId, tuple[int, int]]:
        """For each message begun before `cut`: the versions it may have, first and last; -1 is "not there"."""
        ranges: dict[MessageId, tuple[int, int]] = {}
        for event in self.disk.journal[:cut]:
            if not isinstance(event, Mark):
                continue
            what = event.what
            if isinstance(what, Begun):
                low, _ = ranges.get(what.id, (-1, -1))
                ranges[what.id] = low, what.version
            elif isinstance(what, Done):
                _, high = ranges[what.id]
                ranges[what.id] = what.version, high
        return ranges

    async def check(self, spool: SqliteSpool, cut: int) -> None:
        """The promises made before `cut` hold in a spool recovered from what was left."""
        ranges = self.allowed(cut)
        there = {row.id for row in spool.listing(Filter(states=()))}
        assert there <= {str(id) for id in ranges}
        found: dict[MessageId, int] = {}
        for id, (low, high) in ranges.items():
            found[id] = self._version_found(spool, id, low, high)
        for id, version in found.items():
            parent = self.versions[id][0].parent
            if parent is not None and parent[0] in found:
                # A report is there exactly when the outcome is that caused it.
                assert (version >= 0) == (found[parent[0]] >= parent[1])
        finished = sum(
            version >= 0 and self.versions[id][version].state is FINISHED for id, version in found.items()
        )
        assert spool.counts()[FINISHED] == finished
        assert spool.counts()[MessageState.DAMAGED] == 0
        promised = {id: self.versions[id][low].epoch for id, (low, _) in ranges.items() if low >= 0}
        for claim in await spool.claim("next", self.clock.now() + 1e6, 60, 1000):
            assert claim.epoch > promised.get(claim.message.id, 0)

    def _version_found(self, spool: SqliteSpool, id: MessageId, low: int, high: int) -> int:
        given = self.given[id]
        try:
            stored = spool.show(id)
        except NoSuchMessage:
            assert low == -1
            return -1
        assert (stored.envelope, stored.facts) == (given.envelope, given.facts)
        steps = len(stored.ledger) - len(given.ledger)
        assert stored.ledger == (
            *given.ledger,
            *(step_of(given, number) for number in range(1, steps + 1)),
        )
        statuses = tuple(r.status for r in stored.recipients)
        is_in_transport = stored.transport is not None
        assert not is_in_transport or stored.transport == (
            Progress("arrival", steps) if steps else Progress()
        )
        looks = (stored.state, statuses, len(stored.attempts), steps, is_in_transport)
        for number in range(high, max(low, 0) - 1, -1):
            version = self.versions[id][number]
            if looks == (
                version.state,
                version.statuses,
                version.attempts,
                version.steps,
                version.in_transport,
            ):
                break
        else:
            raise AssertionError(f"{id} is {looks}, allowed are {self.versions[id][max(low, 0) : high + 1]}")
        remarkable = given.ledger[0].action is not Action.KEPT
        assert stored.has_content == (version.state is not FINISHED or remarkable)
        if stored.has_content:
            assert spool.content(id).octets() == given.arrival.octets()
        return number
