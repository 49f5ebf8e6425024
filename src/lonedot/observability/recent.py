"""The last lines of the log, kept in memory for `lonedot logs`. Bounded by number and by octets; never on disk."""

from __future__ import annotations

from collections import deque

__all__ = ["KEEP_LINES", "KEEP_OCTETS", "RecentLines"]

KEEP_LINES = 20_000
KEEP_OCTETS = 4 * 1024 * 1024


class RecentLines:
    """Lines with their numbers, counted from 1 since the process began."""

    __slots__ = ("_lines", "_octets", "last")

    def __init__(self) -> None:
        self._lines: deque[bytes] = deque()
        self._octets = 0
        self.last = 0
        """Number of the last line."""

    def append(self, line: bytes) -> None:
        lines = self._lines
        lines.append(line)
        self.last += 1
        self._octets += len(line)
        while self._octets > KEEP_OCTETS or len(lines) > KEEP_LINES:
            self._octets -= len(lines.popleft())

    def holding(self, words: bytes, after: int, limit: int) -> list[tuple[int, bytes]]:
        """Lines behind number `after` that have these octets in them, the oldest first, at most `limit`."""
        first = self.last - len(self._lines) + 1
        found: list[tuple[int, bytes]] = []
        for number, line in enumerate(self._lines, first):
            if number > after and words in line:
                found.append((number, line))
                if len(found) == limit:
                    break
        return found
