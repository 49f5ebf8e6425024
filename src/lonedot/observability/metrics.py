"""Figures of a process: counters, gauges and histograms as plain numbers, made into a value that can be merged.

Rules:
1. What a figure is called, means and is split by stands in `Metric`, once. A label has few values, fixed in the code or
   in the configuration: never an address, a domain, a host, or the words of a remote.
2. Counting is one step in a dictionary; nothing here locks, writes or waits. One thread only.
3. Several processes are one relay: `merge` adds up counters and histograms, and takes of a gauge what its row says.
"""

from __future__ import annotations

import enum
from bisect import bisect_left
from collections.abc import Iterable

import msgspec

__all__ = ["Figures", "Merge", "Metric", "MetricFacts", "Metrics", "Sample", "Spread", "merge"]


class Merge(enum.Enum):
    """What a gauge of several processes is as one."""

    SUM = "sum"
    MOST = "most"
    LEAST = "least"


class MetricFacts(msgspec.Struct, frozen=True):
    """One row of the table of figures."""

    means: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    """Upper bounds of the classes of a histogram; the last class has none."""
    gauge: Merge | None = None
    """None: a counter, or a histogram."""


_SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3600.0, 14400.0, 86400.0)
_SHORT = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.3, 1.0, 3.0, 10.0)
_OCTETS = (1e3, 3e3, 1e4, 3e4, 1e5, 3e5, 1e6, 3e6, 1e7, 3e7, 1e8)


class Metric(enum.Enum):
    """All figures by name; in Prometheus `lonedot_` stands before it."""

    __hash__ = object.__hash__  # looked up at each count

    ACCEPTED = "messages_accepted"
    REFUSED = "messages_refused"
    RECIPIENTS = "recipients"
    SINK_CALLS = "sink_calls"
    SINK_SECONDS = "sink_seconds"
    SINK_FAULTS = "sink_faults"
    POP3_LOOKS = "pop3_looks"
    LATENCY = "delivery_latency_seconds"
    SIZE = "message_size_bytes"
    COMMIT = "commit_seconds"
    MESSAGES = "messages"
    OLDEST = "oldest_message_age_seconds"
    SESSIONS = "sessions"
    NEXT_HOPS = "next_hops"
    LOOP_LAG = "loop_lag_seconds"
    STARTED = "start_time_seconds"
    LAST_COMMIT = "last_commit_time_seconds"
    WORKERS = "workers"
    WORKER_UP = "worker_up"
    EVIDENCE_LOST = "evidence_lost"

    @property
    def facts(self) -> MetricFacts:
        return _FACTS[self]


_FACTS: dict[Metric, MetricFacts] = {
    Metric.ACCEPTED: MetricFacts("Messages taken into custody, by where they came from.", ("source",)),
    Metric.REFUSED: MetricFacts("Messages refused at the door, by the first digit of the reply.", ("reply",)),
    Metric.RECIPIENTS: MetricFacts(
        "Outcomes of attempts, one for each recipient tried, and the stage at which they came about.",
        ("result", "stage"),
    ),
    Metric.SINK_CALLS: MetricFacts(
        "Calls of sinks, by binding and by what was done with what it said.", ("sink", "action")
    ),
    Metric.SINK_SECONDS: MetricFacts("Time that sinks took, in seconds.", ("sink",)),
    Metric.SINK_FAULTS: MetricFacts("Faults booked against bindings.", ("sink",)),
    Metric.POP3_LOOKS: MetricFacts("Looks at POP3 mailboxes, by account.", ("account", "result")),
    Metric.LATENCY: MetricFacts("From acceptance to the delivery of a copy, in seconds.", (), _SECONDS),
    Metric.SIZE: MetricFacts("Octets of accepted messages.", (), _OCTETS),
    Metric.COMMIT: MetricFacts(
        "From the commit of a transaction until it was synced, in seconds.", (), _SHORT
    ),
    Metric.MESSAGES: MetricFacts("Messages in the spool.", ("state",), gauge=Merge.SUM),
    Metric.OLDEST: MetricFacts("Age of the oldest message that is not finished.", gauge=Merge.MOST),
    Metric.SESSIONS: MetricFacts("Open sessions, by listener.", ("listener",), gauge=Merge.SUM),
    Metric.NEXT_HOPS: MetricFacts("Next hops with mail, by their state.", ("state",), gauge=Merge.SUM),
    Metric.LOOP_LAG: MetricFacts("How late the loop came to its last timer.", gauge=Merge.MOST),
    Metric.STARTED: MetricFacts("When the relay started, in seconds since 1970.", gauge=Merge.LEAST),
    Metric.LAST_COMMIT: MetricFacts("When something was last synced; 0: nothing was.", gauge=Merge.MOST),
    Metric.WORKERS: MetricFacts("Processes that work.", gauge=Merge.SUM),
    Metric.WORKER_UP: MetricFacts("1: the worker answers; 0: it does not.", ("worker",), gauge=Merge.MOST),
    Metric.EVIDENCE_LOST: MetricFacts("Lines of evidence that found no room on the disk."),
}


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """One counter or gauge."""

    metric: Metric
    labels: tuple[str, ...]
    value: float


