"""The story that `lonedot try` tells, as lines: for somebody who has read nothing, and exact all the same.

Pure: what was recorded goes in, lines come out; `trial_show` puts them on a terminal. No control sign of a stranger's
text gets through (a terminal would obey it).
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from lonedot.cli.output import signs
from lonedot.cli.samples import attached_scan
from lonedot.cli.trial_checks import (
    END_OF_DATA,
    Caught,
    Check,
    Submission,
    body_of,
    faults_of,
    last_attempt,
)
from lonedot.diagnosis.record import change_in_words
from lonedot.diagnosis.tell import clean, size_in_words, span
from lonedot.message.ledger import Action, Entry
from lonedot.spool.interface import Attempt, MessageState, Stored
from lonedot.terms.outcome import Result

__all__ = [
    "Kind",
    "Line",
    "Setting",
    "arrival",
    "catch",
    "invitation",
    "journey",
    "leaving",
    "opening",
    "refusal",
    "sinks",
    "verdict",
]

_SHOWN = 40
"""Octets of a tail that are shown where two are compared."""
_MAX_FINDINGS = 12
ATTEMPTS_TOLD = 10
"""Attempts of one message that are told; each copy is one."""


class Kind(enum.Enum):
    """What a line is, so that a terminal may colour it."""

    TITLE = "title"
    STAGE = "stage"
    TEXT = "text"
    OCTETS = "octets"
    GOOD = "good"
    ALARM = "alarm"
    HINT = "hint"
    """To be copied: never broken."""


class Line(NamedTuple):
    kind: Kind
    text: str
    indent: int = 0
    label: str = ""
    """Stands before the text, in a column of its own."""


class Setting(msgspec.Struct, frozen=True):
    """Who takes part, and where everything is."""

    relay: str
    """`host:port`."""
    catcher: str
    sinks: tuple[str, ...]
    """Names in firing order."""
    folder: str
    config: str
    letter: str
    """A small message to send by oneself."""
    scan: str
    command: str
    """How this command is called from a shell."""
    recipient: str


def opening(setting: Setting) -> Iterator[Line]:
    """Who takes part."""
    yield Line(Kind.TITLE, "Lonedot: a mail relay that knows who changed a message")
    yield Line(Kind.TEXT, f"{setting.relay} takes mail, calls its sinks, keeps it, sends it on.", 0, "relay")
    yield Line(
        Kind.TEXT,
        f"{setting.catcher} stands for the next server and is strict: for it a message ends at CR LF . CR LF"
        " and at nothing else.",
        0,
        "catcher",
    )
    names = " and ".join(f'"{name}"' for name in setting.sinks)
    yield Line(
        Kind.TEXT,
        f"{names}: small programs that see each message. Both have declared that they add a header field and"
        " change nothing else.",
        0,
        "sinks",
    )


def arrival(submission: Submission) -> Iterator[Line]:
    """Stage 1: the copier and the relay."""
    yield Line(Kind.STAGE, "1  A copier sends a scan")
    yield Line(
        Kind.TEXT,
        f"It calls itself {submission.helo} and sends three pages to {submission.recipient}: a PDF of"
        f" {size_in_words(len(submission.pdf))}, in a mail of {size_in_words(len(submission.content))}.",
    )
    yield Line(Kind.OCTETS, f"… {signs(submission.pdf[-11:])}", 0, "the PDF ends")
    yield Line(Kind.OCTETS, f"… {signs(submission.content[-_SHOWN:])}", 0, "the mail ends")
    if not submission.id:
        yield Line(Kind.ALARM, clean(submission.reply), 0, "the relay said")
        return
    yield Line(Kind.OCTETS, clean(submission.reply), 0, "the relay said")
    yield Line(
        Kind.TEXT, f"That took {span(submission.seconds)}. The mail is on disk now; no crash can lose it."
    )


def sinks(stored: Stored) -> Iterator[Line]:
    """Stage 2: what each sink did, and what was done about it."""
    yield Line(Kind.STAGE, "2  The sinks saw it before the relay answered, one after the other")
    entries = [entry for entry in stored.ledger if entry.binding_id]
    if not entries:
        yield Line(Kind.ALARM, "No sink was called.")
    for entry in entries:
        yield from _sink(entry)


def leaving(stored: Stored) -> Iterator[Line]:
    """Stage 3: the octets that went out."""
    yield Line(Kind.STAGE, "3  The mail leaves")
    attempt = last_attempt(stored)
    if attempt is None:
        yield Line(Kind.ALARM, "Nothing was sent.")
        return
    wire = attempt.wire
    if wire is not None:
        words = f"The relay sent {size_in_words(wire.size)} to {attempt.next_hop}. The last 64 of them:"
        yield Line(Kind.TEXT, words)
        for lead, row in zip(
            ("… ", *("  " for _ in wire.tail)), wire.tail.splitlines(keepends=True), strict=False
        ):
            yield Line(Kind.OCTETS, f"{lead}{signs(row)}", 1)
        yield Line(Kind.TEXT, "On record, so that it can be proved what was sent, by SHA-256:")
        yield Line(Kind.OCTETS, f"header  {wire.head_sha256.hex()}", 1)
        yield Line(Kind.OCTETS, f"body    {wire.body_sha256.hex()}", 1)
    yield from _outcomes(attempt)


def catch(submission: Submission, caught: Caught | None) -> Iterator[Line]:
    """Stage 4: what arrived."""
    yield Line(Kind.STAGE, "4  The strict catcher has it")
    if caught is None:
        yield Line(Kind.ALARM, "It caught nothing.")
        return
    if caught.is_chunked:
        yield Line(Kind.TEXT, f"It counted the octets that were announced, and said: {clean(caught.reply)}")
    else:
        yield Line(Kind.TEXT, f"It saw the end, {signs(caught.ended_by)}, and said: {clean(caught.reply)}")
    arrived = attached_scan(caught.content)
    if arrived is None:
        yield Line(Kind.ALARM, "The scan is not in what arrived.")
        return
    yield Line(Kind.TEXT, "The PDF, taken out of what arrived, by SHA-256:")
    yield Line(Kind.OCTETS, f"sent    {hashlib.sha256(submission.pdf).hexdigest()}", 1)
    yield Line(Kind.OCTETS, f"caught  {hashlib.sha256(arrived).hexdigest()}", 1)
    if arrived == submission.pdf:
        yield Line(Kind.GOOD, f"The same, octet for octet: all {size_in_words(len(arrived))}.")
    else:
        yield Line(Kind.ALARM, f"Not the same: {size_in_words(len(arrived))} arrived.")


def verdict(checks: Sequence[Check], damager: str) -> Iterator[Line]:
    """Stage 5: whether all held."""
    yield Line(Kind.STAGE, "5  What came of it")
    failed = [check for check in checks if not check.held]
    if not failed:
        yield Line(
            Kind.GOOD,
            f"ALL HELD ({len(checks)} checks): the scan arrived whole, and the sink that damages mail has a name:"
            f' "{clean(damager)}".',
        )
        return
    yield Line(Kind.ALARM, f"NOT HELD: {len(failed)} of {len(checks)} checks.")
    for check in failed:
        yield Line(Kind.ALARM, f"{check.name}: {clean(check.words)}", 1)


def invitation(setting: Setting, id: str) -> Iterator[Line]:
    """What a person can do now; `id` is the scan's. The commands can be copied as they stand."""
    yield Line(Kind.STAGE, "Now you: relay and catcher stay up, and tell here what they do")
    yield Line(Kind.TEXT, "A letter with a dot on a line by itself, and the scan, from another terminal:")
    yield Line(
        Kind.HINT,
        f"curl smtp://{setting.relay} --mail-from you@example.com --mail-rcpt {setting.recipient}"
        f" --upload-file {setting.letter}",
        1,
    )
    yield Line(
        Kind.HINT,
        f"swaks --server {setting.relay} --from you@example.com --to {setting.recipient} --attach @{setting.scan}",
        1,
    )
    yield Line(Kind.TEXT, "To look closer at the scan, or at any other mail by its id:")
    yield Line(Kind.HINT, f"{setting.command} why {id} -c {setting.config}", 1)
    yield Line(Kind.HINT, f"{setting.command} queue list --state all -c {setting.config}", 1)
    yield Line(Kind.TEXT, "Ctrl-C ends it.")


