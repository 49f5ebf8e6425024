"""`lonedot try` as people use it: over real sockets, told and judged, and ended by a signal."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import smtplib
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
import pytest
from click.testing import CliRunner
from rich.console import Console

from lonedot.cli import trial_run
from lonedot.cli.output import Problem
from lonedot.cli.samples import letter
from lonedot.cli.trial import command
from lonedot.cli.trial_run import Trial
from lonedot.cli.trial_show import Screen
from lonedot.config.load import load
from lonedot.observability import log


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Free ports, a temporary folder of the test's own, and no log on the runner's streams."""
    monkeypatch.setattr(trial_run, "RELAY_PORT", 0)
    monkeypatch.setattr(trial_run, "CATCHER_PORT", 0)
    configure, sunk = log.configure, io.BytesIO()
    monkeypatch.setattr(log, "configure", lambda level: configure(level=level, stream=sunk))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def invoke(*arguments: str) -> tuple[int, str]:
    """Exit code and standard output."""
    runner = CliRunner()
    with runner.isolation() as (out, _, _):
        code = command.main(list(arguments), prog_name="lonedot try", standalone_mode=False)
        said = out.getvalue().decode()
    assert isinstance(code, int)
    return code, said


def test_once_tells_the_story_and_all_holds(tmp_path: Path) -> None:
    code, said = invoke("--once")
    assert code == 0, said
    for words in (
        "1  A copier sends a scan",
        "the relay said: 250 2.0.0",
        '"X-Recipient" added X-Recipient: goods-in@example.com.',
        '"XRecipientList (faulty)" DAMAGED THE MESSAGE.',
        "LF %%EOF LF\n",
        "sent like that: … %%EOF LF . CR LF",
        "UNDONE: the message goes on as it was before this sink.",
        "--Larkspur-C3140-0000118700-1-- CR LF\n      . CR LF\n",
        "The same, octet for octet: all 294 096 octets.",
        "ALL HELD (8 checks)",
    ):
        assert words in said
    assert "Now you" not in said
    assert list(tmp_path.iterdir()) == []


def test_json_is_one_object_with_every_check() -> None:
    code, said = invoke("--once", "--json")
    told = msgspec.json.decode(said)
    assert code == 0
    assert told["held"] is True
    assert [check["held"] for check in told["checks"]] == [True] * 8
    assert told["damaged_by"] == "XRecipientList (faulty)"
    assert told["message"]["state"] == "finished"
    assert [entry["action"] for entry in told["message"]["ledger"]] == ["kept", "kept", "reduced"]


def test_what_is_kept_can_be_used_again(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    code, said = invoke("--once", "--keep", str(folder))
    assert code == 0
    assert str(folder / "lonedot.toml") in said
    assert {path.name for path in folder.iterdir()} == {"lonedot.toml", "letter.eml", "scan.pdf", "spool"}
    assert [sink.name for sink in load(folder / "lonedot.toml").sinks] == [
        "X-Recipient",
        "XRecipientList (faulty)",
    ]


def test_a_folder_that_holds_something_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(Problem, match="holds something already") as raised:
        invoke("--once", "--keep", str(tmp_path))
    assert raised.value.code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises((Problem, click.BadParameter)):
        invoke("--once", "--keep", str(tmp_path / "file" / "below"))


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_ports_that_are_taken_are_left_to_their_owners(monkeypatch: pytest.MonkeyPatch, taken: int) -> None:
    monkeypatch.setattr(trial_run, "RELAY_PORT", taken)
    monkeypatch.setattr(trial_run, "CATCHER_PORT", taken)
    code, said = invoke("--once", "--json")
    told = msgspec.json.decode(said)
    assert code == 0
    assert told["relay"].startswith("127.0.0.1:")
    assert not {told["relay"], told["catcher"]} & {f"127.0.0.1:{taken}"}


def test_a_port_that_is_taken_behind_our_back(monkeypatch: pytest.MonkeyPatch, taken: int) -> None:
    answers = iter((True, False))
    monkeypatch.setattr(trial_run, "RELAY_PORT", taken)
    monkeypatch.setattr(trial_run, "_is_free", lambda port: next(answers))
    code, said = invoke("--once", "--json")
    assert code == 0, said


def test_a_relay_that_refuses_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_run, "_CONFIG", trial_run._CONFIG.replace('["127.0.0.0/8"]', "[]"))
    code, said = invoke("--once")
    assert code == 1
    assert "NOT HELD: 1 of 1 checks." in said
    assert "the relay took the scan: 5" in said


class Told(Screen):
    """A screen whose text can be waited for."""

    def __init__(self) -> None:
        self.file = io.StringIO()
        super().__init__(Console(file=self.file, width=100))
        self._shown = asyncio.Event()

    def show(self, *arguments: object) -> None:
        super().show(*arguments)  # type: ignore[arg-type]
        self._shown.set()

    async def until(self, words: str) -> str:
        """The text behind `words`, once they are there."""
        async with asyncio.timeout(20):
            while words not in self.file.getvalue():
                self._shown.clear()
                await self._shown.wait()
        return self.file.getvalue().partition(words)[2]


async def test_it_stays_up_and_tells_of_every_mail_until_a_signal(tmp_path: Path) -> None:
    screen = Told()
    trial = Trial(tmp_path, screen, once=False)
    running = asyncio.ensure_future(trial.run())
    await screen.until("Ctrl-C ends it.")
    invited = screen.file.getvalue().partition("Now you")[2]
    assert "curl smtp://127.0.0.1:" in screen.file.getvalue()
    assert str(tmp_path / "letter.eml") in invited or str(tmp_path / "letter.eml") in screen.file.getvalue()
    port = int(screen.file.getvalue().partition("relay: 127.0.0.1:")[2].partition(" ")[0])

    def send(content: bytes, *recipients: str) -> None:
        with smtplib.SMTP("127.0.0.1", port, "laptop.example.com") as client:
            client.sendmail("you@example.com", recipients, content)

    await asyncio.to_thread(send, letter(b"Sun, 22 Nov 2026 12:29:25 +0000"), "me@example.com")
    told = await screen.until("from you@example.com to me@example.com")
    told = await screen.until("caught: ")
    assert told.startswith("the body is what you sent, octet for octet")

    await asyncio.to_thread(send, b"Subject: s\n\nbare\n", "a@example.com", "hidden@example.com")
    told = await screen.until("with the changes named above")
    assert "at the door: 127.0.0.1 sent bare LF" in screen.file.getvalue()
    for recipient in ("a@example.com", "hidden@example.com"):
        assert f"added X-Recipient: {recipient}" in screen.file.getvalue()

    with pytest.raises(smtplib.SMTPDataError):
        await asyncio.to_thread(send, b"Subject: s\r\n\r\n\0\r\n", "a@example.com")
    await screen.until("refused")

    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(20):
        await running
    assert trial.held
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


async def test_a_signal_before_the_story_ends_stops_it(tmp_path: Path) -> None:
    trial = Trial(tmp_path, Told(), once=True)
    running = asyncio.ensure_future(trial.run())
    await asyncio.sleep(0)
    os.kill(os.getpid(), signal.SIGINT)
    async with asyncio.timeout(20):
        await running
    assert not trial.held
