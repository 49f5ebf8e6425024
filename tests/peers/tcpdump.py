"""tcpdump on loopback for the time of a `with` block, and what was said in what it caught."""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from lonedot.diagnosis.capture.files import CaptureFault, read_frames
from lonedot.diagnosis.sniffing import Sniffer
from lonedot.diagnosis.sniffing_values import Code, SessionReport
from tests.need import need

_POLL_SECONDS = 0.2
_WAIT_SECONDS = 30.0


class Caught:
    """What passes on these ports of 127.0.0.1. The calling test is skipped where nobody may capture."""

    def __init__(self, ports: list[int]) -> None:
        self._tcpdump = need("tcpdump", "tcpdump")
        self._ports = ports
        self._folder = tempfile.TemporaryDirectory()
        self._path = Path(self._folder.name) / "caught.pcap"
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        wanted = " or ".join(f"tcp port {port}" for port in self._ports)
        options = ["-i", "lo", "-n", "-U", "-s", "0", "-B", "16384", "--immediate-mode", "-w", "-", wanted]
        with self._path.open("wb") as file:
            self._child = subprocess.Popen(
                [str(self._tcpdump), *options], stdout=file, stderr=subprocess.PIPE
            )
        assert self._child.stderr is not None
        words = b""
        while b"listening on" not in words:
            line = self._child.stderr.readline()
            if not line:
                self.__exit__(None, None, None)
                pytest.skip(f"no right to capture on lo: {words.decode(errors='replace')}")
            words += line
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._child is not None:
            self._child.terminate()
            self._child.communicate()
        self._folder.cleanup()

    def reports(self, count: int) -> list[SessionReport]:
        """The sessions, as soon as `count` of them are over in the file, or after 30 seconds."""
        deadline = time.monotonic() + _WAIT_SECONDS
        while True:
            found = self._read()
            over = [report for report in found if all(f.code is not Code.OPEN for f in report.findings)]
            is_closed = [
                r for r in over if any(not step.side and "connection" in step.text for step in r.steps)
            ]
            if len(is_closed) >= count:
                return is_closed
            assert time.monotonic() < deadline, f"{len(is_closed)} of {count} sessions are over"
            time.sleep(_POLL_SECONDS)

    def _read(self) -> list[SessionReport]:
        """What the file says so far; its last record may not be whole yet."""
        reports: list[SessionReport] = []
        with self._path.open("rb") as file:
            try:
                for report in Sniffer(self._ports).read(read_frames(file)):
                    reports.append(report)
            except CaptureFault:
                pass
        return reports
