"""Delivery reports: canonical, 7-bit, readable by people and by programs."""

from __future__ import annotations

import email
import email.policy
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.message.content import Content
from lonedot.message.encode import canonicalise
from lonedot.message.intake import content_from
from lonedot.message.report import (
    CONTENT_LIMIT,
    HEAD_LIMIT,
    Original,
    ReportedRecipient,
    ReportKind,
    build_report,
)
from lonedot.terms.address import NULL_REVERSE_PATH, Address
from lonedot.terms.envelope import Recipient, Ret
from lonedot.terms.outcome import Outcome, Result, Stage
from lonedot.terms.reply import Reply
from tests.corpus.files import corpus

NOW = 1_783_000_000.0
REFUSED = Outcome(
    Result.FAILED,
    Stage.RCPT,
    "the next hop refused the recipient",
    Reply(
        550, "5.1.1", (b"5.1.1 <bob@dest.example>: no such user here", b"5.1.1 see https://dest.example/help")
    ),
    "mx.dest.example[192.0.2.1]:25",
    "5.1.1",
)
UNREACHABLE = Outcome(
    Result.DEFERRED, Stage.CONNECT, "connection refused", None, "mx.dest.example[192.0.2.1]:25", "4.4.1"
)


def reported(
    outcome: Outcome | None = REFUSED, address: bytes = b"bob@dest.example", **more: object
) -> ReportedRecipient:
    orcpt = more.pop("orcpt", b"")
    assert isinstance(orcpt, bytes)
    return ReportedRecipient(Recipient(Address(address), orcpt=orcpt), outcome, NOW - 60, **more)  # type: ignore[arg-type]


def build(
    kind: ReportKind = ReportKind.FAILURE,
    recipients: tuple[ReportedRecipient, ...] | None = None,
    content: Content | None = None,
    **more: object,
) -> EmailMessage:
    original = Original(
        Address(b"anna@sender.example"),
        content or corpus("plain-ascii"),
        NOW - 3600,
        **more,  # type: ignore[arg-type]
    )
    octets = build_report(
        kind, recipients or (reported(),), original, hostname="relay.example.com", message_id="0abc", now=NOW
    )
    canonicalise(content_from(octets))
    assert octets.isascii()
    message = email.message_from_bytes(octets, policy=email.policy.default)  # noqa: TID251 - the judge
    assert isinstance(message, EmailMessage)
    for part in [] if original.smtputf8 else message.walk():  # the library cannot decode message/global
        assert not part.defects, part.defects
    return message


def parts(message: EmailMessage) -> list[EmailMessage]:
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    found = list(message.iter_parts())
    assert len(found) == 3
    assert all(isinstance(part, EmailMessage) for part in found)
    return found  # type: ignore[return-value]


def text(message: EmailMessage) -> str:
    content = parts(message)[0].get_content()
    assert isinstance(content, str)
    return content.replace("\r\n", "\n")


def groups(message: EmailMessage) -> list[EmailMessage]:
    found = parts(message)[1].get_payload()
    assert isinstance(found, list)
    return found  # type: ignore[return-value]


def test_the_message_around_it() -> None:
    message = build()
    assert message["From"] == "Mail Delivery System <MAILER-DAEMON@relay.example.com>"
    assert message["To"] == "anna@sender.example"
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["Message-ID"] == "<0abc@relay.example.com>"
    assert message["In-Reply-To"] == message["References"] == "<p1@sender.example>"
    assert message["Date"] == "Thu, 02 Jul 2026 13:46:40 +0000"
    assert message["Subject"] == "Your message could not be delivered"


def test_the_first_paragraph_says_what_happened_to_whom_whose_fault_and_what_next() -> None:
    first = " ".join(text(build()).split("\n\n")[0].split())
    assert first == (
        "This is the mail relay relay.example.com. Your message to <bob@dest.example> was not delivered, and no "
        "further attempt will be made. The mail server mx.dest.example refused this recipient. Check the address for "
        "mistakes; there is no such mailbox there."
    )


def test_the_remote_is_quoted_in_its_own_words() -> None:
    words = text(build())
    assert "  mx.dest.example[192.0.2.1]:25 said:\n" in words
    assert "    550-5.1.1 <bob@dest.example>: no such user here\n" in words
    assert "    550 5.1.1 see https://dest.example/help\n" in words


