"""An edited report is still a report, or it is damage."""

from __future__ import annotations

import pytest

from lonedot.message.findings import Code, Severity
from lonedot.message.intake import content_from
from lonedot.message.report import Original, ReportedRecipient, ReportKind, build_report
from lonedot.message.report_guard import inspect_report
from lonedot.terms.address import Address
from lonedot.terms.envelope import Recipient
from lonedot.terms.outcome import Outcome, Result, Stage

OUTCOME = Outcome(Result.FAILED, Stage.RCPT, "unknown", None, "mx[192.0.2.1]:25", "5.1.1")
OCTETS = build_report(
    ReportKind.FAILURE,
    (ReportedRecipient(Recipient(Address(b"joe@b.example")), OUTCOME, 1.0, 2.0, 1, False),),
    Original(Address(b"a@a.example"), content_from(b"Subject: x\r\n\r\nbody\r\n"), 1.0),
    hostname="relay.example.com",
    message_id="dsn.1",
    now=3.0,
)
BEFORE = content_from(OCTETS)


def after(old: bytes, new: bytes) -> bytes:
    assert old in OCTETS
    return OCTETS.replace(old, new, 1)


@pytest.mark.parametrize(
    "octets",
    [
        OCTETS,
        after(b"Subject: ", b"Subject: [mail] "),
        after(b"MIME-Version", b"X-Desk: yes\r\nMIME-Version"),
        after(b"Hello", b"Dear colleague") if b"Hello" in OCTETS else OCTETS,
    ],
)
def test_words_for_people_may_change(octets: bytes) -> None:
    assert inspect_report(BEFORE, content_from(octets)) is None


@pytest.mark.parametrize(
    "octets",
    [
        after(b"multipart/report", b"multipart/mixed"),
        after(b"Content-Type: multipart/report", b"X-Type: multipart/report"),
        after(b"message/delivery-status", b"text/plain"),
        after(b"Status: 5.1.1", b"Status: 4.1.1"),
        after(b"Action: failed", b"Action: delayed"),
        OCTETS[: OCTETS.rindex(b"--\r\n")] + b"\r\n",
        b"Subject: gone\r\n\r\nnothing\r\n",
    ],
)
def test_what_programs_read_may_not(octets: bytes) -> None:
    finding = inspect_report(BEFORE, content_from(octets))
    assert finding is not None
    assert (finding.code, finding.severity) == (Code.REPORT_BROKEN, Severity.DAMAGE)
