"""Passwords that a program tells: bounded in time and size, and never shown."""

import stat
import sys
import time
from pathlib import Path

import pytest

from lonedot.config.faults import Severity
from lonedot.config.secrets import MAX_SECRET, ask, secret_command
from lonedot.config.values import Secret, Unfit
from tests.unit.config.conftest import ROUTE, Say


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-I", "-S", "-c", code)


def refused(command: tuple[str, ...], seconds: float = 10.0) -> str:
    told = ask(command, seconds)
    assert isinstance(told, Unfit)
    assert told.do
    return told.what


def test_the_first_line_is_the_password() -> None:
    assert ask(python("print('open sesame'); print('url: x')")) == Secret("open sesame")
    assert ask(python("import sys; sys.stdout.write('no line end')")) == Secret("no line end")


def test_no_shell_sees_the_arguments() -> None:
    told = ask((*python("import sys; print(sys.argv[1])"), "$(echo x); `y` *"))
    assert told == Secret("$(echo x); `y` *")


def test_what_goes_wrong_is_said_and_no_secret_with_it() -> None:
    assert "exit code 3" in refused(python("import sys; print('hidden'); sys.exit(3)"))
    assert "hidden" not in refused(python("import sys; print('hidden'); sys.exit(3)"))
    assert "signal 9" in refused(python("import os; os.kill(os.getpid(), 9)"))
    assert "is empty" in refused(python("print()"))
    assert "not UTF-8" in refused(python("import sys; sys.stdout.buffer.write(b'\\xff')"))
    assert "no program" in refused(("no-such-program-here",))


def test_a_program_that_writes_for_ever_is_ended() -> None:
    assert f"more than {MAX_SECRET}" in refused(python("while True: print('y' * 100)"))


def test_the_deadline_holds_for_the_children_too() -> None:
    child = (
        "import subprocess, sys; p = subprocess.Popen(['sleep', '100']); print(p.pid, flush=True); p.wait()"
    )
    began = time.monotonic()
    assert "did not end within 1 seconds" in refused(python(child), 1.0)
    assert time.monotonic() - began < 8


def test_a_program_that_anybody_may_write_is_not_run(tmp_path: Path) -> None:
    program = tmp_path / "tell"
    program.write_text("#!/bin/sh\necho x\n")
    program.chmod(0o757)
    assert "anybody may write" in refused((str(program),))
    program.chmod(0o700)
    assert ask((str(program),)) == Secret("x")


@pytest.mark.parametrize("value", ["pass show x", [], [1], {}, True, [""]])
def test_a_command_is_a_list_of_words(value: object) -> None:
    with pytest.raises(Unfit):
        secret_command(value, Path())


def test_a_program_with_a_slash_is_counted_from_the_folder() -> None:
    assert secret_command(["./tell", "x"], Path("/etc/lonedot"))[0] == "/etc/lonedot/tell"
    assert secret_command(["pass", "x"], Path("/etc/lonedot"))[0] == "pass"


def test_reading_a_configuration_runs_no_program(say: Say, tmp_path: Path) -> None:
    trace = tmp_path / "was-run"
    command = f'["{sys.executable}", "-c", "open({str(trace)!r}, \'w\')"]'
    examined = say(route=ROUTE + f'login = "relay"\npassword_command = {command}\n')
    assert examined.config is not None, examined.faults
    assert examined.config.routes[0].password is None
    assert not trace.exists()


def test_faults_of_the_command_are_told_by_their_line(say: Say, tmp_path: Path) -> None:
    examined = say(
        route=ROUTE + 'login = "relay"\npassword_command = ["no-such-program-here"]\npassword = "x"\n'
    )
    told = {(fault.line, fault.what) for fault in examined.faults if fault.severity is Severity.FAULT}
    assert any(line == 11 and "no program" in what for line, what in told), told
    assert any("stands beside password" in what for _, what in told), told
    file = tmp_path / "lonedot.toml"
    file.chmod(file.stat().st_mode | stat.S_IWOTH)
    from lonedot.config.load import examine

    assert any("anybody may write" in fault.what for fault in examine(file).faults)
