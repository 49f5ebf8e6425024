"""Return to sender and reroute, at a real spool: one settlement each, and nothing of what is on the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec
import pytest

from lonedot.admin.operations import Desk
from lonedot.admin.queue_operations import BOUNCE, REROUTE, finish_bounces
from lonedot.admin.values import AdminError, BounceArguments, RerouteArguments
from lonedot.queue.plan import Report, ReportKind
from lonedot.spool.interface import (
    Acceptance,
    Claim,
    Filter,
    MessageState,
    RecipientStatus,
    SpoolFault,
    SpoolPaths,
)
from lonedot.spool.sqlite import Policy, SqliteSpool, open_spool
from lonedot.terms.envelope import Notify
from lonedot.terms.ids import IdSource, MessageId
from lonedot.testing.clock import ManualClock
from lonedot.testing.messages import acceptance
from tests.unit.admin.spool_double import Hooks

NOWHERE = MessageId("0000000000000")


class Reports:
    """Makes one message for each message that fails."""

    def __init__(self, ids: IdSource, clock: ManualClock) -> None:
        self._ids = ids
        self._clock = clock
        self.made: list[Sequence[Report]] = []
        self.fails = False

    async def report(self, claim: Claim, reports: Sequence[Report]) -> Sequence[Acceptance]:
        if self.fails:
            raise SpoolFault("Badmail could not be written")
        self.made.append(reports)
        now = self._clock.now()
        return [acceptance(self._ids.next(now), now, sender="") for _ in reports]


class Office:
    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        self.ids = IdSource()
        self.spool: SqliteSpool = open_spool(SpoolPaths(folder), self.clock, Policy(inline_sync=True))
        self.hooks = Hooks()
        self.reports = Reports(self.ids, self.clock)
        self.desk = Desk(
            self.spool,
            self.clock,
            hooks=self.hooks,
            expire_seconds={"out": 1.0, "spare": 1.0},
            reporter=self.reports,
        )

    async def take(self, state: MessageState = MessageState.QUEUED) -> MessageId:
        now = self.clock.now()
        new = acceptance(self.ids.next(now), now, recipients=("a@example.org", "b@example.org"), state=state)
        await self.spool.accept([new])
        return new.id

    def live(self) -> list[str]:
        return [row.id for row in self.spool.listing(Filter())]


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    made = Office(tmp_path / "spool")
    yield made
    await made.spool.close()


class TestBounce:
    @pytest.mark.parametrize("state", [MessageState.QUEUED, MessageState.HELD])
    async def test_it_is_finished_and_its_sender_is_told_in_one_step(
        self, office: Office, state: MessageState
    ) -> None:
        id = await office.take(state)
        changed = await BOUNCE.run(office.desk, BounceArguments((id,), "the printer was sold"))
        assert changed.done == (id,) and not changed.left
        stored = office.spool.show(id)
        assert stored.state is MessageState.FINISHED
        assert {one.status for one in stored.recipients} == {RecipientStatus.FAILED}
        last = stored.recipients[0].last
        assert last is not None and (last.reason, last.status) == ("the printer was sold", "5.7.1")
        ((report,),) = office.reports.made
        assert report.kind is ReportKind.FAILURE and len(report.recipients) == 2
        (told,) = office.live()
        assert told != id and office.spool.show(MessageId(told)).state is MessageState.QUEUED
        assert office.hooks.forgotten == [id]

    async def test_who_wants_no_report_gets_none(self, office: Office) -> None:
        now = office.clock.now()
        new = acceptance(office.ids.next(now), now)
        (state,) = new.recipients
        quiet = msgspec.structs.replace(state.recipient, notify=Notify.NEVER)
        new = msgspec.structs.replace(new, recipients=(msgspec.structs.replace(state, recipient=quiet),))
        await office.spool.accept([new])
        await BOUNCE.run(office.desk, BounceArguments((new.id,)))
        assert office.reports.made == [()] and office.live() == []

    async def test_what_is_on_the_wire_is_left(self, office: Office) -> None:
        id = await office.take()
        (claim,) = await office.spool.claim("relay", office.clock.now(), 60, 1)
        office.spool.in_flight(id)
        changed = await BOUNCE.run(office.desk, BounceArguments((id, NOWHERE)))
        assert changed.done == ()
        assert [(one.id, one.why) for one in changed.left] == [
            (id, "it is being sent right now; try again"),
            (NOWHERE, "there is no such message"),
        ]
        assert office.spool.show(id).recipients[0].status is RecipientStatus.WAITING
        assert claim.epoch == 1 and office.reports.made == []

    async def test_a_report_that_cannot_be_made_leaves_the_message_as_it_was(self, office: Office) -> None:
        id = await office.take(MessageState.HELD)
        before = office.spool.show(id)
        office.reports.fails = True
        changed = await BOUNCE.run(office.desk, BounceArguments((id,)))
        assert changed.left[0].why == "Badmail could not be written"
        assert office.spool.show(id) == before

    async def test_with_the_relay_down_it_is_held_until_the_relay_returns_it(self, office: Office) -> None:
        id, held, kept = await office.take(), await office.take(MessageState.HELD), await office.take()
        await office.spool.hold((held,), "looked at")
        down = Desk(office.spool, office.clock)
        changed = await BOUNCE.run(down, BounceArguments((id, held, kept, NOWHERE), "sold; gone"))
        assert (changed.done, changed.later) == ((id, held, kept), True)
        assert changed.left[0].why == "there is no such message"
        assert office.spool.show(held).reason.startswith("looked at; to be returned")
        await office.spool.release((kept,), office.clock.now())
        await office.spool.hold((id,), "again by hand")
        assert await finish_bounces(office.desk) == 2
        for one in (id, held):
            stored = office.spool.show(one)
            last = stored.recipients[0].last
            assert last is not None and last.reason == "sold, gone"
            assert stored.state is MessageState.FINISHED
        assert office.spool.show(kept).state is MessageState.QUEUED
        assert len(office.reports.made) == 2
        assert await finish_bounces(office.desk) == 0

    async def test_what_cannot_be_returned_at_a_start_waits_for_the_next(self, office: Office) -> None:
        id = await office.take()
        await BOUNCE.run(Desk(office.spool, office.clock), BounceArguments((id,)))
        office.reports.fails = True
        assert await finish_bounces(office.desk) == 0
        assert office.spool.show(id).state is MessageState.HELD
        office.reports.fails = False
        assert await finish_bounces(office.desk) == 1


class TestReroute:
    async def test_all_that_waits_is_due_over_the_route(self, office: Office) -> None:
        id = await office.take()
        assert (await REROUTE.run(office.desk, RerouteArguments((id,), "spare"))).done == (id,)
        assert [one.redirect for one in office.spool.show(id).recipients] == ["spare", "spare"]
        assert office.hooks.kicked == [id]
        assert list(await office.spool.select(Filter(route="spare"))) == [id]
        (claim,) = await office.spool.claim("relay", office.clock.now(), 60, 1)
        assert claim.message.id == id

    async def test_what_is_held_stays_held(self, office: Office) -> None:
        id = await office.take(MessageState.HELD)
        reason = office.spool.show(id).reason
        await REROUTE.run(office.desk, RerouteArguments((id,), "spare"))
        stored = office.spool.show(id)
        assert (stored.state, stored.reason) == (MessageState.HELD, reason)
        assert stored.recipients[0].redirect == "spare"

    async def test_back_to_the_route_of_its_address(self, office: Office) -> None:
        id = await office.take()
        for name in ("spare", ""):
            await REROUTE.run(office.desk, RerouteArguments((id,), name))
        assert office.spool.show(id).recipients[0].redirect == ""

    async def test_a_route_that_is_not_there(self, office: Office) -> None:
        id = await office.take()
        with pytest.raises(AdminError, match=r"there is no route 'sapre'.*out, spare"):
            await REROUTE.run(office.desk, RerouteArguments((id,), "sapre"))
