"""The flight file: what is noted, and what is left behind."""

from __future__ import annotations

from pathlib import Path

from lonedot.spool.disk import RealDisk
from lonedot.spool.flight import SLOT_SIZE, Flight


def _open(path: Path, count: int = 4) -> Flight:
    return Flight(RealDisk().slots(path, count * SLOT_SIZE), count)


def test_what_has_begun_and_not_ended_is_left_behind(tmp_path: Path) -> None:
    flight = _open(tmp_path / "flight")
    for number in (7, 1 << 62, 9):
        flight.begin(number)
    flight.begin(9)
    flight.end(7)
    flight.end(7)
    assert (9 in flight, 7 in flight) == (True, False)
    flight.close()
    again = _open(tmp_path / "flight")
    assert again.left_behind() == [9, 1 << 62]
    again.clear()
    assert again.left_behind() == []
    again.close()


def test_when_all_slots_are_taken_work_goes_unnoted(tmp_path: Path) -> None:
    flight = _open(tmp_path / "flight", count=2)
    for number in (1, 2, 3):
        flight.begin(number)
    assert flight.left_behind() == [1, 2]
    flight.end(3)
    flight.end(1)
    flight.begin(4)
    assert flight.left_behind() == [2, 4]
    flight.close()


def test_nonsense_in_the_file_is_not_a_message(tmp_path: Path) -> None:
    path = tmp_path / "flight"
    path.write_bytes(b"\xff" * SLOT_SIZE + (5).to_bytes(SLOT_SIZE, "little") + bytes(2 * SLOT_SIZE))
    flight = _open(path)
    assert flight.left_behind() == [5]
    flight.close()
