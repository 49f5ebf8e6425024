"""Reports: to whom, of what, and Badmail when there is nobody to tell."""

from __future__ import annotations

import email
import json
from collections.abc import Sequence
from email.message import Message
from itertools import count
from pathlib import Path

import msgspec
import pytest

from lonedot.delivery.classify import PASSED_ON, RELAYED
from lonedot.delivery.notify import Notifier, due_reports
from lonedot.delivery.routing import NextHop, Route, RouteTable, Smarthosts
from lonedot.message.content import Content, FileBody
from lonedot.message.encode import canonicalise
from lonedot.message.measure import measure
from lonedot.message.report import ReportKind
from lonedot.queue import plan
from lonedot.queue.retry import RetrySchedule
from lonedot.spool.interface import (
    Acceptance,
    Claim,
    ContentDamaged,
    MessageState,
    RecipientState,
    RecipientStatus,
    SpoolFault,
)
from lonedot.terms.address import NULL_REVERSE_PATH, Address
from lonedot.terms.envelope import Envelope, Recipient, Ret
from lonedot.terms.ids import MessageId
from lonedot.terms.outcome import Outcome, Result, Stage
from lonedot.terms.reply import Reply
from tests.unit.delivery.outbound import claim, message

NOW = 1_795_000_000.0
REFUSAL = Reply(550, "5.1.1", (b"5.1.1 <b@example.org> is not known here",))
FAILED = Outcome(
    Result.FAILED,
    Stage.RCPT,
    "the next hop does not know the recipient",
    REFUSAL,
    "mx[192.0.2.1]:25",
    "5.1.1",
)
DEFERRED = Outcome(
    Result.DEFERRED, Stage.CONNECT, "no connection: Connection refused", None, "mx[192.0.2.1]:25", "4.4.1"
)


class StoppedClock:
    def now(self) -> float:
        return NOW

    def monotonic(self) -> float:
        return 0.0


def delivered(reason: str) -> Outcome:
    return Outcome(Result.DELIVERED, Stage.CONTENT, reason, None, "mx[192.0.2.1]:25", "2.0.0")


def state(
    index: int, last: Outcome | None, status: RecipientStatus = RecipientStatus.FAILED
) -> RecipientState:
    recipient = Recipient(Address(b"r%d@example.org" % index))
    return RecipientState(index, recipient, status, attempts=1, last=last, route="out")


def notifier(badmail: Path, content: Content | Exception | None = None) -> Notifier:
    numbers = count(1)

    def content_of(id: MessageId) -> Content:
        if isinstance(content, Exception):
            raise content
        assert content is not None
        return content

    route = Route(
        name="out",
        target=Smarthosts((NextHop("mx"),)),
        ehlo_name="relay.example.com",
        schedule=RetrySchedule(expire_seconds=3600),
    )
    return Notifier(
        "relay.example.com",
        lambda server: badmail,
        RouteTable([route]),
        content_of,
        lambda: MessageId(f"id{next(numbers)}"),
        StoppedClock(),
    )


def failure(*states: RecipientState) -> plan.Report:
    return plan.Report(plan.ReportKind.FAILURE, states)


def parsed(acceptance: Acceptance) -> Message:
    canonicalise(acceptance.arrival)  # raises when it could not be sent
    return email.message_from_string(acceptance.arrival.octets().decode())


def without_content(what: Claim) -> Claim:
    return Claim(what.message, what.epoch, None)


