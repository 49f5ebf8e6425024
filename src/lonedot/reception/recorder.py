"""A receiver that records: strict by default, so that what it accepts was ended rightly.

It takes all mail and hands nothing on. It shows what arrived (envelope, content, the octets of the DATA phase as they
came), it can be made to refuse, to offer less, to hang up or to read like an old server, and it tells when a client
waits for a reply to an end of data that is none. `lonedot receive` and `lonedot try` use it, and tests as a next hop.

It drives the same server machine as the relay; what it adds is only what a relay must not do.
"""

from __future__ import annotations

import asyncio
import enum
import ssl
from collections.abc import Callable
from typing import assert_never, cast

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
from lonedot.protocol.options import DEFAULT_KEYWORDS, ServerLimits, ServerOptions
from lonedot.protocol.server import ServerMachine
from lonedot.reception.lenient import LenientDecoder, look_alike
from lonedot.terms.envelope import Envelope, Recipient
from lonedot.terms.reply import Reply, reply

__all__ = ["HangUp", "Line", "Recorded", "Recorder", "RecorderOptions", "RecorderStage", "Waiting"]

Line = tuple[float, str, bytes]
"""Seconds since the session began; `<` from the client, `>` to it, `#` a note; octets."""

_OK = reply(250, "2.0.0", "OK")
_GO_AHEAD = reply(354, "", "Go ahead; end with a dot on a line by itself")
_MAX_LINES = 5000


class RecorderStage(enum.Enum):
    """Where a reply can be scripted, and where the recorder can hang up."""

    CONNECT = "connect"
    EHLO = "ehlo"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    CONTENT = "content"
    """The reply to the end of data."""


class HangUp(msgspec.Struct, frozen=True):
    """Close the connection without a reply: when a stage is reached or, in CONTENT, after so many octets."""

    stage: RecorderStage
    after_octets: int = -1
    """In CONTENT: octets of the DATA phase after which it happens; -1 means at the end of data, message recorded."""


class RecorderOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How the recorder behaves."""

    host: str = "127.0.0.1"
    port: int = 0
    """0 takes a free one."""
    hostname: bytes = b"recorder.example"
    is_lenient: bool = False
    """Ends a message also at LF.LF, LF.CRLF and CRLF.LF."""
    not_offered: frozenset[bytes] = frozenset()
    """EHLO keywords, upper case."""
    max_size: int = 256 * 1024 * 1024
    tls: ssl.SSLContext | None = None
    implicit_tls: bool = False
    logins: frozenset[tuple[bytes, bytes]] = frozenset()
    """Names and passwords; AUTH is offered when there is one."""
    auth_requires_tls: bool = True
    hang_up: HangUp | None = None
    answer: Callable[[RecorderStage, bytes], Reply | None] | None = None
    """Asked at each stage with the address, the name in EHLO or nothing; None gives the usual positive reply."""
    silence_seconds: float = 2.0
    """A client that is silent inside a message for so long is reported as waiting."""
    keep: int = 1000
    """Messages kept in `messages`; older ones are forgotten."""


class Recorded(msgspec.Struct, frozen=True):
    """One message as it came."""

    number: int
    """Counted from 1."""
    session: int
    client: str
    helo: bytes
    tls: str
    """Version and cipher; empty without TLS."""
    login: bytes
    envelope: Envelope
    mode: str
    """`DATA` or `BDAT`."""
    content: bytes
    """The message, dots removed."""
    wire: bytes
    """Everything between 354 and the reply, as it came; for BDAT the same as the content."""
    ended_by: bytes
    """What was taken for the end of data; empty for BDAT."""
    reply: Reply
    """What the client was told."""
    lines: tuple[Line, ...]
    """The session so far, content left out."""


class Waiting(msgspec.Struct, frozen=True):
    """A client that stopped inside a message."""

    session: int
    client: str
    received: int
    """Octets of the DATA phase so far."""
    tail: bytes
    """The last 64 of them."""
    look_alike: bytes
    """The end that the client may believe in, such as LF.CRLF; empty when the tail looks like none."""
    has_left: bool
    """The client closed the connection; else it is silent."""


class Recorder:
    """Listens from `start` to `stop`. All callbacks run on the loop."""

    def __init__(
        self,
        options: RecorderOptions | None = None,
        on_message: Callable[[Recorded], None] | None = None,
        on_waiting: Callable[[Waiting], None] | None = None,
    ) -> None:
        self.options = options or RecorderOptions()
        self.messages: list[Recorded] = []
        self.waiting: list[Waiting] = []
        self.refused: list[Refused] = []
        """Commands that were refused for their grammar or sequence."""
        self.count = 0
        """Messages recorded since the start."""
        self.sessions = 0
        self._on_message = on_message
        self._on_waiting = on_waiting
        self._open: set[_Session] = set()
        self._server: asyncio.Server | None = None
        self._arrived = asyncio.Event()
        self._machine_options = _machine_options(self.options)

    @property
    def port(self) -> int:
        """The port that is listened at."""
        assert self._server is not None, "not started"
        port = self._server.sockets[0].getsockname()[1]
        assert isinstance(port, int)
        return port

    @property
    def connections(self) -> int:
        """Sessions that are open now."""
        return len(self._open)

    async def start(self) -> None:
        """Begin to listen. Raises OSError when the address cannot be had."""
        options = self.options
        context = options.tls if options.implicit_tls else None
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _Session(self), options.host, options.port, ssl=context, backlog=512
        )

    async def stop(self) -> None:
        """Close the listener and every session."""
        if self._server is None:
            return
        self._server.close()
        for session in list(self._open):
            session.abort()
        await self._server.wait_closed()
        for _ in range(100):  # a session is gone when the loop has told it so
            if not self._open:
                break
            await asyncio.sleep(0)
        self._server = None

    async def __aenter__(self) -> Recorder:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def wait_for(self, count: int, timeout_seconds: float = 10.0) -> None:
        """Until so many messages were recorded in all. Raises TimeoutError."""
        async with asyncio.timeout(timeout_seconds):
            while self.count < count:
                self._arrived.clear()
                await self._arrived.wait()

    # --- for sessions ---

    def _take(self, message: Recorded) -> None:
        self.messages.append(message)
        if len(self.messages) > self.options.keep:
            del self.messages[0]
        self.count = message.number
        self._arrived.set()
        if self._on_message is not None:
            self._on_message(message)

    def _tell_waiting(self, waiting: Waiting) -> None:
        if len(self.waiting) < self.options.keep:
            self.waiting.append(waiting)
        if self._on_waiting is not None:
            self._on_waiting(waiting)


def _machine_options(options: RecorderOptions) -> ServerOptions:
    many = 1_000_000_000
    return ServerOptions(
        hostname=options.hostname,
        keywords=DEFAULT_KEYWORDS - options.not_offered,
        tls_available=options.tls is not None,
        tls_active=options.implicit_tls,
        auth_mechanisms=(b"PLAIN", b"LOGIN") if options.logins else (),
        auth_requires_tls=options.auth_requires_tls,
        limits=ServerLimits(
            size=options.max_size, recipients=100_000, errors=1000, rejections=many, idle_commands=many
        ),
    )


class _Session(asyncio.Protocol):
    """One connection."""

    def __init__(self, recorder: Recorder) -> None:
        recorder.sessions += 1
        self.number = recorder.sessions
        self._recorder = recorder
        self._options = recorder.options
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._machine = ServerMachine(recorder._machine_options, self._hear)
        self._transport: asyncio.Transport | None = None
        self._handshake: asyncio.Task[None] | None = None
        self._client = ""
        self._tls = ""
        self._helo = b""
        self._login = b""
        self._lines: list[Line] = []
        self._mail: MailGiven | None = None
        self._recipients: list[Recipient] = []
        self._chunks: list[bytes] = []
        self._wire: bytearray | None = None
        """The DATA phase so far; None outside of it."""
        self._wire_start = 0
        self._lenient: LenientDecoder | None = None
        self._heard_at = 0.0
        self._told = False
        self._timer: asyncio.TimerHandle | None = None

    # --- the connection ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        renewed = self._transport is not None
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one by its methods alone
        self._note_tls(self._transport)
        if renewed:
            return
        peer = transport.get_extra_info("peername")
        self._client = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else str(peer)
        self._recorder._open.add(self)
        self._hear_note(b"connected")
        if self._hangs_up(RecorderStage.CONNECT):
            return
        refusal = self._ask(RecorderStage.CONNECT, b"")
        if refusal is not None:
            self._machine.fail(refusal)
            self._advance()
        else:
            self._write(self._machine.greeting())

    def _note_tls(self, transport: asyncio.Transport) -> None:
        tls = transport.get_extra_info("ssl_object")
        if tls is not None:
            cipher = tls.cipher()
            self._tls = f"{tls.version()} {cipher[0] if cipher else ''}".strip()

    def data_received(self, data: bytes) -> None:
        self._heard_at = self._loop.time()
        if self._wire is None:
            self._machine.feed(data)
        else:
            self._take_wire(data)
        self._advance()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._hear_note(b"connection closed")
        if self._wire is not None:
            self._told = False
            self._tell_waiting(has_left=True)
        self._wire = None
        self._recorder._open.discard(self)

    def eof_received(self) -> bool:
        return False

    def abort(self) -> None:
        """Drop the connection now."""
        if self._handshake is not None:
            self._handshake.cancel()
        if self._transport is not None:
            self._transport.abort()

    # --- events ---

    def _advance(self) -> None:
        machine = self._machine
        while not self._is_closing and (event := machine.next_event()) is not None:
            self._handle(event)
        output = machine.take_output()
        if output and not self._is_closing:
            self._write(output)
        if machine.is_closed and self._transport is not None:
            self._transport.close()

    @property
    def _is_closing(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def _handle(self, event: Event) -> None:
        machine = self._machine
        match event:
            case Greeted():
                self._helo = event.name
                self._forget()
                self._hangs_up(RecorderStage.EHLO)
            case MailGiven():
                if self._decide(RecorderStage.MAIL, event.reverse_path.octets):
                    self._mail = event
            case RcptGiven():
                if self._decide(RecorderStage.RCPT, event.recipient.address.octets):
                    self._recipients.append(event.recipient)
            case ContentBegun():
                self._begin(event.mode)
            case ContentChunk():
                self._chunks.append(event.octets)
            case ContentEnded():
                self._end(event)
            case AuthRequested():
                self._log_in(event)
            case VerifyGiven():
                machine.respond(reply(252, "2.1.5", "Cannot verify, will take the message"))
            case CommandHeard():
                machine.obey()
            case ClientStated():
                machine.respond(reply(550, "5.7.0", "Not here"))
            case TlsRequested():
                self._start_tls()
            case ResetGiven() | ChunkRefused():
                self._forget()
            case Refused():
                if len(self._recorder.refused) < self._options.keep:
                    self._recorder.refused.append(event)
            case QuitGiven() | Closed():
                pass
            case _ as never:
                assert_never(never)

    def _decide(self, stage: RecorderStage, argument: bytes) -> bool:
        """Answers the open decision; true when the answer is positive."""
        if self._hangs_up(stage):
            return False
        answer = self._ask(stage, argument) or _OK
        self._machine.respond(answer)
        return answer.is_positive

    def _ask(self, stage: RecorderStage, argument: bytes) -> Reply | None:
        return None if self._options.answer is None else self._options.answer(stage, argument)

    def _hangs_up(self, stage: RecorderStage) -> bool:
        hang_up = self._options.hang_up
        if hang_up is None or hang_up.stage is not stage or hang_up.after_octets >= 0:
            return False
        self._hear_note(b"hung up on purpose")
        self.abort()
        return True

    def _log_in(self, event: AuthRequested) -> None:
        if self._hangs_up(RecorderStage.AUTH):
            return
        answer = self._ask(RecorderStage.AUTH, event.identity)
        if answer is None:
            known = (event.identity, event.password) in self._options.logins
            answer = (
                reply(235, "2.7.0", "Welcome") if known else reply(535, "5.7.8", "Unknown name or password")
            )
        if answer.is_positive:
            self._login = event.identity
        self._machine.respond(answer)

    def _start_tls(self) -> None:
        transport, context = self._transport, self._options.tls
        assert transport is not None and context is not None
        self._write(self._machine.take_output())
        transport.pause_reading()
        self._handshake = self._loop.create_task(self._shake_hands(transport, context))

    async def _shake_hands(self, transport: asyncio.Transport, context: ssl.SSLContext) -> None:
        try:
            secured = await self._loop.start_tls(transport, self, context, server_side=True)
        except (OSError, ssl.SSLError) as error:
            self._hear_note(f"TLS failed: {error}".encode())
            transport.abort()
            return
        if secured is None:
            return
        self._transport = secured
        self._note_tls(secured)
        self._hear_note(f"TLS: {self._tls}".encode())
        self._machine.tls_started()
        self._advance()

    # --- content ---

    def _begin(self, mode: ContentMode) -> None:
        if self._hangs_up(RecorderStage.DATA):
            return
        answer = self._ask(RecorderStage.DATA, b"")
        if answer is not None and not answer.is_positive:
            self._machine.respond(answer)
            return
        if mode is ContentMode.BDAT:
            self._machine.respond(_OK)
            return
        self._machine.respond(_GO_AHEAD)
        self._wire = bytearray()
        self._wire_start = self._machine.consumed
        self._lenient = LenientDecoder() if self._options.is_lenient else None
        self._told = False
        self._heard_at = self._loop.time()
        self._arm()

    def _take_wire(self, data: bytes) -> None:
        """Octets inside DATA."""
        wire = self._wire
        assert wire is not None
        if self._told:
            self._told = False
            self._arm()
        wire += data
        hang_up = self._options.hang_up
        if (
            hang_up is not None
            and hang_up.stage is RecorderStage.CONTENT
            and 0 <= hang_up.after_octets <= len(wire)
        ):
            self._hear_note(b"hung up on purpose inside the message")
            self.abort()
            return
        if self._lenient is None:
            self._machine.feed(data)
            return
        rest = self._lenient.feed(data)
        if rest is None:
            if self._lenient.size > self._options.max_size:
                self._machine.fail(reply(552, "5.3.4", "Message size exceeds the limit"))
            return
        # The machine knows one end of data only, so it is given that one, and an empty text before it.
        self._machine.feed(b".\r\n" + rest)

    def _end(self, event: ContentEnded) -> None:
        lenient, self._lenient = self._lenient, None
        content = b"".join(self._chunks)
        wire, ended_by = content, b""
        if event.mode is ContentMode.DATA:
            assert self._wire is not None
            if lenient is not None:
                wire, ended_by, content = lenient.octets, lenient.ended_by, lenient.content()
            else:
                wire = bytes(self._wire[: self._machine.consumed - self._wire_start])
                ended_by = b"\r\n.\r\n" if len(wire) > 3 else wire
        self._wire = None
        self._add_line(
            "<", b"[%d octets of %s, ending in %s]" % (len(wire), event.mode.value.encode(), _last(wire))
        )
        hang_up = self._options.hang_up
        is_leaving = (
            hang_up is not None and hang_up.stage is RecorderStage.CONTENT and hang_up.after_octets < 0
        )
        number = self._recorder.count + 1
        answer = self._ask(RecorderStage.CONTENT, b"") or reply(250, "2.0.0", f"Recorded as {number}")
        if event.over_limit:
            answer = reply(552, "5.3.4", "Message size exceeds the limit")
        if answer.is_positive:
            self._recorder._take(self._record(number, event.mode, content, wire, ended_by, answer))
        self._forget()
        if is_leaving:
            self._hear_note(b"hung up on purpose instead of a reply")
            self.abort()
            return
        self._machine.respond(answer)

    def _record(
        self, number: int, mode: ContentMode, content: bytes, wire: bytes, ended_by: bytes, answer: Reply
    ) -> Recorded:
        mail = self._mail
        assert mail is not None
        return Recorded(
            number=number,
            session=self.number,
            client=self._client,
            helo=self._helo,
            tls=self._tls,
            login=self._login,
            envelope=Envelope(
                reverse_path=mail.reverse_path,
                recipients=tuple(self._recipients),
                body=mail.body,
                smtputf8=mail.smtputf8,
                ret=mail.ret,
                envid=mail.envid,
            ),
            mode=mode.value,
            content=content,
            wire=wire,
            ended_by=ended_by,
            reply=answer,
            lines=(*self._lines, (self._loop.time() - self._began, ">", answer.encode())),
        )

    def _forget(self) -> None:
        self._mail = None
        self._recipients = []
        self._chunks = []

    # --- clients that wait ---

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(self._options.silence_seconds, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._wire is None:
            return
        silent_for = self._loop.time() - self._heard_at
        left = self._options.silence_seconds - silent_for
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
        else:
            self._tell_waiting(has_left=False)

    def _tell_waiting(self, *, has_left: bool) -> None:
        wire = self._wire
        if wire is None or self._told:
            return
        self._told = True
        tail = bytes(wire[-64:])
        self._recorder._tell_waiting(
            Waiting(self.number, self._client, len(wire), tail, look_alike(tail), has_left)
        )

    # --- the transcript ---

    def _write(self, octets: bytes) -> None:
        self._add_line(">", octets)
        assert self._transport is not None
        self._transport.write(octets)

    def _hear(self, command: bytes) -> None:
        self._add_line("<", command + b"\r\n")

    def _hear_note(self, words: bytes) -> None:
        self._add_line("#", words)

    def _add_line(self, direction: str, octets: bytes) -> None:
        if len(self._lines) < _MAX_LINES:
            self._lines.append((self._loop.time() - self._began, direction, octets))


def _last(wire: bytes) -> bytes:
    return wire[-16:].decode("latin-1").encode("unicode_escape")
