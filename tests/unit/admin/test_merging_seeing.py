"""Several workers as one: nothing is lost or counted twice, whatever the order and the groups in which they are put."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from lonedot.admin.merging_seeing import merge_health, merge_hops, merge_log_lines, merge_screens
from lonedot.admin.seeing import Broken, Door, Health, LogLine, LogLines, Screen, Waiting, Worker
from lonedot.evidence.events import EventKind
from lonedot.observability.metrics import Figures, Metric, Sample
from lonedot.queue.lanes import HopStatus
from lonedot.queue.pace import PaceState
from lonedot.spool.interface import MessageState

T = TypeVar("T")

counts = st.integers(0, 1000)
times = st.sampled_from([0.0, 5.0, 10.0, 20.0, 30.0])
words = st.sampled_from(["a", "b", "c"])
waiting = st.builds(
    Waiting, st.sampled_from([MessageState.QUEUED, MessageState.HELD]), words, counts, words, times, words
)
broken = st.builds(
    Broken,
    st.sampled_from([EventKind.SINK_FAILED, EventKind.DISK_FULL, EventKind.POISON]),
    counts,
    times,
    words,
    words,
    words,
)
hops = st.builds(
    HopStatus,
    words,
    words,
    st.sampled_from([state.value for state in PaceState]),
    *[counts] * 6,
    times,
    words,
)
doors = st.builds(Door, words, st.just("127.0.0.1:25"), counts)


@st.composite
def screens(draw: st.DrawFn, number: int | None = None) -> Screen:
    worker = draw(st.integers(0, 31)) if number is None else number
    bare = Screen(
        running=draw(st.booleans()),
        asked_at=draw(times),
        counts=draw(st.dictionaries(words, counts)),
        oldest_at=draw(times),
        next_due=draw(times),
        waiting=tuple(draw(st.lists(waiting, max_size=4))),
        looked_at=draw(counts),
        broken=tuple(draw(st.lists(broken, max_size=3))),
        hostname="relay.example.com",
        version="1",
        revision=draw(words),
        workers=(Worker(draw(counts), 1.0, draw(counts), 0.0, 0.0, "", worker),),
        doors=tuple(draw(st.lists(doors, max_size=3))),
        hops=tuple(draw(st.lists(hops, max_size=4))),
        figures=Figures((Sample(Metric.ACCEPTED, ("smtp",), draw(counts)),)),
        missing=tuple(draw(st.lists(words, max_size=1))),
    )
    return merge_screens([bare])  # each key once, in order


log_lines = st.builds(
    lambda worker, stamps: LogLines(
        tuple(
            LogLine(number, f'{{"at":"2026-11-22T10:00:{stamp:02d}.000Z","id":"x"}}', worker)
            for number, stamp in enumerate(sorted(stamps), 1)
        ),
        {worker: len(stamps)},
    ),
    st.integers(0, 3),
    st.lists(st.integers(0, 59), max_size=5),
)
healths = st.builds(Health, st.just(True), st.booleans(), st.tuples(words), times, times, st.integers(1, 3))


def plain(value: object) -> object:
    """What is said, without the order of that which has none."""
    if isinstance(value, Screen):
        unordered = (value.missing, value.doors, value.figures.samples)
        kept = msgspec.structs.replace(value, missing=(), doors=(), figures=Figures())
        return kept, *(sorted(map(str, one)) for one in unordered)
    if isinstance(value, Health):
        return msgspec.structs.replace(value, why=tuple(sorted(value.why)))
    return value


def holds(merge: Callable[[Sequence[T]], T], one: T, two: T, three: T) -> None:
    whole = plain(merge([one, two, three]))
    assert plain(merge([one])) == plain(one)
    assert whole == plain(merge([merge([one, two]), three])) == plain(merge([one, merge([two, three])]))
    assert whole == plain(merge([three, one, two]))


@given(screens(), screens(), screens())
def test_screens(one: Screen, two: Screen, three: Screen) -> None:
    holds(merge_screens, one, two, three)


@given(screens(0), screens(1))
def test_nothing_of_a_screen_is_lost_or_counted_twice(one: Screen, two: Screen) -> None:
    both = merge_screens([one, two])
    for part in ("waiting", "broken"):
        total = sum(row.count for row in getattr(both, part))
        assert total == sum(row.count for screen in (one, two) for row in getattr(screen, part))
    assert sum(hop.parked for hop in both.hops) == sum(hop.parked for hop in (*one.hops, *two.hops))
    assert sum(door.sessions for door in both.doors) == sum(
        door.sessions for door in (*one.doors, *two.doors)
    )
    assert both.figures.of(Metric.ACCEPTED) == one.figures.of(Metric.ACCEPTED) + two.figures.of(
        Metric.ACCEPTED
    )
    assert [worker.number for worker in both.workers] == [0, 1]
    known = [time for time in (one.oldest_at, two.oldest_at) if time]
    assert both.oldest_at == min(known, default=0.0)


@given(log_lines, log_lines, log_lines)
def test_lines_of_logs(one: LogLines, two: LogLines, three: LogLines) -> None:
    if len({*one.last, *two.last, *three.last}) < 3:
        return  # a worker answers once
    holds(merge_log_lines, one, two, three)
    both = merge_log_lines([one, two, three])
    assert len(both.lines) == sum(len(part.lines) for part in (one, two, three))
    stamps = [line.line[7:31] for line in both.lines]
    assert stamps == sorted(stamps)
    for part in (one, two, three):
        (worker,) = part.last
        assert [line for line in both.lines if line.worker == worker] == list(part.lines)


def test_lines_for_people_begin_with_their_time_too() -> None:
    one = LogLines((LogLine(1, "12:31:33 b"), LogLine(2, "12:31:33 a")), {0: 2})
    two = LogLines((LogLine(1, "12:31:32 c", 1),), {1: 1})
    merged = merge_log_lines([one, two])
    assert [line.line[-1] for line in merged.lines] == ["c", "b", "a"]
    assert merged.last == {0: 2, 1: 1}


@given(healths, healths, healths)
def test_health(one: Health, two: Health, three: Health) -> None:
    holds(merge_health, one, two, three)
    assert merge_health([one, two]).ready is (one.ready and two.ready)


def test_the_hop_in_most_trouble_says_why() -> None:
    def hop(state: PaceState, until: float, reason: str, parked: int) -> HopStatus:
        return HopStatus("out", "a.example", state.value, 1, 20, 0, 0, parked, 1, until, reason)

    probing = hop(PaceState.PROBING, 0.0, "refused", 3)
    resting = hop(PaceState.BACKING_OFF, 90.0, "timed out", 4)
    (both,) = merge_hops([probing, resting])
    assert (both.state, both.reason, both.next_try_at) == ("backing off", "timed out", 90.0)
    assert (both.parked, both.limit) == (7, 40)
