"""The disk fails while the spool lives: what is told then, what is there afterwards, and that work goes on."""

from __future__ import annotations

import asyncio
import errno
import os
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest

from lonedot.spool import writer
from lonedot.spool.interface import (
    Acceptance,
    Filter,
    MessageState,
    NoSuchMessage,
    SpoolFault,
    SpoolFull,
    SpoolPaths,
)
from lonedot.spool.sqlite import CONTENT_LIMIT, Policy, SqliteSpool, open_spool
from lonedot.terms.ids import IdSource, MessageId
from lonedot.testing.clock import ManualClock
from lonedot.testing.messages import acceptance, delivered
from lonedot.testing.power import PowerDisk, Write, nothing
from tests.crash.walk import Walk

LONG = os.environ.get("LONEDOT_CRASH") == "long"
LOG = "queue.db-wal"
INLINE = Policy(inline_sync=True, reserve=64 << 20)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def ids() -> IdSource:
    return IdSource()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[PowerDisk]:
    disk = PowerDisk(tmp_path)
    yield disk
    disk.close()


@pytest.fixture
async def spool(tmp_path: Path, clock: ManualClock, disk: PowerDisk) -> AsyncIterator[SqliteSpool]:
    spool = open_spool(SpoolPaths(tmp_path / "spool"), clock, INLINE, disk=disk)
    yield spool
    disk.failures.clear()
    await spool.close()


async def _after_power_loss(disk: PowerDisk, clock: ManualClock) -> SqliteSpool:
    image = disk.root / "image"
    disk.image(len(disk.journal), nothing, image)
    return open_spool(SpoolPaths(image / "spool"), clock, INLINE)


def _new(ids: IdSource, clock: ManualClock, body: bytes = b"one line\r\n", owner: str = "") -> Acceptance:
    return acceptance(ids.next(clock.now()), clock.now(), body=body, owner=owner)


async def test_a_sync_that_fails_once_is_made_good_before_the_answer(
    spool: SqliteSpool, clock: ManualClock, ids: IdSource, disk: PowerDisk
) -> None:
    await spool.accept([_new(ids, clock)])  # the log has begun: only its end is to be synced
    given = _new(ids, clock)
    disk.fail("sync", LOG)
    await spool.accept([given])
    recovered = await _after_power_loss(disk, clock)
    assert recovered.content(given.id).octets() == given.arrival.octets()
    await recovered.close()


async def test_after_a_failed_sync_the_commit_is_not_trusted(
    spool: SqliteSpool, clock: ManualClock, ids: IdSource, disk: PowerDisk
) -> None:
    """Only the octets that are written again come back: a second sync alone would report what is not there."""
    await spool.accept([_new(ids, clock)])
    first, second = _new(ids, clock), _new(ids, clock)
    disk.fail("sync", LOG)
    await asyncio.gather(spool.accept([first]), spool.accept([second]))
    failed = next(place for place, event in enumerate(disk.journal) if type(event).__name__ == "SyncFailed")
    rewritten = [
        event for event in disk.journal[failed:] if isinstance(event, Write) and event.path.endswith(LOG)
    ]
    assert rewritten
    assert rewritten[0].offset == 0


async def test_while_the_disk_is_out_of_order_everybody_is_told_at_once(
    spool: SqliteSpool, clock: ManualClock, ids: IdSource, disk: PowerDisk
) -> None:
    before, refused, later = _new(ids, clock), _new(ids, clock), _new(ids, clock)
    await spool.accept([before])
    disk.fail("sync", LOG, times=1000)
    with pytest.raises(SpoolFault):
        await spool.accept([refused])
    with pytest.raises(SpoolFault):
        await spool.accept([later])
    with pytest.raises(SpoolFault):
        spool.show(before.id)
    disk.failures.clear()
    with pytest.raises(SpoolFault):
        await spool.accept([later])  # not within a second
    clock.advance(1)
    await spool.accept([later])
    assert spool.show(before.id).state is MessageState.QUEUED
    # It was there after all; the client was told 451 and keeps it.
    with pytest.raises(NoSuchMessage):
        spool.show(refused.id)
    assert spool.withdrawn == 1
    recovered = await _after_power_loss(disk, clock)
    assert {row.id for row in recovered.listing(Filter(states=()))} == {before.id, later.id}
    await recovered.close()


async def test_a_disk_that_fails_again_while_what_was_refused_is_withdrawn(
    spool: SqliteSpool, clock: ManualClock, ids: IdSource, disk: PowerDisk
) -> None:
    disk.fail("sync", LOG, times=1000)
    refused, large = _new(ids, clock), _new(ids, clock, body=b"x" * (CONTENT_LIMIT + 1))
    with pytest.raises(SpoolFault):
        await spool.accept([refused])
    disk.failures.clear()
    disk.fail("sync", LOG, skip=1)  # the log is written again; the withdrawal is not synced
    clock.advance(1)
    with pytest.raises(SpoolFault):
        await spool.accept([large])
    clock.advance(1)
    large = _new(ids, clock, body=b"x" * (CONTENT_LIMIT + 1))
    await spool.accept([large])
    with pytest.raises(NoSuchMessage):
        spool.show(refused.id)
    assert spool.content(large.id).body.size == CONTENT_LIMIT + 1


