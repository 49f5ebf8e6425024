"""The decision at the door: refuse a message that has arrived, or admit it with what entry 0 of its ledger changes.

Pure: facts in, decision out. The message has been read to its end before this is asked, so a refusal is the one reply
to the end of data (RFC 5321 §4.1.1.4) and never leaves a client talking text to a server that expects commands.

Order of entry 0: line ends, then the end of the header section, then long lines, then fields. Clean content gets one
splice, the trace field, and nothing of its body is read.
"""

from __future__ import annotations

import enum

import msgspec

from lonedot.message import transforms
from lonedot.message.content import Content
from lonedot.message.defects import octets_around
from lonedot.message.findings import Code, Finding, Part, Severity
from lonedot.message.fold import apply_changes, digests_of
from lonedot.message.header import HeaderView
from lonedot.message.intake import Arrived
from lonedot.message.ledger import Action, Change, Digests, Entry, Splice, Transform
from lonedot.message.profile import LINE_LIMIT
from lonedot.message.trace import TraceFacts, date_field, message_id_field, received_field
from lonedot.message.transforms.crlf import repair_line_ends
from lonedot.terms.reply import Reply, reply

__all__ = ["Admitted", "Door", "DoorPolicy", "LineEnds", "LongLines", "Refusal", "at_the_door"]


class LineEnds(enum.Enum):
    """What is done about a bare CR or LF. Never passed through."""

    REJECT = "reject"
    NORMALIZE = "normalize"


class LongLines(enum.Enum):
    """What is done about lines of more than 998 octets."""

    REJECT = "reject"
    ENCODE = "encode"


class DoorPolicy(msgspec.Struct, frozen=True):
    """What this client may bring."""

    line_ends: LineEnds = LineEnds.REJECT
    long_lines: LongLines = LongLines.REJECT
    add_missing: bool = False
    """Date and Message-ID are added when absent: for trusted clients and devices."""


class Refusal(msgspec.Struct, frozen=True):
    """Not taken. The reply names kind and place."""

    reply: Reply
    finding: Finding


class Admitted(msgspec.Struct, frozen=True):
    """Taken, with the changes of entry 0."""

    content: Content
    """The queued form behind entry 0."""
    changes: tuple[Change, ...]
    before: Digests
    after: Digests
    findings: tuple[Finding, ...] = ()
    """What was repaired, by its place in the arrival form."""
    words: str = ""
    """For the ledger: what the client sent and what was done; empty when nothing was repaired."""

    def entry(self, at: float, took_seconds: float, revision: str = "") -> Entry:
        """Entry 0 of the ledger."""
        return Entry(
            binding="lonedot",
            binding_id="",
            event="door",
            at=at,
            took_seconds=took_seconds,
            before=self.before,
            after=self.after,
            action=Action.REPAIRED if self.findings else Action.KEPT,
            changes=self.changes,
            findings=self.findings,
            words=self.words,
            revision=revision,
        )


Door = Admitted | Refusal


def at_the_door(arrived: Arrived, policy: DoorPolicy, facts: TraceFacts) -> Door:
    """Decide about a message that has come in whole.

    Raises:
        OSError, ValueError: a stored body had to be read (long lines to encode, a header section to end) and could
            not be.
    """
    content = arrived.content
    work = _Work(content, facts)
    if not content.is_canonical or HeaderView(content.head).malformed >= 0:
        refusal = _repair(work, arrived, policy)
        if refusal is not None:
            return refusal
    head = work.content.head
    trace = received_field(facts)
    splices = [Splice(Part.HEAD, 0, 0, trace)]
    if policy.add_missing:
        view = HeaderView(head)
        place = len(trace) + view.section_end
        if not view.has(b"date"):
            splices.append(Splice(Part.HEAD, place, place, date_field(facts.at)))
            place += len(splices[-1].octets)
        if not view.has(b"message-id"):
            splices.append(Splice(Part.HEAD, place, place, message_id_field(facts.id, facts.hostname)))
    queued = apply_changes(work.content, splices)
    return Admitted(
        queued,
        (*work.changes, *splices),
        digests_of(content),
        digests_of(queued),
        tuple(work.findings),
        "; ".join(work.words),
    )


