"""The claims of this process: who works on what, under which epoch, and what still waits.

Kept in memory beside the rows, so that settling a claim needs no read. One process writes a shard, so nothing here can
be changed behind our back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lonedot.spool.interface import MessageState, RecipientState, RecipientStatus

__all__ = ["Claims", "Held", "waiting_of"]

NEVER = float("inf")
_WAITING = RecipientStatus.WAITING


def waiting_of(recipients: Iterable[RecipientState]) -> dict[int, float]:
    """Recipients that wait, by number, with the time when they are due."""
    return {r.index: r.next_at for r in recipients if r.status is _WAITING}


class Held:
    """One claim."""

    __slots__ = (
        "attempts",
        "deleted",
        "entries",
        "epoch",
        "file",
        "keep",
        "lease_until",
        "number",
        "owner",
        "reason",
        "state",
        "transport",
        "waiting",
    )

    def __init__(
        self,
        number: int,
        owner: str,
        epoch: int,
        lease_until: float,
        waiting: dict[int, float],
        *,
        file: bool,
        keep: bool,
        attempts: int = 0,
        entries: int = 0,
        state: MessageState = MessageState.QUEUED,
        reason: str = "",
        transport: bytes | None = None,
    ) -> None:
        self.number = number
        self.owner = owner
        self.epoch = epoch
        self.lease_until = lease_until
        self.waiting = waiting
        self.file = file
        self.keep = keep
        """The content stays when the message is finished."""
        self.attempts = attempts
        self.entries = entries
        self.state = state
        self.reason = reason
        self.transport = transport
        """As the row has it."""
        self.deleted = False
        """A person deleted it while it was in flight: what comes back is recorded, nothing is tried again."""


class Claims:
    """All claims of this process, by message number."""

    __slots__ = ("_claims", "_earliest")

    def __init__(self) -> None:
        self._claims: dict[int, Held] = {}
        self._earliest = NEVER
        """No lease ends before this; some may end later."""

    def __len__(self) -> int:
        return len(self._claims)

    def __iter__(self) -> Iterator[Held]:
        return iter(self._claims.values())

    def get(self, number: int) -> Held | None:
        return self._claims.get(number)

    def put(self, held: Held) -> None:
        self._claims[held.number] = held
        self._earliest = min(self._earliest, held.lease_until)

    def drop(self, number: int) -> Held | None:
        return self._claims.pop(number, None)

    def renew(self, owner: str, lease_until: float) -> None:
        for held in self._claims.values():
            if held.owner == owner:
                held.lease_until = lease_until
        self._reckon()

    def ended(self, now: float) -> list[Held]:
        """Claims whose lease has ended."""
        if now < self._earliest:
            return []
        self._reckon()
        return [held for held in self._claims.values() if held.lease_until <= now]

    def clear(self) -> None:
        self._claims.clear()
        self._earliest = NEVER

    def _reckon(self) -> None:
        self._earliest = min((held.lease_until for held in self._claims.values()), default=NEVER)
