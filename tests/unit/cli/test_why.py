"""`lonedot why`, from its arguments to what it prints."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.admin.operations import Desk
from lonedot.cli import run
from lonedot.cli.why import wrapped
from lonedot.diagnosis.octets import visible
from lonedot.diagnosis.tell import Kind, Line
from lonedot.diagnosis.transcripts import StoredTranscripts
from lonedot.evidence.transcript import TranscriptStore
from tests.unit.admin.spool_double import DoubleSpool, FixedClock, Hooks
from tests.unit.cli.relay_thread import control_socket
from tests.unit.diagnosis.stories import BEGAN, content, the_story

DONE = the_story().id


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    desk = Desk(DoubleSpool((the_story(), content())), FixedClock(BEGAN + 10), hooks=Hooks(), since=BEGAN)
    with control_socket(desk, tmp_path / "control.sock"):
        yield tmp_path


def test_the_journey_names_the_sink_and_the_octets(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["why", DONE, "--spool", str(folder)]) == 0
    text = capsys.readouterr().out
    assert 'THE SINK "XRecipientList (faulty)" DAMAGED THE MESSAGE.' in text
    assert "%%EOF<LF>" in text
    assert "the next hop said: 250 2.0.0 Ok: queued as 4F1" in text


def test_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["why", "kq0a", "--spool", str(folder), "--json"]) == 0
    journey = json.loads(capsys.readouterr().out)
    assert journey["suspects"][0]["binding"] == "XRecipientList (faulty)"
    assert journey["record"]["id"] == DONE


def test_transcripts_that_are_gone_are_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["why", DONE, "--spool", str(folder), "--transcript"]) == 0
    assert "No transcript of this session could be read." in capsys.readouterr().out


def test_an_unknown_id(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["why", "nonsense!", "--spool", str(folder)]) == 1
    assert "is not a message id" in capsys.readouterr().err


@given(st.binary(max_size=300), st.integers(40, 120), st.integers(0, 3))
def test_octets_are_wrapped_without_losing_or_cutting_one(octets: bytes, width: int, indent: int) -> None:
    lines = wrapped(Line(Kind.OCTETS, visible(octets), indent), width)
    lead = "  " * indent
    assert all(len(line) <= width for line in lines)
    assert "".join(line[len(lead) + (4 if number else 0) :] for number, line in enumerate(lines)) == visible(
        octets
    )
    assert all(
        line.count("<CR>") + line.count("<LF>") == len(re.findall("<(?:CR|LF)", line)) for line in lines
    )


@given(st.text(st.characters(categories=["L", "Nd", "Zs"]), max_size=300), st.integers(40, 120))
def test_text_is_wrapped_to_the_width(text: str, width: int) -> None:
    assert all(len(line) <= width for line in wrapped(Line(Kind.TEXT, text, 2), width))


def test_transcripts_of_the_store_up_to_the_reply(tmp_path: Path) -> None:
    store = TranscriptStore(tmp_path, FixedClock(BEGAN))
    talk = store.session("s1", "192.0.2.7")
    talk.note(">", b"220 relay\r\n")
    talk.note("<", b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n")
    talk.note("#", b"4 octets of content")
    ref = talk.flush()
    talk.note(">", b"250 2.0.0 1jkq0a0000000\r\n")
    talk.note("<", b"MAIL FROM:<the next message>\r\n")
    second = talk.flush()
    assert ref is not None and second is not None
    assert [line.text for line in StoredTranscripts(store).session(second)] == [
        "MAIL FROM:<the next message><CR><LF>"
    ]
    said = [(line.who.value, line.text) for line in StoredTranscripts(store).session(ref)]
    assert said == [
        ("relay", "220 relay<CR><LF>"),
        ("peer", "MAIL FROM:<a@b><CR><LF>"),
        ("peer", "RCPT TO:<c@d><CR><LF>"),
        ("note", "4 octets of content"),
        ("relay", "250 2.0.0 1jkq0a0000000<CR><LF>"),
    ]
    assert len(StoredTranscripts(store).attempt(ref)) == 4
    store.close()
