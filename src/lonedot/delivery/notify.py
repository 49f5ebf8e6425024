"""When a delivery report goes out, to whom, and what becomes of it when there is nobody to tell.

Rules: a report goes to the reverse-path of a message that we accepted, and only there; never to the null
reverse-path, so a report never causes another (RFC 5321 §6.1). What failed and can be returned to nobody goes to
Badmail, and only when it lies there is it settled. Success is reported only by whoever does not pass that duty on
(RFC 3461 §5.2). Sinks of `dsn` see a report before it is stored: what they do stands in its ledger.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import assert_never

import msgspec

from lonedot.delivery.classify import DISCARDED, PASSED_ON, RELAYED
from lonedot.delivery.message_sinks import NO_CHAINS, Elsewhere, MessageSinks, nobody_elsewhere, to_end
from lonedot.delivery.routing import RouteTable
from lonedot.message.content import Content, MemoryBody
from lonedot.message.fold import FoldFault, fold
from lonedot.message.intake import content_from
from lonedot.message.report import Original, ReportedRecipient, ReportKind, build_report
from lonedot.message.transforms import CannotTransform
from lonedot.queue import plan
from lonedot.queue.retry import RetrySchedule
from lonedot.sinks.bindings import Chains
from lonedot.sinks.calls import Decision, Dispatched
from lonedot.sinks.events import Event
from lonedot.sinks.hop import Departure
from lonedot.sinks.transit import TO_RESOLVE
from lonedot.spool.badmail import file_badmail
from lonedot.spool.interface import (
    Acceptance,
    Claim,
    ContentDamaged,
    Facts,
    MessageState,
    NoSuchMessage,
    RecipientState,
    RecipientStatus,
    SpoolFault,
    Stored,
)
from lonedot.terms.address import NULL_REVERSE_PATH, Address
from lonedot.terms.clock import Clock
from lonedot.terms.envelope import Envelope, Recipient, Ret
from lonedot.terms.ids import MessageId, SessionId
from lonedot.terms.outcome import Outcome
from lonedot.terms.reply import Reply

__all__ = ["Notifier", "due_reports"]

_INLINE_LIMIT = 256 * 1024
"""Octets of a report that sinks and guard work on at once; a larger one is worked on in a thread."""


def due_reports(
    stored: Stored, reports: Sequence[plan.Report]
) -> list[tuple[ReportKind, tuple[RecipientState, ...]]]:
    """The reports that are to be sent, by kind; empty for a message that came with the null reverse-path."""
    if stored.envelope.reverse_path.is_null:
        return []
    due: list[tuple[ReportKind, tuple[RecipientState, ...]]] = []
    for report in reports:
        match report.kind:
            case plan.ReportKind.FAILURE:
                due.append((ReportKind.FAILURE, report.recipients))
            case plan.ReportKind.DELAY:
                due.append((ReportKind.DELAY, report.recipients))
            case plan.ReportKind.SUCCESS:
                for kind, wanted in ((ReportKind.RELAYED, True), (ReportKind.SUCCESS, False)):
                    states = tuple(
                        state
                        for state in report.recipients
                        if _reason(state) != PASSED_ON
                        and not _reason(state).startswith(DISCARDED)
                        and (_reason(state) == RELAYED) is wanted
                    )
                    if states:
                        due.append((kind, states))
            case _:
                assert_never(report.kind)
    return due


def _reason(state: RecipientState) -> str:
    return state.last.reason if state.last is not None else ""


class Notifier:
    """Turns due reports into messages for custody, and files what nobody can be told of in Badmail."""

    def __init__(
        self,
        hostname: str,
        badmail_of: Callable[[int], Path],
        routes: RouteTable,
        content_of: Callable[[MessageId], Content],
        new_id: Callable[[], MessageId],
        clock: Clock,
        chains_of: Callable[[int], Chains] = lambda server: NO_CHAINS,
        elsewhere: Elsewhere = nobody_elsewhere,
        discarded: Callable[[Claim, Acceptance], None] = lambda claim, report: None,
        is_to_resolve: Callable[[Address], bool] = lambda address: False,
    ) -> None:
        """`content_of` is `Spool.content`; `badmail_of` the folder of a virtual server, made when it is needed.

        `chains_of` and `elsewhere` are as those of `Courier`; `discarded` is told of a report that a sink does not let
        go out, with the entries of its ledger. `is_to_resolve`: the address that gets it may lead to others.
        """
        self.hostname = hostname
        self._badmail_of = badmail_of
        self._routes = routes
        self._content_of = content_of
        self._new_id = new_id
        self._clock = clock
        self._chains_of = chains_of
        self._elsewhere = elsewhere
        self._discarded = discarded
        self._is_to_resolve = is_to_resolve

    async def report(self, claim: Claim, reports: Sequence[plan.Report]) -> Sequence[Acceptance]:
        """The DSNs to be committed with the outcome that causes them.

        Raises:
            SpoolFault: Badmail could not be written; nothing was lost, the outcome must not be settled.
        """
        stored = claim.message
        failed = [report for report in reports if report.kind is plan.ReportKind.FAILURE]
        if stored.envelope.reverse_path.is_null and failed:
            await self._to_badmail(claim, failed)
        made: list[Acceptance] = []
        for kind, states in due_reports(stored, reports):
            report = await self._acceptance(claim, kind, states)
            chains = self._chains_of(stored.facts.server)
            if chains.delivery is not None and Event.DSN in chains.delivery:
                asked = await self._asked(claim, report, kind, states, chains)
                if asked is None:
                    continue
                report = asked
            made.append(report)
        return made

    async def _asked(
        self,
        claim: Claim,
        report: Acceptance,
        kind: ReportKind,
        states: Sequence[RecipientState],
        chains: Chains,
    ) -> Acceptance | None:
        """The report as the sinks of `dsn` want it; None: it does not go out."""
        sinks = MessageSinks(chains, self._elsewhere, self._clock)
        outcomes = tuple([(state.recipient, state.last) for state in states if state.last is not None])
        departure = Departure(event=Event.DSN, report=kind, outcomes=outcomes)
        large = report.size > _INLINE_LIMIT
        asking = sinks.ask_about(
            report.id, report.facts, report.envelope, report.arrival, departure, in_thread=large
        )
        try:
            waited = next(asking)
        except StopIteration as end:
            said: Dispatched | None = end.value
        else:
            said = await to_end(asking, waited, lambda: False)
        assert said is not None
        report = msgspec.structs.replace(
            report,
            ledger=said.entries,
            size=said.content.size,
            recipients=_redirected(report.recipients, said.redirects),
        )
        match said.decision:
            case Decision.ACCEPT:
                return report
            case Decision.DISCARD:
                self._discarded(claim, report)
                return None
            case Decision.HOLD | Decision.DEFER | Decision.REJECT:
                # The outcome that causes it is recorded now: a report that waits, waits as a message that is held.
                reason = (
                    said.words if said.words.startswith(said.binding) else f"{said.binding}: {said.words}"
                )
                return msgspec.structs.replace(report, state=MessageState.HELD, reason=reason)
            case _:
                assert_never(said.decision)

    async def _acceptance(
        self, claim: Claim, kind: ReportKind, states: Sequence[RecipientState]
    ) -> Acceptance:
        stored = claim.message
        envelope = stored.envelope
        now = self._clock.now()
        id = self._new_id()
        content = await self._quoted(claim)
        original = Original(
            sender=envelope.reverse_path,
            content=content,
            arrived_at=stored.accepted_at,
            envid=envelope.envid,
            ret=envelope.ret,
            smtputf8=envelope.smtputf8,
        )
        reported = tuple(self._reported(stored, state, now) for state in states)
        if envelope.ret is Ret.FULL and not isinstance(content.body, MemoryBody):
            loop = asyncio.get_running_loop()
            octets = await loop.run_in_executor(None, self._build, kind, reported, original, id, now)
        else:
            octets = self._build(kind, reported, original, id, now)
        dsn = content_from(octets)
        sender = Recipient(envelope.reverse_path)
        return Acceptance(
            id=id,
            accepted_at=now,
            envelope=Envelope(NULL_REVERSE_PATH, (sender,), smtputf8=not sender.address.octets.isascii()),
            facts=Facts(
                source="dsn",
                session=SessionId(""),
                trusted=True,
                revision=stored.facts.revision,
                parent=stored.id,
                server=stored.facts.server,
            ),
            arrival=dsn,
            ledger=(),
            recipients=(RecipientState(0, sender, next_at=now),),
            size=dsn.size,
            transport=TO_RESOLVE if self._is_to_resolve(sender.address) else None,
        )

    def _build(
        self,
        kind: ReportKind,
        reported: tuple[ReportedRecipient, ...],
        original: Original,
        id: MessageId,
        now: float,
    ) -> bytes:
        try:
            return build_report(
                kind, reported, original, hostname=self.hostname, message_id=f"dsn.{id}", now=now
            )
        except (OSError, ValueError):
            # The stored original cannot be read any more. Its sender is told all the same, without it.
            bare = Original(
                sender=original.sender,
                content=content_from(original.content.head),
                arrived_at=original.arrived_at,
                envid=original.envid,
            )
            return build_report(kind, reported, bare, hostname=self.hostname, message_id=f"dsn.{id}", now=now)

    def _reported(self, stored: Stored, state: RecipientState, now: float) -> ReportedRecipient:
        route = self._routes.by_name(state.route)
        schedule = route.schedule if route is not None else RetrySchedule()
        recipient, outcome = _as_addressed(state)
        return ReportedRecipient(
            recipient=recipient,
            outcome=outcome,
            last_attempt_at=now if state.attempts else 0.0,
            retry_until=stored.accepted_at + schedule.expire_seconds,
            attempts=state.attempts,
            is_expired=state.status is RecipientStatus.EXPIRED,
        )

    async def _quoted(self, claim: Claim) -> Content:
        """What a report shows of the message: to the sender, what the sender sent. The copy of a list is reported to
        its owner, who may not see what was taken out before the members got it: a Bcc field first of all.
        """
        stored = claim.message
        content = self._content(claim)
        if content is not None and stored.facts.parent:
            loop = asyncio.get_running_loop()
            try:
                content = await loop.run_in_executor(None, fold, content, stored.ledger)
            except (FoldFault, CannotTransform, OSError, ValueError):
                content = None
        return content or content_from(b"")

    def _content(self, claim: Claim) -> Content | None:
        """The arrival form: what the sender sent. None when it cannot be read any more."""
        if claim.arrival is not None:
            return claim.arrival
        try:
            return self._content_of(claim.message.id)
        except (ContentDamaged, NoSuchMessage, SpoolFault):
            return None

    async def _to_badmail(self, claim: Claim, failed: Sequence[plan.Report]) -> None:
        stored = claim.message
        content = self._content(claim)
        states = [state for report in failed for state in report.recipients]
        lines = [f"Message {stored.id} could be neither delivered nor returned: it came with no sender."]
        for state in states:
            last = state.last
            lines.append(f"{state.recipient.address.text}: {last.reason if last else 'never tried'}")
            if last is not None and last.reply is not None:
                lines.append(f"  {last.next_hop} said: {last.reply.text}")
        if content is None:
            lines.append("Its stored octets could not be read.")
        envelope: dict[str, object] = {
            "id": stored.id,
            "source": stored.facts.source,
            "client": stored.facts.client,
            "parent": stored.facts.parent,
            "sender": "",
            "recipients": [state.recipient.address.text for state in states],
            "accepted_at": stored.accepted_at,
        }
        name = f"{stored.id}-{'-'.join(str(state.index) for state in states[:8])}"
        loop = asyncio.get_running_loop()
        folder = self._badmail_of(stored.facts.server)
        try:
            await loop.run_in_executor(None, self._file, folder, name, content, lines, envelope)
        except OSError as error:
            raise SpoolFault(f"Badmail could not be written: {error}") from error

    def _file(
        self,
        folder: Path,
        name: str,
        content: Content | None,
        lines: list[str],
        envelope: dict[str, object],
    ) -> None:
        words = "\n".join(lines)
        if content is not None:
            try:
                file_badmail(folder, name, _read(content), words, envelope)
                return
            except ValueError as error:
                # What is left of it still gets there: nobody else will ever be told.
                words += f"\nIts body could not be read: {error}"
        octets = [] if content is None else [content.head]
        file_badmail(folder, name, octets, words, envelope)


def _as_addressed(state: RecipientState) -> tuple[Recipient, Outcome | None]:
    """A recipient and its outcome as its sender may see them: where an alias led is not told (RFC 3461 §5.2.7.4)."""
    outcome = state.last
    if not state.addressed:
        return state.recipient, outcome
    if outcome is not None:
        reply = outcome.reply
        if reply is not None:
            # Its text, and the host that spoke, may name who is behind the address.
            reply = Reply(reply.code, reply.enhanced, (b"(not shown)",))
        outcome = msgspec.structs.replace(
            outcome, reply=reply, next_hop="", reason="the address to which it leads did not take it"
        )
    return msgspec.structs.replace(state.recipient, address=Address(state.addressed)), outcome


def _redirected(
    recipients: tuple[RecipientState, ...], redirects: Sequence[tuple[int, str]]
) -> tuple[RecipientState, ...]:
    routes = dict(redirects)
    return tuple(
        [msgspec.structs.replace(one, redirect=routes.get(one.index, one.redirect)) for one in recipients]
    )


def _read(content: Content) -> Iterator[bytes]:
    """The octets; a body that cannot be read is a ValueError, so that a folder that cannot be written is not."""
    try:
        yield from content.chunks()
    except OSError as error:
        raise ValueError(str(error)) from error
