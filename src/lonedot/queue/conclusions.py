"""What the outcomes of one job become: a settlement, with the reports that are due.

Rules: DSNs are made before the outcome that causes them is settled, and are committed with it. Failures of one message
over several jobs are one report: they are settled when the other jobs have ended, after `OWED_SECONDS` at the latest;
a crash before that makes that they are met again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from lonedot.queue.courier import Delivery, Observer, Reporter
from lonedot.queue.plan import Conclusion, ReportKind, count_waiting, divide, joined
from lonedot.queue.work import Desk, Settle, Spawn, Work
from lonedot.spool.interface import Acceptance, MessageState, RecipientStatus, Settlement, SpoolFault
from lonedot.terms.outcome import Outcome, Result

__all__ = ["Conclusions"]

OWED_SECONDS = 60.0
"""How long the report of a failure waits for the other recipients of the message."""
REPORT_AGAIN_SECONDS = 60.0
"""After a report could not be made."""


class Conclusions:
    """Of one scheduler."""

    def __init__(
        self,
        reporter: Reporter,
        observer: Observer,
        now: Callable[[], float],
        desk: Desk,
        settle: Settle,
        spawn: Spawn,
    ) -> None:
        self._reporter = reporter
        self._observer = observer
        self._now = now
        self._desk = desk
        self._settle = settle
        self._spawn = spawn

    def conclude(self, work: Work, delivery: Delivery, conclusion: Conclusion, lane: str) -> None:
        """Settle, with the reports that are due. `lane`: that of a hop that could not be reached, for which the
        message may be set aside; else empty.
        """
        if (work.open or work.reporting) and not self._desk.is_stopping:
            conclusion, owed = divide(conclusion)
            if owed is not None:
                work.owed = owed if work.owed is None else joined(work.owed, owed)
                if work.owed_timer is None:
                    loop = asyncio.get_running_loop()
                    work.owed_timer = loop.call_later(OWED_SECONDS, self.report_owed, work)
        elif work.owed is not None:
            conclusion = joined(conclusion, work.owed)
            self.drop_owed(work)
        if conclusion.reports:
            # Counted now: another job of this message that ends in the same turn must not give the claim back.
            work.reporting += 1
            self._spawn(self._report(work, delivery, conclusion))
            return
        settlement = self._settlement(work, delivery, conclusion, ())
        if (
            lane
            and settlement.release
            and settlement.state is MessageState.QUEUED
            and work.waiting == count_waiting(conclusion)
        ):
            settlement = msgspec.structs.replace(settlement, lane=lane, due=conclusion.next_at)
        self._settle(work, settlement)
        self._observer.concluded(work.claim, conclusion, delivery.hold)

    def report_owed(self, work: Work) -> None:
        """Report what waited for the other jobs, if anything did."""
        owed = work.owed
        if owed is None:
            return
        self.drop_owed(work)
        work.reporting += 1
        state = MessageState.QUEUED if work.waiting else MessageState.FINISHED
        self._spawn(self._report(work, Delivery(()), msgspec.structs.replace(owed, state=state)))

    @staticmethod
    def drop_owed(work: Work) -> None:
        """It is reported otherwise, or not by us."""
        work.owed = None
        if work.owed_timer is not None:
            work.owed_timer.cancel()
            work.owed_timer = None

    async def _report(self, work: Work, delivery: Delivery, conclusion: Conclusion) -> None:
        spawned: tuple[Acceptance, ...] = ()
        try:
            spawned = tuple(await self._reporter.report(work.claim, conclusion.reports))
        except (Exception, asyncio.CancelledError) as error:
            # Whatever it is, and also when the relay stops: the outcome is settled, and the sender told later.
            self._observer.spool_failed("report", SpoolFault(str(error) or type(error).__name__))
            waiting_before = count_waiting(conclusion)
            conclusion = _without_reports(conclusion, self._now())
            work.waiting += count_waiting(conclusion) - waiting_before
        work.reporting -= 1
        self._settle(work, self._settlement(work, delivery, conclusion, spawned))
        self._observer.concluded(work.claim, conclusion, delivery.hold)

    def _settlement(
        self,
        work: Work,
        delivery: Delivery,
        conclusion: Conclusion,
        spawned: tuple[Acceptance, ...],
    ) -> Settlement:
        state = conclusion.state
        hold, attempts = delivery.hold, delivery.attempts
        if hold and state is MessageState.QUEUED:
            state = MessageState.HELD
        return Settlement(
            id=work.claim.message.id,
            epoch=work.claim.epoch,
            recipients=conclusion.recipients,
            attempts=attempts,
            state=state,
            reason=hold,
            release=work.open == 0 and work.reporting == 0 and work.owed is None,
            spawned=spawned,
            at=attempts[-1].ended_at if attempts else self._now(),
        )


def _without_reports(conclusion: Conclusion, now: float) -> Conclusion:
    """The reports could not be made: failed recipients wait a little, so that their sender is told later.

    A notice of delay is due again at the next outcome. A report of success is all that can be lost.
    """
    put_back, untold = (
        {r.index for report in conclusion.reports if report.kind is kind for r in report.recipients}
        for kind in (ReportKind.FAILURE, ReportKind.DELAY)
    )
    again_at = now + REPORT_AGAIN_SECONDS
    recipients = tuple(
        msgspec.structs.replace(
            recipient,
            status=RecipientStatus.WAITING,
            next_at=again_at,
            last=_deferred(recipient.last),
        )
        if recipient.index in put_back
        else msgspec.structs.replace(recipient, delay_reported=False)
        if recipient.index in untold
        else recipient
        for recipient in conclusion.recipients
    )
    state = MessageState.QUEUED if put_back else conclusion.state
    return Conclusion(recipients, state, again_at if put_back else conclusion.next_at, ())


def _deferred(outcome: Outcome | None) -> Outcome | None:
    return None if outcome is None else msgspec.structs.replace(outcome, result=Result.DEFERRED)
