"""The ledger entry of one call."""

from __future__ import annotations

from lonedot.message.content import Content
from lonedot.message.findings import Severity
from lonedot.message.fold import digests_of
from lonedot.message.ledger import Entry
from lonedot.sinks.bindings import Binding
from lonedot.sinks.judge import Taken, is_faulty
from lonedot.sinks.redirect import route_of
from lonedot.sinks.standing import Fault
from lonedot.sinks.verdicts import Accept, Defer, Discard, Hold, Next, Redirect, Reject, Stop, Verdict
from lonedot.spool.interface import Facts

__all__ = ["entry_of"]

_NAMES = {
    kind: kind.__name__.lower() for kind in (Accept, Defer, Discard, Hold, Next, Redirect, Reject, Stop)
}


def entry_of(
    binding: Binding,
    facts: Facts,
    verdict: Verdict | None,
    taken: Taken,
    before: Content,
    at: float,
    took: float,
) -> Entry:
    event = binding.event._value_
    said = "error" if verdict is None else _NAMES[verdict.__class__]
    digests = digests_of(before)
    after = digests if taken.content is before else digests_of(taken.content)
    took_seconds = int(took * 1e6) / 1e6
    attempted = taken.attempted
    if (
        not (taken.words or taken.findings or attempted or taken.fault or taken.route)
        and took <= binding.deadline_seconds
    ):
        return Entry(  # by place: a call by names takes twice as long, and this is what nearly all come to
            binding.name,
            binding.guid,
            event,
            at,
            took_seconds,
            digests,
            after,
            taken.action,
            said,
            taken.changes,
            revision=facts.revision,
        )
    faulty = is_faulty(taken.findings)
    words = taken.words or route_of(taken)
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
        event=event,
        at=at,
        took_seconds=took_seconds,
        before=digests,
        after=after,
        action=taken.action,
        verdict=said,
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


def _tail(content: Content) -> bytes:
    """The last 64 octets; empty when a stored body cannot be read any more."""
    last = content.head
    try:
        for chunk in content.body.chunks():
            last = (last + chunk)[-64:] if len(chunk) < 64 else chunk
    except (OSError, ValueError):
        return b""
    return last[-64:]
