"""The relay benchmark: the same bursts through two relays by turns, and straight to the sink as the ceiling.

Rules:
1. Bursts are interleaved: one through each relay, then the next round. A ratio is taken within a round, and
   the median of these ratios is the result, so that slow drift of a shared machine touches both sides alike.
2. Before each burst both relays are idle, their queues are empty and the disk has nothing left to write.
3. Each cell has fresh relays, warmed up by bursts that also tell how many messages fill the wanted time.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from bench.cells import Cell
from bench.load import CountingSink, LoadError, Passage, send_burst
from bench.processes import cpu_seconds, machine_busy_seconds, memory, peak_rss, running_cpu_seconds
from bench.relays import Relay

DIRECT = "direct"
DIRECT_SHARE = 0.4  # of the wanted time: the ceiling is only there to explain the rest
LARGEST_BURST = 30_000  # messages; what one loopback address has ports for in a minute
WARM_UP_OCTETS = 8 * 1024 * 1024
QUIET_SECONDS = 0.2
QUIET_CPU_SECONDS = 0.02
SETTLE_LIMIT_SECONDS = 30.0
BURST_LIMIT_SECONDS = 180.0

Say = Callable[[str], None]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How much to measure."""

    rounds: int = 3
    burst_seconds: float = 1.5  # wanted length of one burst
    folder: Path = Path("/var/tmp")  # where both relays keep their queues; on a disk, not in memory


class Burst(msgspec.Struct, frozen=True, kw_only=True):
    """One measured burst."""

    messages: int
    seconds: float
    accept_seconds: float
    cpu_seconds: float  # of the relay's whole process tree, settling included; 0 for the direct path
    foreign_share: float  # part of all cores that went to processes outside the run
    duplicates: int  # received beyond what was sent
    settled: bool  # idle again within the limit

    @property
    def rate(self) -> float:
        """Messages per second, end to end."""
        return self.messages / self.seconds


class SideResult(msgspec.Struct, frozen=True, kw_only=True):
    """What one relay did in one cell; the medians over its bursts."""

    name: str
    rate: float
    accept_rate: float
    cpu_per_1000: float  # seconds of CPU for 1000 messages
    peak_rss: float  # MiB
    peak_pss: float  # MiB, read after each burst
    processes: int
    bursts: tuple[Burst, ...]


