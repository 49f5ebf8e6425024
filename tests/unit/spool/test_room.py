"""The reserve."""

from __future__ import annotations

from pathlib import Path

import pytest

from lonedot.spool.disk import FreeSpace, RealDisk
from lonedot.spool.room import Room, default_reserve
from lonedot.testing.clock import ManualClock

MIB = 1 << 20
GIB = 1 << 30


class _Disk(RealDisk):
    def __init__(self) -> None:
        self.asked = 0
        self.told = FreeSpace(1000, 10_000)
        self.gone = False

    def free(self, path: Path) -> FreeSpace:
        self.asked += 1
        if self.gone:
            raise OSError(5, "gone")
        return self.told


@pytest.mark.parametrize(
    ("total", "reserve"),
    [(0, 64 * MIB), (1 * GIB, 64 * MIB), (2 * GIB, 2 * GIB // 20), (20 * GIB, GIB), (900 * GIB, GIB)],
)
def test_default_reserve(total: int, reserve: int) -> None:
    assert default_reserve(total) == reserve


def test_the_disk_is_asked_at_most_once_a_second() -> None:
    disk, clock = _Disk(), ManualClock()
    room = Room(disk, Path("/"), clock, 100)
    assert room.has(900)
    assert not room.has(901)
    room.take(500)
    assert room.has(400)
    assert not room.has(401)
    assert disk.asked == 1
    clock.advance(1)
    assert room.has(900)
    assert disk.asked == 2


def test_after_a_failed_write_it_is_asked_again() -> None:
    disk, clock = _Disk(), ManualClock()
    room = Room(disk, Path("/"), clock, 100)
    assert room.has(900)
    disk.told = FreeSpace(100, 10_000)
    room.ask_again()
    assert room.has(0)
    assert not room.has(1)


def test_a_disk_that_cannot_tell_has_no_room() -> None:
    disk = _Disk()
    disk.gone = True
    assert not Room(disk, Path("/"), ManualClock(), 0).has(1)


def test_the_default_needs_the_total() -> None:
    disk = _Disk()
    disk.told = FreeSpace(70 * MIB, 100 * MIB)
    room = Room(disk, Path("/"), ManualClock(), None)
    assert room.has(6 * MIB)
    assert not room.has(6 * MIB + 1)
