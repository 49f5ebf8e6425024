"""The two ends of a run: smtp-source, which sends a burst, and smtp-sink, which receives and counts it.

Rules:
1. The end of a burst is the moment the sink has received all of it, not the moment the generator is done.
2. Watching must cost next to nothing: the sink prints its counters into memory, and only their end is read.
"""

from __future__ import annotations

import os
import re
import resource
import socket
import subprocess
import time
from types import TracebackType
from typing import Self

import msgspec

from bench.cells import Cell, Mode
from tests.need import find

PACKAGE = "postfix"
BACKLOG = "1000"
SINK_CONNECTIONS = "2000"
LOOK_SECONDS = 0.003  # between two looks at the sink's counter
READY_SECONDS = 10.0
GENERATOR_SECONDS = 30.0  # from the last message at the sink until the generator must have ended

_COUNTER = re.compile(rb"mesg=(\d+)")


class LoadError(Exception):
    """A burst did not go through; the text says how far it came and why."""


class Passage(msgspec.Struct, frozen=True, kw_only=True):
    """How long one burst took, in seconds since the start of the generator."""

    messages: int
    seconds: float  # until the sink had received all
    accept_seconds: float  # until the generator had all its replies
    generator_cpu_seconds: float


class CountingSink:
    """A running smtp-sink on a free loopback port; a context manager."""

    def __init__(self) -> None:
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._counters = -1

    def __enter__(self) -> Self:
        user = ["-u", "nobody"] if os.geteuid() == 0 else []  # smtp-sink refuses to run as root
        self._counters = os.memfd_create("smtp-sink-counters")
        self._process = subprocess.Popen(
            [program("smtp-sink"), "-c", "-m", SINK_CONNECTIONS, *user, f"127.0.0.1:{self.port}", BACKLOG],
            stdin=subprocess.DEVNULL,
            stdout=self._counters,
        )
        await_greeting(self.port, self._process, READY_SECONDS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
        os.close(self._counters)

    @property
    def pid(self) -> int:
        """The process id of the sink."""
        assert self._process is not None
        return self._process.pid

    def count(self) -> int:
        """How many messages it has received since it was started."""
        size = os.fstat(self._counters).st_size
        found = _COUNTER.findall(os.pread(self._counters, 200, max(0, size - 200)))
        return int(found[-1]) if found else 0


def send_burst(cell: Cell, messages: int, port: int, sink: CountingSink, *, limit_seconds: float) -> Passage:
    """Send `messages` to `port` and wait until `sink` has received as many.

    Raises:
        LoadError: smtp-source failed, or the messages did not all come in `limit_seconds`.
    """
    goal = sink.count() + messages
    cpu_before = _children_cpu_seconds()
    started_at = time.perf_counter()
    with subprocess.Popen(
        generator_command(cell, messages, port),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as generator:
        try:
            seconds, accept_seconds = _watch(generator, sink, goal, started_at, limit_seconds)
            _, complaint = generator.communicate(timeout=GENERATOR_SECONDS)
        except (LoadError, subprocess.TimeoutExpired) as error:
            generator.kill()
            _, complaint = generator.communicate()
            raise LoadError(f"{cell}: {error} {_text(complaint)}") from None
    if generator.returncode != 0:
        raise LoadError(f"{cell}: smtp-source ended with {generator.returncode}: {_text(complaint)}")
    return Passage(
        messages=messages,
        seconds=seconds,
        accept_seconds=accept_seconds,
        generator_cpu_seconds=_children_cpu_seconds() - cpu_before,
    )


def generator_command(cell: Cell, messages: int, port: int) -> list[str]:
    """The call of smtp-source for a burst."""
    reuse = ["-d"] if cell.mode is Mode.REUSE else []
    return [
        *(program("smtp-source"), "-s", str(min(cell.sessions, messages)), "-m", str(messages)),
        *("-l", str(cell.size), "-M", "client.example.com"),
        *("-f", "sender@example.com", "-t", "recipient@example.net"),
        *(*reuse, f"127.0.0.1:{port}"),
    ]


def program(name: str) -> str:
    """Where a program of the Postfix package is.

    Raises:
        LoadError: it is not installed.
    """
    found = find(name)
    if found is None:
        raise LoadError(f"{name} is not installed: apt-get install -y {PACKAGE}")
    return str(found)


def free_port() -> int:
    """A loopback port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def await_greeting(port: int, process: subprocess.Popen[bytes], limit_seconds: float) -> None:
    """Return when a server on the loopback port greets with 220.

    Raises:
        LoadError: the process ended, or no greeting came in time.
    """
    deadline = time.monotonic() + limit_seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise LoadError(f"the server for port {port} ended with {process.returncode}")
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1.0) as peer:
                if peer.recv(512).startswith(b"220"):
                    return
        except OSError:
            pass
        time.sleep(0.02)
    raise LoadError(f"no greeting on port {port} within {limit_seconds:.0f} s")


def _watch(
    generator: subprocess.Popen[bytes], sink: CountingSink, goal: int, started_at: float, limit_seconds: float
) -> tuple[float, float]:
    """Seconds until the sink had all, and until the generator had ended."""
    accept_seconds: float | None = None
    while True:
        time.sleep(LOOK_SECONDS)
        count = sink.count()
        now = time.perf_counter() - started_at
        if accept_seconds is None and generator.poll() is not None:
            accept_seconds = now
            if generator.returncode != 0:
                raise LoadError(f"smtp-source ended with {generator.returncode}:")
        if count >= goal:
            return now, now if accept_seconds is None else accept_seconds
        if now > limit_seconds:
            raise LoadError(f"{goal - count} messages are missing after {limit_seconds:.0f} s")


def _children_cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _text(complaint: bytes) -> str:
    return complaint.decode(errors="replace").strip()[-1000:]
