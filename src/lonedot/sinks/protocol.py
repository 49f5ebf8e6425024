"""The events in a session before there is a message: who is asked, what they are shown, what their word is worth.

Rules a change here must keep:
1. The first refusal and the first `Accept` is the answer; nobody is asked behind it.
2. A sink may say only what the table of events lets it, and only what a client can be told there: anything else is a
   fault of the sink, and `on_error` decides. Where there is no message nothing can be held: `on_error = "hold"` defers.
3. What went wrong inside a sink is for us; the client hears that its command could not be checked.
4. A password is in `Credentials` and nowhere else: not in a repr, and not in the words that are kept of a sink.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from typing import cast

import msgspec

from lonedot.protocol.commands import COMMANDS
from lonedot.protocol.grammar import is_ehlo_line
from lonedot.protocol.options import DEFAULT_KEYWORDS
from lonedot.sinks.bindings import Binding, Isolation, OnError, Setting
from lonedot.sinks.calls import Answer, Call, Decision, Failure, answer_of, check_reply, words_kept
from lonedot.sinks.events import EVENTS, Event, Says
from lonedot.sinks.standing import Fault
from lonedot.sinks.verdicts import READ_LIMIT, Accept, Defer, Next, Reject, Stop, Verdict, says_of
from lonedot.terms.address import NULL_REVERSE_PATH
from lonedot.terms.envelope import Envelope, Recipient

__all__ = [
    "KEYWORDS_LIMIT",
    "Command",
    "Credentials",
    "Elsewhere",
    "Judgement",
    "Moment",
    "Note",
    "ProtocolCall",
    "Question",
    "Questions",
    "Session",
    "advance",
    "ask",
    "ask_with",
    "call_of",
    "questions",
    "without_secret",
]

KEYWORDS_LIMIT = 32
"""Lines that one sink may add to the reply to EHLO."""
HIDDEN = "***"


class Command(msgspec.Struct, frozen=True):
    """What the client said."""

    verb: bytes
    """In upper case."""
    argument: bytes
    """As it came, without the spaces around it."""


class Credentials(msgspec.Struct, frozen=True):
    """What a client wants to log in with."""

    mechanism: str
    """`PLAIN` or `LOGIN`."""
    identity: bytes
    """The name, as it came."""
    password: bytes

    def __repr__(self) -> str:
        return f"Credentials(mechanism={self.mechanism!r}, identity={self.identity!r}, password={HIDDEN})"


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """A session at one event: what there is to show of it."""

    event: Event
    id: str
    """The session's, as logs and transcripts have it."""
    client: str
    """The client's address."""
    listener: str
    trusted: bool
    tls: str = ""
    """`TLSv1.3 TLS_AES_256_GCM_SHA384`, or empty."""
    helo: str = ""
    """What the client called itself; empty before EHLO."""
    command: Command | None = None
    envelope: Envelope | None = None
    recipient: Recipient | None = None
    credentials: Credentials | None = None
    login: str = ""
    """Who has logged in; empty when nobody has."""


class Session:
    """What a sink is shown of a session. Read-only; what an event does not show raises `LookupError`."""

    __slots__ = ("client", "event", "helo", "id", "listener", "login", "moment", "settings", "tls", "trusted")

    def __init__(self, moment: Moment, settings: Mapping[str, Setting]) -> None:
        self.moment = moment
        """All of it as one value; for the relay's own use."""
        self.event = moment.event
        self.id = moment.id
        """The session's, as logs and transcripts have it."""
        self.client = moment.client
        """The client's address."""
        self.helo = moment.helo
        """What the client called itself; empty before EHLO."""
        self.listener = moment.listener
        """Name of the listener."""
        self.login = moment.login
        """Who has logged in; empty when nobody has."""
        self.trusted = moment.trusted
        """It may relay."""
        self.tls = moment.tls
        """`TLSv1.3 TLS_AES_256_GCM_SHA384`, or empty."""
        self.settings = settings
        """The binding's settings."""

    @property
    def command(self) -> Command:
        """The command that is being answered. Not at `connect`."""
        if self.moment.command is None:
            raise self._unknown("command")
        return self.moment.command

    @property
    def envelope(self) -> Envelope:
        """At `mail` with the reverse-path alone, at `rcpt` with the recipients taken before, at `data` with all."""
        if self.moment.envelope is None:
            raise self._unknown("envelope")
        return self.moment.envelope

    @property
    def recipient(self) -> Recipient:
        """The recipient that is being decided. Only at `rcpt`."""
        if self.moment.recipient is None:
            raise self._unknown("recipient")
        return self.moment.recipient

    @property
    def credentials(self) -> Credentials:
        """What the client wants to log in with. Only at `auth`."""
        if self.moment.credentials is None:
            raise self._unknown("credentials")
        return self.moment.credentials

    def _unknown(self, what: str) -> LookupError:
        return LookupError(f"event {self.event.value!r} shows no {what}")


