"""A relay in a process of its own, as `lonedot serve` runs it: for kills, signals and peers that block.

By default it has no parent, so that what is killed stays dead and `pid` is the relay's; `SUPERVISED` gives it one.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["SERVE", "SUPERVISED", "RelayProcess"]

SERVE = ("-m", "lonedot", "serve", "--no-supervisor")
SUPERVISED = ("-m", "lonedot", "serve")
START_SECONDS = 60.0
"""A machine that runs other tests besides may be slow; a relay that cannot start says so at once."""


class RelayProcess:
    """Runs from the start of a `with` block to its end; may be killed and started again in between."""

    def __init__(
        self,
        folder: Path,
        toml: str,
        environment: dict[str, str] | None = None,
        *,
        program: Sequence[str] = SERVE,
    ) -> None:
        """`program`: what the interpreter gets before `-c CONFIG`. It and `environment` hold from the next start."""
        self.folder = folder
        self.config = folder / "lonedot.toml"
        self.config.write_text(toml)
        self.ports: dict[str, int] = {}
        self.log: list[dict[str, object]] = []
        self.other_output: list[str] = []
        self.program = tuple(program)
        self.environment = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = threading.Event()
        self._listened = 0
        self._changed = threading.Condition()
        self._listeners = toml.count("[[listener]]")
        self._reader: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def worker(self) -> int:
        """Process id of the first worker of a parent; 0 while there is none."""
        return self.workers.get(0, 0)

    @property
    def workers(self) -> dict[int, int]:
        """By number, the process ids of the workers of a parent."""
        found: dict[int, int] = {}
        for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split():
            try:
                said = Path(f"/proc/{pid}/environ").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            _, mark, watch = said.partition(b"LONEDOT_WATCH=")
            if mark:
                found[int(watch.partition(b"\0")[0].split(b",")[2])] = int(pid)
        return found

    @property
    def starts(self) -> int:
        """How often all listeners came to listen since `start`: a parent starts its worker again."""
        return self._listened // self._listeners

    def wait_for_start(self, count: int, seconds: float = START_SECONDS) -> None:
        """Return as soon as `starts` is `count`.

        Raises:
            TimeoutError: it is not, after so many seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self.starts >= count, seconds):
                raise TimeoutError(f"{self.starts} starts, not {count}")

    def start(self) -> None:
        """Start, and wait until every listener listens.

        Raises:
            RuntimeError: it ended, or did not come up in time; the words are its output.
        """
        self._ready.clear()
        self.ports.clear()
        self._listened = 0
        self._process = subprocess.Popen(  # noqa: S603  # our own command
            [sys.executable, *self.program, "-c", str(self.config)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, **self.environment},
        )
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()
        if not self._ready.wait(START_SECONDS) or len(self.ports) < self._listeners:
            self.kill()
            raise RuntimeError("the relay did not start: " + "\n".join(self.other_output[-20:]))

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            try:
                entry = json.loads(line)
            except ValueError:
                self.other_output.append(line.decode("utf-8", "replace").rstrip())
                continue
            self.log.append(entry)
            if entry.get("event") == "listening" and entry.get("port"):  # not the socket of local programs
                with self._changed:
                    self.ports[str(entry["listener"])] = int(entry["port"])
                    self._listened += 1
                    self._changed.notify_all()
                if len(self.ports) == self._listeners:
                    self._ready.set()
        self._ready.set()

    def wait(self, seconds: float) -> int:
        """Wait until it ends by itself; the exit code (negative: the signal).

        Raises:
            subprocess.TimeoutExpired: it goes on.
        """
        assert self._process is not None
        self._process.wait(seconds)
        return self._end(self._process)

    def kill(self) -> None:
        """SIGKILL: nothing is flushed, nobody is told."""
        if self._process is not None:
            self._process.kill()
            self._end(self._process)

    def stop(self, seconds: float = 20.0) -> int:
        """SIGTERM and wait; the exit code.

        Raises:
            subprocess.TimeoutExpired: it does not stop.
        """
        process = self._process
        if process is None:
            return 0
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        return self._end(process)

    def _end(self, process: subprocess.Popen[bytes]) -> int:
        code = process.wait()
        if self._reader is not None:
            self._reader.join()
        assert process.stderr is not None
        process.stderr.close()
        self._process = None
        return code
