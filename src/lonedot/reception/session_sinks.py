"""What the sinks of a session's events say, as replies. Called only where there are bindings."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Protocol

import msgspec

from lonedot.reception.acceptance import on_the_wire
from lonedot.sinks.bindings import Binding
from lonedot.sinks.calls import Decision
from lonedot.sinks.events import Event
from lonedot.sinks.protocol import (
    Command,
    Credentials,
    Elsewhere,
    Judgement,
    Moment,
    Note,
    Question,
    advance,
    ask,
    ask_with,
    questions,
)
from lonedot.terms.envelope import Envelope, Recipient
from lonedot.terms.ids import SessionId
from lonedot.terms.reply import Reply, reply

__all__ = [
    "INTERRUPTED",
    "UNSAID",
    "Noted",
    "Seen",
    "Started",
    "Word",
    "answer_of",
    "moment_of",
    "start",
    "success",
    "word_from",
]

Started = Judgement | Coroutine[None, None, Judgement]
INTERRUPTED = Judgement(Decision.DEFER)
"""The relay stops, and the sink was not asked to the end."""

REFUSED = reply(550, "5.7.1", "Refused")
NOT_LOGGED_IN = reply(535, "5.7.8", "Name or password refused")
NOT_CHECKED = reply(451, "4.3.0", "The command could not be checked; try again later")
LOGIN_NOT_CHECKED = reply(454, "4.7.0", "The login could not be checked; try again later")  # RFC 4954 §4
BANNER_LIMIT = 200
"""Octets of a sink's words that stand behind our name in one line of a reply."""

_SUCCESS = {
    Event.CONNECT: reply(220, "", "ESMTP"),
    Event.HELO: reply(250, ""),
    Event.AUTH: reply(235, "2.7.0", "Logged in"),
    Event.MAIL: reply(250, "2.1.0", "Ok"),
    Event.RCPT: reply(250, "2.1.5", "Ok"),
    Event.VERB: reply(250, "2.0.0", "Ok"),
}
"""What a sink that accepts says when it has no words of its own."""


class Word(msgspec.Struct, frozen=True):
    """What the sinks of an event say to a command; nothing: the relay does as it would without them."""

    refusal: Reply | None = None
    acceptance: Reply | None = None
    """Said in place of the relay's own answer; at `helo` with a line for each keyword behind the words."""
    read: int = 0
    """With an acceptance: octets behind the command that are read and dropped before it is said."""


UNSAID = Word()


class Noted(Protocol):
    """Takes what is to be logged; `note` says which sink it is about."""

    def __call__(self, what: str, words: str, note: Note, /) -> object: ...


class Seen(Protocol):
    """A session, as far as a sink may see it."""

    id: SessionId
    client: str
    helo: str
    tls: str
    trusted: bool
    login: str
    heard: bytes
    """The line of the command that is being answered, without CRLF."""


def moment_of(
    event: Event,
    session: Seen,
    listener: str,
    envelope: Envelope | None = None,
    recipient: Recipient | None = None,
    command: Command | None = None,
    credentials: Credentials | None = None,
) -> Moment:
    """What there is to show of a session at an event. `command`: where it is not the line that was heard last."""
    if command is None and event is not Event.CONNECT:
        command = _command(session.heard)
    return Moment(
        event=event,
        id=session.id,
        client=session.client,
        listener=listener,
        trusted=session.trusted,
        tls=session.tls,
        # At `helo` the session is not yet greeted by that name.
        helo=session.helo if event is not Event.HELO or command is None else _text(command.argument),
        command=command,
        envelope=envelope,
        recipient=recipient,
        credentials=credentials,
        login=session.login,
    )


def success(event: Event) -> Reply:
    """The usual answer to a command that is taken."""
    return _SUCCESS[event]


def start(moment: Moment, bindings: Sequence[Binding], elsewhere: Elsewhere | None) -> Started:
    """Ask the sinks of an event: the judgement when all run here, else what goes on asking."""
    if elsewhere is None:
        return ask(moment, bindings)
    chain = questions(moment, bindings)
    step = advance(chain)
    return ask_with(chain, step, elsewhere) if isinstance(step, Question) else step


def word_from(judgement: Judgement, event: Event, note: Noted) -> Word:
    """The reply that refuses or accepts, or neither.

    `note` is told `sink.refused` and `sink.failed`, each with the name of the binding and why.
    """
    for said in judgement.notes:
        what = "sink.refused" if said.fault is None else "sink.failed"
        note(what, f"{said.binding} at {event.value}: {said.words}", said)
    if judgement.decision is not Decision.ACCEPT:
        return Word(refusal=_fitting(_refusal(judgement, event), event))
    if judgement.is_answer:
        return Word(acceptance=_acceptance(judgement, event), read=judgement.read)
    return UNSAID


def answer_of(verb: bytes, word: Word) -> Reply | None:
    """The answer to a command in place of the relay's own; None: the relay obeys it as usual."""
    if word.refusal is not None:
        return word.refusal
    answer = word.acceptance
    if answer is None or verb == b"STARTTLS":
        return None  # nobody but the relay can begin TLS: who accepts STARTTLS lets it
    return Reply(answer.code, "", answer.lines[:1]) if verb == b"HELO" else answer  # HELO has no keywords


def _acceptance(judgement: Judgement, event: Event) -> Reply:
    usual = _SUCCESS[event]
    told = on_the_wire(judgement.words) or usual.lines[0]
    if event is Event.CONNECT or event is Event.HELO:
        told = told[:BANNER_LIMIT]
    lines = (told, *(keyword.encode() for keyword in judgement.keywords))
    return Reply(judgement.code or usual.code, judgement.enhanced or usual.enhanced, lines)


def _fitting(answer: Reply, event: Event) -> Reply:
    if event is Event.CONNECT:
        # RFC 5321 §4.3.2: no other code may stand in place of the greeting.
        return Reply(554 if answer.is_permanent else 421, answer.enhanced, answer.lines)
    return answer


def _refusal(judgement: Judgement, event: Event) -> Reply:
    is_permanent = judgement.decision is Decision.REJECT
    if event is Event.AUTH:
        usual = NOT_LOGGED_IN if is_permanent else LOGIN_NOT_CHECKED
        if (judgement.code, judgement.enhanced) in _UNCHOSEN:
            judgement = msgspec.structs.replace(judgement, code=usual.code, enhanced=usual.enhanced)
    else:
        usual = REFUSED if is_permanent else NOT_CHECKED
    if not judgement.code:
        return usual
    told = on_the_wire(judgement.words)
    if not told:
        told = b"Refused" if is_permanent else b"Try again later"
    return Reply(judgement.code, judgement.enhanced, (told,))


_UNCHOSEN = ((550, "5.7.1"), (451, "4.7.1"))
"""The codes of `Reject` and `Defer` when the sink gives none: at `auth` others are usual (RFC 4954 §6)."""


def _command(line: bytes) -> Command:
    verb, _, argument = line.partition(b" ")
    return Command(verb.upper(), argument.strip(b" \t"))


def _text(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")
