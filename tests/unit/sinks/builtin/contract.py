"""What every built-in sink keeps, whatever comes: the messages, the faults of a backend, and how a row is put through.

A sink takes part by a module of its own, `rows/NAME.py`, that holds `ROWS`: tuples of `Row`. A row says how the sink is
bound, and how its backend speaks when it is well (`Speak`); the faults are made here, from that.

Rules a change here must keep:
1. A message goes through the real chain and the real hosts (`dispatch_with`, `Hosts`), as acceptance sends it.
2. A fault of a backend is never a refusal and never a message that is gone: deferred or held, unless the row says that
   its settings let the message go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Protocol, cast

import msgspec
import pytest

from lonedot.message.content import CHUNK_SIZE, Content, FileBody
from lonedot.message.intake import content_from
from lonedot.message.ledger import Entry
from lonedot.message.measure import Meter, measure
from lonedot.sinks.bindings import Binding, Setting
from lonedot.sinks.calls import Decision, Dispatched
from lonedot.sinks.dispatch import dispatch_with, steps
from lonedot.sinks.hosts import Hosts
from lonedot.sinks.load import bind
from lonedot.sinks.sink import AnySink
from lonedot.spool.interface import Facts
from lonedot.terms.address import Address
from lonedot.terms.envelope import Envelope, Recipient
from lonedot.terms.ids import SessionId
from lonedot.testing.clock import ManualClock

__all__ = [
    "GARBAGE",
    "HUGE_OCTETS",
    "MESSAGES",
    "Backend",
    "Fault",
    "Given",
    "Out",
    "Row",
    "SocketBackend",
    "Speak",
    "Through",
    "both_loops",
    "content_of",
    "huge_content",
    "same",
    "through",
]

DEADLINE_SECONDS = 1.0
"""Of a call; `Row.deadline_seconds` may say another."""
HUGE_OCTETS = 64 * 1024 * 1024
MEMORY_OCTETS = 16 * 1024 * 1024
"""What a huge message may take of memory, backend included."""
FACTS = Facts(
    "smtp",
    SessionId("0000000000001"),
    listener="in",
    client="192.0.2.1",
    helo="client.example.com",
    protocol="ESMTP",
    trusted=True,
    revision="test",
)


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def both_loops(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """For a module: `anyio_backend = both_loops`. A relay runs on either; their sockets and transports differ."""
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


# --- messages -----------------------------------------------------------------------------------------


class Given(msgspec.Struct, frozen=True):
    """A message that a sink is given."""

    name: str
    octets: bytes
    recipients: tuple[str, ...] = ("recipient@example.org",)


HEAD = b"From: <sender@example.com>\r\nTo: <recipient@example.org>\r\nSubject: a letter\r\n"
MESSAGES = (
    Given("letter", HEAD + b"\r\nThe first line.\r\n.dot\r\n"),
    Given("8-bit header", HEAD + b"X-Name: M\xfcller \xff\xfe\r\n\r\ntext\r\n"),
    Given("8-bit body", HEAD + b"\r\n\xe4\xf6\xfc \x80\xff\r\n" * 20),
    Given("no header", b"\r\ntext alone\r\n"),
    Given("no empty line", HEAD),
    Given("no fields", b"this is no field at all\r\nnor is this\r\n"),
    Given("empty", b""),
    Given("empty body", HEAD + b"\r\n"),
    Given("NUL", HEAD + b"\r\na\0b\r\n\0\0\0\r\n"),
    Given("bare CR", HEAD + b"\r\na\rb\r\r\nc\r"),
    Given("bare LF", HEAD + b"\r\na\nb\n.\nc"),
    Given("no end of line", HEAD + b"\r\nlast"),
    Given("long line", HEAD + b"\r\n" + b"x" * 5000 + b"\r\n"),
    Given("multipart without end", HEAD + b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\n\r\nx'),
    Given(
        "10 000 recipients",
        HEAD + b"\r\ntext\r\n",
        tuple(f"user{number}@example.org" for number in range(10_000)),
    ),
)


def envelope(given: Given) -> Envelope:
    return Envelope(
        Address(b"sender@example.com"), tuple(Recipient(Address(one.encode())) for one in given.recipients)
    )


def content_of(given: Given) -> Content:
    return content_from(given.octets)


def huge_content(folder: Path) -> Content:
    """64 MiB of lines in a file, as a large message lies in the spool."""
    path = folder / "huge"
    head = HEAD + b"\r\n"
    lines = (
        b"The quick brown fox jumps over the lazy dog, and nobody minds at all" + b"." * 58 + b"\r\n"
    ) * (CHUNK_SIZE // 128)
    meter = Meter()
    with path.open("wb") as file:
        for _ in range(HUGE_OCTETS // len(lines)):
            file.write(lines)
            meter.feed(lines)
    return Content(head, FileBody(path, path.stat().st_size), measure(head), meter.finish())


# --- backends -----------------------------------------------------------------------------------------


class Fault(enum.Enum):
    """What is wrong with a backend."""

    NONE = "well"
    SILENT = "it reads all and says nothing"
    DEAF = "it takes the connection, and reads nothing"
    CLOSED = "it closes at the first octets"
    TORN = "it crashes in the middle of an answer"
    GARBAGE = "it answers with nonsense"
    ENDLESS = "its answer has no end"
    AWAY = "it takes no connection"


GARBAGE = (
    b"\xff\xfe\0\0\x80garbage\r\n\0",
    b"A" * (1 << 20) + b"\r\n\0",
    b"\0" * 4096,
    b"\r\n\r\n\r\n",
    b"{]\r\n\0-1\r\n\0",
)


class Out(Protocol):
    """Where a backend writes its answers."""

    def write(self, data: bytes, /) -> None: ...

    async def drain(self) -> None: ...


Speak = Callable[[asyncio.StreamReader, Out], Awaitable[None]]
"""One connection to a backend that is well; each `write` is a whole answer."""


class Backend(Protocol):
    """What a sink asks, with faults that a test chooses. For a sink that connects to a socket: `SocketBackend`."""

    @property
    def address(self) -> str:
        """What the settings of the sink name."""
        ...

    async def behave(self, fault: Fault, garbage: bytes = GARBAGE[0], torn: int = 1) -> None:
        """From now on; connections that stand are cut. `torn`: number of the answer in which it crashes."""
        ...

    async def close(self) -> None: ...


class _Torn(Exception):
    pass


class _Faulty:
    """Answers of a backend that is not well."""

    def __init__(self, to: asyncio.StreamWriter, fault: Fault, garbage: bytes, torn: int) -> None:
        self._to = to
        self._fault = fault
        self._garbage = garbage
        self._left = torn

    def write(self, data: bytes, /) -> None:
        match self._fault:
            case Fault.GARBAGE:
                self._to.write(self._garbage)
            case Fault.TORN:
                self._left -= 1
                if self._left <= 0:
                    self._to.write(data[: len(data) // 2])
                    raise _Torn
                self._to.write(data)
            case Fault.ENDLESS:
                self._left = -1
                self._to.write(b"A" * 65536)
            case _:
                self._to.write(data)

    async def drain(self) -> None:
        await self._to.drain()
        while self._fault is Fault.ENDLESS and self._left < 0:
            self._to.write(b"A" * 65536)
            await self._to.drain()


class SocketBackend:
    """A backend on a unix socket in `folder`, or with `tcp` on loopback."""

    def __init__(self, folder: Path, speak: Speak, tcp: bool = False) -> None:
        self.path = folder / "backend"
        self.port = 0
        self.calls = 0
        """Connections that were made."""
        self._speak = speak
        self._tcp = tcp
        self._fault = Fault.AWAY
        self._garbage = GARBAGE[0]
        self._torn = 1
        self._server: asyncio.Server | None = None
        self._kept: socket.socket | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}" if self._tcp else f"unix:{self.path}"

    async def behave(self, fault: Fault, garbage: bytes = GARBAGE[0], torn: int = 1) -> None:
        await self.close()
        self._fault, self._garbage, self._torn = fault, garbage, torn
        if fault is not Fault.AWAY:
            await self._listen()
        elif self._tcp:
            # A port that is bound and not listened at refuses, and nobody else gets it meanwhile.
            self._kept = socket.socket()
            self._kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._kept.bind(("127.0.0.1", self.port))
            self.port = self._kept.getsockname()[1]

    async def _listen(self) -> None:
        if self._tcp:
            self._server = await asyncio.start_server(self._one, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]
        else:
            self._server = await asyncio.start_unix_server(self._one, self.path)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._open:
            writer.transport.abort()
        self._open.clear()
        if self._kept is not None:
            self._kept.close()
            self._kept = None
        if not self._tcp:
            self.path.unlink(missing_ok=True)

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._open.add(writer)
        self.calls += 1
        try:
            await self._answer(reader, writer)
        except asyncio.CancelledError:
            pass  # the backend ends; asyncio would report it
        except (_Torn, OSError, EOFError):
            pass
        finally:
            self._tasks.discard(task)
            if writer in self._open:
                self._open.discard(writer)
                writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        match self._fault:
            case Fault.SILENT:
                while await reader.read(65536):
                    pass
            case Fault.DEAF:
                cast(asyncio.Transport, writer.transport).pause_reading()
                await asyncio.get_running_loop().create_future()
            case Fault.CLOSED:
                await reader.read(1)
            case fault:
                await self._speak(reader, _Faulty(writer, fault, self._garbage, self._torn))


# --- rows ---------------------------------------------------------------------------------------------


def same(before: bytes, after: bytes) -> None:
    """The sink changes nothing."""
    assert after == before


class Row(msgspec.Struct, frozen=True):
    """A sink as it is bound in the suite."""

    name: str
    sink: AnySink
    settings: Callable[[Path, str], Mapping[str, Setting]] = lambda folder, address: {}
    """From a folder of its own and the address of its backend."""
    backend: Callable[[Path], Backend] | None = None
    """None: it asks nobody, and has no faults of a backend."""
    event: str = ""
    """Another than the sink's own."""
    rule: str | None = ""
    """By itself none, so that the sink is called; None: that of the sink."""
    fails: frozenset[Decision] = frozenset({Decision.DEFER, Decision.HOLD})
    """What may become of a message when its backend is at fault: only with settings that say so, ACCEPT."""
    fails_by: Mapping[Fault, frozenset[Decision]] = {}
    """Where a fault has an outcome of its own."""
    becomes: Mapping[str, Decision] = {}
    """By the name of a message: what becomes of it when all is well; else ACCEPT."""
    judge: Callable[[bytes, bytes], None] = same
    """Says whether octets after the sink are what it makes of those before."""
    adds: frozenset[str] = frozenset()
    """Recipients that it adds."""
    beyond: frozenset[str] = frozenset()
    """Names of messages that are beyond what the chain does for it: the ledger says so, and no fault is booked."""
    memory_octets: int = MEMORY_OCTETS
    """What a huge message may take."""
    huge: Decision = Decision.ACCEPT
    torn: tuple[int, ...] = (1,)
    """Numbers of the answers in which the backend crashes."""
    deadline_seconds: float = DEADLINE_SECONDS

    def bound(self, folder: Path, address: str) -> Binding:
        return bind(
            self.sink,
            sink_class=f"{self.name}:contract",
            settings=self.settings(folder, address),
            event=self.event or None,
            rule=self.rule,
            deadline_seconds=self.deadline_seconds,
        )


