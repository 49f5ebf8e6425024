"""A copy is of one moment, whole, and only a whole one becomes a spool, where no message is."""

from __future__ import annotations

import asyncio
from pathlib import Path

import apsw
import pytest

from lonedot.admin.offline import open_desk
from lonedot.spool import backup, schema
from lonedot.spool.backup import finish_backup, restore
from lonedot.spool.hold_rules import HoldRule, HoldRules
from lonedot.spool.interface import Filter, MessageState, SpoolFault, SpoolLocked, SpoolPaths
from lonedot.spool.lock import SpoolLock
from lonedot.spool.sqlite import CONTENT_LIMIT, KeepContent, Policy, SqliteSpool, open_spool
from lonedot.terms.ids import IdSource, MessageId
from lonedot.testing.clock import ManualClock
from lonedot.testing.messages import acceptance

LARGE = b"0123456789abcdef" * (CONTENT_LIMIT // 16 + 1)
POLICY = Policy(KeepContent.NONE, inline_sync=True)


def _silent(done: int, total: int) -> None:
    pass


def _open(folder: Path) -> SqliteSpool:
    return open_spool(SpoolPaths(folder), ManualClock(), POLICY)


async def _filled(folder: Path) -> tuple[SqliteSpool, MessageId, MessageId]:
    spool = _open(folder)
    ids = IdSource()
    now = ManualClock().now()
    small = acceptance(ids.next(now), now)
    large = acceptance(ids.next(now), now, body=LARGE)
    await spool.accept([small, large])
    return spool, small.id, large.id


async def _saved(spool: SqliteSpool, folder: Path) -> Path:
    await spool.save(folder / "shards" / "0", _silent)
    finish_backup(folder, SpoolPaths(folder.parent / "spool"))
    return folder


@pytest.mark.parametrize("hold", [False, True])
async def test_what_is_restored_is_what_was_there(tmp_path: Path, hold: bool) -> None:
    spool, small, large = await _filled(tmp_path / "spool")
    await spool.hold([small], "to look at")
    copy = await _saved(spool, tmp_path / "copy")
    await spool.close()
    saved = restore(copy, SpoolPaths(tmp_path / "new"), hold=hold)
    assert (saved.messages, saved.bodies) == (2, 1)
    again = _open(tmp_path / "new")
    assert again.content(large).body.octets() == LARGE
    assert again.content(small).body.octets() == b"one line\r\n"
    assert (again.show(small).state, again.show(small).reason) == (MessageState.HELD, "to look at")
    stored = again.show(large)
    if hold:
        assert stored.state is MessageState.HELD and stored.reason.startswith(
            "restored from the backup of 20"
        )
    else:
        assert stored.state is MessageState.QUEUED
        assert [claim.message.id for claim in await again.claim("me", 1e12, 60, 10)] == [large]
    assert again.recovered.damaged == 0
    await again.close()


async def test_it_is_of_one_moment_while_work_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool, small, large = await _filled(tmp_path / "spool")
    monkeypatch.setattr(backup, "_PAGES", 1)
    loop = asyncio.get_running_loop()
    worked: list[bool] = []

    async def work() -> None:
        """One is ended and its body is no longer wanted; another comes."""
        now = ManualClock().now()
        await spool.delete([large], now)
        await spool.accept([acceptance(IdSource().next(now + 60), now)])

    def copied(done: int, total: int) -> None:
        if not worked:
            worked.append(True)
            asyncio.run_coroutine_threadsafe(work(), loop).result(30)

    await spool.save(tmp_path / "copy" / "shards" / "0", copied)
    assert worked
    finish_backup(tmp_path / "copy", SpoolPaths(tmp_path / "spool"))
    assert not list(
        (tmp_path / "spool" / "shards" / "0" / "bodies").glob("*/*")
    )  # what waited for the copy is gone
    await spool.close()
    restore(tmp_path / "copy", SpoolPaths(tmp_path / "new"), hold=False)
    again = _open(tmp_path / "new")
    assert [row.id for row in again.listing(Filter())] == [small, large]
    assert again.content(large).body.octets() == LARGE
    await again.close()


async def test_a_spool_with_messages_is_never_written_over(tmp_path: Path) -> None:
    spool, small, _ = await _filled(tmp_path / "spool")
    copy = await _saved(spool, tmp_path / "copy")
    with pytest.raises(SpoolLocked):
        restore(copy, SpoolPaths(tmp_path / "spool"), hold=False)
    await spool.close()
    with pytest.raises(SpoolFault, match="has 2 messages; restore into another folder"):
        restore(copy, SpoolPaths(tmp_path / "spool"), hold=False)
    again = _open(tmp_path / "spool")
    assert again.show(small).state is MessageState.QUEUED
    await again.close()


async def test_an_empty_spool_is_replaced(tmp_path: Path) -> None:
    spool, small, _ = await _filled(tmp_path / "spool")
    copy = await _saved(spool, tmp_path / "copy")
    await spool.close()
    await _open(tmp_path / "empty").close()
    restore(copy, SpoolPaths(tmp_path / "empty"), hold=False)
    again = _open(tmp_path / "empty")
    assert again.show(small).state is MessageState.QUEUED
    await again.close()


async def test_what_is_not_whole_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    spool, _, _ = await _filled(tmp_path / "spool")
    copy = tmp_path / "copy"
    await spool.save(copy / "shards" / "0", _silent)
    await spool.close()
    target = SpoolPaths(tmp_path / "new")
    with pytest.raises(SpoolFault, match=r"backup\.json is missing"):
        restore(copy, target, hold=False)
    finish_backup(copy, SpoolPaths(tmp_path / "spool"))
    (body,) = (copy / "shards" / "0" / "bodies").glob("*/*.body")
    body.unlink()
    body.write_bytes(LARGE[1:])  # a new file: the old one is a link to that of the spool
    with pytest.raises(SpoolFault, match="is missing, or not the"):
        restore(copy, target, hold=False)
    body.unlink()
    with pytest.raises(SpoolFault, match="is missing, or not the"):
        restore(copy, target, hold=False)
    assert not target.root.exists()


async def test_a_newer_backup_and_a_damaged_one_are_refused(tmp_path: Path) -> None:
    spool, _, _ = await _filled(tmp_path / "spool")
    copy = await _saved(spool, tmp_path / "copy")
    await spool.close()
    database = copy / "shards" / "0" / "queue.db"
    connection = apsw.Connection(str(database))
    connection.pragma("user_version", schema.VERSION + 1)
    connection.close()
    with pytest.raises(SpoolFault, match="newer version"):
        restore(copy, SpoolPaths(tmp_path / "new"), hold=False)
    database.write_bytes(b"x" * 8192)
    with pytest.raises(SpoolFault, match="could not be restored"):
        restore(copy, SpoolPaths(tmp_path / "new"), hold=False)


async def test_a_folder_that_is_in_use_is_refused(tmp_path: Path) -> None:
    spool, _, _ = await _filled(tmp_path / "spool")
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "something").touch()
    with pytest.raises(SpoolFault, match="is not empty"):
        await spool.save(tmp_path / "copy", _silent)
    await spool.close()


