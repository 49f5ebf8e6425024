"""A journey in sentences: for somebody who knows nothing of SMTP, and exact for somebody who does.

Pure: a `Journey` and a time zone give lines; the command line decides on colours and wrapping. No control sign of a
stranger's text gets through (a terminal would obey it).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, tzinfo
from typing import NamedTuple

from lonedot.diagnosis.record import AttemptRecord, EntryRecord, FindingRecord, Record
from lonedot.diagnosis.why import Journey, NextStep, TranscriptLine, Who
from lonedot.message.findings import Severity
from lonedot.message.ledger import Action
from lonedot.spool.interface import MessageState, RecipientStatus
from lonedot.terms.outcome import Result, Stage

__all__ = ["Kind", "Line", "clean", "moment", "size_in_words", "span", "tell"]


class Kind(enum.Enum):
    """What a line is, so that a skin may colour it."""

    TITLE = "title"
    HEADING = "heading"
    TEXT = "text"
    GOOD = "good"
    ALARM = "alarm"
    OCTETS = "octets"
    """Octets or a remote's words: never wrapped in the middle of a name."""
    HINT = "hint"
    EMPTY = "empty"


class Line(NamedTuple):
    kind: Kind
    text: str
    indent: int = 0


def tell(journey: Journey, zone: tzinfo | None = None, transcripts: bool = False) -> tuple[Line, ...]:
    """The whole story, top to bottom.

    Args:
        journey: what happened.
        zone: in which times are given; None is the machine's own.
        transcripts: put the recorded conversations in.
    """
    return tuple(
        Line(line.kind, clean(line.text), line.indent) for line in _Teller(journey, zone, transcripts).lines()
    )


