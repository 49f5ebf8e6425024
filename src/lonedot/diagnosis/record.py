"""A stored message as plain values that people and JSON can read: the record behind `queue show` and `why`.

Octets stand here as text in the form of `octets`, digests as hexadecimal digits, addresses as text. Nothing is
left out that a person would need to judge what happened; nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from lonedot.diagnosis.octets import visible, visible_start
from lonedot.message.findings import Code, Finding, Part, Severity
from lonedot.message.ledger import Action, Change, Digests, Entry, EnvelopeChange, Splice, Transform
from lonedot.spool.interface import (
    Attempt,
    Facts,
    MessageState,
    Progress,
    RecipientState,
    RecipientStatus,
    Stored,
    WireRecord,
)
from lonedot.terms.outcome import Outcome, Result, Stage

__all__ = [
    "AttemptRecord",
    "DigestRecord",
    "EntryRecord",
    "FindingRecord",
    "OriginRecord",
    "OutcomeRecord",
    "RecipientRecord",
    "Record",
    "TransportRecord",
    "WireSummary",
    "change_in_words",
    "record_of",
]


class FindingRecord(msgspec.Struct, frozen=True):
    code: Code
    severity: Severity
    part: Part
    offset: int
    words: str
    octets: str


class DigestRecord(msgspec.Struct, frozen=True):
    head_sha256: str
    body_sha256: str


class EntryRecord(msgspec.Struct, frozen=True):
    """One ledger entry."""

    number: int
    binding: str
    binding_id: str
    event: str
    at: float
    took_seconds: float
    action: Action
    verdict: str
    changed: tuple[str, ...]
    """What is in force, in words; empty when nothing is."""
    findings: tuple[FindingRecord, ...]
    words: str
    before: DigestRecord
    after: DigestRecord
    attempted: DigestRecord | None
    attempted_size: int
    tail_before: str
    tail_attempted: str
    recipients: tuple[str, ...]
    """Whose copy it concerns; empty means all."""
    revision: str
    proposed: tuple[str, ...] = ()
    """Of a sink in shadow: what it would have changed, in words."""

    @property
    def is_shadow(self) -> bool:
        """Nothing of it was done."""
        return self.action is Action.SHADOWED

    @property
    def is_ours(self) -> bool:
        """The relay's own work, not a sink's."""
        return not self.binding_id and self.binding == "lonedot"

    @property
    def is_fault(self) -> bool:
        """The sink damaged the message, broke its promise, or failed itself. Never of one in shadow."""
        return not self.is_shadow and self.is_wrong

    @property
    def is_wrong(self) -> bool:
        """As `is_fault`, of one in shadow too."""
        return self.verdict == "error" or any(
            finding.severity is not Severity.NOTE for finding in self.findings
        )


class OutcomeRecord(msgspec.Struct, frozen=True):
    result: Result
    stage: Stage
    reason: str
    reply: str
    """The remote's own words; empty when it never spoke."""
    next_hop: str
    status: str


class RecipientRecord(msgspec.Struct, frozen=True):
    index: int
    address: str
    status: RecipientStatus
    attempts: int
    next_at: float
    """When it is tried next, seconds since 1970; 0 when it is not waiting."""
    route: str
    last: OutcomeRecord | None
    redirect: str = ""
    """The route that a sink has chosen for it."""


class TransportRecord(msgspec.Struct, frozen=True):
    """Sinks are still to be asked before it is delivered."""

    waits_for: str
    """The one whose turn it is."""
    behind: str
    """The last one that is done with; empty: none is."""
    event: str
    """Of that one."""
    deferrals: int
    words: str
    """Why it was put off."""


class WireSummary(msgspec.Struct, frozen=True):
    """What was written to the next hop."""

    mode: str
    size: int
    head_sha256: str
    body_sha256: str
    tail: str


class AttemptRecord(msgspec.Struct, frozen=True):
    number: int
    """Counted from 1."""
    started_at: float
    ended_at: float
    next_hop: str
    route: str
    tls: str
    outcomes: tuple[tuple[str, OutcomeRecord], ...]
    """By recipient address."""
    wire: WireSummary | None
    suffix: tuple[EntryRecord, ...]
    has_transcript: bool


