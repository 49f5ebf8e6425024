"""Finished messages are found by what is kept of them, with the relay down."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import msgspec
import pytest

from lonedot.cli import run
from lonedot.observability.clock import SystemClock
from lonedot.spool.interface import Facts, MessageState, RecipientStatus, SpoolPaths
from lonedot.spool.sqlite import Policy, open_spool
from lonedot.terms.ids import IdSource, MessageId, SessionId
from lonedot.testing.messages import acceptance

BEGAN = 1_700_000_000.0


async def _fill(folder: Path) -> list[MessageId]:
    spool = open_spool(SpoolPaths(folder), SystemClock(), Policy(inline_sync=True))
    source = IdSource()
    made = []
    for number, device in enumerate(("192.0.2.1", "192.0.2.2", "198.51.100.1")):
        now = BEGAN + number * 3600
        new = acceptance(source.next(now), now, recipients=(f"r{number}@example.org",))
        state = msgspec.structs.replace(new.recipients[0], status=RecipientStatus.DELIVERED)
        made.append(
            msgspec.structs.replace(
                new,
                state=MessageState.FINISHED,
                recipients=(state,),
                facts=Facts("smtp", SessionId("s"), client=device),
            )
        )
    await spool.accept([*made, acceptance(source.next(BEGAN + 9000), BEGAN + 9000)])
    await spool.close()
    return [one.id for one in made]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ((), [0, 1, 2]),
        (("--address", "R1@example.org"), [1]),
        (("--address", "@example.com"), [0, 1, 2]),
        (("--client", "192.0.2."), [0, 1]),
        (("--subject", "Scan"), [0, 1, 2]),
        (("--subject", "no such"), []),
        (("--since", "2023-11-14T22:30+00:00", "--until", "2023-11-14T23:30+00:00"), [1]),
        (("--limit", "2"), [1, 2]),
        (("--limit", "2", "--page", "2"), [0]),
    ],
)
def test_history(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], found: list[int]
) -> None:
    ids = asyncio.run(_fill(tmp_path / "spool"))
    assert run(["history", *options, "--spool", str(tmp_path / "spool"), "--json"]) == 0
    listing = json.loads(capsys.readouterr().out)
    assert [row["id"] for row in listing["rows"]] == [ids[number] for number in found]


def test_by_part_of_an_id_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = asyncio.run(_fill(tmp_path / "spool"))
    assert run(["history", ids[1][3:], "--spool", str(tmp_path / "spool")]) == 0
    text = capsys.readouterr().out
    assert ids[1] in text and "delivered" in text and ids[0] not in text