ProtocolCall = Callable[[Session], Verdict]


class Note(msgspec.Struct, frozen=True):
    """What to book against a binding."""

    binding: str
    guid: str
    words: str
    fault: Fault | None = None
    """How the sink failed; None: it refused."""


class Judgement(msgspec.Struct, frozen=True):
    """What the chain says: ACCEPT, REJECT or DEFER."""

    decision: Decision = Decision.ACCEPT
    words: str = ""
    """For the client; empty when a sink failed or had none."""
    code: int = 0
    """0: the usual one."""
    enhanced: str = ""
    notes: tuple[Note, ...] = ()
    is_answer: bool = False
    """With ACCEPT: a sink answers the command with success; else nobody minds, and the relay says what it would."""
    keywords: tuple[str, ...] = ()
    """Lines that are added to the reply to EHLO."""
    read: int = 0
    """With `is_answer`: octets behind the command that are read and dropped before the answer."""


class Question(msgspec.Struct, frozen=True):
    """A sink that is to be asked, and what it is to be shown."""

    binding: Binding
    session: Session


Questions = Generator[Question, Answer, Judgement]
Elsewhere = Callable[[Call | Question], Awaitable[Answer]]
"""Calls a sink that does not run here, with a message or in a session. It raises only when it is cancelled."""

_ACCEPTED = Judgement()
_NOBODY = Envelope(NULL_REVERSE_PATH, ())
_SILENCE = Command(b"", b"")


def questions(moment: Moment, bindings: Sequence[Binding]) -> Questions:
    """The chain without the calls: yields each question that is due and is sent its answer.

    `bindings` are those of the moment's event.
    """
    notes: list[Note] = []
    envelope = moment.envelope
    command = moment.command or _SILENCE
    if moment.recipient is not None and envelope is not None:
        # A rule is asked of the recipient that is being decided, not of those before it.
        envelope = msgspec.structs.replace(envelope, recipients=(moment.recipient,))
    for binding in bindings:
        rule = binding.rule
        # `check_fit` has seen to it that a rule asks only of what is known at this event.
        if rule is not None and not rule.matches(
            envelope or _NOBODY, moment.helo, command.verb, command.argument
        ):
            continue
        answer = yield Question(binding, Session(moment, binding.settings))
        judged = _judge(binding, answer, moment)
        notes += judged.notes
        if judged.decision is not Decision.ACCEPT or judged.is_answer:
            return msgspec.structs.replace(judged, notes=tuple(notes))
        if isinstance(answer.returned, Stop) and not judged.notes:
            break
    return Judgement(notes=tuple(notes)) if notes else _ACCEPTED


def advance(chain: Questions, answer: Answer | None = None) -> Question | Judgement:
    """Go on until the chain has ended or a sink is due that does not run here. The first step has no answer."""
    try:
        question = next(chain) if answer is None else chain.send(answer)
        while question.binding.isolation is Isolation.INLINE:
            question = chain.send(answer_of(call_of(question.binding), question.session))
    except StopIteration as end:
        judgement: Judgement = end.value
        return judgement
    return question


async def ask_with(chain: Questions, question: Question, elsewhere: Elsewhere) -> Judgement:
    """Drive the chain to its end, on from `question`; `elsewhere` calls the sinks that do not run here."""
    step: Question | Judgement = question
    while isinstance(step, Question):
        step = advance(chain, await elsewhere(step))
    return step


def ask(moment: Moment, bindings: Sequence[Binding]) -> Judgement:
    """Ask with every sink called right here. One that does not run here fails."""
    chain = questions(moment, bindings)
    step = advance(chain)
    while isinstance(step, Question):
        step = advance(chain, Answer(error=Failure("it runs in a process, and there is none")))
    return step


def call_of(binding: Binding) -> ProtocolCall:
    """What is called: a binding of an event that shows no message holds a function of a `Session`."""
    return cast(ProtocolCall, binding.call)


def _judge(binding: Binding, answer: Answer, moment: Moment) -> Judgement:
    """What an answer is worth by itself."""
    error = answer.error
    if error is None:
        try:
            return _weigh(binding, answer.returned, moment)
        except KeyboardInterrupt:
            raise
        except BaseException as raised:  # what a sink returns may be of any make
            return _failed(binding, raised, Fault.NONSENSE, moment)
    fault = error.fault if isinstance(error, Failure) else None
    return _failed(binding, error, fault or Fault.RAISED, moment)


