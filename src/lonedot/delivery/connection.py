"""One connection to a next hop: carries octets between a socket and the client machine, and keeps the time.

Rules: between the 354 and its reply only the encoder's octets are written; when the encoder finds that the stored
octets are not those that were accepted, the connection is dropped before the end of data, never after. No task runs
per message: a message is callbacks on this object. One timer watches all deadlines and is re-armed lazily.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import Executor
from typing import Protocol, assert_never, cast

import msgspec

from lonedot.delivery.jobs import Fault, Job, Sending, SessionFault, TransactionReport, error_words
from lonedot.delivery.routing import Timeouts
from lonedot.delivery.transcript import NOTE, PEER, RELAY, Line, content_line
from lonedot.message.encode import Sent
from lonedot.protocol.client import (
    ClientEvent,
    ClientMachine,
    ClientOptions,
    ContentWanted,
    Greeted,
    HandshakeWanted,
    Phase,
    Ready,
    RecipientsAnswered,
    SessionEnded,
    SessionFailed,
    TransactionEnded,
)
from lonedot.protocol.client_plan import Offer
from lonedot.protocol.errors import LocalProtocolError, RemoteProtocolError
from lonedot.sinks.events import Event
from lonedot.sinks.hop import Hop
from lonedot.terms.outcome import Stage
from lonedot.terms.reply import Reply

__all__ = ["Connection", "ConnectionOwner", "Opened"]

_NEVER = float("inf")

# Beyond this many octets that the peer has not taken, no more is read from the message.
_WRITE_AHEAD = 512 * 1024


class ConnectionOwner(Protocol):
    """The pool, as a connection sees it. All calls come from the event loop's callbacks."""

    def ended(self, connection: Connection, job: Job, report: TransactionReport) -> None:
        """A transaction is over; `connection.is_usable` says whether another may begin."""
        ...

    def withdrawn(self, connection: Connection) -> None:
        """The job had nothing to send in this session; the connection is as it was."""
        ...

    def gone(self, connection: Connection) -> None:
        """The connection will not be used again."""
        ...


class Opened(msgspec.Struct, frozen=True):
    """How far opening a session has come."""

    wants_handshake: bool = False
    wants_leave: bool = False
    """The server greets; nothing is said before `Connection.go_on`."""


_READY = Opened()
_HANDSHAKE = Opened(wants_handshake=True)
_GREETED = Opened(wants_leave=True)


