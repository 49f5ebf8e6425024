"""Two workers inside a test: what one of them cannot take nobody takes, and one that was away is brought along."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lonedot.admin.colleague import Prepare
from lonedot.admin.colleague_operations import JOIN, PREPARE
from lonedot.admin.values import AdminError, NoArguments
from lonedot.app import Relay
from lonedot.app.colleagues import NotThere
from lonedot.app.workers import Post
from lonedot.config.load import load
from lonedot.spool.interface import SpoolPaths
from lonedot.spool.lock import SpoolLock
from tests.system.talk import first_config

CHANGED = "\nhop_limit = 40"


def write(folder: Path, more: str = "") -> Path:
    file = folder / "lonedot.toml"
    file.write_text(first_config(1, server=f"workers = 2{more}"))
    return file


@contextlib.asynccontextmanager
async def worker(folder: Path, number: int) -> AsyncIterator[Relay]:
    """As its parent would start it; the lock is one open file of the test."""
    paths = SpoolPaths(folder / "spool")
    paths.root.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(paths.lock, os.O_RDWR | os.O_CREAT, 0o600)
    relay = Relay(load(folder / "lonedot.toml"), post=Post(number, 2, lock=SpoolLock.handed(descriptor)))
    await relay.start()
    try:
        yield relay
    finally:
        await relay.stop()


async def test_both_take_a_configuration(tmp_path: Path) -> None:
    write(tmp_path)
    async with worker(tmp_path, 0) as first, worker(tmp_path, 1) as second:
        write(tmp_path, CHANGED)
        done = await first.reload(0)
        assert done.taken and done.before != done.after
        assert first.config.revision == second.config.revision == done.after
        bearing = await second.colleagues.ask(0, JOIN, NoArguments())
        assert bearing.revision == done.after


async def test_what_one_cannot_take_nobody_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)
    async with worker(tmp_path, 0) as first, worker(tmp_path, 1) as second:
        before = first.config.revision

        async def refuse() -> object:
            raise AdminError("no descriptor is left", "a listener")

        with monkeypatch.context() as patched:
            patched.setattr(second, "prepare", refuse)
            write(tmp_path, CHANGED)
            with pytest.raises(AdminError, match="worker 1 cannot take it: no descriptor is left"):
                await first.reload(0)
        assert first.config.revision == second.config.revision == before
        assert (await first.reload(0)).taken
        assert first.config.revision == second.config.revision != before


async def test_a_file_that_changes_in_between_is_not_taken(tmp_path: Path) -> None:
    write(tmp_path)
    async with worker(tmp_path, 0) as first, worker(tmp_path, 1):
        with pytest.raises(AdminError, match="changed meanwhile"):
            await first.colleagues.ask(1, PREPARE, Prepare("another"))


async def test_one_that_does_not_run_is_left_out_and_takes_it_when_it_starts(tmp_path: Path) -> None:
    write(tmp_path)
    async with worker(tmp_path, 0) as first:
        with pytest.raises(NotThere):
            await first.colleagues.ask(1, JOIN, NoArguments())
        write(tmp_path, CHANGED)
        assert (await first.reload(0)).taken
        async with worker(tmp_path, 1) as second:
            assert second.config.revision == first.config.revision


async def test_one_that_starts_with_a_file_nobody_has_taken_says_so(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path)
    async with worker(tmp_path, 0) as first:
        write(tmp_path, CHANGED)
        async with worker(tmp_path, 1) as second:
            assert second.config.revision != first.config.revision
            assert (await first.reload(0)).taken
            assert second.config.revision == first.config.revision
    assert "worker.not-aligned" in capfd.readouterr().err


async def test_only_the_first_changes_anything(tmp_path: Path) -> None:
    write(tmp_path)
    async with worker(tmp_path, 0), worker(tmp_path, 1) as second:
        with pytest.raises(AdminError, match="only the first worker"):
            await second.reload(0)
