"""What each failure means, row by row."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.delivery.classify import (
    PASSED_ON,
    RELAYED,
    classify_fault,
    classify_local,
    classify_refusal,
    classify_reply,
    classify_session,
)
from lonedot.delivery.jobs import Fault, SessionFault
from lonedot.protocol.client_plan import Refusal, RefusalKind
from lonedot.terms.outcome import Result, Stage
from lonedot.terms.reply import Reply

HOP = "mx[192.0.2.1]:25"
DELIVERED, DEFERRED, FAILED = Result.DELIVERED, Result.DEFERRED, Result.FAILED


def reply(code: int, enhanced: str = "") -> Reply:
    return Reply(code, enhanced, (f"{enhanced} the remote's own words".strip().encode(),))


@pytest.mark.parametrize(
    ("stage", "code", "enhanced", "result", "status", "words"),
    [
        (Stage.CONTENT, 250, "2.0.0", DELIVERED, "2.0.0", "accepted"),
        (Stage.CONTENT, 250, "", DELIVERED, "2.0.0", "accepted"),
        (Stage.MAIL, 421, "", DEFERRED, "4.3.2", "ended the session"),
        (Stage.RCPT, 421, "4.7.0", DEFERRED, "4.7.0", "ended the session"),
        (Stage.CONTENT, 421, "", DEFERRED, "4.3.2", "ended the session"),
        (Stage.RCPT, 450, "", DEFERRED, "4.0.0", "for now"),
        (Stage.RCPT, 450, "4.7.1", DEFERRED, "4.7.1", "try again later"),
        (Stage.RCPT, 451, "4.7.1", DEFERRED, "4.7.1", "try again later"),
        (Stage.RCPT, 452, "", DEFERRED, "4.3.1", "no more recipients"),
        (Stage.CONTENT, 452, "", DEFERRED, "4.3.1", "no room"),
        (Stage.RCPT, 550, "", FAILED, "5.1.0", "refuses the recipient"),
        (Stage.RCPT, 550, "5.1.1", FAILED, "5.1.1", "does not know the recipient"),
        (Stage.RCPT, 550, "5.7.1", FAILED, "5.7.1", "refuses the recipient"),
        (Stage.RCPT, 552, "", DEFERRED, "4.5.3", "no more recipients"),
        (Stage.RCPT, 552, "5.2.2", FAILED, "5.2.2", "mailbox is full"),
        (Stage.RCPT, 552, "5.3.4", FAILED, "5.3.4", "too large"),
        (Stage.RCPT, 452, "4.5.3", DEFERRED, "4.5.3", "no more recipients"),
        (Stage.RCPT, 452, "4.2.2", DEFERRED, "4.2.2", "mailbox is full"),
        (Stage.MAIL, 552, "", FAILED, "5.3.4", "too large"),
        (Stage.CONTENT, 552, "", FAILED, "5.3.4", "too large"),
        (Stage.MAIL, 530, "", DEFERRED, "4.7.0", "login or TLS"),
        (Stage.MAIL, 530, "5.7.0", DEFERRED, "4.7.0", "login or TLS"),
        (Stage.RCPT, 535, "", DEFERRED, "4.7.8", "login"),
        (Stage.RCPT, 538, "", DEFERRED, "4.7.11", "TLS"),
        (Stage.MAIL, 553, "", FAILED, "5.1.3", "address"),
        (Stage.MAIL, 555, "", FAILED, "5.5.4", "parameter"),
        (Stage.MAIL, 550, "5.1.8", FAILED, "5.1.8", "sender's address"),
        (Stage.CONTENT, 550, "5.6.11", FAILED, "5.6.11", "bare line feeds"),
        (Stage.CONTENT, 554, "", FAILED, "5.0.0", "refuses the message"),
        (Stage.DATA, 554, "", FAILED, "5.0.0", "before its content"),
        # Unlisted codes are judged by their first digit.
        (Stage.RCPT, 599, "", FAILED, "5.0.0", "refuses"),
        (Stage.RCPT, 499, "", DEFERRED, "4.0.0", "for now"),
    ],
)
def test_replies(stage: Stage, code: int, enhanced: str, result: Result, status: str, words: str) -> None:
    outcome = classify_reply(stage, reply(code, enhanced), HOP)
    assert (outcome.result, outcome.stage, outcome.status) == (result, stage, status)
    assert words in outcome.reason
    assert outcome.next_hop == HOP
    assert outcome.reply is not None and b"the remote's own words" in outcome.reply.lines[0]


def test_who_reports_success_depends_on_dsn() -> None:
    assert classify_reply(Stage.CONTENT, reply(250), HOP).reason == RELAYED
    assert classify_reply(Stage.CONTENT, reply(250), HOP, passes_dsn=True).reason == PASSED_ON


@given(
    st.sampled_from([Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.CONTENT]),
    st.integers(400, 599),
    st.sampled_from(["", "{}.1.1", "{}.5.3", "{}.2.2", "{}.7.1", "{}.6.11", "{}.0.0", "{}.3.4"]),
)
def test_status_result_and_code_agree(stage: Stage, code: int, enhanced: str) -> None:
    outcome = classify_reply(stage, reply(code, enhanced.format(code // 100)), HOP)
    assert outcome.result is not Result.DELIVERED
    assert outcome.status[0] == ("4" if outcome.result is Result.DEFERRED else "5")
    assert outcome.reason
    if code < 500:
        assert outcome.result is Result.DEFERRED


@pytest.mark.parametrize(
    ("stage", "answer", "status"),
    [
        (Stage.ROUTE, None, "4.4.4"),
        (Stage.CONNECT, None, "4.4.1"),
        (Stage.GREETING, reply(554, "5.7.1"), "4.7.1"),
        (Stage.GREETING, reply(554), "4.4.2"),
        (Stage.EHLO, reply(550), "4.4.2"),
        (Stage.STARTTLS, None, "4.7.5"),
        (Stage.AUTH, reply(535, "5.7.8"), "4.7.8"),
        (Stage.AUTH, None, "4.7.8"),
        (Stage.LOCAL, None, "4.3.0"),
    ],
)
def test_what_goes_wrong_with_a_session_always_defers(
    stage: Stage, answer: Reply | None, status: str
) -> None:
    outcome = classify_session(SessionFault(stage, "words of ours", answer), HOP)
    assert (outcome.result, outcome.stage, outcome.status) == (DEFERRED, stage, status)
    assert (outcome.reason, outcome.reply) == ("words of ours", answer)


def test_a_connection_lost_behind_the_end_of_data_says_that_a_copy_is_possible() -> None:
    outcome = classify_fault(Fault(Stage.CONTENT, "the connection was lost", end_written=True), HOP)
    assert (outcome.result, outcome.stage) == (DEFERRED, Stage.CONTENT)
    assert "second copy is possible" in outcome.reason
    outcome = classify_fault(Fault(Stage.RCPT, "the connection was lost", end_written=False), HOP)
    assert (outcome.result, outcome.stage) == (DEFERRED, Stage.RCPT)
    assert "copy" not in outcome.reason


def test_our_own_faults_are_local() -> None:
    outcome = classify_fault(Fault(Stage.LOCAL, "disk", False, cause=OSError("disk")), HOP)
    assert (outcome.result, outcome.stage, outcome.status) == (DEFERRED, Stage.LOCAL, "4.3.0")
    assert classify_local("signed", "5.6.3").result is FAILED
    assert classify_local("disk").result is DEFERRED


def test_what_a_hop_cannot_take_fails_without_being_sent() -> None:
    outcome = classify_refusal(Refusal(RefusalKind.TOO_LARGE, "5.3.4", "too large"), HOP)
    assert (outcome.result, outcome.stage, outcome.status) == (FAILED, Stage.LOCAL, "5.3.4")
