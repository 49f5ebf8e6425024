"""Figures: counting, classes of histograms, and several processes as one."""

from hypothesis import given
from hypothesis import strategies as st

from lonedot.observability.metrics import Figures, Merge, Metric, Metrics, Sample, Spread, merge
from lonedot.observability.recent import KEEP_LINES, KEEP_OCTETS, RecentLines


def counted(values: list[float]) -> Figures:
    metrics = Metrics()
    for value in values:
        metrics.add(Metric.ACCEPTED, "smtp")
        metrics.record(Metric.SIZE, value)
    return metrics.figures()


@given(st.lists(st.floats(0, 1e12)), st.lists(st.floats(0, 1e12)))
def test_two_processes_are_as_one(first: list[float], second: list[float]) -> None:
    one, both = counted([*first, *second]), merge([counted(first), counted(second)])
    assert both.of(Metric.ACCEPTED) == one.of(Metric.ACCEPTED) == len(first) + len(second)
    assert [spread.classes for spread in both.spreads] == [spread.classes for spread in one.spreads]


@given(st.floats(0, 1e12))
def test_a_value_falls_into_the_class_that_ends_at_or_above_it(value: float) -> None:
    (spread,) = counted([value]).spreads
    bounds = [*Metric.SIZE.facts.bounds, float("inf")]
    place = spread.classes.index(1)
    assert value <= bounds[place]
    assert place == 0 or bounds[place - 1] < value


numbers = st.integers(0, 10**6).map(float)
samples = st.builds(
    Sample,
    st.sampled_from([m for m in Metric if not m.facts.bounds]),
    st.tuples(st.sampled_from("ab")),
    numbers,
)


def figures_of(found: list[Sample], values: list[float]) -> Figures:
    """Each figure once."""
    return merge([Figures(tuple(found), counted(values).spreads)])


some = st.builds(figures_of, st.lists(samples, max_size=6), st.lists(numbers, max_size=4))


def plain(figures: Figures) -> tuple[set[Sample], set[Spread]]:
    assert len(set(figures.samples)) == len(figures.samples)
    return set(figures.samples), set(figures.spreads)


@given(some, some, some)
def test_merging_knows_neither_order_nor_groups(one: Figures, two: Figures, three: Figures) -> None:
    whole = plain(merge([one, two, three]))
    assert merge([one]) == one and merge([one, Figures()]) == one
    assert whole == plain(merge([merge([one, two]), three])) == plain(merge([one, merge([two, three])]))
    assert whole == plain(merge([three, one, two]))


def test_gauges_are_merged_as_their_rows_say() -> None:
    def one(age: float, started: float, sessions: float) -> Figures:
        return Figures(
            (
                Sample(Metric.OLDEST, (), age),
                Sample(Metric.STARTED, (), started),
                Sample(Metric.SESSIONS, ("in",), sessions),
            )
        )

    both = merge([one(5, 100, 2), one(9, 90, 3)])
    assert (both.of(Metric.OLDEST), both.of(Metric.STARTED), both.of(Metric.SESSIONS, "in")) == (9, 90, 5)


def test_every_figure_has_its_row_and_no_label_without_bound() -> None:
    for metric in Metric:
        facts = metric.facts
        assert facts.means.endswith(".")
        assert not (facts.bounds and facts.gauge is not None)
        assert not {"domain", "address", "host", "recipient", "sender", "client"} & set(facts.labels)
    assert {Metric.OLDEST.facts.gauge, Metric.STARTED.facts.gauge} == {Merge.MOST, Merge.LEAST}


def test_lines_are_kept_up_to_a_bound() -> None:
    recent = RecentLines()
    for number in range(KEEP_LINES + 10):
        recent.append(b"line %d\n" % number)
    assert not recent.holding(b"line 9\n", 0, 10)
    assert recent.holding(b"line 10\n", 0, 10) == [(11, b"line 10\n")]
    assert recent.last == KEEP_LINES + 10
    recent.append(b"x" * KEEP_OCTETS)
    assert recent.holding(b"x", 0, 10) == [(recent.last, b"x" * KEEP_OCTETS)]
    assert not recent.holding(b"line", 0, 10)


def test_only_what_is_new_is_given_again() -> None:
    recent = RecentLines()
    for word in (b"a 1", b"b", b"a 2"):
        recent.append(word)
    assert recent.holding(b"a", 1, 10) == [(3, b"a 2")]
    assert recent.holding(b"a", 0, 1) == [(1, b"a 1")]
