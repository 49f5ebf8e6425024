"""A shell without a network: feeds a server machine, answers its events, keeps what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from lonedot.protocol.events import (
    AuthRequested,
    ChunkRefused,
    Closed,
    CommandHeard,
    ContentBegun,
    ContentChunk,
    ContentEnded,
    ContentMode,
    Event,
    MailGiven,
    QuitGiven,
    RcptGiven,
    ResetGiven,
    TlsRequested,
    VerifyGiven,
)
from lonedot.protocol.server import ServerMachine, ServerOptions
from lonedot.terms.envelope import Recipient
from lonedot.terms.reply import Reply, reply

__all__ = ["DECISIONS", "OPTIONS", "Driver", "Message", "accept"]

OPTIONS = ServerOptions(b"mx.example.org")
DECISIONS = (MailGiven, RcptGiven, ContentBegun, ContentEnded, AuthRequested, VerifyGiven, CommandHeard)

OK = reply(250, "2.0.0", "OK")
GO_AHEAD = reply(354, "", "Go ahead")
NEUTRAL = reply(252, "2.1.5", "Send some mail, I will try")
LOGGED_IN = reply(235, "2.7.0", "Welcome")
TOO_LARGE = reply(552, "5.3.4", "Too large")


def accept(event: Event) -> Reply:
    """Says yes to everything but a message over the limit."""
    if isinstance(event, ContentBegun):
        return GO_AHEAD if event.mode is ContentMode.DATA else OK
    if isinstance(event, AuthRequested):
        return LOGGED_IN
    if isinstance(event, VerifyGiven):
        return NEUTRAL
    if isinstance(event, ContentEnded) and event.over_limit:
        return TOO_LARGE
    return OK


class Message(msgspec.Struct):
    """A message that the driver accepted."""

    mail: MailGiven
    recipients: list[Recipient]
    content: bytes


class Driver:
    """`decide` says what to answer; None: a command that was asked about is obeyed. `events` has runs of chunks joined,
    so that two runs can be compared however the octets were cut."""

    def __init__(
        self, options: ServerOptions = OPTIONS, decide: Callable[[Event], Reply | None] = accept
    ) -> None:
        self.heard: list[bytes] = []
        self.machine = ServerMachine(options, self.heard.append)
        self.decide = decide
        self.events: list[Event] = []
        self.output = b""
        self.messages: list[Message] = []
        self.refused_messages = 0
        self.is_closed = False
        self.wants_tls = False
        self._mail: MailGiven | None = None
        self._recipients: list[Recipient] = []
        self._content: list[bytes] = []

    @property
    def content(self) -> bytes:
        """Content handed out so far for the message under way."""
        return b"".join(self._content)

    def feed(self, octets: bytes) -> bytes:
        """Feeds, answers every event at once, and returns what was written."""
        self.machine.feed(octets)
        return self.run()

    def feed_pieces(self, pieces: Iterable[bytes]) -> bytes:
        return b"".join(self.feed(piece) for piece in pieces)

    def run(self) -> bytes:
        while (event := self.machine.next_event()) is not None:
            assert not self.is_closed, f"{event} after the end of the session"
            self._note(event)
            if isinstance(event, DECISIONS):
                answer = self.decide(event)
                if answer is None:
                    self.machine.obey()
                else:
                    self.machine.respond(answer)
                    self._keep(event, answer)
        octets = self.machine.take_output()
        self.output += octets
        return octets

    def start_tls(self) -> bytes:
        assert self.wants_tls
        self.wants_tls = False
        self._forget()
        self.machine.tls_started()
        return self.run()

    def _note(self, event: Event) -> None:
        last = self.events[-1] if self.events else None
        if isinstance(event, ContentChunk):
            assert event.octets
            self._content.append(event.octets)
            if isinstance(last, ContentChunk):
                self.events[-1] = ContentChunk(last.octets + event.octets)
                return
        self.events.append(event)
        if isinstance(event, Closed | QuitGiven):
            self.is_closed = True
        elif isinstance(event, TlsRequested):
            self.wants_tls = True
        elif isinstance(event, ResetGiven | ChunkRefused):
            self._forget()

    def _keep(self, event: Event, answer: Reply) -> None:
        if isinstance(event, ContentEnded):
            content = self.content
            if answer.is_positive and self._mail is not None:
                self.messages.append(Message(self._mail, self._recipients, content))
            else:
                self.refused_messages += 1
            self._forget()
        elif not answer.is_positive:
            return
        elif isinstance(event, MailGiven):
            self._mail = event
        elif isinstance(event, RcptGiven):
            self._recipients.append(event.recipient)

    def _forget(self) -> None:
        self._mail = None
        self._recipients = []
        self._content = []
