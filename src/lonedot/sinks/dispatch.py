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
import enum
import re
import time
from collections.abc import Awaitable, Callable, Generator, Sequence

import msgspec

from lonedot.message.content import Content
from lonedot.message.edits import AnyEdit, Effect, ReplaceMessage, lower
from lonedot.message.encode import NotCanonical, canonicalise
from lonedot.message.findings import Code, Finding, Part, Severity
from lonedot.message.fold import apply_changes, digests_of, fold_envelope
from lonedot.message.guard import inspect
from lonedot.message.intent import reduce
from lonedot.message.ledger import Action, Change, Entry, Transform
from lonedot.message.transforms.crlf import repair_line_ends
from lonedot.sinks.bindings import Binding, Isolation, Mode, OnDamage, OnError, Role
from lonedot.sinks.copies import COPIES_LIMIT, Copied, Copies, Copy, Outcome
from lonedot.sinks.events import Event
from lonedot.sinks.shadow import SHADOW_CALLS, SHADOW_SECONDS, insert_shadows, shadowed
from lonedot.sinks.standing import Fault
from lonedot.sinks.verdicts import Defer, Discard, Hold, Next, Reject, Stop, Verdict
from lonedot.sinks.view import Message
from lonedot.spool.interface import Facts
from lonedot.terms.clock import Clock
from lonedot.terms.envelope import Envelope

__all__ = [
    "Answer",
    "Call",
    "Decision",
    "Dispatched",
    "Steps",
    "call_inline",
    "check_reply",
    "dispatch",
    "steps",
    "words_kept",
]

_FAULTS = (Severity.DAMAGE, Severity.VIOLATION)
WORDS_LIMIT = 500
"""Signs of a sink's words that are kept."""


class Decision(enum.Enum):
    """What the chain as a whole says."""

    ACCEPT = "accept"
    HOLD = "hold"
    REJECT = "reject"
    DISCARD = "discard"
    DEFER = "defer"


class Dispatched(msgspec.Struct, frozen=True):
    """The message after the chain. With REJECT and DEFER nothing was taken."""

    decision: Decision
    content: Content
    envelope: Envelope
    entries: tuple[Entry, ...]
    words: str = ""
    """Why it is not simply accepted, for people."""
    code: int = 0
    """Reply code that a sink gave with its refusal; 0: the usual one."""
    enhanced: str = ""
    binding: str = ""
    """Who says so."""
    copies: tuple[Copied, ...] = ()
    """By recipient, when some binding splits; `content` is that of the first. Empty: all get the same."""
    discarded: tuple[int, ...] = ()
    """Numbers of recipients in the envelope that are to get nothing."""


class _Taken(msgspec.Struct, frozen=True):
    """One sink's result after judgement."""

    content: Content
    envelope: Envelope
    action: Action
    changes: tuple[Change, ...] = ()
    findings: tuple[Finding, ...] = ()
    words: str = ""
    attempted: Content | None = None
    decision: Decision = Decision.ACCEPT
    code: int = 0
    enhanced: str = ""
    fault: Fault | None = None


class _Place(msgspec.Struct, frozen=True):
    """Where a binding in shadow stands."""

    number: int
    """Live entries before it."""
    call: Call
    scope: tuple[int, ...] = ()


class Call(msgspec.Struct, frozen=True):
    """A sink that is to be called, and what it is to be shown."""

    binding: Binding
    message: Message


class Answer(msgspec.Struct, frozen=True):
    """What came of a call: what the sink returned, whatever that is, or why it returned nothing."""

    returned: object = None
    error: BaseException | None = None
    took_seconds: float = 0.0


class Failure(Exception):
    """Why a call has no result, in words that need no name of a type before them."""

    fault: Fault | None = Fault.RAISED
    """What is booked against the binding; None: it is not the sink's."""


class NotAwaited(Failure):
    """The time for shadows was over before it answered."""

    fault = Fault.DEADLINE


class NotAsked(Failure):
    """The time for shadows was over before its turn came."""

    fault = None


class NotSplit(Failure):
    """A sink was not called for some recipients, or the result could not be kept for them."""

    fault = None


NO_ROOM = "the copies of this message take too much room"
FAILURES_LIMIT = 3
"""Failures of a binding in one message after which it is not called for further copies of it."""

