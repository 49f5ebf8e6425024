"""The disk of the machine, as custody uses it."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from lonedot.spool.disk import RealDisk


def test_a_new_file_is_ours_alone(tmp_path: Path) -> None:
    disk = RealDisk()
    file = disk.create(tmp_path / "body")
    file.write(b"one ")
    file.write(b"two")
    file.close()
    file.close()
    assert (tmp_path / "body").read_bytes() == b"one two"
    assert stat.S_IMODE((tmp_path / "body").stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        disk.create(tmp_path / "body")


def test_a_new_folder_is_ours_alone(tmp_path: Path) -> None:
    disk = RealDisk()
    assert disk.make_folder(tmp_path / "folder")
    assert not disk.make_folder(tmp_path / "folder")
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o700
    disk.sync_folder(tmp_path / "folder")


def test_written_again_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "log"
    octets = bytes(range(256)) * 10_000
    path.write_bytes(octets)
    RealDisk().write_again(path)
    assert path.read_bytes() == octets


def test_removing_what_is_not_there(tmp_path: Path) -> None:
    RealDisk().unlink(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError):
        RealDisk().sync_file(tmp_path / "nothing")


def test_slots_are_zero_and_stay(tmp_path: Path) -> None:
    disk = RealDisk()
    slots = disk.slots(tmp_path / "slots", 64)
    assert slots[0:64] == bytes(64)
    slots[8:12] = b"word"
    slots.close()
    again = disk.slots(tmp_path / "slots", 64)
    assert again[8:12] == b"word"
    again.close()


def test_free_space(tmp_path: Path) -> None:
    space = RealDisk().free(tmp_path)
    assert 0 < space.free <= space.total
