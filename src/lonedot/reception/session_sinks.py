"""What the sinks of a session's events say, as replies. Called only where there are bindings."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Protocol

from lonedot.reception.acceptance import on_the_wire
from lonedot.sinks.bindings import Binding
from lonedot.sinks.calls import Decision
from lonedot.sinks.events import Event
from lonedot.sinks.protocol import (
    Command,
    Elsewhere,
    Judgement,
    Moment,
    Question,
    advance,
    ask,
    ask_with,
    questions,
)
from lonedot.terms.envelope import Envelope, Recipient
from lonedot.terms.ids import SessionId
from lonedot.terms.reply import Reply, reply

__all__ = ["INTERRUPTED", "Seen", "Started", "moment_of", "refusal_from", "start"]

Started = Judgement | Coroutine[None, None, Judgement]
INTERRUPTED = Judgement(Decision.DEFER)
"""The relay stops, and the sink was not asked to the end."""

REFUSED = reply(550, "5.7.1", "Refused")
NOT_CHECKED = reply(451, "4.3.0", "The command could not be checked; try again later")


class Seen(Protocol):
    """A session, as far as a sink may see it."""

    id: SessionId
    client: str
    helo: str
    tls: str
    trusted: bool
    heard: bytes
    """The line of the command that is being answered, without CRLF."""


def moment_of(
    event: Event,
    session: Seen,
    listener: str,
    envelope: Envelope | None = None,
    recipient: Recipient | None = None,
) -> Moment:
    """What there is to show of a session at an event."""
    return Moment(
        event=event,
        id=session.id,
        client=session.client,
        listener=listener,
        trusted=session.trusted,
        tls=session.tls,
        helo=session.helo,
        command=None if event is Event.CONNECT else _command(session.heard),
        envelope=envelope,
        recipient=recipient,
    )


def start(moment: Moment, bindings: Sequence[Binding], elsewhere: Elsewhere | None) -> Started:
    """Ask the sinks of an event: the judgement when all run here, else what goes on asking."""
    if elsewhere is None:
        return ask(moment, bindings)
    chain = questions(moment, bindings)
    step = advance(chain)
    return ask_with(chain, step, elsewhere) if isinstance(step, Question) else step


def refusal_from(judgement: Judgement, event: Event, note: Callable[[str, str], object]) -> Reply | None:
    """The reply that refuses, or None when all let it pass.

    `note` is told `sink.refused` and `sink.failed`, each with the name of the binding and why.
    """
    for said in judgement.notes:
        what = "sink.failed" if said.is_fault else "sink.refused"
        note(what, f"{said.binding} at {event.value}: {said.words}")
    if judgement.decision is Decision.ACCEPT:
        return None
    return _fitting(_reply(judgement), event)


def _fitting(answer: Reply, event: Event) -> Reply:
    if event is Event.CONNECT:
        # RFC 5321 §4.3.2: no other code may stand in place of the greeting.
        return Reply(554 if answer.is_permanent else 421, answer.enhanced, answer.lines)
    return answer


def _reply(judgement: Judgement) -> Reply:
    usual = REFUSED if judgement.decision is Decision.REJECT else NOT_CHECKED
    if not judgement.code:
        return usual
    told = on_the_wire(judgement.words)
    if not told:
        told = b"Refused" if judgement.decision is Decision.REJECT else b"Try again later"
    return Reply(judgement.code, judgement.enhanced, (told,))


def _command(line: bytes) -> Command:
    verb, _, argument = line.partition(b" ")
    return Command(verb.upper(), argument.strip(b" \t"))
