"""The chain of a message whose copies may differ by recipient: a binding that splits is called for each recipient, any
other for each copy. `ask_copies` is the turn of one binding; before the acceptance and after it, it is the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from lonedot.message.content import Content
from lonedot.message.edits import Effect
from lonedot.message.ledger import Action
from lonedot.sinks.bindings import Binding, Mode, is_folded
from lonedot.sinks.calls import (
    Answer,
    Asking,
    Call,
    Decision,
    Dispatched,
    Failure,
    NotSplit,
    Steps,
    words_kept,
)
from lonedot.sinks.copies import COPIES_LIMIT, Copies, Copy, Outcome
from lonedot.sinks.entries import entry_of
from lonedot.sinks.judge import Taken, failed
from lonedot.sinks.redirect import route_of, take_routed
from lonedot.sinks.standing import Fault
from lonedot.sinks.verdicts import Stop, Verdict
from lonedot.sinks.view import Message
from lonedot.spool.interface import Facts
from lonedot.terms.clock import Clock
from lonedot.terms.envelope import Envelope

__all__ = [
    "FAILURES_LIMIT",
    "Place",
    "Said",
    "ask_copies",
    "live_in_copies",
    "may_differ",
    "said_for",
    "turns_of",
]

NO_ROOM = "the copies of this message take too much room"
FAILURES_LIMIT = 3
"""Failures of a binding in one message after which it is not called for further copies of it."""


Said = tuple[tuple[int, ...], Taken]
"""Numbers of recipients, and what a sink says of their copy."""


class Place(msgspec.Struct, frozen=True):
    """Where a binding in shadow stands."""

    number: int
    """Live entries before it."""
    call: Call
    scope: tuple[int, ...] = ()


def may_differ(envelope: Envelope, bindings: Sequence[Binding]) -> bool:
    """Some binding splits, and there are several recipients, or may be."""
    for binding in bindings:
        if binding.split:
            return len(envelope.recipients) > 1 or any(Effect.ENVELOPE in one.effects for one in bindings)
    return False


def live_in_copies(
    id: str,
    envelope: Envelope,
    facts: Facts,
    content: Content,
    bindings: Sequence[Binding],
    clock: Clock,
    places: list[Place],
    routes: frozenset[str] | None = None,
    until_custody: bool = False,
) -> Steps:
    """As `_live`, where a binding splits: it is called for each recipient, any other for each copy."""
    copies = Copies(envelope, content)
    shadows: list[Place] = []
    for number, binding in enumerate(bindings):
        if until_custody and not is_folded(binding) and turns_of(binding, copies, facts):
            return _decided(None, copies, shadows, places, content, "", number)
        everybody = len(copies.members)
        said = yield from ask_copies(binding, copies, id, facts, clock, shadows, facts.revision, routes)
        copies.discard([one for who, taken in said if taken.decision is Decision.DISCARD for one in who])
        verdict_of_all = _of_all(said, everybody, copies)
        if verdict_of_all is not None:
            rest = number + 1 if number + 1 < len(bindings) else -1
            return _decided(verdict_of_all, copies, shadows, places, content, binding.name, rest)
    return _decided(None, copies, shadows, places, content, "")


def ask_copies(
    binding: Binding,
    copies: Copies,
    id: str,
    facts: Facts,
    clock: Clock,
    shadows: list[Place],
    revision: str,
    routes: frozenset[str] | None = None,
) -> Asking[list[Said]]:
    """The turn of one binding: it is called for every copy that it is for, and what it says is booked.

    One in shadow is not called; its places go into `shadows`, with scopes that are numbers in `copies`. The first that
    defers ends the turn.
    """
    booked = msgspec.structs.replace(facts, revision=revision) if revision != facts.revision else facts
    said: list[Said] = []
    failures = 0
    everybody = len(copies.members)
    for copy, whom in turns_of(binding, copies, facts):
        turns = whom
        shown = [
            Message(
                id,
                copies.shown(who),
                facts,
                copy.content,
                binding.settings,
                binding.guid,
                who if len(who) < everybody else (),
                reads_body=binding.reads_body,
            )
            for who in turns
        ]
        if binding.mode is Mode.SHADOW:
            calls = zip(turns, shown, strict=True)
            shadows += [Place(len(copies.entries), Call(binding, message), who) for who, message in calls]
            continue
        not_called = ""
        if binding.split and len(turns) + len(copies.copies) - 1 > COPIES_LIMIT:
            not_called = f"{len(turns)} recipients; it is called for no more than {COPIES_LIMIT}"
            turns = [tuple(number for who in turns for number in who)]
        outcomes: list[Outcome] = []
        after: Envelope | None = None
        for who, message in zip(turns, shown, strict=False):
            if failures >= FAILURES_LIMIT and not not_called:
                not_called = f"it failed for {FAILURES_LIMIT} copies of this message before"
            if not_called:
                answer = Answer(error=NotSplit(f"not called: {not_called}"))
            else:
                answer = yield Call(binding, message)
            verdict, taken = take_routed(binding, answer, copy.content, message.envelope, routes)
            if binding.split:
                verdict, taken = _kept_apart(binding, verdict, taken, copy, copies, message.envelope)
                if copies.is_exhausted:
                    not_called = NO_ROOM
            failures += answer.error is not None
            entry = entry_of(binding, booked, verdict, taken, copy.content, clock.now(), answer.took_seconds)
            stops = isinstance(verdict, Stop) and taken.action is not Action.UNDONE
            stopped = binding.event if stops else copy.stopped
            outcomes.append(Outcome(who, entry, taken.content, stopped))
            said.append((who, taken))
            if route := route_of(taken):
                copies.redirect(who, route)
            if taken.envelope != message.envelope:
                after = taken.envelope
            if taken.decision is Decision.DEFER:
                break
        place = copies.copies.index(copy)
        copies.settle(copy, outcomes)
        if after is not None:
            copies.readdress(copies.copies[place], after)
        if said[-1][1].decision is Decision.DEFER:
            break
    return said


def turns_of(binding: Binding, copies: Copies, facts: Facts) -> list[tuple[Copy, list[tuple[int, ...]]]]:
    """Whom a binding is to be called for, copy by copy, in the order of their recipients."""
    turns: list[tuple[Copy, list[tuple[int, ...]]]] = []
    for copy in sorted(copies.copies, key=lambda one: one.members):
        whom = [] if copy.stopped is binding.event else _turns(binding, copy, copies, facts)
        if whom:
            turns.append((copy, whom))
    return turns


def _turns(binding: Binding, copy: Copy, copies: Copies, facts: Facts) -> list[tuple[int, ...]]:
    """Whom in a copy: each recipient apart when it splits, else all at once."""
    rule = binding.rule
    groups = [(number,) for number in copy.members] if binding.split else [copy.members]
    return [who for who in groups if who and (rule is None or rule.matches(copies.shown(who), facts.helo))]


def _kept_apart(
    binding: Binding,
    verdict: Verdict | None,
    taken: Taken,
    copy: Copy,
    copies: Copies,
    shown: Envelope,
) -> tuple[Verdict | None, Taken]:
    """What a call for one recipient may leave behind: a copy, when there is room for it, and the envelope as it was."""
    if taken.envelope != shown:
        words = "a binding that splits does not edit the envelope: the copies of a message have one"
        return None, failed(binding, Failure(words), copy.content, shown, Fault.VIOLATION)
    if taken.changes and not copies.has_room(taken.content, copy.content):
        error = NotSplit(NO_ROOM)
        return None, failed(binding, error, copy.content, shown, None)
    return verdict, taken


def _of_all(said: Sequence[Said], everybody: int, copies: Copies) -> Taken | None:
    """What the calls of one binding say of the message as a whole; None: it goes on.

    A client hears one reply, and custody holds a message whole. So one that defers defers all; a refusal is one only
    when nobody is left, else the message is held, as it is when a sink says so for one recipient.
    """
    refused: set[int] = set()
    stays: Said | None = None
    first: Taken | None = None
    gone: Taken | None = None
    for who, taken in said:
        match taken.decision:
            case Decision.DEFER:
                return taken
            case Decision.REJECT:
                refused.update(who)
                first = first or taken
                stays = stays or (who, taken)
            case Decision.HOLD:
                stays = stays or (who, taken)
            case Decision.DISCARD:
                gone = gone or taken
            case Decision.ACCEPT:
                pass
    left = copies.members
    if gone is not None and not left:
        return gone
    if first is not None and refused >= left:
        return first
    if stays is None:
        return None
    who, taken = stays
    words = said_for(taken.words, who, everybody, copies)
    return msgspec.structs.replace(taken, decision=Decision.HOLD, words=words)


def said_for(words: str, who: Sequence[int], everybody: int, copies: Copies) -> str:
    """Words for the message as a whole, where they were said of some recipients of `everybody`."""
    if len(who) >= everybody:
        return words
    others = f" and {len(who) - 1} more" if len(who) > 1 else ""
    return words_kept(f"{words} (said of the copy for {copies.address(who[0])}{others})")


def _decided(
    taken: Taken | None,
    copies: Copies,
    shadows: Sequence[Place],
    places: list[Place],
    content: Content,
    binding: str,
    rest: int = -1,
) -> Dispatched:
    """The end of a chain in copies."""
    places += [msgspec.structs.replace(place, scope=copies.scope_of(place.scope)) for place in shadows]
    copied = copies.copied()
    return Dispatched(
        Decision.ACCEPT if taken is None else taken.decision,
        copied[0].content if copied else content,
        copies.envelope(),
        copies.ledger(),
        "" if taken is None else taken.words,
        0 if taken is None else taken.code,
        "" if taken is None else taken.enhanced,
        binding,
        copied,
        copies.discarded(),
        copies.redirects(),
        rest,
    )
