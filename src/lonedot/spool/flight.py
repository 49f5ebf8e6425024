"""The flight file: which messages are being worked on right now, so that one that kills the relay is found.

One slot of eight octets for each message, zero when free. It is mapped memory: noting costs no system call, and what
is noted survives the death of the process. After the death of the machine it may be stale; then a death too many is
counted, or one too few. When all slots are taken, a message goes unnoted.
"""

from __future__ import annotations

from lonedot.spool.disk import Slots

__all__ = ["SLOT_COUNT", "Flight"]

SLOT_COUNT = 4096
SLOT_SIZE = 8
FREE = bytes(SLOT_SIZE)


class Flight:
    """The slots, and which message has which. A message is noted once, however often its work begins."""

    __slots__ = ("_count", "_free", "_slots", "_taken")

    def __init__(self, slots: Slots, count: int = SLOT_COUNT) -> None:
        self._slots = slots
        self._count = count
        self._free = list(range(count - 1, -1, -1))
        self._taken: dict[int, int] = {}

    def __contains__(self, number: int) -> bool:
        return number in self._taken

    def left_behind(self) -> list[int]:
        """The numbers that a dead process left, without doubles. Asked before the first `begin`."""
        octets = self._slots[0 : self._count * SLOT_SIZE]
        numbers = {
            int.from_bytes(octets[place : place + SLOT_SIZE], "little")
            for place in range(0, len(octets), SLOT_SIZE)
        }
        return sorted(number for number in numbers - {0} if number < 1 << 63)

    def clear(self) -> None:
        """Forget what was left behind."""
        self._slots[0 : self._count * SLOT_SIZE] = bytes(self._count * SLOT_SIZE)

    def begin(self, number: int) -> None:
        """Note it."""
        if number not in self._taken and self._free:
            slot = self._free.pop()
            self._taken[number] = slot
            place = slot * SLOT_SIZE
            self._slots[place : place + SLOT_SIZE] = number.to_bytes(SLOT_SIZE, "little")

    def end(self, number: int) -> None:
        """Free its slot; nothing happens when it has none."""
        slot = self._taken.pop(number, None)
        if slot is not None:
            place = slot * SLOT_SIZE
            self._slots[place : place + SLOT_SIZE] = FREE
            self._free.append(slot)

    def close(self) -> None:
        self._slots.close()