def test_fields_for_programs() -> None:
    message, recipient = groups(
        build(recipients=(reported(orcpt=b"rfc822;bob+2Blist@dest.example"),), envid=b"QQ+2B314")
    )
    assert message["Reporting-MTA"] == "dns; relay.example.com"
    assert message["Original-Envelope-Id"] == "QQ+314"
    assert message["Arrival-Date"] == "Thu, 02 Jul 2026 12:46:40 +0000"
    assert recipient["Original-Recipient"] == "rfc822; bob+list@dest.example"
    assert recipient["Final-Recipient"] == "rfc822; bob@dest.example"
    assert recipient["Action"] == "failed"
    assert recipient["Status"] == "5.1.1"
    assert recipient["Remote-MTA"] == "dns; mx.dest.example"
    assert recipient["Diagnostic-Code"].split() == (
        [
            "smtp;",
            "550-5.1.1",
            "<bob@dest.example>:",
            "no",
            "such",
            "user",
            "here",
            "550",
            "5.1.1",
            "see",
            "https://dest.example/help",
        ]
    )
    assert recipient["Last-Attempt-Date"] == "Thu, 02 Jul 2026 13:45:40 +0000"
    assert recipient["Will-Retry-Until"] is None


def test_a_delay_says_that_trying_goes_on() -> None:
    message = build(ReportKind.DELAY, (reported(UNREACHABLE, retry_until=NOW + 86400),))
    assert message["Subject"] == "Your message is delayed"
    words = " ".join(text(message).split())
    assert "has not been delivered yet. The mail server mx.dest.example could not be reached." in words
    assert "you need not send it again. It gives up on Fri, 03 Jul 2026 13:46:40 +0000" in words
    _, recipient = groups(message)
    assert (recipient["Action"], recipient["Status"]) == ("delayed", "4.4.1")
    assert recipient["Will-Retry-Until"] == "Fri, 03 Jul 2026 13:46:40 +0000"
    assert recipient["Diagnostic-Code"] == "X-Lonedot; connection refused"


@pytest.mark.parametrize(
    ("kind", "action"), [(ReportKind.SUCCESS, "delivered"), (ReportKind.RELAYED, "relayed")]
)
def test_success(kind: ReportKind, action: str) -> None:
    took = Outcome(
        Result.DELIVERED, Stage.CONTENT, "", Reply(250, "2.0.0", (b"2.0.0 queued",)), "mx[192.0.2.1]:25"
    )
    message = build(kind, (reported(took),), ret=Ret.FULL)
    _, recipient = groups(message)
    assert (recipient["Action"], recipient["Status"]) == (action, "2.0.0")
    assert parts(message)[2].get_content_type() == "text/rfc822-headers"  # RET speaks of failures only


def test_an_expired_message() -> None:
    message = build(recipients=(reported(UNREACHABLE, is_expired=True, attempts=12),))
    words = " ".join(text(message).split())
    assert "The time for trying ended after 12 attempts. (connection refused)" in words
    assert "Send it again later" in words
    assert groups(message)[1]["Status"] == "4.4.1"


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (None, "5.0.0"),
        (Outcome(Result.FAILED, Stage.ROUTE, "no route", status="2.0.0"), "5.0.0"),
        (Outcome(Result.FAILED, Stage.DATA, "x", Reply(554, "", (b"no",)), "mx"), "5.0.0"),
        (Outcome(Result.FAILED, Stage.DATA, "x", Reply(554, "5.7.26", (b"no",)), "mx"), "5.7.26"),
        (Outcome(Result.FAILED, Stage.DATA, "x", status="five"), "5.0.0"),
    ],
)
def test_the_status_agrees_with_the_action(outcome: Outcome | None, status: str) -> None:
    assert groups(build(recipients=(reported(outcome),)))[1]["Status"] == status


def test_many_recipients() -> None:
    many = tuple(reported(address=b"user%d@dest.example" % number) for number in range(150))
    message = build(recipients=many)
    words = text(message)
    assert "150 recipients" in words
    assert "... and 50 more recipients" in words
    assert len(groups(message)) == 151


def test_differing_causes_stand_beside_each_recipient() -> None:
    words = " ".join(
        text(build(recipients=(reported(), reported(UNREACHABLE, b"carol@dest.example")))).split()
    )
    assert "The causes differ" in words
    assert "<carol@dest.example> The mail server mx.dest.example could not be reached." in words


def test_headers_come_back_by_default_and_the_content_when_asked() -> None:
    part = parts(build())[2]
    assert part.get_content_type() == "text/rfc822-headers"
    assert "Subject: Test" in str(part.get_payload())
    assert "all is well" not in str(part.get_payload())
    part = parts(build(ret=Ret.FULL))[2]
    assert part.get_content_type() == "message/rfc822"
    assert "all is well" in str(part.get_content().get_payload())


