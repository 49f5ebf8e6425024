"""Any interleaving of outcomes, disk faults, holds, kicks and time: no outcome is lost, none is settled twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

from hypothesis import event, given
from hypothesis import strategies as st

from lonedot.spool.interface import MessageState, RecipientStatus, SpoolFault
from lonedot.terms.ids import MessageId
from lonedot.terms.outcome import Result
from tests.unit.queue.workshop import OWNER, Workshop, settle

DISK = SpoolFault("the disk is gone")
DOMAINS = ("a.example", "b.example", "nowhere.example")
Step = tuple[str, int, int]

STEPS: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.just("offer"), st.integers(0, 3), st.integers(1, 4)),
    st.tuples(st.just("leave"), st.integers(0, 3), st.integers(1, 4)),
    st.tuples(st.just("end"), st.integers(0, 9), st.integers(0, 80)),
    st.tuples(st.just("end"), st.integers(0, 9), st.integers(0, 80)),
    st.tuples(st.just("end"), st.integers(0, 9), st.integers(0, 80)),
    st.tuples(st.just("disk"), st.integers(0, 9), st.integers(0, 1)),
    st.tuples(st.just("disk"), st.integers(0, 9), st.just(0)),
    st.tuples(st.just("report"), st.integers(0, 2), st.just(0)),
    st.tuples(st.just("time"), st.sampled_from([1, 6, 70, 400, 2000]), st.just(0)),
    st.tuples(
        st.sampled_from(["hold", "release", "delete", "retry", "kick", "turn"]), st.integers(0, 9), st.just(0)
    ),
)
RESULTS = (Result.DELIVERED, Result.DEFERRED, Result.FAILED, None)


class Run:
    """One run: the workshop, and what the couriers came back with."""

    def __init__(self) -> None:
        self.shop = Workshop(limit=3)
        self.shop.spool.by_hand = True
        self.ids: list[str] = []
        self.came_back: Counter[str] = Counter()
        self.no_route: set[str] = set()

    async def step(self, what: str, one: int, other: int) -> None:
        shop = self.shop
        match what:
            case "offer" | "leave":
                if what == "offer" and not shop.scheduler.has_room:
                    return
                id = f"m{len(self.ids):012}"
                self.ids.append(id)
                names = [f"r{n}@{DOMAINS[(one + n * other) % 3]}" for n in range(other)]
                await (shop.offer(id, *names) if what == "offer" else shop.leave(id, *names))
            case "end" if shop.out:
                out = shop.out[one % len(shop.out)]
                results = [RESULTS[(other + n * (other % 3)) % 4] for n in range(len(out.recipients))]
                self.came_back[out.id] += 1
                shop.end(out, *results, hold="odd octets" if other % 40 == 39 else "")
            case "disk" if shop.spool.open:
                shop.spool.answer(one % len(shop.spool.open), DISK if other else None)
            case "report":
                shop.report_error = (None, DISK, RuntimeError("a fault of ours"))[one]
            case "time":
                await shop.pass_time(one)
            case "kick":
                shop.scheduler.kick()
            case "turn":
                await settle()
            case "hold" | "release" | "delete" | "retry" if self.ids:
                await self.by_hand(what, [MessageId(self.ids[one % len(self.ids)])])
            case _:
                pass

    async def by_hand(self, what: str, ids: Sequence[MessageId]) -> None:
        shop = self.shop
        match what:
            case "hold":
                await shop.spool.hold(ids, "by hand")
                shop.scheduler.forget(ids)
            case "delete":
                await shop.spool.delete(ids, shop.clock.now())
                shop.scheduler.forget(ids)
            case "release":
                await shop.spool.release(ids, shop.clock.now())
                shop.scheduler.kick()
            case _:
                await shop.spool.retry(ids, shop.clock.now())
                shop.scheduler.kick()

    async def let_the_disk_work(self) -> None:
        spool = self.shop.spool
        spool.by_hand = False
        while spool.open:
            spool.answer()
            await settle()
        await self.shop.pass_time(6)

    def check_outcomes(self) -> None:
        """What couriers and routes said is in the spool, once each and in its order."""
        spool = self.shop.spool
        told: Counter[str] = Counter()
        for settlement, applied in spool.settled:
            if settlement.attempts:
                told[settlement.id] += 1
                # Without a route nothing was sent: a person who holds the message may end that claim meanwhile.
                is_void = not settlement.attempts[0].next_hop
                assert applied or is_void, f"the outcome of {settlement.id} came too late to be kept"
        said = Counter(self.came_back)
        for settlement, _ in spool.settled:
            if settlement.attempts and settlement.attempts[0].next_hop == "":
                said[settlement.id] += 1  # no route: nobody was sent
        assert told == said
        for id in told:
            attempts = spool.show(MessageId(id)).attempts
            last = {index: outcome for attempt in attempts for index, outcome in attempt.outcomes}
            for state in spool.show(MessageId(id)).recipients:
                if state.status is RecipientStatus.DELETED:
                    continue
                if state.index in last:
                    assert state.last is not None
                    assert state.last.stage is last[state.index].stage
                    if state.status is RecipientStatus.DELIVERED:
                        assert last[state.index].result is Result.DELIVERED

    def check_at_rest(self) -> None:
        """Nothing is out: nothing may be claimed, in flight, or counted."""
        shop = self.shop
        assert shop.scheduler.active == 0
        assert shop.scheduler._desk.ready == 0
        assert shop.scheduler._desk.octets == 0
        assert shop.spool.flying == set()
        for id in shop.spool._kept:
            assert shop.spool.owner_of(id) == "", f"{id} is kept for ever"


async def run_to_rest(steps: Sequence[Step]) -> None:
    run = Run()
    run.shop.scheduler.start()
    for what, one, other in steps:
        await run.step(what, one, other)
        await settle()
    run.shop.report_error = None
    run.shop.at_once = None
    await run.let_the_disk_work()
    for _ in range(400):
        await run.shop.pass_time(6)
        if not run.shop.out:
            break
        for out in tuple(run.shop.out):
            run.came_back[out.id] += 1
            run.shop.end(out, Result.DELIVERED)
    run.check_outcomes()
    run.check_at_rest()
    event(f"attempts: {min(sum(run.came_back.values()), 8)}")
    await _nothing_is_left_behind(run)


async def _nothing_is_left_behind(run: Run) -> None:
    """Time enough: whatever can be delivered is."""
    shop = run.shop
    shop.at_once = Result.DELIVERED
    for _ in range(3):
        shop.clock.advance(180_000)
        await shop.pass_time(120)
    for id in shop.spool._kept:
        kept = shop.spool.show(MessageId(id))
        if kept.state is MessageState.HELD:
            continue
        assert kept.state is MessageState.FINISHED, f"{id} is {kept.state.value}"
        for state in kept.recipients:
            if state.recipient.address.domain == b"nowhere.example":
                assert state.status in {
                    RecipientStatus.EXPIRED,
                    RecipientStatus.DELETED,
                    RecipientStatus.FAILED,
                }


async def run_to_stop(steps: Sequence[Step]) -> None:
    run = Run()
    run.shop.scheduler.start()
    for what, one, other in steps:
        await run.step(what, one, other)
    stopping = asyncio.ensure_future(run.shop.scheduler.stop(30))
    await settle()
    begun = len(run.shop.out)
    await run.let_the_disk_work()
    assert len(run.shop.out) <= begun, "nothing is started while the relay stops"
    while run.shop.out and not stopping.done():
        out = run.shop.out[0]
        run.came_back[out.id] += 1
        run.shop.end(out, Result.DELIVERED)
        await settle()
    await run.shop.pass_time(31)
    assert stopping.done()
    await stopping
    await run.let_the_disk_work()
    run.check_outcomes()
    for id in run.shop.spool._kept:
        assert run.shop.spool.owner_of(id) in {"", OWNER}


SOME_MAIL = st.lists(
    st.tuples(st.just("offer"), st.integers(0, 3), st.integers(1, 4)), min_size=1, max_size=4
)
STORIES = st.builds(lambda mail, steps: mail + steps, SOME_MAIL, st.lists(STEPS, min_size=4, max_size=40))


@given(STORIES)
def test_every_outcome_is_kept_and_every_claim_given_back(steps: list[Step]) -> None:
    asyncio.run(run_to_rest(steps))


@given(STORIES)
def test_a_stop_at_any_time_forgets_no_outcome(steps: list[Step]) -> None:
    asyncio.run(run_to_stop(steps))
