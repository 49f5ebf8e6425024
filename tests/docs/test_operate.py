"""The page for who operates a relay, done step by step in one shell, with a relay and a receiver that really run."""

from __future__ import annotations

import contextlib
import socket
import sqlite3
from pathlib import Path

import pytest

from tests.docs.steps import Command, File, steps_of
from tests.docs.test_tutorial import ROOT, Shell, do, environment_of, ports
from tests.need import find

__all__ = ["ports"]

PAGE = ROOT / "docs" / "operate.md"
LEFT = ROOT / "tests" / "unit" / "spool" / "data"
LEFT_MESSAGES = ("32ufslk000000", "32ufsllug0000")
"""One that waits and one that is held."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("left", ["", "version_3.sql", pytest.param("version_2.sql", marks=pytest.mark.slow)])
def test_the_page_for_operators(tmp_path: Path, ports: dict[str, str], left: str) -> None:
    """From an empty folder, and from the spool of an older version: everything works over that, too."""
    if left:
        leave_spool(tmp_path / "spool", LEFT / left)
    page = PAGE.read_text(encoding="utf-8")
    for port, free in {**ports, "9125": free_port()}.items():
        page = page.replace(port, free)
    listening = iter((ports["2526"], ports["2525"], ports["2525"]))
    done = 0
    with Shell(tmp_path, environment_of(tmp_path)) as shell:
        for step in steps_of(page):
            match step:
                case File(path, text):
                    (tmp_path / path).write_text(text, encoding="utf-8")
                case Command(line) if line.startswith("curl ") and find("curl") is None:
                    continue
                case Command():
                    do(shell, tmp_path, step, listening)
            done += 1
        if left:
            for message in LEFT_MESSAGES:
                told, code = shell.run(f"lonedot why {message}")
                assert (code, message in told) == (0, True), told
    assert done > 18
    assert list(listening) == []


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return str(probe.getsockname()[1])


def leave_spool(folder: Path, script: Path) -> None:
    """A spool as an older version left it."""
    shard = folder / "shards" / "0"
    shard.mkdir(parents=True, mode=0o700)
    folder.chmod(0o700)
    with contextlib.closing(sqlite3.connect(shard / "queue.db")) as database:
        database.executescript(script.read_text())
