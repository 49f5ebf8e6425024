"""How many workers `auto` means: no more than cores that may be used, and 32 at most."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lonedot.config.cores import count_workers, usable_cores
from lonedot.config.faults import Severity
from lonedot.config.load import examine

CONFIG = """\
[server]
hostname = "relay.example.com"
workers = {workers}

[[listener]]
address = "127.0.0.1:2525"

[[route]]
to = "*"
discard = true
"""


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("max 100000\n", 8),
        ("200000 100000\n", 2),
        ("150000 100000", 2),
        ("50000 100000", 1),
        ("x", 8),
        ("1 0", 8),
    ],
)
def test_the_limit_of_the_control_group_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    file = tmp_path / "cpu.max"
    file.write_text(quota)
    assert usable_cores(file) == cores
    assert usable_cores(tmp_path / "none") == 8


def test_there_are_no_more_workers_than_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(100)))
    assert usable_cores(tmp_path / "none") == 32


@pytest.mark.parametrize(("written", "count"), [("1", 1), ("32", 32), ('"auto"', usable_cores())])
def test_what_is_written_counts(tmp_path: Path, written: str, count: int) -> None:
    file = tmp_path / "lonedot.toml"
    file.write_text(CONFIG.format(workers=written))
    config = examine(file).config
    assert config is not None
    assert count_workers(config) == count


@pytest.mark.parametrize("written", ["0", "33", "true", '"many"', "1.5", "-1"])
def test_anything_else_is_a_fault_with_its_line(tmp_path: Path, written: str) -> None:
    file = tmp_path / "lonedot.toml"
    file.write_text(CONFIG.format(workers=written))
    found = examine(file)
    assert found.config is None
    (fault,) = [one for one in found.faults if one.severity is Severity.FAULT]
    assert (fault.line, fault.do) == (3, 'write "auto", or a number from 1 to 32')
