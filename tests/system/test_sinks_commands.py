"""Every command on bindings, the same three ways: beside a running relay, with that relay down, on a file alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lonedot.cli import run
from lonedot.sinks.bindings import guid_for
from lonedot.testing.process import RelayProcess
from tests.system.talk import MESSAGE, first_config

X_RECIPIENT = "lonedot.sinks.builtin.x_recipient:x_recipient"
FAULTY = "lonedot.sinks.builtin.faulty:x_recipient_list"
CONFIG = first_config(
    1,
    server='registry = "sinks.toml"',
    more='\n[[source]]\nnumber = 2\n[[listener]]\naddress = "127.0.0.1:0"\nsource = 2\n',
)
REGISTRY = "# Kept by hand.\n[[source]]\nnumber = 2\n"

Shell = Callable[..., str]


@pytest.fixture(params=["running", "down", "file"])
def shell(
    request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Iterator[Shell]:
    """Runs a command; what it printed, with what it said to stderr when it was to fail."""
    where = ["-c", str(tmp_path / "lonedot.toml")]
    if request.param == "file":
        where = ["--registry", str(tmp_path / "sinks.toml")]
    (tmp_path / "sinks.toml").write_text(REGISTRY)
    (tmp_path / "lonedot.toml").write_text(CONFIG)
    (tmp_path / "m.eml").write_bytes(MESSAGE)

    def call(*words: str, code: int = 0) -> str:
        got = run([*words, *where])
        said = capsys.readouterr()
        assert got == code, said
        assert not code or said.err.startswith("lonedot: ") or said.out
        return said.out + (said.err if code else "")

    if request.param != "running":
        yield call
        return
    with RelayProcess(tmp_path, CONFIG):
        yield call


def names(shell: Shell, *words: str) -> list[tuple[int, str, str]]:
    """Source, event and name of each binding, in firing order."""
    bindings = json.loads(shell("sinks", "list", *words, "--json"))["bindings"]
    return [(one["source"], one["event"], one["name"]) for one in bindings]


def shown(shell: Shell, name: str, *words: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(shell("sinks", "show", name, *words, "--json"))
    return found


def test_the_modern_ones(shell: Shell, tmp_path: Path) -> None:
    add = ("--event", "OnArrival", "--group", "g")
    shell("sinks", "add", "first", X_RECIPIENT, "--priority", "20", *add)
    shell("sinks", "add", "second", FAULTY, "--priority", "10", "--rule", "RCPT TO=*@b.example", *add)
    shell("sinks", "add", "first", X_RECIPIENT, "--source", "2", "--event", "_EOD", "--reads", "header,body")
    assert names(shell) == [
        (1, "arrival", "second"),
        (1, "arrival", "first"),
        (2, "end-of-data", "first"),
    ]
    assert names(shell, "--source", "2") == [(2, "end-of-data", "first")]
    assert "source 2 (smtpsvc 2): end-of-data\n" in shell("sinks", "list")
    assert "there is no source 3; there are: 1, 2" in shell("sinks", "list", "--source", "3", code=1)

    assert "2 bindings are named 'first'" in shell("sinks", "show", "first", code=1)
    assert "2 bindings are named 'first'" in shell("sinks", "disable", "first", code=1)
    assert shown(shell, "first", "--source", "1")["guid"] == guid_for("first")
    assert shown(shell, "second")["rule"] == "RCPT TO=*@b.example"

    shell("sinks", "set", "first", "priority", "5", "--source", "1")
    assert names(shell, "--source", "1")[0] == (1, "arrival", "first")
    shell("sinks", "unset", "first", "priority", "--source", "1")
    assert "does not set priority" in shell("sinks", "unset", "first", "priority", "--source", "1", code=1)
    shell("sinks", "set", "second", "sink_properties.Header", "X-A")
    shell("sinks", "set", "second", "sink_properties.HEADER", "X-B")
    assert shown(shell, "second")["sink_properties"] == {"Header": "X-B"}

    order = shell("sinks", "order", "--to", "a@c.example", "--source", "1")
    assert "second  not called: RCPT TO=*@b.example" in order and order.splitlines()[-1].split()[0] == "1"
    found = json.loads(shell("sinks", "order", "--to", "a@c.example", "--event", "OnArrival", "--json"))
    assert [one["name"] for one in found["order"]] == ["first"] and found["not_called"] == ["second"]

    message = str(tmp_path / "m.eml")
    assert "added X-Recipient: a@b.example" in shell(
        "sinks", "test", "first", message, "--to", "a@b.example", "--source", "1"
    )
    tried = json.loads(shell("sinks", "test", "--all", message, "--to", "a@b.example", "--json", code=1))
    assert [step["binding"] for step in tried["steps"]] == ["second", "first"]

    assert shell("sinks", "disable", "--group", "g").count("disabled ") == 2
    assert {one["status"] for one in json.loads(shell("sinks", "list", "--json"))["bindings"]} == {
        "disabled",
        "enabled",
    }
    assert json.loads(shell("sinks", "enable", guid_for("second"), "--json"))["done"] == [
        f"enabled 'second' {guid_for('second')}"
    ]
    (tmp_path / "other.toml").write_text((tmp_path / "sinks.toml").read_text().replace('"X-B"', '"X-C"'))
    lines = json.loads(shell("sinks", "diff", str(tmp_path / "other.toml"), "--json", code=1))["differences"]
    assert lines == ['~ second: sink_properties: {"Header":"X-C"} -> {"Header":"X-B"}']
    assert shell("sinks", "diff", str(tmp_path / "sinks.toml")) == "no difference\n"

    shell("sinks", "remove", "first", "--source", "2")
    assert [name for _, _, name in names(shell)] == ["second", "first"]
    assert "did you mean 'second'?" in shell("sinks", "remove", "sekond", code=1)
    assert (tmp_path / "sinks.toml").read_text().startswith(REGISTRY)


def test_the_old_one(shell: Shell) -> None:
    at = ("1", "OnArrival", "X Sink")
    assert "priority 0: it is the first" in shell("smtpreg", "/add", *at, X_RECIPIENT, "RCPT TO=*")
    shell("smtpreg", "/add", "2", "ontransportsubmission", "X Sink", X_RECIPIENT, "", "344")
    shell("smtpreg", "/setprop", *at, "Source", "Priority", "28010")
    shell("smtpreg", "/setprop", *at, "sink", "Header", "X-A")
    text = shell("smtpreg", "/enum")
    assert "        Rule = RCPT TO=*\n        Priority = 28010\n" in text and "        Header = X-A\n" in text
    assert text.count("Source {") == 2 and text.count("{") == text.count("}")
    shell("smtpreg", "/delprop", *at, "Source", "rule")
    assert shell("smtpreg", "/disable", *at) == f"disabled 'X Sink' {guid_for('X Sink')}\n"
    assert (shown(shell, guid_for("X Sink"))["status"], "Rule" in shell("smtpreg", "/enum")) == (
        "disabled",
        False,
    )
    assert shown(shell, "X Sink", "--source", "2")["status"] == "enabled"
    assert json.loads(shell("smtpreg", "/enable", *at, "--json"))["done"] == [
        f"enabled 'X Sink' {guid_for('X Sink')}"
    ]
    for words, error in (
        (("/enable", "1", "OnArrival", "x sink"), "did you mean 'X Sink'?"),
        (
            ("/enable", "3", "OnArrival", "X Sink"),
            "it is bound at 'arrival' of source 1 and at 'arrival' of source 2",
        ),
        (("/enable", "1", "OnArival", "X Sink"), "did you mean OnArrival?"),
        (("/remove", "1", "_EOD", "X Sink"), "there is no binding 'X Sink' at 'end-of-data' of source 1"),
        (("/setprop", *at, "Both", "a", "b"), "there is no property bag 'Both'"),
        (("/delprop", *at, "Sink", "Heeder"), "did you mean 'Header'?"),
    ):
        assert error in shell("smtpreg", *words, code=1)
    assert "did you mean /enum?" in shell("smtpreg", "/enumm", code=2)
    shell("smtpreg", "/remove", *at)
    assert names(shell) == [(2, "arrival", "X Sink")]
