"""What the tests of a whole relay share: an SMTP client that says exactly what it is told, and waiting for a state."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable

from lonedot.app import Relay
from lonedot.spool.interface import Filter, MessageState, Stored
from lonedot.terms.ids import MessageId
from lonedot.testing.relay import CONFIG

__all__ = [
    "MESSAGE",
    "PATIENCE",
    "Client",
    "connected",
    "eventually",
    "finished",
    "first_config",
    "id_of",
    "submit",
    "until",
]

PATIENCE = 30.0
"""Seconds after which something that must happen has not; a busy machine may take most of it."""

MESSAGE = (
    b"From: <c@office.example>\r\nTo: <anna@dest.example>\r\nDate: Thu, 02 Jul 2026 10:00:00 +0000\r\n"
    b"Message-ID: <1@office.example>\r\nSubject: hello\r\n\r\nfirst\r\n.second\r\n"
)


def first_config(port: int, *, server: str = "", listener: str = "", route: str = "", more: str = "") -> str:
    """The first configuration with a smarthost at `port` of loopback, with lines added to its tables.

    One worker, where `server` says nothing else.
    """
    if "workers" not in server:
        server += "\nworkers = 1"
    return CONFIG.format(server=server, listener=listener, route=route, port=port) + more


def strangers_only(toml: str) -> str:
    """The same where nobody is trusted for an address."""
    return toml.replace('relay_from = ["127.0.0.0/8"]', "")


class Client:
    """One SMTP session, octet for octet."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def reply(self) -> str:
        """The next reply, lines joined by LF; empty when the relay has closed."""
        lines: list[str] = []
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    line = await self.reader.readline()
                except ConnectionError:
                    line = b""
                if not line:
                    return "\n".join(lines)
                assert line.endswith(b"\r\n"), line
                lines.append(line[:-2].decode())
                if line[3:4] != b"-":
                    return "\n".join(lines)

    def write(self, octets: bytes) -> None:
        self.writer.write(octets)

    async def say(self, command: str | bytes) -> str:
        """A command and its reply."""
        octets = command if isinstance(command, bytes) else command.encode()
        self.writer.write(octets + b"\r\n")
        return await self.reply()

    async def envelope(
        self, *recipients: str, sender: str = "c@office.example", parameters: str = ""
    ) -> list[str]:
        """MAIL and a RCPT for each recipient; all replies."""
        replies = [await self.say(f"MAIL FROM:<{sender}>{parameters}")]
        replies += [await self.say(f"RCPT TO:<{to}>") for to in recipients or ("anna@dest.example",)]
        return replies

    async def content(self, octets: bytes = MESSAGE) -> str:
        """DATA and the octets, dots stuffed; the reply to the end of data, or to DATA when it was refused."""
        answer = await self.say("DATA")
        if not answer.startswith("354"):
            return answer
        stuffed = (b"\r\n" + octets).replace(b"\r\n.", b"\r\n..")[2:]
        self.writer.write(stuffed + b".\r\n")
        return await self.reply()

    async def ended(self) -> bytes:
        """Wait until the relay has closed; what it still said."""
        async with asyncio.timeout(PATIENCE):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""

    async def start_tls(self, context: ssl.SSLContext) -> None:
        assert (await self.say("STARTTLS")).startswith("220")
        await self.writer.start_tls(context, server_hostname="localhost")

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.transport.abort()
        with contextlib.suppress(OSError, ssl.SSLError):
            await self.writer.wait_closed()


@contextlib.asynccontextmanager
async def connected(
    relay: Relay, *, ehlo: bool = True, listener: str = "in", tls: ssl.SSLContext | None = None
) -> AsyncIterator[Client]:
    """A client that has been greeted (and has said EHLO)."""
    host, port = relay.addresses[listener]
    name = "localhost" if tls is not None else None
    reader, writer = await asyncio.open_connection(host, port, ssl=tls, server_hostname=name)
    async with Client(reader, writer) as client:
        if ehlo:
            assert (await client.reply()).startswith("220 ")
            assert (await client.say("EHLO client.example")).startswith("250")
        yield client


def id_of(answer: str) -> MessageId:
    """The id in the reply to an end of data."""
    assert answer.startswith("250 2.0.0 Ok: queued as "), answer
    return MessageId(answer.rsplit(maxsplit=1)[-1])


async def submit(
    relay: Relay,
    octets: bytes = MESSAGE,
    *recipients: str,
    sender: str = "c@office.example",
    parameters: str = "",
) -> MessageId:
    """One message in a session of its own; its id."""
    async with connected(relay) as client:
        replies = await client.envelope(*recipients, sender=sender, parameters=parameters)
        assert all(reply.startswith("250") for reply in replies), replies
        return id_of(await client.content(octets))


async def until(relay: Relay, id: MessageId, done: Callable[[Stored], bool]) -> Stored:
    """The message as soon as `done` is true of it."""
    stored: Stored | None = None
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                stored = relay.spool.show(id)
                if done(stored):
                    return stored
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"it stayed as it is: {stored}") from None


async def eventually(claim: Callable[[], object]) -> None:
    """Wait until the claim holds."""
    async with asyncio.timeout(PATIENCE):
        while True:
            if claim():
                return
            await asyncio.sleep(0.01)


async def finished(relay: Relay, id: MessageId) -> Stored:
    """The message when nothing is left to do for it."""
    return await until(relay, id, lambda stored: stored.state is MessageState.FINISHED)


def reports_of(relay: Relay, parent: MessageId) -> list[Stored]:
    """The DSNs that a message has caused so far, oldest first."""
    rows = relay.spool.listing(Filter(states=tuple(MessageState)))
    stored = [relay.spool.show(MessageId(row.id)) for row in rows]
    return [message for message in stored if message.facts.parent == parent]
