"""The command itself: its table, its help, its errors and exit codes."""

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from lonedot import __version__
from lonedot.cli import COMMANDS, is_there, run


def test_help_lists_the_commands_that_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    printed = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert (command.help[:20] in printed) is is_there(name)
    assert "check" in printed


@pytest.mark.parametrize("name", [name for name in COMMANDS if is_there(name)])
def test_every_command_has_help_of_its_own(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name, "--help"]) == 0
    assert f"Usage: lonedot {name}" in capsys.readouterr().out


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"lonedot {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["chek"], 2, "lonedot: there is no command 'chek'; did you mean lonedot check?\n"),
        (["xyzzy"], 2, "lonedot: there is no command 'xyzzy'; run lonedot --help for the list\n"),
        (["check", "--nope"], 2, "; lonedot check; run lonedot check --help\n"),
        (["--nope"], 2, "; lonedot; run lonedot --help\n"),
        ([], 2, "Usage: lonedot"),
        (["inject"], 2, "missing argument 'FILE'; lonedot inject;"),
    ],
)
def test_usage_errors(
    arguments: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == code
    assert words in capsys.readouterr().err


def test_a_command_whose_module_is_missing_does_not_exist(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(
        COMMANDS, "gone", COMMANDS["check"]._replace(target="lonedot.cli.gone:command", help="Gone.")
    )
    assert run(["--help"]) == 0
    assert "Gone." not in capsys.readouterr().out
    assert run(["gone"]) == 2


def test_interrupts_and_closed_pipes(monkeypatch: pytest.MonkeyPatch) -> None:
    import lonedot.cli.check as module

    def interrupt() -> None:
        raise KeyboardInterrupt

    def closed() -> None:
        raise BrokenPipeError

    monkeypatch.setattr(module, "command", click.Command("check", callback=interrupt))
    assert run(["check"]) == 130
    monkeypatch.setattr(module, "command", click.Command("check", callback=closed))
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    assert run(["check"]) == 0


def test_python_m_is_the_command_and_help_loads_no_relay() -> None:
    source = (
        "import sys; from lonedot.cli import run; run(['--help']); "
        "print(sorted(name for name in sys.modules if name.startswith('lonedot.') and 'cli' not in name))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=True
    ).stdout
    assert printed.splitlines()[-1] == "[]"
    done = subprocess.run(
        [sys.executable, "-m", "lonedot", "chek"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")


def test_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "lonedot.toml"
    good = (
        '[server]\nhostname = "relay.example.com"\n[[listener]]\naddress = "127.0.0.1:2525"\n'
        'relay_from = ["127.0.0.0/8"]\n[[route]]\nto = "*"\nsmarthost = "127.0.0.1:2526"\n'
    )
    file.write_text(good, encoding="utf-8")
    assert run(["check", "-c", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}: no fault\n"
    file.write_text(good.replace("to =", "too =").replace('["127.0.0.0/8"]', '"8.0.0.0/8"'), encoding="utf-8")
    assert run(["check", "-c", str(file)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"{file}:5:1: warning: listener 1: relay_from: 8.0.0.0/8 is public: every client in it may send anywhere"
        " — keep it only if all of its addresses are yours",
        f"{file}:7:1: fault: route 1: too: is not a key that exists here — did you mean to?",
        f"{file}: 1 fault, 1 warning",
    ]
    assert run(["check", "-c", str(file), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["usable"], told["revision"]) == (False, None)
    assert [(fault["line"], fault["severity"]) for fault in told["faults"]] == [(5, "warning"), (7, "fault")]
    assert run(["check", "-c", str(tmp_path / "none.toml")]) == 1
