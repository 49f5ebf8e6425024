"""The page for the author of a sink: its examples work, and it names everything that is there for him."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import lonedot
import lonedot.testing
from lonedot.config.load import examine

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "sink-author.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_example_and_its_test(tmp_path: Path) -> None:
    example, test = blocks("python")
    (tmp_path / "department.py").write_text(example, encoding="utf-8")
    (tmp_path / "test_department.py").write_text(test, encoding="utf-8")
    environment = {
        **os.environ,
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTEST_PLUGINS": "lonedot.testing.plugin",
    }
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "3 passed" in ran.stdout, ran.stdout + ran.stderr


def test_the_configuration_is_one(tmp_path: Path) -> None:
    entry, offered = blocks("toml")
    (tmp_path / "sinks").mkdir()
    (tmp_path / "sinks" / "department.py").write_text(blocks("python")[0], encoding="utf-8")
    config = tmp_path / "lonedot.toml"
    config.write_text(
        '[server]\nhostname = "relay.example.com"\n\n[[listener]]\naddress = "127.0.0.1:0"\n\n'
        f'[[route]]\nto = "*"\nsmarthost = "127.0.0.1:2526"\n\n{entry}',
        encoding="utf-8",
    )
    found = examine(config)
    assert found.config is not None, found.faults
    assert found.config.sinks[0].settings == {"largest": 20_000_000}
    assert "lonedot.sinks" in tomllib.loads(offered)["project"]["entry-points"]


def test_every_name_of_the_kit_is_on_the_page() -> None:
    missing = {name for name in lonedot.testing.__all__ if f"{name}" not in PAGE}
    # Types of what others return; `arrivals` tells of its fields, `RelayThread` of its methods.
    assert missing <= {"Arrival", "RunningRelay"}


def test_every_verdict_is_on_the_page() -> None:
    for verdict in ("Next", "Stop", "Hold", "Reject", "Defer", "Discard"):
        assert verdict in lonedot.__all__
        assert f"`{verdict}(" in PAGE
