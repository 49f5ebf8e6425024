"""Pure decisions: what to do with a claimed message, and what an outcome makes of it."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence

import msgspec

from lonedot.queue.failure import Failure, failure_of
from lonedot.queue.retry import RetrySchedule
from lonedot.spool.interface import MessageState, RecipientState, RecipientStatus, Stored
from lonedot.terms.address import Address
from lonedot.terms.envelope import Notify
from lonedot.terms.outcome import Outcome, Result, Stage

__all__ = [
    "Conclusion",
    "Report",
    "ReportKind",
    "conclude",
    "count_waiting",
    "divide",
    "group_by_route",
    "joined",
    "no_route",
    "refuse",
]


class ReportKind(enum.Enum):
    FAILURE = "failure"
    DELAY = "delay"
    SUCCESS = "success"


class Report(msgspec.Struct, frozen=True):
    """A DSN that is due: its kind and the recipients it speaks of."""

    kind: ReportKind
    recipients: tuple[RecipientState, ...]


class Conclusion(msgspec.Struct, frozen=True):
    """What some outcomes make of a message."""

    recipients: tuple[RecipientState, ...]
    """Those that changed."""
    state: MessageState
    next_at: float
    """The earliest next try of a recipient that was decided here; 0 when none waits."""
    reports: tuple[Report, ...]


def group_by_route(
    stored: Stored, now: float, choose: Callable[[Address, Stored], str | None], is_claimed: bool = False
) -> Mapping[str | None, tuple[RecipientState, ...]]:
    """The recipients that are due, by the name of their route; None for those without one.

    A route that a sink has chosen comes before the one that the address falls under. `is_claimed`: it was claimed for
    its next hop, so that recipients are due for which no hop could be reached.
    """
    groups: dict[str | None, list[RecipientState]] = {}
    for recipient in stored.recipients:
        if recipient.status is RecipientStatus.WAITING and (
            recipient.next_at <= now or (is_claimed and _is_unreachable(recipient.last))
        ):
            route = recipient.redirect or choose(recipient.recipient.address, stored)
            groups.setdefault(route, []).append(recipient)
    return {route: tuple(recipients) for route, recipients in groups.items()}


def _is_unreachable(last: Outcome | None) -> bool:
    return last is not None and failure_of(last) is Failure.UNREACHABLE


def no_route(address: Address, redirect: str = "") -> Outcome:
    """The outcome for a recipient that no route takes, or whose route is gone (`redirect`: the one that a sink chose).

    Deferred: a route may be added before it expires.
    """
    words = f"no [[route]] takes {address.text}: add one with a matching `to`"
    if redirect:
        words = f"a sink sends {address.text} over the route {redirect}: there is no [[route]] of that name"
    return Outcome(Result.DEFERRED, Stage.ROUTE, words, status="4.4.4")


def refuse(state: RecipientState, outcome: Outcome) -> tuple[RecipientState, bool]:
    """A recipient that is refused without an attempt, and whether its sender is to be told (RFC 3461 §4.1)."""
    after = msgspec.structs.replace(state, status=RecipientStatus.FAILED, next_at=0.0, last=outcome)
    notify = state.recipient.notify
    return after, notify == Notify.UNSTATED or bool(notify & Notify.FAILURE)


def conclude(
    recipients: Sequence[RecipientState],
    others_waiting: bool,
    outcomes: Mapping[int, Outcome],
    route: str,
    schedule: RetrySchedule,
    accepted_at: float,
    now: float,
    random: Callable[[], float],
) -> Conclusion:
    """Each recipient's new state, the message's, and the reports that are due.

    Args:
        recipients: those the outcomes speak of.
        others_waiting: some other recipient of the message still waits.
        outcomes: by recipient number; a recipient without one was not tried and stays as it is.
        random: a number 0 … 1 for the jitter.
    """
    changed: list[RecipientState] = []
    failed: list[RecipientState] = []
    delayed: list[RecipientState] = []
    succeeded: list[RecipientState] = []
    next_at = 0.0
    waiting = others_waiting
    for before in recipients:
        outcome = outcomes.get(before.index)
        if outcome is None:
            waiting = True
            continue
        notify = before.recipient.notify
        attempts = before.attempts + 1
        status, due, reported = before.status, 0.0, before.delay_reported
        match outcome.result:
            case Result.DELIVERED:
                status = RecipientStatus.DELIVERED
            case Result.FAILED:
                status = RecipientStatus.FAILED
            case Result.DEFERRED:
                again = schedule.next_at(attempts, accepted_at, now, random(), failure_of(outcome))
                if again is None:
                    status = RecipientStatus.EXPIRED
                else:
                    waiting = True
                    due = again
                    next_at = min(next_at, due) if next_at else due
                    wanted = notify == Notify.UNSTATED or notify & Notify.DELAY
                    if wanted and not reported and schedule.wants_delay_notice(accepted_at, now):
                        reported = True
        after = RecipientState(
            before.index,
            before.recipient,
            status,
            attempts,
            due,
            outcome,
            reported,
            route or before.route,
            before.redirect,
            before.joined,
            before.addressed,
        )
        changed.append(after)
        if status is RecipientStatus.DELIVERED and notify & Notify.SUCCESS:
            succeeded.append(after)
        elif status in (RecipientStatus.FAILED, RecipientStatus.EXPIRED):
            if notify == Notify.UNSTATED or notify & Notify.FAILURE:
                failed.append(after)
        elif reported and not before.delay_reported:
            delayed.append(after)
    reports = tuple(
        Report(kind, tuple(states))
        for kind, states in (
            (ReportKind.FAILURE, failed),
            (ReportKind.DELAY, delayed),
            (ReportKind.SUCCESS, succeeded),
        )
        if states
    )
    state = MessageState.QUEUED if waiting else MessageState.FINISHED
    return Conclusion(tuple(changed), state, next_at, reports)


def divide(conclusion: Conclusion) -> tuple[Conclusion, Conclusion | None]:
    """What is settled now, and what may wait so that one report tells of it: failures and delays."""
    later = tuple([report for report in conclusion.reports if report.kind is not ReportKind.SUCCESS])
    if not later:
        return conclusion, None
    told = {recipient.index for report in later for recipient in report.recipients}
    now_part = msgspec.structs.replace(
        conclusion,
        recipients=tuple([r for r in conclusion.recipients if r.index not in told]),
        reports=tuple([report for report in conclusion.reports if report.kind is ReportKind.SUCCESS]),
        state=MessageState.QUEUED,
    )
    owed = msgspec.structs.replace(
        conclusion, recipients=tuple([r for r in conclusion.recipients if r.index in told]), reports=later
    )
    return now_part, owed


def joined(one: Conclusion, other: Conclusion) -> Conclusion:
    """Two parts of one message as one; the state is that of the first."""
    reports = []
    for kind in ReportKind:
        recipients = [
            recipient
            for report in (*other.reports, *one.reports)
            if report.kind is kind
            for recipient in report.recipients
        ]
        if recipients:
            reports.append(Report(kind, tuple(sorted(recipients, key=lambda r: r.index))))
    next_at = min(filter(None, (one.next_at, other.next_at)), default=0.0)
    return Conclusion(other.recipients + one.recipients, one.state, next_at, tuple(reports))


def count_waiting(conclusion: Conclusion) -> int:
    """Recipients that still wait."""
    return sum(recipient.status is RecipientStatus.WAITING for recipient in conclusion.recipients)