class Connection(asyncio.Protocol):
    """One session. Made by the pool, which awaits `opening` (again after each that wants something) and starts jobs."""

    __slots__ = (
        "_armed_for",
        "_chunks",
        "_deadline",
        "_executor",
        "_gone",
        "_heard",
        "_held",
        "_hop",
        "_job",
        "_lines",
        "_loop",
        "_machine",
        "_owner",
        "_paused",
        "_pulling",
        "_sending",
        "_sent",
        "_started",
        "_timeouts",
        "_timer",
        "_timer_at",
        "_transport",
        "_why_gone",
        "idle_since",
        "messages",
        "next_hop",
        "opening",
        "session",
        "tls",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        owner: ConnectionOwner,
        options: ClientOptions,
        timeouts: Timeouts,
        hop: Hop,
        executor: Executor | None = None,
    ) -> None:
        self._loop = loop
        self._owner = owner
        self._machine = ClientMachine(options)
        self._timeouts = timeouts
        self._executor = executor
        self._hop = hop
        self._why_gone = ""
        self.session = hop.id
        self.next_hop = hop.next_hop
        """`host[address]:port`."""
        self.tls = ""
        self.messages = 0
        """Transactions begun."""
        self.idle_since = 0.0
        self.opening: asyncio.Future[Opened] = loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._job: Job | None = None
        self._sending: Sending | None = None
        self._sent: Sent | None = None
        self._chunks: Iterator[bytes] | None = None
        self._held = b""
        self._pulling = False
        self._paused = False
        self._gone = False
        self._started = loop.time()
        self._heard = 0.0
        """When the peer last said anything (time of the loop)."""
        self._lines: list[Line] = []
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._deadline = _NEVER
        self._armed_for = Phase.GREETING

    # --- for the pool -------------------------------------------------------------------------------

    @property
    def is_usable(self) -> bool:
        """Another transaction may begin."""
        return self._machine.phase is Phase.READY and not self._gone

    @property
    def is_gone(self) -> bool:
        """Closed, or about to be."""
        return self._gone

    @property
    def is_leaving(self) -> bool:
        """QUIT was said, its reply is still to come."""
        return self._machine.phase is Phase.QUIT and not self._gone

    @property
    def offer(self) -> Offer:
        return self._machine.offer

    @property
    def transport(self) -> asyncio.Transport:
        assert self._transport is not None
        return self._transport

    def hop_at(self, event: Event) -> Hop:
        """This session as a sink is shown it."""
        offered = tuple([line.decode("utf-8", "backslashreplace") for line in self._machine.keywords])
        return msgspec.structs.replace(self._hop, event=event, tls=self.tls, offered=offered)

    def take_lines(self) -> list[Line]:
        """The record since the last call."""
        lines = self._lines
        self._lines = []
        return lines

    def note(self, words: str) -> None:
        self._lines.append((self._loop.time() - self._started, NOTE, words.encode()))

    def tls_started(self, transport: asyncio.Transport, words: str) -> None:
        """The handshake is done; `opening` is new and waits for the session inside TLS."""
        self._transport = transport
        transport.set_write_buffer_limits(_WRITE_AHEAD)
        self.tls = words
        self.note(f"TLS began: {words}")
        self.opening = self._loop.create_future()
        self._machine.tls_started()
        self._flush()

    def go_on(self) -> None:
        """Say EHLO to the server that greeted us; `opening` is new.

        Raises:
            SessionFault: the connection was lost meanwhile.
        """
        if self._gone:
            raise SessionFault(Stage.EHLO, self._why_gone)
        self.opening = self._loop.create_future()
        try:
            self._machine.go_on()
        except RemoteProtocolError as error:
            self._lost(f"the next hop broke the protocol: {error}")
            return
        self._flush()

    def start(self, job: Job) -> bool:
        """Begin the job's transaction; only when usable. False: the job had nothing to send and has ended itself."""
        self._deadline = _NEVER
        try:
            prepared = job.prepare(self._machine.offer, self.next_hop, self.hop_at)
        except Exception as error:  # a bug may cost one message its attempt, not its place in the queue
            job.finished(self._report((), Stage.LOCAL, None, _bug(error)))
            return False
        if prepared is None:
            return False
        self._job = job
        if isinstance(prepared, Sending):
            self._begin(prepared)
        else:
            future = asyncio.ensure_future(prepared)
            future.add_done_callback(self._prepared)
        return True

    def quit(self) -> None:
        """Say QUIT and close when it is answered, or soon."""
        if self._gone or self._transport is None:
            return
        if self._machine.phase is Phase.CLOSED:
            self._lost("closed")
            return
        self._machine.quit()
        self._flush()

    def abort(self, words: str = "the relay stops") -> None:
        """Close now. A running job is reported as lost."""
        self._lost(words)

    # --- asyncio ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # STARTTLS makes a second transport, which `tls_started` is told of.
        if self._transport is None:
            self._transport = cast(asyncio.Transport, transport)
            self._transport.set_write_buffer_limits(_WRITE_AHEAD)
            self._arm(self._timeouts.greeting)

    def data_received(self, data: bytes) -> None:
        if self._gone:
            return
        machine = self._machine
        self._heard = now = self._loop.time()
        self._lines.append((now - self._started, PEER, machine.redact(data)))
        if machine.phase is Phase.HANDSHAKE:
            self._lost("plaintext behind the reply to STARTTLS")
            return
        machine.feed(data)
        try:
            while (event := machine.next_event()) is not None:
                self._handle(event)
                if self.is_gone:
                    return
        except RemoteProtocolError as error:
            self._lost(f"the next hop broke the protocol: {error}")
            return
        self._flush()
        if machine.phase is not self._armed_for and self._sending is not None:
            self._rearm()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is None:
            self._lost("the next hop closed the connection")
        else:
            self._lost(f"the connection was lost: {error_words(exc)}")

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._chunks is not None and not self._pulling:
            self._pull()

    # --- events -------------------------------------------------------------------------------------------

    def _handle(self, event: ClientEvent) -> None:
        match event:
            case ContentWanted():
                self._send_content(self._take())
            case TransactionEnded():
                self._end_job(event.recipients, event.stage, event.reply, None, finals=event.finals)
                if self._gone:
                    self._owner.gone(self)
            case Ready():
                self._deadline = _NEVER
                if not self.opening.done():
                    self.opening.set_result(_READY)
            case RecipientsAnswered():
                self._ask_job()
            case Greeted():
                self._deadline = _NEVER
                if not self.opening.done():
                    self.opening.set_result(_GREETED)
            case HandshakeWanted():
                # Nothing more is read in plaintext: what comes now belongs to the handshake.
                self.transport.pause_reading()
                self._deadline = _NEVER
                if not self.opening.done():
                    self.opening.set_result(_HANDSHAKE)
            case SessionFailed():
                if not self.opening.done():
                    self.opening.set_exception(SessionFault(event.stage, event.words, event.reply))
            case SessionEnded():
                self._lost("the next hop closed the session")
            case _:
                assert_never(event)

    # --- a transaction ---------------------------------------------------------------------------------------

    def _prepared(self, future: asyncio.Future[Sending | None]) -> None:
        """A message that took work in a thread is ready; the connection may have died meanwhile."""
        error = None if future.cancelled() else future.exception()
        job = self._job
        if job is None:
            return
        if future.cancelled():
            self._job = None
            job.not_tried()
            if not self._gone:
                self._owner.withdrawn(self)
            return
        if error is not None:
            self._end_job((), Stage.LOCAL, None, _bug(error))
            return
        sending = future.result()
        if sending is None:
            self._job = None
            if not self._gone:
                self._owner.withdrawn(self)
            return
        self._begin(sending)

    def _begin(self, sending: Sending) -> None:
        machine = self._machine
        self._sending = sending
        self._sent = None
        # A connection that has lain idle may be closed already at the other end. There the end of data must not be
        # the first thing written, or nobody could tell whether the message was taken.
        is_fresh = self._loop.time() - self._heard < 1.0
        try:
            machine.begin(sending.plan, at_once=is_fresh, asks=sending.before_data is not None)
        except RemoteProtocolError as error:
            self._lost(f"the next hop broke the protocol: {error}")
            return
        except LocalProtocolError as error:
            self._fail_here(error)
            return
        self.messages += 1
        if machine.wants_content:
            self._send_content(self._take())
            self._rearm()
        else:
            self._flush()

    def _ask_job(self) -> None:
        """Every RCPT is answered: is the content to go?"""
        sending = self._sending
        assert sending is not None and sending.before_data is not None
        try:
            goes = sending.before_data(self._machine.recipient_replies)
        except Exception as error:  # a bug may cost one message its attempt
            self._fail_here(error)
            return
        if isinstance(goes, bool):
            self._decided(goes)
            return
        # Our own time is not the peer's silence.
        self._deadline = _NEVER
        future = asyncio.ensure_future(goes)
        future.add_done_callback(lambda done: self._told(sending, done))

    def _told(self, sending: Sending, future: asyncio.Future[bool]) -> None:
        """The job knows whether its content goes; the connection may have died meanwhile."""
        error = None if future.cancelled() else future.exception()
        if self._sending is not sending or self._gone:
            return
        if future.cancelled():
            self._lost("the relay stops")
        elif error is not None:
            self._fail_here(error)
        else:
            self._decided(future.result())

    def _decided(self, goes: bool) -> None:
        machine = self._machine
        if not goes:
            recipients = machine.recipient_replies
            machine.withhold()
            self.note("no DATA: a sink refuses")
            self._end_job(recipients, Stage.DATA, None, None, is_withheld=True)
            return
        try:
            machine.go_on()
        except RemoteProtocolError as error:
            self._lost(f"the next hop broke the protocol: {error}")
            return
        if machine.wants_content:
            self._send_content(self._take())
            self._rearm()
        else:
            self._flush()

    def _take(self) -> bytes:
        """Commands to be written together with content."""
        out, shown = self._machine.take_output()
        if shown:
            self._lines.append((self._loop.time() - self._started, RELAY, shown))
        return out

    def _send_content(self, commands: bytes) -> None:
        """Write what the encoder gives, the commands and its first octets in one write.

        Always one piece behind the encoder: the last piece, which has the end of data in it, is written only when it
        is known to be the last, together with telling the machine. Else a quick peer's reply, or the loss of the
        connection, could be met while the end of data seems not to be written yet.
        """
        sending = self._sending
        assert sending is not None
        chunks = sending.encoder.chunks()
        if not sending.in_memory:
            self._held = commands
            self._chunks = chunks
            self._pull()
            return
        try:
            first = next(chunks)
            second = next(chunks, None)
        except Exception as error:  # whatever the encoder raises means: not these octets
            self._fail_here(error)
            return
        self._held = commands + first if commands else first
        if second is None:
            self._content_written()
            return
        self._go_on(second)
        self._chunks = chunks
        self._pull()

    def _pull(self) -> None:
        """Go on writing content until the peer takes no more for now, or all is written."""
        sending, chunks = self._sending, self._chunks
        if sending is None or chunks is None or self._gone:
            return
        if not sending.in_memory:
            if not self._paused:
                self._pulling = True
                self._loop.run_in_executor(self._executor, next, chunks, None).add_done_callback(self._pulled)
            return
        try:
            while not self._paused:
                chunk = next(chunks, None)
                if chunk is None:
                    self._content_written()
                    return
                self._go_on(chunk)
        except Exception as error:  # as above
            self._fail_here(error)
            return

    def _pulled(self, future: asyncio.Future[bytes | None]) -> None:
        """A thread has read, stuffed and hashed a piece."""
        self._pulling = False
        error = future.exception()
        if self._gone or self._chunks is None:
            return
        if error is not None:
            self._fail_here(error)
            return
        chunk = future.result()
        if chunk is None:
            self._content_written()
            return
        self._go_on(chunk)
        self._pull()

    def _go_on(self, chunk: bytes) -> None:
        """Write the piece before this one."""
        if self._held:
            self.transport.write(self._held)
            self._arm(self._timeouts.block)
        self._held = chunk

    def _content_written(self) -> None:
        sending = self._sending
        assert sending is not None
        self.transport.write(self._held)
        self._chunks = None
        self._held = b""
        sent = sending.encoder.record()
        self._sent = sent
        self._lines.append((self._loop.time() - self._started, NOTE, content_line(sent.size, sent.tail)))
        self._machine.content_sent()
        self._rearm()

    def _end_job(
        self,
        recipients: tuple[Reply | None, ...],
        stage: Stage,
        reply: Reply | None,
        fault: Fault | None,
        is_withheld: bool = False,
        finals: tuple[Reply | None, ...] = (),
    ) -> None:
        job = self._job
        if job is None:
            return
        report = self._report(recipients, stage, reply, fault, is_withheld, finals)
        self._job = self._sending = self._sent = self._chunks = None
        self._deadline = _NEVER
        if self._machine.phase is Phase.CLOSED:
            self._close()
        self._owner.ended(self, job, report)

    def _report(
        self,
        recipients: tuple[Reply | None, ...],
        stage: Stage,
        reply: Reply | None,
        fault: Fault | None,
        is_withheld: bool = False,
        finals: tuple[Reply | None, ...] = (),
    ) -> TransactionReport:
        passes_dsn = self._sending is not None and self._sending.plan.passes_dsn
        return TransactionReport(
            self.session,
            self.next_hop,
            self.tls,
            recipients,
            stage,
            reply,
            self._sent,
            passes_dsn,
            self.take_lines(),
            fault,
            is_withheld,
            finals,
        )

    # --- endings ------------------------------------------------------------------------------------------------

    def _fail_here(self, cause: BaseException) -> None:
        """Our own octets cannot be sent: drop the connection, so that what was begun is never completed."""
        self.note(f"dropped by us: {cause}")
        machine = self._machine
        fault = Fault(Stage.LOCAL, str(cause), machine.end_written, cause=cause)
        recipients, finals = machine.recipient_replies, machine.final_replies
        self._close()
        self._end_job(recipients, Stage.LOCAL, None, fault, finals=finals)
        self._owner.gone(self)

    def _lost(self, words: str) -> None:
        """The session is over, whoever ended it."""
        if self._gone:
            return
        self.note(words)
        self._why_gone = words
        machine = self._machine
        stage, recipients, end_written = machine.stage, machine.recipient_replies, machine.end_written
        finals = machine.final_replies
        stale = self.messages > 1 and machine.replies_seen == 0 and not end_written
        self._close()
        if not self.opening.done():
            self.opening.set_exception(SessionFault(stage, words))
        if (refused := machine.mail_refused) is not None:
            self._end_job((), Stage.MAIL, refused, None)
        elif self._sending is not None:
            fault = Fault(stage, words, end_written, is_stale=stale)
            self._end_job(recipients, stage, None, fault, finals=finals)
        elif self._job is not None:
            # Still being prepared: nothing was begun.
            self._end_job((), stage, None, Fault(stage, words, False, is_stale=True))
        self._owner.gone(self)

    def _close(self) -> None:
        if self._gone:
            return
        self._gone = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None:
            self._transport.abort()

    # --- octets and time ----------------------------------------------------------------------------------------

    def _flush(self) -> None:
        machine = self._machine
        out, shown = machine.take_output()
        if not out or self._gone:
            return
        self._lines.append((self._loop.time() - self._started, RELAY, shown))
        self.transport.write(out)
        self._rearm()

    def _rearm(self) -> None:
        """The deadline of what the machine waits for (RFC 5321 §4.5.3.2)."""
        phase = self._machine.phase
        timeouts = self._timeouts
        self._armed_for = phase
        if phase is Phase.END:
            self._arm(timeouts.end)
        elif phase is Phase.DATA:
            self._arm(timeouts.data)
        elif phase is Phase.CONTENT:
            self._arm(timeouts.block)
        elif phase is Phase.QUIT:
            self._arm(timeouts.quit)
        elif phase is Phase.ANSWERED:
            self._deadline = _NEVER
        else:
            self._arm(timeouts.command)

    def _arm(self, seconds: float) -> None:
        """Let the peer be silent for so long from now. Cheap: the timer moves only when it would ring too late."""
        deadline = self._loop.time() + seconds
        self._deadline = deadline
        timer = self._timer
        if timer is None or self._timer_at > deadline:
            if timer is not None:
                timer.cancel()
            self._timer_at = deadline
            self._timer = self._loop.call_at(deadline, self._rang)

    def _rang(self) -> None:
        self._timer = None
        deadline = self._deadline
        if deadline == _NEVER:
            return
        if self._loop.time() < deadline:
            self._timer_at = deadline
            self._timer = self._loop.call_at(deadline, self._rang)
            return
        machine = self._machine
        if machine.phase is Phase.CONTENT:
            self._lost("the next hop took no more of the content in time")
        elif machine.phase is Phase.END:
            self._lost("the next hop did not answer the end of data in time")
        else:
            self._lost(f"no reply in time to {machine.phase.value}")


def _bug(error: BaseException) -> Fault:
    return Fault(Stage.LOCAL, f"the relay failed on this message: {error!r}", False, cause=error)
