"""Identifiers: one text of 13 signs that a message, a session or an attempt carries from the socket to the DSN.

An id is a rising 63-bit number written in base 32 (digits `0-9a-v`), so ids sort by time as text and as
number: 42 bits of milliseconds since 1970, 5 bits of shard, 16 bits of counter.
"""

from __future__ import annotations

from typing import NewType

__all__ = [
    "MAX_SHARDS",
    "IdSource",
    "MessageId",
    "SessionId",
    "id_from_number",
    "id_shard",
    "id_time",
    "number_from_id",
]

MessageId = NewType("MessageId", str)
SessionId = NewType("SessionId", str)

_DIGITS = "0123456789abcdefghijklmnopqrstuv"
_PAIRS = tuple(a + b for a in _DIGITS for b in _DIGITS)
_COUNTER_BITS = 16
_SHARD_BITS = 5
MAX_SHARDS = 1 << _SHARD_BITS


def id_from_number(number: int) -> MessageId:
    """The text of an id; `number` is 0 … 2**63-1."""
    return MessageId(
        _DIGITS[number >> 60]
        + _PAIRS[number >> 50 & 1023]
        + _PAIRS[number >> 40 & 1023]
        + _PAIRS[number >> 30 & 1023]
        + _PAIRS[number >> 20 & 1023]
        + _PAIRS[number >> 10 & 1023]
        + _PAIRS[number & 1023]
    )


def number_from_id(text: str) -> int:
    """The number of an id.

    Raises:
        ValueError: `text` is not an id (13 signs of `0-9a-v`, the first at most `7`).
    """
    if len(text) != 13 or not text.isalnum() or not text.isascii() or text[0] > "7":
        raise ValueError(f"{text!r} is not a message id: 13 of the signs 0-9 and a-v")
    return int(text.lower(), 32)


def id_time(text: str) -> float:
    """When an id was made, in seconds since 1970 (millisecond resolution)."""
    return (number_from_id(text) >> (_COUNTER_BITS + _SHARD_BITS)) / 1000


def id_shard(text: str) -> int:
    """The shard for which an id was made. Raises ValueError."""
    return number_from_id(text) >> _COUNTER_BITS & (MAX_SHARDS - 1)


class IdSource:
    """Makes strictly rising ids for one shard. The time is passed in, so that tests are repeatable."""

    __slots__ = ("_last", "_shard")

    def __init__(self, shard: int = 0) -> None:
        if not 0 <= shard < MAX_SHARDS:
            raise ValueError(f"shard {shard} is not in 0 … {MAX_SHARDS - 1}")
        self._shard = shard << _COUNTER_BITS
        self._last = 0

    def next(self, now: float) -> str:
        """A new id for the time `now` (seconds since 1970); rises even when the clock steps back."""
        number = (int(now * 1000) << (_COUNTER_BITS + _SHARD_BITS)) | self._shard
        if number <= self._last:
            number = self._last + 1
        self._last = number
        return id_from_number(number)