async def test_an_outcome_that_was_refused_can_be_handed_in_again(
    spool: SqliteSpool, clock: ManualClock, ids: IdSource, disk: PowerDisk
) -> None:
    given = _new(ids, clock, owner="me")
    await spool.accept([given])
    disk.fail("write", LOG, times=1000)
    settlement = delivered(given, 1, clock.now())
    with pytest.raises(SpoolFault):
        await spool.settle([settlement])
    disk.failures.clear()
    clock.advance(1)
    assert list(await spool.settle([settlement])) == [True]
    assert spool.show(given.id).state is MessageState.FINISHED
    assert len(spool.show(given.id).attempts) == 1


async def test_an_outcome_whose_sync_failed_is_a_fact(
    spool: SqliteSpool, clock: ManualClock, ids: IdSource, disk: PowerDisk
) -> None:
    given = _new(ids, clock, owner="me")
    await spool.accept([given])
    disk.fail("sync", LOG, times=1000)
    with pytest.raises(SpoolFault):
        await spool.settle([delivered(given, 1, clock.now())])
    disk.failures.clear()
    clock.advance(1)
    # It had been written and came back: nothing is left to settle, and nothing is sent twice.
    assert list(await spool.settle([delivered(given, 1, clock.now())])) == [False]
    assert spool.show(given.id).state is MessageState.FINISHED
    assert list(await spool.claim("me", clock.now(), 60, 10)) == []


@pytest.mark.parametrize(("code", "fault"), [(errno.ENOSPC, SpoolFull), (errno.EIO, SpoolFault)])
@pytest.mark.parametrize("skip", [0, 3])
async def test_a_write_of_the_log_that_fails_takes_nothing(
    spool: SqliteSpool,
    clock: ManualClock,
    ids: IdSource,
    disk: PowerDisk,
    code: int,
    fault: type[SpoolFault],
    skip: int,
) -> None:
    before = _new(ids, clock, owner="me")
    await spool.accept([before])
    refused = _new(ids, clock)
    disk.fail("write", LOG, code, skip=skip)
    with pytest.raises(fault) as told:
        await spool.accept([refused])
    assert type(told.value) is fault
    with pytest.raises(NoSuchMessage):
        spool.show(refused.id)
    await spool.accept([refused])
    assert list(await spool.settle([delivered(before, 1, clock.now())])) == [True]
    recovered = await _after_power_loss(disk, clock)
    assert recovered.content(refused.id).octets() == refused.arrival.octets()
    assert recovered.show(before.id).state is MessageState.FINISHED
    await recovered.close()


@pytest.mark.parametrize(("code", "fault"), [(errno.ENOSPC, SpoolFull), (errno.EIO, SpoolFault)])
async def test_a_body_that_cannot_be_written(
    spool: SqliteSpool,
    clock: ManualClock,
    ids: IdSource,
    disk: PowerDisk,
    code: int,
    fault: type[SpoolFault],
) -> None:
    id = MessageId(ids.next(clock.now()))
    body = spool.body_writer(id)
    disk.fail("write", ".body", code, skip=1)
    body.write(b"first")
    with pytest.raises(fault) as told:
        body.write(b"second")
    assert type(told.value) is fault
    body.discard()
    assert not list((disk.root / "spool").rglob("*.body"))


async def test_a_body_that_cannot_be_created(
    spool: SqliteSpool, clock: ManualClock, ids: IdSource, disk: PowerDisk
) -> None:
    disk.fail("create", ".body", errno.ENOSPC)
    with pytest.raises(SpoolFull):
        spool.body_writer(MessageId(ids.next(clock.now())))


async def test_a_body_that_cannot_be_synced_is_not_taken(
    spool: SqliteSpool, clock: ManualClock, ids: IdSource, disk: PowerDisk
) -> None:
    given = _new(ids, clock, b"x" * (CONTENT_LIMIT + 1))
    other = _new(ids, clock)
    disk.fail("sync", ".body")
    done = await asyncio.gather(spool.accept([given]), spool.accept([other]), return_exceptions=True)
    assert [type(result) for result in done] == [SpoolFault, type(None)]
    with pytest.raises(NoSuchMessage):
        spool.show(given.id)
    assert not list((disk.root / "spool").rglob("*.body"))


async def test_mail_is_refused_before_the_disk_is_full_and_outcomes_are_not(
    spool: SqliteSpool, clock: ManualClock, ids: IdSource, disk: PowerDisk
) -> None:
    given = _new(ids, clock, owner="me")
    await spool.accept([given])
    disk.free_octets = (64 << 20) + 1_000_000
    assert spool.has_room(2_000_000)  # asked less than a second ago
    clock.advance(1)
    assert spool.has_room(900_000)
    assert not spool.has_room(2_000_000)
    disk.free_octets = 64 << 20
    clock.advance(1)
    with pytest.raises(SpoolFull):
        await spool.accept([_new(ids, clock)])
    with pytest.raises(SpoolFull):
        spool.body_writer(MessageId(ids.next(clock.now()))).write(b"x")
    assert list(await spool.settle([delivered(given, 1, clock.now())])) == [True]


