"""Power is lost at every point of a random walk; what was promised before is there afterwards.

Short by default; `./dev crash` walks further and cuts everywhere.
"""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from lonedot.spool import writer
from lonedot.spool.interface import SpoolPaths
from lonedot.spool.sqlite import Policy, open_spool
from lonedot.testing.clock import ManualClock
from lonedot.testing.power import PowerDisk, Survival, Sync, SyncFolder, Write, everything, nothing, some
from tests.crash.walk import Walk

LONG = os.environ.get("LONEDOT_CRASH") == "long"
SEEDS = range(40) if LONG else range(3)
STEPS = 120 if LONG else 40
WRITES = 400 if LONG else 30
"""Cuts between two writes, besides those at every sync."""
INLINE = Policy(inline_sync=True, reserve=0)


def _cuts(disk: PowerDisk, start: int, chance: random.Random) -> list[int]:
    """Before and after every sync, and somewhere between the writes."""
    journal = disk.journal
    syncs = [place for place in range(start, len(journal)) if isinstance(journal[place], Sync | SyncFolder)]
    writes = [place for place in range(start, len(journal)) if isinstance(journal[place], Write)]
    cuts = {cut for place in syncs for cut in (place, place + 1)}
    cuts.update(chance.sample(writes, min(WRITES, len(writes))))
    cuts.add(len(journal))
    chosen = sorted(cuts)
    return chosen if LONG else sorted(chance.sample(chosen, min(100, len(chosen))))


@pytest.mark.timeout(1800 if LONG else 120)
@pytest.mark.parametrize("seed", SEEDS)
async def test_every_promise_survives_the_loss_of_power(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(writer, "CHECKPOINT_OCTETS", 256 * 1024)  # so that a short walk sees many
    chance = random.Random(seed)
    clock = ManualClock()
    disk = PowerDisk(tmp_path)
    walk = Walk(disk, clock, chance)
    spool = open_spool(SpoolPaths(tmp_path / "spool"), clock, INLINE, disk=disk)
    opened = len(disk.journal)
    await walk.run(spool, STEPS)
    walked = len(disk.journal)
    await spool.close()
    disk.close()
    assert walk.refused == 0
    for cut in [*_cuts(disk, opened, chance), walked]:
        survival: Survival = chance.choice([nothing, nothing, everything, some(chance)])
        image = tmp_path / "image"
        disk.image(cut, survival, image)
        recovered = open_spool(SpoolPaths(image / "spool"), clock, INLINE)
        try:
            await walk.check(recovered, cut)
        finally:
            await recovered.close()
        shutil.rmtree(image)


async def test_a_loss_of_power_during_recovery_loses_nothing(tmp_path: Path) -> None:
    chance = random.Random(7)
    clock = ManualClock()
    first = PowerDisk(tmp_path / "first")
    (tmp_path / "first").mkdir()
    walk = Walk(first, clock, chance)
    spool = open_spool(SpoolPaths(tmp_path / "first" / "spool"), clock, INLINE, disk=first)
    await walk.run(spool, 30)
    cut = len(first.journal)
    first.image(cut, everything, tmp_path / "again")
    await spool.close()
    first.close()
    # The second opening begins from files that are all there, as on a disk after the first loss.
    second = PowerDisk(tmp_path / "again")
    second.take_over()
    before = len(second.journal)
    spool = open_spool(SpoolPaths(tmp_path / "again" / "spool"), clock, INLINE, disk=second)
    opened = len(second.journal)
    await spool.close()
    second.close()
    for place in range(before, opened + 1):
        image = tmp_path / "image"
        second.image(place, chance.choice([nothing, some(chance)]), image)
        recovered = open_spool(SpoolPaths(image / "spool"), clock, INLINE)
        await walk.check(recovered, cut)
        await recovered.close()
        shutil.rmtree(image)


async def test_a_spool_that_does_not_sync_is_found_out(tmp_path: Path) -> None:
    """The suite above can fail: without the syncs of the log, a promise is missing."""
    clock = ManualClock()
    disk = PowerDisk(tmp_path)
    walk = Walk(disk, clock, random.Random(1))
    spool = open_spool(SpoolPaths(tmp_path / "spool"), clock, INLINE, disk=disk)
    opened = len(disk.journal)
    await walk.run(spool, 20)
    disk.journal[opened:] = [
        event
        for event in disk.journal[opened:]
        if not (isinstance(event, Sync) and event.path.endswith("-wal"))
    ]
    cut = len(disk.journal)
    await spool.close()
    disk.close()
    disk.image(cut, nothing, tmp_path / "image")
    recovered = open_spool(SpoolPaths(tmp_path / "image" / "spool"), clock, INLINE)
    with pytest.raises(AssertionError):
        await walk.check(recovered, cut)
    await recovered.close()
