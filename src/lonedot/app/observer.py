"""What the rooms report, made into log lines, events, and calls to whoever watches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from lonedot.app.seeing import Meter
from lonedot.app.standing import StandingDesk
from lonedot.delivery.signing import broken_signature
from lonedot.evidence.events import EventKind, EventLog
from lonedot.message.findings import Severity
from lonedot.message.ledger import Action, Entry
from lonedot.observability.levels import LogLevel
from lonedot.observability.log import event, logs
from lonedot.observability.metrics import Metrics
from lonedot.queue.courier import Delivery
from lonedot.queue.plan import Conclusion
from lonedot.queue.transport import Step
from lonedot.reception.one_client import DAY_SECONDS, OneClient
from lonedot.reception.session import Session
from lonedot.sinks.inquiry import HopNote
from lonedot.sinks.protocol import Note
from lonedot.spool.interface import (
    Acceptance,
    Claim,
    Facts,
    MessageState,
    RecipientState,
    RecipientStatus,
    SpoolFull,
    Stored,
)
from lonedot.terms.envelope import Envelope
from lonedot.terms.ids import MessageId
from lonedot.terms.outcome import Outcome, Result, Stage
from lonedot.terms.reply import Reply

__all__ = ["RelayObserver", "Watcher"]

Watcher = Callable[[str, Mapping[str, object]], None]

_SINK_EVENTS = {
    Action.UNDONE: EventKind.SINK_DAMAGED,
    Action.REDUCED: EventKind.SINK_DAMAGED,
    Action.REPAIRED: EventKind.SINK_REPAIRED,
    Action.HELD: EventKind.SINK_DAMAGED,
    Action.REJECTED: EventKind.SINK_REFUSED,
    Action.SKIPPED: EventKind.SINK_FAILED,
    Action.DEFERRED: EventKind.SINK_FAILED,
}
_DETAILS = {"command.refused", "command.tolerated"}


class RelayObserver:
    """Satisfies the observers that reception, acceptance, Pickup and the scheduler ask for."""

    def __init__(
        self,
        events: EventLog,
        watchers: Sequence[Watcher],
        standing: StandingDesk | None = None,
        meter: Meter | None = None,
    ) -> None:
        """`watchers` is asked anew each time, so it may grow. `standing` books the faults of sinks, `meter` counts."""
        self._meter = meter if meter is not None else Meter(Metrics())
        self._events = events
        self._standing = standing
        self._watchers = watchers

    def _tell(self, name: str, fields: Mapping[str, object]) -> None:
        for watcher in self._watchers:
            watcher(name, fields)

    # -- at the door -------------------------------------------------------------------------------

    def accepted(self, acceptance: Acceptance) -> None:
        id, facts = acceptance.id, acceptance.facts
        self._meter.accepted(acceptance)
        if logs(LogLevel.INFO):
            event(
                "message.accepted",
                id=id,
                session=facts.session,
                source=facts.source,
                client=facts.client,
                sender=acceptance.envelope.reverse_path.text,
                recipients=len(acceptance.recipients),
                size=acceptance.size,
            )
        first = acceptance.ledger[0] if acceptance.ledger else None
        if first is not None and first.findings:
            words = "; ".join(finding.words for finding in first.findings)
            self._events.append(
                EventKind.MESSAGE_REPAIRED_AT_DOOR, id, words, client=facts.client, helo=facts.helo
            )
        if acceptance.state is MessageState.HELD:
            self._events.append(EventKind.MESSAGE_HELD, id, acceptance.reason)
        self._tell("message.accepted", {"id": id, "size": acceptance.size, "client": facts.client})

    def refused(self, id: MessageId, facts: Facts, envelope: Envelope, answer: Reply, words: str) -> None:
        self._meter.refused(answer)
        event(
            "message.refused",
            LogLevel.WARNING,
            id=id,
            session=facts.session,
            client=facts.client,
            helo=facts.helo,
            sender=envelope.reverse_path.text,
            recipients=[recipient.address.text for recipient in envelope.recipients[:10]],
            reply=answer.text,
            reason=words,
        )
        if answer.enhanced == "5.4.6":
            self._events.append(EventKind.LOOP_FOUND, id, words, client=facts.client)
        self._tell("message.refused", {"id": id, "reply": answer.text, "words": words})

    def sunk(self, id: MessageId, entries: Sequence[Entry]) -> None:
        self._meter.sunk(entries)
        for entry in entries:
            if self._watchers:
                self._tell(
                    "sink.judged",
                    {"id": id, "binding": entry.binding, "action": entry.action.value, "words": entry.words},
                )
            if (
                entry.action is Action.KEPT
                and entry.fault
                and (broken := broken_signature(entry)) is not None
            ):
                self._events.append(EventKind.SIGNATURE_BROKEN, id, broken.words, binding=entry.binding)
                continue
            kind = _SINK_EVENTS.get(entry.action)
            if kind is None or (entry.action is Action.DEFERRED and entry.verdict == "defer"):
                continue  # who puts a message off as it is meant to has not failed
            faulty = [f for f in entry.findings if f.severity is not Severity.NOTE]
            if entry.action is Action.REDUCED and not faulty:
                continue
            if (
                kind is EventKind.SINK_DAMAGED
                and faulty
                and all(finding.severity is Severity.VIOLATION for finding in faulty)
            ):
                kind = EventKind.SINK_OVERSTEPPED
            elif entry.fault and not faulty:
                # Held or refused because it failed: it damaged nothing, and refused nothing itself.
                kind = EventKind.SINK_FAILED
            words = "; ".join(finding.words for finding in faulty) or entry.words
            self._events.append(kind, id, words, binding=entry.binding, action=entry.action.value)
        if self._standing is not None:
            self._standing.book_entries(id, entries)

    # -- sessions ----------------------------------------------------------------------------------

    def session_noted(self, session: Session, what: str, words: str, note: Note | None = None, /) -> None:
        level = LogLevel.DEBUG if what in _DETAILS else LogLevel.INFO
        if what == "session.fault":
            level = LogLevel.ERROR
        elif what == "directory.fault":
            level = LogLevel.WARNING
        if what == "sink.failed":
            self._events.append(EventKind.SINK_FAILED, session.id, words, client=session.client)
            if note is not None:
                self._meter.failed(note.binding)
            if self._standing is not None and note is not None and note.fault is not None:
                self._standing.book(note.guid, note.fault, words, session.id)
            return
        if logs(level):
            event(what, level, session=session.id, client=session.client, helo=session.helo, words=words)

    def one_client(self, found: OneClient) -> None:
        """Booked once a day, also over restarts and by several workers."""
        if not self._events.has(EventKind.ONE_CLIENT, DAY_SECONDS, listener=found.listener):
            self._events.append(
                EventKind.ONE_CLIENT, "", found.words, listener=found.listener, client=found.client
            )
            self._events.flush()  # the other workers look there

    # -- Pickup ------------------------------------------------------------------------------------

    def taken(self, name: str, id: MessageId) -> None:
        event("pickup.taken", id=id, file=name)

    def pickup_refused(self, name: str, words: str, for_good: bool) -> None:
        if for_good:
            self._events.append(EventKind.PICKUP_REFUSED, "", words, file=name)
        else:
            event("pickup.put-off", LogLevel.WARNING, file=name, words=words)

    # -- POP3 --------------------------------------------------------------------------------------

    def pop3_taken(self, account: str, uidl: str, id: MessageId) -> None:
        event("pop3.taken", id=id, account=account, uidl=uidl)

    def pop3_refused(self, account: str, uidl: str, words: str, for_good: bool) -> None:
        if for_good:
            self._events.append(EventKind.POP3_REFUSED, "", words, account=account, uidl=uidl)
        else:
            event("pop3.put-off", LogLevel.WARNING, account=account, uidl=uidl, words=words)

    def pop3_looked(self, account: str, taken: int, words: str, failed: int) -> None:
        """A fault is an event when it is new, and each time that it has lasted twice as long."""
        self._meter.looked(account, is_failed=bool(words))
        if words and failed & (failed - 1) == 0:
            self._events.append(EventKind.POP3_FAILED, "", words, account=account, times=failed)
        elif words or taken:
            level = LogLevel.WARNING if words else LogLevel.INFO
            event("pop3.looked", level, account=account, taken=taken, words=words)

    # -- the queue ---------------------------------------------------------------------------------

    def attempted(self, claim: Claim, delivery: Delivery) -> None:
        self._meter.attempted(claim, delivery)
        attempts = delivery.attempts
        next_hop = attempts[-1].next_hop if attempts else ""
        id = claim.message.id
        if delivery.hold:
            kind = EventKind.STORED_ALTERED if delivery.is_altered else EventKind.MESSAGE_HELD
            self._events.append(kind, id, delivery.hold)
        outcomes = delivery.outcomes
        delivered = 0
        for attempt in attempts:
            if attempt.suffix:
                self.sunk(id, [entry for entry in attempt.suffix if entry.binding_id])
            took = sum(outcome.result is Result.DELIVERED for _, outcome in attempt.outcomes)
            delivered += took
            if took and logs(LogLevel.INFO):
                last = attempt.outcomes[-1][1]
                event(
                    "message.delivered",
                    id=id,
                    recipients=took,
                    next_hop=attempt.next_hop,
                    tls=attempt.tls,
                    reply=last.reply.text if last.reply is not None else "",
                    seconds=round(attempt.ended_at - claim.message.accepted_at, 3),
                )
        if delivered < len(outcomes):
            for _, outcome in _distinct(outcomes):
                event(
                    f"message.{outcome.result.value}",
                    LogLevel.WARNING,
                    id=id,
                    stage=outcome.stage.value,
                    next_hop=outcome.next_hop or next_hop,
                    reply=outcome.reply.text if outcome.reply is not None else "",
                    reason=outcome.reason,
                )
        self._tell(
            "attempt.ended",
            {
                "id": id,
                "next_hop": next_hop,
                "result": [outcome.result.value for _, outcome in outcomes],
                "reply": [o.reply.text if o.reply is not None else o.reason for _, o in outcomes],
            },
        )

    def transported(self, id: MessageId, step: Step) -> None:
        """A message in transport was put off, or is held."""
        if step.state is MessageState.HELD:
            self._events.append(EventKind.MESSAGE_HELD, id, step.reason)
            self._tell("message.settled", {"id": id, "state": step.state.value})
        elif step.message.transport is not None:
            progress = step.message.transport
            event(
                "message.put-off",
                LogLevel.WARNING,
                id=id,
                binding=progress.waits_for,
                times=progress.deferrals,
                reason=progress.words,
            )

    def concluded(self, claim: Claim, conclusion: Conclusion, hold: str) -> None:
        id = claim.message.id
        for recipient in conclusion.recipients:
            kind = _kind_of(recipient, claim.message.envelope.reverse_path.is_null)
            outcome = recipient.last
            if kind is not None and outcome is not None:
                self._events.append(
                    kind,
                    id,
                    outcome.reason,
                    recipient=recipient.recipient.address.text,
                    next_hop=outcome.next_hop,
                    reply=outcome.reply.text if outcome.reply is not None else "",
                )
        state = MessageState.HELD if hold else conclusion.state
        self._tell("message.settled", {"id": id, "state": state.value})

    def reported(self, claim: Claim, report: Acceptance) -> None:
        """A DSN was made; it goes into custody together with the outcome that caused it."""
        event(
            "message.reported",
            id=claim.message.id,
            report=report.id,
            recipient=report.recipients[0].recipient.address.text,
            size=report.size,
        )
        if report.ledger:
            self.sunk(report.id, report.ledger)
        if report.state is MessageState.HELD:
            self._events.append(EventKind.MESSAGE_HELD, report.id, report.reason)

    def copied(self, stored: Stored, copy: Acceptance) -> None:
        """A list's copy was made of a message; it goes into custody together with the step that resolved it."""
        count = len(copy.recipients)
        event(
            "message.copied",
            id=stored.id,
            copy=copy.id,
            sender=copy.envelope.reverse_path.text,
            recipients=count,
        )
        self.sunk(copy.id, copy.ledger[-1:])

    def discarded(self, claim: Claim, report: Acceptance) -> None:
        """A sink does not let a DSN go out: it was never in custody, so what is known of it stands here."""
        last = report.ledger[-1]
        words = (
            f"a delivery report was not sent: {last.words}"
            if last.words
            else "a delivery report was not sent"
        )
        self._events.append(EventKind.SINK_REFUSED, claim.message.id, words, binding=last.binding)
        self.sunk(claim.message.id, report.ledger)

    def hop_noted(self, session: str, note: HopNote) -> None:
        """A sink of a session with a next hop refused it, or failed."""
        words = f"{note.binding} at {note.event.value}: {note.words}"
        if note.fault is None:
            event("sink.refused", LogLevel.WARNING, session=session, binding=note.binding, words=words)
            return
        self._meter.failed(note.binding)
        self._events.append(EventKind.SINK_FAILED, session, words, binding=note.binding)
        if self._standing is not None:
            self._standing.book(note.guid, note.fault, words, session)

    def spool_failed(self, what: str, error: Exception) -> None:
        kind = EventKind.DISK_FULL if isinstance(error, SpoolFull) else EventKind.SPOOL_FAULT
        self._events.append(kind, "", f"{what}: {error}")


