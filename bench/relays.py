"""The relays that can be measured, behind one seam: start towards a next hop, stop, and say where they are.

Rules:
1. A relay keeps all that it writes in the folder it is given, on the same file system as its competitor.
2. It listens on loopback, relays for loopback, and sends everything to one next hop.
3. It is ready when it greets, and stopped when all its processes are gone.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from bench.load import LoadError, await_greeting, free_port, program
from lonedot.terms.ids import MAX_SHARDS
from tests.peers.postfix import Postfix, PostfixError, PostfixSettings

READY_SECONDS = 30.0
STOP_SECONDS = 60.0
MESSAGE_SIZE_LIMIT = 64 * 1024 * 1024

LONEDOT_CONFIG = """\
[server]
hostname = "relay.example.com"
spool = "spool"
workers = {workers}

[[listener]]
address = "127.0.0.1:{port}"
relay_from = ["127.0.0.0/8"]
{listener_lines}
[[route]]
to = "*"
smarthost = "127.0.0.1:{next_hop}"
"""


class Relay(Protocol):
    """A relay under measurement."""

    @property
    def name(self) -> str:
        """What it is called in the report."""

    @property
    def port(self) -> int:
        """Where it listens on 127.0.0.1."""

    @property
    def pid(self) -> int:
        """The process whose tree is the whole relay."""

    def start(self, folder: Path, next_hop: int) -> None:
        """Start it in `folder` towards the loopback port `next_hop`; return when it greets.

        Raises:
            LoadError: it did not start; the text has the end of its log.
        """

    def stop(self) -> None:
        """End it in order and wait until it is gone."""

    def waiting(self) -> int | None:
        """How many messages it still has in its queue; None when only its idleness can tell."""


class LonedotRelay:
    """`lonedot serve`, or another command that takes the same arguments."""

    def __init__(
        self,
        name: str = "lonedot",
        command: Sequence[str] = (sys.executable, "-m", "lonedot"),
        *,
        listener_lines: str = "",
        environment: Mapping[str, str] | None = None,
        workers: int = 1,
    ) -> None:
        """`listener_lines` are lines of TOML for the listener, for a load beyond the default limits."""
        self.workers = workers
        self.name = name
        self.port = 0
        self._command = tuple(command)
        self._listener_lines = listener_lines
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._log = Path()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, folder: Path, next_hop: int) -> None:
        self.port = free_port()
        config = folder / "lonedot.toml"
        config.write_text(
            LONEDOT_CONFIG.format(
                port=self.port,
                next_hop=next_hop,
                listener_lines=self._listener_lines,
                workers=self.workers,
            )
        )
        self._log = folder / "log"
        try:
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    [*self._command, "serve", "-c", str(config)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=folder,
                    env=self._environment,
                    start_new_session=True,  # a Ctrl-C is for the benchmark, which stops the relay in order
                )
        except OSError as error:
            raise LoadError(f"{self.name} cannot be started: {error}") from None
        try:
            await_greeting(self.port, self._process, READY_SECONDS)
        except LoadError as error:
            tail = self._log.read_text(errors="replace")[-3000:]
            self.stop()
            raise LoadError(f"{self.name} did not start: {error}\n{tail}") from None

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            print(f"{self.name} did not stop within {STOP_SECONDS:.0f} s and is killed", file=sys.stderr)
        # Workers it may have left behind share its process group.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def waiting(self) -> int | None:
        return None


class PostfixRelay:
    """Postfix, set for speed: see bench/README.md for why each line is there."""

    def __init__(self, name: str = "postfix", *, process_limit: int = 100) -> None:
        self.name = name
        self._process_limit = process_limit
        self._postfix = Postfix()
        self._pid = 0

    @property
    def port(self) -> int:
        return self._postfix.port

    @property
    def pid(self) -> int:
        return self._pid

    def start(self, folder: Path, next_hop: int) -> None:
        program("postfix")
        settings = PostfixSettings(
            hostname="relay.example.com",
            relayhost=f"[127.0.0.1]:{next_hop}",
            process_limit=self._process_limit,
            message_size_limit=MESSAGE_SIZE_LIMIT,
            parameters={
                "default_destination_concurrency_limit": "50",
                "initial_destination_concurrency": "50",
                "in_flow_delay": "0",
                "smtp_connection_cache_on_demand": "yes",
                # Without limits on clients no session asks the anvil daemon.
                "smtpd_client_connection_count_limit": "0",
                "smtpd_client_connection_rate_limit": "0",
            },
        )
        self._postfix = Postfix(settings, parent=folder)
        try:
            self._postfix.start()
        except PostfixError as error:
            raise LoadError(f"{self.name} did not start: {error}") from None
        self._pid = self._postfix.master_pid

    def stop(self) -> None:
        self._postfix.stop()

    def waiting(self) -> int | None:
        return self._postfix.queue_files()


def parse_relay(text: str, *, mark: str = "") -> Relay:
    """The relay named "lonedot" (one worker), "lonedot:WORKERS", "postfix" or "command:CALL".

    CALL takes `serve -c FILE`, as lonedot does. `mark` is added to its name, so that a relay can be measured beside
    itself.

    Raises:
        ValueError: no such relay.
    """
    kind, _, rest = text.partition(":")
    match kind:
        case "lonedot" if not rest:
            return LonedotRelay(f"lonedot{mark}")
        case "lonedot" if rest.isdecimal() and 1 <= int(rest) <= MAX_SHARDS:
            return LonedotRelay(f"lonedot:{rest}{mark}", workers=int(rest))
        case "postfix" if not rest:
            return PostfixRelay(f"postfix{mark}")
        case "command" if rest:
            return LonedotRelay(f"command{mark}", shlex.split(rest))
        case _:
            raise ValueError(f"a relay is lonedot, lonedot:WORKERS, postfix or command:CALL, not {text!r}")
