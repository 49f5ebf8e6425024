"""The process of one binding: calls wait in turn, a deadline kills, what was killed is started again.

Rules a change here must keep:
1. Every call gets one answer: what the sink said, or a `Failure` that says why it said nothing. A call is cancelled
   only when the relay stops.
2. A process has one call at a time. When it says anything that is not the answer to it, it is killed.
3. The time of a call counts from when the process is given it: who waits behind a sink that hangs is not to blame.
"""

from __future__ import annotations

import asyncio
import collections
import os
import time

import msgspec

from lonedot.observability import log
from lonedot.observability.levels import LogLevel
from lonedot.sinks import wire
from lonedot.sinks.bindings import Binding
from lonedot.sinks.calls import Answer, Call, Failure
from lonedot.sinks.child import LOAD_SECONDS, Child
from lonedot.sinks.frames import (
    frame_of_call,
    frame_of_hop,
    frame_of_question,
    in_memory_file,
    is_long_to_copy,
)
from lonedot.sinks.inquiry import HopCall
from lonedot.sinks.protocol import Question
from lonedot.sinks.standing import Fault

__all__ = [
    "BadAnswer",
    "DeadlineExceeded",
    "HostDown",
    "ProcessDied",
    "ProcessHost",
    "SinkRaised",
    "SinkReturned",
]

BACK_OFF_SECONDS = 0.1
"""Before the second start of a process that has not answered anything; doubles each time."""
BACK_OFF_LIMIT_SECONDS = 30.0
BORNE_SECONDS = 1.0
"""A back-off of at most this long is waited for; in a longer one calls are answered at once."""
WAITING_LIMIT = 1000
"""Calls that wait for one process."""
WAITING_SECONDS = 120.0
RECEIVE_OCTETS = 256 * 1024


class HostDown(Failure):
    """The sink was not asked: its process is not there, or too many wait for it."""

    fault = Fault.DIED


class DeadlineExceeded(Failure):
    """The sink did not answer in its time; its process was killed."""

    fault = Fault.DEADLINE


class ProcessDied(Failure):
    """The process ended during the call."""

    fault = Fault.DIED


class BadAnswer(Failure):
    """The process said what no sink can say, and was killed."""

    fault = Fault.NONSENSE


class SinkRaised(Failure):
    """The sink raised."""


class SinkReturned(Failure):
    """The sink returned what no sink may."""

    fault = Fault.NONSENSE


class _Waiting(msgspec.Struct):
    call: Call | Question | HopCall
    answer: asyncio.Future[Answer]
    since: float


