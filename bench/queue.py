"""How long custody takes with a long queue: the first page, filters, a change of many, a start, and acceptance.

Run by `./dev bench queue`. A shard is filled through `Spool.accept`, then each thing is done several times, and the
median told. Acceptance is measured against an empty shard in turns, so that the machine is the same for both.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import msgspec

from lonedot.message.content import Content, MemoryBody
from lonedot.message.measure import measure
from lonedot.observability.clock import SystemClock
from lonedot.spool.interface import Acceptance, Facts, Filter, MessageState, RecipientState, Sort, SpoolPaths
from lonedot.spool.sqlite import Policy, SqliteSpool, open_spool
from lonedot.terms.address import Address
from lonedot.terms.envelope import Envelope, Recipient
from lonedot.terms.ids import IdSource, MessageId, SessionId

__all__ = ["Measured", "measure_queue", "queue_table"]

DOMAINS = 200
BATCH = 200
ACCEPTED = 2000
"""Messages of one turn of the comparison, by sixteen at once."""
TURNS = 5
CHANGED = 500
"""Messages of one batch of a change, as the command line makes them."""
HEAD = b"From: device@example.com\r\nTo: office@example.org\r\nSubject: scan %d\r\n\r\n"
BODY = b"a line of a scan, as a device sends it\r\n" * 20


class Measured(msgspec.Struct, frozen=True):
    """Milliseconds by what was done; rates are messages each second."""

    messages: int
    milliseconds: dict[str, float]
    change_rate: float
    accept_empty: float
    accept_full: float


def _message(ids: IdSource, number: int, next_at: float) -> Acceptance:
    now = time.time()
    head = HEAD % number
    wanted = Recipient(Address(b"user%d@d%d.example" % (number, number % DOMAINS)))
    return Acceptance(
        id=MessageId(ids.next(now)),
        accepted_at=now,
        envelope=Envelope(Address(b"device%d@example.com" % (number % 50)), (wanted,)),
        facts=Facts("smtp", SessionId(""), client=f"192.0.2.{number % 250}"),
        arrival=Content(head, MemoryBody(BODY), measure(head), measure(BODY)),
        ledger=(),
        recipients=(RecipientState(0, wanted, next_at=next_at),),
        size=len(head) + len(BODY),
    )


async def _median(act: Callable[[], Awaitable[object]], turns: int = TURNS) -> float:
    taken = []
    for _ in range(turns):
        began = time.perf_counter()
        await act()
        taken.append((time.perf_counter() - began) * 1000)
    return statistics.median(taken)


async def _accept(spool: SqliteSpool, ids: IdSource, count: int) -> float:
    """Messages each second, sixteen clients that each wait for their answer."""
    messages = iter([_message(ids, number, time.time() + 1e6) for number in range(count)])

    async def client() -> None:
        for message in messages:
            await spool.accept([message])

    began = time.perf_counter()
    await asyncio.gather(*[client() for _ in range(16)])
    return count / (time.perf_counter() - began)


_DOMAIN = f"d{DOMAINS - 1}.example"
_COMMANDS = (
    ("queue rules (what a command costs)", "rules"),
    ("hold one domain, dry run", "hold", "--domain", _DOMAIN, "--dry-run"),
    ("hold one domain", "hold", "--domain", _DOMAIN),
    ("release one domain", "release", "--domain", _DOMAIN),
    ("hold --all, dry run", "hold", "--all", "--dry-run"),
    ("hold --rule from=*@example.com (all)", "hold", "--rule", "from=*@example.com"),
    ("release --rule 1 --and-messages", "release", "--rule", "1", "--and-messages"),
)
"""Whole commands, with the relay down; each leaves the queue so that the next finds what it needs."""


async def _command(paths: SpoolPaths, arguments: Sequence[str]) -> float:
    """Milliseconds of one command, its start included."""
    began = time.perf_counter()
    done = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "lonedot", "queue", *arguments, "--spool", str(paths.root)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    if await done.wait():
        raise RuntimeError(f"lonedot queue {' '.join(arguments)} failed")
    return (time.perf_counter() - began) * 1000


async def measure_queue(messages: int, folder: Path) -> Measured:
    """Fill a shard in `folder` and measure it."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="lonedot-queue-") as made:
        return await _measure(messages, Path(made))


async def _measure(messages: int, folder: Path) -> Measured:
    clock = SystemClock()
    ids = IdSource()
    paths = SpoolPaths(folder / "full")
    spool = open_spool(paths, clock, Policy(reserve=0))
    for start in range(0, messages, BATCH):
        batch = [
            _message(ids, number, time.time() + 1e6) for number in range(start, min(start + BATCH, messages))
        ]
        await spool.accept(batch)
    taken: dict[str, float] = {}
    for name, wanted in (
        ("first page (50)", Filter(limit=50)),
        ("first page (1000)", Filter(limit=1000)),
        ("one domain of 200, first 50", Filter(domain=_DOMAIN, limit=50)),
        ("one sender of 50, first 50", Filter(sender="device7@example.com", limit=50)),
        ("one recipient, all searched", Filter(recipient="user7@d7.example")),
        ("words of a reason, all searched", Filter(reason="no such words")),
        ("one subject, all searched", Filter(subject="scan 7")),
        ("largest 50, all sorted", Filter(sort=Sort.SIZE, limit=50)),
        ("due next 50, all sorted", Filter(sort=Sort.NEXT, states=(MessageState.QUEUED,), limit=50)),
    ):
        taken[name] = await _median(lambda wanted=wanted: spool.search(wanted))  # type: ignore[misc]

    async def counted() -> None:
        spool.counts()

    taken["numbers by state"] = await _median(counted)
    wanted = Filter(domain=_DOMAIN, limit=10_000)
    taken["ids of one domain"] = await _median(lambda: spool.select(wanted))
    everything = list(await spool.select(Filter(limit=messages)))
    began = time.perf_counter()
    for start in range(0, len(everything), CHANGED):
        await spool.hold(everything[start : start + CHANGED], "bench")
    change_rate = len(everything) / (time.perf_counter() - began)
    for start in range(0, len(everything), CHANGED):
        await spool.release(everything[start : start + CHANGED], time.time() + 1e6)
    await spool.close()
    for name, *arguments in _COMMANDS:
        taken[f"lonedot {name}"] = await _command(paths, arguments)

    began = time.perf_counter()
    spool = open_spool(paths, clock, Policy(reserve=0))
    taken["start"] = (time.perf_counter() - began) * 1000
    empty: list[float] = []
    full: list[float] = []
    for turn in range(TURNS):
        other = open_spool(SpoolPaths(folder / f"empty{turn}"), clock, Policy(reserve=0))
        empty.append(await _accept(other, ids, ACCEPTED))
        await other.close()
        full.append(await _accept(spool, ids, ACCEPTED))
    await spool.close()
    return Measured(messages, taken, change_rate, statistics.median(empty), statistics.median(full))


def queue_table(measured: Measured) -> str:
    """For people."""
    lines = [f"{measured.messages} queued messages", ""]
    lines += [f"  {name:46} {value:9.1f} ms" for name, value in measured.milliseconds.items()]
    lines.append(f"  {'hold all, in batches':46} {measured.change_rate:9.0f} messages/s")
    ratio = measured.accept_full / measured.accept_empty
    lines.append(
        f"  {'accept, this queue and an empty one':46} {measured.accept_full:8.0f} and"
        f" {measured.accept_empty:.0f} messages/s ({ratio:.2f})"
    )
    return "\n".join(lines)