async def test_a_failure_goes_to_the_sender_from_nobody(tmp_path: Path) -> None:
    what = claim()
    (dsn,) = await notifier(tmp_path).report(what, [failure(state(0, FAILED))])
    assert dsn.envelope.reverse_path == NULL_REVERSE_PATH
    assert [r.address for r in dsn.envelope.recipients] == [Address(b"a@example.com")]
    assert [(r.status, r.next_at) for r in dsn.recipients] == [(RecipientStatus.WAITING, NOW)]
    assert (dsn.id, dsn.accepted_at, dsn.state, dsn.owner) == ("id1", NOW, MessageState.QUEUED, "")
    assert (dsn.facts.source, dsn.facts.parent, dsn.facts.trusted) == ("dsn", what.message.id, True)
    assert dsn.size == dsn.arrival.size
    report = parsed(dsn)
    assert report.get_content_type() == "multipart/report"
    assert report["To"] == "<a@example.com>"
    text = dsn.arrival.octets().decode()
    assert "<b@example.org> is not known here" in text
    assert (
        "Final-Recipient: rfc822;r0@example.org" in text or "Final-Recipient: rfc822; r0@example.org" in text
    )
    assert "Subject: test" in text


async def test_each_kind_is_a_message_of_its_own(tmp_path: Path) -> None:
    reports = [
        failure(state(0, FAILED)),
        plan.Report(plan.ReportKind.DELAY, (state(1, DEFERRED, RecipientStatus.WAITING),)),
        plan.Report(plan.ReportKind.SUCCESS, (state(2, delivered(RELAYED), RecipientStatus.DELIVERED),)),
    ]
    made = await notifier(tmp_path).report(claim(), reports)
    assert [dsn.id for dsn in made] == ["id1", "id2", "id3"]
    actions = [
        line
        for dsn in made
        for line in dsn.arrival.octets().decode().splitlines()
        if line.startswith("Action:")
    ]
    assert actions == ["Action: failed", "Action: delayed", "Action: relayed"]
    assert b"Will-Retry-Until" in made[1].arrival.octets()


def kinds(
    reports: Sequence[plan.Report], sender: bytes = b"a@example.com"
) -> list[tuple[ReportKind, list[int]]]:
    due = due_reports(claim(sender=sender).message, reports)
    return [(kind, [state.index for state in states]) for kind, states in due]


def test_success_is_reported_by_whoever_does_not_pass_the_duty_on() -> None:
    success = plan.Report(
        plan.ReportKind.SUCCESS,
        (
            state(0, delivered(RELAYED)),
            state(1, delivered(PASSED_ON)),
            state(2, delivered("put into its mailbox")),
        ),
    )
    assert kinds([success]) == [(ReportKind.RELAYED, [0]), (ReportKind.SUCCESS, [2])]
    assert kinds([plan.Report(plan.ReportKind.SUCCESS, (state(0, delivered(PASSED_ON)),))]) == []


def test_nothing_is_reported_to_the_null_reverse_path() -> None:
    assert kinds([failure(state(0, FAILED))], b"") == []


async def test_what_nobody_can_be_told_of_goes_to_badmail(tmp_path: Path) -> None:
    folder = tmp_path / "badmail"
    what = claim(content=message(b"a report that came back\r\n"), sender=b"")
    delay = plan.Report(plan.ReportKind.DELAY, (state(2, DEFERRED),))
    made = await notifier(folder).report(what, [failure(state(0, FAILED), state(1, DEFERRED)), delay])
    assert made == []
    (eml,) = folder.glob("*.eml")
    assert eml.name == f"{what.message.id}-0-1.eml"
    assert eml.read_bytes() == b"Subject: test\r\n\r\na report that came back\r\n"
    words = eml.with_suffix(".txt").read_text()
    assert "neither delivered nor returned" in words
    assert "r0@example.org: the next hop does not know the recipient" in words
    assert "mx[192.0.2.1]:25 said: 550 5.1.1 <b@example.org> is not known here" in words
    envelope = json.loads(eml.with_suffix(".json").read_text())
    assert envelope["recipients"] == ["r0@example.org", "r1@example.org"]


async def test_a_delay_of_a_message_without_sender_is_told_to_nobody(tmp_path: Path) -> None:
    delay = plan.Report(plan.ReportKind.DELAY, (state(0, DEFERRED),))
    assert await notifier(tmp_path / "badmail").report(claim(sender=b""), [delay]) == []
    assert not (tmp_path / "badmail").exists()