_NO_TIME_LEFT = "not asked: the other shadows took all the time that a message waits"

Steps = Generator[Call, Answer, Dispatched]
Apart = Callable[[Call], Awaitable[Answer]]
"""Calls a sink that does not run here. What goes wrong is an answer too; it raises only when it is cancelled."""


def steps(
    id: str,
    envelope: Envelope,
    facts: Facts,
    content: Content,
    bindings: Sequence[Binding],
    clock: Clock,
) -> Steps:
    """The chain without the calls: yields each call that is due and is sent its answer.

    Who drives it decides how a sink is called: here, in a thread, in a process of its own. Every binding whose rule
    matches is called, in the order given; the rule is asked of the envelope as it stands when the binding's turn comes.
    Bindings of several events stand one event behind the other: a `Stop` ends its own event only.

    Bindings in shadow are called last, when everything is decided, each with the message as it stood at its place.
    """
    places: list[_Place] = []
    decided = yield from _live(id, envelope, facts, content, bindings, clock, places)
    if not places or decided.decision in (Decision.REJECT, Decision.DEFER):
        return decided  # what is refused has no ledger
    shadows: list[tuple[int, Entry]] = []
    spent = 0.0
    for place in places[:SHADOW_CALLS]:
        if spent < SHADOW_SECONDS:
            answer = yield place.call
            spent += answer.took_seconds
        else:
            answer = Answer(error=NotAsked(_NO_TIME_LEFT))
        binding, seen = place.call.binding, place.call.message
        verdict, taken = _taken(binding, answer, seen.content, seen.envelope)
        entry = _entry(binding, facts, verdict, taken, seen.content, clock.now(), answer.took_seconds)
        entry = msgspec.structs.replace(entry, scope=place.scope)
        shadows.append((place.number, shadowed(entry)))
    return msgspec.structs.replace(decided, entries=insert_shadows(decided.entries, shadows))


def _live(
    id: str,
    envelope: Envelope,
    facts: Facts,
    content: Content,
    bindings: Sequence[Binding],
    clock: Clock,
    places: list[_Place],
) -> Steps:
    """The bindings that count. Puts those in shadow into `places`."""
    if _may_differ(envelope, bindings):
        return (yield from _live_in_copies(id, envelope, facts, content, bindings, clock, places))
    entries: list[Entry] = []
    stopped: Event | None = None
    for binding in bindings:
        if binding.event is stopped:
            continue
        if binding.rule is not None and not binding.rule.matches(envelope, facts.helo):
            continue
        call = Call(binding, Message(id, envelope, facts, content, binding.settings, binding.guid))
        if binding.mode is Mode.SHADOW:
            places.append(_Place(len(entries), call))
            continue
        answer = yield call
        verdict, taken = _taken(binding, answer, content, envelope)
        entries.append(_entry(binding, facts, verdict, taken, content, clock.now(), answer.took_seconds))
        content, envelope = taken.content, taken.envelope
        decision = taken.decision
        if decision is not Decision.ACCEPT:
            return Dispatched(
                decision,
                content,
                envelope,
                tuple(entries),
                taken.words,
                taken.code,
                taken.enhanced,
                binding.name,
            )
        if isinstance(verdict, Stop) and taken.action is not Action.UNDONE:
            stopped = binding.event
    return Dispatched(Decision.ACCEPT, content, envelope, tuple(entries))


def _may_differ(envelope: Envelope, bindings: Sequence[Binding]) -> bool:
    """Some binding splits, and there are several recipients, or may be."""
    for binding in bindings:
        if binding.split:
            return len(envelope.recipients) > 1 or any(Effect.ENVELOPE in one.effects for one in bindings)
    return False


