"""Deliveries that end on this machine: a copy given to a Maildir, a Drop folder or a program in a thread.

Rules: one recipient per copy, but for a Drop folder, whose files name them all; what a carrier says is the outcome, and
it says it only when the copy is where it stays (synced, or the program has ended); no more at one time than the route's
`connections`. A thread can be waited for and not ended: what still writes when the relay stops is reported as not
tried, and may arrive twice.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import msgspec

from lonedot.delivery.leases import ASK_SECONDS, Leases
from lonedot.delivery.pool import PoolState
from lonedot.delivery.routing import Route
from lonedot.delivery.transcript import Line
from lonedot.message.encode import CanonicalContent, Sent
from lonedot.protocol.client_plan import Offer
from lonedot.terms.address import Address
from lonedot.terms.ids import MessageId
from lonedot.terms.outcome import Outcome, Result, Stage

__all__ = ["HERE", "Carrier", "Deposit", "DepositJob", "DepositReport", "Depot", "refused"]

HERE = Offer(esmtp=True, eight_bit_mime=True, smtputf8=True)
"""What this machine can take: everything; but it passes no duty to report on to anybody."""

_STOP_SECONDS = 2.0
"""Time for what was ended to be gone."""


class Deposit(msgspec.Struct, frozen=True):
    """One copy."""

    id: MessageId
    sender: Address
    recipients: tuple[Address, ...]
    canonical: CanonicalContent
    index: int
    """Number of the first recipient in the message."""

    @property
    def recipient(self) -> Address:
        """The only one, but for a Drop folder."""
        return self.recipients[0]


class DepositReport(msgspec.Struct, frozen=True):
    """What came of it."""

    outcome: Outcome
    sent: Sent | None = None
    """When all of it was written."""
    lines: list[Line] = []
    """For the transcript."""
    cause: BaseException | None = None
    """Our own octets could not be read, or are not those that were accepted: this decides."""


class Carrier(Protocol):
    """Puts copies where a route says. `put` and `place` are called in threads, several at a time."""

    def place(self, recipient: Address) -> str:
        """What stands where other attempts name the next hop."""
        ...

    def put(self, deposit: Deposit) -> DepositReport: ...

    def stop(self) -> None:
        """End what runs now, if that can be done; called on the loop's thread."""
        ...


class DepositJob(Protocol):
    """A message that waits for its turn."""

    @property
    def deposit_for(self) -> Address:
        """The recipient, or the first of them."""
        ...

    def make_deposit(self, place: str) -> Deposit | Awaitable[Deposit | None] | None:
        """The copy; None: there is none, the job has ended itself."""
        ...

    def deposited(self, place: str, report: DepositReport) -> None: ...

    def not_tried(self) -> None: ...


def refused(place: str, words: str, status: str) -> Outcome:
    """The outcome of a copy that was not put; by the class of `status` failed or deferred."""
    result = Result.FAILED if status.startswith("5") else Result.DEFERRED
    return Outcome(result, Stage.LOCAL, words, None, place, status)


class _Turn:
    """A job at work. One and the same job may have its next turn before this one has been seen to end."""

    __slots__ = ("job", "place")

    def __init__(self, job: DepositJob, place: str) -> None:
        self.job = job
        self.place = place