def journey(stored: Stored, caught: Caught | None) -> Iterator[Line]:
    """The journey of one message in a few lines."""
    names = [state.recipient.address.text for state in stored.recipients]
    people = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    sender = stored.envelope.reverse_path.text
    origin = "a report of the relay" if stored.facts.source == "dsn" else f"from {sender}"
    yield Line(Kind.STAGE, clean(f"{stored.id}  {origin} to {people}, {size_in_words(stored.size)}"))
    for entry in stored.ledger:
        yield from _entry_in_short(entry)
    if stored.state is MessageState.HELD:
        yield Line(Kind.ALARM, clean(stored.reason), 0, "held")
    if not stored.attempts:
        return
    for attempt in stored.attempts[-ATTEMPTS_TOLD:]:
        if attempt.wire is not None:
            ending = signs(attempt.wire.tail[-24:])
            yield Line(Kind.OCTETS, f"{size_in_words(attempt.wire.size)}, ending … {ending}", 0, "sent")
        yield from _outcomes(attempt)
    if caught is not None:
        yield _compared(stored, caught)


def refusal(id: str, reply: str, words: str) -> Iterator[Line]:
    """A message that was refused when its content had come."""
    yield Line(Kind.STAGE, f"{clean(id)}  refused")
    yield Line(Kind.ALARM, clean(reply), 0, "the relay said")
    if words and words not in reply:
        yield Line(Kind.TEXT, clean(words), 0, "because")


