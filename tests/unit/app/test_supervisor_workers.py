"""The parent of several workers, with small programs in their place: order, deaths, sockets, signals, exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import lonedot
from lonedot.app import supervisor

SOURCE = str(Path(lonedot.__file__).parents[1])
WORKER = """
import json, os, signal, socket, sys, time
sys.path.insert(0, SOURCE)
from lonedot.sinks.board import Board, ENVIRONMENT, READY, STOPPED
from lonedot.reception.sockets import ListeningSockets, Place, from_environment
memory, line, number, count, shared, lock = map(int, os.environ[ENVIRONMENT].split(","))
board = Board(memory)
folder = sys.argv[1]
def say(what):
    with open(os.path.join(folder, f"{number}.said"), "a") as file:
        file.write(f"{what} {os.getpid()}\\n")
def wish(name):
    return os.path.exists(os.path.join(folder, f"{number}.{name}"))
say("started")
if wish("fails"):
    sys.exit(3)
sockets = ListeningSockets(from_environment(os.environ), line, follows=number > 0)
over = []
signal.signal(signal.SIGTERM, lambda *_: over.append("told"))
signal.signal(signal.SIGHUP, lambda *_: say("hup"))
board.set_state(READY)
say("ready")
place = Place("late", "127.0.0.1", 0)
while not over:
    time.sleep(0.01)
    if not sockets.heed_parent():
        say("orphaned")
        break
    if number == 0 and wish("opens") and not sockets.has(place):
        sockets.open(place)
    if number > 0 and sockets.has(place) and not wish("has"):
        open(os.path.join(folder, f"{number}.has"), "w").close()
if wish("stays"):
    while True:
        time.sleep(1)
board.set_state(STOPPED)
say("stopped")
sys.exit(5 if wish("sad") else 0)
""".replace("SOURCE", repr(SOURCE))


class Parent:
    def __init__(self, folder: Path, count: int) -> None:
        self.folder = folder
        command = [sys.executable, "-c", WORKER, str(folder)]
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", supervisor.__file__, str(count), *command], stderr=subprocess.DEVNULL
        )

    def said(self, number: int) -> list[tuple[str, int]]:
        try:
            lines = (self.folder / f"{number}.said").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [(words[0], int(words[1])) for words in map(str.split, lines)]

    def count(self, number: int, what: str) -> int:
        return sum(word == what for word, _ in self.said(number))

    def last_pid(self, number: int) -> int:
        return self.said(number)[-1][1]

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for number in range(4):
            if self.said(number):
                for pid in {pid for _, pid in self.said(number)}:
                    if WORKER.encode()[:40] in _command(pid):
                        os.kill(pid, signal.SIGKILL)


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def until(claim: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not claim():
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Parent]:
    parent = Parent(tmp_path, 3)
    try:
        until(lambda: all(parent.count(number, "ready") for number in range(3)))
        yield parent
    finally:
        parent.end()


def test_all_are_told_to_stop_and_the_parent_ends_behind_them(three: Parent) -> None:
    three.process.terminate()
    assert three.process.wait(30) == 0
    assert [three.count(number, "stopped") for number in range(3)] == [1, 1, 1]


def test_one_that_dies_is_started_again_and_the_others_go_on(three: Parent) -> None:
    os.kill(three.last_pid(1), signal.SIGKILL)
    until(lambda: three.count(1, "ready") == 2)
    assert [three.count(number, "started") for number in range(3)] == [1, 2, 1]


def test_the_worst_exit_code_is_the_parent_s(three: Parent) -> None:
    (three.folder / "1.sad").touch()
    three.process.terminate()
    assert three.process.wait(30) == 5


def test_one_that_stops_in_order_by_itself_ends_all(three: Parent) -> None:
    os.kill(three.last_pid(2), signal.SIGTERM)
    assert three.process.wait(30) == 0
    assert [three.count(number, "stopped") for number in range(3)] == [1, 1, 1]


def test_a_second_signal_ends_those_that_do_not_stop(three: Parent) -> None:
    (three.folder / "0.stays").touch()
    three.process.terminate()
    until(lambda: three.count(1, "stopped") == 1 and three.count(2, "stopped") == 1)
    assert three.process.poll() is None
    three.process.terminate()
    assert three.process.wait(30) == 128 + signal.SIGKILL


def test_a_reload_is_told_to_the_first_alone(three: Parent) -> None:
    three.process.send_signal(signal.SIGHUP)
    until(lambda: three.count(0, "hup") == 1)
    assert three.count(1, "hup") == three.count(2, "hup") == 0


def test_a_socket_that_the_first_opens_is_handed_to_all_also_to_the_next(three: Parent) -> None:
    (three.folder / "0.opens").touch()
    until(lambda: all((three.folder / f"{number}.has").exists() for number in (1, 2)))
    (three.folder / "1.has").unlink()
    os.kill(three.last_pid(1), signal.SIGKILL)
    until((three.folder / "1.has").exists)


def test_workers_stop_when_the_parent_is_killed(three: Parent) -> None:
    three.process.kill()
    until(lambda: all(three.count(number, "orphaned") for number in range(3)))


def test_the_others_are_started_when_the_first_is_ready(tmp_path: Path) -> None:
    """One that fails before it ever was ready ends the parent, with its code; a fault is told once."""
    (tmp_path / "0.fails").touch()
    parent = Parent(tmp_path, 3)
    try:
        assert parent.process.wait(30) == 3
        assert [len(parent.said(number)) for number in range(3)] == [1, 0, 0]
    finally:
        parent.end()


def test_a_later_one_that_cannot_start_ends_all(tmp_path: Path) -> None:
    (tmp_path / "1.fails").touch()
    parent = Parent(tmp_path, 2)
    try:
        assert parent.process.wait(30) == 3
        assert parent.count(0, "stopped") == 1
    finally:
        parent.end()


def test_what_workers_share_outlives_them(tmp_path: Path) -> None:
    one = supervisor.Supervisor(["/bin/true"], 2)
    try:
        said = json.dumps(sorted(worker.number for worker in one._workers))
        assert said == "[0, 1]"
        assert os.fstat(one._shared).st_size == supervisor.SHARED_SIZE
        assert not os.get_inheritable(one._shared)
    finally:
        one.close()
