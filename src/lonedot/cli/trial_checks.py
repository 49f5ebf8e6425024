"""What must hold in the story of `lonedot try`, judged by octets and digests and never by what the relay says of them.

Pure: what was sent, what is stored and what was caught go in; checks come out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from lonedot.cli.output import signs
from lonedot.cli.samples import attached_scan
from lonedot.diagnosis.tell import size_in_words
from lonedot.message.findings import Code, Finding, Severity
from lonedot.message.header import HeaderView, end_of_head
from lonedot.message.ledger import Action, Entry
from lonedot.spool.interface import Attempt, RecipientStatus, Stored

__all__ = [
    "END_OF_DATA",
    "Caught",
    "Check",
    "Submission",
    "body_of",
    "damager_of",
    "faults_of",
    "judge",
    "last_attempt",
]

END_OF_DATA = b"\r\n.\r\n"


class Submission(msgspec.Struct, frozen=True):
    """What the copier sent, and what it was told."""

    helo: str
    recipient: str
    content: bytes
    pdf: bytes
    reply: str
    """The relay's last reply, in its own words."""
    id: str
    """Empty when the mail was not accepted."""
    seconds: float
    """From the first octet of content to the reply."""


class Caught(msgspec.Struct, frozen=True):
    """What the catcher recorded of one message."""

    content: bytes
    """Dots removed."""
    wire: bytes
    """Everything between 354 and the reply, as it came; with BDAT the content."""
    ended_by: bytes
    """What the catcher took for the end of data; empty with BDAT."""
    reply: str
    is_chunked: bool = False
    """It came by BDAT, where no dot ends the message."""


class Check(msgspec.Struct, frozen=True):
    """One thing that must hold."""

    name: str
    held: bool
    words: str
    """What was found."""


def judge(submission: Submission, stored: Stored | None, caught: Caught | None) -> tuple[Check, ...]:
    """Every promise of the story."""
    taken = Check("the relay took the scan", bool(submission.id), submission.reply or "it said nothing")
    if not taken.held or stored is None:
        return (taken,)
    entries = [entry for entry in stored.ledger if entry.binding_id]
    return (
        taken,
        _honest(entries, caught),
        _named(entries),
        _undone(stored, entries),
        _delivered(stored),
        _ended(stored, caught),
        _as_recorded(stored, caught),
        _whole(submission, caught),
    )


def faults_of(entry: Entry) -> tuple[Finding, ...]:
    """What was found to be damage or undeclared."""
    return tuple(finding for finding in entry.findings if finding.severity is not Severity.NOTE)


def damager_of(stored: Stored) -> str:
    """Name of the first sink that damaged the message; empty when none did."""
    return next((entry.binding for entry in stored.ledger if entry.binding_id and faults_of(entry)), "")


def last_attempt(stored: Stored) -> Attempt | None:
    """The last attempt, or the last one that sent content."""
    sent = [attempt for attempt in stored.attempts if attempt.wire is not None] or stored.attempts
    return sent[-1] if sent else None


def body_of(content: bytes) -> bytes:
    """What stands behind the empty line."""
    start = end_of_head(content)
    return content[start:] if start >= 0 else b""


def _honest(entries: Sequence[Entry], caught: Caught | None) -> Check:
    name = "the sound sink's header field arrived"
    kept = [entry for entry in entries if entry.action is Action.KEPT and not faults_of(entry)]
    if not kept:
        return Check(name, False, "no sink's change was simply kept")
    if caught is None:
        return Check(name, False, "nothing was caught")
    head = caught.content[: len(caught.content) - len(body_of(caught.content))]
    value = HeaderView(head).get("X-Recipient")
    if value is None:
        return Check(name, False, "no field X-Recipient in what was caught")
    return Check(name, True, f"X-Recipient: {value.decode('utf-8', 'backslashreplace')}")


