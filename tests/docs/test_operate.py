"""The page for who operates a relay, done step by step in one shell, with a relay and a receiver that really run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.steps import Command, File, steps_of
from tests.docs.test_tutorial import ROOT, Shell, do, environment_of, ports

__all__ = ["ports"]

PAGE = ROOT / "docs" / "operate.md"


@pytest.mark.timeout(300)
def test_the_page_for_operators(tmp_path: Path, ports: dict[str, str]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    for port, free in ports.items():
        page = page.replace(port, free)
    listening = iter((ports["2526"], ports["2525"]))
    done = 0
    with Shell(tmp_path, environment_of(tmp_path)) as shell:
        for step in steps_of(page):
            match step:
                case File(path, text):
                    (tmp_path / path).write_text(text, encoding="utf-8")
                case Command():
                    do(shell, tmp_path, step, listening)
            done += 1
    assert done > 12
    assert list(listening) == []
