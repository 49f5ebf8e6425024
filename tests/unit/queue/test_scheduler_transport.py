"""Messages in transport: prepared step by step, each durable before the next, then delivered under the same claim."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import msgspec

from lonedot.queue import preparation, settlements
from lonedot.queue.plan import Report, ReportKind
from lonedot.queue.transport import Step
from lonedot.spool.interface import Claim, MessageState, Progress, RecipientStatus, SpoolFault
from lonedot.terms.outcome import Result
from lonedot.testing.messages import acceptance
from tests.unit.queue.workshop import OWNER, Workshop, settle

ONE = "m000000000001"
BEGUN = Progress(waits_for="first")
ON = Progress("arrival", 1, "first", "{1}", "second")


class Preparing:
    """A preparer that gives the steps of a test."""

    def __init__(self, *steps: Progress | Exception | None) -> None:
        self.steps = steps
        self.asked = 0
        self.gate: asyncio.Future[None] | None = None
        self.report = False

    async def prepare(self, claim: Claim) -> AsyncGenerator[Step, None]:
        for step in self.steps:
            self.asked += 1
            if self.gate is not None:
                await self.gate
            if isinstance(step, Exception):
                raise step
            message = msgspec.structs.replace(claim.message, transport=step)
            reports = (Report(ReportKind.FAILURE, message.recipients),) if self.report else ()
            yield Step(message, reports=reports)


def shop_with(preparing: Preparing | None) -> Workshop:
    shop = Workshop()
    shop.scheduler._preparation.preparer = preparing
    return shop


async def offer(shop: Workshop, id: str = ONE) -> None:
    given = acceptance(id, shop.clock.now(), recipients=("x@a.example",), owner=OWNER)
    given = msgspec.structs.replace(given, transport=BEGUN)
    await shop.spool.accept((given,))
    shop.scheduler.offer(Claim(shop.spool.show(given.id), 1, given.arrival))
    await settle()


async def test_each_step_is_durable_before_the_next_and_the_last_is_followed_by_the_delivery() -> None:
    preparing = Preparing(ON, None)
    shop = shop_with(preparing)
    shop.spool.by_hand = True
    await offer(shop)
    assert (preparing.asked, shop.spool.flying) == (1, {ONE})
    shop.spool.answer()
    await settle()
    assert (preparing.asked, shop.out) == (2, [])
    shop.spool.answer()
    await settle()
    assert shop.spool.show(shop.out[0].id).transport is None
    shop.spool.by_hand = False
    shop.end(shop.out[0], Result.DELIVERED)
    await settle()
    assert shop.releases(ONE) == [False, False, True]
    assert shop.spool.state_of(ONE) is MessageState.FINISHED
    assert (shop.spool.flying, shop.scheduler.active) == (set(), 0)


async def test_a_step_that_the_disk_refuses_is_handed_in_again_before_anything_else() -> None:
    preparing = Preparing(ON, None)
    shop = shop_with(preparing)
    shop.spool.by_hand = True
    await offer(shop)
    shop.spool.answer(error=SpoolFault("the disk is gone"))
    await settle()
    assert preparing.asked == 1
    await shop.pass_time(settlements.SETTLE_AGAIN_SECONDS)
    shop.spool.by_hand = False
    shop.spool.answer()
    await settle()
    assert (preparing.asked, len(shop.out)) == (2, 1)


async def test_a_fault_of_ours_puts_it_off_behind_what_was_committed() -> None:
    shop = shop_with(Preparing(ON, ValueError("ours")))
    await offer(shop)
    stored = shop.spool.show(shop.spool._kept[ONE].given.id)
    assert stored.transport is not None
    assert (stored.transport.guid, stored.transport.words) == ("{1}", "a fault of ours: ValueError: ours")
    assert shop.notes.failures == ["transport"]
    assert (shop.out, shop.spool.owner_of(ONE), shop.scheduler.active) == ([], "", 0)
    shop.scheduler._preparation.preparer = Preparing(None)
    await shop.pass_time(preparation.TRANSPORT_AGAIN_SECONDS + 1)
    await settle()
    assert len(shop.out) == 1


async def test_a_report_that_cannot_be_made_takes_nothing_of_its_step() -> None:
    preparing = Preparing(None)
    preparing.report = True
    shop = shop_with(preparing)
    shop.report_error = SpoolFault("no Badmail")
    await offer(shop)
    assert shop.spool.show(shop.spool._kept[ONE].given.id).transport is not None
    assert shop.statuses(ONE) == [RecipientStatus.WAITING]
    assert shop.out == []


async def test_held_or_deleted_meanwhile_it_goes_no_further() -> None:
    preparing = Preparing(ON, None)
    shop = shop_with(preparing)
    preparing.gate = asyncio.get_running_loop().create_future()
    await offer(shop)
    id = shop.spool._kept[ONE].given.id
    await shop.spool.hold([id], "wait")
    shop.scheduler.forget([id])
    preparing.gate.set_result(None)
    await settle()
    assert (preparing.asked, shop.out, shop.scheduler.active) == (1, [], 0)
    stored = shop.spool.show(id)
    assert (stored.state, stored.transport) == (MessageState.HELD, ON)
    assert shop.spool.owner_of(ONE) == ""


async def test_a_stop_lets_the_sink_that_is_asked_come_back_and_asks_no_other() -> None:
    preparing = Preparing(ON, None)
    shop = shop_with(preparing)
    preparing.gate = asyncio.get_running_loop().create_future()
    await offer(shop)
    stopping = asyncio.ensure_future(shop.scheduler.stop(0.5))
    await settle()
    preparing.gate.set_result(None)
    await stopping
    assert preparing.asked == 1
    assert shop.spool.show(shop.spool._kept[ONE].given.id).transport == ON
    assert shop.out == []


async def test_no_more_than_so_many_at_one_time() -> None:
    preparing = Preparing(None)
    shop = shop_with(preparing)
    preparing.gate = asyncio.get_running_loop().create_future()
    for number in range(preparation.TRANSPORT_LIMIT + 5):
        await offer(shop, f"m{number:012}")
    assert preparing.asked == preparation.TRANSPORT_LIMIT
    preparing.gate.set_result(None)
    await settle()
    await settle()
    assert preparing.asked == preparation.TRANSPORT_LIMIT + 5


async def test_without_anybody_who_could_ask_it_is_held() -> None:
    shop = shop_with(None)
    await offer(shop)
    stored = shop.spool.show(shop.spool._kept[ONE].given.id)
    assert (stored.state, stored.transport) == (MessageState.HELD, BEGUN)
    assert shop.out == []
