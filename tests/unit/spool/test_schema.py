"""A shard that an older version left is taken over with all that it holds."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import apsw
import pytest

from lonedot.spool import schema
from lonedot.spool.interface import Filter, MessageState, RecipientStatus, Settlement, SpoolFault, SpoolPaths
from lonedot.spool.sqlite import Policy, open_spool
from lonedot.terms.ids import MessageId
from lonedot.testing.clock import ManualClock

DATA = Path(__file__).parent / "data"
LEFT, LEFT_BY_3 = DATA / "version_2.sql", DATA / "version_3.sql"
WAITS, HELD, DONE = MessageId("32ufslk000000"), MessageId("32ufsllug0000"), MessageId("32ufslnt00000")
ALL = tuple(MessageState)


def _older(folder: Path, left: Path = LEFT) -> SpoolPaths:
    paths = SpoolPaths(folder / "spool")
    shard = paths.shard(0)
    shard.mkdir(parents=True, mode=0o700)
    database = sqlite3.connect(shard / "queue.db")
    database.executescript(left.read_text())
    database.close()
    return paths


def _columns(path: Path) -> dict[str, list[tuple[str, str]]]:
    connection = apsw.Connection(str(path))
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    return {
        table: [(row[1], row[2]) for row in connection.execute(f"PRAGMA table_info({table})")]
        for table in sorted(tables)
    }


def _indexes(path: Path) -> set[tuple[str, str]]:
    found = apsw.Connection(str(path)).execute(
        "SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND sql > ''"
    )
    return {(name, " ".join(sql.split())) for name, sql in found}


async def test_everything_of_version_2_is_there_afterwards(tmp_path: Path) -> None:
    spool = open_spool(_older(tmp_path), ManualClock(), Policy(inline_sync=True))
    assert {row.id: row.state for row in spool.listing(Filter(states=ALL))} == {
        WAITS: MessageState.QUEUED,
        HELD: MessageState.HELD,
        DONE: MessageState.FINISHED,
    }
    waits = spool.show(WAITS)
    assert [state.attempts for state in waits.recipients] == [1, 1]
    assert waits.recipients[0].status is RecipientStatus.WAITING
    assert len(waits.attempts) == 1 and len(waits.ledger) == 2
    assert spool.content(WAITS).body.octets() == b"one line\r\n"
    assert spool.has_key(b"a key")
    await spool.close()


async def test_version_1_goes_through_every_step(tmp_path: Path) -> None:
    paths = _older(tmp_path)
    database = apsw.Connection(str(paths.shard(0) / "queue.db"))
    database.execute("ALTER TABLE message DROP COLUMN transport")
    database.pragma("user_version", 1)
    database.close()
    spool = open_spool(paths, ManualClock(), Policy(inline_sync=True))
    (claim,) = await spool.claim("me", 1_800_000_000.0, 60, 10)
    assert claim.message.id == WAITS and claim.message.transport is None
    await spool.close()


async def test_what_was_there_before_can_be_searched(tmp_path: Path) -> None:
    spool = open_spool(_older(tmp_path), ManualClock(), Policy(inline_sync=True))
    for wanted in (
        Filter(route="out"),
        Filter(next_hop="192.0.2.1"),
        Filter(reason="mailbox busy"),
        Filter(domain="example.net"),
    ):
        assert await spool.select(wanted) == [WAITS], wanted
    assert await spool.select(Filter(states=ALL, subject="SCAN")) == [
        HELD,
        WAITS,
    ]  # the octets of DONE are gone
    await spool.close()


async def test_what_version_3_left_can_wait_in_a_lane(tmp_path: Path) -> None:
    paths, now = _older(tmp_path, LEFT_BY_3), 1_800_000_000.0
    spool = open_spool(paths, ManualClock(), Policy(inline_sync=True))
    assert list(spool.lanes()) == []
    (claim,) = await spool.claim("me", now, 60, 10)
    assert claim.message.id == WAITS
    await spool.settle([Settlement(WAITS, claim.epoch, lane="out", due=now + 60)])
    assert (list(spool.lanes()), spool.count_lane("out"), spool.next_due()) == (["out"], 1, now + 60)
    await spool.release([HELD], now)
    assert [one.message.id for one in await spool.claim("me", now, 60, 10)] == [HELD]
    await spool.close()
    spool = open_spool(paths, ManualClock(), Policy(inline_sync=True))
    assert list(spool.lanes()) == ["out"]
    assert [one.message.id for one in await spool.claim("me", now, 60, 10, "out")] == [WAITS]
    await spool.close()


@pytest.mark.parametrize("left", [LEFT, LEFT_BY_3])
async def test_tables_are_those_of_a_new_shard(tmp_path: Path, left: Path) -> None:
    older = _older(tmp_path, left)
    newer = SpoolPaths(tmp_path / "new")
    for paths in (older, newer):
        await open_spool(paths, ManualClock(), Policy(inline_sync=True)).close()
    assert _columns(older.shard(0) / "queue.db") == _columns(newer.shard(0) / "queue.db")
    assert _indexes(older.shard(0) / "queue.db") == _indexes(newer.shard(0) / "queue.db")


def test_a_step_that_fails_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _older(tmp_path).shard(0) / "queue.db"
    before = _columns(path)

    def fails(connection: apsw.Connection) -> None:
        raise apsw.FullError("no room")

    monkeypatch.setitem(schema._STEPS, 3, fails)
    with pytest.raises(apsw.FullError):
        schema.open_writer(path, None)
    assert _columns(path) == before
    assert apsw.Connection(str(path)).pragma("user_version") == 2


def test_a_newer_file_is_refused_with_words(tmp_path: Path) -> None:
    path = _older(tmp_path).shard(0) / "queue.db"
    apsw.Connection(str(path)).pragma("user_version", schema.VERSION + 1)
    with pytest.raises(SpoolFault, match="written by a newer version of Lonedot"):
        schema.open_writer(path, None)
