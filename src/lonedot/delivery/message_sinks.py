"""What the sinks of delivery events are asked about a message: one chain, driven here or beside the loop.

Rules: judged as at any other event (guard, reduce to intent, `on_damage`, `on_error`); an attempt keeps the bindings
it began with; a sink is shown the recipients that are concerned and nobody else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Sequence
from functools import partial
from typing import TypeVar

import msgspec

from lonedot.delivery.form import Form
from lonedot.message.content import Content
from lonedot.sinks.bindings import Binding, Chains, Mode
from lonedot.sinks.calls import Answer, Apart, Call, Dispatched, Failure
from lonedot.sinks.dispatch import advance, dispatch_with, steps
from lonedot.sinks.events import Event
from lonedot.sinks.hop import Departure
from lonedot.sinks.inquiry import HopCall
from lonedot.spool.interface import Facts, Stored
from lonedot.terms.clock import Clock
from lonedot.terms.envelope import Envelope

__all__ = ["NO_CHAINS", "Asking", "Elsewhere", "MessageSinks", "nobody_elsewhere", "to_end"]

Elsewhere = Callable[[Call | HopCall], Awaitable[Answer]]
"""Calls a sink that does not run here, with a message or with a next hop. It raises only when it is cancelled."""

Asking = Generator[Awaitable[Dispatched], Dispatched, Dispatched]
"""Gives what must be waited for, is sent what came of it, and returns what the chain says."""

NO_CHAINS = Chains()

S = TypeVar("S")
T = TypeVar("T")


async def nobody_elsewhere(call: Call | HopCall) -> Answer:
    """Where there are no processes: a sink that asks for one fails."""
    return Answer(error=Failure("it runs in a process, and there is none"))


async def to_end(
    making: Generator[Awaitable[S], S, T], waited: Awaitable[S], is_over: Callable[[], bool]
) -> T | None:
    """Drive a generator that gives what must be waited for; None when `is_over` says that nobody wants it any more."""
    while True:
        go_on: Callable[[], Awaitable[S]]
        try:
            go_on = partial(making.send, await waited)
        except Exception as error:  # for the generator to judge
            go_on = partial(making.throw, error)
        if is_over():
            making.close()
            return None
        try:
            waited = go_on()
        except StopIteration as end:
            made: T = end.value
            return made


class MessageSinks:
    """The delivery events of one virtual server, as they were bound at one moment."""

    def __init__(self, chains: Chains, elsewhere: Apart, clock: Clock) -> None:
        self._bound = chains.delivery or {}
        self._signers = chains.signers
        self._revision = chains.revision
        self._routes = chains.routes
        self._elsewhere = elsewhere
        self._clock = clock

    def at(self, event: Event) -> tuple[Binding, ...]:
        """Those bound to the event, in firing order."""
        return self._bound.get(event, ())

    @property
    def signers(self) -> tuple[Binding, ...]:
        """Those of `message-start` that sign: they stand last in `at`."""
        return self._signers

    @property
    def editors(self) -> tuple[Binding, ...]:
        """The others of `message-start`."""
        bound = self.at(Event.MESSAGE_START)
        return bound[: len(bound) - len(self._signers)]

    def will_sign(self, shown: Envelope, helo: str) -> bool:
        """Some live binding signs a message with that envelope."""
        return any(
            binding.mode is Mode.LIVE and (binding.rule is None or binding.rule.matches(shown, helo))
            for binding in self._signers
        )

    def ask(
        self,
        stored: Stored,
        shown: Envelope,
        form: Form,
        departure: Departure,
        scope: Sequence[int],
        bound: tuple[Binding, ...] | None = None,
    ) -> Asking:
        """Ask those of the departure's event (or some of them) about a copy, for the recipients of numbers `scope`."""
        in_thread = not form.facts.at_hand
        return self.ask_about(
            stored.id, stored.facts, shown, form.content, departure, scope, in_thread, bound
        )

    def ask_about(
        self,
        id: str,
        facts: Facts,
        shown: Envelope,
        content: Content,
        departure: Departure,
        scope: Sequence[int] = (),
        in_thread: bool = False,
        bound: tuple[Binding, ...] | None = None,
    ) -> Asking:
        """As `ask`, of any message."""
        if self._revision:
            facts = msgspec.structs.replace(facts, revision=self._revision)
        if bound is None:
            bound = self.at(departure.event)
        chain = steps(
            id, shown, facts, content, bound, self._clock, departure, tuple(scope), routes=self._routes
        )
        if in_thread:
            return (yield dispatch_with(chain, None, self._elsewhere, True))
        step = advance(chain)
        if isinstance(step, Dispatched):
            return step
        return (yield dispatch_with(chain, step, self._elsewhere, False))
