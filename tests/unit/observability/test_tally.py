"""Counters of several processes as one that never falls."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lonedot.observability.metrics import Figures, Metric, Metrics, Sample
from lonedot.observability.tally import Tally


class Process:
    """One that counts, dies, and is started anew."""

    def __init__(self, started: float) -> None:
        self.started = started
        self.metrics = Metrics()

    def count(self, number: int) -> None:
        for _ in range(number):
            self.metrics.add(Metric.ACCEPTED, "smtp")
            self.metrics.record(Metric.SIZE, 10.0)

    def figures(self) -> Figures:
        return self.metrics.figures(
            [Sample(Metric.STARTED, (), self.started), Sample(Metric.SESSIONS, ("in",), 3.0)]
        )


def seen(figures: Figures) -> tuple[float, float]:
    return figures.of(Metric.ACCEPTED), figures.of(Metric.SIZE)


steps = st.lists(
    st.tuples(st.sampled_from(["count", "die", "look", "silent"]), st.integers(0, 9)), max_size=30
)


@given(steps, st.integers(0, 9))
def test_it_never_falls_and_counts_what_was_seen(steps: list[tuple[str, int]], before: int) -> None:
    process = Process(1.0)
    process.count(before)
    tally = Tally()
    tally.begin(7, process.figures())
    told = 0.0
    for number, (step, count) in enumerate(steps, 2):
        match step:
            case "count":
                process.count(count)
            case "die":
                process = Process(float(number))
            case "silent":
                assert seen(tally.kept(7)) == (told, told)
            case _:
                figures = tally.take(7, process.figures())
                accepted = seen(figures)[0]
                assert accepted >= told and seen(figures) == (accepted, accepted)
                assert (
                    figures.of(Metric.SESSIONS, "in") == 3 and figures.of(Metric.STARTED) == process.started
                )
                told = accepted


def test_a_new_life_counts_on() -> None:
    tally, first, second = Tally(), Process(1.0), Process(2.0)
    first.count(5)
    second.count(2)
    assert seen(tally.take(1, first.figures())) == (5, 5)
    assert seen(tally.take(1, second.figures())) == (7, 7)
    second.count(1)
    assert seen(tally.take(1, second.figures())) == (8, 8)


def test_what_was_counted_before_is_left_out_of_that_life_alone() -> None:
    tally, first, second = Tally(), Process(1.0), Process(2.0)
    first.count(5)
    tally.begin(1, first.figures())
    assert seen(tally.kept(1)) == (0, 0)
    first.count(1)
    assert seen(tally.take(1, first.figures())) == (1, 1)
    second.count(2)
    assert seen(tally.take(1, second.figures())) == (3, 3)


def test_one_that_is_silent_has_counters_and_no_gauges() -> None:
    tally, process = Tally(), Process(1.0)
    process.count(4)
    tally.take(1, process.figures())
    kept = tally.kept(1)
    assert seen(kept) == (4, 4)
    assert all(sample.metric.facts.gauge is None for sample in kept.samples)
    assert tally.kept(2) == Figures()