class ProcessHost:
    """The process of one binding. Needs the running loop."""

    def __init__(self, binding: Binding) -> None:
        self.binding = binding
        self._loop = asyncio.get_running_loop()
        self._waiting: collections.deque[_Waiting] = collections.deque()
        self._current: _Waiting | None = None
        self._child: Child | None = None
        self._is_loaded = False
        self._is_closed = False
        self._number = 0
        self._asked_at = 0.0
        self._deadline_seconds = 0.0
        self._received = bytearray()
        self._timer: asyncio.TimerHandle | None = None
        self._fault: Failure | None = None
        """Why the process is being killed."""
        self._has_answered = False
        """The process, since its start."""
        self._failures = 0
        """Starts in a row after which nothing was answered."""
        self._restart: asyncio.TimerHandle | None = None
        self._down_until = 0.0
        self._down_words = ""
        self._wants_renewal = False
        self._is_ending = False
        self.ended = asyncio.Event()
        """There is no process."""
        self.ended.set()

    @property
    def pid(self) -> int:
        """Of the process; 0 when there is none."""
        return self._child.pid if self._child is not None else 0

    @property
    def is_idle(self) -> bool:
        return self._current is None and not self._waiting

    def warm(self) -> None:
        """Start the process unless it is there."""
        if self._child is None and not self._is_closed and self._loop.time() >= self._down_until:
            self._start()

    @property
    def _is_refusing(self) -> bool:
        return self._child is None and self._restart is None and self._loop.time() < self._down_until

    def call(self, call: Call | Question | HopCall) -> asyncio.Future[Answer]:
        """Have the sink called when its turn comes."""
        answer: asyncio.Future[Answer] = self._loop.create_future()
        now = self._loop.time()
        if self._is_closed:
            answer.cancel()
        elif self._is_refusing:
            answer.set_result(Answer(error=HostDown(f"its process is down: {self._down_words}")))
        elif len(self._waiting) >= WAITING_LIMIT:
            answer.set_result(Answer(error=HostDown(f"{WAITING_LIMIT} calls wait for it")))
        else:
            self._waiting.append(_Waiting(call, answer, now))
            if self._child is not None:
                self._go_on()
            elif self._restart is None:
                self._start()
        return answer

    def take(self, binding: Binding) -> None:
        """This one is in force from now on."""
        self.binding = binding
        self.renew()

    def renew(self) -> None:
        """A new process, with the code as it is now, as soon as no call is under way."""
        self._wants_renewal = True
        self._go_on()

    def close(self) -> None:
        """End the process; nobody who waits is answered any more."""
        self._is_closed = True
        if self._current is not None:
            self._waiting.append(self._current)
            self._current = None
        while self._waiting:
            self._waiting.popleft().answer.cancel()
        self._stop_timer()
        if self._restart is not None:
            self._restart.cancel()
            self._restart = None
        if self._child is not None:
            self._child.cut()
            self._child.kill()

    # -- the process -------------------------------------------------------------------------------

    def _start(self) -> None:
        binding = self.binding
        self._is_loaded = self._has_answered = self._wants_renewal = self._is_ending = False
        self._fault = self._restart = None
        self._received.clear()
        try:
            self._child = Child(
                binding.name,
                binding.sink_class,
                binding.memory_octets,
                binding.user,
                self._readable,
                self._ended,
            )
        except OSError as error:
            self._is_down(f"it cannot be started: {error}")
            return
        self.ended.clear()
        self._timer = self._loop.call_later(LOAD_SECONDS, self._not_loaded_in_time)

    def _not_loaded_in_time(self) -> None:
        self._kill(HostDown(f"its process has not loaded it after {LOAD_SECONDS:g} s"))

    def _kill(self, fault: Failure) -> None:
        """End the process for a fault. The call under way is answered at once."""
        self._fault = fault
        self._stop_timer()
        assert self._child is not None
        self._child.cut()
        self._child.kill()
        self._answer(Answer(error=fault, took_seconds=self._took()))

    def _ended(self) -> None:
        """The process is gone, with its group."""
        child = self._child
        assert child is not None
        self._is_ending = True
        while self._fault is None and self._receive():
            pass  # the last it said
        child.cut()
        self._child = None
        self._stop_timer()
        self.ended.set()
        if self._is_closed:
            return
        words = str(self._fault) if self._fault is not None else f"its process ended: {child.how_it_ended}"
        self._answer(Answer(error=ProcessDied(words), took_seconds=self._took()))
        if self._wants_renewal and self._fault is None:
            self._start()
            return
        log.event("sink.ended", LogLevel.WARNING, binding=self.binding.name, pid=child.pid, words=words)
        if self._has_answered:
            self._failures = 0
        if self._is_loaded and not self._failures:
            # One message that kills it is not to cost the others anything.
            self._failures = 0 if self._has_answered else 1
            self._start()
        else:
            self._is_down(words)

    def _is_down(self, words: str) -> None:
        """The process did not even load, or fell at its first call: not at once again."""
        seconds = min(BACK_OFF_SECONDS * 2**self._failures, BACK_OFF_LIMIT_SECONDS)
        self._failures = min(self._failures + 1, 20)
        self._down_until = self._loop.time() + seconds
        self._down_words = words
        log.event("sink.down", LogLevel.WARNING, binding=self.binding.name, seconds=seconds, words=words)
        if seconds <= BORNE_SECONDS:
            self._restart = self._loop.call_later(seconds, self._start)
            return
        while self._waiting:
            answer = self._waiting.popleft().answer
            if not answer.done():
                answer.set_result(Answer(error=HostDown(f"its process is down: {words}")))

    # -- calls -------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """The next call, when the process is free for it."""
        child = self._child
        if child is None or not self._is_loaded or self._current is not None:
            return
        if self._is_ending or self._fault is not None:
            return
        if self._wants_renewal and (self._has_answered or not self._waiting):
            self._is_ending = True
            child.kill()
            return
        while self._waiting:
            waiting = self._waiting.popleft()
            if waiting.answer.done():
                continue
            if self._loop.time() - waiting.since > WAITING_SECONDS:
                words = f"its turn had not come after {WAITING_SECONDS:g} s"
                waiting.answer.set_result(Answer(error=HostDown(words)))
                continue
            self._current = waiting
            self._number += 1
            if not isinstance(waiting.call, Call):
                self._ask(waiting.call)
                return
            message = waiting.call.message
            if is_long_to_copy(message):
                future = self._loop.run_in_executor(None, in_memory_file, message.content.body)
                future.add_done_callback(lambda f, number=self._number: self._copied(f, number))  # type: ignore[misc]
            else:
                self._show(waiting.call, -1)
            return

    def _copied(self, future: asyncio.Future[int], number: int) -> None:
        """A body that is made while it is read lies in memory now."""
        if future.cancelled():
            return
        error = future.exception()
        if number != self._number or self._current is None or self._child is None or self._fault is not None:
            if error is None:
                os.close(future.result())
        elif error is not None:
            self._answer(Answer(error=error))
            self._go_on()
        else:
            call = self._current.call
            assert isinstance(call, Call)
            self._show(call, future.result())

    def _ask(self, question: Question | HopCall) -> None:
        """Send the question under way."""
        try:
            if isinstance(question, HopCall):
                frame = frame_of_hop(self._number, question)
            else:
                frame = frame_of_question(self._number, question)
        except (ValueError, TypeError, OverflowError) as error:
            self._not_sent(error)
        else:
            self._send(question.binding, frame, -1)

    def _show(self, call: Call, copy: int) -> None:
        """Send the call under way; `copy`: a descriptor of its body, when that had to be copied."""
        try:
            frame, descriptor = frame_of_call(self._number, call.message, copy)
        except (OSError, ValueError, TypeError, OverflowError) as error:
            self._not_sent(error)
        else:
            self._send(call.binding, frame, descriptor)

    def _not_sent(self, error: Exception) -> None:
        self._answer(Answer(error=error))
        self._loop.call_soon(self._go_on)

    def _send(self, binding: Binding, frame: bytearray, descriptor: int) -> None:
        child = self._child
        assert child is not None
        self._asked_at = time.perf_counter()  # the loop's own clock may count milliseconds
        self._deadline_seconds = binding.deadline_seconds
        self._timer = self._loop.call_later(self._deadline_seconds, self._is_late)
        child.send(frame, descriptor)

    def _is_late(self) -> None:
        self._kill(DeadlineExceeded(f"no answer within {self._deadline_seconds:g} s"))

    def _took(self) -> float:
        return time.perf_counter() - self._asked_at if self._current is not None and self._asked_at else 0.0

    def _answer(self, answer: Answer) -> None:
        current, self._current = self._current, None
        self._asked_at = 0.0
        if current is not None and not current.answer.done():
            current.answer.set_result(answer)

    # -- what it says --------------------------------------------------------------------------------

    def _readable(self) -> None:
        self._receive()

    def _receive(self) -> bool:
        """Take what is there; True when there may be more."""
        child = self._child
        if child is None or self._fault is not None or self._is_closed:
            return False
        try:
            octets = child.line.recv(RECEIVE_OCTETS)
        except BlockingIOError:
            return False
        except OSError:
            octets = b""
        if not octets:
            # Closed: it ends, or is made to. How it ended is known when it has.
            self._is_ending = True
            self._loop.remove_reader(child.line)
            child.kill()
            return False
        received = self._received
        received += octets
        head = wire.FRAME_HEAD.size
        if len(received) < head:
            return True
        size = wire.FRAME_HEAD.unpack_from(received)[0]
        if size > wire.ANSWER_LIMIT:
            self._kill(
                BadAnswer(f"its process announced {size} octets; an answer has at most {wire.ANSWER_LIMIT}")
            )
        elif len(received) > head + size:
            self._kill(BadAnswer("its process said more than one answer"))
        elif len(received) == head + size:
            frame = bytes(memoryview(received)[head:])
            received.clear()
            try:
                said = wire.decode_from_sink(frame)
            except (ValueError, RecursionError) as error:
                self._kill(BadAnswer(f"its process gave an answer that is none: {error}"))
            else:
                self._take(said)
        return True

    def _take(self, said: wire.FromSink) -> None:
        child = self._child
        assert child is not None
        # Who answers before the question is out has not read it.
        expected = self._number if self._asked_at and child.has_sent else -1
        match said:
            case wire.Declared() if not self._is_loaded:
                self._stop_timer()
                self._is_loaded = True
            case wire.NotLoaded(words) if not self._is_loaded:
                self._kill(HostDown(words))
                return
            case wire.Said(number, verdict) if number == expected:
                self._stop_timer()
                self._has_answered = True
                self._answer(Answer(verdict, took_seconds=self._took()))
            case wire.Raised(number, words, traceback, is_spent, is_nonsense) if number == expected:
                self._stop_timer()
                self._has_answered = True
                log.event(
                    "sink.raised",
                    LogLevel.WARNING,
                    id=_id_of(self._current.call) if self._current is not None else "",
                    binding=self.binding.name,
                    words=words,
                    traceback=traceback,
                )
                error = (SinkReturned if is_nonsense else SinkRaised)(words)
                self._answer(Answer(error=error, took_seconds=self._took()))
                if is_spent:
                    self._kill(BadAnswer(words))
                    return
            case _:
                self._kill(BadAnswer("its process said what it was not asked"))
                return
        self._go_on()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _id_of(call: Call | Question | HopCall) -> str:
    """Of the message, or of the session where there is none yet."""
    match call:
        case Call(message=message):
            return message.id
        case Question(session=session):
            return session.id
        case HopCall(hop=hop):
            return hop.id
