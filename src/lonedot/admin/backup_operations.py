"""Copying the spool while the relay is at work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from lonedot.admin.operations import Desk, StreamOperation
from lonedot.admin.values import AdminError, BackupArguments, Piece, Remark

__all__ = ["BACKUP"]

_SAY_SECONDS = 2.0


async def backup(desk: Desk, wanted: BackupArguments) -> AsyncIterator[Piece]:
    """Copy every shard of this relay into a folder; tells how far it is."""
    folder = Path(wanted.folder)
    if not folder.is_absolute():
        raise AdminError("the folder must be a whole path", wanted.folder, "begin it with /")
    if not desk.shards:
        raise AdminError("this relay has no shard that can be copied", "backup")
    for shard in desk.shards:
        pages = (0, 0)

        def copied(done: int, total: int) -> None:
            nonlocal pages
            pages = (done, total)

        copying = asyncio.ensure_future(shard.save(folder / "shards" / str(shard.shard), copied))
        try:
            while not (await asyncio.wait((copying,), timeout=_SAY_SECONDS))[0]:
                yield Remark(f"shard {shard.shard}: {pages[0]} of {pages[1]} pages")
        finally:
            if not copying.done():
                await asyncio.wait(
                    (copying,)
                )  # a thread cannot be stopped, and the shard must not close under it
        saved = await copying
        yield Remark(f"shard {shard.shard}: {saved.messages} messages, {saved.bodies} body files")


BACKUP = StreamOperation("backup", BackupArguments, backup)
