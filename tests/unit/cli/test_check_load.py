"""`lonedot check --load`: what the code of the sinks says, by the line of their entry; without it no code is run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lonedot.cli import run

CONFIG = """\
[server]
hostname = "relay.example.com"

[[listener]]
address = "127.0.0.1:0"
relay_from = ["127.0.0.0/8"]

[[route]]
to = "*"
smarthost = "127.0.0.1:2526"

[[sink]]
name = "one"
file = "one.py"
"""
CODE = """\
import dataclasses
import pathlib

from lonedot import Next, sink

pathlib.Path("was-run").touch()


@dataclasses.dataclass
class Settings:
    largest: int = 1


@sink("one", settings=Settings)
def one(message, settings):
    return Next()
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.py").write_text(CODE)
    return tmp_path


def check(capsys: pytest.CaptureFixture[str], config: str, *arguments: str) -> tuple[int, str]:
    Path("lonedot.toml").write_text(config)
    code = run(["check", *arguments])
    return code, capsys.readouterr().out


def test_without_it_no_code_is_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = CONFIG + "settings = { largest = false, x = 1 }\n"
    assert check(capsys, config) == (0, "lonedot.toml: no fault\n")
    assert not (here / "was-run").exists()


def test_code_and_settings_that_fit(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(capsys, CONFIG + "settings = { largest = 5 }\n", "--load") == (0, "lonedot.toml: no fault\n")
    assert (here / "was-run").exists()


@pytest.mark.parametrize(
    ("more", "place", "words"),
    [
        ('settings = { largest = "x" }\n', "15:14", "sink 'one': settings.largest: expected int, got str"),
        ("settings = { largset = 1 }\n", "15:14", "settings.largset: there is no such setting; did you mean"),
        (
            'role = "protective"\non_damage = "hold"\n[sink.settings]\nLARGEST = "x"\n',
            "18:1",
            "settings.largest",
        ),
    ],
)
def test_settings_that_do_not_fit(
    capsys: pytest.CaptureFixture[str], more: str, place: str, words: str
) -> None:
    code, printed = check(capsys, CONFIG + more, "--load")
    assert code == 1
    fault, total = printed.splitlines()
    assert fault.startswith(f"lonedot.toml:{place}: fault: sink 1: ")
    assert words in fault
    assert total == "lonedot.toml: 1 fault"


def test_code_that_does_not_load(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "two.py").write_text("def two(message):\n    return None\n\nraise RuntimeError('no directory')\n")
    second = '\n[[sink]]\nname = "two"\nfile = "two.py:two"\n'
    code, printed = check(capsys, CONFIG + second, "--load")
    assert code == 1
    assert "lonedot.toml:16:" in printed
    assert "fault: sink 2: " in printed
    assert "RuntimeError: no directory" in printed


def test_a_sink_that_is_switched_off_is_not_loaded(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(capsys, CONFIG + "enabled = false\n", "--load")[0] == 0
    assert not (here / "was-run").exists()


def test_a_sink_in_a_process_of_its_own_is_asked_there(capsys: pytest.CaptureFixture[str]) -> None:
    config = CONFIG + 'isolation = "process"\nsettings = { largest = LARGEST }\n'
    assert check(capsys, config.replace("LARGEST", "5"), "--load")[0] == 0
    code, printed = check(capsys, config.replace("LARGEST", '"x"'), "--load")
    assert code == 1
    assert "settings.largest: expected int, got str" in printed


def test_the_registry_is_loaded_too(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = CONFIG.replace("[[listener]]", 'registry = "registry.toml"\n\n[[listener]]')
    binding = '[[binding]]\nname = "two"\nsink = "one.py"\n\n[binding.sink_properties]\nlargest = LARGEST\n'
    (here / "registry.toml").write_text(binding.replace("LARGEST", "5"))
    assert check(capsys, config, "--load") == (0, "lonedot.toml: no fault\n")
    (here / "registry.toml").write_text(binding.replace("LARGEST", '"x"'))
    assert check(capsys, config)[0] == 0
    code, printed = check(capsys, config, "--load")
    assert code == 1
    assert (
        "registry.toml:6:1: fault: binding 1: sink 'two': settings.largest: expected int, got str" in printed
    )


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, printed = check(capsys, CONFIG + "settings = { x = 1 }\n", "--load", "--json")
    told = json.loads(printed)
    assert (code, told["usable"]) == (1, False)
    assert told["revision"] is not None
    assert [(fault["line"], fault["severity"]) for fault in told["faults"]] == [(15, "fault")]


def test_a_configuration_with_faults_of_its_own_is_not_loaded(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _ = check(capsys, CONFIG + "settings = 5\n", "--load")
    assert code == 1
    assert not (here / "was-run").exists()


def test_a_program_that_tells_the_password_of_a_database_is_asked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    domain = """
[[domain]]
name = "here.example"
recipients = {{ sql = "postgresql://relay@db.example.com/mail", query = "select :local", password_command = ["{}"] }}
"""
    assert check(capsys, CONFIG + domain.format("false"))[0] == 0
    code, printed = check(capsys, CONFIG + domain.format("false"), "--load")
    assert code == 1
    assert "domain 1: recipients" in printed and "exit code 1" in printed
    assert check(capsys, CONFIG + domain.format("hostname"), "--load")[0] == 0
