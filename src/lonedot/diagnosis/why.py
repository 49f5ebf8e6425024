"""The journey of a message, from what was recorded: pure, so the same facts always give the same answer.

Front door: `journey`. It judges (who damaged the message, what happens next, what a person can do) and leaves the
sentences to `tell`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence

import msgspec

from lonedot.diagnosis.record import (
    AttemptRecord,
    EntryRecord,
    OutcomeRecord,
    Record,
    TransportRecord,
    record_of,
)
from lonedot.message.ledger import Action
from lonedot.spool.interface import MessageState, RecipientStatus, Stored
from lonedot.terms.outcome import Result, Stage

__all__ = [
    "Advice",
    "Journey",
    "NextStep",
    "Suspect",
    "TranscriptLine",
    "Transcripts",
    "Who",
    "journey",
]


class Who(enum.Enum):
    """Whose octets a transcript line shows."""

    RELAY = "relay"
    PEER = "peer"
    """The client of a session, the next hop of an attempt."""
    NOTE = "note"
    """What is not octets: a connection opened, a connection lost."""


class TranscriptLine(msgspec.Struct, frozen=True):
    after_seconds: float
    """Since the session began."""
    who: Who
    text: str
    """In the form of `octets`."""


class Transcripts(msgspec.Struct, frozen=True):
    """The conversations that were recorded, as far as they could be read."""

    session: tuple[TranscriptLine, ...] = ()
    """The one in which the message came."""
    attempts: Mapping[int, tuple[TranscriptLine, ...]] = {}
    """By number of the attempt, counted from 1."""


class Suspect(msgspec.Struct, frozen=True):
    """A sink that damaged the message, broke its promise or failed."""

    binding: str
    binding_id: str
    entry: int
    """Number of its ledger entry."""
    failed: bool
    """It raised or stalled; else it damaged the message or did what it had not declared."""
    action: Action
    """What was done about it."""
    words: str


class NextStep(msgspec.Struct, frozen=True):
    """What a waiting recipient waits for."""

    address: str
    next_at: float
    """Seconds since 1970; 0 when nothing is planned."""
    expires_at: float
    """When the relay gives up; 0 when that is not known."""


class Advice(msgspec.Struct, frozen=True):
    """What a person can do. `command` may be empty."""

    words: str
    command: str = ""


class Journey(msgspec.Struct, frozen=True):
    """All that is known of a message's way, and what it means."""

    summary: str
    record: Record
    suspects: tuple[Suspect, ...]
    next_steps: tuple[NextStep, ...]
    advice: tuple[Advice, ...]
    transcripts: Transcripts
    asked_at: float
    is_running: bool = True


def journey(
    stored: Stored,
    transcripts: Transcripts,
    now: float,
    expire_seconds: Mapping[str, float] | None = None,
    is_running: bool = True,
) -> Journey:
    """Judge what was recorded.

    Args:
        stored: with its attempts (`Spool.show`).
        transcripts: what could be read of them.
        now: seconds since 1970.
        expire_seconds: by name of the route, how long a message is tried.
        is_running: the relay runs; while it does not, nothing is tried.
    """
    record = record_of(stored)
    entries = [*record.ledger, *(entry for attempt in record.attempts for entry in attempt.suffix)]
    suspects = tuple([_suspect(entry) for entry in entries if entry.is_fault and not entry.is_ours])
    steps = _next_steps(record, expire_seconds or {})
    return Journey(
        summary=_summary(record, suspects),
        record=record,
        suspects=suspects,
        next_steps=steps,
        advice=tuple(_advice(record, suspects)),
        transcripts=transcripts,
        asked_at=now,
        is_running=is_running,
    )


def _suspect(entry: EntryRecord) -> Suspect:
    words = entry.words
    if not words:
        words = next((finding.words for finding in entry.findings), "it failed")
    return Suspect(
        entry.binding, entry.binding_id, entry.number, entry.verdict == "error", entry.action, words
    )


