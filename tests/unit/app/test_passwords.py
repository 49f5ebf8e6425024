"""Passwords of routes: each program is asked once, and what one cannot tell is said with its route."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from lonedot.app.passwords import routes_from
from lonedot.config.load import load
from lonedot.config.model import Config

SERVER = '[server]\nhostname = "relay.example.com"\nspool = "spool"\n'
ROUTE = '[[route]]\nto = "{to}"\nsmarthost = "127.0.0.1:2526"\nlogin = "relay"\n{password}\n'


def config_of(folder: Path, *passwords: str) -> Config:
    file = folder / "lonedot.toml"
    routes = (
        ROUTE.format(to=f"d{number}.example", password=password) for number, password in enumerate(passwords)
    )
    file.write_text(SERVER + "".join(routes) + '[[route]]\nto = "*"\nsmarthost = "127.0.0.1:2527"\n')
    file.chmod(0o600)
    return load(file)


def python(code: str) -> str:
    return f"password_command = ['{sys.executable}', '-I', '-S', '-c', \"\"\"{code}\"\"\"]"


def passwords_of(config: Config) -> list[bytes | None]:
    return [None if route.login is None else route.login.password for route in routes_from(config)]


def test_each_kind_of_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "secret"
    secret.write_text("from a file\nmore\n")
    secret.chmod(0o600)
    monkeypatch.setenv("LONEDOT_TEST_PASSWORD", "from a variable")
    config = config_of(
        tmp_path,
        'password = "plain"',
        'password_file = "secret"',
        'password_env = "LONEDOT_TEST_PASSWORD"',
        python("print('from a program')"),
    )
    expected = [b"plain", b"from a file", b"from a variable", b"from a program", None]
    assert passwords_of(config) == expected


def test_a_program_that_two_routes_name_is_asked_once(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    command = python(f"open('{asked}', 'a').write('x'); print('one')")
    assert passwords_of(config_of(tmp_path, command, command)) == [b"one", b"one", None]
    assert asked.read_text() == "x"


def test_programs_are_asked_at_the_same_time(tmp_path: Path) -> None:
    """Each waits until the other has begun: one after the other, neither would end."""
    meeting = (
        "import os; own, other = os.open('{0}', os.O_RDWR), os.open('{1}', os.O_RDWR); "
        "os.write(other, b'x'); os.read(own, 1); print('{0}'[-1])"
    )
    for name in ("a", "b"):
        os.mkfifo(tmp_path / name)
    commands = [
        python(meeting.format(tmp_path / own, tmp_path / other)) for own, other in (("a", "b"), ("b", "a"))
    ]
    assert passwords_of(config_of(tmp_path, *commands)) == [b"a", b"b", None]


def test_what_a_program_cannot_tell_is_said_with_its_route(tmp_path: Path) -> None:
    config = config_of(tmp_path, python("raise SystemExit(3)"))
    with pytest.raises(ValueError, match=r"route d0\.example: .* ended with exit code 3; run it by hand"):
        routes_from(config)
