"""What an outcome makes of a message: states, times, reports."""

from __future__ import annotations

from lonedot.queue.plan import Conclusion, ReportKind, conclude, group_by_route
from lonedot.queue.retry import RetrySchedule
from lonedot.spool.interface import (
    Facts,
    MessageState,
    RecipientState,
    RecipientStatus,
    Stored,
)
from lonedot.terms.address import Address
from lonedot.terms.envelope import Envelope, Notify, Recipient
from lonedot.terms.ids import MessageId, SessionId
from lonedot.terms.outcome import Outcome, Result, Stage

DELIVERED = Outcome(Result.DELIVERED, Stage.CONTENT, "accepted", status="2.0.0")
DEFERRED = Outcome(Result.DEFERRED, Stage.RCPT, "not now", status="4.3.0")
FAILED = Outcome(Result.FAILED, Stage.RCPT, "no such user", status="5.1.1")
SCHEDULE = RetrySchedule()


def state(
    index: int, notify: int = Notify.UNSTATED, attempts: int = 0, reported: bool = False
) -> RecipientState:
    recipient = Recipient(Address(b"r%d@dest.example" % index), int(notify))
    return RecipientState(index, recipient, attempts=attempts, delay_reported=reported)


def run(
    states: list[RecipientState], outcomes: dict[int, Outcome], age: float = 10.0, others: bool = False
) -> Conclusion:
    return conclude(states, others, outcomes, "r", SCHEDULE, 0.0, age, lambda: 0.5)


def test_delivered_finishes_silently() -> None:
    done = run([state(0)], {0: DELIVERED})
    assert done.state is MessageState.FINISHED
    assert done.recipients[0].status is RecipientStatus.DELIVERED
    assert done.reports == ()


def test_another_recipient_keeps_it_queued() -> None:
    assert run([state(0)], {0: DELIVERED}, others=True).state is MessageState.QUEUED


def test_success_report_only_as_asked() -> None:
    done = run([state(0, Notify.SUCCESS), state(1)], {0: DELIVERED, 1: DELIVERED})
    assert [(r.kind, [s.index for s in r.recipients]) for r in done.reports] == [(ReportKind.SUCCESS, [0])]


def test_failure_is_reported_unless_never_or_not_asked() -> None:
    states = [state(0), state(1, Notify.NEVER), state(2, Notify.SUCCESS), state(3, Notify.FAILURE)]
    done = run(states, dict.fromkeys(range(4), FAILED))
    assert [(r.kind, [s.index for s in r.recipients]) for r in done.reports] == [(ReportKind.FAILURE, [0, 3])]
    assert done.state is MessageState.FINISHED


def test_deferred_waits_its_turn() -> None:
    done = run([state(0, attempts=2)], {0: DEFERRED}, age=100.0)
    assert done.state is MessageState.QUEUED
    assert done.recipients[0].attempts == 3
    assert done.recipients[0].next_at == done.next_at == 100.0 + 15 * 60


def test_delay_is_told_once_and_only_when_wanted() -> None:
    late = 5 * 3600.0
    first = run([state(0), state(1, Notify.FAILURE)], {0: DEFERRED, 1: DEFERRED}, age=late)
    assert [(r.kind, [s.index for s in r.recipients]) for r in first.reports] == [(ReportKind.DELAY, [0])]
    again = run(list(first.recipients), {0: DEFERRED, 1: DEFERRED}, age=late + 1)
    assert again.reports == ()


def test_expired_is_a_failure_with_the_last_words() -> None:
    done = run([state(0, attempts=9)], {0: DEFERRED}, age=172_801.0)
    assert done.recipients[0].status is RecipientStatus.EXPIRED
    assert done.recipients[0].last == DEFERRED
    assert done.reports[0].kind is ReportKind.FAILURE


def test_untried_recipient_stays_and_keeps_the_message() -> None:
    done = run([state(0), state(1)], {0: DELIVERED})
    assert [r.index for r in done.recipients] == [0]
    assert done.state is MessageState.QUEUED


def test_groups_are_by_route_and_only_what_is_due() -> None:
    recipients = (
        state(0),
        state(1),
        RecipientState(2, Recipient(Address(b"late@a.example")), next_at=99.0),
        RecipientState(3, Recipient(Address(b"done@a.example")), RecipientStatus.DELIVERED),
        RecipientState(4, Recipient(Address(b"x@nowhere.example"))),
    )
    envelope = Envelope(Address(b"s@s.example"), tuple(r.recipient for r in recipients))
    stored = Stored(
        MessageId("0" * 13),
        MessageState.QUEUED,
        "",
        0.0,
        0.0,
        envelope,
        Facts("smtp", SessionId("0" * 13)),
        (),
        recipients,
        1,
    )
    groups = group_by_route(stored, 10.0, lambda a, _: None if a.domain == b"nowhere.example" else "out")
    assert {route: [r.index for r in rs] for route, rs in groups.items()} == {"out": [0, 1], None: [4]}
