"""What a sick next hop with most of the queue costs the healthy ones: their throughput, and how long their mail takes.

Run by `./dev bench fairness`. One hop refuses connections, never greets, or takes a second for each message; four take
mail at once. All are on loopback, each relay is a process of its own, and the queue is on a disk.

- Throughput: a relay is started on a queue of which one tenth is for the healthy hops, and due. Told is how fast they
  get theirs, as a share of what they get with nothing else in the queue, in turns. The rest was met before (it waits
  for its hop), or nothing of it was: then each message is looked at once, between those of the healthy hops.
- Latency: fresh mail for a healthy hop, by SMTP, beside a queue in which everything waits for the hop that refuses, and
  beside an empty one.
"""

from __future__ import annotations

import asyncio
import enum
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from lonedot.admin.client import reach
from lonedot.admin.hops import HOPS
from lonedot.admin.operations import Desk
from lonedot.admin.values import NoArguments
from lonedot.message.content import Content, MemoryBody
from lonedot.message.measure import measure
from lonedot.observability.clock import SystemClock
from lonedot.spool.interface import Acceptance, Facts, RecipientState, SpoolPaths
from lonedot.spool.sqlite import Policy, open_spool
from lonedot.terms.address import Address
from lonedot.terms.envelope import Envelope, Recipient
from lonedot.terms.ids import IdSource, MessageId, SessionId
from lonedot.testing.process import RelayProcess

__all__ = ["Measured", "Sickness", "fairness_table", "measure_fairness"]

HEALTHY = 4
SHARE = 10
"""One message in so many is for a healthy hop."""
ROUNDS = 3
PATIENCE = 600.0
BATCH = 200
FRESH = 400
"""Messages whose latency is taken."""
FRESH_EACH_SECOND = 40.0
SLOW_SECONDS = 1.0
BODY = b"a line of a scan, as a device sends it\r\n" * 20

CONFIG = """
[server]
hostname = "relay.example.com"
spool = "spool"

[[listener]]
name = "in"
address = "127.0.0.1:0"
relay_from = ["127.0.0.0/8"]
"""
ROUTE = """
[[route]]
name = "{name}"
to = "{name}.example"
smarthost = "127.0.0.1:{port}"
tls = "off"
command_timeout = "10s"
"""


class Sickness(enum.Enum):
    """What is wrong with the hop that has most of the queue."""

    REFUSES = "refuses connections"
    SILENT = "never greets"
    SLOW = "takes a second for each message"


class Measured(msgspec.Struct, frozen=True):
    """Shares of the throughput without the sick hop, by what it suffers from; milliseconds."""

    healthy: int
    alone_per_second: float
    shares: dict[str, float]
    """When the relay had met what waits for the sick hop before."""
    unmet: dict[str, float]
    """When it had not."""
    waiting: int
    """Messages for the dead hop while latency was taken."""
    empty_p50: float
    empty_p99: float
    full_p50: float
    full_p99: float


