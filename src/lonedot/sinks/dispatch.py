"""Dispatch: call the sinks of an event in order, judge what each returns, and write the ledger.

Rules a change here must keep:
1. A sink's edits are applied here and nowhere else; what is applied passed the guard, or is the repair of it.
2. Every sink that was called has an entry, also when it changed nothing, was undone, or failed.
3. An entry is atomic: its edits and its verdict stand or fall together. A `Stop` whose edits were undone stops nothing,
   or a damaged result would keep the scanner behind it from being asked. A `Hold` stands: nothing is lost by it.
4. A sink that fails never loses a message: the binding's `on_error` decides, and the entry says what happened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from lonedot.message.content import Content
from lonedot.message.ledger import Action, Entry
from lonedot.sinks.bindings import Binding, Isolation, Mode, is_folded
from lonedot.sinks.calls import (
    Answer,
    Apart,
    Asking,
    Call,
    Decision,
    Dispatched,
    Ended,
    NotAsked,
    NotAwaited,
    Steps,
    call_inline,
)
from lonedot.sinks.copying import Place, live_in_copies, may_differ
from lonedot.sinks.entries import entry_of
from lonedot.sinks.events import Event
from lonedot.sinks.hop import Departure
from lonedot.sinks.judge import take
from lonedot.sinks.redirect import route_of, take_routed
from lonedot.sinks.shadow import SHADOW_CALLS, SHADOW_SECONDS, insert_shadows, shadowed
from lonedot.sinks.verdicts import Stop
from lonedot.sinks.view import Message
from lonedot.spool.interface import Facts
from lonedot.terms.clock import Clock
from lonedot.terms.envelope import Envelope

__all__ = ["advance", "ask_shadows", "dispatch", "dispatch_with", "steps"]

_NO_TIME_LEFT = "not asked: the other shadows took all the time that a message waits"


def steps(
    id: str,
    envelope: Envelope,
    facts: Facts,
    content: Content,
    bindings: Sequence[Binding],
    clock: Clock,
    departure: Departure | None = None,
    scope: tuple[int, ...] = (),
    *,
    routes: frozenset[str] | None = None,
    until_custody: bool = False,
) -> Steps:
    """The chain without the calls: yields each call that is due and is sent its answer.

    Who drives it decides how a sink is called: here, in a thread, in a process of its own. Every binding whose rule
    matches is called, in the order given; the rule is asked of the envelope as it stands when the binding's turn comes.
    Bindings of several events stand one event behind the other: a `Stop` ends its own event only.

    Bindings in shadow are called last, when everything is decided, each with the message as it stood at its place.

    `departure` is what a delivery event shows besides; there no binding splits, and `scope` are the numbers of the
    recipients that are concerned. A sink may redirect to `routes` only (None: whatever it says). With `until_custody`
    the chain ends before the first binding that is not called before the acceptance, and says which.
    """
    places: list[Place] = []
    decided = yield from _live(
        id, envelope, facts, content, bindings, clock, places, departure, scope, routes, until_custody
    )
    if not places or decided.decision in (Decision.REJECT, Decision.DEFER):
        return decided  # what is refused has no ledger
    shadows = yield from ask_shadows(places, facts, clock)
    return msgspec.structs.replace(decided, entries=insert_shadows(decided.entries, shadows))


def ask_shadows(places: Sequence[Place], facts: Facts, clock: Clock) -> Asking[list[tuple[int, Entry]]]:
    """The entries of bindings in shadow, each with its place among the live ones."""
    shadows: list[tuple[int, Entry]] = []
    spent = 0.0
    for place in places[:SHADOW_CALLS]:
        if spent < SHADOW_SECONDS:
            answer = yield place.call
            spent += answer.took_seconds
        else:
            answer = Answer(error=NotAsked(_NO_TIME_LEFT))
        binding, seen = place.call.binding, place.call.message
        verdict, taken = take(binding, answer, seen.content, seen.envelope)
        entry = entry_of(binding, facts, verdict, taken, seen.content, clock.now(), answer.took_seconds)
        entry = msgspec.structs.replace(entry, scope=place.scope)
        shadows.append((place.number, shadowed(entry)))
    return shadows


def _live(
    id: str,
    envelope: Envelope,
    facts: Facts,
    content: Content,
    bindings: Sequence[Binding],
    clock: Clock,
    places: list[Place],
    departure: Departure | None,
    scope: tuple[int, ...],
    routes: frozenset[str] | None,
    until_custody: bool,
) -> Steps:
    """The bindings that count. Puts those in shadow into `places`."""
    if may_differ(envelope, bindings):
        return (
            yield from live_in_copies(
                id, envelope, facts, content, bindings, clock, places, routes, until_custody
            )
        )
    entries: list[Entry] = []
    stopped: Event | None = None
    route = ""
    for number, binding in enumerate(bindings):
        if binding.event is stopped:
            continue
        if binding.rule is not None and not binding.rule.matches(envelope, facts.helo):
            continue
        if until_custody and not is_folded(binding):
            return _ended(Decision.ACCEPT, content, envelope, entries, route, number)
        message = Message(
            id, envelope, facts, content, binding.settings, binding.guid, scope, departure, binding.reads_body
        )
        call = Call(binding, message)
        if binding.mode is Mode.SHADOW:
            places.append(Place(len(entries), call))
            continue
        answer = yield call
        verdict, taken = take_routed(binding, answer, content, envelope, routes)
        entries.append(entry_of(binding, facts, verdict, taken, content, clock.now(), answer.took_seconds))
        content, envelope = taken.content, taken.envelope
        route = route_of(taken) or route
        decision = taken.decision
        if decision is not Decision.ACCEPT:
            rest = number + 1 if number + 1 < len(bindings) else -1
            ended = _ended(decision, content, envelope, entries, route, rest)
            return msgspec.structs.replace(
                ended,
                words=taken.words,
                code=taken.code,
                enhanced=taken.enhanced,
                binding=binding.name,
            )
        if isinstance(verdict, Stop) and taken.action is not Action.UNDONE:
            stopped = binding.event
    return _ended(Decision.ACCEPT, content, envelope, entries, route)


def _ended(
    decision: Decision,
    content: Content,
    envelope: Envelope,
    entries: Sequence[Entry],
    route: str,
    rest: int = -1,
) -> Dispatched:
    redirects = tuple([(number, route) for number in range(len(envelope.recipients))]) if route else ()
    return Dispatched(decision, content, envelope, tuple(entries), redirects=redirects, rest=rest)


def dispatch(
    id: str,
    envelope: Envelope,
    facts: Facts,
    content: Content,
    bindings: Sequence[Binding],
    clock: Clock,
    routes: frozenset[str] | None = None,
    until_custody: bool = False,
) -> Dispatched:
    """Drive the chain with every sink called right here (isolation `inline`)."""
    chain = steps(id, envelope, facts, content, bindings, clock, routes=routes, until_custody=until_custody)
    try:
        call = next(chain)
        while True:
            call = chain.send(call_inline(call))
    except StopIteration as end:
        dispatched: Dispatched = end.value
        return dispatched


def advance(chain: Asking[Ended], answer: Answer | None = None) -> Call | Ended:
    """Go on until the chain has ended or a sink is due that does not run here. The first step has no answer."""
    try:
        call = next(chain) if answer is None else chain.send(answer)
        while call.binding.isolation is Isolation.INLINE:
            call = chain.send(call_inline(call))
    except StopIteration as end:
        ended: Ended = end.value
        return ended
    return call


async def dispatch_with(
    chain: Asking[Ended], step: Call | Ended | None, apart: Apart, in_thread: bool
) -> Ended:
    """Drive the chain to its end, on from `step` (None: from the start); `apart` calls the sinks that run elsewhere.

    `in_thread`: inline sinks and the guard work in a thread, because the body is large.
    """
    loop = asyncio.get_running_loop()
    answer: Answer | None = None
    left = SHADOW_SECONDS
    while True:
        if step is not None and not isinstance(step, Call):
            return step
        if step is not None and step.binding.mode is Mode.SHADOW:
            began = loop.time()
            answer = await _in_time(step, apart, left)
            left -= loop.time() - began
        elif step is not None:
            answer = await apart(step)
        step = (
            await loop.run_in_executor(None, advance, chain, answer) if in_thread else advance(chain, answer)
        )


async def _in_time(call: Call, apart: Apart, seconds: float) -> Answer:
    """A shadow is not waited for any longer: what it would have said is lost, and no mail is."""
    if seconds <= 0:
        return Answer(error=NotAsked(_NO_TIME_LEFT))
    try:
        async with asyncio.timeout(seconds):
            return await apart(call)
    except TimeoutError:
        words = f"no answer after {seconds:.2g} s; a message does not wait longer for a shadow"
        return Answer(error=NotAwaited(words), took_seconds=seconds)
