"""Counters of other processes, so added up that the sum never falls: who collects figures takes a fall for a new start.

A process that does not answer keeps what it had counted. One that was started anew counts on from what the last one
had. What was counted before this process began to look is left out, for its own counters begin at 0 with it.

Rule: pure; gauges are those of the last answer alone, and a process without an answer has none.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from lonedot.observability.metrics import Figures, Metric, Sample, Spread, merge

__all__ = ["Tally"]


class _Known(msgspec.Struct):
    last: Figures
    """Counters of the life at hand."""
    base: Figures = Figures()
    """What of it is left out."""
    gone: Figures = Figures()
    """Of the lives that ended."""


class Tally:
    """What is known of each of some processes, by number."""

    def __init__(self) -> None:
        self._known: dict[int, _Known] = {}

    def begin(self, number: int, figures: Figures) -> None:
        """What that process has counted until now is left out."""
        self._known[number] = _Known(_life(figures), _life(figures))

    def take(self, number: int, figures: Figures) -> Figures:
        """An answer of that process; what it adds to the whole."""
        known = self._known.setdefault(number, _Known(Figures()))
        life = _life(figures)
        if _started(known.last) not in (_started(life), 0.0):
            known.gone = merge([known.gone, _without(known.last, known.base)])
            known.base = Figures()
        known.last = life
        gauges = tuple(sample for sample in figures.samples if sample.metric.facts.gauge is not None)
        return merge([Figures(gauges), self.kept(number)])

    def kept(self, number: int) -> Figures:
        """What that process adds to the whole when it does not answer: its counters as they were."""
        known = self._known.get(number)
        return Figures() if known is None else merge([known.gone, _without(known.last, known.base)])


def _life(figures: Figures) -> Figures:
    """The counters, and when the process was started."""
    return Figures(
        tuple(
            one for one in figures.samples if one.metric.facts.gauge is None or one.metric is Metric.STARTED
        ),
        figures.spreads,
    )


def _started(figures: Figures) -> float:
    return figures.of(Metric.STARTED)


def _without(figures: Figures, base: Figures) -> Figures:
    """The counters, less those of `base`; nothing falls below 0."""
    less = {(one.metric, one.labels): one.value for one in base.samples}
    below = {(one.metric, one.labels): one for one in base.spreads}
    samples = (
        Sample(one.metric, one.labels, max(0.0, one.value - less.get((one.metric, one.labels), 0.0)))
        for one in figures.samples
        if one.metric.facts.gauge is None
    )
    return Figures(tuple(samples), tuple(_spreads(figures.spreads, below)))


def _spreads(
    spreads: Iterable[Spread], below: dict[tuple[Metric, tuple[str, ...]], Spread]
) -> Iterable[Spread]:
    for one in spreads:
        less = below.get((one.metric, one.labels))
        if less is None:
            yield one
            continue
        classes = tuple(max(0, a - b) for a, b in zip(one.classes, less.classes, strict=True))
        yield Spread(one.metric, one.labels, classes, max(0.0, one.total - less.total))
