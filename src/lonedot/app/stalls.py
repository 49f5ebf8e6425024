"""What the parent left about sinks that stalled a worker or ended it: read by the next one of that number, booked,
removed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from lonedot.evidence.events import EventKind, EventLog
from lonedot.observability import log
from lonedot.observability.levels import LogLevel
from lonedot.sinks.board import stalled_file

__all__ = ["Stall", "book_stalls", "left_files"]

FILE_LIMIT = 1024 * 1024


class Stall(msgspec.Struct, frozen=True):
    """One sink that ran when a worker ended."""

    at: float
    guid: str
    binding: str
    id: str
    """Of the message; of the session, where there was none yet."""
    words: str
    is_blamed: bool
    """It alone ran, or it was over its deadline: there is no doubt that it was the cause."""


Charge = Callable[[Stall], object]


def left_files(spool: Path, number: int, count: int) -> list[Path]:
    """What may be left for worker `number` of `count`: the first also takes what is left for those that are no more."""
    found = [spool / stalled_file(number)]
    if number == 0:
        found += [path for path in sorted(spool.glob("stalled.*.json")) if _number_of(path) >= count]
    return found


def _number_of(path: Path) -> int:
    number = path.name.split(".")[1]
    return int(number) if number.isdecimal() else -1


def book_stalls(path: Path, events: EventLog, charge: Charge | None = None) -> tuple[Stall, ...]:
    """Make an event of each, `charge` those that are to blame, and remove the file. What was booked.

    A crash in the midst of it books them twice: better than not at all.
    """
    try:
        with path.open("rb") as stream:
            stalls = msgspec.json.decode(stream.read(FILE_LIMIT), type=tuple[Stall, ...])
    except FileNotFoundError:
        return ()
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        log.event("stalled.not-read", LogLevel.ERROR, file=str(path), words=str(error))
        stalls = ()
    for stall in stalls:
        words = f"{stall.binding}: {stall.words}"
        events.append(EventKind.SINK_STALLED, stall.id, words, binding=stall.binding, guid=stall.guid)
        if stall.is_blamed and charge is not None:
            charge(stall)
    events.flush()
    try:
        path.unlink()
    except OSError as error:
        log.event("stalled.not-removed", LogLevel.ERROR, file=str(path), words=str(error))
    return stalls
