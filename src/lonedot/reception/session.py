"""One inbound session: drives the server machine, decides MAIL and RCPT, feeds the intake, answers after the commit.

The machine judges grammar and sequence; this shell judges rights, room and routes. No task per session or message:
octets come in, events come out, and what must wait (the commit, a handshake) calls back.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Protocol, TypeVar, cast

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
from lonedot.reception.acceptance import Acceptor, Verdict
from lonedot.reception.session_sinks import (
    INTERRUPTED,
    LOGIN_NOT_CHECKED,
    NOT_LOGGED_IN,
    UNSAID,
    Word,
    moment_of,
    start,
    success,
    word_from,
)
from lonedot.reception.settings import ListenerSettings, matches_domain, with_logins
from lonedot.reception.transaction import Transaction
from lonedot.sinks.events import Event as SinkEvent
from lonedot.sinks.protocol import Command, Credentials, Judgement, Note
from lonedot.spool.interface import Facts, TranscriptRef
from lonedot.terms.address import Address
from lonedot.terms.envelope import Recipient
from lonedot.terms.ids import SessionId
from lonedot.terms.reply import Reply, reply

__all__ = ["Host", "Session", "Transcript"]

PAUSE_AT = 256 * 1024
"""Octets read ahead while a decision is open; beyond it reading pauses."""
LOGIN_OCTETS = 255
"""Of the name of a login are kept."""
CLOSE_SECONDS = 30.0
"""So long a client may take to read its last replies; then the connection is cut."""

T = TypeVar("T")

OK = success(SinkEvent.MAIL)
RECIPIENT_OK = success(SinkEvent.RCPT)
LOGGED_IN = success(SinkEvent.AUTH)
START = reply(354, "", "End data with <CR><LF>.<CR><LF>")
CHUNK_OK = reply(250, "2.0.0", "Ok")
NOT_VERIFIED = reply(252, "2.5.0", "Send some mail and see")
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

    def noted(self, session: Session, what: str, words: str, note: Note | None = None, /) -> None:
        """For the log; `note` says which sink it is about."""
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
        self.login = ""
        """Who has logged in; empty when nobody has."""
        self._verb = b""
        self.tls = ""
        self.heard = b""
        """The last command line."""
        self.messages = 0
        self._chains = chains = host.acceptor.chains
        """The sinks in force: taken anew at each greeting and each MAIL, so that a message meets one set of them."""
        has_logins = settings.logins is not None
        if has_logins or (chains.session is not None and SinkEvent.AUTH in chains.session):
            self._machine = ServerMachine(with_logins(settings.options), self._hear)
        else:
            self._machine = ServerMachine(settings.options, self._hear)
        self._machine.asked = chains.asked
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
        self._waits_for: asyncio.Task[object] | None = None
        """A sink of the session is being asked in its own process, or a password is being checked."""
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
        if refusal is not None:
            self._greet(Word(refusal=refusal))
            return
        self._arm(host.settings.command_seconds)
        if self._chains.session is None:
            self._write(self._machine.greeting())
        else:
            self._ask(SinkEvent.CONNECT, self._greet)

    def _greet(self, word: Word) -> None:
        if word.refusal is None:
            said = word.acceptance
            greeting = self._machine.greeting
            self._write(greeting() if said is None else greeting(said.lines[0]))
            return
        self._machine.fail(word.refusal)
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
        if self._waits_for is not None:
            self._waits_for.cancel()
            self._waits_for = None
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

    def _take_chains(self) -> None:
        """From here on the session meets the sinks that are in force now."""
        self._chains = chains = self.host.acceptor.chains
        self._machine.asked = chains.asked

    def _on_heard(self, event: CommandHeard) -> None:
        """A command that sinks are asked about before it is obeyed."""
        command = Command(event.verb, event.argument)
        if event.verb in (b"EHLO", b"HELO"):
            if self._transaction is None:
                self._take_chains()
            self._ask(SinkEvent.HELO, partial(self._answer_greeting, event.verb), command=command)
        else:
            self._ask(SinkEvent.VERB, partial(self._answer_command, event.verb), command=command)

    def _answer_greeting(self, verb: bytes, word: Word) -> None:
        answer = word.refusal or word.acceptance
        if answer is None:
            self._machine.obey()
        elif word.refusal is None and verb == b"HELO":
            self._respond(Reply(answer.code, "", answer.lines[:1]))  # HELO has no keywords
        else:
            self._respond(answer)

    def _answer_command(self, verb: bytes, word: Word) -> None:
        # Nobody but the relay can begin TLS: who accepts STARTTLS lets it.
        answer = word.refusal or (word.acceptance if verb != b"STARTTLS" else None)
        if answer is None:
            self._machine.obey()
        else:
            self._respond(answer)

    def _on_greeted(self, event: Greeted) -> None:
        self.helo = event.name.decode("utf-8", "backslashreplace")
        self._verb = event.verb
        self._facts = None
        self._take_chains()

    def _ask(
        self,
        event: SinkEvent,
        then: Callable[[Word], None],
        transaction: Transaction | None = None,
        recipient: Recipient | None = None,
        command: Command | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        """Ask the sinks of an event; `then` gets what they say, now or when all have answered."""
        sinks = self._chains.session
        bindings = sinks.get(event) if sinks is not None else None
        if bindings is None:
            then(UNSAID)
            return
        envelope = None if transaction is None else transaction.envelope()
        name = self.host.settings.name
        moment = moment_of(event, self, name, envelope, recipient, command, credentials)
        started = start(moment, bindings, self.host.acceptor.elsewhere)
        if isinstance(started, Judgement):
            then(word_from(started, event, self._note_sink))
        else:
            self._wait(started, lambda said: then(word_from(said, event, self._note_sink)), INTERRUPTED)

    def _wait(self, work: Coroutine[None, None, T], then: Callable[[T], None], interrupted: T) -> None:
        """Handle no event until the work is done; `then` gets its result, or `interrupted` when the relay stops."""
        self._busy = True
        task = self._loop.create_task(work)
        self._waits_for = cast("asyncio.Task[object]", task)
        task.add_done_callback(partial(self._waited, then, interrupted))

    def _waited(self, then: Callable[[T], None], interrupted: T, task: asyncio.Task[T]) -> None:
        if self._waits_for is not task:
            return  # the connection was lost meanwhile
        self._waits_for = None
        self._busy = False
        try:
            then(interrupted if task.cancelled() else task.result())
        except Exception as error:
            self._break(error)
            return
        self._go_on()

    def _note_sink(self, what: str, words: str, note: Note) -> None:
        self.host.noted(self, what, words, note)

    def _on_mail(self, event: MailGiven) -> None:
        if event.tolerated:
            self.host.noted(self, "command.tolerated", f"MAIL: {event.tolerated}")
        acceptor = self.host.acceptor
        if not acceptor.spool.has_room(event.size):
            self._respond(DISK_FULL_AT_MAIL)
            return
        host = self.host
        transaction = Transaction(event, event.reverse_path, host.take_memory, host.give_memory)
        self._take_chains()
        if (sinks := self._chains.session) is None or SinkEvent.MAIL not in sinks:
            self._transaction = transaction
            self._respond(OK)
        else:
            self._ask(SinkEvent.MAIL, partial(self._take_mail, transaction), transaction)

    def _take_mail(self, transaction: Transaction, word: Word) -> None:
        if word.refusal is None:
            self._transaction = transaction
        self._respond(word.refusal or word.acceptance or OK)

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
        if (sinks := self._chains.session) is None or SinkEvent.RCPT not in sinks:
            transaction.recipients.setdefault(address, recipient)
            self._respond(RECIPIENT_OK)
        else:
            then = partial(self._take_recipient, transaction, recipient)
            self._ask(SinkEvent.RCPT, then, transaction, recipient)

    def _take_recipient(self, transaction: Transaction, recipient: Recipient, word: Word) -> None:
        if word.refusal is None:
            transaction.recipients.setdefault(recipient.address, recipient)
        self._respond(word.refusal or word.acceptance or RECIPIENT_OK)

    def _on_content_begun(self, event: ContentBegun) -> None:
        transaction = self._transaction
        assert transaction is not None
        if (sinks := self._chains.session) is None or SinkEvent.DATA not in sinks:
            self._take_content(transaction, event.mode, UNSAID)
        else:
            then = partial(self._take_content, transaction, event.mode)
            self._ask(SinkEvent.DATA, then, transaction)

    def _take_content(self, transaction: Transaction, mode: ContentMode, word: Word) -> None:
        if word.refusal is not None:
            self._respond(word.refusal)
            return
        acceptor = self.host.acceptor
        transaction.begin_content(acceptor.new_id(), acceptor.spool.body_writer)
        self._in_content = True
        self._respond(START if mode is ContentMode.DATA else CHUNK_OK)

    def _on_chunk(self, event: ContentChunk) -> None:
        if self._transaction is not None:
            self._transaction.take(event.octets)

    def _on_content_ended(self, event: ContentEnded) -> None:
        self._in_content = False
        transaction = self._transaction
        assert transaction is not None and transaction.intake is not None
        if self._transcript is not None:
            self._transcript.note("<", b"[%d octets of content]" % event.size)
        arrived = transaction.finish(event.over_limit)
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
            protocol = f"ESMTP{self._secured}" if self._verb == b"EHLO" else "SMTP"
            facts = self._facts = Facts(
                source="smtp",
                session=self.id,
                listener=self.host.settings.name,
                client=self.client,
                helo=self.helo,
                protocol=protocol,
                tls=self.tls,
                login=self.login,
                trusted=self.trusted,
                revision=self.host.revision,
                server=self.host.acceptor.server,
            )
        if smtputf8:
            # RFC 6531 §4.3
            protocol = f"UTF8SMTP{self._secured}"
            return msgspec.structs.replace(facts, transcript=transcript, protocol=protocol)
        return msgspec.structs.replace(facts, transcript=transcript)

    @property
    def _secured(self) -> str:
        """What a with-keyword has at its end (RFC 3848)."""
        return ("S" if self.tls else "") + ("A" if self.login else "")

    def _on_reset(self, event: ResetGiven | ChunkRefused) -> None:
        self._drop()

    def _drop(self) -> None:
        """Forget the transaction and what it stored."""
        if self._transaction is not None:
            self._transaction.drop()
            self._transaction = None
        self._in_content = False

    def _release(self) -> None:
        """What the transaction stored is the spool's now."""
        if self._transaction is not None:
            self._transaction.release()
            self._transaction = None
        self._in_content = False

    def _on_verify(self, event: VerifyGiven) -> None:
        self._respond(NOT_VERIFIED)

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

    # -- logins ------------------------------------------------------------------------------------

    def _on_auth(self, event: AuthRequested) -> None:
        """Sinks first; when none of them knows the login, the file of the listener."""
        mechanism = event.mechanism.decode()
        self._ask(
            SinkEvent.AUTH,
            partial(self._take_login, event),
            command=Command(b"AUTH", event.mechanism),
            credentials=Credentials(mechanism, event.identity, event.password),
        )

    def _take_login(self, event: AuthRequested, word: Word) -> None:
        logins = self.host.settings.logins
        if word.refusal is not None or word.acceptance is not None:
            self._answer_login(event.identity, word.acceptance, word.refusal or NOT_LOGGED_IN)
        elif logins is None:
            self._answer_login(event.identity, None, NOT_LOGGED_IN)
        else:
            then = partial(self._take_check, event.identity)
            self._wait(logins.check(event.identity, event.password), then, None)

    def _take_check(self, identity: bytes, fits: bool | None) -> None:
        if fits is None:
            self.host.noted(
                self, "login.not-checked", "the logins cannot be read, or too many are being checked"
            )
        refusal = LOGIN_NOT_CHECKED if fits is None else NOT_LOGGED_IN
        self._answer_login(identity, LOGGED_IN if fits else None, refusal)

    def _answer_login(self, identity: bytes, success: Reply | None, refusal: Reply) -> None:
        name = identity[:LOGIN_OCTETS].decode("utf-8", "backslashreplace")
        if success is None:
            self.host.noted(self, "login.refused", f"{name!r}: {refusal.text}")
            self._respond(refusal)
            return
        self.host.noted(self, "login.taken", repr(name))
        self._respond(success)
        if not self._machine.is_closed:
            self.login = name
            self.trusted = True
            self._facts = None

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
        self.helo = self.login = ""
        self.trusted = self.host.is_trusted(self.client)
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
        CommandHeard: Session._on_heard,
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
