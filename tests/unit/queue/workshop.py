"""A scheduler among doubles: a spool that settles on command, a courier and a reporter moved by hand, timers that ring
when the test says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from lonedot.queue.courier import Delivery
from lonedot.queue.lanes import Lane
from lonedot.queue.plan import Conclusion, Report
from lonedot.queue.retry import RetrySchedule
from lonedot.queue.scheduler import Scheduler
from lonedot.spool.interface import (
    Acceptance,
    Attempt,
    Claim,
    MessageState,
    RecipientState,
    RecipientStatus,
    Settlement,
    Stored,
)
from lonedot.terms.address import NULL_REVERSE_PATH, Address
from lonedot.terms.envelope import Envelope, Notify
from lonedot.terms.ids import MessageId
from lonedot.terms.outcome import Outcome, Result, Stage
from lonedot.testing.clock import ManualClock
from lonedot.testing.messages import acceptance
from lonedot.testing.spool import MemorySpool

__all__ = ["OWNER", "HandSpool", "Notes", "Out", "Workshop", "outcome", "settle"]

OWNER = "worker"
_STATUS = {Result.DELIVERED: "2.0.0", Result.DEFERRED: "4.3.0", Result.FAILED: "5.1.1"}


async def settle() -> None:
    """Let everything that can go on go on."""
    for _ in range(12):
        await asyncio.sleep(0)


def outcome(result: Result, words: str = "") -> Outcome:
    return Outcome(result, Stage.RCPT, words or result.value, status=_STATUS[result])


class Timers:
    """In the place of `loop.call_later`: nothing rings until `Workshop.pass_time`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: ManualClock) -> None:
        self._loop = loop
        self._clock = clock
        self._handles: list[asyncio.TimerHandle] = []

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: object, context: object = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(self._clock.monotonic() + delay, callback, args, self._loop)
        self._handles.append(handle)
        return handle

    def next_at(self) -> float | None:
        self._handles = [handle for handle in self._handles if not handle.cancelled()]
        return min((handle.when() for handle in self._handles), default=None)

    def ring_due(self) -> None:
        now = self._clock.monotonic()
        due = [handle for handle in self._handles if not handle.cancelled() and handle.when() <= now]
        self._handles = [handle for handle in self._handles if handle not in due]
        for handle in sorted(due, key=lambda handle: handle.when()):
            handle._run()


class HandSpool(MemorySpool):
    """Settles at once, or (`by_hand`) when told; keeps what was settled with what the spool said of it."""

    def __init__(self) -> None:
        super().__init__()
        self.by_hand = False
        self.open: list[tuple[Sequence[Settlement], asyncio.Future[Sequence[bool]]]] = []
        self.settled: list[tuple[Settlement, bool]] = []
        self.refused = 0
        self.renewals: list[float] = []
        self.claims = 0
        self.claim_gate: asyncio.Future[None] | None = None
        self.claim_error: Exception | None = None
        self.settle_error: Exception | None = None
        self.owners_seen: set[str] = set()

    def settle(self, batch: Sequence[Settlement]) -> asyncio.Future[Sequence[bool]]:
        if self.settle_error is not None:
            raise self.settle_error
        future: asyncio.Future[Sequence[bool]] = asyncio.get_running_loop().create_future()
        assert not {s.id for s in batch} & {s.id for waiting, _ in self.open for s in waiting}, (
            "two settlements of one message at the same time: the later could be there first"
        )
        self.open.append((batch, future))
        if not self.by_hand:
            self.answer(error=self.fault)
        return future

    def answer(self, number: int = 0, error: Exception | None = None) -> None:
        """The disk has done its work for one of the open settlements, or has failed."""
        batch, future = self.open.pop(number)
        if error is not None:
            self.refused += 1
            future.set_exception(error)
            return
        results = [self._settle(settlement) for settlement in batch]
        self.settled += zip(batch, results, strict=True)
        future.set_result(results)

    async def claim(
        self, owner: str, now: float, lease_seconds: float, limit: int, lane: str = ""
    ) -> Sequence[Claim]:
        self.claims += 1
        if self.claim_gate is not None:
            await self.claim_gate
        if self.claim_error is not None:
            raise self.claim_error
        return await super().claim(owner, now, lease_seconds, limit, lane)

    def renew(self, owner: str, lease_until: float) -> Awaitable[None]:
        self.renewals.append(lease_until)
        return super().renew(owner, lease_until)

    def state_of(self, id: str) -> MessageState:
        return self.show(MessageId(id)).state

    def owner_of(self, id: str) -> str:
        return self._kept[id].owner

    def epoch_of(self, id: str) -> int:
        return self._kept[id].epoch


class Out(msgspec.Struct):
    """What the courier was given."""

    claim: Claim
    recipients: tuple[RecipientState, ...]
    route: str
    done: Callable[[Delivery], None]

    @property
    def id(self) -> MessageId:
        return self.claim.message.id


class Notes:
    """The observer."""

    def __init__(self) -> None:
        self.attempts: list[Delivery] = []
        self.conclusions: list[Conclusion] = []
        self.failures: list[str] = []

    def attempted(self, claim: Claim, delivery: Delivery) -> None:
        self.attempts.append(delivery)

    def concluded(self, claim: Claim, conclusion: Conclusion, hold: str) -> None:
        self.conclusions.append(conclusion)

    def spool_failed(self, what: str, error: Exception) -> None:
        self.failures.append(what)


