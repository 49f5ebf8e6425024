"""The scheduler: what is tried when, every outcome settled once and in order, every claim given back."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from lonedot.queue import claims, conclusions
from lonedot.queue import work as module
from lonedot.queue.plan import ReportKind
from lonedot.spool.interface import Claim, MessageState, RecipientStatus, SpoolFault
from lonedot.terms.envelope import Notify
from lonedot.terms.ids import MessageId
from lonedot.terms.outcome import Result, Stage
from lonedot.testing.messages import acceptance
from tests.unit.queue.workshop import OWNER, Workshop, settle

ONE = "m000000000001"
TWO = "m000000000002"
DELIVERED, DEFERRED, FAILED = Result.DELIVERED, Result.DEFERRED, Result.FAILED
DISK = SpoolFault("the disk is gone")


# -- one message --------------------------------------------------------------------------------------


async def test_a_delivered_message_is_settled_once_and_given_back() -> None:
    shop = Workshop()
    await shop.offer(ONE, "x@a.example")
    assert [(out.id, out.route) for out in shop.out] == [(ONE, "a")]
    assert shop.spool.flying == {ONE}
    shop.end(shop.out[0], DELIVERED)
    await settle()
    assert shop.spool.state_of(ONE) is MessageState.FINISHED
    assert shop.releases(ONE) == [True]
    assert shop.spool.owner_of(ONE) == ""
    assert shop.spool.flying == set()
    assert shop.scheduler.active == 0
    assert len(shop.notes.attempts) == len(shop.notes.conclusions) == 1


async def test_routes_are_jobs_of_their_own_and_the_last_one_gives_the_claim_back() -> None:
    shop = Workshop()
    await shop.offer(ONE, "x@a.example", "y@b.example", "z@a.example")
    assert {(out.route, tuple(r.index for r in out.recipients)) for out in shop.out} == {
        ("a", (0, 2)),
        ("b", (1,)),
    }
    first, second = shop.out
    shop.end(first, DELIVERED)
    await settle()
    assert shop.spool.state_of(ONE) is MessageState.QUEUED
    assert shop.spool.owner_of(ONE) == OWNER
    shop.end(second, DELIVERED)
    await settle()
    assert shop.releases(ONE) == [False, True]
    assert shop.spool.state_of(ONE) is MessageState.FINISHED


async def test_a_courier_that_is_done_at_once_is_no_different() -> None:
    shop = Workshop()
    shop.at_once = DELIVERED
    await shop.offer(ONE, "x@a.example", "y@b.example")
    await settle()
    assert shop.releases(ONE) == [False, True]
    assert shop.statuses(ONE) == [RecipientStatus.DELIVERED] * 2


async def test_a_recipient_without_route_waits_and_does_not_keep_the_others() -> None:
    shop = Workshop()
    await shop.offer(ONE, "lost@nowhere.example", "x@a.example")
    shop.end(shop.out[0], DELIVERED)
    await settle()
    assert shop.statuses(ONE) == [RecipientStatus.WAITING, RecipientStatus.DELIVERED]
    last = shop.spool.show(MessageId(ONE)).recipients[0].last
    assert last is not None
    assert last.stage is Stage.ROUTE
    assert shop.releases(ONE) == [False, True]


async def test_a_hold_keeps_the_message_with_its_reason() -> None:
    shop = Workshop()
    await shop.offer(ONE, "x@a.example")
    shop.end(shop.out[0], None, hold="its octets were altered")
    await settle()
    kept = shop.spool.show(MessageId(ONE))
    assert (kept.state, kept.reason) == (MessageState.HELD, "its octets were altered")
    assert kept.recipients[0].status is RecipientStatus.WAITING


async def test_a_courier_that_raises_has_deferred_the_message() -> None:
    shop = Workshop()
    shop.deliver_error = RuntimeError("no such thing")
    await shop.offer(ONE, "x@a.example")
    await settle()
    (state,) = shop.spool.show(MessageId(ONE)).recipients
    assert state.last is not None
    assert (state.status, state.last.stage) == (RecipientStatus.WAITING, Stage.LOCAL)
    assert "no such thing" in state.last.reason
    assert shop.scheduler.active == 0
    shop.deliver_error = None
    await shop.pass_time(70)
    assert [out.id for out in shop.out] == [ONE]


async def test_a_courier_that_is_done_twice_is_heard_once() -> None:
    shop = Workshop()
    await shop.offer(ONE, "x@a.example")
    (out,) = shop.out
    shop.end(out, DELIVERED)
    shop.end(out, FAILED)
    await settle()
    assert len(shop.spool.settled) == 1
    assert shop.statuses(ONE) == [RecipientStatus.DELIVERED]


async def test_nothing_due_in_a_claim_gives_it_back() -> None:
    shop = Workshop()
    given = await _offered_for_later(shop)
    await settle()
    assert shop.out == []
    assert shop.spool.owner_of(given) == ""
    assert shop.spool.state_of(given) is MessageState.QUEUED
    assert shop.scheduler.active == 0


async def _offered_for_later(shop: Workshop) -> str:
    given = acceptance(
        ONE, shop.clock.now(), recipients=("x@a.example",), owner=OWNER, next_at=shop.clock.now() + 99
    )
    await shop.spool.accept((given,))
    shop.scheduler.offer(Claim(shop.spool.show(given.id), 1))
    return given.id


# -- reports -------------------------------------------------------------------------------------------


async def test_a_report_is_committed_with_the_outcome_that_causes_it() -> None:
    shop = Workshop()
    shop.scheduler.start()
    await shop.offer(ONE, "x@a.example")
    shop.end(shop.out[0], FAILED)
    await settle()
    (settlement, applied) = shop.spool.settled[0]
    assert applied
    assert [spawned.id for spawned in settlement.spawned] == ["dsn0000000001"]
    assert [out.id for out in shop.out] == ["dsn0000000001"]


async def test_the_claim_is_not_given_back_while_a_report_is_being_made() -> None:
    """Two jobs that end in the same turn, the first with a report: the second must not release."""
    shop = Workshop()
    await shop.offer(ONE, "x@a.example", "y@b.example")
    first, second = shop.out
    shop.end(first, FAILED)
    shop.end(second, DELIVERED)
    await settle()
    assert shop.releases(ONE) == [False, True]
    assert [applied for _, applied in shop.spool.settled] == [True, True]
    assert shop.statuses(ONE) == [RecipientStatus.FAILED, RecipientStatus.DELIVERED]


async def test_two_reports_at_a_time_release_once() -> None:
    shop = Workshop()
    shop.report_gate = asyncio.get_running_loop().create_future()
    await shop.offer(ONE, "x@a.example", "y@b.example", notify=Notify.SUCCESS)
    for out in tuple(shop.out):
        shop.end(out, DELIVERED)
    await settle()
    assert shop.spool.settled == []
    shop.report_gate.set_result(None)
    await settle()
    assert shop.releases(ONE) == [False, True]
    assert shop.spool.owner_of(ONE) == ""


async def test_failures_over_several_lanes_are_one_report() -> None:
    shop = Workshop()
    await shop.offer(ONE, "x@a.example", "y@b.example")
    first, second = shop.out
    shop.end(first, FAILED)
    await settle()
    assert shop.reported == []
    assert shop.statuses(ONE) == [RecipientStatus.WAITING] * 2  # settled with its report, and not before
    shop.end(second, FAILED)
    await settle()
    ((_, report),) = shop.reported
    assert [r.index for r in report.recipients] == [0, 1]
    assert shop.statuses(ONE) == [RecipientStatus.FAILED] * 2
    assert shop.releases(ONE) == [False, True]


async def test_a_report_does_not_wait_for_a_slow_lane_for_ever() -> None:
    shop = Workshop()
    await shop.offer(ONE, "x@a.example", "y@b.example")
    shop.end(shop.out[0], FAILED)
    await shop.pass_time(conclusions.OWED_SECONDS + 1)
    assert len(shop.reported) == 1
    assert shop.statuses(ONE) == [RecipientStatus.FAILED, RecipientStatus.WAITING]
    shop.end(shop.out[0], DELIVERED)
    await settle()
    assert shop.spool.state_of(ONE) is MessageState.FINISHED
    assert shop.spool.owner_of(ONE) == ""


async def test_what_a_courier_leaves_goes_on_under_the_same_claim_with_one_report() -> None:
    shop = Workshop()
    await shop.offer(ONE, "x@a.example", "y@a.example", "z@a.example")
    shop.end(shop.out[0], FAILED, None, None)
    await settle()
    assert [r.index for r in shop.out[0].recipients] == [1, 2]
    shop.end(shop.out[0], FAILED, None)
    await settle()
    shop.end(shop.out[0], FAILED)
    await settle()
    assert len(shop.reported) == 1
    assert shop.releases(ONE) == [False, False, True]
    assert shop.spool.epoch_of(ONE) == 1


@pytest.mark.parametrize("error", [DISK, RuntimeError("a fault of ours"), OSError("no Badmail")])
async def test_a_report_that_cannot_be_made_is_made_later(error: Exception) -> None:
    shop = Workshop()
    shop.report_error = error
    await shop.offer(ONE, "x@a.example", "y@a.example")
    shop.end(shop.out[0], FAILED, DELIVERED)
    await settle()
    assert shop.notes.failures == ["report"]
    failed, delivered = shop.spool.show(MessageId(ONE)).recipients
    assert delivered.status is RecipientStatus.DELIVERED
    assert failed.status is RecipientStatus.WAITING
    assert shop.spool.state_of(ONE) is MessageState.QUEUED
    shop.report_error = None
    await shop.pass_time(61)
    assert [tuple(r.index for r in out.recipients) for out in shop.out] == [(0,)]
    shop.end(shop.out[0], FAILED)
    await settle()
    assert [report.kind for _, report in shop.reported] == [ReportKind.FAILURE]
    assert shop.spool.state_of(ONE) is MessageState.FINISHED


async def test_a_notice_of_delay_that_could_not_be_made_is_due_again() -> None:
    shop = Workshop()
    await shop.leave(ONE, "x@a.example")
    shop.clock.advance(5 * 3600)
    shop.scheduler.start()
    await settle()
    shop.report_error = DISK
    shop.end(shop.out[0], DEFERRED)
    await settle()
    shop.report_error = None
    await shop.pass_time(70)
    shop.end(shop.out[0], DEFERRED)
    await settle()
    assert [report.kind for _, report in shop.reported] == [ReportKind.DELAY]
    assert shop.spool.show(MessageId(ONE)).recipients[0].delay_reported


async def test_success_is_reported_as_asked() -> None:
    shop = Workshop()
    await shop.leave(ONE, "x@a.example")
    kept = shop.spool._kept[ONE]
    state = kept.recipients[0]
    kept.recipients[0] = msgspec.structs.replace(
        state, recipient=msgspec.structs.replace(state.recipient, notify=int(Notify.SUCCESS))
    )
    shop.scheduler.start()
    await settle()
    shop.end(shop.out[0], DELIVERED)
    await settle()
    assert [report.kind for _, report in shop.reported] == [ReportKind.SUCCESS]


# -- the disk ------------------------------------------------------------------------------------------


async def test_what_the_disk_refuses_is_settled_when_it_works_again() -> None:
    shop = Workshop()
    shop.spool.fault = DISK
    await _offer_past_fault(shop, ONE, "x@a.example")
    shop.end(shop.out[0], DELIVERED)
    await settle()
    assert shop.notes.failures == ["settle"]
    assert shop.scheduler.active == 1
    await shop.pass_time(6)
    assert shop.spool.refused == 2
    shop.spool.fault = None
    await shop.pass_time(6)
    assert shop.statuses(ONE) == [RecipientStatus.DELIVERED]
    assert shop.scheduler.active == 0


async def _offer_past_fault(shop: Workshop, id: str, *recipients: str) -> None:
    fault, shop.spool.fault = shop.spool.fault, None
    await shop.offer(id, *recipients)
    shop.spool.fault = fault


async def test_a_message_whose_outcome_is_not_settled_is_not_tried_again() -> None:
    shop = Workshop()
    shop.scheduler.start()
    shop.spool.fault = DISK
    await _offer_past_fault(shop, ONE, "x@a.example")
    shop.end(shop.out[0], DELIVERED)
    await shop.pass_time(3000)
    assert shop.out == []
    assert shop.spool.owner_of(ONE) == OWNER


async def test_nothing_overtakes_a_settlement_of_the_same_message() -> None:
    """The first one fails, the disk works again, the second one is decided: it must not give the claim back first."""
    shop = Workshop()
    shop.spool.by_hand = True
    await shop.offer(ONE, "x@a.example", "y@b.example")
    first, second = shop.out
    shop.end(first, DELIVERED)
    shop.end(second, DELIVERED)
    await settle()
    assert len(shop.spool.open) == 1
    shop.spool.answer(error=DISK)
    await shop.pass_time(6)
    shop.spool.answer(error=DISK)
    await shop.pass_time(6)
    shop.spool.by_hand = False
    shop.spool.answer()
    await shop.pass_time(6)
    assert shop.releases(ONE) == [False, True]
    assert [applied for _, applied in shop.spool.settled] == [True, True]
    assert shop.scheduler.active == 0


async def test_while_the_disk_refuses_others_wait_behind_in_order() -> None:
    shop = Workshop()
    shop.spool.fault = DISK
    await _offer_past_fault(shop, ONE, "x@a.example")
    await _offer_past_fault(shop, TWO, "y@a.example")
    shop.end(shop.out[0], DELIVERED)
    await settle()
    shop.end(shop.out[0], DELIVERED)
    await settle()
    assert shop.spool.refused == 1, "a disk that refuses is not asked for every message"
    shop.spool.fault = None
    await shop.pass_time(6)
    assert [settlement.id for settlement, _ in shop.spool.settled] == [ONE, TWO]


async def test_one_settlement_that_can_never_be_stored_does_not_keep_the_others() -> None:
    shop = Workshop()
    await shop.offer(ONE, "x@a.example")
    await shop.offer(TWO, "y@a.example")
    shop.spool.settle_error = ValueError("cannot be encoded")
    shop.end(shop.out[0], DELIVERED)
    shop.spool.settle_error = None
    shop.spool.by_hand = True
    shop.end(shop.out[0], DELIVERED)
    await shop.pass_time(6)
    assert [batch[0].id for batch, _ in shop.spool.open] == [ONE, TWO]
    shop.spool.answer(0, ValueError("cannot be encoded"))
    shop.spool.answer(0)
    await settle()
    assert shop.statuses(TWO) == [RecipientStatus.DELIVERED]


# -- the timetable -------------------------------------------------------------------------------------


async def test_a_deferred_message_comes_back_when_it_is_due() -> None:
    shop = Workshop()
    shop.scheduler.start()
    await shop.offer(ONE, "x@a.example")
    shop.end(shop.out[0], DEFERRED)
    await settle()
    assert shop.spool.owner_of(ONE) == ""
    await shop.pass_time(59)
    assert shop.out == []
    await shop.pass_time(2)
    assert [out.claim.epoch for out in shop.out] == [2]


async def test_what_lies_in_the_spool_is_claimed_at_the_start_and_when_due() -> None:
    shop = Workshop()
    await shop.leave(ONE, "x@a.example")
    await shop.leave(TWO, "y@a.example", next_at=shop.clock.now() + 40)
    shop.scheduler.start()
    await settle()
    assert [out.id for out in shop.out] == [ONE]
    await shop.pass_time(41)
    assert [out.id for out in shop.out] == [ONE, TWO]


async def test_an_earlier_time_moves_the_timer() -> None:
    shop = Workshop()
    await shop.leave(ONE, "x@a.example", next_at=shop.clock.now() + 1000)
    shop.scheduler.start()
    await settle()
    await shop.offer(TWO, "y@a.example")
    shop.end(shop.out[0], DEFERRED)
    await shop.pass_time(61)
    assert [out.id for out in shop.out] == [TWO]


async def test_a_kick_looks_at_once() -> None:
    shop = Workshop()
    shop.scheduler.start()
    await settle()
    await shop.leave(ONE, "x@a.example")
    await settle()
    assert shop.out == []
    shop.scheduler.kick()
    await settle()
    assert [out.id for out in shop.out] == [ONE]


async def test_a_queue_that_looked_empty_is_looked_at_again() -> None:
    shop = Workshop()
    shop.scheduler.start()
    await shop.leave(ONE, "x@a.example")
    await shop.pass_time(61)
    assert [out.id for out in shop.out] == [ONE]


@pytest.mark.parametrize("error", [DISK, RuntimeError("a fault of ours")])
async def test_a_claim_that_fails_is_tried_again(error: Exception) -> None:
    shop = Workshop()
    shop.spool.claim_error = error
    await shop.leave(ONE, "x@a.example")
    shop.scheduler.start()
    await settle()
    assert shop.notes.failures == ["claim"]
    shop.spool.claim_error = None
    await shop.pass_time(6)
    assert [out.id for out in shop.out] == [ONE]


async def test_leases_are_renewed_while_something_is_at_work() -> None:
    shop = Workshop()
    shop.scheduler.start()
    await shop.pass_time(700)
    assert shop.spool.renewals == []
    await shop.offer(ONE, "x@a.example")
    began = shop.clock.now()
    await shop.pass_time(2000)
    assert len(shop.spool.renewals) == 10
    assert all(until > began + 600 for until in shop.spool.renewals)
    shop.end(shop.out[0], DELIVERED)
    await settle()
    assert shop.statuses(ONE) == [RecipientStatus.DELIVERED]


# -- bounds --------------------------------------------------------------------------------------------


async def test_a_lane_has_no_more_at_work_than_it_may() -> None:
    shop = Workshop(limit=2)
    for number in range(5):
        await shop.offer(f"m{number:012}", "x@a.example")
    assert len(shop.out) == 2
    assert len(shop.spool.flying) == 2
    shop.end(shop.out[0], DELIVERED)
    await settle()
    assert [out.id for out in shop.out] == ["m000000000001", "m000000000002"]


async def test_the_ready_list_is_bounded_and_filled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "READY_LIMIT", 16)
    monkeypatch.setattr(claims, "CLAIM_BATCH", 5)
    shop = Workshop(limit=1)
    for number in range(60):
        await shop.leave(f"m{number:012}", "x@a.example")
    shop.scheduler.start()
    await settle()
    seen = []
    most = 0
    while shop.out:
        most = max(most, shop.scheduler.active)
        seen.append(shop.out[0].id)
        shop.end(shop.out[0], DELIVERED)
        await settle()
    assert seen == [f"m{number:012}" for number in range(60)]
    assert most <= 16
    assert shop.spool.claims > 4


async def test_beyond_the_bound_fresh_messages_are_left_in_the_spool_and_claimed_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "READY_LIMIT", 4)
    shop = Workshop(limit=1, is_single=True)
    shop.scheduler.start()
    await settle()
    offered = 0
    while shop.scheduler.has_room:
        await shop.offer(f"m{offered:012}", "x@a.example")
        offered += 1
    assert offered == 5
    await shop.leave(TWO, "y@a.example")
    while shop.out:
        shop.end(shop.out[0], DELIVERED)
        await settle()
    assert shop.statuses(TWO) == [RecipientStatus.DELIVERED]


async def test_octets_in_memory_are_bounded_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Workshop()
    await shop.offer(ONE, "x@a.example")
    octets = shop.scheduler._desk.octets
    assert octets > 0
    monkeypatch.setattr(module, "HELD_OCTETS", octets)
    await shop.offer(TWO, "y@a.example")
    assert [out.claim.arrival is None for out in shop.out] == [False, True]
    for out in tuple(shop.out):
        shop.end(out, DELIVERED)
    await settle()
    assert shop.scheduler._desk.octets == 0


# -- by hand -------------------------------------------------------------------------------------------


async def test_a_held_message_that_is_ready_is_not_started() -> None:
    shop = Workshop(limit=1)
    await shop.offer(ONE, "x@a.example")
    await shop.offer(TWO, "y@a.example")
    await shop.spool.hold([MessageId(TWO)], "look at it")
    shop.scheduler.forget([MessageId(TWO)])
    shop.end(shop.out[0], DELIVERED)
    await settle()
    assert shop.out == []
    assert shop.scheduler.active == 0
    assert shop.spool.state_of(TWO) is MessageState.HELD
    await shop.spool.release([MessageId(TWO)], shop.clock.now())
    shop.scheduler.kick()
    await settle()
    assert [out.id for out in shop.out] == [TWO]


async def test_one_that_is_being_held_is_not_started_before_the_scheduler_is_told() -> None:
    """Between the transaction that takes the claim and its sync, a start would send what is then held."""
    shop = Workshop(limit=1)
    await shop.offer(ONE, "x@a.example")
    await shop.offer(TWO, "y@a.example")
    await shop.spool.hold([MessageId(TWO)], "look at it")
    shop.end(shop.out[0], DELIVERED)
    await settle()
    assert shop.out == []
    assert shop.spool.state_of(TWO) is MessageState.HELD


async def test_a_message_released_while_its_other_route_is_out_is_not_kept_for_ever() -> None:
    """Held and released again: the job that was dropped must not leave the claim with us, renewed without end."""
    shop = Workshop(limit=1)
    shop.scheduler.start()
    await shop.offer(TWO, "w@b.example")
    await shop.offer(ONE, "x@a.example", "y@b.example")
    other, out = shop.out
    assert (other.id, out.route) == (TWO, "a")
    await shop.spool.hold([MessageId(ONE)], "look at it")
    shop.scheduler.forget([MessageId(ONE)])
    shop.end(out, DELIVERED)
    await settle()
    await shop.spool.release([MessageId(ONE)], shop.clock.now())
    shop.end(other, DELIVERED)
    await settle()
    shop.scheduler.kick()
    await settle()
    assert [(o.id, o.route) for o in shop.out] == [(ONE, "b")]


async def test_what_is_on_the_wire_goes_on_when_it_is_deleted() -> None:
    shop = Workshop()
    await shop.offer(ONE, "x@a.example")
    await shop.spool.delete([MessageId(ONE)], shop.clock.now())
    shop.scheduler.forget([MessageId(ONE)])
    shop.end(shop.out[0], DELIVERED)
    await settle()
    assert shop.statuses(ONE) == [RecipientStatus.DELIVERED]
    assert shop.scheduler.active == 0


# -- the end -------------------------------------------------------------------------------------------


async def test_stop_waits_for_what_is_on_the_wire_and_starts_nothing() -> None:
    shop = Workshop(limit=1)
    shop.scheduler.start()
    await shop.offer(ONE, "x@a.example")
    await shop.offer(TWO, "y@a.example")
    stopping = asyncio.ensure_future(shop.scheduler.stop(30))
    await settle()
    assert not stopping.done()
    assert not shop.scheduler.has_room
    shop.end(shop.out[0], DELIVERED)
    await settle()
    assert stopping.done()
    assert shop.statuses(ONE) == [RecipientStatus.DELIVERED]
    assert shop.statuses(TWO) == [RecipientStatus.WAITING]
    assert shop.out == []


async def test_stop_waits_no_longer_than_it_may() -> None:
    shop = Workshop()
    await shop.offer(ONE, "x@a.example")
    stopping = asyncio.ensure_future(shop.scheduler.stop(30))
    await shop.pass_time(31)
    assert stopping.done()


async def test_a_claim_that_comes_while_stopping_is_left_in_the_spool() -> None:
    shop = Workshop()
    shop.spool.claim_gate = asyncio.get_running_loop().create_future()
    await shop.leave(ONE, "x@a.example")
    shop.scheduler.start()
    await settle()
    await shop.offer(TWO, "y@a.example")
    stopping = asyncio.ensure_future(shop.scheduler.stop(30))
    await settle()
    shop.spool.claim_gate.set_result(None)
    await settle()
    assert [out.id for out in shop.out] == [TWO]
    shop.end(shop.out[0], DELIVERED)
    await settle()
    assert stopping.done(), "it would wait for a message that nobody tries"


async def test_an_outcome_whose_report_is_cut_off_by_the_stop_is_settled() -> None:
    shop = Workshop()
    shop.report_gate = asyncio.get_running_loop().create_future()
    await shop.offer(ONE, "x@a.example", "y@a.example")
    shop.end(shop.out[0], DELIVERED, FAILED)
    stopping = asyncio.ensure_future(shop.scheduler.stop(30))
    await shop.pass_time(31)
    assert stopping.done()
    assert shop.statuses(ONE) == [RecipientStatus.DELIVERED, RecipientStatus.WAITING]


async def test_what_the_disk_refused_is_handed_in_once_more_at_the_end() -> None:
    shop = Workshop()
    await shop.offer(ONE, "x@a.example")
    shop.spool.fault = DISK
    shop.end(shop.out[0], DELIVERED)
    await settle()
    shop.spool.fault = None
    await asyncio.ensure_future(_stop_now(shop))
    assert shop.statuses(ONE) == [RecipientStatus.DELIVERED]


async def _stop_now(shop: Workshop) -> None:
    stopping = asyncio.ensure_future(shop.scheduler.stop(1))
    await shop.pass_time(2)
    await stopping
