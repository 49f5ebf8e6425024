"""The running relay as it is seen: counts what the rooms report, and answers for figures, screen, log and health.

Counting is always on: `lonedot status` and `top` need it, and it costs about a microsecond for each thing that happens.
The endpoint for Prometheus, and the libraries that it needs, are there only with `[metrics] address`.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Sequence

import msgspec

from lonedot import __version__
from lonedot.admin.seeing import Door, Health, Screen, Worker, order_hops
from lonedot.config.model import Config
from lonedot.evidence.events import EventLog
from lonedot.message.ledger import Action, Entry
from lonedot.observability import log
from lonedot.observability.metrics import Figures, Metric, Metrics, Sample
from lonedot.queue.courier import Delivery
from lonedot.queue.lanes import HopStatus
from lonedot.queue.pace import PaceState
from lonedot.spool.interface import Acceptance, Claim, Filter, MessageState, Sort, Spool
from lonedot.terms.clock import Clock
from lonedot.terms.outcome import Result
from lonedot.terms.reply import Reply

__all__ = ["Meter", "Seeing"]

LOOK_SECONDS = 1.0
SHOWN_HOPS = 100
"""Next hops in a screen."""
LAG_LIMIT_SECONDS = 5.0
"""A loop that is so late is not ready: clients would run into their time-outs."""


class Meter:
    """Counts what happens; called beside the log, for each message."""

    __slots__ = ("metrics",)

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics

    def accepted(self, acceptance: Acceptance) -> None:
        self.metrics.add(Metric.ACCEPTED, acceptance.facts.source)
        self.metrics.record(Metric.SIZE, acceptance.size)

    def refused(self, answer: Reply) -> None:
        self.metrics.add(Metric.REFUSED, f"{answer.code // 100}xx")

    def sunk(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            if not entry.binding_id:
                continue  # the relay's own work
            self.metrics.add(Metric.SINK_CALLS, entry.binding, entry.action.value)
            self.metrics.add(Metric.SINK_SECONDS, entry.binding, by=max(0.0, entry.took_seconds))
            if entry.fault or entry.action is Action.SKIPPED:
                self.metrics.add(Metric.SINK_FAULTS, entry.binding)

    def looked(self, account: str, *, is_failed: bool) -> None:
        """At a POP3 mailbox."""
        self.metrics.add(Metric.POP3_LOOKS, account, "failed" if is_failed else "done")

    def failed(self, binding: str) -> None:
        """A sink of a session failed."""
        self.metrics.add(Metric.SINK_FAULTS, binding)

    def attempted(self, claim: Claim, delivery: Delivery) -> None:
        metrics = self.metrics
        for attempt in delivery.attempts:
            is_taken = False
            for _, outcome in attempt.outcomes:
                metrics.add(Metric.RECIPIENTS, outcome.result.value, outcome.stage.value)
                is_taken = is_taken or outcome.result is Result.DELIVERED
            if is_taken:
                metrics.record(Metric.LATENCY, attempt.ended_at - claim.message.accepted_at)

    def committed(self, seconds: float) -> None:
        self.metrics.record(Metric.COMMIT, seconds)


class Seeing:
    """Satisfies `admin.seeing.Seer` for one process."""

    def __init__(
        self,
        spool: Spool,
        events: EventLog,
        clock: Clock,
        doors: Callable[[], Sequence[Door]],
        config: Callable[[], Config],
        spool_fault: Callable[[], str],
        hops: Callable[[], Sequence[HopStatus]],
        number: int = 0,
    ) -> None:
        """`config` is the one in force; `spool_fault` why nothing can be written, or nothing; `hops` the next hops;
        `number` that of this worker."""
        self._hops = hops
        self._hops_seen: tuple[float, Sequence[HopStatus]] = (float("-inf"), ())
        self._spool = spool
        self._events = events
        self._clock = clock
        self._doors = doors
        self._config = config
        self._spool_fault = spool_fault
        self.number = number
        self._since = clock.now()
        self._lag = 0.0
        self._last_commit_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self.metrics = Metrics()
        self.meter = Meter(self.metrics)

    def start(self) -> None:
        """Begin to measure how late the loop is."""
        loop = asyncio.get_running_loop()
        self._due = loop.time() + LOOK_SECONDS
        self._timer = loop.call_at(self._due, self._look)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._lag = max(0.0, now - self._due)
        self._due = now + LOOK_SECONDS
        self._timer = loop.call_at(self._due, self._look)

    def committed(self, seconds: float) -> None:
        """A commit was synced."""
        self._last_commit_at = self._clock.now()
        self.meter.committed(seconds)

    @property
    def lag_seconds(self) -> float:
        """At the last look, or more when the next look is overdue already."""
        if self._timer is None:
            return 0.0
        return max(self._lag, asyncio.get_running_loop().time() - self._due)

    def _hops_now(self) -> Sequence[HopStatus]:
        """As they were at most a second ago: counting what waits for each asks the spool."""
        now = self._clock.monotonic()
        if now - self._hops_seen[0] >= LOOK_SECONDS:
            self._hops_seen = now, self._hops()
        return self._hops_seen[1]

    # -- Seer ----------------------------------------------------------------------------------------

    def figures(self) -> Figures:
        now = self._clock.now()
        counts = self._spool.counts()
        gauges = [Sample(Metric.MESSAGES, (state.value,), counts.get(state, 0)) for state in MessageState]
        oldest = self._spool.listing(Filter(limit=1, sort=Sort.OLDEST))
        age = now - oldest[0].accepted_at if oldest else 0.0
        gauges.append(Sample(Metric.OLDEST, (), max(0.0, age)))
        gauges.extend(Sample(Metric.SESSIONS, (door.name,), door.sessions) for door in self._doors())
        states = Counter(hop.state for hop in self._hops_now())
        gauges.extend(Sample(Metric.NEXT_HOPS, (state,), count) for state, count in sorted(states.items()))
        gauges.append(Sample(Metric.LOOP_LAG, (), self.lag_seconds))
        gauges.append(Sample(Metric.STARTED, (), self._since))
        gauges.append(Sample(Metric.LAST_COMMIT, (), self._last_commit_at))
        gauges.append(Sample(Metric.WORKERS, (), 1))
        gauges.append(Sample(Metric.EVIDENCE_LOST, (), self._events.lost))
        return self.metrics.figures(gauges)

    def screen(self, bare: Screen) -> Screen:
        doors = tuple(self._doors())
        config = self._config()
        troubled = order_hops(hop for hop in self._hops_now() if hop.state != PaceState.OPEN.value)
        worker = Worker(
            os.getpid(),
            self._since,
            sum(door.sessions for door in doors),
            round(self.lag_seconds, 4),
            self._last_commit_at,
            self._spool_fault(),
            self.number,
        )
        return msgspec.structs.replace(
            bare,
            running=True,
            hostname=config.server.hostname,
            version=__version__,
            revision=config.revision,
            workers=(worker,),
            doors=doors,
            hops=troubled[:SHOWN_HOPS],
            figures=self.figures(),
        )

    def lines(self, words: bytes, after: int, limit: int) -> tuple[int, Sequence[tuple[int, bytes]]]:
        recent = log.recent()
        after = after if after <= recent.last else 0  # counted by the process that was before this one
        return recent.last, recent.holding(words, after, limit)

    # -- health --------------------------------------------------------------------------------------

    def health(self) -> Health:
        """Whether mail can be taken now. That it answers at all says that it lives."""
        why: list[str] = []
        fault = self._spool_fault()
        if fault:
            why.append(f"the spool cannot be written: {fault}")
        elif not self._spool.has_room(0):
            why.append("the disk is nearly full")
        lag = self.lag_seconds
        if lag > LAG_LIMIT_SECONDS:
            why.append(f"the loop is {lag:.1f} seconds late")
        return Health(True, not why, tuple(why), round(lag, 4), self._last_commit_at)
