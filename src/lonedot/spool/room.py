"""How much room the disk has: asked at most once a second, and reckoned in between.

The reserve is kept for outcomes: an acceptance is refused before the disk is so full that what became of earlier mail
could not be written down.
"""

from __future__ import annotations

from pathlib import Path

from lonedot.spool.disk import Disk
from lonedot.terms.clock import Clock

__all__ = ["Room", "default_reserve"]

ASK_SECONDS = 1.0
LEAST_RESERVE = 64 << 20
GREATEST_RESERVE = 1 << 30
RESERVE_SHARE = 20
"""One part in so many of the file system."""


def default_reserve(total: int) -> int:
    """Octets to keep free on a file system of `total` octets: 5 %, from 64 MiB to 1 GiB."""
    return min(max(total // RESERVE_SHARE, LEAST_RESERVE), GREATEST_RESERVE)


class Room:
    """What is free above the reserve. `reserve` in octets; None takes the default for the file system."""

    __slots__ = ("_asked_at", "_clock", "_disk", "_folder", "_free", "_reserve")

    def __init__(self, disk: Disk, folder: Path, clock: Clock, reserve: int | None) -> None:
        self._disk = disk
        self._folder = folder
        self._clock = clock
        self._reserve = reserve
        self._asked_at = float("-inf")
        self._free = 0

    def has(self, octets: int) -> bool:
        """True when `octets` more leave the reserve whole."""
        now = self._clock.monotonic()
        if now - self._asked_at >= ASK_SECONDS:
            try:
                told = self._disk.free(self._folder)
            except OSError:
                self._free = 0
            else:
                if self._reserve is None:
                    self._reserve = default_reserve(told.total)
                self._free = told.free - self._reserve
            self._asked_at = now
        return self._free >= octets

    def take(self, octets: int) -> None:
        """So many octets were written since."""
        self._free -= octets

    def ask_again(self) -> None:
        """Do not trust what was told: a write has just failed."""
        self._asked_at = float("-inf")
