"""One sink of a session, with a client or with a next hop, asked as the relay would ask it, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Unpack

import msgspec

from lonedot.sinks.bindings import Binding, Isolation, Setting
from lonedot.sinks.calls import Decision
from lonedot.sinks.events import EVENTS, Event, Reads, Shows, event_named
from lonedot.sinks.hop import Hop
from lonedot.sinks.inquiry import HopJudgement, advance_hop, inquire
from lonedot.sinks.protocol import Command, Credentials, Judgement, Moment, Session, ask
from lonedot.sinks.sink import AnySink
from lonedot.sinks.verdicts import Verdict
from lonedot.sinks.view import Message
from lonedot.terms.address import Address
from lonedot.terms.envelope import Recipient
from lonedot.testing.envelopes import make_envelope
from lonedot.testing.sinks import BindingOptions, bound

__all__ = ["Asked", "ask_sink", "make_session"]

_ID = "0000000000000"


def make_session(
    event: Event | str = Event.RCPT,
    *,
    client: str = "192.0.2.1",
    helo: str = "client.example.com",
    sender: str = "sender@example.com",
    recipient: str = "recipient@example.org",
    before: Sequence[str] = (),
    command: tuple[str, str] | None = None,
    trusted: bool = False,
    tls: str = "",
    login: tuple[str, str] = ("anna", "secret"),
    settings: Mapping[str, Setting] | None = None,
) -> Session:
    """A session as a sink is shown it at that event, and no more of it than the event shows.

    `before` are recipients that were taken before `recipient`; `command` is verb and argument, when they matter;
    `login` is the name and the password that `auth` shows.

    Raises:
        ValueError: no such event, or one that shows a message (`make_message`) or a hop (`make_hop`).
    """
    chosen = event if isinstance(event, Event) else event_named(event)
    shows = EVENTS[chosen].shows
    if shows is not Shows.SESSION:
        raise ValueError(f"event {chosen.value!r} shows a {shows.value}: use make_{shows.value.lower()}()")
    reads = EVENTS[chosen].reads
    usual = {
        Event.HELO: ("EHLO", helo),
        Event.AUTH: ("AUTH", "PLAIN"),
        Event.VERB: ("NOOP", ""),
        Event.MAIL: ("MAIL", f"FROM:<{sender}>"),
        Event.RCPT: ("RCPT", f"TO:<{recipient}>"),
        Event.DATA: ("DATA", ""),
    }
    verb, argument = command or usual.get(chosen, ("", ""))
    known = {Event.RCPT: before, Event.DATA: (*before, recipient)}.get(chosen, ())
    moment = Moment(
        event=chosen,
        id=_ID,
        client=client,
        listener="in",
        trusted=trusted,
        tls=tls,
        helo="" if chosen is Event.CONNECT else helo,
        command=Command(verb.upper().encode(), argument.encode()) if Reads.COMMAND in reads else None,
        envelope=make_envelope(known, sender) if Reads.ENVELOPE in reads else None,
        recipient=Recipient(Address(recipient.encode())) if chosen is Event.RCPT else None,
        credentials=Credentials("PLAIN", login[0].encode(), login[1].encode())
        if Reads.CREDENTIALS in reads
        else None,
    )
    return Session(moment, dict(settings or {}))


class Asked(msgspec.Struct, frozen=True):
    """What came of one sink and one session."""

    binding: Binding
    was_called: bool
    """False when the rule does not match."""
    verdict: Verdict | None
    """What the sink returned; None when it raised, returned what the event does not allow, or was not called."""
    error: BaseException | None
    """What it raised."""
    decision: Decision
    """ACCEPT, REJECT or DEFER."""
    words: str
    """For the client, or of the outcome; with a sink that failed what went wrong."""
    code: int
    """Reply code; 0: the usual one."""
    enhanced: str
    """Enhanced status code; empty: the usual one."""

    def assert_sound(self) -> None:
        """It was called, and returned what it may return at this event."""
        __tracebackhide__ = True
        if not self.was_called:
            self._fail("it was not called")
        if self.verdict is None:
            self._fail("it failed")

    def assert_passed(self) -> None:
        """It was not called, or lets the client, the command or the attempt go on."""
        __tracebackhide__ = True
        if self.was_called:
            self.assert_sound()
        if self.decision is not Decision.ACCEPT:
            self._fail("it refused")

    def assert_refused(self, words: str | None = None) -> None:
        """It refused, for good or for now; with `words`, in these."""
        __tracebackhide__ = True
        self.assert_sound()
        if self.decision is Decision.ACCEPT:
            self._fail("it did not refuse")
        if words is not None and self.words != words:
            self._fail(f"it refused with {self.words!r}, not {words!r}")

    def story(self) -> str:
        """All that is known, on a few lines for a person."""
        if not self.was_called:
            return f"the rule {self.binding.rule} does not match"
        lines = []
        if self.error is not None:
            lines.append(f"raised    {type(self.error).__name__}: {self.error}")
        elif self.verdict is not None:
            lines.append(f"returned  {type(self.verdict).__name__}")
        lines.append(f"decided   {self.decision.value}")
        if self.words:
            lines.append(f"because   {self.words}")
        return "\n".join(lines)

    def _fail(self, what: str) -> None:
        __tracebackhide__ = True
        raise AssertionError(f"sink {self.binding.name!r}: {what}\n{self.story()}") from self.error


def ask_sink(sink: AnySink | Binding, shown: Session | Hop, **options: Unpack[BindingOptions]) -> Asked:
    """Ask the sink of this session (`make_session`) or next hop (`make_hop`) as the relay would.

    Its rule, what the event lets it say, and `on_error` hold as they do there. `options` are those of a `[[sink]]`
    entry. What the sink raises does not come out here: it is in `error`, and the assertions show it.

    Raises:
        ValueError: options that the configuration would not take; a sink that is shown something else.
    """
    if not isinstance(sink, Binding) and "settings" not in options:
        options["settings"] = shown.settings
    binding = bound(sink, **options)
    shows = EVENTS[binding.event].shows
    given = Shows.SESSION if isinstance(shown, Session) else Shows.HOP
    if shows is not given:
        raise ValueError(
            f"sink {binding.name!r} is called at {binding.event.value!r} with a {shows.value}, not a {given.value}"
        )
    if shown.event is not binding.event:
        raise ValueError(
            f"sink {binding.name!r} is called at {binding.event.value!r}; this shows {shown.event.value!r}"
        )
    heard = _Heard(binding)
    asked = msgspec.structs.replace(binding, call=heard, isolation=Isolation.INLINE)
    if isinstance(shown, Session):
        judged: Judgement | HopJudgement = ask(shown.moment, [asked])
    else:
        step = advance_hop(inquire(shown, [asked]))
        assert isinstance(step, HopJudgement)  # its one sink runs here
        judged = step
    faults = [note.words for note in judged.notes if note.fault is not None]
    returned = heard.returned
    return Asked(
        binding=binding,
        was_called=heard.was_called,
        verdict=returned if isinstance(returned, Verdict) and not faults else None,
        error=heard.error,
        decision=judged.decision,
        words=judged.words or "; ".join(faults),
        code=judged.code if isinstance(judged, Judgement) else 0,
        enhanced=judged.enhanced,
    )


class _Heard:
    """Calls a sink, and keeps what it said."""

    def __init__(self, binding: Binding) -> None:
        self._binding = binding
        self.was_called = False
        self.returned: object = None
        self.error: BaseException | None = None

    def __call__(self, shown: Message) -> Verdict:
        self.was_called = True
        try:
            verdict = self._binding.call(shown)
        except Exception as error:
            self.error = error
            raise
        self.returned = verdict
        return verdict