def _weigh(binding: Binding, returned: object, moment: Moment) -> Judgement:
    """Raises TypeError or ValueError when this event does not let a sink say so, or a client could not be told."""
    event = moment.event
    allowed = EVENTS[event].says
    if says_of(returned) not in allowed:
        names = ", ".join(said.value.capitalize() for said in Says if said in allowed)
        raise TypeError(
            f"returned {type(returned).__name__}; at event {event.value!r} a sink returns {names}"
        )
    match returned:
        case Reject(words) | Defer(words) | Accept(words) if not isinstance(words, str):
            raise TypeError(f"its words are {type(words).__name__}, not text")
        case Reject(words, code, enhanced):
            check_reply(code, enhanced, 5)
            return _refusal(binding, Decision.REJECT, words, code, enhanced, moment)
        case Defer(words, code, enhanced):
            check_reply(code, enhanced, 4)
            return _refusal(binding, Decision.DEFER, words, code, enhanced, moment)
        case Accept(words, code, enhanced, keywords, read):
            _check_acceptance(returned, moment)
            kept = _kept(words, moment)
            return Judgement(
                code=code,
                words=kept,
                enhanced=enhanced,
                is_answer=True,
                keywords=tuple(keywords),
                read=read,
            )
        case Next(edits) | Stop(edits) if not tuple(edits):
            return _ACCEPTED
        case _:
            raise ValueError(f"returned edits at event {event.value!r}, where there is no message yet")


_USUAL = {Event.CONNECT: 220, Event.HELO: 250, Event.AUTH: 235, Event.MAIL: 250, Event.RCPT: 250}
"""Reply codes of commands that are the relay's own: no other means success there (RFC 5321 §4.3.2, RFC 4954 §6)."""
_RELAYS_OWN = frozenset(COMMANDS) | {b"LHLO", b"STARTTLS", b"AUTH", b"BDAT", b"XCLIENT"}
"""Verbs that the relay obeys itself: nothing but lines belongs to them."""
_WITHOUT_ENHANCED = (Event.CONNECT, Event.HELO)  # RFC 2034 §3


def _check_acceptance(given: Accept, moment: Moment) -> None:
    """Raises ValueError when a client could not be told this, or would be told a lie."""
    event = moment.event
    usual = _USUAL.get(event)
    if usual is not None and given.code not in (0, usual):
        raise ValueError(f"reply code {given.code!r} at event {event.value!r}: success is {usual} there")
    if given.code or given.enhanced:
        check_reply(given.code or 250, given.enhanced or "2.0.0", 2)
    if given.enhanced and event in _WITHOUT_ENHANCED:
        raise ValueError(f"an enhanced status code at event {event.value!r}, where there is none")
    if given.read:
        verb = b"" if moment.command is None else moment.command.verb
        if event is not Event.VERB or verb in _RELAYS_OWN:
            raise ValueError(
                f"octets to read at event {event.value!r}: only behind a verb that is not the relay's own"
            )
        if not 0 < given.read <= READ_LIMIT:
            raise ValueError(f"{given.read} octets to read; at most {READ_LIMIT}")
    keywords = tuple(given.keywords)
    if keywords and event is not Event.HELO:
        raise ValueError(f"keywords at event {event.value!r}; only the reply to EHLO has them")
    if len(keywords) > KEYWORDS_LIMIT:
        raise ValueError(f"{len(keywords)} keywords; at most {KEYWORDS_LIMIT}")
    seen = set(DEFAULT_KEYWORDS)
    for line in keywords:
        octets = line.encode("utf-8", "backslashreplace")
        if not is_ehlo_line(octets):
            raise ValueError(f"{line[:80]!r} is not a line of the reply to EHLO: a keyword, then parameters")
        keyword = octets.partition(b" ")[0].upper()
        if keyword in seen:
            ours = "the relay's own" if keyword in DEFAULT_KEYWORDS else "there twice"
            raise ValueError(f"keyword {keyword.decode()!r} is {ours}")
        seen.add(keyword)


def _refusal(
    binding: Binding, decision: Decision, words: str, code: int, enhanced: str, moment: Moment
) -> Judgement:
    kept = _kept(words, moment)
    return Judgement(decision, kept, code, enhanced, (Note(binding.name, binding.guid, kept),))


def _failed(binding: Binding, error: BaseException, fault: Fault, moment: Moment) -> Judgement:
    """The sink raised, or said what it may not: the binding's `on_error`."""
    try:
        said = str(error)
    except Exception:
        said = "(it cannot be shown)"
    if not isinstance(error, Failure):
        said = f"{type(error).__name__}: {said}"
    notes = (Note(binding.name, binding.guid, _kept(said, moment), fault),)
    match binding.on_error:
        case OnError.SKIP:
            return Judgement(notes=notes)
        case OnError.REJECT:
            return Judgement(Decision.REJECT, notes=notes)
        case OnError.DEFER | OnError.HOLD:
            return Judgement(Decision.DEFER, notes=notes)


def _kept(words: str, moment: Moment) -> str:
    return words_kept(without_secret(words, moment))


def without_secret(text: str, moment: Moment) -> str:
    """`text` without the password that the sink was shown, in any of the ways that text may hold it."""
    shown = moment.credentials
    if shown is None or not shown.password:
        return text
    for form in (shown.password.decode("utf-8", "backslashreplace"), repr(shown.password)[2:-1]):
        text = text.replace(form, HIDDEN)
    return text
