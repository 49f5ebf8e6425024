"""`lonedot logins`."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from lonedot.cli import run
from lonedot.reception.logins import read_logins

TOML = """
[server]
hostname = "relay.example.com"
spool = "spool"

[[listener]]
name = "in"
address = "127.0.0.1:2525"
relay_from = ["127.0.0.0/8"]
{first}

[[listener]]
name = "other"
address = "127.0.0.1:2526"
relay_from = ["127.0.0.0/8"]
allow_plaintext_login = true
{second}

[[route]]
to = "*"
smarthost = "127.0.0.1:2527"
"""
LOGINS = 'logins = "{}"'


def config(folder: Path, first: str = "", second: str = LOGINS.format("logins.txt")) -> str:
    path = folder / "lonedot.toml"
    path.write_text(TOML.format(first=first, second=second))
    return str(path)


def type_in(monkeypatch: pytest.MonkeyPatch, octets: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(octets)))


def test_add_list_remove(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = config(tmp_path)
    type_in(monkeypatch, "pässword\r\nmore".encode())
    assert run(["logins", "add", "scanner", "-c", file]) == 0
    assert capsys.readouterr().out == "scanner can log in\n"
    assert read_logins((tmp_path / "logins.txt").read_text())["scanner"].fits("pässword".encode())
    assert run(["logins", "list", "-c", file]) == 0
    assert capsys.readouterr().out == "scanner\n"
    assert run(["logins", "list", "-c", file, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["logins"] == ["scanner"]
    assert run(["logins", "remove", "scanner", "-c", file]) == 0
    assert run(["logins", "remove", "scanner", "-c", file]) == 1
    assert "there is no login 'scanner'" in capsys.readouterr().err


def test_without_a_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    type_in(monkeypatch, b"x\n")
    assert run(["logins", "add", "a", "--file", str(tmp_path / "l")]) == 0
    assert (tmp_path / "l").read_text().startswith("a:scrypt$")


def test_a_password_is_no_argument(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["logins", "add", "a", "secret", "--file", str(tmp_path / "l")]) == 2
    assert run(["logins", "add", "a", "--password", "secret", "--file", str(tmp_path / "l")]) == 2
    assert not (tmp_path / "l").exists()


def test_an_empty_password_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    type_in(monkeypatch, b"")
    assert run(["logins", "add", "a", "--file", str(tmp_path / "l")]) == 1
    assert "a password has 1 to" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("first", "second", "arguments", "words"),
    [
        ("", "", [], "no listener has logins"),
        ("", LOGINS.format("a"), ["--listener", "in"], "listener 'in' has no logins"),
        (
            LOGINS.format("a") + "\nallow_plaintext_login = true",
            LOGINS.format("b"),
            [],
            "choose with --listener",
        ),
    ],
)
def test_which_file_must_be_plain(
    tmp_path: Path,
    first: str,
    second: str,
    arguments: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["logins", "list", "-c", config(tmp_path, first, second), *arguments]) == 1
    assert words in capsys.readouterr().err


def test_by_the_address_of_a_listener(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = LOGINS.format("a") + "\nallow_plaintext_login = true"
    arguments = ["logins", "list", "--json", "--listener", "127.0.0.1:2525"]
    assert run([*arguments, "-c", config(tmp_path, first)]) == 0
    assert json.loads(capsys.readouterr().out) == {"file": str(tmp_path / "a"), "logins": []}