async def test_badmail_that_cannot_be_written_is_a_fault_of_custody(tmp_path: Path) -> None:
    (tmp_path / "badmail").write_bytes(b"a file stands in the way")
    with pytest.raises(SpoolFault, match="Badmail could not be written"):
        await notifier(tmp_path / "badmail").report(claim(sender=b""), [failure(state(0, FAILED))])


def in_file(folder: Path, octets: bytes) -> Content:
    head = b"Subject: in a file\r\n\r\n"
    path = folder / "body"
    path.write_bytes(octets)
    return Content(head, FileBody(path, len(octets)), measure(head), measure(octets))


async def test_the_whole_message_comes_back_when_asked_for(tmp_path: Path) -> None:
    envelope = Envelope(Address(b"a@example.com"), (), ret=Ret.FULL, envid=b"QQ1")
    content = in_file(tmp_path, b"the whole body\r\n")
    (dsn,) = await notifier(tmp_path).report(
        claim(content=content, envelope=envelope), [failure(state(0, FAILED))]
    )
    octets = dsn.arrival.octets()
    assert b"the whole body\r\n" in octets
    assert b"Original-Envelope-Id: QQ1\r\n" in octets
    headers = msgspec.structs.replace(envelope, ret=Ret.HEADERS)
    (dsn,) = await notifier(tmp_path).report(
        claim(content=content, envelope=headers), [failure(state(0, FAILED))]
    )
    assert b"the whole body" not in dsn.arrival.octets()


@pytest.mark.parametrize("ret", [Ret.FULL, Ret.HEADERS])
async def test_a_message_that_cannot_be_read_any_more_is_still_reported(tmp_path: Path, ret: Ret) -> None:
    envelope = Envelope(Address(b"a@example.com"), (), ret=ret)
    gone = in_file(tmp_path, b"body\r\n")
    (tmp_path / "body").unlink()
    (dsn,) = await notifier(tmp_path).report(
        claim(content=gone, envelope=envelope), [failure(state(0, FAILED))]
    )
    assert b"Subject: in a file" in dsn.arrival.octets()
    damaged = notifier(tmp_path, ContentDamaged("digest differs"))
    (dsn,) = await damaged.report(without_content(claim(envelope=envelope)), [failure(state(0, FAILED))])
    assert parsed(dsn).get_content_type() == "multipart/report"


async def test_badmail_takes_what_is_left_of_an_unreadable_message(tmp_path: Path) -> None:
    for number, change in enumerate((b"shorter\r\n", None)):
        folder = tmp_path / f"badmail{number}"
        content = in_file(tmp_path, b"the body as it was\r\n")
        if change is None:
            (tmp_path / "body").unlink()
        else:
            (tmp_path / "body").write_bytes(change)
        await notifier(folder).report(claim(content=content, sender=b""), [failure(state(0, FAILED))])
        (eml,) = folder.glob("*.eml")
        assert eml.read_bytes() == b"Subject: in a file\r\n\r\n"
        assert "could not be read" in eml.with_suffix(".txt").read_text()


async def test_content_comes_from_custody_when_it_is_not_at_hand(tmp_path: Path) -> None:
    made = notifier(tmp_path, message(b"x\r\n", b"Subject: from custody\r\n\r\n"))
    (dsn,) = await made.report(without_content(claim()), [failure(state(0, FAILED))])
    assert b"Subject: from custody" in dsn.arrival.octets()


async def test_an_international_sender_is_told_by_smtputf8(tmp_path: Path) -> None:
    envelope = Envelope(Address("jörg@bücher.example".encode()), (), smtputf8=True)
    (dsn,) = await notifier(tmp_path).report(claim(envelope=envelope), [failure(state(0, FAILED))])
    assert dsn.envelope.smtputf8
    assert dsn.envelope.recipients[0].address == envelope.reverse_path
