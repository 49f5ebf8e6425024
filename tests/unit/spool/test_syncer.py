"""The process that syncs, through our side of it."""

from __future__ import annotations

import asyncio
import os
import select
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import pytest

from lonedot.spool import schema
from lonedot.spool.disk import Checkpointed
from lonedot.spool.syncer import ProcessSyncer


class _Shard:
    def __init__(self, folder: Path) -> None:
        self.database = folder / "queue.db"
        self.connection: apsw.Connection = schema.open_writer(self.database, None)
        self.syncer = ProcessSyncer(self.database)

    def write(self) -> None:
        self.connection.execute(schema.PROGRESS_STEP)

    async def sync_log(self) -> OSError | None:
        future: asyncio.Future[OSError | None] = asyncio.get_running_loop().create_future()
        self.syncer.sync_log(future.set_result)
        return await future

    async def sync_bodies(self, *paths: Path) -> OSError | None:
        future: asyncio.Future[OSError | None] = asyncio.get_running_loop().create_future()
        self.syncer.sync_bodies(paths, future.set_result)
        return await future

    async def checkpoint(self) -> Checkpointed:
        future: asyncio.Future[Checkpointed] = asyncio.get_running_loop().create_future()
        self.syncer.checkpoint(future.set_result)
        return await future


@pytest.fixture
async def shard(tmp_path: Path) -> AsyncIterator[_Shard]:
    shard = _Shard(tmp_path)
    yield shard
    shard.syncer.close()
    shard.connection.close()


async def test_everything_is_answered(shard: _Shard, tmp_path: Path) -> None:
    body = tmp_path / "a.body"
    body.write_bytes(b"x")
    for _ in range(3):
        shard.write()
        assert await shard.sync_log() is None
    assert await shard.sync_bodies(body, body) is None
    assert await shard.checkpoint() == Checkpointed(complete=True)
    shard.syncer.remove([body, tmp_path / "nothing"])
    await shard.checkpoint()  # orders of this kind are done in turn
    assert not body.exists()


async def test_what_fails_is_said(shard: _Shard, tmp_path: Path) -> None:
    error = await shard.sync_bodies(tmp_path / "missing.body")
    assert isinstance(error, FileNotFoundError)
    shard.write()
    (tmp_path / "queue.db-wal").rename(tmp_path / "elsewhere")
    assert isinstance(await shard.sync_log(), FileNotFoundError)
    (tmp_path / "elsewhere").rename(tmp_path / "queue.db-wal")
    assert await shard.sync_log() is None


async def test_a_checkpoint_that_a_reader_stops_is_not_complete(shard: _Shard) -> None:
    shard.write()
    reader = schema.open_reader(shard.database, None)
    reader.execute("BEGIN")
    reader.execute("SELECT transactions FROM progress").fetchall()
    shard.write()
    assert await shard.checkpoint() == Checkpointed(complete=False)
    reader.execute("COMMIT")
    assert await shard.checkpoint() == Checkpointed(complete=True)
    reader.close()


async def test_many_orders_at_once(shard: _Shard, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number:0200d}.body" for number in range(1500)]
    for path in paths:
        path.touch()
    for _ in range(4):
        shard.syncer.remove(paths)
    assert await shard.checkpoint() == Checkpointed(complete=True)
    assert not list(tmp_path.glob("*.body"))


async def test_when_it_dies_everybody_is_told(shard: _Shard, tmp_path: Path) -> None:
    process = shard.syncer._process
    os.kill(process.pid, signal.SIGSTOP)
    waiting = [
        asyncio.ensure_future(shard.sync_log()),
        asyncio.ensure_future(shard.sync_bodies(tmp_path / "queue.db")),
        asyncio.ensure_future(shard.checkpoint()),
    ]
    await asyncio.sleep(0)
    process.kill()
    log, bodies, point = await asyncio.gather(*waiting)
    assert isinstance(log, OSError)
    assert isinstance(bodies, OSError)
    assert isinstance(point, Checkpointed)
    assert point.error
    assert isinstance(await shard.sync_log(), OSError)


async def test_signals_to_all_leave_it_alone(shard: _Shard) -> None:
    assert await shard.sync_log() is None  # it has set its signals by now
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        shard.syncer._process.send_signal(number)
    assert await shard.sync_log() is None


async def test_it_ends_with_us(tmp_path: Path) -> None:
    shard = _Shard(tmp_path)
    assert await shard.sync_log() is None
    process = shard.syncer._process
    shard.syncer.close()
    assert process.returncode == 0
    shard.connection.close()


def test_its_end_is_seen_behind_its_last_answer(tmp_path: Path) -> None:
    """On either loop: it dies with an answer that we have not read, and an order that it has not read."""
    uvloop = pytest.importorskip("uvloop")

    async def die(database: Path) -> None:
        shard = _Shard(database.parent)
        loop = asyncio.get_running_loop()
        log: asyncio.Future[OSError | None] = loop.create_future()
        bodies: asyncio.Future[OSError | None] = loop.create_future()
        shard.write()
        shard.syncer.sync_log(log.set_result)
        assert select.select([shard.syncer._answers], [], [], 30)[
            0
        ]  # it is there, and the loop has not read it
        process = shard.syncer._process
        process.send_signal(signal.SIGSTOP)
        shard.syncer.sync_bodies([database], bodies.set_result)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert await log is None
        assert isinstance(await asyncio.wait_for(bodies, 10), OSError)
        shard.syncer.close()
        shard.connection.close()

    asyncio.run(die(tmp_path / "queue.db"))
    uvloop.run(die(tmp_path / "queue.db"))
