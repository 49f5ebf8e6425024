"""One sink, run on one message as the relay would run it, and what came of it.

The chain, the guard and the ledger are those of the relay. Rule: a failure says all that is known (what the sink
returned or raised, what was found, the octets that differ), so that nobody needs a second run to understand it.
"""

from __future__ import annotations

import asyncio
import difflib
import sys
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypedDict, Unpack, cast

import msgspec

from lonedot.diagnosis.octets import visible, visible_lines, visible_start
from lonedot.message.edits import AnyEdit, Edit, Effect, format_field
from lonedot.message.findings import Finding, Severity
from lonedot.message.header import HeaderView
from lonedot.message.intake import content_from
from lonedot.message.ledger import Entry
from lonedot.sinks.bindings import Binding, Isolation, OnDamage, OnError, Part, Role, Setting, SinkCall
from lonedot.sinks.calls import Answer, Decision, Dispatched, call_inline
from lonedot.sinks.dispatch import steps
from lonedot.sinks.events import EVENTS, Event, Shows, event_named
from lonedot.sinks.hop import Departure, Hop
from lonedot.sinks.load import bind
from lonedot.sinks.sink import AnySink, declared_by
from lonedot.sinks.verdicts import Hold, Next, Stop, Verdict
from lonedot.sinks.view import Message
from lonedot.spool.interface import Facts
from lonedot.terms.envelope import Envelope, Recipient
from lonedot.terms.ids import SessionId
from lonedot.terms.outcome import Outcome
from lonedot.testing.clock import ManualClock
from lonedot.testing.envelopes import make_envelope
from lonedot.testing.hops import usual_departure

__all__ = [
    "LETTER",
    "BindingOptions",
    "Ran",
    "bound",
    "make_message",
    "octets_of",
    "run_sink",
]

LETTER = """\
From: Sender <sender@example.com>
To: Recipient <recipient@example.org>
Subject: a letter
Date: Mon, 02 Nov 2026 10:00:00 +0000
Message-ID: <letter@example.com>

The first line.
The last line.
"""
REPORT = """\
From: Mail Delivery <postmaster@relay.example.com>
To: sender@example.com
Subject: Undelivered: a letter
Date: Mon, 02 Nov 2026 10:00:01 +0000
Message-ID: <report@relay.example.com>
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary="report"

--report
Content-Type: text/plain; charset=us-ascii

Your message did not reach recipient@example.org.

--report
Content-Type: message/delivery-status

Reporting-MTA: dns; relay.example.com

Final-Recipient: rfc822; recipient@example.org
Action: failed
Status: 5.1.1

--report
Content-Type: text/rfc822-headers

Subject: a letter

--report--
"""
"""A delivery report, as event `dsn` shows one."""
_ID = "0000000000000"
_SHOWN = 200
"""Octets of an edit that a story shows."""


class BindingOptions(TypedDict, total=False):
    """What a configuration may say of a binding, by the same names."""

    name: str
    priority: int
    rule: str
    effects: Iterable[Effect | str]
    role: Role | str
    on_damage: OnDamage | str
    on_error: OnError | str
    settings: Mapping[str, Setting]
    event: Event | str
    split: bool
    reads: Iterable[Part | str]


def octets_of(content: str | bytes) -> bytes:
    """A text as the octets of a message: UTF-8, every line ended by CRLF. Octets stay as they are."""
    if isinstance(content, bytes):
        return content
    return content.replace("\r\n", "\n").replace("\n", "\r\n").encode()


def make_message(
    content: str | bytes | None = None,
    *,
    recipients: str | Sequence[str] | None = None,
    sender: str | None = None,
    settings: Mapping[str, Setting] | None = None,
    client: str = "192.0.2.1",
    helo: str = "client.example.com",
    trusted: bool = True,
    event: Event | str | None = None,
    hop: Hop | None = None,
    recipient: str = "",
    outcomes: Sequence[tuple[Recipient, Outcome]] | None = None,
) -> Message:
    """A message as a sink is shown it. Lines of a text are ended by CRLF; octets are taken as they are.

    By itself a letter to one recipient; with `event="dsn"` a delivery report to its sender.

    With `event`, a delivery event, it shows what that event shows besides: `hop` (`make_hop`), `recipient` (of
    `per-recipient`; the first one, unless it is said), `outcomes` (`make_outcomes`; by themselves all delivered). For
    `run_sink` the event need not be said.

    Raises:
        ValueError: no such event; or `hop`, `recipient` or `outcomes` without one.
    """
    facts = Facts(
        "smtp", SessionId(_ID), client=client, helo=helo, protocol="ESMTP", trusted=trusted, revision="test"
    )
    chosen = event if isinstance(event, Event) or event is None else event_named(event)
    is_report = chosen is Event.DSN
    if content is None:
        content = REPORT if is_report else LETTER
    if recipients is None:
        recipients = "sender@example.com" if is_report else "recipient@example.org"
    if sender is None:
        sender = "" if is_report else "sender@example.com"
    envelope = make_envelope(recipients, sender)
    departure: Departure | None = None
    if chosen is not None:
        departure = usual_departure(chosen, envelope, hop, recipient, outcomes)
    elif hop is not None or recipient or outcomes is not None:
        raise ValueError("hop, recipient and outcomes are shown at delivery events: say event=… too")
    return Message(
        _ID, envelope, facts, content_from(octets_of(content)), dict(settings or {}), departure=departure
    )


