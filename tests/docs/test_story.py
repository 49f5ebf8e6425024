"""The shipped example of the story: what it names is there, and `lonedot check` has nothing to say of it."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

import pytest

from lonedot.cli import run
from lonedot.sinks.examples import __path__ as examples

ROOT = Path(__file__).resolve().parents[2]
STORY = ROOT / "examples" / "story"
OLD = Path(examples[0]) / "story.toml"


def bindings(file: Path) -> dict[str, dict[str, object]]:
    found = tomllib.loads(file.read_text(encoding="utf-8"))["binding"]
    return {one["name"]: one for one in found}


def test_it_is_sound_as_it_stands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("lonedot.toml", "sinks.toml"):
        shutil.copy(STORY / name, tmp_path)
    (tmp_path / "copier.password").write_text("a password")
    (tmp_path / "copier.password").chmod(0o600)
    assert run(("check", "--load", "-c", str(tmp_path / "lonedot.toml"))) == 0
    said = capsys.readouterr()
    assert said.out.endswith("lonedot.toml: no fault\n") and said.err == ""


def test_the_five_are_those_of_the_old_server() -> None:
    """By name, priority and rule; the one verb fires at its own event, which has rules of its own."""
    old, now = bindings(OLD), bindings(STORY / "sinks.toml")
    assert set(old) <= set(now)
    for name, binding in old.items():
        keys = ("priority",) if "XEXCH50" in name else ("priority", "event", "rule")
        assert [now[name].get(key) for key in keys] == [binding.get(key) for key in keys]


def test_its_page_names_every_binding() -> None:
    page = (ROOT / "docs" / "story.md").read_text(encoding="utf-8")
    assert [name for name in bindings(STORY / "sinks.toml") if name not in page] == []