def _live_in_copies(
    id: str,
    envelope: Envelope,
    facts: Facts,
    content: Content,
    bindings: Sequence[Binding],
    clock: Clock,
    places: list[_Place],
) -> Steps:
    """As `_live`, where a binding splits: it is called for each recipient, any other for each copy."""
    copies = Copies(envelope, content)
    shadows: list[tuple[int, Call, tuple[int, ...]]] = []
    for binding in bindings:
        said: list[tuple[tuple[int, ...], _Taken]] = []
        failures = 0
        everybody = len(copies.members)
        for copy in list(copies.copies):
            turns = [] if copy.stopped is binding.event else _turns(binding, copy, copies, facts)
            if not turns:
                continue
            shown = [
                Message(
                    id,
                    copies.shown(who),
                    facts,
                    copy.content,
                    binding.settings,
                    binding.guid,
                    who if len(who) < everybody else (),
                )
                for who in turns
            ]
            if binding.mode is Mode.SHADOW:
                calls = zip(turns, shown, strict=True)
                shadows += [(len(copies.entries), Call(binding, message), who) for who, message in calls]
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
                verdict, taken = _taken(binding, answer, copy.content, message.envelope)
                if binding.split:
                    verdict, taken = _kept_apart(binding, verdict, taken, copy, copies, message.envelope)
                    if copies.is_exhausted:
                        not_called = NO_ROOM
                failures += answer.error is not None
                entry = _entry(binding, facts, verdict, taken, copy.content, clock.now(), answer.took_seconds)
                stops = isinstance(verdict, Stop) and taken.action is not Action.UNDONE
                stopped = binding.event if stops else copy.stopped
                outcomes.append(Outcome(who, entry, taken.content, stopped))
                said.append((who, taken))
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
        discarded = [number for who, taken in said if taken.decision is Decision.DISCARD for number in who]
        copies.discard(discarded)
        verdict_of_all = _of_all(said, everybody, copies)
        if verdict_of_all is not None:
            return _decided(verdict_of_all, copies, shadows, places, content, binding.name)
    return _decided(None, copies, shadows, places, content, "")


def _turns(binding: Binding, copy: Copy, copies: Copies, facts: Facts) -> list[tuple[int, ...]]:
    """Whom a binding is to be called for: each recipient apart when it splits, else all of the copy at once."""
    rule = binding.rule
    groups = [(number,) for number in copy.members] if binding.split else [copy.members]
    return [who for who in groups if who and (rule is None or rule.matches(copies.shown(who), facts.helo))]


def _kept_apart(
    binding: Binding,
    verdict: Verdict | None,
    taken: _Taken,
    copy: Copy,
    copies: Copies,
    shown: Envelope,
) -> tuple[Verdict | None, _Taken]:
    """What a call for one recipient may leave behind: a copy, when there is room for it, and the envelope as it was."""
    if taken.envelope != shown:
        words = "a binding that splits does not edit the envelope: the copies of a message have one"
        return None, _failed(binding, Failure(words), copy.content, shown, Fault.VIOLATION)
    if taken.changes and not copies.has_room(taken.content, copy.content):
        error = NotSplit(NO_ROOM)
        return None, _failed(binding, error, copy.content, shown, None)
    return verdict, taken


def _of_all(said: Sequence[tuple[tuple[int, ...], _Taken]], everybody: int, copies: Copies) -> _Taken | None:
    """What the calls of one binding say of the message as a whole; None: it goes on.

    A client hears one reply, and custody holds a message whole. So one that defers defers all; a refusal is one only
    when nobody is left, else the message is held, as it is when a sink says so for one recipient.
    """
    refused: set[int] = set()
    stays: tuple[tuple[int, ...], _Taken] | None = None
    first: _Taken | None = None
    gone: _Taken | None = None
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
    words = taken.words
    if len(who) < everybody:
        others = f" and {len(who) - 1} more" if len(who) > 1 else ""
        words = words_kept(f"{words} (said of the copy for {copies.address(who[0])}{others})")
    return msgspec.structs.replace(taken, decision=Decision.HOLD, words=words)


def _decided(
    taken: _Taken | None,
    copies: Copies,
    shadows: Sequence[tuple[int, Call, tuple[int, ...]]],
    places: list[_Place],
    content: Content,
    binding: str,
) -> Dispatched:
    """The end of a chain in copies."""
    places += [_Place(number, call, copies.scope_of(who)) for number, call, who in shadows]
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
    )


def dispatch(
    id: str,
    envelope: Envelope,
    facts: Facts,
    content: Content,
    bindings: Sequence[Binding],
    clock: Clock,
) -> Dispatched:
    """Drive the chain with every sink called right here (isolation `inline`)."""
    chain = steps(id, envelope, facts, content, bindings, clock)
    try:
        call = next(chain)
        while True:
            call = chain.send(call_inline(call))
    except StopIteration as end:
        dispatched: Dispatched = end.value
        return dispatched