class OriginRecord(msgspec.Struct, frozen=True):
    """How the message came to the relay."""

    source: str
    session: str
    listener: str
    client: str
    helo: str
    protocol: str
    tls: str
    login: str
    trusted: bool
    revision: str
    parent: str
    has_transcript: bool


class Record(msgspec.Struct, frozen=True):
    """Everything stored about one message, but for its octets and transcripts."""

    id: str
    state: MessageState
    reason: str
    accepted_at: float
    finished_at: float
    sender: str
    body: str
    """`BODY=` as the client stated it; empty when it said nothing."""
    smtputf8: bool
    ret: str
    envid: str
    size: int
    has_content: bool
    origin: OriginRecord
    recipients: tuple[RecipientRecord, ...]
    ledger: tuple[EntryRecord, ...]
    attempts: tuple[AttemptRecord, ...]
    transport: TransportRecord | None = None


def record_of(stored: Stored) -> Record:
    """The readable form of a stored message."""
    addresses = {state.index: state.recipient.address.text for state in stored.recipients}
    envelope = stored.envelope
    return Record(
        id=stored.id,
        state=stored.state,
        reason=stored.reason,
        accepted_at=stored.accepted_at,
        finished_at=stored.finished_at,
        sender=envelope.reverse_path.text,
        body=envelope.body.value,
        smtputf8=envelope.smtputf8,
        ret=envelope.ret.value,
        envid=visible(envelope.envid),
        size=stored.size,
        has_content=stored.has_content,
        origin=_origin(stored.facts),
        recipients=tuple(_recipient(state) for state in stored.recipients),
        ledger=tuple(_entry(number, entry, addresses) for number, entry in enumerate(stored.ledger)),
        attempts=tuple(
            _attempt(number, attempt, addresses, len(stored.ledger))
            for number, attempt in enumerate(stored.attempts, 1)
        ),
        transport=None if stored.transport is None else _transport(stored.transport),
    )


def _transport(progress: Progress) -> TransportRecord:
    return TransportRecord(
        progress.waits_for, progress.name, progress.event, progress.deferrals, progress.words
    )


def change_in_words(change: Change) -> tuple[str, ...]:
    """What a change does, one sentence part each."""
    match change:
        case Splice(part, start, end, octets):
            return _splice(part, start, end, octets)
        case Transform(name):
            return (_TRANSFORMS.get(name, f"applied the transform {name}"),)
        case EnvelopeChange(added, removed, reverse_path):
            said = [f"added the recipient {visible(address)}" for address in added]
            said += [f"removed the recipient {visible(address)}" for address in removed]
            if reverse_path is not None:
                said.append(f"changed the sender to <{visible(reverse_path)}>")
            return tuple(said)


_TRANSFORMS = {
    "crlf": "ended every line with CR LF",
    "end-header": "put in the empty line that was missing between the header and the text",
    "encode-long-lines": "re-encoded the parts that had lines of more than 998 octets",
    "encode-7bit": "re-encoded the 8-bit parts in 7 bits",
}
_PARTS = {Part.HEAD: "header", Part.BODY: "body", Part.ENVELOPE: "envelope"}


def _splice(part: Part, start: int, end: int, octets: bytes) -> tuple[str, ...]:
    place = f"at octet {start} of the {_PARTS[part]}"
    gone = end - start
    if not octets:
        return (f"removed {_count(gone)} {place}",)
    fields = _fields(octets) if part is Part.HEAD else ()
    if gone:
        into = " and ".join(fields) if fields else f"{_count(len(octets))}: {visible_start(octets, 60)}"
        return (f"replaced {_count(gone)} {place} by {into}",)
    if fields:
        return tuple(f"added {field}" for field in fields)
    return (f"put in {_count(len(octets))} {place}: {visible_start(octets, 60)}",)


def _count(octets: int) -> str:
    return "1 octet" if octets == 1 else f"{octets:,} octets".replace(",", " ")


