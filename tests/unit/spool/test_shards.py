"""Several shards as one spool: each message is found, wherever it lies, and what is done is told in the order asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from lonedot.admin.offline import open_desk
from lonedot.spool.interface import Filter, MessageState, Settlement, Sort, SpoolLocked, SpoolPaths
from lonedot.spool.lock import SpoolLock
from lonedot.spool.shards import Shards
from lonedot.spool.sqlite import Policy, SqliteSpool, open_spool
from lonedot.terms.ids import IdSource, MessageId
from lonedot.testing.clock import ManualClock
from lonedot.testing.messages import acceptance, make_content

BEGAN = 1_700_000_000.0


class Two:
    """Two shards; the last message lies in the other shard than its id says."""

    def __init__(self, shards: list[SqliteSpool], ids: list[MessageId]) -> None:
        self.shards = shards
        self.ids = ids
        self.spool = Shards(shards)


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[Two]:
    paths = SpoolPaths(tmp_path / "spool")
    paths.root.mkdir()
    lock = SpoolLock(paths.lock)
    clock = ManualClock()
    shards = [open_spool(paths, clock, Policy(inline_sync=True), shard=n, lock=lock) for n in (0, 1)]
    sources = IdSource(0), IdSource(1)
    ids = [MessageId(sources[n % 2].next(BEGAN + n)) for n in range(6)]
    for n, id in enumerate(ids):
        await shards[0 if n == 5 else n % 2].accept(
            (acceptance(id, BEGAN + n, sender=f"{chr(ord('f') - n)}@example.com"),)
        )
    yield Two(shards, ids)
    for one in shards:
        await one.close()
    lock.release()


async def test_messages_are_found_wherever_they_lie(two: Two) -> None:
    for id in two.ids:
        assert two.spool.show(id).id == id
        assert two.spool.content(id).size
    assert two.spool.of(two.ids[5]) is two.shards[0]


async def test_pages_go_through_both(two: Two) -> None:
    found: list[str] = []
    for page in range(4):
        rows = await two.spool.search(Filter(limit=2, skip=2 * page, sort=Sort.OLDEST))
        found += [row.id for row in rows]
    assert found == two.ids
    assert [row.id for row in two.spool.listing(Filter(limit=3))] == two.ids[3:]
    assert await two.spool.select(Filter(limit=4)) == two.ids[:1:-1]
    assert await two.spool.select(Filter(sort=Sort.SENDER)) == two.ids[::-1]


async def test_what_was_done_is_told_in_the_order_asked(two: Two) -> None:
    nobody = MessageId(IdSource(1).next(BEGAN + 99))
    asked = [two.ids[5], nobody, two.ids[0], two.ids[1]]
    assert await two.spool.hold(asked, "later") == [True, False, True, True]
    assert two.spool.counts()[MessageState.HELD] == 3
    assert await two.spool.release(asked, BEGAN) == [True, False, True, True]
    assert await two.spool.delete([two.ids[1]], BEGAN) == [True]
    assert await two.spool.purge(BEGAN + 1e9, 10) == 1


async def test_a_settlement_goes_where_the_claim_is(two: Two) -> None:
    claims = await two.spool.take("me", two.ids, BEGAN, 60)
    settled = [Settlement(claim.message.id, claim.epoch) for claim in claims if claim is not None]
    assert len(settled) == 6
    assert await two.spool.settle(settled) == [True] * 6
    assert len(await two.spool.claim("me", BEGAN + 60, 60, 10)) == 6


async def test_what_is_due_in_one_does_not_wait_for_the_other(two: Two) -> None:
    first = [await two.spool.claim("me", BEGAN + 60, 60, 1) for _ in range(2)]
    assert {two.spool.of(claim.message.id) for (claim,) in first} == set(two.shards)


async def test_a_copy_whose_body_lies_in_the_own_shard_is_taken_by_the_other(two: Two) -> None:
    (claim,) = await two.spool.take("me", two.ids[1:2], BEGAN, 60)
    assert claim is not None
    copy = MessageId(IdSource(0).next(BEGAN + 50))
    writer = two.spool.body_writer(copy)
    writer.write(b"large\r\n" * 60_000)
    content = make_content(b"large\r\n" * 60_000)
    arrival = msgspec.structs.replace(content, body=writer.finish())
    spawned = msgspec.structs.replace(acceptance(copy, BEGAN + 50), arrival=arrival)
    settled = Settlement(two.ids[1], claim.epoch, spawned=(spawned,), at=BEGAN)
    assert await two.spool.settle((settled,)) == [True]
    assert two.spool.of(copy) is two.shards[1]
    assert b"".join(two.spool.content(copy).body.chunks()) == b"large\r\n" * 60_000


async def test_a_desk_has_all_shards_under_one_lock(tmp_path: Path) -> None:
    paths = SpoolPaths(tmp_path / "spool")
    for shard in (0, 2):
        await open_spool(paths, ManualClock(), Policy(inline_sync=True), shard=shard).close()
    desk = await open_desk(paths, {})
    assert [one.shard for one in desk.shards] == [0, 2]
    with pytest.raises(SpoolLocked):
        await open_desk(paths, {})
    await desk.spool.close()
    again = await open_desk(paths, {})
    await again.spool.close()
