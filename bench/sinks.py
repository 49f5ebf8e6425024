"""What sinks cost: `python -m bench sinks`. Nothing bound, sinks in the relay, sinks in processes of their own.

Four things are measured, each by turns, so that slow drift of the machine touches all sides alike:
1. Reception in memory (`bench.micro_reception`), in microseconds of CPU a message, with bindings and without.
2. Calls of a sink in a process of its own, one after the other and eight at a time, bodies in the frame and behind a
   descriptor.
3. The sinks that come with the relay, each on its own (`bench.builtin`).
4. Whole relays over sockets and disk, with five bindings and with none: CPU for each message. The guard and
   the ledger are part of every call, so their share is what five bindings cost beyond the same five in a relay that
   calls sinks without either (`bench.unguarded`).
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import msgspec

from bench import builtin, builtin_sessions, micro_reception
from bench.cells import Cell, Mode
from bench.load import LoadError
from bench.micro_server import scan
from bench.relay import Plan, Say, measure_sides
from bench.relays import LonedotRelay, Relay
from lonedot import Edit, Message, Next, sink
from lonedot.message.content import Body, Content, FileBody, MemoryBody
from lonedot.message.edits import lower
from lonedot.message.fold import apply_changes
from lonedot.message.intake import content_from
from lonedot.message.measure import measure
from lonedot.observability.clock import SystemClock
from lonedot.sinks import wire
from lonedot.sinks.bindings import Binding, Isolation
from lonedot.sinks.calls import Call
from lonedot.sinks.dispatch import dispatch
from lonedot.sinks.hosts import Hosts
from lonedot.sinks.load import bind
from lonedot.sinks.protocol import Session
from lonedot.sinks.sink import Sink
from lonedot.spool.interface import Facts
from lonedot.terms.address import Address
from lonedot.terms.envelope import Envelope, Recipient
from lonedot.terms.ids import SessionId

KIB = 1024
FIVE = 5
AT_A_TIME = 8
HEAD_SIZES = (0, 4 * KIB)
"""Octets of other fields in a header section."""
RELAY_SIZES = (1 * KIB, 10 * KIB, 100 * KIB)
PARTS = ("reception", "guard", "process", "builtin", "relay")
BODY_SIZES = (1 * KIB, 10 * KIB, 32 * KIB, 64 * KIB, 256 * KIB, 1024 * KIB)
ENVELOPE = Envelope(Address(b"a@b.example"), (Recipient(Address(b"c@d.example")),))
FACTS = Facts("smtp", SessionId("0000000000001"), helo="bench.example", revision="r1")


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the report."""

    what: str
    figure: float
    unit: str

    def __str__(self) -> str:
        return f"{self.what:<66} {self.figure:10.2f} {self.unit}"


class SinkCosts(msgspec.Struct, frozen=True, kw_only=True):
    """All that was measured."""

    costs: tuple[Cost, ...]


# --- the sinks ------------------------------------------------------------------------------------


@sink("noop")
def noop(message: Message) -> Next:
    """Does nothing."""
    return Next()


@sink("field", effects={"header"})
def field(message: Message) -> Next:
    """Adds a field."""
    return Next([Edit.add_field("X-Bench", "yes")])


@sink("greeted", on="helo")
def greeted(session: Session) -> Next:
    """Does nothing, once in a session."""
    return Next()


def _bound(sink: Sink, count: int) -> tuple[Binding, ...]:
    return tuple(bind(sink, sink_class="bench.sinks:x", name=f"{sink.name} {n}") for n in range(count))


def _apart() -> Binding:
    return bind(noop, sink_class=f"{Path(__file__)}:noop", isolation=Isolation.PROCESS, deadline_seconds=60.0)


# --- in memory ------------------------------------------------------------------------------------


def measure_reception(rounds: int, messages: int) -> list[Cost]:
    """Microseconds that each set of bindings adds to the reception of a message of 10 KiB."""
    sides: dict[str, tuple[Binding, ...]] = {
        "no binding": (),
        "no binding, again (the noise)": (),
        "a binding of another event": _bound(greeted, 1),
        "a no-op inline sink": _bound(noop, 1),
        "five no-op inline sinks": _bound(noop, FIVE),
        "five inline sinks that add a field": _bound(field, FIVE),
    }
    content = scan()
    seen: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, bindings in sides.items():
            began = time.process_time()
            asyncio.run(micro_reception.send(content, messages, False, bindings))
            seen[name].append((time.process_time() - began) / messages * 1e6)
    alone = seen.pop("no binding")
    costs = [Cost(what="reception without a binding", figure=statistics.median(alone), unit="us/message")]
    for name, spent_each in seen.items():
        added = statistics.median(
            with_it - without for with_it, without in zip(spent_each, alone, strict=True)
        )
        costs.append(Cost(what=f"added by: {name}", figure=added, unit="us/message"))
    return costs