async def test_all_shards_and_the_standing_rules_are_part_of_it(tmp_path: Path) -> None:
    paths, copy = SpoolPaths(tmp_path / "spool"), tmp_path / "copy"
    paths.root.mkdir()
    lock = SpoolLock(paths.lock)
    shards = [open_spool(paths, ManualClock(), POLICY, shard=number, lock=lock) for number in (0, 3)]
    now = ManualClock().now()
    ids = [MessageId(IdSource(one.shard).next(now)) for one in shards]
    for one, id in zip(shards, ids, strict=True):
        await one.accept((acceptance(id, now, body=LARGE),))
    shards[0].write_rules(HoldRules(1, (HoldRule(1, "x", "no", recipient="@x.example"),)))
    await shards[0].save(copy / "shards" / "0", _silent)
    with pytest.raises(SpoolFault, match="has not shard 3"):
        finish_backup(copy, paths)
    await shards[1].save(copy / "shards" / "3", _silent)
    assert finish_backup(copy, paths).shards == (0, 3)
    for one in shards:
        await one.close()
    lock.release()

    new = SpoolPaths(tmp_path / "new")
    (new.root / "restoring" / "shards" / "0").mkdir(parents=True)  # a restore that was killed
    saved = restore(copy, new, hold=False)
    assert (saved.messages, saved.bodies) == (2, 2)
    assert new.shards() == (0, 3)
    assert not (new.root / "restoring").exists()
    desk = await open_desk(new, {})
    assert desk.spool.rules().newest == 1
    for id in ids:
        assert desk.spool.content(id).body.octets() == LARGE
    await desk.spool.close()
