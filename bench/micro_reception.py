"""What reception alone costs for one message: `python -m bench.micro_reception [MESSAGES] [--profile]`.

The real session and acceptor in memory: commands and text in, the door, the ledger, the claim handed to a scheduler
whose courier delivers at once, the settlement, the reply out. No socket, no disk: the spool keeps nothing but promises.
One client sends one message of 10 KiB after the other, each command in a segment of its own, as `bench.micro_server`
does for the machine. Prints the best of five runs in microseconds a message: with the scheduler, with a sink, with
sinks that do nothing at MAIL, RCPT and DATA, and without any of it; and what one no-op sink of the session costs.
"""

from __future__ import annotations

import asyncio
import cProfile
import pstats
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import cast

from bench.micro_server import prose, scan
from lonedot.message.ledger import Entry
from lonedot.observability.clock import SystemClock
from lonedot.protocol.options import ServerOptions
from lonedot.queue.courier import Delivery
from lonedot.queue.lanes import Lane
from lonedot.queue.plan import Conclusion, Report
from lonedot.queue.retry import RetrySchedule
from lonedot.queue.scheduler import Scheduler
from lonedot.reception.acceptance import Acceptor, Handover
from lonedot.reception.listener import Listener, MemoryBudget
from lonedot.reception.session import Session
from lonedot.reception.settings import ListenerSettings
from lonedot.sinks.bindings import Binding
from lonedot.sinks.load import bind, load_import
from lonedot.sinks.protocol import Session as Shown
from lonedot.sinks.sink import sink
from lonedot.sinks.verdicts import Next
from lonedot.spool.interface import (
    Acceptance,
    Attempt,
    BodyWriter,
    Claim,
    Facts,
    RecipientState,
    Settlement,
    Spool,
    TranscriptRef,
)
from lonedot.terms.address import Address
from lonedot.terms.envelope import Envelope
from lonedot.terms.ids import IdSource, MessageId, SessionId
from lonedot.terms.outcome import Outcome, Result, Stage
from lonedot.terms.reply import Reply

RUNS = 5
DELIVERED = Outcome(Result.DELIVERED, Stage.CONTENT, "taken", status="2.0.0")
SINK = "lonedot.sinks.builtin.x_recipient:x_recipient"


def passes(session: Shown) -> Next:
    """A sink of the session that does nothing."""
    return Next()


NO_SINKS: tuple[Binding, ...] = ()
ONE_SINK = (bind(load_import(SINK), sink_class=SINK),)
SESSION_SINKS = (
    bind(sink("mail", on="mail")(passes), sink_class="bench:passes"),
    bind(sink("rcpt", on="rcpt")(passes), sink_class="bench:passes"),
    bind(sink("data", on="data")(passes), sink_class="bench:passes"),
)


class Promises:
    """A spool that says yes in the next turn of the loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def has_room(self, octets: int) -> bool:
        return True

    def body_writer(self, id: MessageId) -> BodyWriter:
        raise AssertionError("no message here is large")

    def accept(self, batch: Sequence[Acceptance]) -> asyncio.Future[None]:
        future: asyncio.Future[None] = self._loop.create_future()
        future.set_result(None)
        return future

    def settle(self, batch: Sequence[Settlement]) -> asyncio.Future[Sequence[bool]]:
        future: asyncio.Future[Sequence[bool]] = self._loop.create_future()
        future.set_result([True] * len(batch))
        return future

    def next_due(self) -> float | None:
        return None

    def in_flight(self, id: MessageId) -> None:
        pass

    def landed(self, id: MessageId) -> None:
        pass


class Silence:
    """Every observer, the reporter, and a courier that has delivered before it is asked."""

    def accepted(self, acceptance: Acceptance) -> None:
        pass

    def refused(self, id: MessageId, facts: Facts, envelope: Envelope, answer: Reply, words: str) -> None:
        raise AssertionError(words)

    def sunk(self, id: MessageId, entries: Sequence[Entry]) -> None:
        pass

    def attempted(self, claim: Claim, delivery: Delivery) -> None:
        pass

    def concluded(self, claim: Claim, conclusion: Conclusion, hold: str) -> None:
        pass

    def spool_failed(self, what: str, error: Exception) -> None:
        raise error

    def report(self, claim: Claim, reports: Sequence[Report]) -> Awaitable[Sequence[Acceptance]]:
        raise AssertionError("nobody asked for a report")

    def deliver(
        self,
        claim: Claim,
        recipients: Sequence[RecipientState],
        route: str,
        done: Callable[[Delivery], None],
    ) -> None:
        outcomes = tuple([(recipient.index, DELIVERED) for recipient in recipients])
        done(Delivery((Attempt(0.0, 1.0, "hop", route, "", outcomes),)))

    def note(self, direction: str, octets: bytes) -> None:
        pass

    def flush(self) -> TranscriptRef | None:
        return None


class Nobody:
    """A scheduler that takes nothing."""

    owner = ""
    has_room = False

    def lease_until(self) -> float:
        return 0.0

    def offer(self, claim: Claim) -> None:
        raise AssertionError("nothing is offered")


class Wire(asyncio.Transport):
    """Where replies go; tells when the last one is there."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.1", 4000)})
        self.replied = asyncio.Event()
        self.accepted = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if bytes(data).startswith(b"250 2.0.0 Ok: queued"):
            self.accepted += 1
            self.replied.set()

    def close(self) -> None:
        raise AssertionError("the session was ended")


