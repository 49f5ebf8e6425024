"""The memory benchmark: what a relay holds while many clients send large messages, and while many do nothing.

Rule: only the relay's process tree is read. Generator, receiver and this process stand outside it, and pages
of the file cache belong to the machine, not to the relay.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import msgspec

from bench.clients import Summary, raise_file_limit
from bench.load import CountingSink, LoadError
from bench.processes import Memory, MemoryWatch, memory
from bench.relay import Say, open_folder
from bench.relays import Relay

FILES_BESIDE_CLIENTS = 2000  # descriptors the relay needs for spool, log and next hop
DELIVERY_SECONDS = 900.0
IDLE_SECONDS = 3.0  # how long all idle connections are held before the last reading
LOOK_SECONDS = 0.2


class MemoryResult(msgspec.Struct, frozen=True, kw_only=True):
    """What one relay held under one load."""

    relay: str
    load: str  # "large" or "idle"
    clients: int
    octets: int  # of each message; 0 when idle
    before: Memory
    peak: Memory
    accepted: int
    replies: dict[str, int]
    delivered: int
    seconds: float

    @property
    def sentence(self) -> str:
        """The result in one line."""
        what = (
            f"{self.clients} clients sending {self.octets / 1e6:.0f} MB"
            if self.octets
            else f"{self.clients} idle"
        )
        others = "" if self.accepted == self.clients else f", replies {self.replies}"
        return (
            f"{self.relay}: {what}: peak PSS {self.peak.pss:.0f} MiB, RSS {self.peak.rss:.0f} MiB"
            f" (before: PSS {self.before.pss:.0f}), {self.peak.processes} processes,"
            f" {self.accepted} accepted, {self.delivered} delivered, {self.seconds:.1f} s{others}"
        )


def measure_large(relay: Relay, clients: int, octets: int, folder: Path, say: Say) -> MemoryResult:
    """All clients send at once; the reading goes on until the last message has been delivered.

    Raises:
        LoadError: the relay did not start, or what it accepted did not arrive.
    """
    with ExitStack() as stack:
        sink = _start(stack, relay, clients, folder)
        before = memory(relay.pid)
        started_at = time.perf_counter()
        with MemoryWatch(relay.pid) as watch:
            with _clients("large", relay.port, clients, octets) as process:
                output, _ = process.communicate()
            summary = _summary(output)
            say(f"  {summary.accepted} of {clients} accepted after {summary.seconds:.1f} s")
            deadline = time.monotonic() + DELIVERY_SECONDS
            while sink.count() < summary.accepted:
                if time.monotonic() > deadline:
                    raise LoadError(f"{summary.accepted - sink.count()} accepted messages did not arrive")
                time.sleep(LOOK_SECONDS)
        return MemoryResult(
            relay=relay.name,
            load="large",
            clients=clients,
            octets=octets,
            before=before,
            peak=watch.peak,
            accepted=summary.accepted,
            replies=summary.replies,
            delivered=sink.count(),
            seconds=time.perf_counter() - started_at,
        )


def measure_idle(relay: Relay, clients: int, folder: Path) -> MemoryResult:
    """All clients connect, say EHLO and stay.

    Raises:
        LoadError: the relay did not start.
    """
    with ExitStack() as stack:
        _start(stack, relay, clients, folder)
        before = memory(relay.pid)
        started_at = time.perf_counter()
        with (
            MemoryWatch(relay.pid, interval_seconds=0.5) as watch,
            _clients("idle", relay.port, clients, 0) as process,
        ):
            assert process.stdout is not None
            summary = _summary(process.stdout.readline())
            time.sleep(IDLE_SECONDS)
            full = memory(relay.pid)
            process.communicate()  # closes its standard input: the clients hang up
        return MemoryResult(
            relay=relay.name,
            load="idle",
            clients=clients,
            octets=0,
            before=before,
            peak=Memory(
                rss=max(full.rss, watch.peak.rss),
                pss=max(full.pss, watch.peak.pss),
                processes=max(full.processes, watch.peak.processes),
            ),
            accepted=summary.accepted,
            replies=summary.replies,
            delivered=0,
            seconds=time.perf_counter() - started_at,
        )


def _start(stack: ExitStack, relay: Relay, clients: int, parent: Path) -> CountingSink:
    raise_file_limit(clients + FILES_BESIDE_CLIENTS)
    folder = open_folder(parent)
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    sink = stack.enter_context(CountingSink())
    relay.start(folder, sink.port)
    stack.callback(relay.stop)
    return sink


def _clients(load: str, port: int, clients: int, octets: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "bench.clients", load, "--port", str(port)),
            *("--clients", str(clients), "--octets", str(octets)),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def _summary(output: bytes) -> Summary:
    try:
        return msgspec.json.decode(output, type=Summary)
    except msgspec.DecodeError as error:
        raise LoadError(f"the clients broke down: {error}") from None
