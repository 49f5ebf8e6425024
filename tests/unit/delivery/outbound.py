"""A courier with everything that it needs, and messages for it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import count

import msgspec

from lonedot.delivery.courier import Courier
from lonedot.delivery.leases import Leases
from lonedot.delivery.message_sinks import NO_CHAINS, Elsewhere, nobody_elsewhere
from lonedot.delivery.routing import (
    NextHop,
    Resolver,
    Route,
    RouteTable,
    SmarthostResolver,
    Smarthosts,
    Timeouts,
    TlsPolicy,
)
from lonedot.delivery.transcript import Line
from lonedot.message.content import Content
from lonedot.message.intake import content_from
from lonedot.message.ledger import Entry
from lonedot.queue.courier import Delivery
from lonedot.sinks.bindings import Chains
from lonedot.sinks.inquiry import HopNote
from lonedot.spool.interface import (
    Claim,
    Facts,
    MessageState,
    NoSuchMessage,
    RecipientState,
    Stored,
    TranscriptRef,
)
from lonedot.terms.address import Address
from lonedot.terms.envelope import Envelope, Recipient
from lonedot.terms.ids import IdSource, MessageId, SessionId
from lonedot.terms.outcome import Outcome

__all__ = ["Outbound", "Transcripts", "claim", "message", "outbound", "route"]

QUICK = Timeouts(connect=5, greeting=5, command=5, data=5, block=5, end=5, quit=1)
_ids = IdSource()


class SystemClock:
    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


class Transcripts:
    """Keeps everything in memory."""

    def __init__(self) -> None:
        self.records: list[tuple[str, list[Line], str]] = []

    def record(self, session: str, lines: Sequence[Line], peer: str = "") -> TranscriptRef | None:
        self.records.append((session, list(lines), peer))
        return TranscriptRef("2026-11-22", len(self.records), 1)

    @property
    def text(self) -> bytes:
        return b"".join(octets + b"\n" for _, lines, _ in self.records for _, _, octets in lines)


def message(body: bytes = b"Hello\r\n", head: bytes = b"Subject: test\r\n\r\n") -> Content:
    return content_from(head + body)


def claim(
    *recipients: bytes | Recipient,
    content: Content | None = None,
    ledger: tuple[Entry, ...] = (),
    sender: bytes = b"a@example.com",
    envelope: Envelope | None = None,
) -> Claim:
    states = tuple(
        RecipientState(n, r if isinstance(r, Recipient) else Recipient(Address(r)))
        for n, r in enumerate(recipients or (b"b@example.org",))
    )
    if envelope is None:
        envelope = Envelope(Address(sender), tuple(state.recipient for state in states))
    else:
        envelope = msgspec.structs.replace(envelope, recipients=tuple(state.recipient for state in states))
    content = message() if content is None else content
    stored = Stored(
        id=MessageId(_ids.next(time.time())),
        state=MessageState.QUEUED,
        reason="",
        accepted_at=time.time(),
        finished_at=0.0,
        envelope=envelope,
        facts=Facts("smtp", SessionId("s")),
        ledger=ledger,
        recipients=states,
        size=content.size,
    )
    return Claim(stored, 1, content)


def route(port: int, **changes: object) -> Route:
    base = Route(
        name="out",
        target=Smarthosts((NextHop("127.0.0.1", port),)),
        ehlo_name="relay.example.com",
        tls=TlsPolicy.OFF,
        timeouts=QUICK,
    )
    return msgspec.structs.replace(base, **changes)


class Outbound:
    """A courier over one route."""

    def __init__(
        self,
        routes: Sequence[Route],
        resolver: Resolver | None = None,
        chains: Callable[[int], Chains] = lambda server: NO_CHAINS,
        elsewhere: Elsewhere = nobody_elsewhere,
        leases: Callable[[Route, str], Leases | None] = lambda route, destination: None,
    ) -> None:
        self.transcripts = Transcripts()
        self.stored: dict[MessageId, Content | Exception] = {}
        self.notes: list[tuple[str, HopNote]] = []
        sessions = count(1)
        self.courier = Courier(
            RouteTable(routes),
            resolver or SmarthostResolver(),
            self.transcripts,
            self._content,
            lambda: f"session{next(sessions)}",
            SystemClock(),
            None,
            chains,
            elsewhere,
            lambda session, note: self.notes.append((session, note)),
            leases,
        )

    def _content(self, id: MessageId) -> Content:
        found = self.stored.get(id, NoSuchMessage(id))
        if isinstance(found, Exception):
            raise found
        return found

    def post(self, what: Claim, name: str = "out") -> asyncio.Future[Delivery]:
        """Deliver to all recipients; done when the courier says so, and only once."""
        future: asyncio.Future[Delivery] = asyncio.get_running_loop().create_future()
        done: Callable[[Delivery], None] = future.set_result
        self.courier.deliver(what, what.message.recipients, name, done)
        assert not future.done(), "done was called from within deliver"
        return future

    async def send(self, what: Claim, name: str = "out") -> Delivery:
        return await asyncio.wait_for(self.post(what, name), 20)

    async def outcome(self, what: Claim) -> Outcome:
        """Of a message with one recipient."""
        delivery = await self.send(what)
        assert delivery.hold == ""
        ((_, outcome),) = delivery.outcomes
        return outcome


@contextlib.asynccontextmanager
async def outbound(
    *routes: Route,
    resolver: Resolver | None = None,
    chains: Callable[[int], Chains] = lambda server: NO_CHAINS,
    elsewhere: Elsewhere = nobody_elsewhere,
    leases: Callable[[Route, str], Leases | None] = lambda route, destination: None,
) -> AsyncIterator[Outbound]:
    made = Outbound(routes, resolver, chains, elsewhere, leases)
    try:
        yield made
    finally:
        await made.courier.close(2)