class Hop(asyncio.Protocol):
    """A next hop that takes everything, and notes when."""

    def __init__(self, taken: Callable[[bytes], None], seconds: float, greets: bool) -> None:
        self._taken = taken
        self._seconds = seconds
        self._greets = greets
        self._buffer = b""
        self._is_data = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if self._greets:
            transport.write(b"220 hop ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while self._step():
            pass

    def _step(self) -> bool:
        end = b"\r\n.\r\n" if self._is_data else b"\r\n"
        whole, found, rest = self._buffer.partition(end)
        if not found:
            return False
        self._buffer = rest
        if self._is_data:
            self._is_data = False
            self._taken(whole)
            if self._seconds:
                asyncio.get_running_loop().call_later(self._seconds, self._say, b"250 2.0.0 taken\r\n")
            else:
                self._say(b"250 2.0.0 taken\r\n")
        elif whole[:4].upper() == b"DATA":
            self._is_data = True
            self._say(b"354 go on\r\n")
        elif whole[:4].upper() == b"EHLO":
            self._say(b"250-hop\r\n250-PIPELINING\r\n250 8BITMIME\r\n")
        elif whole[:4].upper() == b"QUIT":
            self._say(b"221 bye\r\n")
        else:
            self._say(b"250 2.0.0 ok\r\n")
        return True

    def _say(self, octets: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(octets)


class Town:
    """Healthy hops and a sick one, and what the healthy ones took."""

    def __init__(self, sickness: Sickness | None) -> None:
        self.sickness = sickness
        self.arrivals: list[tuple[float, bytes]] = []
        self.wanted = 0
        self.is_done = asyncio.Event()
        self._servers: list[asyncio.Server] = []
        self._taken_port = socket.socket()

    async def __aenter__(self) -> Town:
        for _ in range(HEALTHY):
            await self._open(0.0, greets=True)
        match self.sickness:
            case Sickness.SILENT:
                await self._open(0.0, greets=False, is_sick=True)
            case Sickness.SLOW:
                await self._open(SLOW_SECONDS, greets=True, is_sick=True)
            case _:
                self._taken_port.bind(("127.0.0.1", 0))
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in self._servers:
            server.close()
        self._taken_port.close()

    async def _open(self, seconds: float, *, greets: bool, is_sick: bool = False) -> None:
        taken = (lambda octets: None) if is_sick else self._took
        loop = asyncio.get_running_loop()
        self._servers.append(await loop.create_server(lambda: Hop(taken, seconds, greets), "127.0.0.1", 0))

    def _took(self, octets: bytes) -> None:
        self.arrivals.append((time.perf_counter(), octets))
        if len(self.arrivals) >= self.wanted:
            self.is_done.set()

    @property
    def toml(self) -> str:
        ports = [server.sockets[0].getsockname()[1] for server in self._servers]
        if len(ports) == HEALTHY:
            ports.append(self._taken_port.getsockname()[1])
        names = [*(f"h{number}" for number in range(HEALTHY)), "sick"]
        return CONFIG + "".join(
            ROUTE.format(name=name, port=port) for name, port in zip(names, ports, strict=True)
        )


def _message(ids: IdSource, number: int, domain: str) -> Acceptance:
    now = time.time()
    head = b"From: device@example.com\r\nSubject: scan %d\r\n\r\n" % number
    wanted = Recipient(Address(b"user%d@%s" % (number, domain.encode())))
    return Acceptance(
        id=MessageId(ids.next(now)),
        accepted_at=now,
        envelope=Envelope(Address(b"device@example.com"), (wanted,)),
        facts=Facts("smtp", SessionId(""), client="192.0.2.1"),
        arrival=Content(head, MemoryBody(BODY), measure(head), measure(BODY)),
        ledger=(),
        recipients=(RecipientState(0, wanted, next_at=now),),
        size=len(head) + len(BODY),
    )


async def _fill(folder: Path, healthy: int, sick: int) -> None:
    """A queue, mixed evenly."""
    spool = open_spool(SpoolPaths(folder / "spool"), SystemClock(), Policy(reserve=0))
    ids = IdSource()
    every = (sick + healthy) // healthy if healthy else 0
    messages = [
        _message(ids, number, f"h{number // every % HEALTHY}.example")
        if every and number % every == 0
        else _message(ids, number, "sick.example")
        for number in range(healthy + sick)
    ]
    for start in range(0, len(messages), BATCH):
        await spool.accept(messages[start : start + BATCH])
    await spool.close()


async def _rate(folder: Path, sickness: Sickness | None, healthy: int, *, was_met: bool = False) -> float:
    """Messages each second that healthy hops get from the start of a relay on."""
    sick = healthy * (SHARE - 1) if sickness else 0
    with tempfile.TemporaryDirectory(dir=folder, prefix="lonedot-fairness-") as made:
        async with Town(sickness) as town:
            relay = RelayProcess(Path(made), town.toml)
            if was_met:
                await _fill(Path(made), 0, sick)
                await asyncio.to_thread(relay.start)
                await _until_set_aside(Path(made), sick)
                await asyncio.to_thread(relay.stop)
                sick = 0
            await _fill(Path(made), healthy, sick)
            town.wanted = healthy
            await asyncio.to_thread(relay.start)
            try:
                await asyncio.wait_for(town.is_done.wait(), PATIENCE)
            finally:
                await asyncio.to_thread(relay.kill)
            times = [at for at, _ in town.arrivals]
    return len(times) / (max(times) - min(times))


async def _latencies(folder: Path, waiting: int) -> list[float]:
    """Milliseconds from the end of data to the next hop, of fresh messages."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="lonedot-fairness-") as made:
        async with Town(Sickness.REFUSES) as town:
            await _fill(Path(made), 0, waiting)
            relay = RelayProcess(Path(made), town.toml)
            await asyncio.to_thread(relay.start)
            try:
                await _until_set_aside(Path(made), waiting)
                sent = await _send_fresh(town, relay.ports["in"])
            finally:
                await asyncio.to_thread(relay.kill)
            came = {_number(octets): at for at, octets in town.arrivals}
    return [(came[number] - at) * 1000 for number, at in sent.items()]


async def _until_set_aside(folder: Path, waiting: int) -> None:
    """Everything has been met once: what is measured is a relay that has been running."""

    async def none() -> Desk:
        raise AssertionError("the relay is down")

    async with asyncio.timeout(PATIENCE), reach(SpoolPaths(folder / "spool"), none) as caller:
        while waiting:
            found = await caller.call(HOPS, NoArguments())
            if sum(hop.parked + hop.ready + hop.active for hop in found.hops) >= 0.95 * waiting:
                return
            await asyncio.sleep(0.2)


async def _send_fresh(town: Town, port: int) -> dict[int, float]:
    """One client, one message after the other; when the end of data of each went out."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def reply() -> None:
        while (line := await reader.readline())[3:4] != b" ":
            assert line

    await reply()
    writer.write(b"EHLO device.example\r\n")
    await reply()
    sent: dict[int, float] = {}
    town.wanted = FRESH
    for number in range(FRESH):
        began = time.perf_counter()
        writer.write(b"MAIL FROM:<device@example.com>\r\nRCPT TO:<a@h0.example>\r\nDATA\r\n")
        for _ in range(3):
            await reply()
        head = b"From: <device@example.com>\r\nSubject: fresh\r\nX-Number: %d\r\n\r\n" % number
        sent[number] = time.perf_counter()
        writer.write(head + BODY + b".\r\n")
        await reply()
        await asyncio.sleep(max(0.0, 1 / FRESH_EACH_SECOND - (time.perf_counter() - began)))
    await asyncio.wait_for(town.is_done.wait(), PATIENCE)
    writer.close()
    return sent


def _number(octets: bytes) -> int:
    return int(octets.partition(b"X-Number: ")[2].partition(b"\r\n")[0])


async def measure_fairness(
    healthy: int, waiting: int, folder: Path, say: Callable[[str], None], rounds: int = ROUNDS
) -> Measured:
    """All of it. `healthy` messages for healthy hops in each turn, `waiting` for the dead one beside fresh mail."""
    alone: list[float] = []
    shares: dict[str, list[float]] = {sickness.value: [] for sickness in Sickness}
    unmet: dict[str, list[float]] = {sickness.value: [] for sickness in Sickness}
    for turn in range(rounds):
        for sickness in Sickness:
            without = await _rate(folder, None, healthy)
            beside = await _rate(folder, sickness, healthy, was_met=True)
            first = await _rate(folder, sickness, healthy)
            alone.append(without)
            shares[sickness.value].append(beside / without)
            unmet[sickness.value].append(first / without)
            say(f"turn {turn + 1}, {sickness.value}: {without:.0f}, {beside:.0f}, {first:.0f} messages/s")
    empty = await _latencies(folder, 0)
    say(f"{waiting} messages are put into a queue")
    full = await _latencies(folder, waiting)
    return Measured(
        healthy,
        statistics.median(alone),
        {name: statistics.median(found) for name, found in shares.items()},
        {name: statistics.median(found) for name, found in unmet.items()},
        waiting,
        *_middle_and_end(empty),
        *_middle_and_end(full),
    )


def _middle_and_end(milliseconds: Sequence[float]) -> tuple[float, float]:
    """p50 and p99."""
    ordered = sorted(milliseconds)
    return statistics.median(ordered), ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]


def fairness_table(found: Measured) -> str:
    """For people."""
    lines = [
        "share of the throughput of healthy hops, when nine tenths of the queue are for a hop that",
        f"{'':52} {'met before':>11} {'not yet':>11}",
        *(f"{name:52} {share:11.2f} {found.unmet[name]:11.2f}" for name, share in found.shares.items()),
        f"(alone: {found.alone_per_second:.0f} messages/s to {HEALTHY} hops)",
        "",
        f"{'end of data to next hop':52} {'p50':>8} {'p99':>8}",
        f"{'empty queue':52} {found.empty_p50:6.1f} ms {found.empty_p99:5.1f} ms",
        f"{f'{found.waiting} wait for a hop that refuses':52} {found.full_p50:6.1f} ms {found.full_p99:5.1f} ms",
    ]
    return "\n".join(lines)
