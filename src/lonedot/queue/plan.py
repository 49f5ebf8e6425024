"""Pure decisions: what to do with a claimed message, and what an outcome makes of it."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence

import msgspec

from lonedot.queue.retry import RetrySchedule
from lonedot.spool.interface import MessageState, RecipientState, RecipientStatus, Stored
from lonedot.terms.address import Address
from lonedot.terms.envelope import Notify
from lonedot.terms.outcome import Outcome, Result, Stage

__all__ = ["Conclusion", "Report", "ReportKind", "conclude", "group_by_route", "no_route", "refuse"]


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
    stored: Stored, now: float, choose: Callable[[Address], str | None]
) -> Mapping[str | None, tuple[RecipientState, ...]]:
    """The recipients that are due, by the name of their route; None for those without one.

    A route that a sink has chosen comes before the one that the address falls under.
    """
    groups: dict[str | None, list[RecipientState]] = {}
    for recipient in stored.recipients:
        if recipient.status is RecipientStatus.WAITING and recipient.next_at <= now:
            route = recipient.redirect or choose(recipient.recipient.address)
            groups.setdefault(route, []).append(recipient)
    return {route: tuple(recipients) for route, recipients in groups.items()}


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
                again = schedule.next_at(attempts, accepted_at, now, random())
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