def bound(sink: AnySink | Binding, **options: Unpack[BindingOptions]) -> Binding:
    """The sink as a binding with these options, as an entry `[[sink]]` makes one.

    Raises:
        ValueError: what the configuration would not take either. A binding takes no further options.
        TypeError: it is a class that was not declared to be a sink.
    """
    if isinstance(sink, Binding):
        if options:
            raise ValueError(f"it is bound already; it takes no {', '.join(options)} any more")
        binding = sink
    else:
        declared = declared_by(sink)
        binding = bind(sink, sink_class=f"test:{'' if declared is None else declared.name}", **options)
    if binding.isolation is not Isolation.TASK:
        return binding
    # In a thread, because the test may have a loop of its own; each call on a loop that ends with it.
    call = cast("Callable[[object], Coroutine[object, object, object]]", binding.call)
    close = binding.close

    async def whole(shown: object) -> object:
        try:
            async with asyncio.timeout(binding.deadline_seconds):
                return await call(shown)
        finally:
            if close is not None:
                await close()

    def in_thread(shown: object) -> Verdict:
        with ThreadPoolExecutor(1) as thread:
            return cast(Verdict, thread.submit(asyncio.run, whole(shown)).result())

    return msgspec.structs.replace(binding, call=cast(SinkCall, in_thread), isolation=Isolation.INLINE)