async def test_what_is_taken_counts_before_the_disk_is_asked_again(
    spool: SqliteSpool, clock: ManualClock, ids: IdSource, disk: PowerDisk
) -> None:
    disk.free_octets = (64 << 20) + 100_000
    clock.advance(1)
    assert spool.has_room(90_000)
    await spool.accept([_new(ids, clock, b"x" * 50_000)])
    assert not spool.has_room(90_000)


async def test_a_checkpoint_that_fails_harms_nobody(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clock: ManualClock, ids: IdSource, disk: PowerDisk
) -> None:
    monkeypatch.setattr(writer, "CHECKPOINT_OCTETS", 64 * 1024)
    notices: list[str] = []
    spool = open_spool(SpoolPaths(tmp_path / "spool"), clock, INLINE, disk=disk, notice=notices.append)
    disk.fail("write", "queue.db", times=3)
    given = [_new(ids, clock, b"%d\r\n" % number * 1000) for number in range(40)]
    for message in given:
        await spool.accept([message])
    assert any("checkpoint" in words for words in notices)
    assert spool.counts()[MessageState.QUEUED] == 40
    recovered = await _after_power_loss(disk, clock)
    for message in given:
        assert recovered.content(message.id).octets() == message.arrival.octets()
    await recovered.close()
    await spool.close()


@pytest.mark.timeout(1800 if LONG else 120)
@pytest.mark.parametrize("seed", range(60 if LONG else 6))
async def test_a_walk_over_a_disk_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: ManualClock, disk: PowerDisk, seed: int
) -> None:
    monkeypatch.setattr(writer, "CHECKPOINT_OCTETS", 128 * 1024)
    chance = random.Random(seed)
    walk = _FailingWalk(disk, clock, chance)
    spool = open_spool(SpoolPaths(tmp_path / "spool"), clock, INLINE, disk=disk)
    await walk.run(spool, 300 if LONG else 120)
    assert walk.refused
    disk.failures.clear()
    clock.advance(2)
    await spool.accept([_new(walk.ids, clock, owner="other")])
    recovered = await _after_power_loss(disk, clock)
    walk.check_promises(recovered)
    await recovered.close()
    await spool.close()


class _FailingWalk(Walk):
    """Lets something fail now and then; only promises are checked, for what was refused may be there or not."""

    async def run(self, spool: SqliteSpool, steps: int) -> None:  # type: ignore[override]
        for _ in range(steps):
            if self.chance.random() < 0.1:
                operation, suffix = self.chance.choice(
                    [
                        ("write", LOG),
                        ("sync", LOG),
                        ("sync", ".body"),
                        ("write", "queue.db"),
                        ("write", ".body"),
                    ]
                )
                code = self.chance.choice([errno.EIO, errno.ENOSPC])
                times = self.chance.choice([1, 1, 1, 6])
                self.disk.fail(operation, suffix, code, skip=self.chance.choice([0, 1, 5]), times=times)
            await self._one(spool)
            self.clock.advance(1)

    async def _one(self, spool: SqliteSpool) -> None:
        try:
            if self.chance.random() < 0.5 or not self.claims:
                owner = self.chance.choice(["", "me"])
                given = self._new(owner)
                self.given[given.id] = given
                await spool.accept([given])
                self.promised[given.id] = MessageState.QUEUED
                if owner:
                    self.claims[given.id] = 1
            else:
                id = self.chance.choice(sorted(self.claims))
                settlement = delivered(self.given[id], self.claims[id], self.clock.now())
                settlement = msgspec.structs.replace(settlement, spawned=(self._new("", sender=""),))
                self.started.add(id)
                # False: a settlement that was refused before had been written after all.
                (applied,) = await spool.settle([settlement])
                assert applied or id in self.refused_once
                del self.claims[id]
                self.promised[id] = MessageState.FINISHED
        except SpoolFault:
            self.refused += 1
            self.refused_once |= self.started

    def __init__(self, disk: PowerDisk, clock: ManualClock, chance: random.Random) -> None:
        super().__init__(disk, clock, chance)
        self.promised: dict[MessageId, MessageState] = {}
        self.started: set[MessageId] = set()
        self.refused_once: set[MessageId] = set()

    def check_promises(self, spool: SqliteSpool) -> None:
        assert self.promised
        for id, state in self.promised.items():
            stored = spool.show(id)
            if state is MessageState.FINISHED or id not in self.started:
                assert stored.state is state
            if stored.has_content:
                assert spool.content(id).octets() == self.given[id].arrival.octets()
            else:
                assert stored.state is MessageState.FINISHED
        assert spool.counts()[MessageState.DAMAGED] == 0
