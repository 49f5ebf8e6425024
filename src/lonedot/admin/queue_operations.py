"""What a person does to messages under a claim of their own: return them to the sender, or send them another way.

Rules:
1. A message is taken from whoever has it, changed by one settlement and given back; a crash between changes nothing.
2. What is on the wire is left alone: its outcome is not known yet.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import msgspec

from lonedot.admin.ids import resolve_all
from lonedot.admin.operations import Desk, Operation
from lonedot.admin.values import AdminError, BounceArguments, Changed, Left, RerouteArguments
from lonedot.queue.plan import Report, ReportKind, refuse
from lonedot.spool.interface import (
    Attempt,
    Claim,
    MessageState,
    NoSuchMessage,
    RecipientState,
    RecipientStatus,
    Settlement,
    SpoolFault,
)
from lonedot.terms.ids import MessageId
from lonedot.terms.outcome import Outcome, Result, Stage

__all__ = ["BOUNCE", "REROUTE"]

_Settling = Callable[[Claim], Awaitable[Settlement]]
_LEASE_SECONDS = 60.0
_OWNER = "admin"
_REASON_LIMIT = 500
_ADMINISTRATIVE = "5.7.1"
"""RFC 3463 §3.8: delivery not authorized, message refused. An administrator's decision."""


async def bounce(desk: Desk, wanted: BounceArguments) -> Changed:
    """End them now: who has not got it fails, and the sender is told."""
    if desk.reporter is None:
        raise AdminError("only a running relay can write to senders", "bounce", "start it: lonedot serve")
    words = " ".join(wanted.reason.split())[:_REASON_LIMIT] or BounceArguments(()).reason
    outcome = Outcome(Result.FAILED, Stage.LOCAL, words, status=_ADMINISTRATIVE)
    now = desk.clock.now()

    async def settlement(claim: Claim) -> Settlement:
        changed: list[RecipientState] = []
        told: list[RecipientState] = []
        for state in _waiting(claim):
            after, is_told = refuse(state, outcome)
            changed.append(after)
            if is_told:
                told.append(after)
        reports = (Report(ReportKind.FAILURE, tuple(told)),) if told else ()
        assert desk.reporter is not None
        spawned = await desk.reporter.report(claim, reports)
        attempt = Attempt(now, now, "", "", "", tuple((state.index, outcome) for state in changed))
        return Settlement(
            claim.message.id,
            claim.epoch,
            tuple(changed),
            (attempt,) if changed else (),
            MessageState.FINISHED,
            spawned=tuple(spawned),
            at=now,
            transport=None,
        )

    changed = await _each(desk, wanted.ids, settlement)
    if desk.hooks is not None and changed.done:
        desk.hooks.kick([])  # the reports are due
    return changed


async def reroute(desk: Desk, wanted: RerouteArguments) -> Changed:
    """Those who still wait get it over another route, now; what is held stays held."""
    if wanted.route and wanted.route not in desk.expire_seconds:
        names = ", ".join(sorted(desk.expire_seconds)) or "none"
        raise AdminError(f"there is no route {wanted.route[:60]!r}", "--to", f"there are: {names}")
    now = desk.clock.now()

    async def settlement(claim: Claim) -> Settlement:
        message = claim.message
        recipients = tuple(
            [msgspec.structs.replace(state, redirect=wanted.route, next_at=now) for state in _waiting(claim)]
        )
        return Settlement(
            message.id, claim.epoch, recipients, state=message.state, reason=message.reason, at=now
        )

    changed = await _each(desk, wanted.ids, settlement)
    if desk.hooks is not None and changed.done:
        desk.hooks.kick([MessageId(id) for id in changed.done])
    return changed


BOUNCE = Operation("bounce", BounceArguments, Changed, bounce)
REROUTE = Operation("reroute", RerouteArguments, Changed, reroute)


def _waiting(claim: Claim) -> list[RecipientState]:
    return [state for state in claim.message.recipients if state.status is RecipientStatus.WAITING]


async def _each(desk: Desk, given: Sequence[str], settlement: _Settling) -> Changed:
    """Take all, settle each that could be taken, and say why the others were left."""
    ids = resolve_all(desk.spool, given)
    if desk.hooks is not None:
        desk.hooks.forget(ids)
    taken = await desk.spool.take(_OWNER, ids, desk.clock.now(), _LEASE_SECONDS)
    settled: list[tuple[MessageId, Settlement]] = []
    left: list[Left] = []
    for id, claim in zip(ids, taken, strict=True):
        if claim is None:
            left.append(Left(id, _why_left(desk, id)))
            continue
        try:
            settled.append((id, await settlement(claim)))
        except SpoolFault as error:
            left.append(Left(id, str(error)))
            settled.append((id, _given_back(claim)))
    applied = await desk.spool.settle([one for _, one in settled]) if settled else []
    failed = {one.id for one in left}
    done: list[str] = []
    for (id, _), was_applied in zip(settled, applied, strict=True):
        if id in failed:
            continue
        if was_applied:
            done.append(id)
        else:
            left.append(Left(id, "somebody else took it meanwhile; try again"))
    return Changed(tuple(done), tuple(left))


def _given_back(claim: Claim) -> Settlement:
    message = claim.message
    return Settlement(message.id, claim.epoch, state=message.state, reason=message.reason)


def _why_left(desk: Desk, id: MessageId) -> str:
    try:
        state = desk.spool.show(id).state
    except NoSuchMessage:
        return "there is no such message"
    if state in (MessageState.QUEUED, MessageState.HELD):
        return "it is being sent right now; try again"
    return f"it is {state.value}"