def advance(chain: Steps, answer: Answer | None = None) -> Call | Dispatched:
    """Go on until the chain has ended or a sink is due that does not run here. The first step has no answer."""
    try:
        call = next(chain) if answer is None else chain.send(answer)
        while call.binding.isolation is Isolation.INLINE:
            call = chain.send(call_inline(call))
    except StopIteration as end:
        dispatched: Dispatched = end.value
        return dispatched
    return call


async def dispatch_with(
    chain: Steps, step: Call | Dispatched | None, apart: Apart, in_thread: bool
) -> Dispatched:
    """Drive the chain to its end, on from `step` (None: from the start); `apart` calls the sinks that run elsewhere.

    `in_thread`: inline sinks and the guard work in a thread, because the body is large.
    """
    loop = asyncio.get_running_loop()
    answer: Answer | None = None
    left = SHADOW_SECONDS
    while True:
        if isinstance(step, Dispatched):
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


def call_inline(call: Call) -> Answer:
    """Call a sink in this thread. It may raise anything; only Ctrl-C goes through."""
    began = time.perf_counter()
    try:
        returned: object = call.binding.call(call.message)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a sink may also exit, or raise what only loops should see
        return Answer(error=error, took_seconds=time.perf_counter() - began)
    return Answer(returned, took_seconds=time.perf_counter() - began)


def _taken(
    binding: Binding, answer: Answer, content: Content, envelope: Envelope
) -> tuple[Verdict | None, _Taken]:
    """The verdict, when there is one, and what is made of it."""
    raised = answer.error
    if raised is not None:
        fault = raised.fault if isinstance(raised, Failure) else Fault.RAISED
        return None, _failed(binding, raised, content, envelope, fault)
    returned = answer.returned
    try:
        if not isinstance(returned, Verdict):
            raise TypeError(
                f"returned {type(returned).__name__}; a sink returns Next, Stop, Hold, Reject, Defer or Discard"
            )
        return returned, _judge(binding, returned, content, envelope)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # what a sink returns may be of any make
        return None, _failed(binding, error, content, envelope, Fault.NONSENSE)


def _judge(binding: Binding, verdict: Verdict, content: Content, envelope: Envelope) -> _Taken:
    """What of a verdict is taken: edits first (they may be damage), then what it says of the message."""
    match verdict:
        case Reject(words) | Defer(words) | Discard(words) | Hold(words) if not isinstance(words, str):
            # What would be stored could not be read again.
            raise TypeError(f"its words are {type(words).__name__}, not text")
        case Reject(words, code, enhanced):
            check_reply(code, enhanced, 5)
            return _Taken(
                content,
                envelope,
                Action.REJECTED,
                words=words_kept(words),
                decision=Decision.REJECT,
                code=code,
                enhanced=enhanced,
            )
        case Defer(words, code, enhanced):
            check_reply(code, enhanced, 4)
            return _Taken(
                content,
                envelope,
                Action.DEFERRED,
                words=words_kept(words),
                decision=Decision.DEFER,
                code=code,
                enhanced=enhanced,
            )
        case Discard(words):
            return _Taken(
                content, envelope, Action.UNCHANGED, words=words_kept(words), decision=Decision.DISCARD
            )
        case Next(edits) | Stop(edits):
            return _take_edits(binding, tuple(edits), content, envelope)
        case Hold(words, edits):
            taken = _take_edits(binding, tuple(edits), content, envelope)
            if taken.decision is not Decision.ACCEPT:
                return taken
            return msgspec.structs.replace(taken, decision=Decision.HOLD, words=words_kept(words))


def check_reply(code: object, enhanced: object, first: int) -> None:
    """Raises ValueError when a client could not be told this."""
    if not isinstance(code, int) or code // 100 != first:
        raise ValueError(f"reply code {code!r} is not in {first}00 to {first}99")
    if not isinstance(enhanced, str) or not re.fullmatch(rf"{first}\.\d{{1,3}}\.\d{{1,3}}", enhanced):
        raise ValueError(f"enhanced status code {enhanced!r} is not of the form {first}.X.Y")


