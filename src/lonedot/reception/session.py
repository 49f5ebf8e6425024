"""One inbound session: drives the server machine, decides MAIL and RCPT, feeds the intake, answers after the commit.

The machine judges grammar and sequence; this shell judges rights, room and routes. No task per session or message:
octets come in, events come out, and what must wait (the commit, a handshake, a sink elsewhere) calls back. What is not
the dispatch of events has modules of its own: the connection, its handshake, the time-outs, how sinks are asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import cast

import msgspec

from lonedot.protocol.events import (
    AuthRequested,
    ChunkRefused,
    ClientStated,
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
from lonedot.reception.acceptance import Verdict
from lonedot.reception.connection import Connection
from lonedot.reception.handshake import Handshake, tls_words
from lonedot.reception.host import Host
from lonedot.reception.proxy import Preface
from lonedot.reception.session_asking import Asker
from lonedot.reception.session_clock import SessionClock
from lonedot.reception.session_directory import NOT_VERIFIED, ask_directory, verify
from lonedot.reception.session_facts import facts_of, utf8_protocol
from lonedot.reception.session_login import ask_login
from lonedot.reception.session_sinks import UNSAID, Word, answer_of, success
from lonedot.reception.settings import is_in, matches_domain, with_logins, with_xclient
from lonedot.reception.transaction import Transaction
from lonedot.sinks.events import Event as SinkEvent
from lonedot.sinks.protocol import Command, Note
from lonedot.spool.interface import Facts, TranscriptRef
from lonedot.terms.address import Address
from lonedot.terms.envelope import Recipient
from lonedot.terms.ids import SessionId
from lonedot.terms.reply import Reply, reply

__all__ = ["Session"]

PAUSE_AT = 256 * 1024
"""Octets read ahead while a decision is open; beyond it reading pauses."""
LOGIN_OCTETS = 255
"""Of the name of a login are kept."""
OK = success(SinkEvent.MAIL)
RECIPIENT_OK = success(SinkEvent.RCPT)
START = reply(354, "", "End data with <CR><LF>.<CR><LF>")
CHUNK_OK = reply(250, "2.0.0", "Ok")
_VERBS = {b"SMTP": b"HELO", b"ESMTP": b"EHLO"}
"""The greeting of a protocol."""
DISK_FULL_AT_MAIL = reply(452, "4.3.1", "Not enough room on the disk; try again later")
STOPPING = reply(421, "4.3.2", "The relay is stopping; try again later")
OUR_FAULT = reply(421, "4.3.0", "A fault of ours; closing")


class Session(asyncio.Protocol):
    """One connection."""

    def __init__(self, host: Host[Session], session_id: SessionId) -> None:
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
        self._connection = Connection()
        self._clock = SessionClock(self, settings, asyncio.get_running_loop())
        self._asker = Asker(self, host.acceptor, settings.name)
        self._handshake: Handshake | None = None
        self._preface: Preface | None = None
        """The proxy has not said yet whom it speaks for."""
        self._stated: ClientStated | None = None
        """What a proxy has said of its client by XCLIENT."""
        self._transaction: Transaction | None = None
        self.is_busy = False
        """A decision is out (commit, handshake, sink): events wait."""
        self._advancing = False
        """Events are being handled: an answer that is there at once is taken up by the loop that asked."""
        self.is_closing = False
        self._is_lost = False
        self._is_half_closed = False
        self.in_content = False
        self._facts: Facts | None = None

    # -- the transport -----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        host, connection = self.host, self._connection
        connection.transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.client = peer[0] if peer else ""
        self._clock.begin()
        settings = host.settings
        if settings.proxy_from and is_in(self.client, settings.proxy_from):
            self._preface = Preface(self._introduced, self._not_introduced)
        else:
            self._begin(transport)

    def _introduced(self, client: str, early: bytes) -> None:
        """The proxy has said whom it speaks for; `early` is what that client has said already."""
        self._preface = None
        self.client = client
        assert self._connection.transport is not None
        self._begin(self._connection.transport)
        if early:
            self.data_received(early)

    def _not_introduced(self, words: str) -> None:
        self._preface = None
        self.host.noted(self, "proxy.refused", f"{self.client}: {words}")
        self.is_closing = True
        self.abort()

    def _begin(self, transport: asyncio.BaseTransport) -> None:
        """The client is known: greet it, or refuse it."""
        host, connection = self.host, self._connection
        settings = host.settings
        self.trusted = host.is_trusted(self.client)
        self.login = host.login_of(transport)
        if settings.xclient_from and is_in(self.client, settings.xclient_from):
            self._machine = ServerMachine(with_xclient(self._machine.options), self._hear)
            self._machine.asked = self._chains.asked
        connection.transcript = host.transcript(self.id, self.client)
        self.tls = tls_words(transport)
        refusal = host.opened(self)
        if refusal is not None:
            self._greet(Word(refusal=refusal))
            return
        self._clock.watch()
        if self._chains.session is None:
            connection.write(self._machine.greeting())
        else:
            self._asker.ask(self._chains, SinkEvent.CONNECT, self._greet)

    def _greet(self, word: Word) -> None:
        if word.refusal is None:
            said = word.acceptance
            greeting = self._machine.greeting
            self._connection.write(greeting() if said is None else greeting(said.lines[0]))
            return
        self._machine.fail(word.refusal)
        self._flush()
        self._end()

    def data_received(self, data: bytes) -> None:
        clock = self._clock
        clock.heard_at = clock.now()
        if self.is_closing:
            return
        if self._handshake is not None:
            self._handshake.keep(data)
            return
        if self._preface is not None:
            self._preface.feed(data)
            return
        machine = self._machine
        machine.feed(data)
        if not self.is_busy:
            self._advance()
        elif machine.buffered > PAUSE_AT:
            self._connection.pause()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._is_lost:
            return
        self._is_lost = self.is_closing = True
        self._clock.stop()
        self._asker.drop()
        if self._preface is not None:
            self._preface.stop()
        if self._transaction is not None and not self.is_busy:
            if self._transaction.intake is not None:
                self.host.noted(self, "content.lost", "connection lost inside the message; it is dropped")
            self._drop()
        self._connection.lost()
        self.host.closed(self)

    def eof_received(self) -> bool:
        # A device that closes its side without QUIT; while a commit is out it still gets its reply. TLS has no such
        # half (RFC 8446 §6.1 allows it, asyncio does not).
        self._is_half_closed = True
        return self.is_busy and not self.tls

    def pause_writing(self) -> None:
        self._connection.choke()

    def resume_writing(self) -> None:
        self._connection.unchoke()
        if not self.is_busy:
            self._connection.resume()

    # -- events ------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Handle events until one has to wait or no more are there, then write all answers at once."""
        next_event = self._machine.next_event
        self._advancing = True
        try:
            while not self.is_busy and not self.is_closing:
                event = next_event()
                if event is None:
                    break
                _HANDLERS[type(event)](self, event)
        except Exception as error:
            self.break_off(error)
            return
        finally:
            self._advancing = False
        self._flush()

    def break_off(self, error: BaseException) -> None:
        """Our own fault must not lose the client's message: 4xx, never silence."""
        self.host.noted(self, "session.fault", f"{type(error).__name__}: {error}")
        self._machine.fail(OUR_FAULT)
        self._flush()
        self._drop()
        self._end()

    def _flush(self) -> None:
        out = self._machine.take_output()
        if out:
            self._connection.write(out)

    def _hear(self, line: bytes) -> None:
        self.heard = line
        transcript = self._connection.transcript
        if transcript is not None:
            transcript.note("<", line)

    def _respond(self, answer: Reply) -> None:
        self._machine.respond(answer)

    def _end(self) -> None:
        """Close after what was written has gone out."""
        self.is_closing = True
        if self._connection.transport is not None:
            self._clock.close(self._connection.transport)

    # -- commands ----------------------------------------------------------------------------------

    def _take_chains(self) -> None:
        """From here on the session meets the sinks that are in force now."""
        self._chains = chains = self.host.acceptor.chains
        self._machine.asked = chains.asked

    def _on_heard(self, event: CommandHeard) -> None:
        """A command that sinks are asked about before it is obeyed."""
        is_greeting = event.verb in (b"EHLO", b"HELO")
        if is_greeting and self._transaction is None:
            self._take_chains()
        then = partial(self._answer_command, event.verb)
        asked = SinkEvent.HELO if is_greeting else SinkEvent.VERB
        self._asker.ask(self._chains, asked, then, command=Command(event.verb, event.argument))

    def _answer_command(self, verb: bytes, word: Word) -> None:
        answer = answer_of(verb, word)
        if answer is None:
            self._machine.obey()
        elif word.read and word.refusal is None:
            if (transcript := self._connection.transcript) is not None:
                transcript.note("<", b"[%d octets, not kept]" % word.read)
            self._machine.respond_behind(answer, word.read)
        else:
            self._respond(answer)

    def _on_greeted(self, event: Greeted) -> None:
        self.helo = event.name.decode("utf-8", "backslashreplace")
        self._verb = event.verb
        if (stated := self._stated) is not None:
            # The proxy greets in its own name; what it has said of its client is nearer to the truth.
            self.helo = stated.helo or self.helo
            self._verb = _VERBS.get(stated.verb, self._verb)
        self._facts = None
        self._take_chains()

    def _on_mail(self, event: MailGiven) -> None:
        if event.tolerated:
            self.host.noted(self, "command.tolerated", f"MAIL: {event.tolerated}")
        host = self.host
        if not host.acceptor.spool.has_room(event.size):
            self._respond(DISK_FULL_AT_MAIL)
            return
        transaction = Transaction(event, event.reverse_path, host.take_memory, host.give_memory)
        self._take_chains()
        if (sinks := self._chains.session) is None or SinkEvent.MAIL not in sinks:
            self._transaction = transaction
            self._respond(OK)
        else:
            self._asker.ask(self._chains, SinkEvent.MAIL, partial(self._take_mail, transaction), transaction)

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
        elif not self._may_send_to(address):
            self._respond(
                reply(550, "5.7.1", f"Relaying denied: {self.client} may not send to {_printable(address)}")
            )
            return
        elif (directory := settings.directory) is not None and directory.covers(self._goes_to(address)):
            then = partial(self._take_judged, transaction, recipient)
            noted = partial(self.host.noted, self)
            sender = self._sender_of(transaction)
            ask_directory(directory, self._goes_to(address), sender, self._asker.wait, noted, then)
            return
        elif not self.host.has_route(address):
            self._respond(reply(550, "5.4.4", f"No route to {_printable(address)}"))
            return
        self._ask_about(transaction, recipient)

    def _may_send_to(self, address: Address) -> bool:
        """By the address as it was given: what it becomes gives nobody a right."""
        settings = self.host.settings
        if self.trusted or matches_domain(address.domain, settings.relay_to):
            return True
        return settings.directory is not None and settings.directory.covers(address)

    def _goes_to(self, address: Address) -> Address:
        rewriting = self.host.settings.rewriting
        return address if rewriting is None else rewriting.goes_to(address)

    def _sender_of(self, transaction: Transaction) -> Address:
        rewriting = self.host.settings.rewriting
        written = None if rewriting is None else rewriting.sender(transaction.reverse_path)
        return transaction.reverse_path if written is None else written.address

    def _take_judged(self, transaction: Transaction, recipient: Recipient, refusal: Reply | None) -> None:
        """What the directory says of a recipient of a local domain."""
        address, directory = recipient.address, self.host.settings.directory
        assert directory is not None
        if refusal is not None:
            self._respond(refusal)
        elif not directory.is_to_resolve(self._goes_to(address)) and not self.host.has_route(address):
            self._respond(reply(550, "5.4.4", f"No route to {_printable(address)}"))
        else:
            self._ask_about(transaction, recipient)

    def _ask_about(self, transaction: Transaction, recipient: Recipient) -> None:
        if (sinks := self._chains.session) is None or SinkEvent.RCPT not in sinks:
            transaction.recipients.setdefault(recipient.address, recipient)
            self._respond(RECIPIENT_OK)
        else:
            then = partial(self._take_recipient, transaction, recipient)
            self._asker.ask(self._chains, SinkEvent.RCPT, then, transaction, recipient)

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
            self._asker.ask(self._chains, SinkEvent.DATA, then, transaction)

    def _take_content(self, transaction: Transaction, mode: ContentMode, word: Word) -> None:
        if word.refusal is not None:
            self._respond(word.refusal)
            return
        acceptor = self.host.acceptor
        transaction.begin_content(acceptor.new_id(), acceptor.spool.body_writer)
        self.in_content = True
        self._respond(START if mode is ContentMode.DATA else CHUNK_OK)

    def _on_chunk(self, event: ContentChunk) -> None:
        if self._transaction is not None:
            self._transaction.take(event.octets)

    def _on_content_ended(self, event: ContentEnded) -> None:
        self.in_content = False
        transaction = self._transaction
        assert transaction is not None and transaction.intake is not None
        if (transcript := self._connection.transcript) is not None:
            transcript.note("<", b"[%d octets of content]" % event.size)
        arrived = transaction.finish(event.over_limit)
        if isinstance(arrived, Reply):
            self.host.noted(self, "content.refused", arrived.text)
            self._drop()
            self._respond(arrived)
            return
        settings = self.host.settings
        self.is_busy = True
        self.host.acceptor.accept(
            transaction.id,
            transaction.envelope(),
            self._message_facts(transcript.flush() if transcript is not None else None, transaction.smtputf8),
            arrived,
            settings.door[self.trusted],
            self._on_verdict,
            edits=settings.edits,
            chains=self._chains,
        )

    def _on_verdict(self, verdict: Verdict) -> None:
        """The message is in custody, or refused."""
        if verdict.accepted:
            self.messages += 1
            if self._transaction is not None:
                self._transaction.release()  # what it stored is the spool's now
                self._transaction = None
        else:
            self._drop()
        self.is_busy = False
        if self._is_lost:
            return
        self._respond(verdict.reply)
        if not self._advancing:
            self.go_on()

    def go_on(self) -> None:
        """What was waited for is there: take up what has come in meanwhile."""
        self._advance()
        self._connection.resume()
        if self._is_half_closed and not self.is_busy and not self.is_closing:
            self._drop()
            self._end()

    def _message_facts(self, transcript: TranscriptRef | None, smtputf8: bool) -> Facts:
        facts, host = self._facts, self.host
        if facts is None:
            name, server = host.settings.name, host.acceptor.server
            lmtp = host.settings.options.lmtp
            facts = self._facts = facts_of(self, self._verb, name, host.revision, server, lmtp)
        if smtputf8:
            protocol = utf8_protocol(self, host.settings.options.lmtp)
            return msgspec.structs.replace(facts, transcript=transcript, protocol=protocol)
        return msgspec.structs.replace(facts, transcript=transcript)

    def _on_reset(self, event: ResetGiven | ChunkRefused) -> None:
        self._drop()

    def _drop(self) -> None:
        """Forget the transaction and what it stored."""
        if self._transaction is not None:
            self._transaction.drop()
            self._transaction = None
        self.in_content = False

    def _on_verify(self, event: VerifyGiven) -> None:
        settings = self.host.settings
        directory = settings.directory
        is_told = settings.verifies_for_all or (settings.verifies_for_trusted and self.trusted)
        if directory is None or not is_told:
            self._respond(NOT_VERIFIED)
            return
        noted = partial(self.host.noted, self)
        verify(directory, event.verb, event.argument, self.trusted, self._asker.wait, noted, self._respond)

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

    def note_sink(self, what: str, words: str, note: Note) -> None:
        self.host.noted(self, what, words, note)

    # -- logins and TLS ----------------------------------------------------------------------------

    def _on_auth(self, event: AuthRequested) -> None:
        noted = partial(self.host.noted, self)
        ask_login(event, self._chains, self._asker, self.host.settings.logins, self._answer_login, noted)

    def _answer_login(self, identity: bytes, answer: Reply, is_taken: bool) -> None:
        name = identity[:LOGIN_OCTETS].decode("utf-8", "backslashreplace")
        if not is_taken:
            self.host.noted(self, "login.refused", f"{name!r}: {answer.text}")
            self._respond(answer)
            return
        self.host.noted(self, "login.taken", repr(name))
        self._respond(answer)
        if not self._machine.is_closed:
            self.login = name
            self.trusted = True
            self._facts = None

    def _on_client(self, event: ClientStated) -> None:
        """XCLIENT: from here on the client, with its rights, is another."""
        host = self.host
        host.noted(
            self, "client.stated", f"{self.client} speaks for {event.address!r}, login {event.login!r}"
        )
        host.closed(self)
        self._stated = event
        if event.address is not None:
            self.client = event.address
        self.login = event.login
        self.trusted = bool(event.login) or host.is_trusted(self.client)
        self.helo = ""
        self._facts = None
        refusal = host.opened(self)
        if refusal is not None:
            self._respond(refusal)
        elif self._chains.session is None:
            self._greet_anew(UNSAID)
        else:
            self._asker.ask(self._chains, SinkEvent.CONNECT, self._greet_anew)

    def _greet_anew(self, word: Word) -> None:
        if word.refusal is not None:
            self._greet(word)
            return
        words = b"ESMTP" if word.acceptance is None else word.acceptance.lines[0]
        self._respond(Reply(220, "", (self._machine.options.hostname + b" " + words,)))

    def _on_tls(self, event: TlsRequested) -> None:
        context, transport = self.host.settings.tls, self._connection.transport
        assert context is not None and transport is not None
        # Nothing may be read between our 220 and the handshake: it belongs to TLS.
        transport.pause_reading()
        self._flush()
        self._drop()
        self.is_busy = True
        self._handshake = Handshake(self, self, transport, context)

    def tls_began(self, transport: asyncio.Transport, early: bytes) -> None:
        """Everything that was known of the client is forgotten (RFC 3207 §4.2); it has to greet anew."""
        self._handshake = None
        self._connection.transport = transport
        self.tls = tls_words(transport)
        self.helo = self.login = ""
        self.trusted = self.host.is_trusted(self.client)
        self._facts = None
        self._machine.tls_started()
        self._machine.feed(early)
        self.is_busy = False
        self._advance()

    def tls_failed(self, words: str) -> None:
        self.host.noted(self, "tls.failed", words)

    # -- the end -----------------------------------------------------------------------------------

    @property
    def in_transaction(self) -> bool:
        return self._transaction is not None

    def say_goodbye(self, answer: Reply) -> None:
        """End the session from our side, between commands or inside content; what was begun is dropped."""
        self.host.noted(self, "session.ended", answer.text)
        self._machine.fail(answer)
        self._drop()
        self._flush()
        self._end()

    def stop(self) -> bool:
        """The relay stops: say so unless a message is on its way. True when the session is closing."""
        if self.is_closing:
            return True
        if self.is_busy or self.in_content:
            return False
        self.say_goodbye(STOPPING)
        return True

    def abort(self) -> None:
        """The time to drain is over."""
        if self._connection.transport is not None:
            self._connection.transport.abort()


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
        ClientStated: Session._on_client,
        VerifyGiven: Session._on_verify,
        QuitGiven: Session._on_quit,
        Refused: Session._on_refused,
        Closed: Session._on_closed,
    },
)


def _printable(address: Address) -> str:
    return address.octets.decode("ascii", "backslashreplace")
