"""A scheduler with many next hops: one that is dead or slow costs the others nothing."""

from __future__ import annotations

import pytest

from lonedot.queue import work as module
from lonedot.queue.courier import Delivery
from lonedot.spool.interface import Attempt, MessageState, RecipientStatus
from lonedot.terms.ids import MessageId
from lonedot.terms.outcome import Outcome, Result, Stage
from tests.unit.queue.workshop import Out, Workshop, settle

DELIVERED, FAILED = Result.DELIVERED, Result.FAILED
DEAD = Outcome(Result.DEFERRED, Stage.CONNECT, "no connection: connection refused", status="4.4.1")


def shop_with_destinations(limit: int = 10) -> Workshop:
    shop = Workshop(limit=limit)
    shop.destinations = {b"a.example": "a.example", b"c.example": "c.example"}
    return shop


def unreachable(shop: Workshop, out: Out) -> None:
    shop.out.remove(out)
    now = shop.clock.now()
    outcomes = tuple((r.index, DEAD) for r in out.recipients)
    out.done(Delivery((Attempt(now, now, "", out.route, "", outcomes),)))


def to(shop: Workshop, domain: bytes) -> list[Out]:
    return [out for out in shop.out if out.recipients[0].recipient.address.domain == domain]


async def test_destinations_of_a_route_are_lanes_of_their_own() -> None:
    shop = shop_with_destinations(limit=1)
    await shop.offer("m000000000001", "x@a.example", "y@c.example")
    assert [[r.index for r in out.recipients] for out in shop.out] == [[0], [1]]


async def test_what_waits_for_a_dead_hop_waits_in_the_spool_and_is_not_tried() -> None:
    shop = shop_with_destinations()
    shop.scheduler.start()
    for number in range(50):
        await shop.offer(f"m{number:012}", "x@a.example")
    unreachable(shop, shop.out[0])
    await settle()
    for out in tuple(shop.out):
        unreachable(shop, out)
    await settle()
    assert shop.scheduler.active == 0
    assert shop.spool.count_lane("a\ta.example") == 50
    tried = [shop.spool.show(MessageId(f"m{n:012}")).recipients[0].attempts for n in range(50)]
    assert sum(tried) == 4
    assert all(shop.spool.show(MessageId(f"m{n:012}")).recipients[0].last == DEAD for n in range(50))
    (hop,) = shop.scheduler.hops()
    assert (hop.state, hop.parked, hop.reason) == ("backing off", 50, DEAD.reason)
    await shop.offer("m000000000099", "y@c.example")
    assert len(to(shop, b"c.example")) == 1


async def test_one_is_sent_ahead_and_then_all_go() -> None:
    shop = shop_with_destinations()
    shop.scheduler.start()
    for number in range(50):
        await shop.offer(f"m{number:012}", "x@a.example")
    for out in tuple(shop.out):
        unreachable(shop, out)
    await settle()
    await shop.pass_time(61)
    assert len(shop.out) == 1
    unreachable(shop, shop.out[0])
    await shop.pass_time(299)
    assert shop.out == []
    await shop.pass_time(2)
    assert len(shop.out) == 1
    for _ in range(60):
        if shop.out:
            shop.end(shop.out[0], DELIVERED)
        await settle()
    assert shop.out == []
    assert {shop.spool.state_of(f"m{n:012}") for n in range(50)} == {MessageState.FINISHED}
    assert shop.spool.lanes() == []


async def test_a_message_for_a_dead_hop_expires_and_its_sender_is_told_of_the_delay() -> None:
    shop = shop_with_destinations()
    shop.scheduler.start()
    for number in range(6):
        await shop.offer(f"m{number:012}", "x@a.example", sender="s@nowhere.example")
    for _ in range(600):
        for out in tuple(shop.out):
            unreachable(shop, out)
        await shop.pass_time(300)
    kinds = [report.kind.value for id, report in shop.reported if id == "m000000000005"]
    assert kinds == ["delay", "failure"]
    assert shop.statuses("m000000000005") == [RecipientStatus.EXPIRED]


async def test_a_person_who_retries_has_it_tried_at_once() -> None:
    shop = shop_with_destinations()
    shop.scheduler.start()
    await shop.offer("m000000000001", "x@a.example")
    unreachable(shop, shop.out[0])
    await settle()
    await shop.spool.retry([MessageId("m000000000001")], shop.clock.now())
    shop.scheduler.kick()
    await settle()
    assert len(shop.out) == 1


async def test_a_restart_finds_the_lanes_with_messages() -> None:
    shop = shop_with_destinations()
    shop.scheduler.start()
    for number in range(5):
        await shop.offer(f"m{number:012}", "x@a.example")
    for out in tuple(shop.out):
        unreachable(shop, out)
    await settle()
    again = shop_with_destinations()
    again.spool._kept = shop.spool._kept
    again.scheduler.start()
    for _ in range(9):
        await settle()
        if again.out:
            again.end(again.out[0], DELIVERED)
    assert {again.spool.state_of(f"m{n:012}") for n in range(5)} == {MessageState.FINISHED}


async def test_a_slow_hop_leaves_memory_to_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "READY_LIMIT", 40)
    shop = shop_with_destinations(limit=2)
    shop.scheduler.start()
    for number in range(200):
        await shop.leave(f"m{number:012}", "x@a.example")
    await shop.leave("m000000000999", "y@c.example")
    shop.scheduler.kick()
    for _ in range(20):
        await settle()
    assert len(to(shop, b"c.example")) == 1  # though it stands behind everything for the slow one
    assert shop.scheduler._desk.ready <= 20
    shop.end(to(shop, b"c.example")[0], DELIVERED)
    count = 0
    while shop.out:
        shop.end(shop.out[0], DELIVERED)
        count += 1
        await settle()
    assert count == 200


@pytest.mark.parametrize("dead", [0, 900])
async def test_healthy_mail_goes_as_fast_beside_a_dead_hop_with_most_of_the_queue(dead: int) -> None:
    """Each turn the courier ends what is out: 100 healthy messages take as many turns with the dead hop as without."""
    shop = shop_with_destinations(limit=10)
    for number in range(dead):
        await shop.leave(f"d{number:012}", "x@a.example")
    for number in range(100):
        await shop.leave(f"m{number:012}", "y@c.example")
    shop.scheduler.start()
    await settle()
    turns = 0
    while any(shop.spool.state_of(f"m{n:012}") is not MessageState.FINISHED for n in range(100)):
        for out in tuple(shop.out):
            if out.id.startswith("d"):
                unreachable(shop, out)
            else:
                shop.end(out, DELIVERED)
        for _ in range(8):
            await settle()
        turns += 1
        assert turns <= 13  # 4, 8, 10, 10 … at a time, and one turn until the dead hop is known