def _sink(entry: Entry) -> Iterator[Line]:
    faults = faults_of(entry)
    name = clean(entry.binding)
    if entry.verdict == "error":
        yield Line(Kind.ALARM, f'"{name}" FAILED: {clean(entry.words)}')
        return
    if not faults:
        yield Line(Kind.GOOD, f'"{name}" {_did(entry)}.')
        return
    yield Line(Kind.ALARM, f'"{name}" DAMAGED THE MESSAGE.')
    if entry.attempted_size >= 0:
        yield Line(
            Kind.TEXT, f"It handed back {size_in_words(entry.attempted_size)}. What is wrong with them:", 1
        )
    for finding in faults[:_MAX_FINDINGS]:
        yield Line(Kind.TEXT, clean(finding.words), 1, f"- {finding.code.value}")
    if len(faults) > _MAX_FINDINGS:
        yield Line(Kind.TEXT, f"- and {len(faults) - _MAX_FINDINGS} more", 1)
    if entry.tail_attempted:
        yield Line(Kind.OCTETS, f"… {signs(entry.tail_before[-_SHOWN:])}", 1, "it ended before")
        yield Line(Kind.OCTETS, f"… {signs(entry.tail_attempted[-_SHOWN:])}", 1, "it was handed back")
        yield from _sent_so(entry.tail_attempted)
    yield Line(_kind_of(entry.action), _DONE[entry.action], 1)
    if entry.changes:
        yield Line(Kind.TEXT, f"Taken, because it was declared: {_did(entry)}.", 1)


def _sent_so(tail: bytes) -> Iterator[Line]:
    """What a transport that trusts its stored octets would have written."""
    if tail.endswith(b"\r\n"):
        return
    yield Line(Kind.OCTETS, f"… {signs(tail[-6:] + END_OF_DATA[2:])}", 1, "sent like that")
    yield Line(Kind.TEXT, "In that a strict receiver sees no end of the message, and waits for ever.", 1)


def _entry_in_short(entry: Entry) -> Iterator[Line]:
    faults = faults_of(entry)
    label = clean(entry.binding)
    if not entry.binding_id:
        if entry.words:
            yield Line(Kind.TEXT, clean(entry.words), 0, "at the door")
    elif entry.verdict == "error":
        yield Line(Kind.ALARM, f"FAILED: {clean(entry.words)}", 0, label)
    elif faults:
        codes = ", ".join(dict.fromkeys(finding.code.value for finding in faults))
        done = "undone" if entry.action is Action.REDUCED else entry.action.value
        yield Line(Kind.ALARM, f"DAMAGE, {done}: {codes}", 0, label)
    elif entry.action is Action.REDUCED:
        mended = ", ".join(dict.fromkeys(finding.code.value for finding in entry.findings))
        after = f"; put right: {mended}" if mended else ""
        yield Line(Kind.TEXT, f"rewrote the whole message; of that only this: {_did(entry)}{after}", 0, label)
    else:
        yield Line(Kind.TEXT, _did(entry), 0, label)


def _did(entry: Entry) -> str:
    did = [words for change in entry.changes for words in change_in_words(change)]
    return clean("; ".join(did)) or "changed nothing"


def _outcomes(attempt: Attempt) -> Iterator[Line]:
    """What the next hop said, once for recipients that fared alike."""
    told: set[tuple[Result, str]] = set()
    for _, outcome in attempt.outcomes:
        words = outcome.reply.text if outcome.reply is not None else outcome.reason
        if (outcome.result, words) in told:
            continue
        told.add((outcome.result, words))
        kind = Kind.GOOD if outcome.result is Result.DELIVERED else Kind.ALARM
        yield Line(kind, f"{outcome.result.value}; {attempt.next_hop} said: {clean(words)}")


def _compared(stored: Stored, caught: Caught) -> Line:
    digest = hashlib.sha256(body_of(caught.content)).digest()
    attempt = last_attempt(stored)
    if stored.ledger and digest == stored.ledger[0].before.body:
        return Line(Kind.GOOD, "the body is what you sent, octet for octet", 0, "caught")
    if stored.ledger and digest == stored.ledger[-1].after.body:
        return Line(Kind.GOOD, "the body is what you sent, with the changes named above", 0, "caught")
    if attempt is not None and attempt.suffix and digest == attempt.suffix[-1].after.body:
        return Line(Kind.GOOD, "the body is what you sent, encoded for this receiver", 0, "caught")
    return Line(Kind.ALARM, "the body is NOT the one that was queued", 0, "caught")


def _kind_of(action: Action) -> Kind:
    went_on = action in (Action.REDUCED, Action.UNDONE, Action.REPAIRED, Action.SKIPPED)
    return Kind.GOOD if went_on else Kind.ALARM


_DONE = {
    Action.KEPT: "IT WAS TAKEN ALL THE SAME.",
    Action.UNCHANGED: "The message stayed as it was.",
    Action.REDUCED: "UNDONE: the message goes on as it was before this sink.",
    Action.REPAIRED: "REPAIRED: the message goes on.",
    Action.UNDONE: "UNDONE: the message goes on as it was before this sink.",
    Action.HELD: "HELD: the message waits for a person.",
    Action.REJECTED: "REFUSED: the copier was told so.",
    Action.SKIPPED: "The message goes on without this sink.",
    Action.DEFERRED: "PUT OFF: the copier was told to try again.",
    Action.SHADOWED: "The sink runs in shadow: nothing of it was done.",
}
