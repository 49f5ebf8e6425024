"""`lonedot sinks new`: what is written works as it stands, and nothing is written over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from lonedot.cli.output import Problem
from lonedot.cli.sinks_new import new
from lonedot.sinks.events import Event
from lonedot.sinks.load import load_file


def make(*arguments: str) -> int:
    code = new.main(list(arguments), prog_name="lonedot sinks new", standalone_mode=False)
    assert isinstance(code, int)
    return code


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_files_and_what_is_printed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert make("Department") == 0
    assert sorted(path.name for path in (here / "sinks").iterdir()) == ["department.py", "test_department.py"]
    printed = capsys.readouterr().out
    assert 'name = "Department"\nfile = "sinks/department.py"\n' in printed
    commands = [line.split("#")[0].strip() for line in printed.splitlines() if line.startswith("    ")]
    assert commands == ["pytest sinks/test_department.py", "lonedot check --load", "lonedot serve"]


NAMES = {
    "Department": "department",
    "Copy to archive (2)": "copy_to_archive_2",
    "class": "class_sink",
    "Sink": "sink_sink",
    "A" * 64: "a" * 64,
    "x - $%&": "x",
}


def test_whatever_the_name_it_loads_and_its_test_passes(here: Path) -> None:
    for name, stem in NAMES.items():
        assert make(name, "--folder", "made") == 0
        assert load_file(here / "made" / f"{stem}.py").name == name
    environment = {
        **os.environ,
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTEST_PLUGINS": "lonedot.testing.plugin",
    }
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "made"],
        cwd=here,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"{4 * len(NAMES)} passed" in ran.stdout, ran.stdout + ran.stderr


def count_tests(text: str) -> int:
    return text.count("\ndef test_")


def test_a_sink_of_every_event_and_its_test(here: Path) -> None:
    """In one project: it loads, says its event, and its test passes."""
    written = 0
    for event in Event:
        name = f"At {event.value}"
        assert make(name, "--on", event.value, "--folder", "made") == 0
        stem = name.lower().replace(" ", "_").replace("-", "_")
        assert load_file(here / "made" / f"{stem}.py").event is event
        written += count_tests((here / "made" / f"test_{stem}.py").read_text())
    assert make("By an old name", "--on", "OnRcptCommand", "--folder", "made") == 0
    assert load_file(here / "made" / "by_an_old_name.py").event is Event.RCPT
    written += 3
    environment = {
        **os.environ,
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTEST_PLUGINS": "lonedot.testing.plugin",
    }
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "made"],
        cwd=here,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"{written} passed" in ran.stdout, ran.stdout + ran.stderr


def test_an_event_that_is_none(here: Path) -> None:
    with pytest.raises(Problem, match=r"there is no event 'rctp'(.|\\n)*did you mean rcpt") as caught:
        make("Department", "--on", "rctp")
    assert caught.value.code == 2
    assert list(here.iterdir()) == []


def test_what_is_written_is_formatted_and_typed(here: Path) -> None:
    for event in Event:
        make(f"A sink at {event.value}", "--on", event.value)
    checks = (
        ("ruff", "format", "--check", "--isolated", "--line-length", "120", "sinks"),
        ("mypy", "--strict", "sinks"),
    )
    for check in checks:
        ran = subprocess.run(
            [sys.executable, "-m", *check], cwd=here, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert make("Department", "--folder", "a folder", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["sink"], told["test"]) == ("a folder/department.py", "a folder/test_department.py")
    assert tomllib.loads(told["entry"]) == {
        "sink": [{"name": "Department", "file": "a folder/department.py"}]
    }
    assert told["next"][0] == "pytest 'a folder/test_department.py'"


@pytest.mark.parametrize("there", ["department.py", "test_department.py"])
def test_nothing_is_written_over(here: Path, there: str) -> None:
    (here / "sinks").mkdir()
    (here / "sinks" / there).write_text("mine")
    with pytest.raises(Problem, match=f"is there already; sinks/{there}"):
        make("Department")
    assert [path.name for path in (here / "sinks").iterdir()] == [there]
    assert (here / "sinks" / there).read_text() == "mine"


@pytest.mark.parametrize("name", ["", "1st", "Büro", 'a"b', "a\nb", "{x}", "a\\b", "...", "A" * 65])
def test_a_name_of_which_nothing_can_be_made(here: Path, name: str) -> None:
    with pytest.raises(Problem, match="cannot be the name of a sink") as caught:
        make(name)
    assert caught.value.code == 2
    assert list(here.iterdir()) == []


def test_a_folder_that_cannot_be_made(here: Path) -> None:
    (here / "sinks").write_text("a file")
    with pytest.raises(
        Problem, match=r"not a directory; sinks/below/department\.py; choose another --folder"
    ):
        make("Department", "--folder", "sinks/below")
