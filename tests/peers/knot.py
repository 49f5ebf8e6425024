"""A private authoritative Knot on loopback, with zones of its own and a free port."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from lonedot.delivery.dns import NameServer
from tests.need import need

__all__ = ["Knot", "need_knot"]

START_SECONDS = 20.0

_CONFIG = """\
server:
    rundir: "{folder}"
    listen: 127.0.0.1@{port}
log:
  - target: stderr
    any: warning
database:
    storage: "{folder}/db"
template:
  - id: default
    storage: "{folder}"
    file: "%s.zone"
    zonefile-sync: -1
    journal-content: none
zone:
{zones}
"""

_SOA = """\
$ORIGIN {zone}.
$TTL {ttl}
@ SOA ns root 1 3600 600 86400 {ttl}
@ NS ns
ns A 127.0.0.1
"""


def need_knot() -> Path:
    return need("knotd", "knot")


class Knot:
    """Runs while it is entered."""

    def __init__(self, zones: Mapping[str, str], ttl: int = 300) -> None:
        """`zones`: name of the zone to its records, as a zone file has them."""
        self._zones = zones
        self._ttl = ttl
        self._stack = contextlib.ExitStack()
        self.address = NameServer("127.0.0.1", 0)

    def __enter__(self) -> Self:
        program = need_knot()
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="knot-")))
        for zone, records in self._zones.items():
            text = _SOA.format(zone=zone, ttl=self._ttl) + records
            (folder / f"{zone}.zone").write_text(text)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        zones = "\n".join(f"  - domain: {zone}" for zone in self._zones)
        (folder / "knot.conf").write_text(_CONFIG.format(folder=folder, port=port, zones=zones))
        log = self._stack.enter_context((folder / "log").open("wb"))
        process = subprocess.Popen(
            [str(program), "-c", str(folder / "knot.conf")], stdout=log, stderr=subprocess.STDOUT
        )
        self._stack.callback(_end, process)
        self.address = NameServer("127.0.0.1", port)
        try:
            self._wait(process, port, folder / "log")
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    @staticmethod
    def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        ends_at = time.monotonic() + START_SECONDS
        while time.monotonic() < ends_at:
            if process.poll() is not None:
                break
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return
            time.sleep(0.05)
        raise RuntimeError(f"knotd does not start: {log.read_text()[-2000:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