def test_eight_bit_content_comes_back_encoded() -> None:
    inner = parts(build(content=corpus("plain-8bit-labelled"), ret=Ret.FULL))[2].get_content()
    assert inner.get_content() == "Grüße aus Köln\r\n"


def test_what_cannot_be_encoded_comes_back_as_headers() -> None:
    message = build(content=corpus("signed"), ret=Ret.FULL)
    assert parts(message)[2].get_content_type() == "text/rfc822-headers"
    assert "The header section of your message is attached." in text(message)


def test_smtputf8_content_comes_back_as_global() -> None:
    part = parts(build(content=corpus("header-raw-utf8"), ret=Ret.FULL, smtputf8=True))[2]
    assert part.get_content_type() == "message/global"
    assert part["Content-Transfer-Encoding"] == "base64"
    part = parts(build(content=corpus("header-raw-utf8"), smtputf8=True))[2]
    assert part.get_content_type() == "message/global-headers"
    assert part["Content-Transfer-Encoding"] == "quoted-printable"
    assert b"=C3=9Cbergr=C3=B6=C3=9Fen" in bytes(part)


def test_what_comes_back_is_bounded() -> None:
    head = b"Subject: x\r\n" + b"".join(b"X-%d: %s\r\n" % (n, b"v" * 60) for n in range(3000)) + b"\r\n"
    message = build(content=content_from(head + b"x\r\n"))
    octets = parts(message)[2].get_payload(decode=True)
    assert isinstance(octets, bytes)
    assert len(octets) <= HEAD_LIMIT
    large = content_from(
        b"Subject: x\r\n\r\n" + b"x" * 70 * 0 + b"line of text\r\n" * (CONTENT_LIMIT // 14 + 1)
    )
    assert parts(build(content=large, ret=Ret.FULL))[2].get_content_type() == "text/rfc822-headers"


def test_an_address_outside_ascii() -> None:
    message = build(recipients=(reported(address="jürgen@dest.example".encode()),))
    assert groups(message)[1]["Final-Recipient"] == r"utf-8; j\x{FC}rgen@dest.example"
    assert "jürgen@dest.example" in text(message)


def test_nobody_is_told_at_the_null_reverse_path() -> None:
    original = Original(NULL_REVERSE_PATH, corpus("plain-ascii"), NOW)
    with pytest.raises(ValueError, match="null reverse-path"):
        build_report(
            ReportKind.FAILURE, (reported(),), original, hostname="h.example", message_id="x", now=NOW
        )


def test_an_address_cannot_bring_fields_of_its_own() -> None:
    original = Original(Address(b"a@b\r\nBcc: c@d"), corpus("plain-ascii"), NOW)
    with pytest.raises(ValueError, match="control"):
        build_report(
            ReportKind.FAILURE, (reported(),), original, hostname="h.example", message_id="x", now=NOW
        )


def test_the_boundary_occurs_in_no_part() -> None:
    first = build()
    boundary = first.get_boundary()
    assert boundary
    content = content_from(b"X-Trap: --%s--\r\n\r\ntext\r\n" % boundary.encode())
    assert build(content=content).get_boundary() != boundary


@given(
    words=st.lists(st.binary(max_size=120), min_size=1, max_size=4),
    reason=st.text(max_size=200),
    orcpt=st.binary(max_size=60),
    envid=st.binary(max_size=60),
    next_hop=st.text(max_size=40),
    head=st.binary(max_size=200),
    kind=st.sampled_from(ReportKind),
)
def test_whatever_strangers_say_the_report_is_canonical(
    words: list[bytes], reason: str, orcpt: bytes, envid: bytes, next_hop: str, head: bytes, kind: ReportKind
) -> None:
    outcome = Outcome(Result.FAILED, Stage.RCPT, reason, Reply(550, "", tuple(words)), next_hop)
    content = content_from(b"A: b\r\n" + head + b"\r\n\r\n\xff\n")
    original = Original(Address(b"a@b.example"), content, NOW, envid, Ret.FULL)
    octets = build_report(
        kind, (reported(outcome, orcpt=orcpt),), original, hostname="h.example", message_id="x", now=NOW
    )
    canonicalise(content_from(octets))
    assert octets.isascii()
    message = email.message_from_bytes(octets)  # noqa: TID251 - the judge
    assert len(message.get_payload()) == 3
    assert message.get_all("Bcc") is None
