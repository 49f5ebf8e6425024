"""The desk of a command that works at the spool itself because the relay is down."""

from __future__ import annotations

from collections.abc import Mapping

from lonedot.admin.operations import Desk
from lonedot.diagnosis.transcripts import StoredTranscripts
from lonedot.evidence.events import EventLog
from lonedot.evidence.transcript import TranscriptStore
from lonedot.observability.clock import SystemClock
from lonedot.spool.interface import SpoolPaths
from lonedot.spool.sqlite import KeepContent, open_offline

__all__ = ["open_desk"]


async def open_desk(
    paths: SpoolPaths, expire_seconds: Mapping[str, float], keep_content: KeepContent = KeepContent.DAMAGED
) -> Desk:
    """The spool under its lock. Close `desk.spool` when done.

    Args:
        paths: of a spool that is there; none is made.
        expire_seconds: see `Desk`.
        keep_content: whose octets stay when a message is deleted.

    Raises:
        SpoolLocked: another process has it.
        SpoolFault: there is none, or it cannot be opened.
    """
    clock = SystemClock()
    spool = open_offline(paths, clock, keep_content)
    reader = StoredTranscripts(TranscriptStore(paths.evidence, clock))
    events = EventLog(paths.evidence / "events", clock)
    return Desk(
        spool,
        clock,
        transcripts=reader,
        expire_seconds=expire_seconds,
        shards=(spool,),
        events=events.read,
    )
