"""Reception without sockets: a session with a transport, a host, a spool and a clock that a test moves by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import cast

from lonedot.message.ledger import Entry
from lonedot.protocol.options import ServerLimits, ServerOptions
from lonedot.reception.acceptance import Acceptor
from lonedot.reception.connection import Transcript
from lonedot.reception.listener import MemoryBudget
from lonedot.reception.session import Session
from lonedot.reception.settings import ListenerSettings
from lonedot.sinks.bindings import Binding
from lonedot.sinks.protocol import Note
from lonedot.spool.interface import Acceptance, BodyWriter, Claim, Facts, TranscriptRef
from lonedot.terms.address import Address
from lonedot.terms.envelope import Envelope
from lonedot.terms.ids import IdSource, MessageId, SessionId
from lonedot.terms.reply import Reply
from lonedot.testing.clock import ManualClock
from lonedot.testing.spool import MemorySpool

__all__ = ["SETTINGS", "Desk", "Line", "Notes", "Room", "SlowSpool", "Wire", "settle"]

SETTINGS = ListenerSettings(
    name="in",
    host="127.0.0.1",
    port=0,
    options=ServerOptions(b"relay.example.com", limits=ServerLimits(size=2_000_000)),
    postmaster=Address(b"admin@a.example"),
)


async def settle() -> None:
    """Let everything that can go on go on."""
    for _ in range(8):
        await asyncio.sleep(0)


class SlowSpool(MemorySpool):
    """Accepts at once, or (`by_hand`) when told; its body writers may fail."""

    def __init__(self) -> None:
        super().__init__()
        self.by_hand = False
        self.open: list[tuple[Sequence[Acceptance], asyncio.Future[None]]] = []
        self.accepted: list[Acceptance] = []
        self.write_error: Exception | None = None
        self.accept_error: Exception | None = None
        self.writers = 0
        self.discarded = 0

    def accept(self, batch: Sequence[Acceptance]) -> asyncio.Future[None]:
        if self.accept_error is not None:
            raise self.accept_error
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.open.append((batch, future))
        if not self.by_hand:
            self.answer(self.fault)
        return future

    def answer(self, error: Exception | None = None) -> None:
        """The disk is done with the oldest acceptance, or has failed."""
        batch, future = self.open.pop(0)
        failed = error or super().accept(batch).exception()
        if failed is not None:
            future.set_exception(failed)
            return
        self.accepted += batch
        future.set_result(None)

    def body_writer(self, id: MessageId) -> BodyWriter:
        self.writers += 1
        return cast(BodyWriter, _Writer(self, super().body_writer(id)))

    @property
    def bodies(self) -> int:
        """Body files that nobody has taken or removed."""
        return len(self._bodies)


class _Writer:
    def __init__(self, spool: SlowSpool, writer: BodyWriter) -> None:
        self._spool = spool
        self._writer = writer
        self.finish = writer.finish
        self._is_discarded = False

    def write(self, octets: bytes) -> None:
        if self._spool.write_error is not None:
            raise self._spool.write_error
        self._writer.write(octets)

    def discard(self) -> None:
        self._spool.discarded += not self._is_discarded
        self._is_discarded = True
        self._writer.discard()


class Desk:
    """The scheduler, as acceptance sees it."""

    def __init__(self) -> None:
        self.owner = "worker"
        self.has_room = True
        self.offered: list[Claim] = []

    def lease_until(self) -> float:
        return 1e10

    def offer(self, claim: Claim) -> None:
        self.offered.append(claim)


class Notes:
    """Acceptance's observer."""

    def __init__(self) -> None:
        self.acceptances: list[Acceptance] = []
        self.refusals: list[tuple[Reply, str]] = []
        self.sunken: list[Entry] = []
        self.failures: list[tuple[str, Exception]] = []

    def accepted(self, acceptance: Acceptance) -> None:
        self.acceptances.append(acceptance)

    def refused(self, id: MessageId, facts: Facts, envelope: Envelope, answer: Reply, words: str) -> None:
        self.refusals.append((answer, words))

    def sunk(self, id: MessageId, entries: Sequence[Entry]) -> None:
        self.sunken += entries

    def spool_failed(self, what: str, error: Exception) -> None:
        self.failures.append((what, error))


