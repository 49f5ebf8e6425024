"""The pytest plugin: the fixture works in a project that knows nothing else of ours, and costs others nothing."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

PROJECT = """
from lonedot import Edit, Next, sink
from lonedot.testing import StartRelay


@sink("one", effects={"header"})
def one(message):
    return Next([Edit.add_field("X-One", "1")])


def test_one(lonedot_relay: StartRelay):
    first, second = lonedot_relay(one), lonedot_relay()
    for relay in (first, second):
        relay.send("Subject: x\\n\\nhello\\n")
    assert first.arrivals()[0].headers.get("X-One") == b"1"
    assert not second.arrivals()[0].headers.has("X-One")
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python in a project of its own, with pytest and this plugin and no other."""
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("PYTEST_ADDOPTS", None)
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_the_fixture_in_a_project_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text(PROJECT)
    ran = run(tmp_path, "-m", "pytest", "-p", "lonedot.testing.plugin", "-q", "-W", "error", "test_one.py")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "1 passed" in ran.stdout


def test_a_project_that_does_not_ask_for_it_imports_nothing(tmp_path: Path) -> None:
    (tmp_path / "test_other.py").write_text(
        "import sys\n\n\ndef test_other():\n"
        "    ours = {name for name in sys.modules if name.split('.')[0] in ('lonedot', 'apsw', 'msgspec')}\n"
        "    assert ours == {'lonedot', 'lonedot.testing', 'lonedot.testing.plugin'}\n"
    )
    ran = run(tmp_path, "-m", "pytest", "-p", "lonedot.testing.plugin", "-q", "test_other.py")
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_package_names_the_plugin() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    target = project["entry-points"]["pytest11"]["lonedot"]
    assert hasattr(importlib.import_module(target), "lonedot_relay")


def test_the_front_door() -> None:
    import lonedot.testing as kit

    for name in kit.__all__:
        assert getattr(kit, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        kit.nothing  # noqa: B018  # what is tested