class _Work:
    """What has become of a message so far."""

    __slots__ = ("changes", "client", "content", "findings", "words")

    def __init__(self, content: Content, facts: TraceFacts) -> None:
        self.content = content
        self.changes: list[Change] = []
        self.findings: list[Finding] = []
        self.words: list[str] = []
        self.client = facts.client or facts.helo or "the client"

    def took(self, name: str, content: Content, finding: Finding, words: str) -> None:
        self.changes.append(Transform(name))
        self.content = content
        self.findings.append(finding)
        self.words.append(f"{self.client} {words}")


def _repair(work: _Work, arrived: Arrived, policy: DoorPolicy) -> Refusal | None:
    content = arrived.content
    head, body = content.head_measure.profile, content.body_measure.profile
    if head.nul >= 0 or body.nul >= 0:
        part, place = (Part.HEAD, head.nul) if head.nul >= 0 else (Part.BODY, body.nul)
        return _refusal(_finding(content, Code.NUL, part, place, "NUL"), "text must not hold it")
    bare = _first_bare(content)
    if bare is not None and policy.line_ends is LineEnds.REJECT:
        return _refusal(bare, "lines must end in CRLF")
    long_line = _first_long_line(content)
    if long_line is not None and policy.long_lines is LongLines.REJECT:
        return _refusal(long_line, f"lines have at most {LINE_LIMIT} octets")
    if bare is not None:
        repaired = repair_line_ends(content, arrived.repaired_body)
        work.took(transforms.CRLF, repaired, bare, f"sent {bare.words}: each CR or LF alone became CRLF")
    elif not (body if body.size else head).ends_with_line_end:
        part, size = (Part.BODY, body.size) if body.size else (Part.HEAD, head.size)
        finding = _finding(content, Code.NO_FINAL_NEWLINE, part, size, "no line end")
        repaired = repair_line_ends(content, arrived.repaired_body)
        work.took(transforms.CRLF, repaired, finding, "sent a last line without CRLF: it was added")
    place = HeaderView(content.head).malformed
    if place >= 0:
        finding = _finding(content, Code.HEADER_MALFORMED, Part.HEAD, place, "a line that is no header field")
        ended = transforms.apply(transforms.END_HEADER, work.content)
        words = f"sent {finding.words} in the header section: an empty line was put before it"
        work.took(transforms.END_HEADER, ended, finding, words)
    if long_line is not None:
        try:
            encoded = transforms.apply(transforms.ENCODE_LONG_LINES, work.content)
        except transforms.CannotTransform as fault:
            return _refusal(long_line, str(fault))
        work.took(transforms.ENCODE_LONG_LINES, encoded, long_line, f"sent {long_line.words}: it was encoded")
    return None


def _first_bare(content: Content) -> Finding | None:
    for part, profile in (
        (Part.HEAD, content.head_measure.profile),
        (Part.BODY, content.body_measure.profile),
    ):
        lf, cr = profile.bare_lf, profile.bare_cr
        if lf >= 0 and not 0 <= cr < lf:
            return _finding(content, Code.BARE_LF, part, lf, "bare LF")
        if cr >= 0:
            return _finding(content, Code.BARE_CR, part, cr, "bare CR")
    return None


def _first_long_line(content: Content) -> Finding | None:
    kind = f"line of more than {LINE_LIMIT} octets"
    if (place := content.head_measure.profile.long_line) >= 0:
        return _finding(content, Code.LINE_TOO_LONG, Part.HEAD, place, kind)
    if (place := content.body_measure.profile.long_line) >= 0:
        return _finding(content, Code.LINE_TOO_LONG, Part.BODY, place, kind)
    return None


def _finding(content: Content, code: Code, part: Part, place: int, kind: str) -> Finding:
    """Words name the octet in the whole message, since that is what a client can look up."""
    octet = place + (len(content.head) if part is Part.BODY else 0)
    return Finding(
        code, Severity.DAMAGE, part, place, f"{kind} at octet {octet}", octets_around(content, part, place)
    )


def _refusal(finding: Finding, rule: str) -> Refusal:
    return Refusal(reply(550, "5.6.0", f"{finding.words}; {rule}"), finding)
