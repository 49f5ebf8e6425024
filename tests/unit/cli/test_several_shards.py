"""The queue commands at a spool of several shards while the relay is down: one queue, wherever a message lies."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from lonedot.cli import run
from lonedot.observability.clock import SystemClock
from lonedot.spool.interface import MessageState, SpoolPaths
from lonedot.spool.sqlite import KeepContent, Policy, open_spool
from lonedot.terms.ids import IdSource, MessageId
from lonedot.testing.messages import acceptance

BEGAN = 1_700_000_000.0
SHARDS = (0, 1, 4)
EACH = 3


@pytest.fixture
def ids(tmp_path: Path) -> list[MessageId]:
    """Of messages, oldest first; each is in another shard than the one before."""

    async def fill() -> list[MessageId]:
        sources = [IdSource(shard) for shard in SHARDS]
        made = [
            MessageId(sources[number % len(SHARDS)].next(BEGAN + number))
            for number in range(EACH * len(SHARDS))
        ]
        for place, shard in enumerate(SHARDS):
            spool = open_spool(
                SpoolPaths(tmp_path / "spool"),
                SystemClock(),
                Policy(KeepContent.ALL, inline_sync=True),
                shard=shard,
            )
            for number in range(place, len(made), len(SHARDS)):
                state = MessageState.HELD if number == 4 else MessageState.QUEUED
                body = b"x" * (number + 1) + b"\r\n"
                await spool.accept((acceptance(made[number], BEGAN + number, body=body, state=state),))
            await spool.close()
        return made

    return asyncio.run(fill())


class Shell:
    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capture = capture

    def value(self, *arguments: str, code: int = 0) -> dict[str, object]:
        self._capture.readouterr()
        assert run([*arguments, "--json", "--spool", str(self.folder)]) == code
        found = json.loads(self._capture.readouterr().out)
        assert isinstance(found, dict)
        return found

    def ids(self, *arguments: str) -> list[str]:
        rows = self.value(*arguments)["rows"]
        assert isinstance(rows, list)
        return [row["id"] for row in rows]


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path / "spool", capsys)


def test_the_list_goes_through_all_in_one_order_page_by_page(shell: Shell, ids: list[MessageId]) -> None:
    assert shell.ids("queue", "list") == ids
    assert shell.ids("queue", "list", "--sort", "oldest", "--limit", "4", "--page", "2") == ids[4:8]
    assert shell.ids("queue", "list", "--limit", "4", "--page", "2") == ids[1:5]
    assert shell.value("queue", "list", "--limit", "1")["counts"] == {
        "queued": 8,
        "held": 1,
        "finished": 0,
        "damaged": 0,
    }


def test_one_is_found_by_its_id_or_a_part(shell: Shell, ids: list[MessageId]) -> None:
    for id in ids:
        assert shell.value("queue", "show", id)["id"] == id
    assert ids[4] in json.dumps(shell.value("why", ids[4]))
    assert shell.value("queue", "show", ids[7][2:])["id"] == ids[7]


def test_what_options_select_is_changed_in_all(shell: Shell, ids: list[MessageId]) -> None:
    assert shell.value("queue", "hold", "--domain", "example.org", "--dry-run")["would_change"] == 8
    held = shell.value("queue", "hold", "--domain", "example.org", "--reason", "closed")
    assert sorted(held["done"]) == sorted(one for one in ids if one != ids[4])  # type: ignore[call-overload]  # a list
    assert shell.value("queue", "release", "--limit", "2", "--why", "closed")["done"] == [ids[8], ids[7]]
    assert shell.value("queue", "bounce", ids[0], ids[1], "--yes")["later"] is True


def test_a_standing_rule_is_applied_in_all(shell: Shell, ids: list[MessageId]) -> None:
    assert shell.value("queue", "hold", "--rule", "to=*@example.org")["held"] == 8
    ended = shell.value("queue", "release", "--rule", "1", "--and-messages")
    assert ended["holds"] == 8


def test_the_history_is_one(shell: Shell, ids: list[MessageId]) -> None:
    shell.value("queue", "delete", "--all", "--yes")
    assert shell.ids("history") == ids
    assert shell.ids("history", "--limit", "2") == ids[-2:]


def test_backup_restore_export_and_import_go_through_all(
    shell: Shell, ids: list[MessageId], tmp_path: Path
) -> None:
    copy, new = str(tmp_path / "copy"), Shell(tmp_path / "new", shell._capture)
    assert shell.value("backup", copy)["shards"] == list(SHARDS)
    assert new.value("restore", copy)["messages"] == len(ids)
    assert new.ids("queue", "list") == ids
    archive = str(tmp_path / "all.tar")
    shell.value("queue", "export", "--tar", archive)
    assert sorted(new.value("queue", "import", archive)["here_already"]) == ids  # type: ignore[call-overload]  # a list
    new.value("queue", "delete", "--all", "--yes")
