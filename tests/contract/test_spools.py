"""Every spool there is, under the one contract."""

from __future__ import annotations

from pathlib import Path

from lonedot.spool.interface import Spool, SpoolPaths
from lonedot.spool.sqlite import Policy, open_spool
from lonedot.testing.clock import ManualClock
from lonedot.testing.spool import MemorySpool
from tests.contract.spool import SpoolContract


class TestMemory(SpoolContract):
    def make(self, folder: Path, clock: ManualClock) -> Spool:
        return MemorySpool()


class TestSqlite(SpoolContract):
    def make(self, folder: Path, clock: ManualClock) -> Spool:
        return open_spool(SpoolPaths(folder / "spool"), clock)


class TestSqliteInline(SpoolContract):
    def make(self, folder: Path, clock: ManualClock) -> Spool:
        return open_spool(SpoolPaths(folder / "spool"), clock, Policy(inline_sync=True))
