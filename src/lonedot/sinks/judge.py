"""Judging one answer: which edits are taken, what damage or an error does, and what the sink says of the message.

Rules a change here must keep:
1. A sink's edits are applied here and nowhere else; what is applied passed the guard, or is the repair of it.
2. Edits and verdict stand or fall together.
3. A sink that fails never loses a message: the binding's `on_error` decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import msgspec

from lonedot.message.content import Content
from lonedot.message.edits import AddField, AnyEdit, Effect, ReplaceMessage, lower
from lonedot.message.encode import NotCanonical, canonicalise
from lonedot.message.findings import Code, Finding, Part, Severity
from lonedot.message.fold import apply_changes, fold_envelope
from lonedot.message.guard import inspect, with_plain_fields
from lonedot.message.intent import reduce
from lonedot.message.ledger import Action, Change, Splice, Transform
from lonedot.message.report_guard import inspect_report
from lonedot.message.transforms.crlf import repair_line_ends
from lonedot.sinks.bindings import Binding, OnDamage, OnError, Role
from lonedot.sinks.calls import Answer, Decision, Failure, check_reply, words_kept
from lonedot.sinks.events import EVENTS, Event, Says
from lonedot.sinks.standing import Fault
from lonedot.sinks.verdicts import (
    Accept,
    Defer,
    Discard,
    Hold,
    Next,
    Redirect,
    Reject,
    Stop,
    Verdict,
    says_of,
)
from lonedot.terms.envelope import Envelope

__all__ = ["Taken", "failed", "is_faulty", "take"]

_FAULTS = (Severity.DAMAGE, Severity.VIOLATION)


class Taken(msgspec.Struct, frozen=True):
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
    route: str = ""
    """Over which it is to be sent; empty: as the routes say."""


def take(
    binding: Binding, answer: Answer, content: Content, envelope: Envelope
) -> tuple[Verdict | None, Taken]:
    """The verdict, when there is one, and what is made of it."""
    raised = answer.error
    if raised is not None:
        fault = raised.fault if isinstance(raised, Failure) else Fault.RAISED
        return None, failed(binding, raised, content, envelope, fault)
    returned = answer.returned
    try:
        allowed = EVENTS[binding.event].says
        if says_of(returned) not in allowed:
            names = ", ".join(said.value.capitalize() for said in Says if said in allowed)
            raise TypeError(
                f"returned {type(returned).__name__}; at {binding.event.value!r} a sink returns {names}"
            )
        verdict = cast(Verdict, returned)
        if isinstance(verdict, Next):  # nearly always
            return verdict, _take_checked(binding, tuple(verdict.edits), content, envelope)
        return verdict, _judge(binding, verdict, content, envelope)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # what a sink returns may be of any make
        return None, failed(binding, error, content, envelope, Fault.NONSENSE)


def _judge(binding: Binding, verdict: Verdict, content: Content, envelope: Envelope) -> Taken:
    """What of a verdict is taken: edits first (they may be damage), then what it says of the message."""
    match verdict:
        case Reject(words) | Defer(words) | Discard(words) | Hold(words) if not isinstance(words, str):
            # What would be stored could not be read again.
            raise TypeError(f"its words are {type(words).__name__}, not text")
        case Redirect(route) if not isinstance(route, str):
            raise TypeError("its route is not text")
        case Reject(words, code, enhanced):
            check_reply(code, enhanced, 5)
            return Taken(
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
            return Taken(
                content,
                envelope,
                Action.DEFERRED,
                words=words_kept(words),
                decision=Decision.DEFER,
                code=code,
                enhanced=enhanced,
            )
        case Discard(words):
            return Taken(
                content, envelope, Action.UNCHANGED, words=words_kept(words), decision=Decision.DISCARD
            )
        case Next(edits) | Stop(edits):
            return _take_checked(binding, tuple(edits), content, envelope)
        case Hold(words, edits):
            taken = _take_checked(binding, tuple(edits), content, envelope)
            if taken.decision is not Decision.ACCEPT:
                return taken
            return msgspec.structs.replace(taken, decision=Decision.HOLD, words=words_kept(words))
        case Redirect(route, edits):
            if not route:
                raise ValueError("its route has no name")
            taken = _take_checked(binding, tuple(edits), content, envelope)
            if taken.decision is not Decision.ACCEPT:
                return taken
            return msgspec.structs.replace(taken, route=words_kept(route))
        case Accept():
            raise TypeError("there is no command to answer")


def _take_checked(
    binding: Binding, edits: tuple[AnyEdit, ...], content: Content, envelope: Envelope
) -> Taken:
    """The edits, with a report looked at as such: it must stay one."""
    taken = _take_edits(binding, edits, content, envelope)
    if binding.event is not Event.DSN or taken.content is content:
        return taken
    finding = inspect_report(content, taken.content)
    if finding is None:
        return taken
    if binding.on_damage is OnDamage.REPAIR:
        binding = msgspec.structs.replace(binding, on_damage=OnDamage.UNDO)  # nothing knows how to mend it
    return _damaged(binding, content, envelope, taken.content, taken.changes, (*taken.findings, finding))


def _take_edits(binding: Binding, edits: tuple[AnyEdit, ...], content: Content, envelope: Envelope) -> Taken:
    if not edits:
        return Taken(content, envelope, Action.UNCHANGED)
    if len(edits) == 1 and isinstance(field := edits[0], AddField) and field.where == "top":
        quick = with_plain_fields(content, field.octets, binding.effects, envelope)
        if quick is not None:
            changes: tuple[Change, ...] = (Splice(Part.HEAD, 0, 0, field.octets),)
            return Taken(quick, envelope, Action.KEPT, changes)
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
    findings = inspect(content, after, binding.effects, envelope, envelope_after)
    if undeclared and not any(finding.severity is Severity.VIOLATION for finding in findings):
        findings += (_undeclared(undeclared, binding),)
    if not is_faulty(findings):
        action = Action.KEPT if changes else Action.UNCHANGED
        return Taken(after, envelope_after, action, changes, findings)
    return _damaged(binding, content, envelope, after, changes, findings)


def _take_rewritten(binding: Binding, octets: bytes, content: Content, envelope: Envelope) -> Taken:
    """A whole message came back: reduce it to what was meant, and judge the rest as damage."""
    reduced = reduce(content, octets, binding.effects)
    after = apply_changes(content, reduced.changes)
    leftover = tuple(inspect(content, after, binding.effects, envelope, envelope))
    seen = {(finding.code, finding.part) for finding in reduced.findings}
    findings = (*reduced.findings, *(f for f in leftover if (f.code, f.part) not in seen))
    attempted = reduced.attempted
    if not is_faulty(findings):
        action = Action.REDUCED if reduced.changes else Action.UNCHANGED
        return Taken(after, envelope, action, reduced.changes, findings, reduced.words, attempted)
    header_only = not reduced.whole_body_taken and not is_faulty(leftover) and _is_canonical(after)
    repairable = binding.on_damage is not OnDamage.REPAIR or _is_canonical(repair_line_ends(attempted))
    if _mends(binding) and header_only and repairable:
        # Only header fields were meant: they are spliced in, the damaged rest never was part of the message.
        action = Action.REDUCED if reduced.changes else Action.UNDONE
        return Taken(after, envelope, action, reduced.changes, findings, reduced.words, attempted)
    if not repairable:
        words = f"{binding.name}: {_worst(findings).words}"
        return Taken(content, envelope, Action.HELD, (), findings, words, attempted, Decision.HOLD)
    taken = _damaged(binding, content, envelope, after, reduced.changes, findings)
    return msgspec.structs.replace(taken, attempted=attempted)


def _damaged(
    binding: Binding,
    content: Content,
    envelope: Envelope,
    after: Content,
    changes: tuple[Change, ...],
    findings: tuple[Finding, ...],
) -> Taken:
    """The edits damage the message or were not declared: what the binding's role and `on_damage` say."""
    words = f"{binding.name}: {_worst(findings).words}"
    on_damage = binding.on_damage
    if on_damage is OnDamage.UNDO:
        return Taken(content, envelope, Action.UNDONE, (), findings, words, after)
    if on_damage is OnDamage.REPAIR:
        undeclared = any(finding.severity is Severity.VIOLATION for finding in findings)
        repaired = changes if _is_canonical(after) else (*changes, Transform("crlf"))
        mended = after if _is_canonical(after) else apply_changes(content, repaired)
        if not undeclared and _is_canonical(mended):
            envelope_after = fold_envelope(envelope, repaired)
            return Taken(mended, envelope_after, Action.REPAIRED, repaired, findings, words, after)
        return Taken(content, envelope, Action.HELD, (), findings, words, after, Decision.HOLD)
    if on_damage is OnDamage.REJECT:
        return Taken(content, envelope, Action.REJECTED, (), findings, words, after, Decision.REJECT)
    return Taken(content, envelope, Action.HELD, (), findings, words, after, Decision.HOLD)


