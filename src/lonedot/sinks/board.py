"""The memory that each worker shares with its parent: how far the worker is, and which inline sink runs since when.

The parent (`lonedot.app.supervisor`) looks several times a second and kills a worker whose sink is over its deadline:
a sink that never returns cannot be stopped from inside. What the parent saw it leaves in `spool/stalled.json` (of
further workers `stalled.N.json`) for the next worker, which books it against the binding.

Rules a change here must keep:
1. The parent imports this module and must stay small: nothing is imported here but a few modules of the standard
   library.
2. A slot is filled before its time is set, and is free when its time is zero. Noting a call costs no system call.
3. The parent acts only on a slot that it has seen over its deadline twice with the same time.
"""

from __future__ import annotations

import mmap
import os
from struct import Struct
from typing import NamedTuple

__all__ = [
    "ENVIRONMENT",
    "LOCK_ENVIRONMENT",
    "READY",
    "SINCE",
    "SINCE_OFFSET",
    "SIZE",
    "SLOT",
    "SLOT_PLACES",
    "STALLED_FILE",
    "STARTING",
    "STOPPED",
    "Board",
    "Running",
    "stalled_file",
]

ENVIRONMENT = "LONEDOT_WATCH"
"""Tells a worker who it is and what it has of its parent: `MEMORY,LINE,NUMBER,COUNT,SHARED,LOCK`, where all but NUMBER
(from 0) and COUNT of workers are descriptors; -1: none."""
LOCK_ENVIRONMENT = "LONEDOT_LOCK"
"""Tells the parent the descriptor of the lock of the spool, which the program that becomes it has taken."""
STALLED_FILE = "stalled.json"
"""In the spool: what ran when the first worker was killed or died; read and removed by the next one."""

STARTING, READY, STOPPED = 0, 1, 2
"""States of a worker: not yet listening; listening; has stopped as it was told to."""

_HEADER = Struct("<BBH")
"""State, whether its log is JSON, octets in the path of the spool. The path follows."""
_PATH_LIMIT = 4096
_SLOTS_AT = 8192
SLOT = Struct("<128sd48sd")
"""GUID and name of the binding, its deadline, id of the message or session, since when (monotonic, seconds)."""
SINCE = Struct("<d")
SINCE_OFFSET = SLOT.size - SINCE.size
SLOT_COUNT = 64
"""The loop and every thread of the pool that takes large bodies; a call beyond that goes unwatched."""
SIZE = _SLOTS_AT + SLOT_COUNT * SLOT.size
SLOT_PLACES = range(_SLOTS_AT, SIZE, SLOT.size)


def stalled_file(worker: int) -> str:
    """Name of that file of the worker of a number."""
    return STALLED_FILE if worker == 0 else f"stalled.{worker}.json"


class Running(NamedTuple):
    """One sink that runs."""

    place: int
    guid: str
    binding: str
    id: str
    deadline_seconds: float
    since: float
    """By the monotonic clock, which all processes of a machine share."""


class Board:
    """The shared memory, from both sides."""

    __slots__ = ("_shared",)

    def __init__(self, descriptor: int) -> None:
        """Raises OSError or ValueError when it is not such memory."""
        self._shared = mmap.mmap(descriptor, SIZE)

    @property
    def shared(self) -> mmap.mmap:
        return self._shared

    @property
    def state(self) -> int:
        return self._shared[0]

    def set_state(self, state: int) -> None:
        self._shared[0] = state

    def describe(self, spool: str, *, logs_json: bool) -> None:
        """Tell the parent where to leave what it saw (`spool`, an absolute path), and how the log is written."""
        path = os.fsencode(spool)
        if len(path) <= _PATH_LIMIT:
            self._shared[_HEADER.size : _HEADER.size + len(path)] = path
            _HEADER.pack_into(self._shared, 0, self.state, logs_json, len(path))

    @property
    def spool(self) -> str:
        """Empty as long as the worker has not said."""
        _, _, length = _HEADER.unpack_from(self._shared, 0)
        return os.fsdecode(self._shared[_HEADER.size : _HEADER.size + length])

    @property
    def logs_json(self) -> bool:
        return bool(self._shared[1])

    def running(self) -> list[Running]:
        """The sinks that run, or ran when the worker died."""
        found = []
        for place in SLOT_PLACES:
            who, deadline, id, since = SLOT.unpack_from(self._shared, place)
            if since:
                guid, _, name = who.rstrip(b"\0").decode("utf-8", "replace").partition("\0")
                found.append(
                    Running(place, guid, name, id.rstrip(b"\0").decode("ascii", "replace"), deadline, since)
                )
        return found

    def clear(self) -> None:
        """Make it ready for the next worker. The path stays: one that dies early has a spool all the same."""
        self.set_state(STARTING)
        self._shared[_SLOTS_AT:SIZE] = bytes(SIZE - _SLOTS_AT)