def _take_edits(binding: Binding, edits: tuple[AnyEdit, ...], content: Content, envelope: Envelope) -> _Taken:
    if not edits:
        return _Taken(content, envelope, Action.UNCHANGED)
    whole = [edit for edit in edits if isinstance(edit, ReplaceMessage)]
    if whole:
        if len(edits) > 1:
            raise ValueError("an edit that hands back the whole message stands alone: drop the other edits")
        return _take_rewritten(binding, whole[0].octets, content, envelope)
    undeclared = {edit.effect for edit in edits} - binding.effects
    changes = lower(edits, content)
    after = apply_changes(content, changes)
    envelope_after = fold_envelope(envelope, changes)
    if envelope.recipients and not envelope_after.recipients:
        raise ValueError("removes every recipient: return Discard(words) when nobody is to get the message")
    findings = tuple(inspect(content, after, binding.effects, envelope, envelope_after))
    if undeclared and not any(finding.severity is Severity.VIOLATION for finding in findings):
        findings += (_undeclared(undeclared, binding),)
    if not _faulty(findings):
        action = Action.KEPT if changes else Action.UNCHANGED
        return _Taken(after, envelope_after, action, changes, findings)
    return _damaged(binding, content, envelope, after, changes, findings)


def _take_rewritten(binding: Binding, octets: bytes, content: Content, envelope: Envelope) -> _Taken:
    """A whole message came back: reduce it to what was meant, and judge the rest as damage."""
    reduced = reduce(content, octets, binding.effects)
    after = apply_changes(content, reduced.changes)
    leftover = tuple(inspect(content, after, binding.effects, envelope, envelope))
    seen = {(finding.code, finding.part) for finding in reduced.findings}
    findings = (*reduced.findings, *(f for f in leftover if (f.code, f.part) not in seen))
    attempted = reduced.attempted
    if not _faulty(findings):
        action = Action.REDUCED if reduced.changes else Action.UNCHANGED
        return _Taken(after, envelope, action, reduced.changes, findings, reduced.words, attempted)
    header_only = not reduced.whole_body_taken and not _faulty(leftover) and _is_canonical(after)
    repairable = binding.on_damage is not OnDamage.REPAIR or _is_canonical(repair_line_ends(attempted))
    if _mends(binding) and header_only and repairable:
        # Only header fields were meant: they are spliced in, the damaged rest never was part of the message.
        action = Action.REDUCED if reduced.changes else Action.UNDONE
        return _Taken(after, envelope, action, reduced.changes, findings, reduced.words, attempted)
    if not repairable:
        words = f"{binding.name}: {_worst(findings).words}"
        return _Taken(content, envelope, Action.HELD, (), findings, words, attempted, Decision.HOLD)
    taken = _damaged(binding, content, envelope, after, reduced.changes, findings)
    return msgspec.structs.replace(taken, attempted=attempted)


def _damaged(
    binding: Binding,
    content: Content,
    envelope: Envelope,
    after: Content,
    changes: tuple[Change, ...],
    findings: tuple[Finding, ...],
) -> _Taken:
    """The edits damage the message or were not declared: what the binding's role and `on_damage` say."""
    words = f"{binding.name}: {_worst(findings).words}"
    on_damage = binding.on_damage
    if on_damage is OnDamage.UNDO:
        return _Taken(content, envelope, Action.UNDONE, (), findings, words, after)
    if on_damage is OnDamage.REPAIR:
        undeclared = any(finding.severity is Severity.VIOLATION for finding in findings)
        repaired = changes if _is_canonical(after) else (*changes, Transform("crlf"))
        mended = after if _is_canonical(after) else apply_changes(content, repaired)
        if not undeclared and _is_canonical(mended):
            envelope_after = fold_envelope(envelope, repaired)
            return _Taken(mended, envelope_after, Action.REPAIRED, repaired, findings, words, after)
        return _Taken(content, envelope, Action.HELD, (), findings, words, after, Decision.HOLD)
    if on_damage is OnDamage.REJECT:
        return _Taken(content, envelope, Action.REJECTED, (), findings, words, after, Decision.REJECT)
    return _Taken(content, envelope, Action.HELD, (), findings, words, after, Decision.HOLD)