def _named(entries: Sequence[Entry]) -> Check:
    name = "the damage was found and the sink named"
    faulty = [entry for entry in entries if faults_of(entry)]
    if len(faulty) != 1:
        return Check(name, False, f"{len(faulty)} sinks were found to damage the message, not one")
    codes = {finding.code for finding in faults_of(faulty[0])}
    missed = {Code.BARE_LF, Code.ENCODING_MISMATCH, Code.BOUNDARY_MISSING} - codes
    if missed:
        return Check(name, False, f"not found: {', '.join(sorted(code.value for code in missed))}")
    return Check(name, True, f"{faulty[0].binding}: {', '.join(sorted(code.value for code in codes))}")


def _undone(stored: Stored, entries: Sequence[Entry]) -> Check:
    name = "the damage was undone"
    for entry in entries:
        if faults_of(entry) and entry.action not in (Action.REDUCED, Action.UNDONE):
            return Check(name, False, f"{entry.binding}: {entry.action.value}")
    if entries and entries[-1].after.body != stored.ledger[0].before.body:
        return Check(name, False, "the queued body is not the one that arrived")
    return Check(name, True, "the queued body is the one that arrived")


def _delivered(stored: Stored) -> Check:
    name = "every recipient was delivered to"
    for state in stored.recipients:
        if state.status is not RecipientStatus.DELIVERED:
            words = state.last.reason if state.last is not None else "never tried"
            return Check(name, False, f"{state.recipient.address}: {state.status.value}, {words}")
    return Check(name, bool(stored.recipients), f"{len(stored.recipients)} of {len(stored.recipients)}")


def _ended(stored: Stored, caught: Caught | None) -> Check:
    name = "what left ended in CR LF . CR LF, and nowhere before"
    attempt = last_attempt(stored)
    if attempt is None or attempt.wire is None or caught is None:
        return Check(name, False, "nothing was sent")
    if caught.is_chunked:
        return Check(name, len(caught.wire) == attempt.wire.size, "sent by BDAT, where octets are counted")
    if not attempt.wire.tail.endswith(END_OF_DATA) or caught.ended_by != END_OF_DATA:
        return Check(name, False, f"it ended {signs(attempt.wire.tail[-12:])}")
    first = caught.wire.find(END_OF_DATA)
    if first != len(caught.wire) - len(END_OF_DATA):
        return Check(name, False, f"it stands at octet {first} of {len(caught.wire)} too")
    return Check(name, True, signs(attempt.wire.tail[-12:]))


def _as_recorded(stored: Stored, caught: Caught | None) -> Check:
    name = "what was caught is what the relay recorded as sent"
    attempt = last_attempt(stored)
    if attempt is None or attempt.wire is None or caught is None:
        return Check(name, False, "nothing was sent")
    wire = attempt.wire
    octets = caught.wire if caught.is_chunked else caught.wire.removesuffix(b".\r\n")
    start = max(0, end_of_head(octets))
    seen = (
        len(caught.wire),
        caught.wire[-64:],
        hashlib.sha256(octets[:start]).digest(),
        hashlib.sha256(octets[start:]).digest(),
    )
    recorded = (wire.size, wire.tail, wire.head_sha256, wire.body_sha256)
    if seen == recorded:
        return Check(name, True, f"{size_in_words(wire.size)}, SHA-256 of header and body")
    names = ("size", "last octets", "header", "body")
    differ = [what for what, a, b in zip(names, seen, recorded, strict=True) if a != b]
    return Check(name, False, f"they differ: {', '.join(differ)}")


def _whole(submission: Submission, caught: Caught | None) -> Check:
    name = "the scan arrived octet for octet"
    arrived = None if caught is None else attached_scan(caught.content)
    if arrived is None:
        return Check(name, False, "it is not in what was caught")
    if arrived != submission.pdf:
        return Check(name, False, f"{size_in_words(len(arrived))} arrived, and they differ")
    return Check(name, True, f"SHA-256 {hashlib.sha256(arrived).hexdigest()}")
