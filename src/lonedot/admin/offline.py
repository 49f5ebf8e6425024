"""The desk of a command that works at the spool itself because the relay is down."""

from __future__ import annotations

from collections.abc import Mapping

from lonedot.admin.operations import Desk
from lonedot.diagnosis.transcripts import StoredTranscripts
from lonedot.evidence.events import EventLog
from lonedot.evidence.transcript import TranscriptStore
from lonedot.observability.clock import SystemClock
from lonedot.spool.interface import SpoolFault, SpoolPaths
from lonedot.spool.lock import SpoolLock
from lonedot.spool.shards import Shards
from lonedot.spool.sqlite import KeepContent, SqliteSpool, open_offline

__all__ = ["open_desk"]


async def open_desk(
    paths: SpoolPaths, expire_seconds: Mapping[str, float], keep_content: KeepContent = KeepContent.DAMAGED
) -> Desk:
    """All shards of the spool under its lock. Close `desk.spool` when done.

    Args:
        paths: of a spool that is there; none is made.
        expire_seconds: see `Desk`.
        keep_content: whose octets stay when a message is deleted.

    Raises:
        SpoolLocked: another process has it.
        SpoolFault: there is none, or it cannot be opened.
    """
    numbers = paths.shards()
    if not numbers:
        raise SpoolFault(f"there is no spool at {paths.root}")
    clock = SystemClock()
    try:
        lock = SpoolLock(paths.lock)
    except OSError as error:
        raise SpoolFault(f"cannot lock the spool {paths.root}: {error}") from error
    opened: list[SqliteSpool] = []
    try:
        for number in numbers:
            opened.append(open_offline(paths, clock, keep_content, shard=number, lock=lock))
    except BaseException:
        await Shards(opened, lock.release).close()
        raise
    reader = StoredTranscripts(TranscriptStore(paths.evidence / "transcripts", clock))
    events = EventLog(paths.evidence / "events", clock)
    return Desk(
        Shards(opened, lock.release),
        clock,
        transcripts=reader,
        expire_seconds=expire_seconds,
        shards=tuple(opened),
        events=events.read,
    )