def failed(
    binding: Binding, error: BaseException, content: Content, envelope: Envelope, fault: Fault | None
) -> Taken:
    """The sink raised or returned nonsense."""
    return msgspec.structs.replace(_by_on_error(binding, error, content, envelope), fault=fault)


def _by_on_error(binding: Binding, error: BaseException, content: Content, envelope: Envelope) -> Taken:
    try:
        said = str(error)
    except Exception:
        said = "(it cannot be shown)"
    if not isinstance(error, Failure):
        said = f"{type(error).__name__}: {said}"
    words = words_kept(f"{binding.name} failed: {said}")
    match binding.on_error:
        case OnError.SKIP:
            return Taken(content, envelope, Action.SKIPPED, words=words)
        case OnError.HOLD:
            return Taken(content, envelope, Action.HELD, words=words, decision=Decision.HOLD)
        case OnError.REJECT:
            return Taken(content, envelope, Action.REJECTED, words=words, decision=Decision.REJECT)
        case OnError.DEFER:
            return Taken(content, envelope, Action.DEFERRED, words=words, decision=Decision.DEFER)


def _mends(binding: Binding) -> bool:
    return binding.role is Role.COSMETIC and binding.on_damage in (OnDamage.UNDO, OnDamage.REPAIR)


def is_faulty(findings: Sequence[Finding]) -> bool:
    return bool(findings) and any(finding.severity in _FAULTS for finding in findings)


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