def _next_steps(record: Record, expire_seconds: Mapping[str, float]) -> tuple[NextStep, ...]:
    if record.state is not MessageState.QUEUED:
        return ()
    steps = []
    for recipient in record.recipients:
        if recipient.status is not RecipientStatus.WAITING:
            continue
        lifetime = expire_seconds.get(recipient.route, 0.0)
        if not lifetime and len(set(expire_seconds.values())) == 1:
            lifetime = next(iter(expire_seconds.values()))
        expires_at = record.accepted_at + lifetime if lifetime else 0.0
        steps.append(NextStep(recipient.address, recipient.next_at, expires_at))
    return tuple(steps)


def _summary(record: Record, suspects: Sequence[Suspect]) -> str:
    damage = f" {_blame_words(suspects)}" if suspects else ""
    match record.state:
        case MessageState.HELD:
            reason = f": {record.reason}" if record.reason else ""
            return f"Held{_stop(reason)} It is not sent until somebody releases it.{damage}"
        case MessageState.DAMAGED:
            reason = f": {record.reason}" if record.reason else ""
            return (
                f"Damaged{_stop(reason)} What is stored is not what was stored once; it is set aside.{damage}"
            )
        case MessageState.QUEUED:
            return f"{_queued_words(record)}{damage}"
        case MessageState.FINISHED:
            return f"{_finished_words(record)}{damage}"


def _stop(words: str) -> str:
    return words if words.endswith((".", "!", "?")) else f"{words}."


def _blame_words(suspects: Sequence[Suspect]) -> str:
    said: dict[str, None] = {}
    for suspect in suspects:
        did = "failed" if suspect.failed else "damaged the message"
        said[f'The sink "{suspect.binding}" {did}; {_DONE[suspect.action]}.'] = None
    return " ".join(said)


_DONE = {
    Action.KEPT: "it was taken all the same",
    Action.UNCHANGED: "the message stayed as it was",
    Action.REDUCED: "the damage was undone",
    Action.REPAIRED: "the damage was repaired",
    Action.UNDONE: "the damage was undone",
    Action.HELD: "the message was held",
    Action.REJECTED: "the message was refused",
    Action.SKIPPED: "the message went on without it",
    Action.DEFERRED: "the message was put off",
    Action.SHADOWED: "nothing of it was done",
}


def _queued_words(record: Record) -> str:
    waiting = _number_with(record, RecipientStatus.WAITING)
    whole = _number_of_ends(record)
    if record.transport is not None:
        return in_transport(record.transport)
    done = whole - waiting
    if done:
        return f"On its way: {waiting} of {whole} recipients still wait."
    if record.attempts:
        tries = "once" if len(record.attempts) == 1 else f"{len(record.attempts)} times"
        return f"Waiting in the queue: tried {tries}, not delivered yet."
    return "Waiting in the queue: not tried yet."


def in_transport(transport: TransportRecord) -> str:
    """Where a message in transport is, in one sentence or two."""
    name = transport.waits_for
    words = f'In transport: it waits for the sink "{name}".' if name else "In transport."
    if not transport.words:
        return words
    times = "once" if transport.deferrals <= 1 else f"{transport.deferrals} times"
    return _stop(f"{words} Put off {times}: {transport.words}")


def _finished_words(record: Record) -> str:
    counts = {status: _number_with(record, status) for status in RecipientStatus}
    whole = _number_of_ends(record)
    if whole:
        counts[RecipientStatus.REPLACED] = 0  # what stands in their place is told
    if counts[RecipientStatus.DELIVERED] == whole and whole:
        return "Delivered." if whole == 1 else f"Delivered to all {whole} recipients."
    said = [f"{counts[status]} {words}" for status, words in _FINISHED_WORDS if counts[status]]
    if whole == 1 and len(said) == 1:
        return f"Finished: {said[0].removeprefix('1 ')}."
    return f"Finished: {', '.join(said) or 'it has no recipients'}."