def clean(text: str) -> str:
    """Without control signs: each is shown as its escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def moment(at: float, zone: tzinfo | None = None) -> str:
    """A time for people, with its offset to UTC; a year out of range is said, not raised."""
    try:
        return datetime.fromtimestamp(at, UTC).astimezone(zone).strftime("%Y-%m-%d %H:%M:%S %z")
    except (ValueError, OverflowError, OSError):
        return f"at an impossible time ({at:g})"


def span(seconds: float) -> str:
    """A length of time in one or two units: `45 seconds`, `3 h 20 min`."""
    if seconds < 0.0005:
        return "no time"
    if seconds < 1:
        return f"{seconds * 1000:.1f} ms" if seconds < 0.1 else f"{seconds * 1000:.0f} ms"
    if seconds < 10 and seconds != round(seconds):
        return f"{seconds:.1f} seconds"
    if seconds < 90:
        whole = round(seconds)
        return "1 second" if whole == 1 else f"{whole} seconds"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} minutes"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def size_in_words(octets: int) -> str:
    """`1 octet`, `245 113 octets`."""
    return "1 octet" if octets == 1 else f"{octets:,} octets".replace(",", " ")


class _Teller:
    """One telling. Each method yields the lines of one stage."""

    def __init__(self, journey: Journey, zone: tzinfo | None, transcripts: bool) -> None:
        self.journey = journey
        self.record: Record = journey.record
        self.zone = zone
        self.transcripts = transcripts

    def lines(self) -> Iterator[Line]:
        yield Line(Kind.TITLE, f"Message {self.record.id}")
        yield Line(self._summary_kind(), self.journey.summary)
        yield from self._arrival()
        yield from self._ledger()
        yield from self._attempts()
        yield from self._next()
        yield from self._advice()

    def _summary_kind(self) -> Kind:
        if self.record.state in (MessageState.HELD, MessageState.DAMAGED) or self.journey.suspects:
            return Kind.ALARM
        recipients = self.record.recipients
        delivered = all(recipient.status is RecipientStatus.DELIVERED for recipient in recipients)
        return Kind.GOOD if recipients and delivered else Kind.TEXT

    # --- how it came ---

    def _arrival(self) -> Iterator[Line]:
        record, origin = self.record, self.record.origin
        yield from _heading("How it came in")
        yield Line(Kind.TEXT, f"{self._moment(record.accepted_at)}: {_came_from(record)}", 1)
        count = len(record.recipients)
        people = "1 recipient" if count == 1 else f"{count} recipients"
        names = _listed([recipient.address for recipient in record.recipients])
        sender = (
            "the null sender <> (a report or an automatic answer, to which nobody may answer)"
            if record.sender == "<>"
            else record.sender
        )
        yield Line(Kind.TEXT, f"From {sender}, for {people}: {names}.", 1)
        yield Line(Kind.TEXT, f"Size: {size_in_words(record.size)}{_said_of_body(record)}.", 1)
        if origin.session:
            yield Line(Kind.TEXT, f"Session {origin.session}{_revision(origin.revision)}.", 1)
        if origin.parent:
            yield Line(Kind.HINT, f"It speaks of the message {origin.parent}: lonedot why {origin.parent}", 1)
        if self.transcripts:
            missing = "No transcript of this session could be read."
            yield from self._dialogue(self.journey.transcripts.session, "client", missing)

    # --- what was done to it ---

    def _ledger(self) -> Iterator[Line]:
        ours = [entry for entry in self.record.ledger if entry.is_ours]
        sinks = [entry for entry in self.record.ledger if not entry.is_ours]
        yield from _heading("What the relay did at the door")
        if not ours:
            yield Line(Kind.TEXT, "Nothing is recorded.", 1)
        for entry in ours:
            yield from self._own_entry(entry)
        yield from _heading("What the sinks did")
        if not sinks:
            yield Line(Kind.TEXT, "No sink was called for it.", 1)
        for entry in sinks:
            yield from self._sink_entry(entry)

    def _own_entry(self, entry: EntryRecord) -> Iterator[Line]:
        if entry.event != "door":
            yield Line(Kind.TEXT, f"Event {entry.event}, {self._moment(entry.at)}:", 1)
        if entry.words:
            yield Line(Kind.TEXT, _sentence(entry.words), 1)
        for words in entry.changed:
            yield Line(Kind.TEXT, _sentence(f"The relay {words}"), 1)
        if not entry.changed and not entry.words:
            yield Line(Kind.TEXT, "It changed nothing.", 1)
        yield from _findings(entry.findings)

    def _sink_entry(self, entry: EntryRecord) -> Iterator[Line]:
        guid = f" {entry.binding_id}" if entry.binding_id else ""
        if entry.is_shadow:
            yield Line(Kind.ALARM if entry.is_wrong else Kind.TEXT, _shadow_words(entry), 1)
        elif entry.is_fault:
            yield Line(Kind.ALARM, _fault_words(entry), 1)
        else:
            yield Line(Kind.TEXT, f'"{entry.binding}" {_plain_words(entry)}', 1)
        yield Line(
            Kind.TEXT,
            f"Sink{guid}, event {entry.event}, {moment(entry.at, self.zone)}, took {span(entry.took_seconds)},"
            f" verdict {entry.verdict}, action {entry.action.value}.",
            2,
        )
        if entry.recipients:
            yield Line(Kind.TEXT, f"Only in the copy for {_listed(entry.recipients)}.", 2)
        if entry.words and entry.words not in [finding.words for finding in entry.findings]:
            redirects = "It redirects to the route " if entry.verdict == "redirect" else ""
            yield Line(Kind.TEXT, _sentence(f"{redirects}{entry.words}"), 2)
        yield from _findings(entry.findings)
        if entry.tail_attempted or entry.tail_before:
            yield Line(Kind.OCTETS, f"before this sink, the message ended:  …{entry.tail_before}", 2)
            yield Line(Kind.OCTETS, f"what this sink handed back, ended:    …{entry.tail_attempted}", 2)
        if entry.attempted_size >= 0 and entry.is_wrong:
            yield Line(Kind.TEXT, f"What it handed back: {size_in_words(entry.attempted_size)}.", 2)
        if entry.changed and entry.is_fault:
            yield Line(Kind.TEXT, "Kept of it:", 2)
        for words in entry.changed:
            yield Line(Kind.TEXT, _sentence(f"It {words}"), 3 if entry.is_fault else 2)
        for words in entry.proposed:
            yield Line(Kind.TEXT, _sentence(f"It would have {words}"), 2)
        if entry.is_shadow:
            yield Line(Kind.GOOD, _DONE_ABOUT[entry.action], 2)
        if entry.is_fault:
            yield Line(Kind.GOOD if _went_on(entry) else Kind.ALARM, _DONE_ABOUT[entry.action], 2)

    # --- where it went ---

    def _attempts(self) -> Iterator[Line]:
        yield from _heading("Where it went")
        attempts = self.record.attempts
        for route, names in self._redirects().items():
            yield Line(Kind.TEXT, f'A sink sends it over the route "{route}": {_listed(names)}.', 1)
        if not attempts:
            yield Line(Kind.TEXT, "It was not tried yet.", 1)
        for attempt in attempts:
            yield from self._attempt(attempt)
        deleted = [r.address for r in self.record.recipients if r.status is RecipientStatus.DELETED]
        if deleted:
            yield Line(Kind.TEXT, f"Deleted, so not sent: {_listed(deleted)}.", 1)

    def _redirects(self) -> dict[str, list[str]]:
        """By route, the recipients for which a sink has chosen it."""
        found: dict[str, list[str]] = {}
        for recipient in self.record.recipients:
            if recipient.redirect:
                found.setdefault(recipient.redirect, []).append(recipient.address)
        return found

    def _attempt(self, attempt: AttemptRecord) -> Iterator[Line]:
        took = span(attempt.ended_at - attempt.started_at)
        hop = f" to {attempt.next_hop}" if attempt.next_hop else ""
        route = f' by the route "{attempt.route}"' if attempt.route else ""
        tls = f"encrypted ({attempt.tls})" if attempt.tls else "not encrypted"
        yield Line(
            Kind.TEXT,
            f"Attempt {attempt.number}, {self._moment(attempt.started_at)}, took {took}:{hop}{route}, {tls}.",
            1,
        )
        for address, outcome in attempt.outcomes:
            kind = Kind.GOOD if outcome.result is Result.DELIVERED else Kind.ALARM
            where = "" if outcome.result is Result.DELIVERED else f" {_STAGES[outcome.stage]}"
            reason = f": {outcome.reason}" if outcome.reason else ""
            yield Line(kind, _sentence(f"{address} {_RESULTS[outcome.result]}{where}{reason}"), 2)
            if outcome.reply:
                yield Line(Kind.OCTETS, f"the next hop said: {outcome.reply}", 3)
            elif outcome.stage not in (Stage.LOCAL, Stage.ROUTE) and not _refused_here(attempt):
                yield Line(Kind.TEXT, "The next hop said nothing.", 3)
        for entry in attempt.suffix:
            if entry.is_ours:
                did = "; ".join(entry.changed) or entry.words or entry.action.value
                yield Line(Kind.TEXT, _sentence(f"For this copy alone ({entry.event}): {did}"), 2)
            else:
                for line in self._sink_entry(entry):
                    yield line._replace(indent=line.indent + 1)
        if attempt.wire is not None:
            wire = attempt.wire
            how = "all of it by DATA" if wire.mode == "DATA" else "by BDAT, where no dot ends the message"
            yield Line(Kind.TEXT, f"Sent: {size_in_words(wire.size)}, {how}. The last of them:", 2)
            yield Line(Kind.OCTETS, f"…{wire.tail}", 3)
            yield Line(
                Kind.TEXT, f"SHA-256 of what was sent: header {wire.head_sha256}, body {wire.body_sha256}.", 2
            )
        if self.transcripts:
            said = self.journey.transcripts.attempts.get(attempt.number, ())
            yield from self._dialogue(said, "next hop", "No transcript of this attempt could be read.")

    def _dialogue(self, said: Sequence[TranscriptLine], peer: str, missing: str) -> Iterator[Line]:
        if not said:
            yield Line(Kind.TEXT, missing, 2)
        for line in said:
            mark = {Who.RELAY: "relay:", Who.PEER: f"{peer}:", Who.NOTE: "--"}[line.who]
            yield Line(Kind.OCTETS, f"{line.after_seconds:8.3f} s  {mark:<9} {line.text}", 2)

    # --- what comes ---

    def _next(self) -> Iterator[Line]:
        yield from _heading("What happens next")
        state = self.record.state
        match state:
            case MessageState.FINISHED:
                yield Line(Kind.TEXT, f"Nothing: it was finished {self._moment(self.record.finished_at)}.", 1)
            case MessageState.HELD | MessageState.DAMAGED:
                yield Line(Kind.TEXT, "Nothing, until somebody decides.", 1)
            case MessageState.QUEUED:
                if not self.journey.is_running:
                    yield Line(
                        Kind.ALARM, "The relay is not running: nothing is sent until it is started.", 1
                    )
                if not self.journey.next_steps:
                    yield Line(Kind.TEXT, "Every recipient is done; the relay is about to close it.", 1)
                for step in self.journey.next_steps:
                    yield Line(Kind.TEXT, self._step(step), 1)

    def _step(self, step: NextStep) -> str:
        now = self.journey.asked_at
        transport = self.record.transport
        if transport is not None:
            when = "is asked" if step.next_at <= now else f"is asked {self._moment(step.next_at)}"
            who = f'The sink "{transport.waits_for}"' if transport.waits_for else "What is left of its sinks"
            return f"{step.address}: first the sinks. {who} {when}."
        if not step.next_at:
            words = f"{step.address}: no time is set for the next try"
        elif step.next_at <= now:
            words = f"{step.address} is due now and is tried as soon as the relay gets to it"
        else:
            words = f"{step.address} is tried again {self._moment(step.next_at)}"
        if not step.expires_at:
            return f"{words}."
        verb = "gives up and tells the sender" if self.record.sender != "<>" else "gives up"
        return f"{words}. The relay {verb} after {self._moment(step.expires_at)}."

    def _advice(self) -> Iterator[Line]:
        if not self.journey.advice:
            return
        yield from _heading("What you can do")
        for advice in self.journey.advice:
            yield Line(Kind.TEXT, advice.words, 1)
            if advice.command:
                yield Line(Kind.HINT, advice.command, 2)

    def _moment(self, at: float) -> str:
        distance = self.journey.asked_at - at
        if abs(distance) < 1:
            return f"{moment(at, self.zone)} (just now)"
        relative = f"{span(distance)} ago" if distance > 0 else f"in {span(-distance)}"
        return f"{moment(at, self.zone)} ({relative})"


def _heading(text: str) -> tuple[Line, Line]:
    return Line(Kind.EMPTY, ""), Line(Kind.HEADING, text)


def _came_from(record: Record) -> str:
    origin = record.origin
    match origin.source:
        case "pickup":
            return f"a program put the file {origin.client or '(no name)'} into the Pickup folder."
        case "pop3":
            tls = f"encrypted ({origin.tls})" if origin.tls else "not encrypted"
            return f"the relay fetched it from the mailbox {origin.listener} at {origin.helo} by POP3, {tls}."
        case "dsn":
            return "the relay wrote it itself, as a report to a sender."
    client = origin.client or "an unknown client"
    helo = f', which calls itself "{origin.helo}",' if origin.helo else ""
    how = f" by {origin.protocol}" if origin.protocol else ""
    tls = f"encrypted ({origin.tls})" if origin.tls else "not encrypted"
    listener = f", at the listener {origin.listener}" if origin.listener else ""
    if origin.login:
        trust = f" It logged in as {origin.login}."
    elif origin.trusted:
        trust = " It belongs to the networks that may relay."
    else:
        trust = " It is a stranger: it may only write to this relay's own domains."
    return f"{client}{helo} delivered it{how}, {tls}{listener}.{trust}"


def _said_of_body(record: Record) -> str:
    said = [f"the client declared {record.body}"] if record.body else []
    if record.smtputf8:
        said.append("with addresses in UTF-8")
    return f" ({', '.join(said)})" if said else ""


def _revision(revision: str) -> str:
    return f", under revision {revision} of the configuration" if revision else ""


def _listed(addresses: Sequence[str], limit: int = 10) -> str:
    shown = ", ".join(addresses[:limit])
    return f"{shown} and {len(addresses) - limit} more" if len(addresses) > limit else shown


def _sentence(words: str) -> str:
    first = words.split(" ", maxsplit=1)[0]
    if words[:1].islower() and "@" not in first:  # an address keeps its own signs
        words = words[:1].upper() + words[1:]
    return words if words.endswith((".", "!", "?")) else f"{words}."


def _findings(findings: Iterable[FindingRecord]) -> Iterator[Line]:
    for finding in findings:
        place = f"{finding.part.value} octet {finding.offset}: " if finding.offset >= 0 else ""
        kind = Kind.TEXT if finding.severity is Severity.NOTE else Kind.ALARM
        yield Line(kind, f"{finding.severity.value} {finding.code.value}: {place}{finding.words}", 2)
        if finding.octets:
            yield Line(Kind.OCTETS, finding.octets, 3)


def _fault_words(entry: EntryRecord) -> str:
    if entry.verdict == "error":
        return f'THE SINK "{entry.binding}" FAILED.'
    if any(finding.severity is Severity.DAMAGE for finding in entry.findings):
        return f'THE SINK "{entry.binding}" DAMAGED THE MESSAGE.'
    return f'THE SINK "{entry.binding}" DID WHAT IT HAD NOT DECLARED.'


def _shadow_words(entry: EntryRecord) -> str:
    if entry.verdict == "error":
        return f'THE SINK "{entry.binding}", IN SHADOW, FAILED.'
    if any(finding.severity is Severity.DAMAGE for finding in entry.findings):
        return f'THE SINK "{entry.binding}", IN SHADOW, WOULD HAVE DAMAGED THE MESSAGE.'
    if entry.is_wrong:
        return f'THE SINK "{entry.binding}", IN SHADOW, WOULD HAVE DONE WHAT IT HAD NOT DECLARED.'
    return f'"{entry.binding}" was shown the message in shadow.'


def _plain_words(entry: EntryRecord) -> str:
    match entry.action:
        case Action.KEPT:
            return "changed the message:"
        case Action.UNCHANGED:
            return "ran and changed nothing."
        case Action.REDUCED:
            return "handed back the whole message; only what it really changed was taken:"
        case Action.REPAIRED:
            return "changed the message; what it wrote was repaired:"
        case Action.UNDONE:
            return "ran; what it did was undone."
        case Action.HELD:
            return "asked to hold the message."
        case Action.REJECTED:
            return "refused the message."
        case Action.SKIPPED:
            return "was skipped."
        case Action.DEFERRED:
            return "put the message off."
        case Action.SHADOWED:
            return "was shown the message in shadow."


def _refused_here(attempt: AttemptRecord) -> bool:
    """A sink refused something in it, so that the next hop was not asked."""
    return any(not entry.is_ours and not _went_on(entry) for entry in attempt.suffix)


def _went_on(entry: EntryRecord) -> bool:
    return entry.action not in (Action.HELD, Action.REJECTED, Action.DEFERRED)


_DONE_ABOUT = {
    Action.KEPT: "It was taken all the same.",
    Action.UNCHANGED: "The message stayed as it was.",
    Action.REDUCED: "The damage was undone: only what is listed here was taken, the rest stayed as it was.",
    Action.REPAIRED: "The damage was repaired, and the message went on.",
    Action.UNDONE: "The damage was undone: the message went on exactly as it was before this sink.",
    Action.HELD: "The message was held because of this, as it was before this sink.",
    Action.REJECTED: "The message was refused because of this.",
    Action.SKIPPED: "The message went on as it was before this sink.",
    Action.DEFERRED: "The message was put off because of this.",
    Action.SHADOWED: "Nothing of it was done: the binding is in shadow.",
}
_RESULTS = {
    Result.DELIVERED: "was delivered",
    Result.DEFERRED: "was not delivered yet",
    Result.FAILED: "was refused for good",
}
_STAGES = {
    Stage.ROUTE: "(no way to it was found)",
    Stage.CONNECT: "(while connecting)",
    Stage.GREETING: "(at the greeting)",
    Stage.EHLO: "(when the relay gave its name, EHLO)",
    Stage.STARTTLS: "(when encryption was to begin, STARTTLS)",
    Stage.AUTH: "(when the relay logged in, AUTH)",
    Stage.MAIL: "(when the sender was named, MAIL)",
    Stage.RCPT: "(when the recipient was named, RCPT)",
    Stage.DATA: "(when the content was announced, DATA)",
    Stage.CONTENT: "(after the content was sent)",
    Stage.LOCAL: "(on this relay itself)",
}
