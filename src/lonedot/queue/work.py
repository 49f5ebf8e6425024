"""What a scheduler has in memory: claimed messages, the jobs that are out for them, and how much there may be of it.

A job is the recipients of one message that go to one lane. Rule: a work is dropped when nothing of it is open, waits
for reports, or is not settled yet; not before.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from lonedot.message.content import MemoryBody
from lonedot.queue.lanes import LaneState
from lonedot.queue.plan import Conclusion
from lonedot.spool.interface import Claim, RecipientState, RecipientStatus, Settlement
from lonedot.terms.ids import MessageId

__all__ = ["Desk", "Job", "Lanes", "Settle", "Spawn", "Work", "octets_in_memory"]

READY_LIMIT = 1000
"""Messages that wait in memory. A lane takes no more of it than it leaves to the others."""
ACTIVE_LIMIT = 1000
"""Messages at work, over all lanes, where there are many; a lane takes no more of it than it leaves."""
HELD_OCTETS = 32 * 1024 * 1024
"""Of content kept in memory between acceptance and attempt; beyond it the octets are read again from the spool."""


class Work:
    """A claimed message and the jobs that are out for it."""

    __slots__ = (
        "behind",
        "claim",
        "forgotten",
        "octets",
        "open",
        "owed",
        "owed_timer",
        "reporting",
        "rest",
        "settled",
        "settling",
        "waiting",
    )

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.octets = octets_in_memory(claim)
        self.open = 0
        """Jobs that are ready or out."""
        self.reporting = 0
        """Jobs whose outcome waits for its reports."""
        self.settling = 0
        """Settlements that are not durable yet: one is with the spool, the others are `behind` it."""
        self.behind: deque[Settlement] = deque()
        self.waiting = sum(r.status is RecipientStatus.WAITING for r in claim.message.recipients)
        self.forgotten = False
        self.settled: asyncio.Future[bool] | None = None
        """Of a step in transport: done when it is durable; False when the claim was no longer ours."""
        self.rest: list[tuple[LaneState[Job], Job]] = []
        """A courier has come back before it had tried all: the others go when what was done is durable."""
        self.owed: Conclusion | None = None
        """What is to be reported when the other jobs have ended; not settled before."""
        self.owed_timer: asyncio.TimerHandle | None = None

    @property
    def id(self) -> MessageId:
        return self.claim.message.id

    @property
    def is_busy(self) -> bool:
        """Something of it is not at its end."""
        return bool(self.open or self.reporting or self.settling)


class Job:
    """Recipients of one message, for one lane."""

    __slots__ = ("is_done", "recipients", "size", "work")

    def __init__(self, work: Work, recipients: tuple[RecipientState, ...]) -> None:
        self.work = work
        self.recipients = recipients
        self.size = work.claim.message.size
        self.is_done = False


Lanes = dict[str, LaneState[Job]]
Settle = Callable[[Work, Settlement], None]
"""Hands a settlement in, behind those of the same message."""
Spawn = Callable[[Awaitable[None]], None]


class Desk:
    """All works of a scheduler, counted."""

    __slots__ = ("active", "is_spread", "is_stopping", "octets", "ready", "works")

    def __init__(self) -> None:
        self.works: dict[MessageId, Work] = {}
        self.octets = 0
        self.ready = 0
        """Jobs that wait in memory."""
        self.active = 0
        """Jobs with the courier."""
        self.is_spread = False
        """There may be several lanes; one alone need not leave room for others."""
        self.is_stopping = False

    def add(self, claim: Claim) -> Work:
        work = Work(claim)
        self.octets += work.octets
        self.works[work.id] = work
        return work

    def remove(self, work: Work) -> bool:
        """Nothing is to be done for it any more. False: another claim of the same message has taken its place."""
        self.octets -= work.octets
        work.octets = 0
        if self.works.get(work.id) is not work:
            return False
        del self.works[work.id]
        return True

    def takes_octets_of(self, claim: Claim) -> bool:
        return self.octets + octets_in_memory(claim) <= HELD_OCTETS

    @property
    def room(self) -> int:
        """Jobs that may still wait in memory."""
        return READY_LIMIT - self.ready

    @property
    def has_room_for_due(self) -> bool:
        return self.ready < (READY_LIMIT if self.is_spread else READY_LIMIT // 2)

    @property
    def is_low(self) -> bool:
        """It is time to see what lies in the spool."""
        return self.ready < READY_LIMIT // 4

    @property
    def room_at_work(self) -> int:
        """Jobs that may still be given to the courier, where there are many lanes."""
        return ACTIVE_LIMIT - self.active


def octets_in_memory(claim: Claim) -> int:
    """Octets that the claim keeps in memory."""
    arrival = claim.arrival
    if arrival is None:
        return 0
    return arrival.size if isinstance(arrival.body, MemoryBody) else len(arrival.head)
