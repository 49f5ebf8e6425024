"""What a process and all its descendants cost, read from /proc.

Rules:
1. The CPU time of a tree is the own time of each living process plus the time of the children it has reaped.
   So the figure only grows, and a daemon that ends between two readings is not lost if its parent waits.
2. Each time is rounded down to a clock tick (10 ms) per process; only sums over many messages mean something.
3. A process may end while it is read; it is then left out.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Memory of a process tree in MiB."""

    rss: float  # shared pages counted once per process
    pss: float  # shared pages divided among those that share them: the fair figure for many processes
    processes: int


class _Stat(msgspec.Struct, frozen=True):
    parent: int
    ticks: int  # own and reaped children's, user and system


def tree(root: int) -> list[int]:
    """The process and its living descendants; empty when the process is gone."""
    parents = {pid: stat.parent for pid, stat in _all_stats().items()}
    if root not in parents:
        return []
    found = [root]
    children: dict[int, list[int]] = {}
    for pid, parent in parents.items():
        children.setdefault(parent, []).append(pid)
    for pid in found:
        found.extend(children.get(pid, ()))  # the list grows while it is walked
    return found


def cpu_seconds(root: int) -> float:
    """CPU time, user and system, that the tree has used up to now."""
    stats = _all_stats()
    return sum(stats[pid].ticks for pid in tree(root) if pid in stats) / TICKS_PER_SECOND


def running_cpu_seconds(root: int) -> float:
    """The same of the living processes alone, to the nanosecond: for short bursts through what starts no process."""
    spent = 0.0
    for pid in tree(root):
        with contextlib.suppress(OSError):
            spent += time.clock_gettime(~pid << 3 | 2)  # the clock that clock_getcpuclockid(3) gives for it
    return spent


def machine_busy_seconds() -> float:
    """CPU time that the whole machine has spent on anything, all cores added up; not idle, not stolen."""
    fields = [int(field) for field in (PROC / "stat").read_text().split("\n", 1)[0].split()[1:]]
    user, nice, system, _idle, _iowait, irq, softirq = fields[:7]
    return (user + nice + system + irq + softirq) / TICKS_PER_SECOND


def peak_rss(root: int) -> float:
    """The sum of the highest resident size that each living process of the tree ever had, in MiB."""
    return sum(_status_kib(pid, "VmHWM") for pid in tree(root)) / 1024


def memory(root: int) -> Memory:
    """The memory of the tree now. Walks page tables: never call it inside a measured burst."""
    pids = tree(root)
    return Memory(
        rss=sum(_rollup_kib(pid, "Rss") for pid in pids) / 1024,
        pss=sum(_rollup_kib(pid, "Pss") for pid in pids) / 1024,
        processes=len(pids),
    )


class MemoryWatch:
    """Reads the memory of a tree ten times a second from a thread and keeps the peaks; a context manager."""

    def __init__(self, root: int, *, interval_seconds: float = 0.1) -> None:
        self.peak = memory(root)
        self._root = root
        self._interval_seconds = interval_seconds
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()
        self._read()

    def _watch(self) -> None:
        while not self._end.wait(self._interval_seconds):
            self._read()

    def _read(self) -> None:
        now = memory(self._root)
        self.peak = Memory(
            rss=max(now.rss, self.peak.rss),
            pss=max(now.pss, self.peak.pss),
            processes=max(now.processes, self.peak.processes),
        )


def _all_stats() -> dict[int, _Stat]:
    stats: dict[int, _Stat] = {}
    for name in os.listdir(PROC):
        if name.isdecimal():
            with contextlib.suppress(OSError):
                # The program's name stands in brackets and may hold anything; fields count from behind it.
                fields = (PROC / name / "stat").read_text().rpartition(")")[2].split()
                stats[int(name)] = _Stat(int(fields[1]), sum(int(field) for field in fields[11:15]))
    return stats


def _status_kib(pid: int, key: str) -> int:
    return _field_kib(PROC / str(pid) / "status", key)


def _rollup_kib(pid: int, key: str) -> int:
    return _field_kib(PROC / str(pid) / "smaps_rollup", key)


def _field_kib(path: Path, key: str) -> int:
    with contextlib.suppress(OSError):
        for line in path.read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1])
    return 0