class CellResult(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the report."""

    cell: Cell
    sides: tuple[SideResult, ...]  # the relay under test first
    direct_rate: float
    direct_bursts: tuple[Burst, ...]
    ratios: tuple[float, ...]  # first side to second, by round
    ratio: float  # their median: the result


class Side:
    """One path from generator to sink in a cell: through a relay, or none."""

    def __init__(
        self,
        name: str,
        relay: Relay | None,
        sink: CountingSink,
        wanted_seconds: float,
        cpu: Callable[[int], float] = cpu_seconds,
    ) -> None:
        """`cpu` tells the CPU time of a tree of processes."""
        self._cpu = cpu
        self.name = name
        self.relay = relay
        self.sink = sink
        self.wanted_seconds = wanted_seconds
        self.messages = 0
        self.bursts: list[Burst] = []
        self.peak_pss = 0.0
        self.processes = 0

    @property
    def port(self) -> int:
        return self.sink.port if self.relay is None else self.relay.port

    def warm_up(self, cell: Cell) -> None:
        """Two bursts that are not counted; the second, on a warm relay, sets the number of messages."""
        self.messages = max(cell.sessions, min(200, WARM_UP_OCTETS // cell.size), 4)
        for _ in range(2):
            passage = self._send(cell)
            self._settle()
            wanted = round(self.wanted_seconds * self.messages / passage.seconds)
            self.messages = min(max(wanted, cell.sessions, 4), LARGEST_BURST)

    def burst(self, cell: Cell) -> Burst:
        """One counted burst, and the wait until all is quiet."""
        count_before = self.sink.count()
        cpu_before = self._cpu_seconds()
        own_before = self._own_seconds()
        busy_before = machine_busy_seconds()
        passage = self._send(cell)
        # Both ways to count start and end at the same moments, as near as can be.
        busy = machine_busy_seconds() - busy_before
        own = self._own_seconds() - own_before + passage.generator_cpu_seconds
        if self.relay is not None:
            now = memory(self.relay.pid)
            self.peak_pss = max(self.peak_pss, now.pss)
            self.processes = max(self.processes, now.processes)
        settled = self._settle()
        cores = os.cpu_count() or 1
        burst = Burst(
            messages=passage.messages,
            seconds=passage.seconds,
            accept_seconds=passage.accept_seconds,
            cpu_seconds=self._cpu_seconds() - cpu_before,
            foreign_share=max(0.0, busy - own) / (passage.seconds * cores),
            duplicates=self.sink.count() - count_before - passage.messages,
            settled=settled,
        )
        self.bursts.append(burst)
        return burst

    def result(self) -> SideResult:
        messages = sum(burst.messages for burst in self.bursts)
        return SideResult(
            name=self.name,
            rate=statistics.median(burst.rate for burst in self.bursts),
            accept_rate=statistics.median(burst.messages / burst.accept_seconds for burst in self.bursts),
            cpu_per_1000=1000 * sum(burst.cpu_seconds for burst in self.bursts) / messages,
            peak_rss=0.0 if self.relay is None else peak_rss(self.relay.pid),
            peak_pss=self.peak_pss,
            processes=self.processes,
            bursts=tuple(self.bursts),
        )

    def _send(self, cell: Cell) -> Passage:
        return send_burst(cell, self.messages, self.port, self.sink, limit_seconds=BURST_LIMIT_SECONDS)

    def _cpu_seconds(self) -> float:
        return 0.0 if self.relay is None else self._cpu(self.relay.pid)

    def _own_seconds(self) -> float:
        return self._cpu_seconds() + cpu_seconds(self.sink.pid) + time.process_time()

    def _settle(self) -> bool:
        """Wait until the relay is idle, its queue empty and the disk written; False when it has no rest."""
        os.sync()
        if self.relay is None:
            return True
        deadline = time.monotonic() + SETTLE_LIMIT_SECONDS
        while time.monotonic() < deadline:
            before = cpu_seconds(self.relay.pid)
            time.sleep(QUIET_SECONDS)
            quiet = cpu_seconds(self.relay.pid) - before <= QUIET_CPU_SECONDS
            if quiet and not self.relay.waiting():
                return True
        return False


def measure_cells(
    cells: Sequence[Cell], make_relays: Callable[[], tuple[Relay, Relay]], plan: Plan, say: Say
) -> list[CellResult]:
    """Measure every cell; one that breaks is told and left out, the others go on.

    `make_relays` gives a fresh pair, the relay under test first.
    """
    results: list[CellResult] = []
    for number, cell in enumerate(cells, 1):
        say(f"[{number}/{len(cells)}] {cell}")
        try:
            results.append(_measure_cell(cell, make_relays(), plan, say))
        except LoadError as error:
            say(f"  broken off: {error}")
    return results


def _measure_cell(cell: Cell, relays: tuple[Relay, Relay], plan: Plan, say: Say) -> CellResult:
    with ExitStack() as stack:
        folder = open_folder(plan.folder)
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        sides: list[Side] = []
        for relay in relays:
            sink = stack.enter_context(CountingSink())
            own_folder = folder / relay.name
            own_folder.mkdir(mode=0o755)
            relay.start(own_folder, sink.port)
            stack.callback(relay.stop)
            sides.append(Side(relay.name, relay, sink, plan.burst_seconds))
        direct_sink = stack.enter_context(CountingSink())
        direct = Side(DIRECT, None, direct_sink, plan.burst_seconds * DIRECT_SHARE)
        for side in (*sides, direct):
            side.warm_up(cell)
        ratios: list[float] = []
        for number in range(1, plan.rounds + 1):
            for side in (*sides, direct):
                burst = side.burst(cell)
                say(_progress(f"{number}/{plan.rounds}", side.name, burst))
            ratios.append(sides[0].bursts[-1].rate / sides[1].bursts[-1].rate)
        return CellResult(
            cell=cell,
            sides=tuple(side.result() for side in sides),
            direct_rate=statistics.median(burst.rate for burst in direct.bursts),
            direct_bursts=tuple(direct.bursts),
            ratios=tuple(ratios),
            ratio=statistics.median(ratios),
        )


def measure_sides(cell: Cell, relays: Sequence[Relay], plan: Plan, say: Say) -> tuple[SideResult, ...]:
    """Any number of relays by turns, each round beginning with the next of them; all get the same bursts.

    The first tells how many messages fill the wanted time. Nothing goes straight to the sink: this is for comparing
    CPU, burst by burst, where that says nothing.

    Raises:
        LoadError: one of them did not start, or a burst did not go through.
    """
    with ExitStack() as stack:
        folder = open_folder(plan.folder)
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        sides: list[Side] = []
        for relay in relays:
            sink = stack.enter_context(CountingSink())
            own_folder = folder / relay.name.replace(" ", "-")
            own_folder.mkdir(mode=0o755)
            relay.start(own_folder, sink.port)
            stack.callback(relay.stop)
            sides.append(Side(relay.name, relay, sink, plan.burst_seconds, running_cpu_seconds))
        for side in sides:
            side.warm_up(cell)
            side.messages = sides[0].messages
        for number in range(plan.rounds):
            first = number % len(sides)
            for side in (*sides[first:], *sides[:first]):
                burst = side.burst(cell)
                say(_progress(f"{number + 1}/{plan.rounds}", side.name, burst))
        return tuple(side.result() for side in sides)


def open_folder(parent: Path) -> Path:
    """A new folder for one cell, which the user `postfix` may enter; said aloud when it is not on a disk."""
    folder = Path(tempfile.mkdtemp(prefix="lonedot-bench-", dir=parent))
    folder.chmod(0o755)
    if file_system(folder) in {"tmpfs", "ramfs"}:
        print(
            f"{parent} is in memory, so syncing costs nothing there; choose a disk: --folder", file=sys.stderr
        )
    return folder


def file_system(folder: Path) -> str:
    """The type of the file system that holds the folder, as /proc/mounts names it."""
    kinds = {}
    for line in Path("/proc/mounts").read_text().splitlines():
        _device, place, kind = line.split()[:3]
        kinds[place] = kind
    resolved = folder.resolve()
    for parent in (resolved, *resolved.parents):
        if str(parent) in kinds:
            return kinds[str(parent)]
    return "unknown"


def _progress(number: str, name: str, burst: Burst) -> str:
    notes = "".join(
        (
            f"  {burst.duplicates} duplicates" if burst.duplicates else "",
            "" if burst.settled else "  not idle afterwards",
        )
    )
    return (
        f"  round {number}  {name:<9} {burst.messages:6d} messages {burst.seconds:7.2f} s {burst.rate:9.1f}/s"
        f"  cpu {burst.cpu_seconds:6.2f} s  others {burst.foreign_share:4.0%}{notes}"
    )