class Spread(msgspec.Struct, frozen=True, array_like=True):
    """One histogram: how many fell into each class, not added up, and their sum."""

    metric: Metric
    labels: tuple[str, ...]
    classes: tuple[int, ...]
    total: float


class Figures(msgspec.Struct, frozen=True):
    """All figures of one process, or of several as one."""

    samples: tuple[Sample, ...] = ()
    spreads: tuple[Spread, ...] = ()

    def of(self, metric: Metric, *labels: str) -> float:
        """The sum over all whose labels begin so; of a histogram, how many there were."""
        size = len(labels)
        if metric.facts.bounds:
            chosen = (one for one in self.spreads if one.metric is metric and one.labels[:size] == labels)
            return float(sum(sum(one.classes) for one in chosen))
        return sum(one.value for one in self.samples if one.metric is metric and one.labels[:size] == labels)


class Metrics:
    """The figures of this process as they grow."""

    __slots__ = ("_classes", "_counts", "_sums")

    def __init__(self) -> None:
        self._counts: dict[tuple[Metric, tuple[str, ...]], float] = {}
        self._classes: dict[Metric, list[int]] = {}
        self._sums: dict[Metric, float] = {}

    def add(self, metric: Metric, *labels: str, by: float = 1) -> None:
        """A counter grows."""
        key = (metric, labels)
        counts = self._counts
        counts[key] = counts.get(key, 0) + by

    def record(self, metric: Metric, value: float) -> None:
        """One more value of a histogram."""
        classes = self._classes.get(metric)
        bounds = metric.facts.bounds
        if classes is None:
            classes = self._classes[metric] = [0] * (len(bounds) + 1)
            self._sums[metric] = 0.0
        classes[bisect_left(bounds, value)] += 1
        self._sums[metric] += value

    def figures(self, gauges: Iterable[Sample] = ()) -> Figures:
        """As they are now, with gauges that were looked at for it."""
        samples = [Sample(metric, labels, value) for (metric, labels), value in self._counts.items()]
        spreads = [
            Spread(metric, (), tuple(classes), self._sums[metric])
            for metric, classes in self._classes.items()
        ]
        return Figures((*samples, *gauges), tuple(spreads))


def merge(parts: Iterable[Figures]) -> Figures:
    """Several processes as one."""
    values: dict[tuple[Metric, tuple[str, ...]], float] = {}
    spreads: dict[tuple[Metric, tuple[str, ...]], Spread] = {}
    for figures in parts:
        for one in figures.samples:
            key = (one.metric, one.labels)
            there = values.get(key)
            if there is None:
                values[key] = one.value
                continue
            match one.metric.facts.gauge:
                case Merge.MOST:
                    values[key] = max(there, one.value)
                case Merge.LEAST:
                    values[key] = min(there, one.value)
                case Merge.SUM | None:
                    values[key] = there + one.value
        for spread in figures.spreads:
            place = (spread.metric, spread.labels)
            before = spreads.get(place)
            spreads[place] = spread if before is None else _both(before, spread)
    samples = tuple(Sample(metric, labels, value) for (metric, labels), value in values.items())
    return Figures(samples, tuple(spreads.values()))


def _both(one: Spread, other: Spread) -> Spread:
    classes = tuple(a + b for a, b in zip(one.classes, other.classes, strict=True))
    return Spread(one.metric, one.labels, classes, one.total + other.total)
