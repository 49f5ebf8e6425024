"""What every spool must do, whatever it is made of. A backend's test inherits `SpoolContract` and makes one."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from lonedot.message.ledger import Action, EnvelopeChange
from lonedot.spool.interface import (
    Acceptance,
    Filter,
    KeyUsed,
    MessageState,
    NoSuchMessage,
    Progress,
    RecipientState,
    RecipientStatus,
    Settlement,
    Spool,
)
from lonedot.terms.address import Address
from lonedot.terms.envelope import Recipient
from lonedot.terms.ids import IdSource, MessageId
from lonedot.terms.outcome import Result
from lonedot.testing.clock import ManualClock
from lonedot.testing.messages import acceptance, attempt, delivered, entry, waiting

QUEUED, HELD, FINISHED = MessageState.QUEUED, MessageState.HELD, MessageState.FINISHED
EVERY = Filter(states=())
LANE_DUE_SECONDS = 3600.0


class SpoolContract(ABC):
    """The contract. Content is kept when its ledger is remarkable, and only then (policy `damaged`)."""

    @abstractmethod
    def make(self, folder: Path, clock: ManualClock) -> Spool: ...

    @pytest.fixture
    def clock(self) -> ManualClock:
        return ManualClock()

    @pytest.fixture
    def ids(self) -> IdSource:
        return IdSource()

    @pytest.fixture
    async def spool(self, tmp_path: Path, clock: ManualClock) -> AsyncIterator[Spool]:
        spool = self.make(tmp_path, clock)
        yield spool
        await spool.close()

    # -- accepting -------------------------------------------------------------------------------------

    async def test_what_was_accepted_can_be_shown_and_read(
        self, spool: Spool, clock: ManualClock, ids: IdSource
    ) -> None:
        given = acceptance(
            ids.next(clock.now()), clock.now(), body=b"a\r\n.b\r\n\xe9\r\n", recipients=("a@x.org", "b@x.org")
        )
        await spool.accept([given])
        stored = spool.show(given.id)
        assert stored.state is QUEUED
        assert stored.envelope == given.envelope
        assert stored.facts == given.facts
        assert stored.ledger == given.ledger
        assert stored.recipients == given.recipients
        assert (stored.size, stored.accepted_at, stored.finished_at) == (given.size, given.accepted_at, 0.0)
        assert stored.has_content
        content = spool.content(given.id)
        assert content.octets() == given.arrival.octets()
        assert (content.head_measure, content.body_measure) == (
            given.arrival.head_measure,
            given.arrival.body_measure,
        )

    async def test_a_batch_is_taken_together(self, spool: Spool, clock: ManualClock, ids: IdSource) -> None:
        batch = [acceptance(ids.next(clock.now()), clock.now()) for _ in range(5)]
        await spool.accept(batch)
        assert [row.id for row in spool.listing(Filter())] == [given.id for given in batch]

    async def test_many_at_once_are_all_there(self, spool: Spool, clock: ManualClock, ids: IdSource) -> None:
        batch = [acceptance(ids.next(clock.now()), clock.now(), body=b"%d\r\n" % n) for n in range(400)]
        await asyncio.gather(*(spool.accept([given]) for given in batch))
        assert spool.counts()[QUEUED] == 400
        for number, given in enumerate(batch):
            assert spool.content(given.id).body.octets() == b"%d\r\n" % number

    async def test_a_large_body_is_written_while_it_arrives(
        self, spool: Spool, clock: ManualClock, ids: IdSource
    ) -> None:
        given = _large(spool, ids, clock, b"0123456789abcdef" * 8192)
        await spool.accept([given])
        assert spool.content(given.id).body.octets() == b"0123456789abcdef" * 8192
        assert spool.content(given.id).body.size == 131072

    async def test_a_large_body_in_memory_is_taken_too(
        self, spool: Spool, clock: ManualClock, ids: IdSource
    ) -> None:
        given = acceptance(ids.next(clock.now()), clock.now(), body=b"x" * 300_000)
        await spool.accept([given])
        assert spool.content(given.id).octets() == given.arrival.octets()

    async def test_a_body_may_be_discarded_twice(
        self, spool: Spool, clock: ManualClock, ids: IdSource
    ) -> None:
        writer = spool.body_writer(MessageId(ids.next(clock.now())))
        writer.write(b"half")
        writer.discard()
        writer.discard()
        assert spool.counts()[QUEUED] == 0

    async def test_a_key_is_taken_once(self, spool: Spool, clock: ManualClock, ids: IdSource) -> None:
        await spool.accept([acceptance(ids.next(clock.now()), clock.now(), key=b"file-1")])
        assert spool.has_key(b"file-1")
        assert not spool.has_key(b"file-2")
        other = acceptance(ids.next(clock.now()), clock.now())
        again = acceptance(ids.next(clock.now()), clock.now(), key=b"file-1")
        with pytest.raises(KeyUsed):
            await spool.accept([other, again])
        with pytest.raises(NoSuchMessage):
            spool.show(other.id)

    async def test_a_key_on_its_way_is_taken_once(
        self, spool: Spool, clock: ManualClock, ids: IdSource
    ) -> None:
        batch = [acceptance(ids.next(clock.now()), clock.now(), key=b"same") for _ in range(2)]
        done = await asyncio.gather(*(spool.accept([given]) for given in batch), return_exceptions=True)
        assert [type(result) for result in done] == [type(None), KeyUsed]
        assert spool.counts()[QUEUED] == 1

    async def test_a_message_may_be_accepted_held(
        self, spool: Spool, clock: ManualClock, ids: IdSource
    ) -> None:
        given = acceptance(ids.next(clock.now()), clock.now(), state=HELD, owner="me")
        await spool.accept([msgspec.structs.replace(given, reason="a sink says so")])
        assert spool.show(given.id).reason == "a sink says so"
        assert await spool.claim("me", clock.now(), 60, 10) == []

    async def test_a_message_without_a_waiting_recipient_is_finished(
        self, spool: Spool, clock: ManualClock, ids: IdSource
    ) -> None:
        given = acceptance(ids.next(clock.now()), clock.now())
        gone = tuple(msgspec.structs.replace(r, status=RecipientStatus.DELETED) for r in given.recipients)
        await spool.accept([msgspec.structs.replace(given, recipients=gone)])
        stored = spool.show(given.id)
        assert (stored.state, stored.finished_at, stored.has_content) == (FINISHED, clock.now(), False)

    # -- claiming --------------------------------------------------------------------------------------

    async def test_due_messages_are_claimed_once_oldest_due_first(
        self, spool: Spool, clock: ManualClock, ids: IdSource
    ) -> None:
        now = clock.now()
        late = acceptance(ids.next(now), now, next_at=now - 1)
        early = acceptance(ids.next(now), now, next_at=now - 2)
        later = acceptance(ids.next(now), now, next_at=now + 5)
        await spool.accept([late, early, later])
        assert spool.next_due() == now - 2
        first = await spool.claim("me", now, 60, 1)
        assert [(claim.message.id, claim.epoch) for claim in first] == [(early.id, 1)]
        second = await spool.claim("you", now, 60, 10)
        assert [claim.message.id for claim in second] == [late.id]
        assert second[0].message == msgspec.structs.replace(spool.show(late.id), attempts=())
        assert spool.next_due() == now + 5
        assert await spool.claim("me", now, 60, 10) == []

    async def test_accepted_with_an_owner_is_claimed_from_the_first_moment(
        self, spool: Spool, clock: ManualClock, ids: IdSource
    ) -> None:
        given = acceptance(ids.next(clock.now()), clock.now(), owner="me")
        await spool.accept([given])
        assert spool.next_due() is None
        assert await spool.claim("you", clock.now(), 60, 10) == []
        assert await spool.settle([delivered(given, 1, clock.now())]) == [True]
        assert spool.show(given.id).state is FINISHED

    async def test_a_lease_that_has_ended_is_taken_over(
        self, spool: Spool, clock: ManualClock, ids: IdSource
    ) -> None:
        given = acceptance(ids.next(clock.now()), clock.now(), owner="me", lease_seconds=60)
        await spool.accept([given])
        clock.advance(61)
        (claim,) = await spool.claim("you", clock.now(), 60, 10)
        assert claim.epoch == 2
        late = msgspec.structs.replace(
            delivered(given, 1, clock.now()), spawned=(acceptance(ids.next(clock.now()), clock.now()),)
        )
        assert await spool.settle([late]) == [False]
        assert spool.show(given.id).recipients == given.recipients
        assert spool.show(given.id).attempts == ()
        assert sum(spool.counts().values()) == 1
        assert await spool.settle([delivered(given, 2, clock.now())]) == [True]

    async def test_a_renewed_lease_is_not_taken_over(
        self, spool: Spool, clock: ManualClock, ids: IdSource
    ) -> None:
        given = acceptance(ids.next(clock.now()), clock.now(), owner="me", lease_seconds=60)
        await spool.accept([given])
        await spool.renew("me", clock.now() + 120)
        clock.advance(61)
        assert await spool.claim("you", clock.now(), 60, 10) == []
        clock.advance(60)
        assert [claim.epoch for claim in await spool.claim("you", clock.now(), 60, 10)] == [2]

    # -- settling --------------------------------------------------------------------------------------

    async def test_an_outcome_is_recorded(self, spool: Spool, clock: ManualClock, ids: IdSource) -> None:
        given = acceptance(ids.next(clock.now()), clock.now(), owner="me")
        await spool.accept([given])
        settlement = msgspec.structs.replace(
            delivered(given, 1, clock.now() + 1), entries=(entry(given.arrival, binding="late"),)
        )
        assert await spool.settle([settlement]) == [True]
        stored = spool.show(given.id)
        assert (stored.state, stored.finished_at) == (FINISHED, clock.now() + 1)
        assert stored.recipients == settlement.recipients
        assert stored.attempts == settlement.attempts
        assert [line.binding for line in stored.ledger] == ["lonedot", "late"]
        assert not stored.has_content
        with pytest.raises(NoSuchMessage):
            spool.content(given.id)
        assert await spool.settle([settlement]) == [False]

    async def test_content_stays_when_something_was_found(
        self, spool: Spool, clock: ManualClock, ids: IdSource
    ) -> None:
        undone = acceptance(ids.next(clock.now()), clock.now(), owner="me", action=Action.UNDONE)
        later = acceptance(ids.next(clock.now()), clock.now(), owner="me")
        await spool.accept([undone, later])
        settled = msgspec.structs.replace(
            delivered(later, 1, clock.now()), entries=(entry(later.arrival, Action.REPAIRED),)
        )
        assert await spool.settle([delivered(undone, 1, clock.now()), settled]) == [True, True]
        assert spool.content(undone.id).octets() == undone.arrival.octets()
        assert spool.content(later.id).octets() == later.arrival.octets()

    async def test_a_deferred_message_is_due_again(
        self, spool: Spool, clock: ManualClock, ids: IdSource
    ) -> None:
        given = acceptance(ids.next(clock.now()), clock.now(), owner="me")
        await spool.accept([given])
        assert await spool.settle([waiting(given, 1, clock.now(), clock.now() + 300)]) == [True]
        assert spool.next_due() == clock.now() + 300
        assert await spool.claim("me", clock.now() + 299, 60, 10) == []
        (claim,) = await spool.claim("me", clock.now() + 300, 60, 10)
        assert (claim.epoch, claim.message.recipients[0].attempts) == (2, 1)
        assert await spool.settle([delivered(given, 2, clock.now() + 301)]) == [True]
        assert len(spool.show(given.id).attempts) == 2

    async def test_what_an_outcome_causes_comes_with_it(
        self, spool: Spool, clock: ManualClock, ids: IdSource
    ) -> None:
        given = acceptance(ids.next(clock.now()), clock.now(), owner="me")
        await spool.accept([given])
        report = acceptance(ids.next(clock.now()), clock.now(), sender="", body=b"It failed.\r\n")
        settlement = msgspec.structs.replace(delivered(given, 1, clock.now()), spawned=(report,))
        assert await spool.settle([settlement]) == [True]
        assert spool.content(report.id).body.octets() == b"It failed.\r\n"
        assert spool.listing(Filter())[0].sender == "<>"
        assert [claim.message.id for claim in await spool.claim("me", clock.now(), 60, 10)] == [report.id]

    async def test_how_far_a_message_in_transport_has_come_is_kept(
        self, spool: Spool, clock: ManualClock, ids: IdSource
    ) -> None:
        begun, on = (
            Progress(waits_for="scanner"),
            Progress("arrival", 7, "scanner", "{1}", "archive", 2, "no"),
        )
        new = acceptance(ids.next(clock.now()), clock.now(), owner="me", recipients=("a@x.org", "b@y.org"))
        given = msgspec.structs.replace(new, transport=begun)
        await spool.accept([given])
        assert spool.show(given.id).transport == begun
        assert [(row.waits_for, row.put_off) for row in spool.listing(Filter())] == [("scanner", "")]
        step = Settlement(given.id, 1, entries=(entry(given.arrival),), release=False, transport=on)
        assert (
            await spool.settle([step, msgspec.structs.replace(step, transport=msgspec.UNSET)]) == [True] * 2
        )
        assert spool.show(given.id).transport == on
        assert await spool.settle([Settlement(given.id, 1)]) == [True]
        (claim,) = await spool.claim("me", clock.now(), 60, 10)
        assert claim.message.transport == on
        assert [(row.waits_for, row.put_off) for row in spool.listing(Filter())] == [("archive", "no")]
        await spool.hold([given.id], "wait")
        assert spool.show(given.id).transport == on
        await spool.release([given.id], clock.now())
        (claim,) = await spool.claim("me", clock.now(), 60, 10)
        assert await spool.settle([Settlement(given.id, claim.epoch, transport=None)]) == [True]
        assert spool.show(given.id).transport is None

    async def test_sinks_may_change_the_envelope_of_a_message_in_custody(
        self, spool: Spool, clock: ManualClock, ids: IdSource
    ) -> None:
        new = acceptance(ids.next(clock.now()), clock.now(), owner="me", recipients=("a@x.org", "b@y.org"))
        apart = msgspec.structs.replace(entry(new.arrival, binding="splitter"), scope=(1,))
        given = msgspec.structs.replace(new, ledger=(*new.ledger, apart), transport=Progress())
        await spool.accept([given])
        late = RecipientState(2, Recipient(Address(b"c@z.org")), redirect="out", joined=(1, 2))
        gone = RecipientState(0, given.recipients[0].recipient, RecipientStatus.DELETED)
        changes = (EnvelopeChange((b"c@z.org",), (b"a@x.org",), b"new@x.org"),)
        changing = msgspec.structs.replace(entry(given.arrival), changes=changes)
        settlement = Settlement(given.id, 1, (gone, late), entries=(changing,), transport=None)
        assert await spool.settle([settlement]) == [True]
        shown = spool.show(given.id)
        (claim,) = await spool.claim("me", clock.now(), 60, 10)
        for stored in (shown, claim.message):
            assert stored.recipients == (gone, given.recipients[1], late)
            assert stored.envelope.reverse_path.text == "new@x.org"
            assert [r.address.text for r in stored.envelope.recipients] == ["a@x.org", "b@y.org", "c@z.org"]
            assert [line.scope for line in stored.ledger] == [(), (1, 2), ()]
        (row,) = spool.listing(Filter())
        assert row.sender == "new@x.org"

    async def test_the_first_reason_of_a_hold_stays(
        self, spool: Spool, clock: ManualClock, ids: IdSource
    ) -> None:
        given = acceptance(ids.next(clock.now()), clock.now())
        await spool.accept([given])
        for reason in ("a scanner failed", "by hand", "by hand"):
            assert await spool.hold([given.id], reason) == [True]
        assert spool.show(given.id).reason == "a scanner failed; by hand"

    async def test_recipients_are_settled_in_parts(
        self, spool: Spool, clock: ManualClock, ids: IdSource
    ) -> None:
        given = acceptance(
            ids.next(clock.now()), clock.now(), owner="me", recipients=("a@x.org", "b@y.org", "c@z.org")
        )
        await spool.accept([given])
        whole = delivered(given, 1, clock.now())
        parts = [
            Settlement(
                given.id,
                1,
                (recipient,),
                (attempt(clock.now(), recipient.index),),
                release=recipient.index == 2,
                at=clock.now(),
            )
            for recipient in whole.recipients
        ]
        assert await spool.settle([parts[0]]) == [True]
        assert spool.show(given.id).state is QUEUED
        assert await spool.settle(parts[1:]) == [True, True]
        stored = spool.show(given.id)
        assert stored.state is FINISHED
        assert stored.recipients == whole.recipients
        assert [dict(tried.outcomes).keys() for tried in stored.attempts] == [{0}, {1}, {2}]

    async def test_no_recipient_is_ended_by_omission(
        self, spool: Spool, clock: ManualClock, ids: IdSource
    ) -> None:
        given = acceptance(ids.next(clock.now()), clock.now(), owner="me", recipients=("a@x.org", "b@y.org"))
        await spool.accept([given])
        whole = delivered(given, 1, clock.now())
        part = msgspec.structs.replace(whole, recipients=whole.recipients[:1])
        assert await spool.settle([part]) == [True]
        stored = spool.show(given.id)
        assert stored.state is QUEUED
        assert [r.status for r in stored.recipients] == [RecipientStatus.DELIVERED, RecipientStatus.WAITING]
        assert len(await spool.claim("me", clock.now(), 60, 10)) == 1

    async def test_settling_what_was_never_there_changes_nothing(
        self, spool: Spool, clock: ManualClock, ids: IdSource
    ) -> None:
        assert await spool.settle([delivered(acceptance(ids.next(clock.now()), 1.0), 1, 1.0)]) == [False]
        assert sum(spool.counts().values()) == 0

    # -- by hand ---------------------------------------------------------------------------------------

    async def test_held_and_released(self, spool: Spool, clock: ManualClock, ids: IdSource) -> None:
        given = acceptance(ids.next(clock.now()), clock.now(), next_at=clock.now() + 900)
        await spool.accept([given])
        assert await spool.hold([given.id, MessageId("no id")], "looking into it") == [True, False]
        assert (spool.show(given.id).state, spool.show(given.id).reason) == (HELD, "looking into it")
        assert spool.next_due() is None
        assert await spool.claim("me", clock.now() + 1000, 60, 10) == []
        assert await spool.retry([given.id], clock.now()) == [False]
        assert await spool.release([given.id], clock.now()) == [True]
        assert await spool.release([given.id], clock.now()) == [False]
        assert spool.show(given.id).reason == ""
        assert len(await spool.claim("me", clock.now(), 60, 10)) == 1

    async def test_retried_is_due_now(self, spool: Spool, clock: ManualClock, ids: IdSource) -> None:
        given = acceptance(ids.next(clock.now()), clock.now(), next_at=clock.now() + 900)
        await spool.accept([given])
        assert await spool.retry([given.id], clock.now()) == [True]
        assert spool.next_due() == clock.now()
        (claim,) = await spool.claim("me", clock.now(), 60, 10)
        assert claim.message.recipients[0].next_at == clock.now()

    async def test_a_claim_not_in_flight_ends_when_it_is_held(
        self, spool: Spool, clock: ManualClock, ids: IdSource
    ) -> None:
        given = acceptance(ids.next(clock.now()), clock.now(), owner="me")
        await spool.accept([given])
        assert await spool.hold([given.id], "wait") == [True]
        assert await spool.settle([delivered(given, 1, clock.now())]) == [False]
        assert await spool.release([given.id], clock.now()) == [True]
        assert [claim.epoch for claim in await spool.claim("me", clock.now(), 60, 10)] == [2]

    async def test_what_is_in_flight_still_counts_when_it_is_held(
        self, spool: Spool, clock: ManualClock, ids: IdSource
    ) -> None:
        there = acceptance(ids.next(clock.now()), clock.now(), owner="me")
        back = acceptance(ids.next(clock.now()), clock.now(), owner="me")
        await spool.accept([there, back])
        for given in (there, back):
            spool.in_flight(given.id)
        assert await spool.hold([there.id, back.id], "wait") == [True, True]
        outcomes = [delivered(there, 1, clock.now()), waiting(back, 1, clock.now(), clock.now() + 60)]
        assert await spool.settle(outcomes) == [True, True]
        for given in (there, back):
            spool.landed(given.id)
        assert spool.show(there.id).state is FINISHED
        assert (spool.show(back.id).state, spool.show(back.id).reason) == (HELD, "wait")
        assert spool.show(back.id).recipients[0].attempts == 1

    async def test_landed_without_an_outcome_after_a_hold_can_be_released(
        self, spool: Spool, clock: ManualClock, ids: IdSource
    ) -> None:
        given = acceptance(ids.next(clock.now()), clock.now(), owner="me")
        await spool.accept([given])
        spool.in_flight(given.id)
        await spool.hold([given.id], "wait")
        spool.landed(given.id)
        await spool.release([given.id], clock.now())
        assert [claim.epoch for claim in await spool.claim("me", clock.now(), 60, 10)] == [2]

    async def test_deleted(self, spool: Spool, clock: ManualClock, ids: IdSource) -> None:
        given = acceptance(ids.next(clock.now()), clock.now(), recipients=("a@x.org", "b@y.org"))
        await spool.accept([given])
        assert await spool.delete([given.id], clock.now() + 5) == [True]
        assert await spool.delete([given.id], clock.now() + 6) == [False]
        stored = spool.show(given.id)
        assert (stored.state, stored.finished_at, stored.has_content) == (FINISHED, clock.now() + 5, False)
        assert {r.status for r in stored.recipients} == {RecipientStatus.DELETED}
        assert await spool.claim("me", clock.now(), 60, 10) == []
        assert await spool.hold([given.id], "too late") == [False]

    async def test_deleted_in_flight_is_never_tried_again(
        self, spool: Spool, clock: ManualClock, ids: IdSource
    ) -> None:
        given = acceptance(ids.next(clock.now()), clock.now(), owner="me", recipients=("a@x.org", "b@y.org"))
        await spool.accept([given])
        spool.in_flight(given.id)
        assert await spool.delete([given.id], clock.now()) == [True]
        back = waiting(given, 1, clock.now(), clock.now() + 60)
        there = delivered(given, 1, clock.now())
        mixed = msgspec.structs.replace(
            back,
            recipients=(there.recipients[0], back.recipients[1]),
            attempts=(attempt(clock.now(), 0, 1, result=Result.DELIVERED),),
        )
        assert await spool.settle([mixed]) == [True]
        spool.landed(given.id)
        stored = spool.show(given.id)
        assert stored.state is FINISHED
        assert [r.status for r in stored.recipients] == [RecipientStatus.DELIVERED, RecipientStatus.DELETED]
        assert len(stored.attempts) == 1
        assert await spool.claim("me", clock.now() + 1000, 60, 10) == []
        assert spool.counts()[FINISHED] == 1

    # -- lanes -----------------------------------------------------------------------------------------

    async def test_a_message_given_back_for_a_lane_is_claimed_by_it(
        self, spool: Spool, clock: ManualClock, ids: IdSource
    ) -> None:
        now = clock.now()
        given = await _set_aside(spool, ids, clock, "out\tx.org", "out\tx.org", "out")
        assert list(spool.lanes()) == ["out", "out\tx.org"]
        assert [spool.count_lane(lane) for lane in ("out", "out\tx.org", "other")] == [1, 2, 0]
        assert await spool.claim("me", now, 60, 10) == []
        assert await spool.claim("me", now, 60, 10, "other") == []
        (first,) = await spool.claim("me", now, 60, 1, "out\tx.org")
        assert (first.message.id, first.epoch) == (given[0].id, 2)
        assert spool.count_lane("out\tx.org") == 1
        (second,) = await spool.claim("me", now, 60, 10, "out\tx.org")
        assert second.message.id == given[1].id
        assert list(spool.lanes()) == ["out"]

    async def test_a_message_given_back_for_a_lane_is_claimed_at_its_time(
        self, spool: Spool, clock: ManualClock, ids: IdSource
    ) -> None:
        (given,) = await _set_aside(spool, ids, clock, "out")
        assert spool.next_due() == clock.now() + LANE_DUE_SECONDS
        clock.advance(LANE_DUE_SECONDS)
        (claim,) = await spool.claim("me", clock.now(), 60, 10)
        assert claim.message.id == given.id
        assert (list(spool.lanes()), spool.count_lane("out")) == ([], 0)

    async def test_a_lane_is_forgotten_with_the_next_settlement(
        self, spool: Spool, clock: ManualClock, ids: IdSource
    ) -> None:
        (given,) = await _set_aside(spool, ids, clock, "out")
        (claim,) = await spool.claim("me", clock.now(), 60, 10, "out")
        await spool.settle([waiting(given, claim.epoch, clock.now(), clock.now() + 5)])
        assert (list(spool.lanes()), spool.next_due()) == ([], clock.now() + 5)

    async def test_a_lane_stays_when_its_claim_is_lost(
        self, spool: Spool, clock: ManualClock, ids: IdSource
    ) -> None:
        (given,) = await _set_aside(spool, ids, clock, "out")
        await spool.claim("me", clock.now(), 60, 10, "out")
        clock.advance(61)
        (claim,) = await spool.claim("you", clock.now(), 60, 10, "out")
        assert (claim.message.id, claim.epoch) == (given.id, 3)

    async def test_what_a_person_holds_or_deletes_leaves_its_lane(
        self, spool: Spool, clock: ManualClock, ids: IdSource
    ) -> None:
        held, deleted, tried = await _set_aside(spool, ids, clock, "out", "out", "out")
        await spool.hold([held.id], "wait")
        await spool.delete([deleted.id], clock.now())
        await spool.retry([tried.id], clock.now())
        assert (list(spool.lanes()), spool.count_lane("out")) == ([], 0)
        assert await spool.claim("me", clock.now(), 60, 10, "out") == []
        assert [claim.message.id for claim in await spool.claim("me", clock.now(), 60, 10)] == [tried.id]
        await spool.release([held.id], clock.now())
        assert list(spool.lanes()) == []
        assert [claim.message.id for claim in await spool.claim("me", clock.now(), 60, 10)] == [held.id]

    async def test_a_finished_message_is_in_no_lane(
        self, spool: Spool, clock: ManualClock, ids: IdSource
    ) -> None:
        given = acceptance(ids.next(clock.now()), clock.now(), owner="me")
        await spool.accept([given])
        settled = msgspec.structs.replace(delivered(given, 1, clock.now()), lane="out", due=clock.now() + 5)
        assert await spool.settle([settled]) == [True]
        assert (list(spool.lanes()), spool.next_due()) == ([], None)

    # -- looking ---------------------------------------------------------------------------------------

    async def test_listing_selects(self, spool: Spool, clock: ManualClock, ids: IdSource) -> None:
        now = clock.now()
        one = acceptance(ids.next(now), now, sender="A@Example.com", recipients=("x@one.org", "y@two.org"))
        two = acceptance(ids.next(now), now, sender="", recipients=("x%@one.org",), state=HELD)
        three = acceptance(ids.next(now), now, owner="me", recipients=("z@noone.org",))
        await spool.accept([one, two, three])
        await spool.settle([delivered(three, 1, now)])

        def found(wanted: Filter) -> list[str]:
            return [row.id for row in spool.listing(wanted)]

        assert found(Filter()) == [one.id, two.id]
        assert found(EVERY) == [one.id, two.id, three.id]
        assert found(Filter(states=(FINISHED,))) == [three.id]
        assert found(Filter(states=(), ids=(two.id, three.id, "nonsense"))) == [two.id, three.id]
        assert found(Filter(sender="a@example.com")) == [one.id]
        assert found(Filter(sender="<>")) == [two.id]
        assert found(Filter(recipient="@one.org")) == [one.id, two.id]
        assert found(Filter(recipient="X%@one.org")) == [two.id]
        assert found(Filter(recipient="X@one.org")) == [one.id]
        assert found(Filter(states=(), recipient="@noone.org")) == [three.id]
        assert found(Filter(limit=1)) == [two.id]
        assert spool.counts() == {QUEUED: 1, HELD: 1, FINISHED: 1, MessageState.DAMAGED: 0}

    async def test_a_row_says_what_a_person_wants_to_know(
        self, spool: Spool, clock: ManualClock, ids: IdSource
    ) -> None:
        given = acceptance(ids.next(clock.now()), clock.now(), owner="me")
        await spool.accept([given])
        await spool.settle([waiting(given, 1, clock.now(), clock.now() + 60)])
        (row,) = spool.listing(Filter())
        assert (row.sender, row.size, row.attempts) == ("scanner@example.com", given.size, 1)
        assert row.recipients == (("office@example.org", "waiting", "451 4.3.0 try again later"),)
        assert (row.accepted_at, row.finished_at, row.next_at) == (clock.now(), 0.0, clock.now() + 60)

    async def test_what_is_not_there(self, spool: Spool, clock: ManualClock, ids: IdSource) -> None:
        for id in (MessageId(ids.next(clock.now())), MessageId("nonsense")):
            with pytest.raises(NoSuchMessage):
                spool.show(id)
            with pytest.raises(NoSuchMessage):
                spool.content(id)
            assert await spool.delete([id], 1.0) == [False]
            spool.landed(id)
        assert spool.next_due() is None

    async def test_history_ends(self, spool: Spool, clock: ManualClock, ids: IdSource) -> None:
        old = [acceptance(ids.next(clock.now()), clock.now(), owner="me", key=b"%d" % n) for n in range(3)]
        held = acceptance(ids.next(clock.now()), clock.now(), state=HELD)
        await spool.accept([*old, held])
        await spool.settle([delivered(given, 1, clock.now()) for given in old])
        clock.advance(100)
        young = acceptance(ids.next(clock.now()), clock.now(), owner="me")
        await spool.accept([young])
        await spool.settle([delivered(young, 1, clock.now())])
        assert await spool.purge(clock.now() - 50, 2) == 2
        assert await spool.purge(clock.now() - 50, 10) == 1
        assert await spool.purge(clock.now() - 50, 10) == 0
        assert [row.id for row in spool.listing(EVERY)] == [held.id, young.id]
        assert spool.counts()[FINISHED] == 1
        assert not spool.has_key(b"0")
        with pytest.raises(NoSuchMessage):
            spool.show(old[0].id)

    async def test_a_claim_is_good_until_it_is_given_back_or_taken_away(
        self, spool: Spool, ids: IdSource, clock: ManualClock
    ) -> None:
        now = clock.now()
        given, held, flying, other = (acceptance(ids.next(now), now, owner="me") for _ in range(4))
        await spool.accept((given, held, flying, other))
        assert spool.owns(given.id, 1)
        assert not spool.owns(given.id, 2)
        await spool.settle((waiting(given, 1, now, now + 60),))
        assert not spool.owns(given.id, 1)
        await spool.hold((held.id,), "look")
        assert not spool.owns(held.id, 1)
        spool.in_flight(flying.id)
        await spool.hold((flying.id,), "look")
        assert not spool.owns(flying.id, 1)  # its other recipients are not begun with
        spool.landed(flying.id)
        await spool.delete((other.id,), now)
        assert not spool.owns(other.id, 1)

    async def test_room(self, spool: Spool) -> None:
        assert spool.has_room(1)


def _large(spool: Spool, ids: IdSource, clock: ManualClock, body: bytes) -> Acceptance:
    given = acceptance(ids.next(clock.now()), clock.now(), body=body)
    writer = spool.body_writer(given.id)
    for start in range(0, len(body), 50_000):
        writer.write(body[start : start + 50_000])
    arrival = msgspec.structs.replace(given.arrival, body=writer.finish())
    return msgspec.structs.replace(given, arrival=arrival)


async def _set_aside(spool: Spool, ids: IdSource, clock: ManualClock, *lanes: str) -> list[Acceptance]:
    """One message for each lane, claimed and given back for it."""
    now = clock.now()
    batch = [acceptance(ids.next(now), now, owner="me") for _ in lanes]
    await spool.accept(batch)
    settlements = [
        msgspec.structs.replace(waiting(given, 1, now, now + 60), lane=lane, due=now + LANE_DUE_SECONDS)
        for given, lane in zip(batch, lanes, strict=True)
    ]
    assert await spool.settle(settlements) == [True] * len(batch)
    return batch
