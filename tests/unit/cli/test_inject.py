"""One file to one server, repeatable to the octet."""

import asyncio
import json
from pathlib import Path

import pytest

from lonedot.cli import run
from lonedot.reception.recorder import HangUp, Recorder, RecorderOptions, RecorderStage
from lonedot.terms.reply import Reply, reply

STORY = b"From: a@example.com\nSubject: scan\n\n.line\n%%EOF\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "story.eml"
    path.write_bytes(STORY)
    return path


async def inject(recorder: Recorder, file: Path, *more: str) -> int:
    target = f"127.0.0.1:{recorder.port}"
    return await asyncio.to_thread(run, ["inject", str(file), "--to", target, "--timeout", "5", *more])


async def test_what_is_sent_is_well_formed(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with Recorder() as recorder:
        target = f"127.0.0.1:{recorder.port}"
        assert (
            await inject(recorder, file, "--from", "<>", "--rcpt", "x@example.com", "--rcpt", "y@example.com")
            == 0
        )
    (message,) = recorder.messages
    assert message.wire == b"From: a@example.com\r\nSubject: scan\r\n\r\n..line\r\n%%EOF\r\n.\r\n"
    assert message.envelope.reverse_path.is_null
    assert [r.address.octets for r in message.envelope.recipients] == [b"x@example.com", b"y@example.com"]
    printed = capsys.readouterr().out
    assert "> MAIL FROM:<>\n< 250 2.0.0 OK\n" in printed
    assert "ending in " in printed and "%%EOF<CR><LF>.<CR><LF>]" in printed
    assert printed.startswith("# repaired before sending: crlf\n< 220 ")
    assert printed.endswith(f"accepted by {target}: 250 2.0.0 Recorded as 1\n")


async def test_raw_octets_go_out_as_they_are(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with Recorder(RecorderOptions(is_lenient=True)) as recorder:
        assert await inject(recorder, file, "--raw") == 0
    assert recorder.messages[0].wire == STORY + b".\r\n"


async def test_a_strict_server_never_answers_the_story(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = asyncio.Event()
    async with Recorder(on_waiting=lambda _: told.set()) as recorder:
        assert await inject(recorder, file, "--raw", "--timeout", "0.2") == 1
        async with asyncio.timeout(10):
            await told.wait()
    assert recorder.messages == []
    assert recorder.waiting[0].look_alike == b"\n.\r\n"
    assert capsys.readouterr().out.splitlines()[-1] == (
        "no reply to the end of data within 0.2 s: the octets end in LF . CR LF, "
        "and a strict receiver still waits for CR LF . CR LF"
    )


async def test_json(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with Recorder() as recorder:
        assert await inject(recorder, file, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["accepted"] is True
    assert told["reply"] == "250 2.0.0 Recorded as 1"
    assert told["repairs"] == ["crlf"]
    assert told["sent"] == len(recorder.messages[0].wire)
    assert told["conversation"][1] == {
        **told["conversation"][1],
        "who": "us",
        "text": "EHLO inject.example.com",
    }


def refusing(stage: RecorderStage, answer: Reply) -> RecorderOptions:
    return RecorderOptions(answer=lambda asked, _: answer if asked is stage else None)


@pytest.mark.parametrize(
    ("stage", "answer", "verdict"),
    [
        (RecorderStage.CONNECT, reply(421, "4.3.2", "Busy"), "the greeting was refused: 421 4.3.2 Busy"),
        (RecorderStage.MAIL, reply(550, "5.7.1", "Go away"), "MAIL was refused: 550 5.7.1 Go away"),
        (RecorderStage.RCPT, reply(550, "5.1.1", "Who?"), "every recipient was refused: 550 5.1.1 Who?"),
        (RecorderStage.DATA, reply(451, "4.3.0", "Later"), "DATA was refused: 451 4.3.0 Later"),
        (RecorderStage.CONTENT, reply(554, "5.6.0", "No"), "refused by 127.0.0.1:PORT: 554 5.6.0 No"),
    ],
)
async def test_refusals(
    stage: RecorderStage, answer: Reply, verdict: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Recorder(refusing(stage, answer)) as recorder:
        assert await inject(recorder, file) == 1
        expected = verdict.replace("PORT", str(recorder.port))
    assert capsys.readouterr().out.splitlines()[-1] == expected


async def test_a_server_that_hangs_up(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with Recorder(RecorderOptions(hang_up=HangUp(RecorderStage.RCPT))) as recorder:
        assert await inject(recorder, file) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert "RCPT TO" in last and ("closed the connection" in last or "connection lost" in last)


async def test_eight_bit_is_declared_where_it_can_be(tmp_path: Path) -> None:
    file = tmp_path / "x.eml"
    file.write_bytes(b"Subject: x\r\n\r\n\xe4\r\n")
    async with Recorder() as recorder:
        await inject(recorder, file)
    assert recorder.messages[0].envelope.body.value == "8BITMIME"


def test_what_cannot_be_sent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "x.eml"
    for octets, words in ((b"", "cannot be sent"), (b"Subject: x\r\n\r\na\0b\r\n", "cannot be sent")):
        file.write_bytes(octets)
        assert run(["inject", str(file), "--to", "127.0.0.1:1"]) == 1
        assert words in capsys.readouterr().err


def test_nobody_listens(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inject", str(file), "--to", "127.0.0.1:1"]) == 1
    assert "no connection to 127.0.0.1:1: connection refused" in capsys.readouterr().out


@pytest.mark.parametrize(
    "more",
    [["--to", "ho st:25"], ["--to", "h.example", "--from", "x"], ["--to", "h.example", "--helo", "a b"]],
)
def test_usage(more: list[str], file: Path) -> None:
    assert run(["inject", str(file), *more]) == 2
