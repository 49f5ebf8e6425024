"""Made-up messages in every state, with octets, ledger and attempts that agree with each other."""

from __future__ import annotations

from collections.abc import Sequence

from lonedot.message.content import Content, MemoryBody
from lonedot.message.encode import DataEncoder, canonicalise
from lonedot.message.findings import Code, Finding, Part, Severity
from lonedot.message.fold import digests_of, fold
from lonedot.message.ledger import Action, Change, Digests, Entry, Splice
from lonedot.message.measure import measure
from lonedot.spool.interface import (
    Attempt,
    Facts,
    MessageState,
    RecipientState,
    RecipientStatus,
    Stored,
    TranscriptRef,
    WireRecord,
)
from lonedot.terms.address import Address
from lonedot.terms.envelope import BodyType, Envelope, Recipient
from lonedot.terms.ids import IdSource, MessageId, SessionId
from lonedot.terms.outcome import Outcome, Result, Stage
from lonedot.terms.reply import Reply

BEGAN = 1_784_000_000.0
"""When the stories begin: 2026-07-14 03:33:20 UTC."""

HEAD = (
    b"From: scanner@example.com\r\nTo: anna@example.net\r\nSubject: Scan\r\nMIME-Version: 1.0\r\n"
    b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n'
)
BODY = (
    b"--b\r\nContent-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    b"JVBERi0xLjQKJSVFT0YK\r\n.dots\r\n--b--\r\n"
)
TRACE = (
    b"Received: from copier3 ([192.168.1.50]) by relay.example.com with ESMTP id 1;\r\n"
    b"\tTue, 14 Jul 2026 03:33:20 +0000\r\n"
)

_ids = IdSource()


def new_id(at: float = BEGAN) -> MessageId:
    return MessageId(_ids.next(at))


def content(head: bytes = HEAD, body: bytes = BODY) -> Content:
    return Content(head, MemoryBody(body), measure(head), measure(body))


def entry(
    before: Content,
    after: Content,
    changes: tuple[Change, ...],
    *,
    binding: str = "lonedot",
    binding_id: str = "",
    event: str = "door",
    took_seconds: float = 0.0001,
) -> Entry:
    return Entry(
        binding,
        binding_id,
        event,
        BEGAN + 0.01,
        took_seconds,
        digests_of(before),
        digests_of(after),
        Action.KEPT,
        changes=changes,
    )


def story_ledger(arrival: Content) -> tuple[Entry, ...]:
    """At the door, a good sink, and the faulty one, whose damage is undone."""
    traced: tuple[Change, ...] = (Splice(Part.HEAD, 0, 0, TRACE),)
    after_door = _apply(arrival, traced)
    door = entry(arrival, after_door, traced)
    added: tuple[Change, ...] = (Splice(Part.HEAD, 0, 0, b"X-Recipient: anna@example.net\r\n"),)
    after_good = _apply(after_door, added)
    good = entry(
        after_door,
        after_good,
        added,
        binding="XRecipientList",
        binding_id="{11111111-0000-5000-8000-000000000001}",
        event="arrival",
        took_seconds=0.0012,
    )
    kept: tuple[Change, ...] = (Splice(Part.HEAD, 0, 0, b"X-Faulty: yes\r\n"),)
    after_faulty = _apply(after_good, kept)
    faulty = Entry(
        before=digests_of(after_good),
        after=digests_of(after_faulty),
        binding="XRecipientList (faulty)",
        binding_id="{22222222-0000-5000-8000-000000000002}",
        event="arrival",
        at=BEGAN + 0.02,
        took_seconds=0.0204,
        action=Action.REDUCED,
        changes=kept,
        findings=(
            Finding(
                Code.NO_FINAL_NEWLINE,
                Severity.DAMAGE,
                Part.BODY,
                102,
                "the message now ends in `%%EOF LF`: the last line end is a bare LF",
                b"%PDF-1.4\n%%EOF\n",
            ),
            Finding(
                Code.BODY_UNDECLARED,
                Severity.VIOLATION,
                Part.BODY,
                -1,
                "it changed the body and declares header",
            ),
        ),
        words="the body was left as it was",
        attempted=Digests(b"\x01" * 32, b"\x02" * 32),
        attempted_size=300,
        tail_before=BODY[-24:],
        tail_attempted=b"JSVF\n%PDF-1.4\n%%EOF\n",
    )
    return (door, good, faulty)


