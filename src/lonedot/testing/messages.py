"""Acceptances and settlements with plain contents, for tests that need a message and do not care which."""

from __future__ import annotations

from lonedot.message.content import Content, MemoryBody
from lonedot.message.ledger import Action, Digests, Entry
from lonedot.message.measure import measure
from lonedot.spool.interface import (
    Acceptance,
    Attempt,
    Facts,
    MessageState,
    RecipientState,
    RecipientStatus,
    Settlement,
)
from lonedot.terms.address import Address
from lonedot.terms.envelope import Envelope, Recipient
from lonedot.terms.ids import MessageId, SessionId
from lonedot.terms.outcome import Outcome, Result, Stage
from lonedot.terms.reply import reply

__all__ = ["acceptance", "attempt", "delivered", "entry", "make_content", "waiting"]

HEAD = b"From: scanner@example.com\r\nTo: office@example.org\r\nSubject: scan\r\n\r\n"


def make_content(body: bytes = b"one line\r\n", head: bytes = HEAD) -> Content:
    """Content in memory, measured."""
    return Content(head, MemoryBody(body), measure(head), measure(body))


def entry(content: Content, action: Action = Action.KEPT, binding: str = "lonedot") -> Entry:
    """A ledger entry that changes nothing."""
    digests = Digests(content.head_measure.sha256, content.body_measure.sha256)
    return Entry(binding, "", "door", 0.0, 0.0, digests, digests, action)


def acceptance(
    id: str,
    now: float,
    *,
    body: bytes = b"one line\r\n",
    recipients: tuple[str, ...] = ("office@example.org",),
    sender: str = "scanner@example.com",
    owner: str = "",
    lease_seconds: float = 600.0,
    next_at: float | None = None,
    action: Action = Action.KEPT,
    state: MessageState = MessageState.QUEUED,
    key: bytes = b"",
) -> Acceptance:
    """A message for custody, due now unless `next_at` says otherwise."""
    content = make_content(body)
    wanted = tuple(Recipient(Address(address.encode())) for address in recipients)
    return Acceptance(
        id=MessageId(id),
        accepted_at=now,
        envelope=Envelope(Address(sender.encode()), wanted),
        facts=Facts("smtp", SessionId(id)),
        arrival=content,
        ledger=(entry(content, action),),
        recipients=tuple(
            RecipientState(index, recipient, next_at=now if next_at is None else next_at)
            for index, recipient in enumerate(wanted)
        ),
        size=content.size,
        state=state,
        owner=owner,
        lease_until=now + lease_seconds if owner else 0.0,
        key=key,
    )


_WORDS = {
    Result.DELIVERED: reply(250, "2.0.0", "taken"),
    Result.DEFERRED: reply(451, "4.3.0", "try again later"),
    Result.FAILED: reply(550, "5.1.1", "no such user"),
}


def _outcome(result: Result) -> Outcome:
    words = _WORDS[result]
    return Outcome(result, Stage.CONTENT, words.text, words, "mx.example.org[192.0.2.25]:25", words.enhanced)


def attempt(at: float, *indexes: int, result: Result = Result.DELIVERED) -> Attempt:
    """One try for the recipients `indexes`."""
    outcome = _outcome(result)
    return Attempt(at, at, outcome.next_hop, "*", "", tuple((index, outcome) for index in indexes))


def delivered(given: Acceptance, epoch: int, at: float) -> Settlement:
    """All recipients delivered; finished."""
    recipients = tuple(
        RecipientState(
            r.index, r.recipient, RecipientStatus.DELIVERED, r.attempts + 1, last=_outcome(Result.DELIVERED)
        )
        for r in given.recipients
    )
    tried = attempt(at, *(r.index for r in recipients))
    return Settlement(given.id, epoch, recipients, (tried,), MessageState.FINISHED, at=at)


def waiting(given: Acceptance, epoch: int, at: float, next_at: float) -> Settlement:
    """All recipients deferred until `next_at`."""
    recipients = tuple(
        RecipientState(r.index, r.recipient, attempts=1, next_at=next_at, last=_outcome(Result.DEFERRED))
        for r in given.recipients
    )
    tried = attempt(at, *(r.index for r in recipients), result=Result.DEFERRED)
    return Settlement(given.id, epoch, recipients, (tried,), at=at)
