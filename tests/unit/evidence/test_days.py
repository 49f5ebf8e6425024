"""Lines in files by day: places that hold what was promised, or nothing."""

import os
import stat
import threading
from pathlib import Path

import pytest

from lonedot.evidence import days
from lonedot.evidence.days import DayFiles

NOON = 1_700_000_000.0
DAY = 86400


def test_places_hold_their_lines(tmp_path: Path) -> None:
    files = DayFiles(tmp_path / "evidence")
    places = [files.append(b"line %d\n" % number, NOON) for number in range(3)]
    assert places == [("2023-11-14-0000", 0), ("2023-11-14-0000", 7), ("2023-11-14-0000", 14)]
    assert files.read("2023-11-14-0000", 7, 7) == b"line 1\n"
    assert files.read("2023-11-14-0000", 14, 8) is None
    assert files.read("2023-11-14-0001", 0, 1) is None
    assert files.read("../../etc/passwd", 0, 1) is None
    files.close()


def test_nothing_is_written_before_a_flush_or_64_kib(tmp_path: Path) -> None:
    files = DayFiles(tmp_path)
    files.append(b"x\n", NOON)
    assert files.size_of("2023-11-14-0000") == 0
    files.append(b"y" * days.FLUSH_AT, NOON)
    assert files.size_of("2023-11-14-0000") == days.FLUSH_AT + 2
    files.close()


def test_files_are_private(tmp_path: Path) -> None:
    files = DayFiles(tmp_path / "evidence")
    files.append(b"x\n", NOON)
    files.close()
    assert stat.S_IMODE((tmp_path / "evidence").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "evidence/2023-11-14-0000.jsonl").stat().st_mode) == 0o600


def test_a_new_day_and_a_new_start_begin_new_files(tmp_path: Path) -> None:
    files = DayFiles(tmp_path)
    files.append(b"a\n", NOON)
    assert files.append(b"b\n", NOON + DAY) == ("2023-11-15-0000", 0)
    files.close()
    again = DayFiles(tmp_path)
    assert again.append(b"c\n", NOON + DAY) == ("2023-11-15-0001", 0)
    again.close()
    assert again.stems() == ["2023-11-14-0000", "2023-11-15-0000", "2023-11-15-0001"]
    assert [again.read(stem, 0, 2) for stem in again.stems()] == [b"a\n", b"b\n", b"c\n"]


def test_what_a_crash_did_not_write_is_nothing_and_never_another_line(tmp_path: Path) -> None:
    before = DayFiles(tmp_path)
    lost = before.append(b"lost\n", NOON)
    assert lost is not None  # and no flush: the process dies here
    after = DayFiles(tmp_path)
    assert after.append(b"kept\n", NOON) != lost
    after.close()
    assert after.read(*lost, 5) is None
    os.close(before._fd)


def test_old_days_are_forgotten(tmp_path: Path) -> None:
    files = DayFiles(tmp_path)
    for number in range(4):
        files.append(b"x\n", NOON + number * DAY)
    files.flush()
    (tmp_path / "notes.jsonl").write_text("a person's own file", encoding="utf-8")
    assert files.forget(NOON + 2 * DAY) == 2
    assert files.stems() == ["2023-11-16-0000", "2023-11-17-0000"]
    assert (tmp_path / "notes.jsonl").exists()
    files.close()


def test_a_folder_that_cannot_be_made_loses_lines_and_tells_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    told: list[str] = []
    files = DayFiles(tmp_path / "file", told.append)
    assert [files.append(b"x\n", NOON + number / 10) for number in range(30)] == [None] * 30
    assert files.lost == 30
    assert len(told) == 1
    (tmp_path / "file").unlink()
    assert files.append(b"x\n", NOON + 10) == ("2023-11-14-0000", 0)
    files.close()


def test_a_full_disk_loses_lines_and_goes_on_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    files = DayFiles(tmp_path, told.append)
    first = files.append(b"first\n", NOON)
    assert first is not None

    def full(fd: int, octets: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(os, "write", full)
        files.flush()
    assert (files.lost, len(told)) == (1, 1)
    assert files.read(*first, 6) is None
    second = files.append(b"second\n", NOON)
    assert second == ("2023-11-14-0001", 0)
    assert files.read(*second, 7) == b"second\n"
    assert files.read(*first, 6) is None
    files.close()


def test_reading_in_a_thread_while_lines_are_appended(tmp_path: Path) -> None:
    files = DayFiles(tmp_path)
    places: list[tuple[str, int]] = []
    wrong: list[object] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            for number, place in enumerate(places[-50:], max(0, len(places) - 50)):
                octets = files.read(*place, 10)
                if octets is None or not octets.endswith(b"\n") or not octets.startswith(b"l"):
                    wrong.append((number, place, octets))

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(20_000):
        place = files.append(b"l%08d\n" % number, NOON)
        assert place is not None
        places.append(place)
    done.set()
    reader.join()
    assert wrong == []
    assert all(
        files.read(*place, 10) == b"l%08d\n" % number
        for number, place in enumerate(places[::500])
        if not number
    )
    assert files.read(*places[12_345], 10) == b"l00012345\n"
    files.close()


def test_several_may_write_into_one_folder(tmp_path: Path) -> None:
    """Each has a file of its own, also when all begin at the same moment."""
    writers = [DayFiles(tmp_path) for _ in range(8)]
    begin = threading.Barrier(len(writers))
    places: list[tuple[str, int] | None] = []

    def work(number: int) -> None:
        begin.wait()
        places.append(writers[number].append(b"line %d\n" % number, NOON))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(writers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(places)) == len(writers) and None not in places
    for one in writers:
        one.close()
        assert one.lost == 0
    assert len(writers[0].stems()) == len(writers)
