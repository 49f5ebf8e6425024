"""A clamd of the test's own: one signature, that of EICAR, and a unix socket; it can be killed and started again."""

from __future__ import annotations

import os
import signal

from tests.need import need
from tests.peers.filters import CLAMD, EICAR, Filter

__all__ = ["SIGNATURE", "Clamd", "need_clamd"]

SIGNATURE = "Eicar-Test.UNOFFICIAL"


def need_clamd() -> None:
    need("clamd", "clamav-daemon")


class Clamd(Filter):
    """`lines` are added to its configuration."""

    def __init__(self, lines: str = "") -> None:
        super().__init__()
        self._lines = lines

    @property
    def address(self) -> str:
        return f"unix:{self.folder / 'clamd'}"

    def start(self) -> None:
        database = self.folder / "database"
        database.mkdir()
        (database / "eicar.ndb").write_text(f"Eicar-Test:0:*:{EICAR.hex()}\n")
        (self.folder / "clamd.conf").write_text(CLAMD.format(folder=self.folder) + self._lines)
        self.run()

    def run(self) -> None:
        """Start it, also after `kill`."""
        self._run(["clamd", "-c", self.folder / "clamd.conf"], self.folder / "clamd")

    def kill(self) -> None:
        """As a crash ends it: its socket stays where it is, and refuses."""
        for process in self._processes:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._processes.clear()
