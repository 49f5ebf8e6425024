"""The sinks of a message in custody: called one after the other, each committed before the next, then it is delivered.

Rules: a message that stays in memory meets the bindings with which it began; one that was put off, held, or found at
the start of the relay meets those in force. Nobody is asked twice for what is committed, and whoever is asked again is
asked under the same key. What a sink puts off is asked again by a schedule of its own, until a message would expire.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from typing import Protocol

import msgspec

from lonedot.delivery.resolve import NotResolved, Resolver
from lonedot.message.content import Content, FileBody
from lonedot.message.encode import StoredAltered
from lonedot.message.fold import FoldFault
from lonedot.message.ledger import Action, Entry
from lonedot.queue.plan import Report, ReportKind, refuse
from lonedot.queue.retry import RetrySchedule
from lonedot.queue.transport import Step
from lonedot.sinks.bindings import Binding, Chains
from lonedot.sinks.calls import Apart, Asking, Decision, Ended
from lonedot.sinks.dispatch import dispatch_with
from lonedot.sinks.transit import (
    RESOLVED,
    Leg,
    Refused,
    Transit,
    bindings_left,
    parted_at_resolve,
    progress_behind,
)
from lonedot.spool.interface import (
    Claim,
    ContentDamaged,
    MessageState,
    Progress,
    RecipientState,
    RecipientStatus,
    Stored,
)
from lonedot.spool.rows import current_envelope, joined_ledger
from lonedot.terms.clock import Clock
from lonedot.terms.ids import MessageId
from lonedot.terms.outcome import Outcome, Result, Stage

__all__ = ["SCHEDULE", "Transport", "TransportObserver"]

SCHEDULE = RetrySchedule(minutes=(1, 5, 10, 30, 60))
"""When a sink that put a message off is asked again; it is held when that schedule gives up."""
MANY_RECIPIENTS = 20
"""Beyond this number the sinks that run here work in a thread: they may be called for each."""
CHAINS_KEPT = 16
"""Older bindings that are remembered for messages which began with them."""
WORDS_LIMIT = 500


class TransportObserver(Protocol):
    """Is told what sinks did. Must not raise."""

    def sunk(self, id: MessageId, entries: tuple[Entry, ...]) -> None: ...

    def transported(self, id: MessageId, step: Step) -> None: ...


class Transport:
    """Satisfies `queue.transport.Preparer`. One per worker."""

    def __init__(
        self,
        chains_of_server: Callable[[int], Chains | None],
        content_of: Callable[[MessageId], Content],
        elsewhere: Apart,
        observer: TransportObserver,
        clock: Clock,
        jitter: Callable[[], float] = random.random,
        resolver: Resolver | None = None,
    ) -> None:
        """`chains_of_server` gives the bindings in force (None: there is no such server any more), `content_of` is
        `Spool.content`. Without a `resolver` every recipient stays what it is.
        """
        self.resolver = resolver
        self._chains_of_server = chains_of_server
        self._content_of = content_of
        self._elsewhere = elsewhere
        self._observer = observer
        self._clock = clock
        self._jitter = jitter
        self._kept: dict[tuple[int, str], Chains] = {}

    def keep(self, server: int, chains: Chains) -> None:
        """A message was accepted that is still to meet some of these."""
        key = server, chains.revision
        if self._kept.get(key) is not chains:
            self._kept.pop(key, None)
            self._kept[key] = chains
            while len(self._kept) > CHAINS_KEPT:
                del self._kept[next(iter(self._kept))]

    async def prepare(self, claim: Claim) -> AsyncGenerator[Step, None]:
        """See `Preparer`.

        Raises:
            SpoolFault, OSError, NoSuchMessage: its octets cannot be read now.
        """
        stored = claim.message
        progress = stored.transport or Progress()
        chains = self._chains_for(stored, progress)
        if chains is None:
            words = f"the virtual server {stored.facts.server} that took it is no more, and so are its sinks"
            yield self._told(_held(stored, progress, words))
            return
        try:
            left = bindings_left(chains, stored.facts, progress)
            arrival = claim.arrival or self._content_of(stored.id)
            behind: tuple[Binding, ...] = ()
            if progress.resolves:
                left, behind = parted_at_resolve(left)
            transit = await self._resumed(stored, arrival, left, chains, _in_thread(stored, arrival))
        except (ContentDamaged, StoredAltered, FoldFault, ValueError, FileNotFoundError) as error:
            words = f"the stored octets are not those that were accepted: {error}"
            yield self._told(_held(stored, progress, words))
            return
        async for step in self._walk(stored, transit, _in_thread(stored, arrival), progress):
            stored = step.message
            yield step
            if step.gives_back:
                return
        if not progress.resolves:
            return
        step = await self._resolve(stored, arrival, stored.transport or progress, behind)
        yield step
        if step.gives_back or not behind:
            return
        stored = step.message
        transit = await self._resumed(stored, arrival, behind, chains, _in_thread(stored, arrival))
        async for step in self._walk(stored, transit, _in_thread(stored, arrival), RESOLVED):
            yield step

    async def _resolve(
        self, stored: Stored, arrival: Content, progress: Progress, behind: tuple[Binding, ...]
    ) -> Step:
        """Aliases and lists become what they lead to. What cannot be worked out now is tried again later."""
        after = msgspec.structs.replace(RESOLVED, waits_for=behind[0].name) if behind else None
        if self.resolver is None:
            return Step(msgspec.structs.replace(stored, transport=after))
        try:
            resolved = await self.resolver.resolve(stored, arrival, after)
        except NotResolved as error:
            if error.is_held:
                return self._told(_held(stored, progress, str(error)))
            return self._told(self._again(stored, progress, "resolve", str(error), ()))
        self._observer.sunk(stored.id, resolved.entries)
        recipients = {state.index: state for state in (*stored.recipients, *resolved.recipients)}
        everybody = tuple([recipients[number] for number in sorted(recipients)])
        is_over = not any(state.status is RecipientStatus.WAITING for state in everybody)
        message = _after(stored, resolved.entries, everybody, None if is_over else after)
        reports = []
        if resolved.failed:
            reports.append(Report(ReportKind.FAILURE, resolved.failed))
        if resolved.succeeded:
            reports.append(Report(ReportKind.SUCCESS, resolved.succeeded))
        return Step(
            message,
            resolved.entries,
            resolved.recipients,
            tuple(reports),
            spawned=resolved.spawned,
            gives_back=is_over,
        )

    async def _walk(
        self, stored: Stored, transit: Transit, in_thread: bool, progress: Progress
    ) -> AsyncGenerator[Step, None]:
        """The turns of the bindings of a transit. When it still `resolves`, the transport goes on behind them."""
        resolves = progress.resolves
        binding = transit.next()
        while binding is not None:
            leg = await self._drive(transit.leg(), in_thread)
            self._observer.sunk(stored.id, leg.entries)
            if leg.decision is Decision.DEFER:
                yield self._told(self._put_off(stored, progress, binding, leg))
                return
            following = transit.next()
            states, reports = _refused(leg.refused, transit)
            waits_for = "resolve" if resolves else ""
            progress = progress_behind(binding, waits_for if following is None else following.name)
            progress = msgspec.structs.replace(progress, resolves=resolves)
            is_last = (
                not resolves
                and following is None
                and (leg.decision is Decision.HOLD or not transit.has_shadows)
            )
            stored = _after(stored, leg.entries, transit.recipients, None if is_last else progress)
            step = Step(stored, leg.entries, _both(leg.recipients, states), reports)
            if leg.decision is Decision.HOLD:
                yield self._told(_given_back(step, MessageState.HELD, leg.words))
                return
            if not any(state.status is RecipientStatus.WAITING for state in stored.recipients):
                yield msgspec.structs.replace(
                    step, message=msgspec.structs.replace(stored, transport=None), gives_back=True
                )
                return
            yield step
            if is_last:
                return
            binding = following
        if resolves and not transit.has_shadows:
            return
        entries: tuple[Entry, ...] = ()
        if transit.has_shadows:
            entries = await self._drive(transit.ask_shadows(), in_thread)
            self._observer.sunk(stored.id, entries)
        yield Step(_after(stored, entries, transit.recipients, progress if resolves else None), entries)

    def _chains_for(self, stored: Stored, progress: Progress) -> Chains | None:
        server = stored.facts.server
        if not progress.was_given_back:
            kept = self._kept.get((server, stored.facts.revision))
            if kept is not None:
                return kept
        return self._chains_of_server(server)

    async def _resumed(
        self, stored: Stored, arrival: Content, left: tuple[Binding, ...], chains: Chains, in_thread: bool
    ) -> Transit:
        arguments = stored, arrival, left, self._clock, chains.revision, chains.routes
        if not in_thread:
            return Transit(*arguments)
        return await asyncio.get_running_loop().run_in_executor(None, Transit, *arguments)

    async def _drive(self, asking: Asking[Ended], in_thread: bool) -> Ended:
        return await dispatch_with(asking, None, self._elsewhere, in_thread)

    def _told(self, step: Step) -> Step:
        self._observer.transported(step.message.id, step)
        return step

    def _put_off(self, stored: Stored, progress: Progress, binding: Binding, leg: Leg) -> Step:
        """The binding is asked again later; with the time of the message over, it is held."""
        last = stored.ledger[-1] if stored.ledger else None
        entries = leg.entries
        if last is not None and last.action is Action.DEFERRED and _alike(last, entries[0]):
            entries = ()  # as the last time: it is in the ledger once
        words = leg.words if leg.words.startswith(binding.name) else f"{binding.name}: {leg.words}"
        return self._again(stored, progress, binding.name, words, entries)

    def _again(
        self, stored: Stored, progress: Progress, waits_for: str, words: str, entries: tuple[Entry, ...]
    ) -> Step:
        now = self._clock.now()
        deferrals = progress.deferrals + 1
        progress = msgspec.structs.replace(
            progress,
            waits_for=waits_for,
            deferrals=deferrals,
            words=words[:WORDS_LIMIT],
            was_given_back=True,
        )
        again = SCHEDULE.next_at(deferrals, stored.accepted_at, now, self._jitter())
        if again is None:
            reason = f"{words}; it was put off for as long as a message is tried"
            after = _after(stored, entries, stored.recipients, progress)
            return Step(after, entries, state=MessageState.HELD, reason=reason, gives_back=True)
        later = tuple(
            [
                msgspec.structs.replace(state, next_at=again)
                for state in stored.recipients
                if state.status is RecipientStatus.WAITING
            ]
        )
        everybody = {state.index: state for state in stored.recipients}
        everybody.update((state.index, state) for state in later)
        after = _after(stored, entries, tuple(everybody.values()), progress)
        return Step(after, entries, later, gives_back=True)


def _in_thread(stored: Stored, arrival: Content) -> bool:
    return isinstance(arrival.body, FileBody) or len(stored.recipients) > MANY_RECIPIENTS


def _alike(one: Entry, other: Entry) -> bool:
    return (one.binding_id, one.event, one.words, one.scope) == (
        other.binding_id,
        other.event,
        other.words,
        other.scope,
    )


def _refused(
    refused: tuple[Refused, ...], transit: Transit
) -> tuple[tuple[RecipientState, ...], tuple[Report, ...]]:
    """The outcome of each recipient that was refused, and the report that tells the sender."""
    states: list[RecipientState] = []
    told: list[RecipientState] = []
    for one in refused:
        outcome = Outcome(Result.FAILED, Stage.LOCAL, one.words, status=one.enhanced)
        state, is_told = refuse(transit.recipients[one.number], outcome)
        states.append(state)
        if is_told:
            told.append(state)
    transit.settle(states)
    return tuple(states), (Report(ReportKind.FAILURE, tuple(told)),) if told else ()


def _both(
    changed: tuple[RecipientState, ...], decided: tuple[RecipientState, ...]
) -> tuple[RecipientState, ...]:
    """Each recipient once, in its last state."""
    states = {state.index: state for state in changed}
    states.update((state.index, state) for state in decided)
    return tuple(states.values())


def _after(
    stored: Stored,
    entries: tuple[Entry, ...],
    recipients: tuple[RecipientState, ...],
    progress: Progress | None,
) -> Stored:
    """The message as custody gives it back when this is durable."""
    return msgspec.structs.replace(
        stored,
        envelope=current_envelope(stored.envelope, entries, recipients),
        ledger=joined_ledger(stored.ledger + entries, recipients),
        recipients=recipients,
        transport=progress,
    )


def _held(stored: Stored, progress: Progress, words: str) -> Step:
    after = msgspec.structs.replace(stored, transport=progress)
    return _given_back(Step(after), MessageState.HELD, words)


def _given_back(step: Step, state: MessageState, words: str) -> Step:
    message = step.message
    if message.transport is not None:
        progress = msgspec.structs.replace(message.transport, was_given_back=True)
        message = msgspec.structs.replace(message, transport=progress)
    return msgspec.structs.replace(step, message=message, state=state, reason=words, gives_back=True)
