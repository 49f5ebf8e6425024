"""The worker's side of the watch over inline sinks: each call is noted on the board that the parent looks at.

A binding is wrapped when it comes into force. Without a parent, or for a sink in a process of its own, nothing is paid.
A note costs less than a microsecond and no system call.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Generator, Iterable
from typing import cast

import msgspec

from lonedot.sinks.bindings import Binding, Isolation, SinkCall
from lonedot.sinks.board import SINCE, SINCE_OFFSET, SLOT, SLOT_PLACES, Board
from lonedot.sinks.verdicts import Verdict
from lonedot.sinks.view import Message

__all__ = ["Watch"]


class Watch:
    """The worker's side: notes which sink runs."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self._free = list(reversed(SLOT_PLACES))

    def over(self, bindings: Iterable[Binding]) -> tuple[Binding, ...]:
        """The same bindings, with those watched whose sinks run in this process."""
        return tuple(
            [
                binding
                if binding.isolation is Isolation.PROCESS
                else msgspec.structs.replace(
                    binding,
                    call=self._watched_task(binding)
                    if binding.isolation is Isolation.TASK
                    else self._watched(binding),
                )
                for binding in bindings
            ]
        )

    def _watched(self, binding: Binding) -> SinkCall:
        call, deadline = binding.call, binding.deadline_seconds
        who = binding.guid.encode() + b"\0" + binding.name.encode("utf-8", "replace")
        shared, free = self.board.shared, self._free
        fill, set_since, now = SLOT.pack_into, SINCE.pack_into, time.monotonic

        def watched(message: Message) -> Verdict:
            # `pop` and `append` of a list are whole steps: no lock is needed between threads.
            try:
                place = free.pop()
            except IndexError:
                return call(message)
            fill(shared, place, who, deadline, message.id.encode(), now())
            try:
                verdict = call(message)
                edits = getattr(verdict, "edits", ())
                if edits.__class__ is tuple or edits.__class__ is list:
                    return verdict
                return _gone_through(verdict)
            finally:
                set_since(shared, place + SINCE_OFFSET, 0.0)
                free.append(place)

        return watched

    def _watched_task(self, binding: Binding) -> SinkCall:
        """Each step of the coroutine is noted, not the time in which it waits."""
        call = cast("Callable[[object], Awaitable[object]]", binding.call)
        deadline, shared, free = binding.deadline_seconds, self.board.shared, self._free
        who = binding.guid.encode() + b"\0" + binding.name.encode("utf-8", "replace")
        fill, set_since, now = SLOT.pack_into, SINCE.pack_into, time.monotonic

        def noted(step: Callable[[object], object], value: object, id: bytes) -> object:
            try:
                place = free.pop()
            except IndexError:
                return step(value)
            fill(shared, place, who, deadline, id, now())
            try:
                return step(value)
            finally:
                set_since(shared, place + SINCE_OFFSET, 0.0)
                free.append(place)

        async def watched(shown: object) -> object:
            id = str(getattr(shown, "id", "")).encode()

            def begun(_: object) -> object:
                return call(shown).__await__()

            return await _Stepped(begun, noted, id)

        return cast(SinkCall, watched)


class _Stepped:
    """Awaited, it goes through a coroutine step by step, each within `noted`."""

    def __init__(
        self,
        begun: Callable[[object], object],
        noted: Callable[[Callable[[object], object], object, bytes], object],
        id: bytes,
    ) -> None:
        self._begun, self._noted, self._id = begun, noted, id

    def __await__(self) -> Generator[object, object, object]:
        noted, id = self._noted, self._id
        steps = cast("Generator[object, object, object]", noted(self._begun, None, id))
        step: Callable[[object], object] = steps.send
        value: object = None
        while True:
            try:
                waits_for = noted(step, value, id)
            except StopIteration as end:
                return end.value
            try:
                value = yield waits_for
            except GeneratorExit:
                steps.close()
                raise
            except BaseException as error:  # also its cancellation
                step, value = cast("Callable[[object], object]", steps.throw), error
            else:
                step = steps.send


def _gone_through(verdict: Verdict) -> Verdict:
    """Edits may come from a generator, which is the sink's code too: it runs while the watch looks.

    Raises:
        Exception: what that code raises, or TypeError when they are no edits at all.
    """
    return msgspec.structs.replace(verdict, edits=tuple(getattr(verdict, "edits", ())))