class Through:
    """A binding with its backend, ready to be given messages."""

    def __init__(self, row: Row, binding: Binding, backend: Backend | None, clock: ManualClock) -> None:
        self.row = row
        self.binding = binding
        self.backend = backend
        self.clock = clock
        self._hosts = Hosts()
        self._number = 0

    async def give(self, given: Given, content: Content | None = None) -> Dispatched:
        """The message through the chain."""
        self._number += 1
        whole = content_of(given) if content is None else content
        chain = steps(
            f"{self._number:013d}",
            envelope(given),
            FACTS,
            whole,
            [self.binding],
            self.clock,
            until_custody=False,
        )
        return await dispatch_with(chain, None, self._hosts, in_thread=content is not None)

    def check_kept(self, given: Given, done: Dispatched, allowed: frozenset[Decision]) -> Entry:
        """It is neither lost nor changed in secret; gives the first entry."""
        assert done.decision in allowed, (given.name, done.decision, done.words)
        assert done.entries, f"{given.name}: the ledger says nothing"
        assert {entry.binding for entry in done.entries} == {self.binding.name}
        recipients = {recipient.address for recipient in done.envelope.recipients}
        added = {Address(one.encode()) for one in self.row.adds}
        assert recipients - added == {recipient.address for recipient in envelope(given).recipients}
        assert not done.discarded
        return done.entries[0]

    async def close(self) -> None:
        await self._hosts.close()


@contextlib.asynccontextmanager
async def through(row: Row, folder: Path) -> AsyncIterator[Through]:
    """The row with its backend, which is well."""
    backend = None if row.backend is None else row.backend(folder)
    one: Through | None = None
    try:
        if backend is not None:
            await backend.behave(Fault.NONE)
        binding = row.bound(folder, "" if backend is None else backend.address)
        one = Through(row, binding, backend, ManualClock())
        yield one
    finally:
        if one is not None:
            await one.close()
        if backend is not None:
            await backend.close()
