"""`lonedot backup` and `lonedot restore`, with the relay down."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from lonedot.cli import run
from lonedot.observability.clock import SystemClock
from lonedot.spool.interface import SpoolPaths
from lonedot.spool.sqlite import Policy, open_spool
from lonedot.terms.ids import IdSource
from lonedot.testing.messages import acceptance


async def _fill(folder: Path) -> str:
    clock = SystemClock()
    spool = open_spool(SpoolPaths(folder), clock, Policy(inline_sync=True))
    new = acceptance(IdSource().next(clock.now()), clock.now())
    await spool.accept([new])
    await spool.close()
    return new.id


def test_there_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    id = asyncio.run(_fill(tmp_path / "spool"))
    copy, new = str(tmp_path / "copy"), str(tmp_path / "new")
    assert run(["backup", copy, "--spool", str(tmp_path / "spool")]) == 0
    out = capsys.readouterr()
    assert f"lonedot restore {copy}" in out.out and "1 messages, 0 body files" in out.err
    assert run(["backup", copy, "--spool", str(tmp_path / "spool")]) == 1
    assert "the folder is not empty" in capsys.readouterr().err
    assert run(["restore", copy, "--hold", "--spool", new, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["messages"] == 1
    assert run(["queue", "list", "--json", "--spool", new]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert (row["id"], row["state"]) == (id, "held")
    assert run(["restore", copy, "--spool", new]) == 1
    assert "has 1 messages" in capsys.readouterr().err
