"""Whom the scheduler works with: who tries a message, who writes reports, who is told; what a courier brings back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import msgspec

from lonedot.queue.plan import Conclusion, Report
from lonedot.spool.interface import Acceptance, Attempt, Claim, RecipientState
from lonedot.terms.outcome import Outcome, Result, Stage

__all__ = ["Courier", "Delivery", "Observer", "Reporter", "our_fault"]


class Delivery(msgspec.Struct, frozen=True):
    """What a courier brings back for one message and route."""

    attempts: tuple[Attempt, ...]
    """One for each transaction, or for each destination that could not be reached; in that order."""
    hold: str = ""
    """Not empty: the message is to be held, and why (its octets cannot be sent)."""
    is_altered: bool = False
    """Held because the stored octets are not those that were accepted."""

    @property
    def outcomes(self) -> tuple[tuple[int, Outcome], ...]:
        """Of all attempts, by recipient number."""
        attempts = self.attempts
        if len(attempts) == 1:
            return attempts[0].outcomes
        return tuple(pair for attempt in attempts for pair in attempt.outcomes)


class Courier(Protocol):
    """Tries to hand a message on. Calls `done` exactly once, later or at once; never raises for a peer's fault.

    What it raises all the same, before `done`, is an outcome: deferred by a fault of ours.
    """

    def deliver(
        self,
        claim: Claim,
        recipients: Sequence[RecipientState],
        route: str,
        done: Callable[[Delivery], None],
    ) -> None: ...


class Reporter(Protocol):
    """Turns due reports into DSNs for custody, or files in Badmail what can be neither delivered nor returned."""

    def report(self, claim: Claim, reports: Sequence[Report]) -> Awaitable[Sequence[Acceptance]]: ...


class Observer(Protocol):
    """Is told what happened, for logs and metrics. Must not raise."""

    def attempted(self, claim: Claim, delivery: Delivery) -> None: ...

    def concluded(self, claim: Claim, conclusion: Conclusion, hold: str) -> None: ...

    def spool_failed(self, what: str, error: Exception) -> None: ...


def our_fault(recipients: Sequence[RecipientState], route: str, now: float, error: Exception) -> Delivery:
    """The courier itself failed."""
    words = f"a fault of ours: {type(error).__name__}: {error}"
    outcome = Outcome(Result.DEFERRED, Stage.LOCAL, words, status="4.3.0")
    return Delivery((Attempt(now, now, "", route, "", tuple([(r.index, outcome) for r in recipients])),))
