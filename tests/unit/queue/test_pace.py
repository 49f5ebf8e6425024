"""What a next hop is given: never more than its limit, never nothing for ever."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lonedot.queue.lanes import LARGE, Lane, LaneState
from lonedot.queue.pace import BACK_OFF_SECONDS, START, Pace, PaceState, Rate
from lonedot.queue.retry import RetrySchedule
from lonedot.terms.outcome import Outcome, Result, Stage

SCHEDULE = RetrySchedule(jitter=0)
DEAD = Outcome(Result.DEFERRED, Stage.CONNECT, "no connection: connection refused", status="4.4.1")


def test_it_starts_small_and_grows_with_each_success() -> None:
    pace = Pace(10)
    assert pace.window == START
    for _ in range(20):
        pace.answered()
    assert pace.window == 10


def test_after_a_loss_it_is_half_and_grows_slowly() -> None:
    pace = Pace(16)
    for _ in range(20):
        pace.answered()
    pace.lost()
    assert pace.window == 8
    pace.answered()
    assert pace.window == 8.125


def test_a_dead_hop_rests_and_is_probed_by_one() -> None:
    pace = Pace(10)
    pace.unreachable(1000, SCHEDULE, 0.5, DEAD)
    pace.unreachable(1001, SCHEDULE, 0.5, DEAD)  # went out together with the first
    assert (pace.failures, pace.until) == (1, 1060)
    assert pace.rests(1059)
    assert not pace.may_start(0, 1059)
    assert pace.may_start(0, 1060)
    pace.started(1060)
    assert not pace.may_start(1, 1060)
    pace.unreachable(1061, SCHEDULE, 0.5, DEAD)
    assert (pace.failures, pace.until) == (2, 1061 + 300)
    pace.started(1361)
    pace.answered()
    assert pace.state is PaceState.OPEN
    assert pace.last is None


def test_a_clock_that_is_set_back_delays_one_message_by_one_turn() -> None:
    pace = Pace(10, Rate(2, 60))
    pace.started(10_000)
    assert not pace.may_start(1, 5_000)
    assert pace.slot_at(5_000) == 5_030
    assert pace.may_start(1, 5_030)


def test_a_probe_that_met_nobody_is_followed_by_another() -> None:
    pace = Pace(10)
    pace.unreachable(0, SCHEDULE, 0.5, DEAD)
    pace.started(60)
    pace.undecided(61)
    assert pace.may_start(0, 61)


def test_a_rate_spreads_messages_evenly() -> None:
    pace = Pace(10, Rate(30, 60))
    for at in (0.0, 2.0, 4.0):
        assert pace.may_start(0, at)
        pace.started(at)
        assert not pace.may_start(0, at + 1.9)
    assert pace.slot_at(4.0) == 6.0


EVENTS = st.lists(st.sampled_from(["answered", "lost", "dead", "undecided", "start", "time"]), max_size=60)


@given(EVENTS, st.integers(1, 40))
def test_limits_hold_and_no_hop_is_left_alone_for_ever(events: list[str], limit: int) -> None:
    pace, now, active = Pace(limit), 0.0, 0
    for what in events:
        match what:
            case "start":
                if pace.may_start(active, now):
                    assert active < limit or pace.state is PaceState.BACKING_OFF
                    pace.started(now)
                    active += 1
            case "time":
                now += 100
            case _ if active:
                active -= 1
                match what:
                    case "answered":
                        pace.answered()
                    case "lost":
                        pace.lost()
                    case "dead":
                        pace.unreachable(now, SCHEDULE, 0.5, DEAD)
                    case _:
                        pace.undecided(now)
        assert 1 <= pace.window <= limit
        if not active:
            assert pace.state is not PaceState.PROBING
            assert pace.may_start(0, now + BACK_OFF_SECONDS * 1.1)


class _Sized:
    def __init__(self, number: int, size: int) -> None:
        self.number = number
        self.size = size


@given(st.lists(st.booleans(), max_size=40), st.integers(1, 12))
def test_small_messages_go_past_large_ones_and_all_go(sizes: list[bool], limit: int) -> None:
    lane: LaneState[_Sized] = LaneState(Lane("r", limit, SCHEDULE), "")
    for number, is_large in enumerate(sizes):
        lane.put(_Sized(number, LARGE if is_large else 1))
    out: list[_Sized] = []
    order: dict[bool, list[int]] = {True: [], False: []}
    while len(lane) or out:
        while lane.active < int(lane.pace.window) and (job := lane.next()) is not None:
            lane.began(job)
            out.append(job)
            order[job.size >= LARGE].append(job.number)
            large = sum(one.size >= LARGE for one in out)
            assert large <= max(1, int(lane.pace.window) // 2)
        lane.ended(out.pop(0))
    assert order[True] == [n for n, is_large in enumerate(sizes) if is_large]
    assert order[False] == [n for n, is_large in enumerate(sizes) if not is_large]
