"""The queue commands at a real spool while the relay is down: its lock is taken, or the command gives up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest

from lonedot.cli import run
from lonedot.observability.clock import SystemClock
from lonedot.spool.interface import Acceptance, MessageState, RecipientStatus, Settlement, SpoolPaths
from lonedot.spool.sqlite import Policy, SqliteSpool, open_spool
from lonedot.terms.ids import MessageId
from tests.unit.diagnosis.stories import BEGAN, BODY, HEAD, content, deferred, stored, the_story

DONE = the_story().id
QUEUED = MessageId("1jkq0b0000000")


def _at(folder: Path, task: Callable[[SqliteSpool], Coroutine[None, None, None]]) -> None:
    async def whole() -> None:
        spool = open_spool(SpoolPaths(folder), SystemClock(), Policy(inline_sync=True))
        try:
            await task(spool)
        finally:
            await spool.close()

    asyncio.run(whole())


async def _fill(spool: SqliteSpool) -> None:
    for message in (the_story(), stored(id=QUEUED)):
        waiting = tuple(
            type(state)(state.index, state.recipient, RecipientStatus.WAITING, next_at=BEGAN)
            for state in message.recipients
        )
        await spool.accept(
            [
                Acceptance(
                    message.id,
                    message.accepted_at,
                    message.envelope,
                    message.facts,
                    content(),
                    message.ledger,
                    waiting,
                    message.size,
                )
            ]
        )
    claims = await spool.claim("test", BEGAN + 10, 60, 10)
    assert [claim.message.id for claim in claims] == [DONE, QUEUED]
    story = the_story()
    tried = stored(id=QUEUED, attempts=(deferred(BEGAN + 1),), next_at=BEGAN + 1e9)
    settlements = [
        Settlement(
            DONE,
            claims[0].epoch,
            story.recipients,
            story.attempts[:1],
            MessageState.FINISHED,
            at=BEGAN + 1,
        ),
        Settlement(QUEUED, claims[1].epoch, tried.recipients, tried.attempts, at=BEGAN + 1),
    ]
    assert list(await spool.settle(settlements)) == [True, True]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    _at(tmp_path / "spool", _fill)
    return tmp_path / "spool"


def _queue(folder: Path, *arguments: str) -> int:
    return run(["queue", *arguments, "--spool", str(folder)])


def test_list_hold_release_delete(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _queue(folder, "list") == 0
    assert "1 queued, 1 finished" in capsys.readouterr().out
    assert _queue(folder, "hold", "kq0b", "--reason", "to look at") == 0
    assert _queue(folder, "list") == 0
    assert "to look at" in capsys.readouterr().out
    assert _queue(folder, "release", QUEUED) == 0
    assert _queue(folder, "retry", QUEUED) == 0
    assert _queue(folder, "delete", QUEUED, "--yes") == 0
    capsys.readouterr()
    assert _queue(folder, "list", "--state", "all") == 0
    assert "In the spool: 2 finished." in capsys.readouterr().out


def test_octets_of_each_form(folder: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    assert _queue(folder, "show", DONE, "--octets", "arrival") == 0
    assert capsysbinary.readouterr().out == HEAD + BODY
    assert _queue(folder, "show", DONE, "--octets", "sent") == 0
    sent, words = capsysbinary.readouterr()
    assert sent.endswith(b"..dots\r\n--b--\r\n.\r\n")
    assert b"the same octets as were sent" in words


def test_why_says_that_the_relay_is_down(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["why", QUEUED, "--spool", str(folder), "--transcript"]) == 0
    text = capsys.readouterr().out
    assert "The relay is not running: nothing is sent until it is started." in text
    assert "450 4.2.1 mailbox busy" in text


def test_a_spool_in_use_without_a_control_socket_is_left_alone(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def meanwhile(_: SqliteSpool) -> None:
        assert await asyncio.to_thread(_queue, folder, "delete", QUEUED, "--yes") == 1

    _at(folder, meanwhile)
    assert "is in use by process" in capsys.readouterr().err
    assert _queue(folder, "list") == 0
    assert QUEUED in capsys.readouterr().out


def test_a_folder_that_is_no_spool_stays_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _queue(tmp_path, "list") == 1
    assert "there is no spool at" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
