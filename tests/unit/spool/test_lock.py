"""One process has a spool."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lonedot.spool.interface import SpoolLocked
from lonedot.spool.lock import SpoolLock


def test_the_second_is_told_who_has_it(tmp_path: Path) -> None:
    lock = SpoolLock(tmp_path / "lock")
    with pytest.raises(SpoolLocked, match=f"in use by process {os.getpid()}"):
        SpoolLock(tmp_path / "lock")
    lock.release()
    lock.release()
    SpoolLock(tmp_path / "lock").release()


def test_a_dead_process_has_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    program = (
        "import os, pathlib, signal, sys; from lonedot.spool.lock import SpoolLock;"
        "lock = SpoolLock(pathlib.Path(sys.argv[1])); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(path)], check=False).returncode == -9
    assert path.read_text().strip().isdigit()
    lock = SpoolLock(path)
    assert path.read_text() == f"{os.getpid()}\n"
    lock.release()
    assert path.read_text() == ""


def test_one_that_is_handed_on_is_free_when_the_last_has_let_it_go(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    parent = SpoolLock(path)
    workers = [SpoolLock.handed(os.dup(parent.descriptor)) for _ in range(2)]
    parent.release()
    workers[0].release()
    with pytest.raises(SpoolLocked):
        SpoolLock(path)
    workers[1].release()
    SpoolLock(path).release()
