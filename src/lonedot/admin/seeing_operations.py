"""Operations to see a relay by: see `seeing`."""

from __future__ import annotations

import msgspec

from lonedot.admin.operations import Desk, Operation
from lonedot.admin.seeing import Health, LogLine, LogLines, LogsArguments, Screen, Seer, broken_of, waiting_of
from lonedot.admin.values import AdminError, NoArguments
from lonedot.observability.metrics import Figures
from lonedot.spool.interface import Filter, MessageState, Sort

__all__ = ["BROKEN_SECONDS", "FIGURES", "HEALTH", "LOGS", "LOOKED_AT", "SCREEN"]

BROKEN_SECONDS = 24 * 3600.0
"""How far back the screen looks for what broke."""

LOOKED_AT = 1000
"""Messages of the queue that are looked at for the reasons why they wait."""

MAX_LINES = 1000


async def figures(desk: Desk, _: NoArguments) -> Figures:
    """All figures of the relay."""
    return _seer(desk).figures()


async def health(desk: Desk, _: NoArguments) -> Health:
    """Whether this worker can take mail."""
    return _seer(desk).health()


async def screen(desk: Desk, _: NoArguments) -> Screen:
    """What runs, what waits and why, what broke."""
    now = desk.clock.now()
    open_states = (MessageState.QUEUED, MessageState.HELD, MessageState.DAMAGED)
    rows = await desk.spool.search(Filter(states=open_states, limit=LOOKED_AT))
    oldest = await desk.spool.search(Filter(states=open_states, limit=1, sort=Sort.OLDEST))
    counts = desk.spool.counts()
    events = desk.events(now - BROKEN_SECONDS) if desk.events is not None else ()
    bare = Screen(
        running=False,
        asked_at=now,
        counts={state.value: counts.get(state, 0) for state in MessageState},
        oldest_at=oldest[0].accepted_at if oldest else 0.0,
        next_due=desk.spool.next_due() or 0.0,
        waiting=waiting_of(rows),
        looked_at=len(rows),
        broken=broken_of(events),
    )
    if desk.mailboxes is not None:
        bare = msgspec.structs.replace(bare, mailboxes=desk.mailboxes.statuses())
    return bare if desk.seer is None else desk.seer.screen(bare)


async def logs(desk: Desk, wanted: LogsArguments) -> LogLines:
    """Kept lines of the log that speak of something."""
    words = wanted.words.encode("utf-8", "replace")
    if len(words) < 4:
        raise AdminError("fewer than four signs select too much", "ID", "give the whole id")
    seer = _seer(desk)
    worker = seer.number
    last, found = seer.lines(words, wanted.after.get(worker, 0), MAX_LINES)
    reached = found[-1][0] if len(found) == MAX_LINES else last
    lines = tuple(LogLine(number, _text(line), worker) for number, line in found)
    return LogLines(lines, {worker: reached})


def _text(line: bytes) -> str:
    return line.decode("utf-8", "backslashreplace").rstrip("\n")


def _seer(desk: Desk) -> Seer:
    if desk.seer is None:
        raise AdminError(
            "the relay is down, and only a running one has figures and a log", "", "lonedot serve"
        )
    return desk.seer


FIGURES = Operation("figures", NoArguments, Figures, figures)
HEALTH = Operation("health", NoArguments, Health, health)
SCREEN = Operation("screen", NoArguments, Screen, screen)
LOGS = Operation("logs", LogsArguments, LogLines, logs)
