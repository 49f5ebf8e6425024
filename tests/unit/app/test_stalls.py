"""What the parent left is booked once, and nothing that lies there keeps the relay from starting."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lonedot.app.stalls import Stall, book_stalls, left_files
from lonedot.evidence.events import EventKind, EventLog
from lonedot.sinks.board import STALLED_FILE
from lonedot.testing.clock import ManualClock


def entry(name: str, is_blamed: bool = True) -> dict[str, object]:
    return {
        "at": 1.5,
        "guid": f"{{{name}}}",
        "binding": name,
        "id": "0h3k",
        "words": "ran for 10.5 s",
        "is_blamed": is_blamed,
    }


@pytest.fixture
def events(tmp_path: Path) -> EventLog:
    return EventLog(tmp_path / "events", ManualClock())


def test_each_is_an_event_and_who_is_to_blame_is_charged(tmp_path: Path, events: EventLog) -> None:
    (tmp_path / STALLED_FILE).write_text(json.dumps([entry("first"), entry("second", is_blamed=False)]))
    charged: list[Stall] = []
    booked = book_stalls(tmp_path / STALLED_FILE, events, charged.append)
    assert [stall.binding for stall in booked] == ["first", "second"]
    assert [stall.guid for stall in charged] == ["{first}"]
    told = events.read()
    assert [(one.kind, one.id) for one in told] == [(EventKind.SINK_STALLED, "0h3k")] * 2
    assert told[0].words == "first: ran for 10.5 s"
    assert told[0].fields == {"binding": "first", "guid": "{first}"}
    assert book_stalls(tmp_path / STALLED_FILE, events, charged.append) == ()
    assert len(charged) == 1


@pytest.mark.parametrize("octets", [b"", b"{}", b"[{}]", b"\xff\xfe", b"[" * 5000, b"[1]"])
def test_what_cannot_be_read_is_removed(tmp_path: Path, events: EventLog, octets: bytes) -> None:
    (tmp_path / STALLED_FILE).write_bytes(octets)
    assert book_stalls(tmp_path / STALLED_FILE, events) == ()
    assert not (tmp_path / STALLED_FILE).exists()
    assert events.read() == []


def test_nothing_there(tmp_path: Path, events: EventLog) -> None:
    assert book_stalls(tmp_path / STALLED_FILE, events) == ()


def test_each_worker_takes_its_own_and_the_first_what_is_nobodys(tmp_path: Path) -> None:
    for name in ("stalled.json", "stalled.1.json", "stalled.2.json", "stalled.x.json"):
        (tmp_path / name).touch()
    assert [path.name for path in left_files(tmp_path, 0, 2)] == ["stalled.json", "stalled.2.json"]
    assert [path.name for path in left_files(tmp_path, 1, 2)] == ["stalled.1.json"]