class Ran(msgspec.Struct, frozen=True):
    """What came of one sink and one message."""

    binding: Binding
    before: Message
    """As the sink saw it."""
    after: Message
    """As the next sink would see it."""
    was_called: bool
    """False when the rule does not match."""
    verdict: Verdict | None
    """What the sink returned; None when it raised, returned something else or was not called."""
    error: BaseException | None
    """What it raised."""
    decision: Decision
    """What becomes of the message."""
    words: str
    """Why, when it is not simply accepted."""
    entry: Entry | None
    """Its line of the ledger; None when it was not called."""

    @property
    def octets(self) -> bytes:
        """The whole message afterwards."""
        return self.after.octets()

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What the guard found."""
        return () if self.entry is None else self.entry.findings

    @property
    def edits(self) -> tuple[AnyEdit, ...]:
        """The edits that the sink returned, whatever became of them."""
        return tuple(self.verdict.edits) if isinstance(self.verdict, Next | Stop | Hold) else ()

    def assert_sound(self) -> None:
        """It was called, returned a verdict, changed what it declares, and damaged nothing."""
        __tracebackhide__ = True
        if not self.was_called:
            self._fail("it was not called")
        if self.error is not None or self.verdict is None:
            self._fail("it failed")
        if any(finding.severity is not Severity.NOTE for finding in self.findings):
            self._fail("what it did is not taken")

    def assert_added(self, name: str, value: str | None = None) -> None:
        """A field of that name is there that was not there before; with `value`, one that says this."""
        __tracebackhide__ = True
        self.assert_sound()
        new = list(self.after.headers.all(name))
        for old in self.before.headers.all(name):
            if old in new:
                new.remove(old)
        if not new:
            self._fail(f"it added no field {name}")
        if value is not None and _unfolded(name, value) not in new:
            said = ", ".join(repr(visible(one)) for one in new)
            self._fail(f"it added {name}: {said}, not {value!r}")

    def assert_untouched(self) -> None:
        """It was not called, or it returned a verdict without edits; not one octet differs."""
        __tracebackhide__ = True
        if self.was_called:
            self.assert_sound()
        if self.edits or self.octets != self.before.octets() or self.after.envelope != self.before.envelope:
            self._fail("it changed the message, or wanted to")

    def assert_edits(self, edits: Sequence[Edit]) -> None:
        """It returned exactly these edits, in this order, and they were taken."""
        __tracebackhide__ = True
        wanted, got = [_shown(edit) for edit in edits], [_shown(edit) for edit in self.edits]
        if wanted != got:
            lines = "\n".join(difflib.ndiff(wanted, got))
            self._fail(f"it returned other edits (- wanted, + returned):\n{lines or '(none)'}")
        self.assert_sound()

    def story(self) -> str:
        """All that is known, on a few lines for a person."""
        binding = self.binding
        if not self.was_called:
            return f"the rule {binding.rule} does not match this envelope: {_people(self.before.envelope)}"
        lines = []
        if self.error is not None:
            lines.append(f"raised    {type(self.error).__name__}: {self.error}")
        elif self.verdict is not None:
            words = getattr(self.verdict, "words", "")
            lines.append(f"returned  {type(self.verdict).__name__}{f': {words}' if words else ''}")
            lines += (f"          {_shown(edit, _SHOWN)}" for edit in self.edits)
        declared = ", ".join(sorted(effect.value for effect in binding.effects)) or "none"
        lines.append(f"declares  effects: {declared}; role: {binding.role.value}")
        assert self.entry is not None
        lines.append(f"became    {self.entry.action.value}, the message: {self.decision.value}")
        if self.words or self.entry.words:
            lines.append(f"because   {self.words or self.entry.words}")
        for finding in self.findings:
            octets = f": {visible(finding.octets)}" if finding.octets else ""
            lines.append(f"found     {finding.code.value} ({finding.severity.value}) {finding.words}{octets}")
        return "\n".join(lines + self._differences())

    def _differences(self) -> list[str]:
        lines = []
        if self.after.envelope != self.before.envelope:
            lines.append(f"envelope  - {_people(self.before.envelope)}")
            lines.append(f"          + {_people(self.after.envelope)}")
        before, after = self.before.octets(), self.octets
        if before != after:
            changed = difflib.unified_diff(
                visible_lines(before).splitlines(), visible_lines(after).splitlines(), lineterm="", n=1
            )
            lines += (f"octets    {line}" for line in list(changed)[2:])
        return lines

    def _fail(self, what: str) -> None:
        __tracebackhide__ = True
        raise AssertionError(f"sink {self.binding.name!r}: {what}\n{self.story()}") from self.error


def run_sink(
    sink: AnySink | Binding,
    message: Message | str | bytes | None = None,
    **options: Unpack[BindingOptions],
) -> Ran:
    """Run the sink on the message as the relay would: its rule, its declared effects, the guard, `on_error`.

    `options` are those of a `[[sink]]` entry. Without `settings` among them those of the message hold. What the sink
    raises does not come out here, as it does not in a relay: it is in `error`, and the assertions show it.

    Raises:
        ValueError: options that the configuration would not take; a sink that is shown no message; several recipients
            for a sink that is called for each.
    """
    if isinstance(message, Message) and not isinstance(sink, Binding) and "settings" not in options:
        options["settings"] = message.settings
    binding = bound(sink, **options)
    shows = EVENTS[binding.event].shows
    if shows is not Shows.MESSAGE:
        raise ValueError(
            f"sink {binding.name!r} is called at {binding.event.value!r} with a {shows.value}: use ask_sink()"
        )
    given = message if isinstance(message, Message) else make_message(message, event=binding.event)
    departure = given.departure or usual_departure(binding.event, given.envelope)
    content = content_from(given.octets())
    chain = steps(
        given.id, given.envelope, given.facts, content, [binding], ManualClock(), departure=departure
    )
    answer: Answer | None = None
    before = Message(
        given.id, given.envelope, given.facts, content, binding.settings, binding.guid, (), departure
    )
    try:
        call = next(chain)
        answer = call_inline(call)
        chain.send(answer)
    except StopIteration as end:
        dispatched: Dispatched = end.value
    else:
        chain.close()
        raise ValueError(
            f"sink {binding.name!r} is called for each recipient: give it a message for one of them"
        )
    entry = dispatched.entries[-1] if dispatched.entries else None
    returned = None if answer is None else answer.returned
    failed = entry is None or entry.verdict == "error"
    return Ran(
        binding=binding,
        before=before,
        after=Message(given.id, dispatched.envelope, given.facts, dispatched.content, binding.settings),
        was_called=answer is not None,
        verdict=returned if isinstance(returned, Verdict) and not failed else None,
        error=None if answer is None else answer.error,
        decision=dispatched.decision,
        words=dispatched.words,
        entry=entry,
    )


def _unfolded(name: str, value: str) -> bytes:
    """The value as it reads in a header once it was written there."""
    return HeaderView(format_field(name, value) + b"\r\n").get(name) or b""


def _shown(edit: object, limit: int = sys.maxsize) -> str:
    """An edit on one line, octets escaped; of its octets at most `limit`."""
    if not isinstance(edit, Edit):
        return repr(edit)
    parts = []
    for field, value in msgspec.structs.asdict(edit).items():
        parts.append(f"{field}={visible_start(value, limit) if isinstance(value, bytes) else repr(value)}")
    return f"{type(edit).__name__}({', '.join(parts)})"


def _people(envelope: Envelope) -> str:
    recipients = ", ".join(recipient.address.text for recipient in envelope.recipients) or "nobody"
    return f"{envelope.reverse_path.text} to {recipients}"