def _apply(base: Content, changes: Sequence[Change]) -> Content:
    blank = Digests(b"", b"")
    return fold(base, (Entry("", "", "", 0.0, 0.0, blank, blank, Action.KEPT, changes=tuple(changes)),))


def attempt_that_delivered(queued: Content, at: float, indexes: Sequence[int] = (0,)) -> Attempt:
    encoder = DataEncoder(canonicalise(queued), "DATA")
    for _ in encoder.chunks():
        pass
    sent = encoder.record()
    wire = WireRecord(sent.mode, sent.size, sent.head_sha256, sent.body_sha256, sent.tail)
    reply = Reply(250, "2.0.0", (b"2.0.0 Ok: queued as 4F1",))
    return Attempt(
        started_at=at,
        ended_at=at + 0.25,
        next_hop="mx.example.net[192.0.2.1]:25",
        route="all",
        tls="TLSv1.3 TLS_AES_256_GCM_SHA384",
        outcomes=tuple((index, Outcome(Result.DELIVERED, Stage.CONTENT, "", reply)) for index in indexes),
        wire=wire,
        transcript=TranscriptRef("2026-07-14", 100, 50),
    )


def deferred(at: float) -> Attempt:
    outcome = Outcome(
        Result.DEFERRED,
        Stage.RCPT,
        "the next hop asks to try later",
        Reply(450, "4.2.1", (b"4.2.1 mailbox busy, later",)),
        "mx.example.net[192.0.2.1]:25",
        "4.2.1",
    )
    return Attempt(at, at + 1.5, "mx.example.net[192.0.2.1]:25", "all", "", ((0, outcome),))


FACTS = Facts(
    source="smtp",
    session=SessionId("0session00001"),
    listener="127.0.0.1:2525",
    client="192.168.1.50",
    helo="copier3",
    protocol="ESMTP",
    trusted=True,
    revision="0123456789ab",
    transcript=TranscriptRef("2026-07-14", 0, 50),
)


def stored(
    state: MessageState = MessageState.QUEUED,
    *,
    id: MessageId | None = None,
    recipients: Sequence[str] = ("anna@example.net",),
    status: RecipientStatus = RecipientStatus.WAITING,
    next_at: float = BEGAN,
    attempts: Sequence[Attempt] = (),
    reason: str = "",
    sender: bytes = b"scanner@example.com",
    has_content: bool = True,
    ledger: tuple[Entry, ...] | None = None,
) -> Stored:
    people = tuple(Recipient(Address(name.encode())) for name in recipients)
    last = attempts[-1].outcomes[0][1] if attempts else None
    arrival = content()
    return Stored(
        id=new_id() if id is None else id,
        state=state,
        reason=reason,
        accepted_at=BEGAN,
        finished_at=BEGAN + 1 if state is MessageState.FINISHED else 0.0,
        envelope=Envelope(Address(sender), people, BodyType.EIGHT_BIT_MIME),
        facts=FACTS,
        ledger=story_ledger(arrival) if ledger is None else ledger,
        recipients=tuple(
            RecipientState(
                number,
                person,
                status,
                len(attempts),
                next_at,
                last,
                route=attempts[-1].route if attempts else "",
            )
            for number, person in enumerate(people)
        ),
        size=arrival.size + len(TRACE) + 46,
        attempts=tuple(attempts),
        has_content=has_content,
    )


def the_story() -> Stored:
    """The founding story: a faulty sink undone, the message delivered."""
    queued = fold(content(), story_ledger(content()))
    return stored(
        MessageState.FINISHED,
        id=MessageId("1jkq0a0000000"),
        status=RecipientStatus.DELIVERED,
        attempts=(attempt_that_delivered(queued, BEGAN + 0.1),),
    )
