"""Figures as Prometheus reads them, in its text form or as OpenMetrics. Imported only when somebody asks for them."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import exposition as text
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import (
    Metric as Family,
)
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import CollectorRegistry

from lonedot.observability.metrics import Figures, Metric, Sample, Spread

__all__ = ["expose"]


class _Figures:
    """What prometheus-client calls a collector."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Family]:
        samples: dict[Metric, list[Sample]] = {}
        spreads: dict[Metric, list[Spread]] = {}
        for sample in self._figures.samples:
            samples.setdefault(sample.metric, []).append(sample)
        for spread in self._figures.spreads:
            spreads.setdefault(spread.metric, []).append(spread)
        for metric in Metric:  # a stable order, and a line for what never happened yet
            facts, name = metric.facts, f"lonedot_{metric.value}"
            if facts.bounds:
                histogram = HistogramMetricFamily(name, facts.means, labels=facts.labels)
                for spread in spreads.get(metric, ()):
                    histogram.add_metric(spread.labels, _buckets(facts.bounds, spread), spread.total)
                yield histogram
                continue
            kind = CounterMetricFamily if facts.gauge is None else GaugeMetricFamily
            family = kind(name, facts.means, labels=facts.labels)
            found = samples.get(metric, ())
            for sample in found:
                family.add_metric(sample.labels, sample.value)
            if not found and not facts.labels and facts.gauge is None:
                family.add_metric((), 0)
            yield family


def _buckets(bounds: tuple[float, ...], spread: Spread) -> list[tuple[str, float]]:
    """Added up, as the format wants them."""
    below = 0
    buckets: list[tuple[str, float]] = []
    for bound, count in zip((*map(_bound, bounds), "+Inf"), spread.classes, strict=True):
        below += count
        buckets.append((bound, below))
    return buckets


def _bound(bound: float) -> str:
    return repr(float(bound))


def expose(figures: Figures, accept: str = "") -> tuple[str, bytes]:
    """Content type and text, in the form that the client asks for by its field `Accept`."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Figures(figures))
    if "application/openmetrics-text" in accept:
        octets: bytes = openmetrics.generate_latest(registry)  # type: ignore[no-untyped-call]
        return openmetrics.CONTENT_TYPE_LATEST, octets
    return text.CONTENT_TYPE_PLAIN_0_0_4, text.generate_latest(registry)