def _kind_of(recipient: RecipientState, has_null_sender: bool) -> EventKind | None:
    """What the event log calls this; None for what is no news (delivered, or deferred as before)."""
    outcome = recipient.last
    match recipient.status:
        case RecipientStatus.EXPIRED:
            return EventKind.MESSAGE_EXPIRED
        case RecipientStatus.FAILED:
            return EventKind.BOUNCED_TO_BADMAIL if has_null_sender else EventKind.NEXT_HOP_REFUSED
        case RecipientStatus.WAITING if outcome is not None:
            if outcome.is_in_doubt:
                return EventKind.DUPLICATE_POSSIBLE
            return _FIRST_TIME.get(outcome.stage) if recipient.attempts == 1 else None
        case _:
            return None


_FIRST_TIME = {
    Stage.CONNECT: EventKind.NEXT_HOP_UNREACHABLE,
    Stage.GREETING: EventKind.NEXT_HOP_UNREACHABLE,
    Stage.STARTTLS: EventKind.TLS_REFUSED,
    Stage.AUTH: EventKind.LOGIN_REFUSED,
}
"""Told at the first attempt of a message, not at each."""


def _distinct(outcomes: Sequence[tuple[int, Outcome]]) -> list[tuple[int, Outcome]]:
    """One line for recipients that fared alike."""
    seen: dict[tuple[Result, str], tuple[int, Outcome]] = {}
    for index, outcome in outcomes:
        if outcome.result is not Result.DELIVERED:
            seen.setdefault((outcome.result, outcome.reason), (index, outcome))
    return list(seen.values())