def _failed(
    binding: Binding, error: BaseException, content: Content, envelope: Envelope, fault: Fault | None
) -> _Taken:
    """The sink raised or returned nonsense."""
    return msgspec.structs.replace(_by_on_error(binding, error, content, envelope), fault=fault)


def _by_on_error(binding: Binding, error: BaseException, content: Content, envelope: Envelope) -> _Taken:
    try:
        said = str(error)
    except Exception:
        said = "(it cannot be shown)"
    if not isinstance(error, Failure):
        said = f"{type(error).__name__}: {said}"
    words = words_kept(f"{binding.name} failed: {said}")
    match binding.on_error:
        case OnError.SKIP:
            return _Taken(content, envelope, Action.SKIPPED, words=words)
        case OnError.HOLD:
            return _Taken(content, envelope, Action.HELD, words=words, decision=Decision.HOLD)
        case OnError.REJECT:
            return _Taken(content, envelope, Action.REJECTED, words=words, decision=Decision.REJECT)
        case OnError.DEFER:
            return _Taken(content, envelope, Action.DEFERRED, words=words, decision=Decision.DEFER)


def words_kept(text: str) -> str:
    """A sink's words as they are kept: bounded, and such as can be written down (a lone surrogate cannot)."""
    return text[:WORDS_LIMIT].encode("utf-8", "backslashreplace").decode()


def _mends(binding: Binding) -> bool:
    return binding.role is Role.COSMETIC and binding.on_damage in (OnDamage.UNDO, OnDamage.REPAIR)


def _faulty(findings: Sequence[Finding]) -> bool:
    return any(finding.severity in _FAULTS for finding in findings)


def _worst(findings: Sequence[Finding]) -> Finding:
    return next(finding for finding in findings if finding.severity in _FAULTS)


def _is_canonical(content: Content) -> bool:
    try:
        canonicalise(content)
    except NotCanonical:
        return False
    return True


def _undeclared(effects: set[Effect], binding: Binding) -> Finding:
    names = ", ".join(sorted(effect.value for effect in effects))
    declared = ", ".join(sorted(effect.value for effect in binding.effects)) or "none"
    effect = min(effects, key=lambda e: e.value)
    code, part = {
        Effect.HEADER: (Code.HEADER_UNDECLARED, Part.HEAD),
        Effect.BODY: (Code.BODY_UNDECLARED, Part.BODY),
        Effect.ENVELOPE: (Code.ENVELOPE_UNDECLARED, Part.ENVELOPE),
    }[effect]
    return Finding(code, Severity.VIOLATION, part, -1, f"it edits: {names}; it declares: {declared}")


def _tail(content: Content) -> bytes:
    """The last 64 octets; empty when a stored body cannot be read any more."""
    last = content.head
    try:
        for chunk in content.body.chunks():
            last = (last + chunk)[-64:] if len(chunk) < 64 else chunk
    except (OSError, ValueError):
        return b""
    return last[-64:]


def _entry(
    binding: Binding,
    facts: Facts,
    verdict: Verdict | None,
    taken: _Taken,
    before: Content,
    at: float,
    took: float,
) -> Entry:
    attempted = taken.attempted
    faulty = _faulty(taken.findings)
    words = taken.words
    fault = taken.fault
    if faulty:
        damaging = any(finding.severity is Severity.DAMAGE for finding in taken.findings)
        fault = Fault.DAMAGE if damaging else Fault.VIOLATION
    if took > binding.deadline_seconds and verdict is not None:
        fault = fault or Fault.DEADLINE
        late = f"took {took:.3g} s; its deadline is {binding.deadline_seconds:g} s"
        words = f"{words}; {late}" if words else late
    return Entry(
        binding=binding.name,
        binding_id=binding.guid,
        event=binding.event.value,
        at=at,
        took_seconds=round(took, 6),
        before=digests_of(before),
        after=digests_of(taken.content),
        action=taken.action,
        verdict="error" if verdict is None else type(verdict).__name__.lower(),
        changes=taken.changes,
        findings=taken.findings,
        words=words,
        attempted=None if attempted is None else digests_of(attempted),
        tail_before=_tail(before) if faulty else b"",
        tail_attempted=_tail(attempted) if faulty and attempted is not None else b"",
        attempted_size=-1 if attempted is None else attempted.size,
        revision=facts.revision,
        fault="" if fault is None else fault.value,
    )
