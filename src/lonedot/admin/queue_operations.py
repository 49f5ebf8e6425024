"""What a person does to messages under a claim of their own: return them to the sender, or send them another way.

Rules:
1. A message is taken from whoever has it, changed by one settlement and given back; a crash between changes nothing.
2. What is on the wire is left alone: its outcome is not known yet.
3. Only a running relay writes to senders. With the relay down a message that is to be returned is held, with the words
   for its sender in the reason; the relay returns it when it starts (`finish_bounces`). It is one of both at any time,
   and released in between it is sent on as ever.
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
    Filter,
    MessageState,
    NoSuchMessage,
    RecipientState,
    RecipientStatus,
    Settlement,
    SpoolFault,
)
from lonedot.terms.ids import MessageId
from lonedot.terms.outcome import Outcome, Result, Stage

__all__ = ["BOUNCE", "REROUTE", "finish_bounces"]

_Settling = Callable[[Claim], Awaitable[Settlement]]
_LEASE_SECONDS = 60.0
_OWNER = "admin"
_REASON_LIMIT = 500
_LATER = "to be returned to the sender when the relay starts: "
_BATCH = 500
_ADMINISTRATIVE = "5.7.1"
"""RFC 3463 §3.8: delivery not authorized, message refused. An administrator's decision."""


async def bounce(desk: Desk, wanted: BounceArguments) -> Changed:
    """End them: who has not got it fails, and the sender is told. Now; with the relay down when it starts."""
    words = " ".join(wanted.reason.split())[:_REASON_LIMIT] or BounceArguments(()).reason
    if desk.reporter is None:
        return await _bounce_later(desk, wanted.ids, words)
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


async def _bounce_later(desk: Desk, given: Sequence[str], words: str) -> Changed:
    ids = resolve_all(desk.spool, given)
    done = await desk.spool.hold(ids, _LATER + words.replace("; ", ", "))  # reasons are parted by that
    left = [Left(id, _why_left(desk, id)) for id, was_done in zip(ids, done, strict=True) if not was_done]
    return Changed(
        tuple(id for id, was_done in zip(ids, done, strict=True) if was_done), tuple(left), later=True
    )


async def finish_bounces(desk: Desk) -> int:
    """Return what was to be returned while the relay was down; how many. Called once, when the relay starts.

    One that cannot be returned now (Badmail cannot be written) stays held for it.
    """
    returned = 0
    below = ""
    while True:
        wanted = Filter(states=(MessageState.HELD,), reason=_LATER, limit=_BATCH, below=below)
        rows = await desk.spool.search(wanted)
        if not rows:
            return returned
        below = min(row.id for row in rows)
        by_words: dict[str, list[str]] = {}
        for row in rows:
            _, mark, words = row.reason.partition(_LATER)
            if mark:
                by_words.setdefault(words.partition("; ")[0], []).append(row.id)
        for words, ids in by_words.items():
            returned += len((await bounce(desk, BounceArguments(tuple(ids), words))).done)


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