def measure_guard(rounds: int, calls: int, more_header: int) -> list[Cost]:
    """Five sinks that add a field: through dispatch, and their functions and the splices alone."""
    other = b"X-Other: " + b"x" * 60 + b"\r\n"
    content = content_from(other * (more_header // len(other)) + scan())
    head = f"header section of {len(content.head)} octets"
    bindings = _bound(field, FIVE)
    clock = SystemClock()

    def dispatched() -> None:
        dispatch("id", ENVELOPE, FACTS, content, bindings, clock)

    def bare() -> None:
        now = content
        for binding in bindings:
            verdict = binding.call(Message("id", ENVELOPE, FACTS, now, binding.settings, binding.guid))
            assert isinstance(verdict, Next)
            now = apply_changes(now, lower(verdict.edits, now))

    whole, functions = _by_turns(rounds, calls, dispatched, bare)
    return [
        Cost(what=f"five sinks that add a field, dispatched, {head}", figure=whole, unit="us"),
        Cost(what="  their functions and the edits applied, alone", figure=functions, unit="us"),
        Cost(what="  guard, judgement and ledger", figure=whole - functions, unit="us"),
    ]


def _by_turns(rounds: int, calls: int, *sides: Callable[[], None]) -> list[float]:
    """Microseconds of each, the median over the rounds."""
    seen: list[list[float]] = [[] for _ in sides]
    for _ in range(rounds):
        for side, spent in zip(sides, seen, strict=True):
            began = time.process_time()
            for _ in range(calls):
                side()
            spent.append((time.process_time() - began) / calls * 1e6)
    return [statistics.median(spent) for spent in seen]


# --- processes ------------------------------------------------------------------------------------


async def measure_processes(rounds: int, calls: int, folder: Path) -> list[Cost]:
    """Calls a second of a no-op sink in a process of its own."""
    hosts = Hosts()
    binding = _apart()
    head = scan().partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    costs: list[Cost] = []
    in_frame = wire.BODY_IN_FRAME
    try:
        ten = Message("id", ENVELOPE, FACTS, content_from(scan()), {}, binding.guid)
        await hosts(Call(binding, ten))
        for at_a_time in (1, AT_A_TIME):
            rates = [await _rate(hosts, Call(binding, ten), calls, at_a_time) for _ in range(rounds)]
            what = f"a process, message of 10 KiB, {at_a_time} at a time"
            costs.append(Cost(what=what, figure=statistics.median(rates), unit="calls/s"))
        for size in BODY_SIZES:
            octets = bytes(size)
            file = folder / str(size)
            file.write_bytes(octets)
            ways: dict[str, tuple[Body, int]] = {
                "in the frame": (MemoryBody(octets), size),
                "copied into a memory file": (MemoryBody(octets), 0),
                "an open file": (FileBody(file, size), 0),
            }
            seen: dict[str, list[float]] = {way: [] for way in ways}
            for _ in range(rounds):
                for way, (body, limit) in ways.items():
                    wire.BODY_IN_FRAME = limit
                    content = Content(head, body, measure(head), measure(b""))
                    call = Call(binding, Message("id", ENVELOPE, FACTS, content, {}, binding.guid))
                    seen[way].append(await _rate(hosts, call, max(50, calls // 10), 1))
            for way, rates in seen.items():
                what = f"  body of {size // KIB} KiB, {way}"
                costs.append(Cost(what=what, figure=statistics.median(rates), unit="calls/s"))
    finally:
        wire.BODY_IN_FRAME = in_frame
        await hosts.close()
    return costs


async def _rate(hosts: Hosts, call: Call, calls: int, at_a_time: int) -> float:
    async def caller() -> None:
        for _ in range(calls // at_a_time):
            answer = await hosts(call)
            if answer.error is not None:
                raise LoadError(f"a call failed: {answer.error}")

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(at_a_time)))
    return calls // at_a_time * at_a_time / (time.perf_counter() - began)


# --- the whole relay --------------------------------------------------------------------------------

_TABLE = """
[[sink]]
name = "bench {number}"
file = "{file}:{function}"
isolation = "{isolation}"
"""
UNGUARDED = (sys.executable, "-m", "bench.unguarded")
"""Sinks without guard and ledger, to measure what these cost and not what the sinks themselves do."""


def _relay(
    name: str, function: str = "", count: int = 0, *, apart: bool = False, bare: bool = False
) -> Relay:
    """A relay with so many bindings of one function; `bare`: without guard and ledger."""
    file = Path(__file__).resolve()
    isolation = Isolation.PROCESS if apart else Isolation.INLINE
    tables = "".join(
        _TABLE.format(number=number, file=file, function=function, isolation=isolation.value)
        for number in range(count)
    )
    environment = {"PYTHONPATH": str(file.parents[1])}
    if bare:
        return LonedotRelay(name, UNGUARDED, listener_lines=tables, environment=environment)
    return LonedotRelay(name, listener_lines=tables, environment=environment)


def measure_relays(plan: Plan, size: int) -> list[Cost]:
    """CPU of whole relays for a message of `size`, 20 sessions: with bindings and without, by turns.

    Raises:
        LoadError: they could not be measured.
    """
    relays = (
        _relay("no binding"),
        _relay("no binding, again (the noise)"),
        _relay("a binding of another event", "greeted", 1),
        _relay("five that do nothing", "noop", FIVE),
        _relay("the same without guard and ledger", "noop", FIVE, bare=True),
        _relay("five that add a field", "field", FIVE),
        _relay("the same, without guard and ledger", "field", FIVE, bare=True),
        _relay("one in a process of its own", "noop", 1, apart=True),
    )
    cell = Cell(size=size, sessions=20, mode=Mode.REUSE)
    sides = measure_sides(cell, relays, plan, lambda line: None)
    spent = {side.name: [burst.cpu_seconds / burst.messages * 1e6 for burst in side.bursts] for side in sides}
    alone = spent[sides[0].name]
    what = f"relay, {size // KIB} KiB, "
    costs = [Cost(what=f"{what}no binding: CPU a message", figure=statistics.median(alone), unit="us")]
    for side in sides[1:]:
        costs += _beside(f"{what}{side.name}", spent[side.name], alone)
    for whole, bare in ((sides[3], sides[4]), (sides[5], sides[6])):
        costs += _beside(f"{what}guard and ledger of {whole.name}", spent[whole.name], spent[bare.name])
    return costs


def _beside(what: str, spent: Sequence[float], base: Sequence[float]) -> list[Cost]:
    """What is spent beyond `base`, burst by burst of the same round."""
    shares = sorted((mine / other - 1) * 100 for mine, other in zip(spent, base, strict=True))
    added = statistics.median(mine - other for mine, other in zip(spent, base, strict=True))
    # The interval of the median that 95 of 100 such series hold it in, whatever the distribution.
    place = max(0, int(len(shares) / 2 - 0.98 * len(shares) ** 0.5))
    between = f"{shares[place]:.1f} to {shares[-1 - place]:.1f}"
    return [
        Cost(what=what, figure=statistics.median(shares), unit=f"% more CPU ({between}), {added:.0f} us"),
    ]


def measure_all(plan: Plan, quick: bool, say: Say, only: Collection[str] = ()) -> SinkCosts:
    """Everything, or the parts that are named; tells each line as soon as it is known."""
    rounds, scale = (5, 1) if quick else (15, 4)
    costs: list[Cost] = []

    def told(found: list[Cost]) -> None:
        costs.extend(found)
        for cost in found:
            say(str(cost))

    if not only or "reception" in only:
        told(measure_reception(rounds, 250 * scale))
    if not only or "guard" in only:
        for head_size in HEAD_SIZES:
            told(measure_guard(rounds, 250 * scale, head_size))
    if not only or "process" in only:
        with tempfile.TemporaryDirectory(prefix="lonedot-bench-", dir=plan.folder) as folder:
            told(asyncio.run(measure_processes(rounds, 500 * scale, Path(folder))))
    if not only or "builtin" in only:
        with tempfile.TemporaryDirectory(prefix="lonedot-bench-", dir=plan.folder) as folder:
            for spent in asyncio.run(builtin.measure(50 * rounds * scale, Path(folder))):
                what = f"{spent.name}, message of 10 KiB"
                told([Cost(what=f"{what}: time", figure=spent.wall_us, unit="us")])
                told([Cost(what=f"{what}: CPU, backend included", figure=spent.cpu_us, unit="us")])
        for name, cpu_us in builtin_sessions.measure(50 * rounds * scale).items():
            told([Cost(what=f"{name}, one question of a session: CPU", figure=cpu_us, unit="us")])
    if not only or "relay" in only:
        for size in (10 * KIB,) if quick else RELAY_SIZES:
            told(measure_relays(plan, size))
    return SinkCosts(costs=tuple(costs))
