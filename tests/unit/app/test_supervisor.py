"""The decisions of the parent: how long to wait, whom to suspect, what to leave."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.app import supervisor
from lonedot.app.supervisor import (
    FIRST_PAUSE_SECONDS,
    KEPT_STALLS,
    LIFE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    Backoff,
    Supervisor,
    Suspect,
    suspects,
)
from lonedot.sinks.board import STALLED_FILE, Running


def running(place: int = 0, since: float = 100.0, deadline: float = 10.0) -> Running:
    return Running(place, "{GUID}", "Plug-in", "0h3k", deadline, since)


def test_the_pause_doubles_to_its_longest() -> None:
    backoff = Backoff()
    pauses = [backoff.after(0.5) for _ in range(12)]
    assert pauses[:4] == [0.1, 0.2, 0.4, 0.8]
    assert pauses[-2:] == [LONGEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS]


@given(st.lists(st.floats(0, 2 * LIFE_SECONDS), max_size=30))
def test_a_long_life_makes_the_next_pause_short(lives: list[float]) -> None:
    backoff = Backoff()
    before = 0.0
    for lived in lives:
        pause = backoff.after(lived)
        if lived >= LIFE_SECONDS or not before:
            assert pause == FIRST_PAUSE_SECONDS
        else:
            assert pause == min(2 * before, LONGEST_PAUSE_SECONDS)
        before = pause


def test_a_sink_is_suspected_when_it_is_late_at_two_looks() -> None:
    seen: dict[int, float] = {}
    late = running()
    assert suspects([late], seen, 110.0) == []
    assert suspects([late], seen, 110.25) == []
    assert suspects([late], seen, 110.5) == [Suspect(late, 10.5)]


def test_another_call_in_the_same_place_is_not_the_one_that_was_late() -> None:
    """The machine slept: every call that ran is late, and ends."""
    seen: dict[int, float] = {}
    assert suspects([running()], seen, 5000.0) == []
    assert suspects([], seen, 5000.25) == []
    assert suspects([running(since=4000.0)], seen, 5000.5) == []
    assert suspects([running(since=4999.0)], seen, 5000.75) == []


def test_each_sink_has_its_own_deadline() -> None:
    seen: dict[int, float] = {}
    quick, slow = running(0, deadline=1.0), running(128, deadline=60.0)
    suspects([quick, slow], seen, 110.0)
    assert [one.running for one in suspects([quick, slow], seen, 110.25)] == [quick]


@pytest.fixture
def parent() -> Iterator[Supervisor]:
    one = Supervisor(["/bin/true"])
    yield one
    one.close()


def leave(parent: Supervisor, count: int) -> None:
    for number in range(count):
        one = Suspect(running(number), 10.5)
        parent._leave(parent._workers[0], [supervisor._entry(one, f"number {number}", is_blamed=True)])


def test_what_is_left_is_added_to_what_waits(parent: Supervisor, tmp_path: Path) -> None:
    parent._workers[0].board.describe(str(tmp_path), logs_json=True)
    leave(parent, 2)
    file = tmp_path / STALLED_FILE
    assert [entry["words"] for entry in json.loads(file.read_text())] == ["number 0", "number 1"]
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [STALLED_FILE]


def test_what_is_left_is_bounded_and_outlives_nonsense(parent: Supervisor, tmp_path: Path) -> None:
    parent._workers[0].board.describe(str(tmp_path), logs_json=True)
    (tmp_path / STALLED_FILE).write_bytes(b"\xff{")
    leave(parent, KEPT_STALLS + 3)
    words = [entry["words"] for entry in json.loads((tmp_path / STALLED_FILE).read_text())]
    assert len(words) == KEPT_STALLS
    assert words[-1] == f"number {KEPT_STALLS + 2}"


def test_a_folder_that_is_no_more_is_said_and_harms_nothing(
    parent: Supervisor, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    leave(parent, 1)  # no worker has said where
    parent._workers[0].board.describe(str(tmp_path / "gone"), logs_json=True)
    leave(parent, 1)
    (line,) = capfd.readouterr().err.splitlines()
    assert json.loads(line)["event"] == "stalled.not-written"


def test_lines_for_people_have_no_sign_that_steers_a_terminal(
    parent: Supervisor, capfd: pytest.CaptureFixture[str]
) -> None:
    parent._workers[0].board.describe("/spool", logs_json=False)
    parent._say("sink.stalled", binding="Plug-in\x1b[1m\nworker.died", ran_seconds=1.5)
    said = capfd.readouterr().err
    assert said.endswith('error: sink.stalled binding="Plug-in\\u001b[1m\\nworker.died" ran_seconds=1.5\n')
    assert said.count("\n") == 1


@pytest.mark.parametrize("code", [0, 1, 3])
def test_a_command_that_ends_before_it_was_ready_ends_the_parent(code: int) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            supervisor.__file__,
            "1",
            sys.executable,
            "-c",
            f"import sys; sys.exit({code})",
        ],
        check=False,
        capture_output=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, b"", b"")


def test_the_parent_loads_nothing_of_the_relay() -> None:
    """What it imports is the standard library and the board alone."""
    program = (
        "import sys, runpy; sys.argv[1:] = ['1', sys.executable, '-c', '']\n"
        "try:\n    runpy.run_path(PATH, run_name='__main__')\nexcept SystemExit:\n    pass\n"
        "print(sorted(name for name in sys.modules if name.startswith('lonedot')))\n"
        "print(sorted({'msgspec', 'click', 'asyncio', 'subprocess', 'socket'} & set(sys.modules)))\n"
    ).replace("PATH", repr(supervisor.__file__))
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], check=True, capture_output=True, timeout=60, text=True
    )
    assert done.stdout.splitlines() == ["['lonedot', 'lonedot.sinks', 'lonedot.sinks.board']", "[]"]
    assert os.path.isabs(supervisor.__file__)


def test_a_command_that_cannot_be_run_is_said() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", supervisor.__file__, "1", "/nowhere/python"],
        check=False,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert b"worker.not-started" in done.stderr
    assert b"Traceback" not in done.stderr
