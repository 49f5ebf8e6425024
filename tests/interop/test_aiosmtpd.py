"""aiosmtpd, another server in Python, behind the relay and before it."""

from __future__ import annotations

import asyncio
import smtplib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiosmtpd.handlers import Proxy
from aiosmtpd.smtp import SMTP, Envelope, Session

from lonedot.testing.process import RelayProcess
from lonedot.testing.relay import CONFIG

PATIENCE = 20.0
HEAD = (
    b"From: Copier <copier@office.example>\r\nTo: <anna@dest.example>\r\nSubject: a test\r\n"
    b"Date: Thu, 02 Jul 2026 10:00:00 +0000\r\nMessage-ID: <peer@office.example>\r\n\r\n"
)
BODY = b"".join(b"line %d: .dot, 100 %% and plain words\r\n" % n for n in range(5000)) + b".\r\n..\r\nend\r\n"


class Collector:
    """Takes what comes, but for one recipient."""

    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []
        self._changed = threading.Condition()

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address.startswith("nobody@"):
            return "550 5.1.1 No such user"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        with self._changed:
            self.envelopes.append(envelope)
            self._changed.notify_all()
        return "250 2.0.0 OK"

    def wait_for(self, count: int) -> list[Envelope]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.envelopes) >= count, PATIENCE)
        return self.envelopes


class Loop:
    """A loop in a thread of its own, with servers on it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._servers: list[asyncio.Server] = []
        self._thread.start()

    def serve(self, handler: object) -> int:
        """A server; its port."""

        async def listen() -> asyncio.Server:
            return await self._loop.create_server(
                lambda: SMTP(handler, enable_SMTPUTF8=True, loop=self._loop), "127.0.0.1", 0
            )

        server = asyncio.run_coroutine_threadsafe(listen(), self._loop).result(PATIENCE)
        self._servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port

    def stop(self) -> None:
        async def close() -> None:
            for server in self._servers:
                server.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(close(), self._loop).result(PATIENCE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()


@pytest.fixture
def loop() -> Iterator[Loop]:
    one = Loop()
    yield one
    one.stop()


def body_of(envelope: Envelope) -> bytes:
    assert isinstance(envelope.content, bytes)
    return envelope.content.partition(b"\r\n\r\n")[2]


def test_behind_us(tmp_path: Path, loop: Loop) -> None:
    collector = Collector()
    toml = CONFIG.format(server="", listener="", route="", port=loop.serve(collector))
    with RelayProcess(tmp_path, toml) as relay, smtplib.SMTP("127.0.0.1", relay.ports["in"]) as client:
        client.sendmail("copier@office.example", ["anna@dest.example", "bob@dest.example"], HEAD + BODY)
        (envelope,) = collector.wait_for(1)
        assert envelope.mail_from == "copier@office.example"
        assert sorted(envelope.rcpt_tos) == ["anna@dest.example", "bob@dest.example"]
        assert body_of(envelope) == BODY
        # What it refuses comes back to the sender as a report that it takes.
        client.sendmail("copier@office.example", ["nobody@dest.example"], HEAD + BODY)
        report = collector.wait_for(2)[1]
        assert report.mail_from == "<>", "its notation of the null reverse-path"
        assert report.rcpt_tos == ["copier@office.example"]
        assert b"550 5.1.1 No such user" in body_of(report)


def test_before_us(tmp_path: Path, loop: Loop) -> None:
    collector = Collector()
    toml = CONFIG.format(server="", listener="", route="", port=loop.serve(collector))
    with RelayProcess(tmp_path, toml) as relay:
        before = loop.serve(Proxy("127.0.0.1", relay.ports["in"]))
        with smtplib.SMTP("127.0.0.1", before) as client:
            client.sendmail("copier@office.example", ["anna@dest.example"], HEAD + BODY)
        (envelope,) = collector.wait_for(1)
    assert envelope.rcpt_tos == ["anna@dest.example"]
    # It makes lines of what it is given, and puts a field with its peer on top of them.
    assert body_of(envelope) == BODY