_FINISHED_WORDS = (
    (RecipientStatus.DELIVERED, "delivered"),
    (RecipientStatus.FAILED, "refused for good"),
    (RecipientStatus.EXPIRED, "given up after trying for too long"),
    (RecipientStatus.DELETED, "deleted"),
    (RecipientStatus.REPLACED, "replaced by others"),
    (RecipientStatus.WAITING, "still waiting"),
)


def _number_of_ends(record: Record) -> int:
    """Recipients, without those in whose place others stand."""
    return len(record.recipients) - _number_with(record, RecipientStatus.REPLACED)


def _number_with(record: Record, status: RecipientStatus) -> int:
    return sum(recipient.status is status for recipient in record.recipients)


def _advice(record: Record, suspects: Sequence[Suspect]) -> list[Advice]:
    id = record.id
    given: list[Advice] = []
    for name in dict.fromkeys(suspect.binding for suspect in suspects):
        given.append(
            Advice(
                f'Tell whoever wrote the sink "{name}"; its ledger entry shows what it did.',
                f"lonedot queue show {id}",
            )
        )
    match record.state:
        case MessageState.HELD:
            if record.has_content:
                given.append(
                    Advice("Look at it as it would leave.", f"lonedot queue show {id} --octets queued")
                )
            given.append(Advice("Send it on.", f"lonedot queue release {id}"))
            given.append(Advice("Or throw it away.", f"lonedot queue delete {id}"))
        case MessageState.DAMAGED:
            given.append(Advice("Save what can be read of it.", f"lonedot queue export {id} --to FOLDER"))
            given.append(Advice("Throw it away.", f"lonedot queue delete {id}"))
        case MessageState.QUEUED:
            given += _trouble_advice(record)
            if record.transport is not None and record.transport.words:
                given.append(Advice("Ask the sink again at once.", f"lonedot queue retry {id}"))
            if record.attempts:
                given.append(Advice("Try again at once.", f"lonedot queue retry {id}"))
            given.append(Advice("Keep it back.", f"lonedot queue hold {id}"))
        case MessageState.FINISHED:
            given += _trouble_advice(record)
    if any(attempt.wire is not None for attempt in record.attempts) and record.has_content:
        given.append(Advice("See every octet that was sent.", f"lonedot queue show {id} --octets sent"))
    if record.origin.has_transcript or any(attempt.has_transcript for attempt in record.attempts):
        given.append(Advice("Read the conversations word for word.", f"lonedot why {id} --transcript"))
    return given


def _trouble_advice(record: Record) -> list[Advice]:
    """One sentence for each kind of trouble that recipients have now."""
    said: dict[str, None] = {}
    for recipient in record.recipients:
        last = recipient.last
        if last is not None and recipient.status is not RecipientStatus.DELIVERED:
            words = _what_to_do(last, record.attempts)
            if words:
                said[words] = None
    return [Advice(words) for words in said]


def _what_to_do(outcome: OutcomeRecord, attempts: Sequence[AttemptRecord]) -> str:
    hop = outcome.next_hop or (attempts[-1].next_hop if attempts else "") or "the next hop"
    match outcome.stage:
        case Stage.ROUTE:
            return "No way to the address is known: look at the [[route]] tables of the configuration."
        case Stage.CONNECT:
            return f"Check that {hop} is up and that this machine may reach it (firewall, port, name)."
        case Stage.GREETING | Stage.EHLO:
            return (
                f"{hop} does not want to talk to this relay: ask those who run it, and show them its words."
            )
        case Stage.STARTTLS:
            return (
                f"Encryption with {hop} failed: check its certificate, and `tls` and `tls_ca` of the route."
            )
        case Stage.AUTH:
            return f"{hop} refused the login: check login and password of the route."
        case Stage.MAIL:
            return (
                f"{hop} refused the sender: this relay, or its login, may have to be allowed to send as it."
            )
        case Stage.RCPT:
            if outcome.result is Result.FAILED:
                return "Check the recipient's address; its mail server refuses it."
            return ""
        case Stage.DATA | Stage.CONTENT:
            if outcome.result is Result.FAILED:
                return f"{hop} refused the content: its words say why."
            return ""
        case Stage.LOCAL:
            return ""