def _fields(octets: bytes) -> tuple[str, ...]:
    """The header fields that `octets` consist of, unfolded and cut; empty when they are anything else."""
    if not octets.endswith(b"\r\n") or len(octets) > 16384:
        return ()
    fields: list[bytes] = []
    for line in octets[:-2].split(b"\r\n"):
        if line[:1] in (b" ", b"\t") and fields:
            fields[-1] += b" " + line.strip()
        elif b":" in line and line[: line.index(b":")].rstrip().isascii() and line[:1] > b" ":
            fields.append(line)
        else:
            return ()
    return tuple(visible_start(field, 160) for field in fields)


def _origin(facts: Facts) -> OriginRecord:
    return OriginRecord(
        source=facts.source,
        session=facts.session,
        listener=facts.listener,
        client=facts.client,
        helo=facts.helo,
        protocol=facts.protocol,
        tls=facts.tls,
        login=facts.login,
        trusted=facts.trusted,
        revision=facts.revision,
        parent=facts.parent,
        has_transcript=facts.transcript is not None,
    )


def _recipient(state: RecipientState) -> RecipientRecord:
    return RecipientRecord(
        index=state.index,
        address=state.recipient.address.text,
        status=state.status,
        attempts=state.attempts,
        next_at=state.next_at,
        route=state.route,
        last=None if state.last is None else _outcome(state.last),
        redirect=state.redirect,
    )


def _outcome(outcome: Outcome) -> OutcomeRecord:
    return OutcomeRecord(
        result=outcome.result,
        stage=outcome.stage,
        reason=outcome.reason,
        reply="" if outcome.reply is None else outcome.reply.text,
        next_hop=outcome.next_hop,
        status=outcome.status,
    )


def _attempt(number: int, attempt: Attempt, addresses: dict[int, str], ledger_length: int) -> AttemptRecord:
    return AttemptRecord(
        number=number,
        started_at=attempt.started_at,
        ended_at=attempt.ended_at,
        next_hop=attempt.next_hop,
        route=attempt.route,
        tls=attempt.tls,
        outcomes=tuple(
            (addresses.get(index, f"recipient {index}"), _outcome(outcome))
            for index, outcome in attempt.outcomes
        ),
        wire=None if attempt.wire is None else _wire(attempt.wire),
        suffix=tuple(_entry(ledger_length + n, entry, addresses) for n, entry in enumerate(attempt.suffix)),
        has_transcript=attempt.transcript is not None,
    )


def _wire(wire: WireRecord) -> WireSummary:
    return WireSummary(
        wire.mode, wire.size, wire.head_sha256.hex(), wire.body_sha256.hex(), visible(wire.tail)
    )


def _entry(number: int, entry: Entry, addresses: dict[int, str]) -> EntryRecord:
    said: list[str] = []
    for change in entry.changes:
        said += change_in_words(change)
    proposed: list[str] = []
    for change in entry.proposed:
        proposed += change_in_words(change)
    return EntryRecord(
        number=number,
        binding=entry.binding,
        binding_id=entry.binding_id,
        event=entry.event,
        at=entry.at,
        took_seconds=entry.took_seconds,
        action=entry.action,
        verdict=entry.verdict,
        changed=tuple(said),
        findings=_findings(entry.findings),
        words=entry.words,
        before=_digests(entry.before),
        after=_digests(entry.after),
        attempted=None if entry.attempted is None else _digests(entry.attempted),
        attempted_size=entry.attempted_size,
        tail_before=visible(entry.tail_before),
        tail_attempted=visible(entry.tail_attempted),
        recipients=tuple(
            addresses.get(index, f"recipient {index}" if index >= 0 else "somebody who was removed later")
            for index in entry.scope
        ),
        revision=entry.revision,
        proposed=tuple(proposed),
    )


def _findings(findings: Sequence[Finding]) -> tuple[FindingRecord, ...]:
    return tuple(
        FindingRecord(
            finding.code,
            finding.severity,
            finding.part,
            finding.offset,
            finding.words,
            visible(finding.octets),
        )
        for finding in findings
    )


def _digests(digests: Digests) -> DigestRecord:
    return DigestRecord(digests.head.hex(), digests.body.hex())