class Workshop:
    """All of it. Make it inside a running loop."""

    def __init__(self, *, limit: int = 10, jitter: float = 0.5, is_single: bool = False) -> None:
        """`is_single`: there is one route, with one lane."""
        loop = asyncio.get_running_loop()
        self.clock = ManualClock()
        self.timers = Timers(loop, self.clock)
        loop.call_later = self.timers.call_later  # type: ignore[method-assign]
        self.spool = HandSpool()
        self.out: list[Out] = []
        self.notes = Notes()
        self.report_gate: asyncio.Future[None] | None = None
        self.report_error: BaseException | None = None
        self.reported: list[tuple[str, Report]] = []
        self.deliver_error: Exception | None = None
        self.at_once: Result | None = None
        self._dsns = 0
        self.destinations: dict[bytes, str] = {}
        schedule = RetrySchedule()
        self.scheduler = Scheduler(
            self.spool,
            self,
            self,
            self.notes,
            [Lane("a", limit, schedule, has_many=False)]
            if is_single
            else [Lane("a", limit, schedule), Lane("b", limit, schedule)],
            self.choose,
            self.clock,
            OWNER,
            lambda: jitter,
            destination=lambda route, domain: self.destinations.get(domain, ""),
        )

    @staticmethod
    def choose(address: Address, stored: Stored) -> str | None:
        return {b"a.example": "a", b"b.example": "b", b"c.example": "a"}.get(address.domain)

    # -- courier -----------------------------------------------------------------------------------

    def deliver(
        self,
        claim: Claim,
        recipients: Sequence[RecipientState],
        route: str,
        done: Callable[[Delivery], None],
    ) -> None:
        if self.deliver_error is not None:
            raise self.deliver_error
        taken = {(o.id, r.index) for o in self.out for r in o.recipients}
        assert not taken & {(claim.message.id, r.index) for r in recipients}, "tried twice at one time"
        out = Out(claim, tuple(recipients), route, done)
        if self.at_once is None:
            self.out.append(out)
        else:
            self.end(out, self.at_once)

    def end(self, out: Out, *results: Result | None, hold: str = "") -> None:
        """The courier is back. One result for all recipients, or one for each (None: not tried)."""
        if out in self.out:
            self.out.remove(out)
        each = results if len(results) > 1 else results * len(out.recipients)
        outcomes = tuple(
            (r.index, outcome(result))
            for r, result in zip(out.recipients, each, strict=True)
            if result is not None
        )
        now = self.clock.now()
        out.done(Delivery((Attempt(now, now, "hop", out.route, "", outcomes),), hold))

    # -- reporter ----------------------------------------------------------------------------------

    async def report(self, claim: Claim, reports: Sequence[Report]) -> Sequence[Acceptance]:
        if self.report_gate is not None:
            await self.report_gate
        if self.report_error is not None:
            raise self.report_error
        spawned = []
        for report in reports:
            self.reported.append((claim.message.id, report))
            if not claim.message.envelope.reverse_path.is_null:
                self._dsns += 1
                sender = claim.message.envelope.reverse_path.text
                dsn = acceptance(f"dsn{self._dsns:010}", self.clock.now(), recipients=(sender,), sender="")
                envelope = Envelope(NULL_REVERSE_PATH, dsn.envelope.recipients)
                spawned.append(msgspec.structs.replace(dsn, envelope=envelope))
        return spawned

    # -- what a test does --------------------------------------------------------------------------

    async def offer(
        self,
        id: str,
        *recipients: str,
        sender: str = "s@a.example",
        notify: Notify = Notify.UNSTATED,
        size: int = 0,
    ) -> None:
        """Accepted with us as its owner, and handed over in memory."""
        given = acceptance(id, self.clock.now(), recipients=recipients, sender=sender, owner=OWNER)
        if size:
            given = msgspec.structs.replace(given, size=size)
        states = tuple(
            msgspec.structs.replace(r, recipient=msgspec.structs.replace(r.recipient, notify=notify))
            for r in given.recipients
        )
        given = msgspec.structs.replace(given, recipients=states)
        await self.spool.accept((given,))
        self.scheduler.offer(Claim(self.spool.show(given.id), 1, given.arrival))

    async def leave(self, id: str, *recipients: str, next_at: float | None = None) -> None:
        """Accepted without an owner: it lies in the spool."""
        given = acceptance(id, self.clock.now(), recipients=recipients, sender="s@a.example", next_at=next_at)
        await self.spool.accept((given,))

    async def pass_time(self, seconds: float) -> None:
        """Time goes on, timer by timer."""
        await settle()
        ends_at = self.clock.monotonic() + seconds
        while (at := self.timers.next_at()) is not None and at <= ends_at:
            self.clock.advance(max(0.0, at - self.clock.monotonic()))
            self.timers.ring_due()
            await settle()
        self.clock.advance(ends_at - self.clock.monotonic())

    def statuses(self, id: str) -> list[RecipientStatus]:
        return [recipient.status for recipient in self.spool.show(MessageId(id)).recipients]

    def releases(self, id: str) -> list[bool]:
        """The release flags of a message's settlements, in their order."""
        return [settlement.release for settlement, _ in self.spool.settled if settlement.id == id]
