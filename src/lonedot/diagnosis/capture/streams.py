"""TCP segments of one connection as what each side said, in an order in which it can have happened.

Rules that must not break:

1. Octets are given once, in the order of their sequence numbers, and never before what the sender had acknowledged: a
   reply stands behind the command it answers, whatever the order of the file.
2. What was not caught becomes a `Gap` of known size, never silence, and only when waiting is hopeless: too much waits,
   or the connection ends.
3. What waits is bounded by `WAITING_LIMIT` segments and `WAITING_OCTETS` in each connection.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from lonedot.diagnosis.capture.packets import ACK, FIN, RST, SYN, Endpoint, Segment

__all__ = ["WAITING_LIMIT", "WAITING_OCTETS", "Chunk", "Connection", "Direction", "Ended", "Gap"]

WAITING_LIMIT = 512
WAITING_OCTETS = 256 * 1024

_MASK = 0xFFFFFFFF
_HALF = 0x80000000


class Chunk(NamedTuple):
    """Octets that one side said; those of one segment."""

    side: int
    at: float
    number: int
    octets: bytes


class Gap(NamedTuple):
    """Octets that one side said and the capture does not hold."""

    side: int
    at: float
    number: int
    length: int


class Ended(NamedTuple):
    """One side will say no more."""

    side: int
    at: float
    number: int
    is_reset: bool


class Direction:
    """What one side said."""

    __slots__ = (
        "acked",
        "fin_at",
        "is_known",
        "largest",
        "largest_acked",
        "next",
        "retransmissions",
        "seen",
        "stuck_largest",
        "waiting",
        "waiting_octets",
    )

    def __init__(self) -> None:
        self.is_known = False
        self.next = 0
        """The sequence number of the next octet to give, counted on beyond 32 bits."""
        self.acked = 0
        """As `next`: what the other side has acknowledged."""
        self.seen = 0
        """As `next`: the end of all that was caught."""
        self.waiting: dict[int, tuple[Segment, int]] = {}
        """By sequence number: the segment, and what it acknowledges of the other side (-1: nothing)."""
        self.waiting_octets = 0
        self.retransmissions = 0
        self.largest = 0
        """Octets of the largest segment."""
        self.stuck_largest = 0
        """Octets of the largest segment that was sent again since something new was acknowledged."""
        self.fin_at: tuple[int, Segment] | None = None

    def absolute(self, sequence: int) -> int:
        """The number counted on, nearest to where the stream stands."""
        return self.next + ((sequence - self.next + _HALF) & _MASK) - _HALF

    def begin(self, sequence: int) -> None:
        self.is_known = True
        self.next = self.acked = self.seen = sequence + (1 << 33)


class Connection:
    """Both directions; side 0 is `first`, who sent the first segment that was seen."""

    __slots__ = ("directions", "ended", "first", "has_start", "last_at", "opened_by", "second")

    def __init__(self, first: Endpoint, second: Endpoint) -> None:
        self.first = first
        self.second = second
        self.directions = (Direction(), Direction())
        self.opened_by: int | None = None
        """Who sent the SYN; None when the capture began later."""
        self.has_start = False
        """Both sides' SYN were seen."""
        self.ended = [False, False]
        self.last_at = 0.0

    @property
    def is_over(self) -> bool:
        return self.ended[0] and self.ended[1]

    def take(self, segment: Segment) -> Iterator[Chunk | Gap | Ended]:
        """What can be told now that this segment is known."""
        side = 0 if segment.source == self.first else 1
        mine, other = self.directions[side], self.directions[1 - side]
        self.last_at = segment.at
        flags = segment.flags
        sequence = segment.sequence
        if flags & SYN:
            if not mine.is_known:
                mine.begin(sequence + 1)
                if self.opened_by is None:
                    self.opened_by = 1 - side if flags & ACK else side
                self.has_start = other.is_known
            else:
                mine.retransmissions += 1
            sequence += 1
        elif not mine.is_known:
            if flags & RST:
                yield from self._reset(side, segment)
                return
            mine.begin(sequence)
        acknowledged = -1
        if flags & ACK:
            if not other.is_known:
                other.begin(segment.acknowledged)
            acknowledged = other.absolute(segment.acknowledged)
            if acknowledged > other.acked:
                other.acked = acknowledged
                other.stuck_largest = 0
        if flags & RST:
            yield from self._reset(side, segment)
            return
        length = len(segment.payload) + segment.cut
        start = mine.absolute(sequence)
        if length:
            self._keep(mine, start, length, segment, acknowledged)
        if flags & FIN and mine.fin_at is None:
            mine.fin_at = (start + length, segment)
        yield from self._release()
        while self._is_too_much():
            yield from self._force()

    def flush(self) -> Iterator[Chunk | Gap | Ended]:
        """All that still waits: nothing more will come."""
        while self.directions[0].waiting or self.directions[1].waiting:
            yield from self._force()
        for side, direction in enumerate(self.directions):
            if direction.fin_at is not None and not self.ended[side]:
                yield from self._skip(side, direction.fin_at[0], direction.fin_at[1])
        yield from self._release()

    def _keep(self, mine: Direction, start: int, length: int, segment: Segment, acknowledged: int) -> None:
        end = start + length
        if start < mine.seen:
            # One octet again is a question whether the peer lives (RFC 9293 §3.8.4).
            if not (length == 1 and end <= mine.acked):
                mine.retransmissions += 1
                if end > mine.acked:
                    mine.stuck_largest = max(mine.stuck_largest, length)
            if end <= mine.next:
                return
        mine.seen = max(mine.seen, end)
        mine.largest = max(mine.largest, length)
        held = mine.waiting.get(start)
        if held is not None:
            if len(held[0].payload) >= len(segment.payload):
                return
            mine.waiting_octets -= len(held[0].payload)
        mine.waiting[start] = (segment, acknowledged)
        mine.waiting_octets += len(segment.payload)

    def _is_too_much(self) -> bool:
        one, two = self.directions
        return (
            len(one.waiting) + len(two.waiting) > WAITING_LIMIT
            or one.waiting_octets + two.waiting_octets > WAITING_OCTETS
        )

    def _release(self) -> Iterator[Chunk | Gap | Ended]:
        """Give what is next on either side and has all that it acknowledges before it."""
        moved = True
        while moved:
            moved = False
            for side in (0, 1):
                mine, other = self.directions[side], self.directions[1 - side]
                while mine.waiting and (found := self._next_of(mine)) is not None:
                    start, segment, acknowledged = found
                    if acknowledged > other.next and not self.ended[1 - side]:
                        break
                    yield from self._give(side, start, segment)
                    moved = True
                if mine.fin_at is not None and not self.ended[side] and mine.next >= mine.fin_at[0]:
                    self.ended[side] = moved = True
                    yield Ended(side, mine.fin_at[1].at, mine.fin_at[1].number, False)

    @staticmethod
    def _next_of(mine: Direction) -> tuple[int, Segment, int] | None:
        held = mine.waiting.get(mine.next)
        if held is not None:
            return (mine.next, *held)
        start = min(mine.waiting)  # sent again in other pieces: a segment may begin before what is next
        return (start, *mine.waiting[start]) if start < mine.next else None

    def _give(self, side: int, start: int, segment: Segment) -> Iterator[Chunk | Gap]:
        mine = self.directions[side]
        del mine.waiting[start]
        mine.waiting_octets -= len(segment.payload)
        octets = segment.payload[mine.next - start :]
        if octets:
            mine.next += len(octets)
            yield Chunk(side, segment.at, segment.number, octets)
        end = start + len(segment.payload) + segment.cut
        if segment.cut and end > mine.next:
            # Sent again, it may have been caught in full: then that one is next.
            yield from self._skip(side, end, segment)

    def _skip(self, side: int, to: int, segment: Segment) -> Iterator[Gap]:
        mine = self.directions[side]
        if to > mine.next:
            yield Gap(side, segment.at, segment.number, to - mine.next)
            mine.next = to

    def _force(self) -> Iterator[Chunk | Gap | Ended]:
        """Give up waiting for what comes before the segment that was caught first."""
        found: tuple[int, int, Segment, int] | None = None
        for side in (0, 1):
            for start, (segment, acknowledged) in self.directions[side].waiting.items():
                if found is None or segment.number < found[2].number:
                    found = (side, start, segment, acknowledged)
        if found is None:
            return
        side, start, segment, acknowledged = found
        mine, other = self.directions[side], self.directions[1 - side]
        before = [place for place in mine.waiting if place < start]
        if before:  # caught later, but said earlier
            start = min(before)
            segment, acknowledged = mine.waiting[start]
        if acknowledged > other.next:
            if other.waiting and (low := min(other.waiting)) < acknowledged:
                if low > other.next:
                    yield from self._skip(1 - side, low, other.waiting[low][0])
                yield from self._give(1 - side, low, other.waiting[low][0])
                yield from self._release()
                return
            yield from self._skip(1 - side, acknowledged, segment)
        yield from self._skip(side, start, segment)
        yield from self._give(side, start, segment)
        yield from self._release()

    def _reset(self, side: int, segment: Segment) -> Iterator[Chunk | Gap | Ended]:
        yield from self.flush()
        if not self.ended[side]:
            yield Ended(side, segment.at, segment.number, True)
        self.ended = [True, True]
