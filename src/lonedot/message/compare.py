"""Comparing header sections: which fields are the same, which came, went or moved. Nothing is judged here.

Two fields are the same when their names agree in any case of letters and their values agree with folds undone and
white space relaxed. Order counts: a field that moved is one that went and one that came.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from itertools import pairwise

import msgspec

from lonedot.message.content import Body
from lonedot.message.header import Field, HeaderView
from lonedot.message.measure import is_plain_fields

__all__ = ["Alignment", "align", "differing_range", "inserted_fields", "relaxed"]

_SPACE = re.compile(rb"[ \t\r\n]+")
_TABLE_LIMIT = 250_000
"""Cells of the comparison table; beyond it what lies between equal beginnings and ends counts as replaced."""


def relaxed(field: Field) -> tuple[bytes, bytes]:
    """Name in lower case, and the value with every run of white space as one space."""
    return field.name.lower(), _SPACE.sub(b" ", field.raw).strip()


class Alignment(msgspec.Struct, frozen=True):
    """Pairs of indices of what is the same, rising in both."""

    pairs: tuple[tuple[int, int], ...]
    before: int
    after: int
    """How many there were and are."""

    @property
    def gone(self) -> list[int]:
        """Indices before that have no partner."""
        kept = {one for one, _ in self.pairs}
        return [number for number in range(self.before) if number not in kept]

    @property
    def come(self) -> list[int]:
        """Indices after that have no partner."""
        kept = {other for _, other in self.pairs}
        return [number for number in range(self.after) if number not in kept]

    def gaps(self) -> list[tuple[range, range]]:
        """What stands between partners: runs that went, beside runs that came in their place."""
        marks = [(-1, -1), *self.pairs, (self.before, self.after)]
        runs = [(range(a + 1, c), range(b + 1, d)) for (a, b), (c, d) in pairwise(marks)]
        return [(old, new) for old, new in runs if old or new]


def align(before: Sequence[Hashable], after: Sequence[Hashable]) -> Alignment:
    """The longest way to pair equal values without crossing; equal beginnings and ends are paired first."""
    start = 0
    shorter = min(len(before), len(after))
    while start < shorter and before[start] == after[start]:
        start += 1
    end = 0
    while end < shorter - start and before[-1 - end] == after[-1 - end]:
        end += 1
    pairs = [(number, number) for number in range(start)]
    pairs += _longest(before, after, start, len(before) - end, len(after) - end)
    pairs += [(len(before) - number, len(after) - number) for number in range(end, 0, -1)]
    return Alignment(tuple(pairs), len(before), len(after))


def _longest(
    before: Sequence[Hashable], after: Sequence[Hashable], start: int, stop: int, other: int
) -> list[tuple[int, int]]:
    """The longest common subsequence of `before[start:stop]` and `after[start:other]`."""
    rows, columns = stop - start, other - start
    if not rows or not columns or rows * columns > _TABLE_LIMIT:
        return []
    table = [[0] * (columns + 1) for _ in range(rows + 1)]
    for row in range(rows - 1, -1, -1):
        here, below = table[row], table[row + 1]
        value = before[start + row]
        for column in range(columns - 1, -1, -1):
            if value == after[start + column]:
                here[column] = below[column + 1] + 1
            else:
                here[column] = max(below[column], here[column + 1])
    pairs = []
    row = column = 0
    while row < rows and column < columns:
        if before[start + row] == after[start + column]:
            pairs.append((start + row, start + column))
            row += 1
            column += 1
        elif table[row + 1][column] >= table[row][column + 1]:
            row += 1
        else:
            column += 1
    return pairs


def inserted_fields(before: bytes, after: bytes) -> bytes | None:
    """The octets put into a head, when that is all that was done and they are whole fields; else None.

    The quick way for the commonest change; None says only that the long way has to be gone.
    """
    more = len(after) - len(before)
    if more <= 0 or not before:
        return None
    if after.endswith(before):
        place = 0
    else:
        # Going by halves: the length of the common beginning.
        low, high = 0, len(before)
        while low < high:
            middle = (low + high + 1) // 2
            if after.startswith(before[:middle]):
                low = middle
            else:
                high = middle - 1
        place = before.rfind(b"\n", 0, low) + 1
        while place and before[place : place + 1] in (
            b" ",
            b"\t",
        ):  # a fold that both have: back to its field
            place = before.rfind(b"\n", 0, place - 1) + 1
        if after[place + more :] != before[place:]:
            return None
    inserted = after[place : place + more]
    at_end = place >= len(before) - 1
    if at_end or before[place] in b" \t" or not inserted.endswith(b"\r\n"):
        return None
    if is_plain_fields(inserted) or HeaderView(inserted).section_end == more:
        return inserted
    return None


def differing_range(before: Body, after: bytes) -> tuple[int, int, bytes]:
    """The smallest range of `before` whose replacement by the octets returned gives `after`. One pass over `before`.

    Raises:
        OSError, ValueError: the body is a file that cannot be read, or is not as long as recorded.
    """
    shift = len(after) - before.size
    first = -1  # where they first differ, counted from the front
    last = -1  # behind the last octet of `before` that differs, counted from the end
    place = 0
    for chunk in before.chunks():
        if first < 0 and after[place : place + len(chunk)] != chunk:
            first = place + _common_start(chunk, after[place : place + len(chunk)])
        start = place + shift
        other = after[max(start, 0) : max(start + len(chunk), 0)]
        if other != chunk:
            last = place + len(chunk) - _common_end(chunk, other)
        place += len(chunk)
    if first < 0:
        first = before.size
    start = min(first, len(after))
    end = max(last, start, start - shift)
    return start, end, after[start : end + shift]


def _common_start(one: bytes, other: bytes) -> int:
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _common_end(one: bytes, other: bytes) -> int:
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[len(one) - middle :] == other[len(other) - middle :]:
            low = middle
        else:
            high = middle - 1
    return low
