"""One inbound session: drives the server machine, decides MAIL and RCPT, feeds the intake, answers after the commit.

The machine judges grammar and sequence; this shell judges rights, room and routes. No task per session or message:
octets come in, events come out, and what must wait (the commit, a handshake) calls back.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol, cast

import msgspec

from lonedot.message.intake import Arrived, HeadTooLarge, Intake
from lonedot.protocol.events import (
    AuthRequested,
    ChunkRefused,
    Closed,
    ContentBegun,
    ContentChunk,
    ContentEnded,
    ContentMode,
    Event,
    Greeted,
    MailGiven,
    QuitGiven,
    RcptGiven,
    Refused,
    ResetGiven,
    TlsRequested,
    VerifyGiven,
)
from lonedot.protocol.server import ServerMachine
from lonedot.reception.acceptance import DISK_FULL, Acceptor, Verdict
from lonedot.reception.session_sinks import INTERRUPTED, moment_of, refusal_from, start
from lonedot.reception.settings import ListenerSettings, matches_domain
from lonedot.reception.transaction import Transaction
from lonedot.sinks.bindings import Binding
from lonedot.sinks.events import Event as SinkEvent
from lonedot.sinks.protocol import Judgement
from lonedot.spool.interface import BodyWriter, Facts, SpoolFault, SpoolFull, TranscriptRef
from lonedot.terms.address import Address
from lonedot.terms.envelope import Recipient
from lonedot.terms.ids import SessionId
from lonedot.terms.reply import Reply, reply

__all__ = ["Host", "Session", "Transcript"]

PAUSE_AT = 256 * 1024
"""Octets read ahead while a decision is open; beyond it reading pauses."""
CLOSE_SECONDS = 30.0
"""So long a client may take to read its last replies; then the connection is cut."""

OK = reply(250, "2.1.0", "Ok")
RECIPIENT_OK = reply(250, "2.1.5", "Ok")
START = reply(354, "", "End data with <CR><LF>.<CR><LF>")
CHUNK_OK = reply(250, "2.0.0", "Ok")
NOT_VERIFIED = reply(252, "2.5.0", "Send some mail and see")
NO_LOGINS = reply(535, "5.7.8", "No logins are known here")
TOO_LARGE = reply(552, "5.3.4", "Message size exceeds the limit")
HEAD_TOO_LARGE = reply(552, "5.3.4", "The header section is larger than any message needs")
STORE_FAULT = reply(451, "4.3.0", "The message could not be stored; try again later")
DISK_FULL_AT_MAIL = reply(452, "4.3.1", "Not enough room on the disk; try again later")
STOPPING = reply(421, "4.3.2", "The relay is stopping; try again later")
IDLE = reply(421, "4.4.2", "Nothing heard for too long; closing")
LONG_SESSION = reply(421, "4.4.2", "The session has lasted too long; closing")
OUR_FAULT = reply(421, "4.3.0", "A fault of ours; closing")


class Transcript(Protocol):
    """What is said, for the record."""

    def note(self, direction: str, octets: bytes) -> None: ...

    def flush(self) -> TranscriptRef | None:
        """Write what was noted since the last call; None when nothing was."""
        ...


class Host(Protocol):
    """What a session needs of the relay. `reception.listener` is one."""

    settings: ListenerSettings
    acceptor: Acceptor
    revision: str

    def opened(self, session: Session) -> Reply | None:
        """A client connected; a reply refuses it."""
        ...

    def closed(self, session: Session) -> None: ...

    def transcript(self, session: SessionId, client: str) -> Transcript: ...

    def is_trusted(self, client: str) -> bool: ...

    def has_route(self, address: Address) -> bool: ...

    def take_memory(self, octets: int) -> bool:
        """Count octets held in memory; False when the budget is used up."""
        ...

    def give_memory(self, octets: int) -> None: ...

    def noted(self, session: Session, what: str, words: str) -> None:
        """For the log."""
        ...


class Session(asyncio.Protocol):
    """One connection."""

    def __init__(self, host: Host, session_id: SessionId) -> None:
        settings = host.settings
        self.host = host
        self.id = session_id
        self.client = ""
        self.trusted = False
        self.helo = ""
        self._verb = b""
        self.tls = ""
        self.heard = b""
        """The last command line."""
        self.messages = 0
        self._machine = ServerMachine(settings.options, self._hear)
        self._transport: asyncio.Transport | None = None
        self._transaction: Transaction | None = None
        self._transcript: Transcript | None = None
        self._busy = False
        """A decision is out (commit, handshake): events wait."""
        self._advancing = False
        """Events are being handled: an answer that is there at once is taken up by the loop that asked."""
        self._early: list[bytes] | None = None
        self._paused = False
        self._choked = False
        """The client does not read its replies."""
        self._closing = False
        self._lost = False
        self._is_half_closed = False
        self._in_content = False
        self._facts: Facts | None = None
        self._chains = host.acceptor.chains
        """The sinks in force: taken anew at each greeting and each MAIL, so that a message meets one set of them."""
        self._unwelcome: Reply | None = None
        """What a sink said of the client's greeting: the answer to each MAIL."""
        self._asking: asyncio.Task[Judgement] | None = None
        """A sink of the session is being asked in its own process."""
        self._timer: asyncio.TimerHandle | None = None
        self._heard_at = 0.0
        self._began_at = 0.0
        self._loop = asyncio.get_running_loop()

    # -- the transport -----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.client = peer[0] if peer else ""
        self._begin()

    def _begin(self) -> None:
        host = self.host
        self._began_at = self._heard_at = self._loop.time()
        self.trusted = host.is_trusted(self.client)
        self._transcript = host.transcript(self.id, self.client)
        self.tls = _tls_words(self._transport)
        refusal = host.opened(self)
        sinks = self._chains.session
        if refusal is None and sinks is not None:
            self._arm(host.settings.command_seconds)
            self._ask(sinks, SinkEvent.CONNECT, self._greet)
            return
        self._greet(refusal)
        if refusal is None:
            self._arm(host.settings.command_seconds)

    def _greet(self, refusal: Reply | None) -> None:
        if refusal is None:
            self._write(self._machine.greeting())
            return
        self._machine.fail(refusal)
        self._flush()
        self._end()

    def data_received(self, data: bytes) -> None:
        self._heard_at = self._loop.time()
        if self._closing:
            return
        if self._early is not None:
            # Inside TLS already, but the task that shakes hands has not come back to say so.
            self._early.append(data)
            return
        machine = self._machine
        machine.feed(data)
        if not self._busy:
            self._advance()
        elif machine.buffered > PAUSE_AT:
            self._pause()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._lost:
            return
        self._lost = self._closing = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._asking is not None:
            self._asking.cancel()
            self._asking = None
            self._busy = False
        if self._transaction is not None:
            if self._transaction.intake is not None and not self._busy:
                self.host.noted(self, "content.lost", "connection lost inside the message; it is dropped")
            if not self._busy:
                self._drop()
        if self._transcript is not None:
            self._transcript.flush()
        self._transport = None
        self.host.closed(self)

    def eof_received(self) -> bool:
        # A device that closes its side without QUIT; while a commit is out it still gets its reply. TLS has no such
        # half (RFC 8446 §6.1 allows it, asyncio does not).
        self._is_half_closed = True
        return self._busy and not self.tls

    def pause_writing(self) -> None:
        """A client that does not read its replies gets no more commands answered."""
        self._choked = True
        self._pause()

    def resume_writing(self) -> None:
        self._choked = False
        if not self._busy:
            self._resume()

    # -- events ------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Handle events until one has to wait or no more are there, then write all answers at once."""
        next_event = self._machine.next_event
        self._advancing = True
        try:
            while not self._busy and not self._closing:
                event = next_event()
                if event is None:
                    break
                _HANDLERS[type(event)](self, event)
        except Exception as error:
            self._break(error)
            return
        finally:
            self._advancing = False
        self._flush()

    def _break(self, error: BaseException) -> None:
        """Our own fault must not lose the client's message: 4xx, never silence."""
        self.host.noted(self, "session.fault", f"{type(error).__name__}: {error}")
        self._machine.fail(OUR_FAULT)
        self._flush()
        self._drop()
        self._end()

    def _flush(self) -> None:
        out = self._machine.take_output()
        if out:
            self._write(out)

    def _hear(self, line: bytes) -> None:
        self.heard = line
        if self._transcript is not None:
            self._transcript.note("<", line)

    def _write(self, octets: bytes) -> None:
        if self._transcript is not None:
            self._transcript.note(">", octets)
        if self._transport is not None:
            self._transport.write(octets)

    def _respond(self, answer: Reply) -> None:
        self._machine.respond(answer)

    def _pause(self) -> None:
        if not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        if self._paused and not self._choked and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    def _end(self) -> None:
        """Close after what was written has gone out; a client that does not read it is not waited for for ever."""
        self._closing = True
        transport = self._transport
        if transport is None:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        transport.close()
        if transport.get_write_buffer_size():
            self._timer = self._loop.call_later(CLOSE_SECONDS, transport.abort)

    def _on_greeted(self, event: Greeted) -> None:
        self.helo = event.name.decode("utf-8", "backslashreplace")
        self._verb = event.verb
        self._facts = None
        self._chains = self.host.acceptor.chains
        sinks = self._chains.session
        if sinks is None:
            self._unwelcome = None
        else:
            self._ask(sinks, SinkEvent.HELO, self._greeted)

    def _greeted(self, refusal: Reply | None) -> None:
        self._unwelcome = refusal

    def _ask(
        self,
        sinks: Mapping[SinkEvent, tuple[Binding, ...]],
        event: SinkEvent,
        then: Callable[[Reply | None], None],
        transaction: Transaction | None = None,
        recipient: Recipient | None = None,
    ) -> None:
        """Ask the sinks of an event; `then` gets what they refuse with or None, now or when all have answered."""
        bindings = sinks.get(event)
        if bindings is None:
            then(None)
            return
        envelope = None if transaction is None else transaction.envelope()
        moment = moment_of(event, self, self.host.settings.name, envelope, recipient)
        started = start(moment, bindings, self.host.acceptor.elsewhere)
        if isinstance(started, Judgement):
            then(refusal_from(started, event, self._note_sink))
            return
        self._busy = True
        self._asking = self._loop.create_task(started)
        self._asking.add_done_callback(partial(self._asked, event, then))

    def _asked(
        self, event: SinkEvent, then: Callable[[Reply | None], None], asking: asyncio.Task[Judgement]
    ) -> None:
        """Every sink of the event has answered."""
        if self._asking is not asking:
            return  # the connection was lost meanwhile
        self._asking = None
        self._busy = False
        try:
            judgement = INTERRUPTED if asking.cancelled() else asking.result()
            then(refusal_from(judgement, event, self._note_sink))
        except Exception as error:
            self._break(error)
            return
        self._go_on()

    def _note_sink(self, what: str, words: str) -> None:
        self.host.noted(self, what, words)

    def _on_mail(self, event: MailGiven) -> None:
        if event.tolerated:
            self.host.noted(self, "command.tolerated", f"MAIL: {event.tolerated}")
        acceptor = self.host.acceptor
        if not acceptor.spool.has_room(event.size):
            self._respond(DISK_FULL_AT_MAIL)
            return
        transaction = Transaction(event, event.reverse_path)
        self._chains = acceptor.chains
        sinks = self._chains.session
        if sinks is None:
            self._take_mail(transaction, None)
        elif self._unwelcome is not None:
            self._respond(self._unwelcome)
        else:
            self._ask(sinks, SinkEvent.MAIL, partial(self._take_mail, transaction), transaction)

    def _take_mail(self, transaction: Transaction, refusal: Reply | None) -> None:
        if refusal is None:
            self._transaction = transaction
        self._respond(refusal or OK)

    def _on_rcpt(self, event: RcptGiven) -> None:
        transaction = self._transaction
        assert transaction is not None
        if event.tolerated:
            self.host.noted(self, "command.tolerated", f"RCPT: {event.tolerated}")
        recipient = event.recipient
        settings = self.host.settings
        address = recipient.address
        if address.local.lower() == b"postmaster" and address.domain in (
            b"",
            settings.options.hostname.lower(),
        ):
            # RFC 5321 §4.5.1: postmaster is always accepted.
            recipient = msgspec.structs.replace(recipient, address=settings.postmaster)
            address = settings.postmaster
        elif not self.trusted and not matches_domain(address.domain, settings.relay_to):
            self._respond(
                reply(550, "5.7.1", f"Relaying denied: {self.client} may not send to {_printable(address)}")
            )
            return
        elif not self.host.has_route(address):
            self._respond(reply(550, "5.4.4", f"No route to {_printable(address)}"))
            return
        sinks = self._chains.session
        if sinks is None:
            transaction.recipients.setdefault(address, recipient)
            self._respond(RECIPIENT_OK)
        else:
            then = partial(self._take_recipient, transaction, recipient)
            self._ask(sinks, SinkEvent.RCPT, then, transaction, recipient)

    def _take_recipient(self, transaction: Transaction, recipient: Recipient, refusal: Reply | None) -> None:
        if refusal is None:
            transaction.recipients.setdefault(recipient.address, recipient)
        self._respond(refusal or RECIPIENT_OK)

    def _on_content_begun(self, event: ContentBegun) -> None:
        transaction = self._transaction
        assert transaction is not None
        sinks = self._chains.session
        if sinks is None:
            self._take_content(transaction, event.mode, None)
        else:
            then = partial(self._take_content, transaction, event.mode)
            self._ask(sinks, SinkEvent.DATA, then, transaction)

    def _take_content(self, transaction: Transaction, mode: ContentMode, refusal: Reply | None) -> None:
        if refusal is not None:
            self._respond(refusal)
            return
        transaction.id = self.host.acceptor.new_id()
        transaction.intake = Intake(lambda: self._open_body(transaction))
        self._in_content = True
        self._respond(START if mode is ContentMode.DATA else CHUNK_OK)

    def _open_body(self, transaction: Transaction) -> BodyWriter:
        transaction.writer = self.host.acceptor.spool.body_writer(transaction.id)
        return transaction.writer

    def _on_chunk(self, event: ContentChunk) -> None:
        transaction = self._transaction
        if transaction is None or transaction.intake is None or transaction.failure is not None:
            return
        intake = transaction.intake
        octets = event.octets
        try:
            if transaction.writer is None:
                transaction.held += len(octets)
                if not self.host.take_memory(len(octets)):
                    intake.spill()
            intake.feed(octets)
        except HeadTooLarge:
            self._fail_content(transaction, HEAD_TOO_LARGE)
        except SpoolFull:
            self._fail_content(transaction, DISK_FULL)
        except SpoolFault:
            self._fail_content(transaction, STORE_FAULT)
        if transaction.writer is not None and transaction.held:
            self.host.give_memory(transaction.held)
            transaction.held = 0

    def _fail_content(self, transaction: Transaction, answer: Reply) -> None:
        """Keep reading to the end of data; it gets this answer."""
        transaction.failure = answer
        if transaction.intake is not None:
            transaction.intake.discard()
        if transaction.writer is not None:
            transaction.writer.discard()
        if transaction.held:
            self.host.give_memory(transaction.held)
            transaction.held = 0

    def _on_content_ended(self, event: ContentEnded) -> None:
        self._in_content = False
        transaction = self._transaction
        assert transaction is not None and transaction.intake is not None
        if self._transcript is not None:
            self._transcript.note("<", b"[%d octets of content]" % event.size)
        arrived = self._finish(transaction, event.over_limit)
        if isinstance(arrived, Reply):
            self.host.noted(self, "content.refused", arrived.text)
            self._drop()
            self._respond(arrived)
            return
        settings = self.host.settings
        self._busy = True
        transcript = self._transcript.flush() if self._transcript is not None else None
        self.host.acceptor.accept(
            transaction.id,
            transaction.envelope(),
            self._message_facts(transcript, transaction.smtputf8),
            arrived,
            settings.door[self.trusted],
            self._on_verdict,
            chains=self._chains,
        )

    def _finish(self, transaction: Transaction, over_limit: bool) -> Arrived | Reply:
        """What has come in, or why it is refused."""
        if over_limit:
            return TOO_LARGE
        if transaction.failure is not None:
            return transaction.failure
        assert transaction.intake is not None
        try:
            return transaction.intake.finish()
        except HeadTooLarge:
            return HEAD_TOO_LARGE
        except SpoolFull:
            return DISK_FULL
        except SpoolFault:
            return STORE_FAULT

    def _on_verdict(self, verdict: Verdict) -> None:
        """The message is in custody, or refused."""
        if verdict.accepted:
            self.messages += 1
            self._release()
        else:
            self._drop()
        self._busy = False
        if self._transport is None:
            return
        self._respond(verdict.reply)
        if not self._advancing:
            self._go_on()

    def _go_on(self) -> None:
        """What was waited for is there: take up what has come in meanwhile."""
        self._advance()
        self._resume()
        if self._is_half_closed and not self._busy and not self._closing:
            self._drop()
            self._end()

    def _message_facts(self, transcript: TranscriptRef | None, smtputf8: bool) -> Facts:
        facts = self._facts
        if facts is None:
            extended = self._verb.upper() == b"EHLO"
            protocol = ("ESMTPS" if self.tls else "ESMTP") if extended else "SMTP"  # RFC 3848
            facts = self._facts = Facts(
                source="smtp",
                session=self.id,
                listener=self.host.settings.name,
                client=self.client,
                helo=self.helo,
                protocol=protocol,
                tls=self.tls,
                trusted=self.trusted,
                revision=self.host.revision,
                server=self.host.acceptor.server,
            )
        if smtputf8:
            # RFC 6531 §4.3
            protocol = "UTF8SMTPS" if self.tls else "UTF8SMTP"
            return msgspec.structs.replace(facts, transcript=transcript, protocol=protocol)
        return msgspec.structs.replace(facts, transcript=transcript)

    def _on_reset(self, event: ResetGiven | ChunkRefused) -> None:
        self._drop()

    def _drop(self) -> None:
        """Forget the transaction and what it stored."""
        transaction = self._transaction
        if transaction is not None and transaction.writer is not None:
            transaction.writer.discard()
        self._release()

    def _release(self) -> None:
        transaction = self._transaction
        if transaction is not None and transaction.held:
            self.host.give_memory(transaction.held)
        self._transaction = None
        self._in_content = False

    def _on_auth(self, event: AuthRequested) -> None:
        self._respond(NO_LOGINS)

    def _on_verify(self, event: VerifyGiven) -> None:
        sinks = self._chains.session
        if sinks is None:
            self._respond(NOT_VERIFIED)
        else:
            self._ask(sinks, SinkEvent.VERB, self._verified)

    def _verified(self, refusal: Reply | None) -> None:
        self._respond(refusal or NOT_VERIFIED)

    def _on_quit(self, event: QuitGiven) -> None:
        self._drop()
        self._flush()
        self._end()

    def _on_refused(self, event: Refused) -> None:
        self.host.noted(self, "command.refused", f"{event.command!r}: {event.reply.text}")

    def _on_closed(self, event: Closed) -> None:
        self.host.noted(self, "session.ended", event.words)
        self._drop()
        self._flush()
        self._end()

    # -- TLS ---------------------------------------------------------------------------------------

    def _on_tls(self, event: TlsRequested) -> None:
        context = self.host.settings.tls
        transport = self._transport
        assert context is not None and transport is not None
        # Nothing may be read between our 220 and the handshake: it belongs to TLS.
        transport.pause_reading()
        self._flush()
        self._drop()
        self._busy = True
        self._early = []
        # RFC 3207 §4.2, CVE-2011-0411: the machine has refused anything read behind STARTTLS.
        task = self._loop.create_task(self._shake_hands(transport, context))
        self._handshake = task

    async def _shake_hands(self, transport: asyncio.Transport, context: ssl.SSLContext) -> None:
        try:
            secured = await self._loop.start_tls(
                transport, self, context, server_side=True, ssl_handshake_timeout=30
            )
        except (OSError, ssl.SSLError, TimeoutError) as error:
            self.host.noted(self, "tls.failed", f"{type(error).__name__}: {error}")
            self._cut(transport)
            return
        if secured is None or self._closing:
            self._cut(transport)
            return
        self._transport = secured
        self.tls = _tls_words(secured)
        self._facts = None
        self._machine.tls_started()
        self._machine.feed(b"".join(self._early or ()))
        self._early = None
        self._busy = False
        self._advance()

    def _cut(self, transport: asyncio.Transport) -> None:
        """End it during the handshake, when a connection that breaks is not told to us."""
        transport.abort()
        self.connection_lost(None)

    # -- time --------------------------------------------------------------------------------------

    def _tick(self) -> None:
        """Looks when something was last heard, and comes again when it may be too late."""
        settings = self.host.settings
        now = self._loop.time()
        allowed = settings.data_seconds if self._in_content else settings.command_seconds
        left = self._heard_at + allowed - now
        if self._busy:
            left = max(left, 1.0)
        if now - self._began_at > settings.session_seconds and self._transaction is None and not self._busy:
            self._say_goodbye(LONG_SESSION)
            return
        if left <= 0:
            self._say_goodbye(IDLE)
            return
        self._arm(left)

    def _arm(self, left: float) -> None:
        """One timer a session. No event moves it, so it must not ring later than the shortest time that may begin."""
        settings = self.host.settings
        session_left = self._began_at + settings.session_seconds - self._loop.time()
        if session_left > 0:
            left = min(left, session_left + 0.001)
        self._timer = self._loop.call_later(min(left, settings.data_seconds), self._tick)

    def _say_goodbye(self, answer: Reply) -> None:
        self.host.noted(self, "session.ended", answer.text)
        self._machine.fail(answer)
        self._drop()
        self._flush()
        self._end()

    def stop(self) -> bool:
        """The relay stops: say so unless a message is on its way. True when the session is closing."""
        if self._closing:
            return True
        if self._busy or self._in_content:
            return False
        self._say_goodbye(STOPPING)
        return True

    def abort(self) -> None:
        """The time to drain is over."""
        if self._transport is not None:
            self._transport.abort()


_HANDLERS: dict[type[Event], Callable[[Session, Event], None]] = cast(
    "dict[type[Event], Callable[[Session, Event], None]]",
    {
        Greeted: Session._on_greeted,
        MailGiven: Session._on_mail,
        RcptGiven: Session._on_rcpt,
        ContentBegun: Session._on_content_begun,
        ContentChunk: Session._on_chunk,
        ContentEnded: Session._on_content_ended,
        ChunkRefused: Session._on_reset,
        ResetGiven: Session._on_reset,
        TlsRequested: Session._on_tls,
        AuthRequested: Session._on_auth,
        VerifyGiven: Session._on_verify,
        QuitGiven: Session._on_quit,
        Refused: Session._on_refused,
        Closed: Session._on_closed,
    },
)


def _printable(address: Address) -> str:
    return address.octets.decode("ascii", "backslashreplace")


def _tls_words(transport: asyncio.BaseTransport | None) -> str:
    """`TLSv1.3 TLS_AES_256_GCM_SHA384`, or empty without TLS."""
    if transport is None:
        return ""
    cipher = transport.get_extra_info("cipher")
    return f"{cipher[1]} {cipher[0]}" if cipher else ""
