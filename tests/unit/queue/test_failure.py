"""Which class a failure falls under, and how long that makes it wait."""

from __future__ import annotations

import pytest

from lonedot.queue.failure import WAITS, Failure, failure_of
from lonedot.queue.retry import RetrySchedule
from lonedot.terms.outcome import Outcome, Result, Stage
from lonedot.terms.reply import Reply
from lonedot.terms.reply import reply as reply_of


def outcome(stage: Stage, status: str, reply: Reply | None = None) -> Outcome:
    return Outcome(Result.DEFERRED, stage, "words", reply, "hop", status)


@pytest.mark.parametrize(
    ("stage", "code", "status", "words", "expected"),
    [
        (Stage.CONNECT, 0, "4.4.1", "", Failure.UNREACHABLE),
        (Stage.GREETING, 421, "4.7.0", "too busy", Failure.UNREACHABLE),
        (Stage.AUTH, 535, "4.7.8", "no", Failure.UNREACHABLE),
        (Stage.ROUTE, 0, "4.4.3", "", Failure.UNREACHABLE),
        (Stage.MAIL, 421, "4.3.2", "going down", Failure.LOST),
        (Stage.CONTENT, 0, "4.4.2", "", Failure.LOST),
        (Stage.LOCAL, 0, "4.3.0", "", Failure.LOCAL),
        (Stage.RCPT, 452, "4.5.3", "too many recipients", Failure.CROWDED),
        (Stage.RCPT, 452, "4.2.2", "over quota", Failure.MAILBOX_FULL),
        (Stage.RCPT, 450, "4.2.0", "Greylisted, see you", Failure.GREYLISTED),
        (Stage.RCPT, 450, "4.7.1", "try again", Failure.GREYLISTED),
        (Stage.RCPT, 450, "4.7.1", "Rate limit exceeded", Failure.RATE_LIMITED),
        (Stage.MAIL, 450, "4.7.28", "unusual", Failure.RATE_LIMITED),
        (Stage.CONTENT, 451, "4.7.1", "looks odd", Failure.CONTENT),
        (Stage.RCPT, 451, "4.3.0", "not now", Failure.OTHER),
    ],
)
def test_a_failure_has_a_class(stage: Stage, code: int, status: str, words: str, expected: Failure) -> None:
    reply = reply_of(code, status, words) if code else None
    assert failure_of(outcome(stage, status, reply)) is expected


def test_a_class_waits_by_its_table() -> None:
    schedule = RetrySchedule(jitter=0)
    for failure in Failure:
        minutes = WAITS.get(failure, (1, 5, 15, 30, 60, 240))
        assert schedule.wait_seconds(1, 0.5, failure) == minutes[0] * 60
        assert schedule.wait_seconds(99, 0.5, failure) == minutes[-1] * 60


def test_a_schedule_that_was_chosen_holds_for_every_class() -> None:
    schedule = RetrySchedule(minutes=(7,), jitter=0)
    assert {schedule.wait_seconds(1, 0.5, failure) for failure in Failure} == {420}
