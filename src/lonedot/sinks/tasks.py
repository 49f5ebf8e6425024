"""Sinks that are coroutines: tasks of the relay's loop, many at once, each with its deadline.

For code that waits for others: a scanner, a filter, a database. Rules a change here must keep:
1. Every call gets one answer, as from a process (`sinks.process`): what the sink said, or why it said nothing.
2. A call that is late is answered at once and its task cancelled; what that task does with it holds up nobody.
3. The time of a call counts from when it begins: who waits for a free place is not to blame.
"""

from __future__ import annotations

import asyncio
import collections
import time
from collections.abc import Awaitable
from typing import cast

import msgspec

from lonedot.observability import log
from lonedot.observability.levels import LogLevel
from lonedot.sinks.bindings import Binding
from lonedot.sinks.calls import Answer, Call
from lonedot.sinks.inquiry import HopCall
from lonedot.sinks.process import WAITING_LIMIT, WAITING_SECONDS, DeadlineExceeded, HostDown
from lonedot.sinks.protocol import Question
from lonedot.sinks.view import Message

__all__ = ["AT_ONCE", "TaskHost"]

AT_ONCE = 50
"""Calls of one binding that are under way at the same time."""
CLOSE_SECONDS = 2.0
"""For a sink to let go of what it keeps open."""


class _Waiting(msgspec.Struct):
    call: Call | Question | HopCall
    answer: asyncio.Future[Answer]
    since: float


class TaskHost:
    """The tasks of one binding. Needs the running loop. The same interface as `ProcessHost`."""

    def __init__(self, binding: Binding) -> None:
        self.binding = binding
        self._loop = asyncio.get_running_loop()
        self._waiting: collections.deque[_Waiting] = collections.deque()
        self._running: dict[asyncio.Task[object], Binding] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._leaving: list[Binding] = []
        """No longer in force, with calls under way."""
        self._is_closed = False
        self.ended = asyncio.Event()
        """Nothing runs, and nothing is kept open."""
        self.ended.set()

    @property
    def pid(self) -> int:
        """0: it has no process of its own."""
        return 0

    @property
    def is_idle(self) -> bool:
        return not self._running and not self._waiting

    def warm(self) -> None:
        """Nothing to start."""

    def take(self, binding: Binding) -> None:
        """This one is in force from now on; the one before lets go when its calls have ended."""
        before, self.binding = self.binding, binding
        self._leaving.append(before)
        self._let_go()

    def call(self, call: Call | Question | HopCall) -> asyncio.Future[Answer]:
        """Call the sink, when there is a place."""
        answer: asyncio.Future[Answer] = self._loop.create_future()
        if self._is_closed:
            answer.cancel()
        elif len(self._waiting) >= WAITING_LIMIT:
            answer.set_result(Answer(error=HostDown(f"{WAITING_LIMIT} calls wait for it")))
        else:
            self._waiting.append(_Waiting(call, answer, self._loop.time()))
            self._go_on()
        return answer

    def close(self) -> None:
        """End all of it; nobody who waits is answered any more."""
        if self._is_closed:
            return
        self._is_closed = True
        while self._waiting:
            self._waiting.popleft().answer.cancel()
        for task in self._running:
            task.cancel()
        self._leaving.append(self.binding)
        self._let_go()

    # -- calls -------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        while self._waiting and len(self._running) < AT_ONCE:
            waiting = self._waiting.popleft()
            if waiting.answer.done():
                continue
            if self._loop.time() - waiting.since > WAITING_SECONDS:
                words = f"its turn had not come after {WAITING_SECONDS:g} s"
                waiting.answer.set_result(Answer(error=HostDown(words)))
                continue
            self._begin(waiting)

    def _begin(self, waiting: _Waiting) -> None:
        call = waiting.call
        binding = call.binding
        began = time.perf_counter()
        task: asyncio.Task[object] = self._loop.create_task(_said(call))
        self._running[task] = binding
        self.ended.clear()
        timer = self._loop.call_later(binding.deadline_seconds, self._is_late, task, waiting, began)

        def ended(done: asyncio.Task[object]) -> None:
            timer.cancel()
            del self._running[done]
            took = time.perf_counter() - began
            if done.cancelled():
                answer = Answer(error=HostDown("it was cancelled"), took_seconds=took)
                error = None
            else:
                error = done.exception()
                answer = (
                    Answer(done.result(), took_seconds=took)
                    if error is None
                    else Answer(error=error, took_seconds=took)
                )
            if waiting.answer.done():
                if error is not None:
                    log.event("sink.late", LogLevel.WARNING, binding=binding.name, words=str(error)[:500])
            elif self._is_closed:
                waiting.answer.cancel()
            else:
                waiting.answer.set_result(answer)
            self._go_on()
            self._let_go()

        task.add_done_callback(ended)

    def _is_late(self, task: asyncio.Task[object], waiting: _Waiting, began: float) -> None:
        if not waiting.answer.done():
            late = DeadlineExceeded(f"no answer within {waiting.call.binding.deadline_seconds:g} s")
            waiting.answer.set_result(Answer(error=late, took_seconds=time.perf_counter() - began))
        task.cancel()

    # -- the end -----------------------------------------------------------------------------------

    def _let_go(self) -> None:
        """Close what is no longer in force and has no call under way."""
        busy = {id(binding) for binding in self._running.values()}
        for binding in [one for one in self._leaving if id(one) not in busy]:
            self._leaving = [one for one in self._leaving if one is not binding]
            if binding.close is not None:
                task = self._loop.create_task(_closed(binding, binding.close()))
                self._closing.add(task)
                self.ended.clear()
                task.add_done_callback(self._is_let_go)
        self._is_let_go(None)

    def _is_let_go(self, task: asyncio.Task[None] | None) -> None:
        if task is not None:
            self._closing.discard(task)
        if not self._running and not self._closing:
            self.ended.set()


async def _said(call: Call | Question | HopCall) -> object:
    """What the sink says. It may raise anything; only Ctrl-C goes through as it is.

    Raises:
        RuntimeError: the sink exits.
    """
    shown = (
        call.message if isinstance(call, Call) else call.session if isinstance(call, Question) else call.hop
    )
    try:
        # What is shown is what its event shows.
        return await cast("Awaitable[object]", call.binding.call(cast(Message, shown)))
    except SystemExit as error:
        raise RuntimeError(f"SystemExit: {error}") from error


async def _closed(binding: Binding, closing: Awaitable[None]) -> None:
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await closing
    except Exception as error:  # of the sink's own
        log.event("sink.not-closed", LogLevel.WARNING, binding=binding.name, words=f"{error!r}"[:500])