def build(has_scheduler: bool, bindings: Sequence[Binding]) -> Session:
    """A session with all that it needs."""
    clock, silence, ids = SystemClock(), Silence(), IdSource()
    spool = cast(Spool, Promises())
    desk: Handover = Nobody()
    if has_scheduler:
        lanes = [Lane("*", 100, RetrySchedule())]
        desk = Scheduler(spool, silence, silence, silence, lanes, lambda address, stored: "*", clock, "bench")
    acceptor = Acceptor(spool, desk, bindings, silence, clock, ids, "relay.example.com", 30)
    settings = ListenerSettings(
        name="bench",
        host="",
        port=0,
        options=ServerOptions(b"relay.example.com"),
        postmaster=Address(b"postmaster@a.example"),
        relay_to=(b"d.example",),
    )
    listener = Listener(
        settings,
        acceptor,
        MemoryBudget(1 << 26),
        ids,
        lambda session, client: silence,
        lambda address: True,
        lambda session, what, words, note=None: None,
        "r1",
    )
    return Session(listener, SessionId(ids.next(clock.now())))


async def send(content: bytes, messages: int, has_scheduler: bool, bindings: Sequence[Binding]) -> float:
    """Seconds for so many messages."""
    session, wire = build(has_scheduler, bindings), Wire()
    session.connection_made(wire)
    session.data_received(b"EHLO bench.example\r\n")
    segments = (b"MAIL FROM:<a@b.example>\r\n", b"RCPT TO:<c@d.example>\r\n", b"DATA\r\n", content + b".\r\n")
    started = time.perf_counter()
    for _ in range(messages):
        for segment in segments:
            session.data_received(segment)
        await wire.replied.wait()
        wire.replied.clear()
    spent = time.perf_counter() - started
    assert wire.accepted == messages
    session.connection_lost(None)
    return spent


def main() -> int:
    arguments = sys.argv[1:]
    numbers = [int(argument) for argument in arguments if argument.isdigit()]
    messages = numbers[0] if numbers else 10_000
    if "--profile" in arguments:
        profile = cProfile.Profile()
        profile.runcall(asyncio.run, send(scan(), messages, has_scheduler=True, bindings=NO_SINKS))
        pstats.Stats(profile).strip_dirs().sort_stats("tottime").print_stats(30)
        return 0
    found: dict[str, float] = {}
    for name, content, has_scheduler, bindings in (
        ("base64, reception alone", scan(), False, NO_SINKS),
        ("base64, with the scheduler", scan(), True, NO_SINKS),
        ("base64, with a sink", scan(), False, ONE_SINK),
        ("base64, with sinks at MAIL, RCPT and DATA", scan(), False, SESSION_SINKS),
        ("prose, reception alone", prose(), False, NO_SINKS),
    ):
        best = min(asyncio.run(send(content, messages, has_scheduler, bindings)) for _ in range(RUNS))
        found[name] = best / messages * 1e6
        print(f"{name}: {found[name]:.1f} us a message, {messages / best:,.0f} messages a second")
    difference = found["base64, with sinks at MAIL, RCPT and DATA"] - found["base64, reception alone"]
    print(f"one no-op sink of the session: {difference / len(SESSION_SINKS):.2f} us")
    return 0


if __name__ == "__main__":
    sys.exit(main())
