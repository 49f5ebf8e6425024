"""The tools of the queue at a relay of two workers: a standing rule is in force in both before the command returns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lonedot.cli import run
from tests.system.test_workers import (
    both_run,
    config,
    nobody,
    receiver,
    relay,
    send,
    send_to_both,
    wait_until,
)

__all__ = ["nobody", "receiver"]


def _value(capture: pytest.CaptureFixture[str], folder: Path, *arguments: str, code: int = 0) -> Any:
    capture.readouterr()
    assert run([*arguments, "--json", "--spool", str(folder / "spool")]) == code
    return json.loads(capture.readouterr().out)


def test_a_rule_is_in_force_in_both_workers_when_the_command_returns(
    tmp_path: Path,
    nobody: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with relay(tmp_path, config(tmp_path, nobody)) as running:
        both_run(running)
        waits = send_to_both(running.ports["in"])
        made = _value(capsys, tmp_path, "queue", "hold", "--rule", "to=*@dest.example", "--reason", "closed")
        assert made["held"] == len(waits)
        comes = send_to_both(running.ports["in"])
        rows = _value(capsys, tmp_path, "queue", "list")["rows"]
        assert {row["id"] for row in rows} == {*waits, *comes}
        assert {(row["state"], row["reason"]) for row in rows} == {("held", "held by rule 1: closed")}
        assert not any(row["attempts"] for row in rows if row["id"] in comes)
        ended = _value(capsys, tmp_path, "queue", "release", "--rule", "1", "--and-messages")
        assert sorted(ended["released"]["done"]) == sorted((*waits, *comes))
        assert _value(capsys, tmp_path, "queue", "rules")["rules"] == []
        free = send(running.ports["in"])
        (row,) = _value(capsys, tmp_path, "queue", "list", "--why", "")["rows"][-1:]
        assert (row["id"], row["state"]) == (free, "queued")


def test_what_was_exported_from_both_is_imported_once(
    tmp_path: Path,
    nobody: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    archive = str(tmp_path / "all.tar")
    with relay(tmp_path, config(tmp_path, nobody)) as running:
        both_run(running)
        ids = send_to_both(running.ports["in"])
        _value(capsys, tmp_path, "queue", "export", "--tar", archive)
        again = _value(capsys, tmp_path, "queue", "import", archive)
        assert sorted(again["here_already"]) == sorted(ids)
    other = tmp_path / "other"
    other.mkdir()
    with relay(other, config(other, nobody)) as running:
        both_run(running)
        assert sorted(_value(capsys, other, "queue", "import", "--hold", archive)["done"]) == sorted(ids)
        assert sorted(_value(capsys, other, "queue", "import", archive)["here_already"]) == sorted(ids)
        changed = _value(capsys, other, "queue", "delete", "--yes", *ids)
        assert sorted(changed["done"]) == sorted(ids)
        wait_until(lambda: not _value(capsys, other, "queue", "list")["rows"])