class Depot:
    """Everything that one route delivers here. Lives on one event loop."""

    def __init__(self, route: Route, carrier: Carrier, leases: Leases | None = None) -> None:
        """`leases`: what workers share of `connections`; None where this worker has all of them."""
        self._loop = asyncio.get_running_loop()
        self._route = route
        self._carrier = carrier
        self._leases = leases
        self._asks_again = False
        self._waiting: deque[DepositJob] = deque()
        self._running: set[_Turn] = set()
        self._threads = ThreadPoolExecutor(route.connections, f"route {route.name}")
        self._closing = False
        self._empty = asyncio.Event()

    @property
    def state(self) -> PoolState:
        return PoolState(self._route.name, "", len(self._running), 0, 0, len(self._waiting))

    def submit(self, job: DepositJob) -> None:
        """Put the job's copy when there is room. The job is told what came of it, always later than this."""
        if self._closing:
            self._loop.call_soon(job.not_tried)
            return
        self._waiting.append(job)
        self._loop.call_soon(self._serve)

    def end(self) -> None:
        """Begin nothing from now on."""
        self._closing = True

    async def close(self, grace_seconds: float) -> None:
        """Begin nothing new; what runs has so long to end, then it is ended."""
        self._closing = True
        while self._waiting:
            self._waiting.popleft().not_tried()
        for seconds in (grace_seconds, _STOP_SECONDS):
            if not self._running:
                break
            self._empty.clear()
            try:
                await asyncio.wait_for(self._empty.wait(), seconds)
            except TimeoutError:
                self._carrier.stop()
        for turn in tuple(self._running):
            self._running.discard(turn)
            self._give()
            turn.job.not_tried()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _serve(self) -> None:
        while self._waiting and len(self._running) < self._route.connections and self._has_lease():
            if not self._start(self._waiting.popleft()):
                self._give()

    def _has_lease(self) -> bool:
        if self._leases is None or self._leases.take():
            return True
        if not self._asks_again:
            self._asks_again = True
            self._loop.call_later(ASK_SECONDS, self._ask_again)
        return False

    def _ask_again(self) -> None:
        self._asks_again = False
        if not self._closing:
            self._serve()

    def _give(self) -> None:
        if self._leases is not None:
            self._leases.give()

    def _start(self, job: DepositJob) -> bool:
        """True: it runs, and its end is told."""
        place = self._carrier.place(job.deposit_for)
        try:
            made = job.make_deposit(place)
        except Exception as error:  # a bug may cost one message its attempt, not its place in the queue
            job.deposited(place, _bug(place, error))
            return False
        if made is None:
            return False
        turn = _Turn(job, place)
        self._running.add(turn)
        if isinstance(made, Deposit):
            self._put(turn, made)
        else:
            making = asyncio.ensure_future(made)
            making.add_done_callback(lambda done: self._made(turn, done))
        return True

    def _made(self, turn: _Turn, done: asyncio.Future[Deposit | None]) -> None:
        """A copy that took waiting is ready."""
        if turn not in self._running:
            return
        if done.cancelled():
            self._end(turn, turn.job.not_tried)
        elif (error := done.exception()) is not None:
            report = _bug(turn.place, error)
            self._end(turn, lambda: turn.job.deposited(turn.place, report))
        elif (deposit := done.result()) is None:
            self._end(turn, _nothing)
        elif self._closing:
            self._end(turn, turn.job.not_tried)
        else:
            self._put(turn, deposit)

    def _put(self, turn: _Turn, deposit: Deposit) -> None:
        future = self._loop.run_in_executor(self._threads, self._carrier.put, deposit)
        future.add_done_callback(lambda done: self._done(turn, done))

    def _done(self, turn: _Turn, done: asyncio.Future[DepositReport]) -> None:
        if turn not in self._running:
            return
        if done.cancelled():
            self._end(turn, turn.job.not_tried)
            return
        error = done.exception()
        report = done.result() if error is None else _bug(turn.place, error)
        self._end(turn, lambda: turn.job.deposited(turn.place, report))

    def _end(self, turn: _Turn, tell: Callable[[], None]) -> None:
        """The next one begins before this one's message is told."""
        self._running.discard(turn)
        self._give()
        self._serve()
        tell()
        if not self._running:
            self._empty.set()


def _bug(place: str, error: BaseException) -> DepositReport:
    return DepositReport(refused(place, f"the relay failed on this message: {error!r}", "4.3.0"), cause=error)


def _nothing() -> None:
    """The job has ended itself."""
