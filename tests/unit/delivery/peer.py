"""A next hop on a loopback socket that says what a test wants, and remembers every octet that it was told.

It answers like a plain SMTP server (DATA, BDAT, AUTH, STARTTLS: without a context it breaks the handshake)
unless `answers` has something else for a verb:
octets to send instead, `HANG_UP` to close without a word, `SILENCE` to say nothing. A list gives one answer per
use, its last one repeated. With `lmtp` it speaks LMTP: an answer for `END <address>` is that recipient's behind the
end of data.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import cast

__all__ = ["HANG_UP", "SILENCE", "Peer", "Received", "running"]

HANG_UP = b"\0hang up"
SILENCE = b"\0silence"
Answer = bytes | Sequence[bytes]


class Received:
    """One message as it came."""

    def __init__(self, session: int, mail: bytes, recipients: list[bytes], octets: bytes, mode: str) -> None:
        self.session = session
        self.mail = mail
        self.recipients = recipients
        self.octets = octets
        """Between 354 and the end of data, end included (DATA), or the octets of the chunk (BDAT)."""
        self.mode = mode


class Peer:
    """The server; `port` once it runs."""

    def __init__(
        self,
        offer: Sequence[bytes] = (b"PIPELINING", b"8BITMIME", b"SIZE 10000000", b"ENHANCEDSTATUSCODES"),
        answers: Mapping[bytes, Answer] | None = None,
        tls: ssl.SSLContext | None = None,
        implicit: bool = False,
        hang_up_after: int = 0,
        behind_starttls: bytes = b"",
        lmtp: bool = False,
    ) -> None:
        self.offer = offer
        self.answers = dict(answers or {})
        self.tls = tls
        self.implicit = implicit
        self.hang_up_after = hang_up_after
        """Close the session behind this many messages without a word; 0 never does."""
        self.behind_starttls = behind_starttls
        self.lmtp = lmtp
        self.port = 0
        self.sessions = 0
        self.commands: list[bytes] = []
        self.segments: list[bytes] = []
        """What each read gave: shows what was written at once."""
        self.messages: list[Received] = []
        self.logins: list[bytes] = []
        self.open = 0
        self._used: dict[bytes, int] = {}

    def answer(self, verb: bytes, default: bytes) -> bytes:
        given = self.answers.get(verb)
        if given is None:
            return default
        if isinstance(given, bytes):
            return given
        used = self._used.get(verb, 0)
        self._used[verb] = used + 1
        return given[min(used, len(given) - 1)] or default


class _Session(asyncio.Protocol):
    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.number = 0
        self.buffer = b""
        self.encrypted = peer.implicit
        self.mail = b""
        self.recipients: list[bytes] = []
        self.accepted = 0
        self.taken: list[bytes] = []
        self.in_data = False
        self.chunk = 0
        self.messages = 0
        self.login_step = 0
        self.garbles = False
        self.shakes = False
        self.transport: asyncio.Transport | None = None
        self.task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        first = self.transport is None
        self.transport = cast(asyncio.Transport, transport)
        if first:
            self.peer.sessions += 1
            self.peer.open += 1
            self.number = self.peer.sessions
            self.say(self.peer.answer(b"GREETING", b"220 peer.example ready\r\n"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.peer.open -= 1

    def data_received(self, data: bytes) -> None:
        self.peer.segments.append(data)
        if self.garbles:
            self.say(self.peer.answer(b"GARBLE", b"this is not TLS\r\n"))
            return
        self.buffer += data
        self.work()

    def work(self) -> None:
        while not self.shakes and self.buffer and self.step():
            pass

    def say(self, octets: bytes) -> None:
        assert self.transport is not None
        if octets == HANG_UP:
            self.transport.close()
            self.buffer = b""
        elif octets != SILENCE:
            self.transport.write(octets)

    def step(self) -> bool:
        """Take one thing from the buffer; False when more is needed."""
        if self.chunk:
            if len(self.buffer) < self.chunk:
                return False
            octets, self.buffer = self.buffer[: self.chunk], self.buffer[self.chunk :]
            self.chunk = 0
            self.ended(octets, "BDAT")
            return True
        if self.in_data:
            octets = self.buffer
            end = 0 if octets.startswith(b".\r\n") else octets.find(b"\r\n.\r\n") + 2
            if end == 1:
                return False
            octets, self.buffer = octets[: end + 3], octets[end + 3 :]
            self.in_data = False
            self.ended(octets, "DATA")
            return True
        end = self.buffer.find(b"\r\n")
        if end < 0:
            return False
        line, self.buffer = self.buffer[:end], self.buffer[end + 2 :]
        self.command(line)
        return True

    def ended(self, octets: bytes, mode: str) -> None:
        peer = self.peer
        if self.accepted:
            peer.messages.append(Received(self.number, self.mail, self.recipients, octets, mode))
            default = peer.answer(b"END", b"250 2.0.0 Ok: queued\r\n")
            if not peer.lmtp:
                self.say(default)
            for path in self.taken if peer.lmtp else ():
                own = peer.answer(b"END " + path, default)
                self.say(own)
                if own in (HANG_UP, SILENCE):
                    break
        else:
            self.say(b"554 5.5.1 no valid recipients\r\n")
        self.mail, self.recipients, self.accepted, self.taken = b"", [], 0, []
        self.messages += 1
        if self.messages == peer.hang_up_after and self.transport is not None:
            self.transport.close()

    def command(self, line: bytes) -> None:
        peer = self.peer
        if self.login_step:
            peer.logins.append(line)
            self.login_step -= 1
            self.say(
                b"334 UGFzc3dvcmQ6\r\n" if self.login_step else peer.answer(b"AUTH", b"235 2.7.0 in\r\n")
            )
            return
        peer.commands.append(line)
        verb = line.split(b" ")[0].upper()
        match verb:
            case b"EHLO" | b"HELO" if peer.lmtp:
                self.say(b"500 5.5.1 this is LMTP\r\n")
            case b"EHLO" | b"LHLO":
                words = [word for word in peer.offer if not (self.encrypted and word == b"STARTTLS")]
                lines = [b"peer.example greets you", *words]
                default = b"".join(b"250-%s\r\n" % word for word in lines[:-1]) + b"250 %s\r\n" % lines[-1]
                self.say(peer.answer(verb, default))
            case b"HELO":
                self.say(peer.answer(b"HELO", b"250 peer.example\r\n"))
            case b"MAIL":
                self.mail = line
                self.recipients, self.accepted, self.taken = [], 0, []
                self.say(peer.answer(b"MAIL", b"250 2.1.0 Ok\r\n"))
            case b"RCPT":
                path = line.split(b":", 1)[1].split(b" ")[0]
                reply = peer.answer(path, b"") or peer.answer(b"RCPT", b"250 2.1.5 Ok\r\n")
                if reply.startswith(b"2"):
                    self.taken.append(path)
                self.recipients.append(line)
                self.accepted += reply.startswith(b"2")
                self.say(reply)
            case b"DATA":
                reply = peer.answer(b"DATA", b"354 go on\r\n" if self.accepted else b"554 5.5.1 nobody\r\n")
                self.in_data = reply.startswith(b"354")
                self.say(reply)
            case b"BDAT":
                self.chunk = int(line.split(b" ")[1])
            case b"AUTH":
                words = line.split(b" ")
                if words[1] == b"PLAIN":
                    peer.logins.append(words[2])
                    self.say(peer.answer(b"AUTH", b"235 2.7.0 in\r\n"))
                else:
                    self.login_step = 2
                    self.say(b"334 VXNlcm5hbWU6\r\n")
            case b"STARTTLS":
                reply = peer.answer(b"STARTTLS", b"220 2.0.0 go\r\n")
                self.say(reply + peer.behind_starttls)
                self.garbles = reply.startswith(b"220") and peer.tls is None
                if reply.startswith(b"220") and peer.tls is not None:
                    self.task = asyncio.get_running_loop().create_task(self.shake_hands())
            case b"QUIT":
                self.say(peer.answer(b"QUIT", b"221 2.0.0 bye\r\n"))
                if self.transport is not None:
                    self.transport.close()
            case _:
                self.say(peer.answer(verb, b"250 2.0.0 Ok\r\n"))

    async def shake_hands(self) -> None:
        assert self.transport is not None and self.peer.tls is not None
        self.shakes = True
        loop = asyncio.get_running_loop()
        try:
            transport = await loop.start_tls(self.transport, self, self.peer.tls, server_side=True)
        except (OSError, ssl.SSLError):
            return
        self.encrypted = True
        self.shakes = False
        if transport is not None:
            self.transport = transport
            self.work()


@contextlib.asynccontextmanager
async def running(peer: Peer, socket: Path | None = None) -> AsyncIterator[Peer]:
    """The peer on a free port of loopback, or on a Unix socket."""
    loop = asyncio.get_running_loop()
    sessions: list[_Session] = []

    def new() -> _Session:
        sessions.append(_Session(peer))
        return sessions[-1]

    server: asyncio.AbstractServer
    if socket is not None:
        server = await loop.create_unix_server(new, socket)
    else:
        server = listening = await loop.create_server(
            new, "127.0.0.1", 0, ssl=peer.tls if peer.implicit else None
        )
        peer.port = listening.sockets[0].getsockname()[1]
    try:
        yield peer
    finally:
        server.close()
        for session in sessions:
            if session.transport is not None:
                session.transport.abort()
            if session.task is not None:
                await asyncio.gather(session.task, return_exceptions=True)
        await server.wait_closed()