class Script:
    """A transcript."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, bytes]] = []
        self.flushes = 0

    def note(self, direction: str, octets: bytes) -> None:
        self.lines.append((direction, octets))

    def flush(self) -> TranscriptRef | None:
        self.flushes += 1
        return TranscriptRef("2026-11-22", self.flushes, 1)


class Wire(asyncio.Transport):
    """What the session writes to. A closed one is lost in the next turn, unless the client does not read."""

    def __init__(
        self, protocol: asyncio.Protocol, client: str, extra: dict[str, object] | None = None
    ) -> None:
        super().__init__({"peername": (client, 4000), **(extra or {})})
        self._protocol = protocol
        self.writes: list[bytes] = []
        self.unread = 0
        self._paused = False
        self.is_closing_ = False
        self._lost = False
        self.pauses = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert data
        assert not self.is_closing_
        self.writes.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        return self.unread

    def pause_reading(self) -> None:
        self._paused = True
        self.pauses += 1

    def resume_reading(self) -> None:
        self._paused = False

    def paused(self) -> bool:
        return self._paused

    def lost(self) -> bool:
        return self._lost

    def close(self) -> None:
        self.is_closing_ = True
        if not self.unread:
            asyncio.get_running_loop().call_soon(self.lose)

    def abort(self) -> None:
        self.is_closing_ = True
        asyncio.get_running_loop().call_soon(self.lose)

    def lose(self) -> None:
        if not self._lost:
            self._lost = True
            self._protocol.connection_lost(None)


class Line:
    """A client's end."""

    def __init__(self, session: Session, wire: Wire) -> None:
        self.session = session
        self.wire = wire
        self._read = 0

    def say(self, *segments: bytes) -> None:
        for segment in segments:
            self.session.data_received(segment)

    def heard(self) -> bytes:
        """What was written since the last call."""
        fresh = self.wire.writes[self._read :]
        self._read = len(self.wire.writes)
        return b"".join(fresh)

    def codes(self) -> list[int]:
        """Reply codes since the last call."""
        return [int(line[:3]) for line in self.heard().split(b"\r\n") if line[3:4] == b" "]


class Room:
    """Satisfies `host.Host`. Make it inside a running loop; the loop's timers and time are the room's from then."""

    def __init__(
        self,
        settings: ListenerSettings = SETTINGS,
        *,
        trusted: bool = True,
        bindings: Sequence[Binding] = (),
        memory: int = 1 << 20,
        hop_limit: int = 30,
    ) -> None:
        self.settings = settings
        self.revision = "r1"
        self.clock = ManualClock()
        self.spool = SlowSpool()
        self.desk = Desk()
        self.notes = Notes()
        self.ids = IdSource()
        self.acceptor = Acceptor(
            self.spool,
            self.desk,
            bindings,
            self.notes,
            self.clock,
            self.ids,
            "relay.example.com",
            hop_limit,
        )
        self.budget = MemoryBudget(memory)
        self.take_memory: Callable[[int], bool] = self.budget.take
        self.give_memory: Callable[[int], None] = self.budget.give
        self.trusted = trusted
        self.refusal: Reply | None = None
        self.open = 0
        self.scripts: list[Script] = []
        self.noted_: list[tuple[str, str]] = []
        self.fault: Exception | None = None
        self._loop = asyncio.get_running_loop()
        self._timers: list[asyncio.TimerHandle] = []
        self._loop.time = self.clock.monotonic  # type: ignore[method-assign]
        self._loop.call_later = self._call_later  # type: ignore[method-assign]

    # -- host.Host ---------------------------------------------------------------------------------

    def opened(self, session: Session) -> Reply | None:
        self.open += 1
        return self.refusal

    def closed(self, session: Session) -> None:
        self.open -= 1

    def transcript(self, session: SessionId, client: str) -> Transcript:
        self.scripts.append(Script())
        return self.scripts[-1]

    def login_of(self, transport: object) -> str:
        return ""

    def is_trusted(self, client: str) -> bool:
        return self.trusted

    def has_route(self, address: Address) -> bool:
        if self.fault is not None:
            raise self.fault
        return address.domain != b"nowhere.example"

    def noted(self, session: Session, what: str, words: str, note: Note | None = None, /) -> None:
        self.noted_.append((what, words))

    # -- what a test does --------------------------------------------------------------------------

    def connect(
        self, client: str = "192.0.2.1", *, greeted: bool = True, extra: dict[str, object] | None = None
    ) -> Line:
        session = Session(self, SessionId(self.ids.next(self.clock.now())))
        wire = Wire(session, client, extra)
        session.connection_made(wire)
        line = Line(session, wire)
        if greeted:
            line.say(b"EHLO copier\r\n")
            line.heard()
        return line

    def what_was_noted(self) -> list[str]:
        return [what for what, _ in self.noted_]

    def _call_later(
        self, delay: float, callback: Callable[..., object], *args: object, context: object = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(self.clock.monotonic() + delay, callback, args, self._loop)
        self._timers.append(handle)
        return handle

    def give_timers_back(self) -> None:
        """For a test that waits for real sockets or threads."""
        del self._loop.time, self._loop.call_later

    @property
    def timers(self) -> int:
        """Timers that will ring."""
        return sum(not handle.cancelled() for handle in self._timers)

    async def pass_time(self, seconds: float) -> None:
        """Time goes on, timer by timer."""
        ends_at = self.clock.monotonic() + seconds
        while True:
            self._timers = [handle for handle in self._timers if not handle.cancelled()]
            due = min(self._timers, key=lambda handle: handle.when(), default=None)
            if due is None or due.when() > ends_at:
                break
            self._timers.remove(due)
            self.clock.advance(max(0.0, due.when() - self.clock.monotonic()))
            due._run()
            await settle()
        self.clock.advance(ends_at - self.clock.monotonic())
