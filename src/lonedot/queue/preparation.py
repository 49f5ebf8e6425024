"""Messages in transport: their sinks are called step by step, each step durable before the next.

Rules: so many messages at one time, the others wait their turn. A message whose claim was lost is left alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections import deque
from collections.abc import Callable

import msgspec

from lonedot.queue.courier import Observer, Reporter
from lonedot.queue.transport import Preparer, Step
from lonedot.queue.work import Desk, Settle, Spawn, Work
from lonedot.spool.interface import Claim, MessageState, RecipientStatus, Settlement, Spool

__all__ = ["Ending", "Preparation"]

TRANSPORT_LIMIT = 64
"""Messages whose sinks are being called at one time; others wait their turn."""
TRANSPORT_AGAIN_SECONDS = 60.0
"""After a fault of ours in transport."""


class Ending(enum.Enum):
    """How the way of a message through its sinks ended."""

    THROUGH = "through"
    GIVEN_BACK = "given back"
    """Put off, held, at its end, or no longer ours."""
    INTERRUPTED = "interrupted"
    """A person holds or deletes it, or the relay stops."""


class Preparation:
    """Of one scheduler."""

    def __init__(
        self,
        spool: Spool,
        preparer: Preparer | None,
        reporter: Reporter,
        observer: Observer,
        now: Callable[[], float],
        desk: Desk,
        settle: Settle,
        spawn: Spawn,
        ended: Callable[[Work, Ending], None],
    ) -> None:
        """`preparer` is asked about messages in transport; without one they are held."""
        self._spool = spool
        self.preparer = preparer
        self._reporter = reporter
        self._observer = observer
        self._now = now
        self._desk = desk
        self._settle = settle
        self._spawn = spawn
        self._ended = ended
        self._waiting: deque[Work] = deque()
        self._at_work = 0

    def put(self, work: Work) -> None:
        """Take a message in transport; it counts as one that is ready."""
        work.open = 1
        self._desk.ready += 1
        self._waiting.append(work)
        self._go_on()

    def clear(self) -> list[Work]:
        """Those that wait for their turn; none of them is begun with any more."""
        works = list(self._waiting)
        self._waiting.clear()
        for work in works:
            work.open -= 1
        return works

    def _go_on(self) -> None:
        """Begin with those that wait, while there is room."""
        while self._waiting and self._at_work < TRANSPORT_LIMIT and not self._desk.is_stopping:
            work = self._waiting.popleft()
            self._desk.ready -= 1
            if work.forgotten or not self._spool.owns(work.claim.message.id, work.claim.epoch):
                work.open -= 1
                self._ended(work, Ending.INTERRUPTED)
                continue
            self._at_work += 1
            self._spool.in_flight(work.claim.message.id)
            self._spawn(self._prepare(work))

    async def _prepare(self, work: Work) -> None:
        """Call what is left of its sinks, step by step; then deliver it, under the same claim."""
        ending = Ending.INTERRUPTED
        try:
            ending = await self._prepared(work)
        except Exception as error:
            # A fault of ours, or of the disk: it is asked again, and what was committed stays.
            self._observer.spool_failed("transport", error)
            self._put_off(work, f"a fault of ours: {type(error).__name__}: {error}")
            ending = Ending.GIVEN_BACK
        finally:
            work.open -= 1
            work.settled = None
            self._at_work -= 1
            if ending is Ending.THROUGH and work.forgotten:
                ending = Ending.INTERRUPTED
            self._ended(work, ending)
            self._go_on()

    async def _prepared(self, work: Work) -> Ending:
        message = work.claim.message
        if self.preparer is None:
            words = "sinks are still to be called for it, and cannot be called here"
            held = Settlement(message.id, work.claim.epoch, state=MessageState.HELD, reason=words)
            self._settle(work, held)
            return Ending.GIVEN_BACK
        async with contextlib.aclosing(self.preparer.prepare(work.claim)) as steps:
            async for step in steps:
                if not await self._take(work, step) or step.gives_back:
                    return Ending.GIVEN_BACK
                if work.forgotten or self._desk.is_stopping:
                    return Ending.INTERRUPTED
        return Ending.THROUGH

    async def _take(self, work: Work, step: Step) -> bool:
        """Commit a step, with the reports that it causes. False: the claim is no longer ours."""
        claim = work.claim
        spawned = tuple(await self._reporter.report(claim, step.reports)) if step.reports else ()
        settlement = Settlement(
            id=claim.message.id,
            epoch=claim.epoch,
            recipients=step.recipients,
            state=step.state,
            reason=step.reason,
            release=step.gives_back,
            entries=step.entries,
            spawned=spawned + step.spawned,
            at=self._now(),
            transport=step.message.transport,
        )
        work.settled = asyncio.get_running_loop().create_future()
        self._settle(work, settlement)
        is_ours = await work.settled
        work.claim = Claim(step.message, claim.epoch, claim.arrival)
        work.waiting = sum(r.status is RecipientStatus.WAITING for r in step.message.recipients)
        return is_ours

    def _put_off(self, work: Work, words: str) -> None:
        message, now = work.claim.message, self._now()
        recipients = tuple(
            [
                msgspec.structs.replace(recipient, next_at=now + TRANSPORT_AGAIN_SECONDS)
                for recipient in message.recipients
                if recipient.status is RecipientStatus.WAITING
            ]
        )
        progress = message.transport and msgspec.structs.replace(message.transport, words=words[:500])
        settlement = Settlement(
            message.id, work.claim.epoch, recipients, at=now, transport=progress or msgspec.UNSET
        )
        self._settle(work, settlement)
