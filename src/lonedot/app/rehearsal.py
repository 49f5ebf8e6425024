"""One message through the sinks and nowhere else: nothing is stored, nothing is sent."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from lonedot.diagnosis.record import change_in_words
from lonedot.message.content import Content
from lonedot.message.findings import Severity
from lonedot.message.intake import content_from
from lonedot.message.ledger import Action, Entry
from lonedot.message.transforms.crlf import repair_line_ends
from lonedot.observability.clock import SystemClock
from lonedot.sinks.bindings import Binding, chains_of
from lonedot.sinks.dispatch import dispatch_with, steps
from lonedot.sinks.hosts import Hosts
from lonedot.spool.interface import Facts
from lonedot.terms.envelope import Envelope
from lonedot.terms.ids import SessionId

__all__ = ["Rehearsed", "Step", "rehearse"]

_ID = "0000000000000"
_CLEAN = (Action.KEPT, Action.UNCHANGED, Action.REDUCED, Action.SHADOWED)


class Step(msgspec.Struct, frozen=True):
    """What one sink did."""

    binding: str
    guid: str
    event: str
    action: str
    verdict: str
    took_seconds: float
    changes: tuple[str, ...]
    findings: tuple[str, ...]
    words: str
    is_fault: bool
    """It failed, damaged the message, or did what it had not declared."""


class Rehearsed(msgspec.Struct, frozen=True):
    """What the chain made of the message."""

    decision: str
    words: str
    steps: tuple[Step, ...]
    not_called: tuple[str, ...]
    """Names of bindings whose rule does not match, or that stand behind one that stopped the chain."""
    mended: bool
    """Line ends were mended before the first sink, as at the door."""
    size_before: int
    size_after: int


async def rehearse(
    octets: bytes, envelope: Envelope, helo: str, bindings: Sequence[Binding], revision: str
) -> Rehearsed:
    """Show the message to the bindings as if it had come in a session. Bindings that are shown no message are left out.

    Raises:
        NotCanonical, ValueError: the octets are no message.
    """
    content = content_from(octets)
    mended = not content.is_canonical
    if mended:
        content = repair_line_ends(content)
    facts = Facts(
        "smtp",
        SessionId(_ID),
        client="127.0.0.1",
        helo=helo,
        protocol="ESMTP",
        trusted=True,
        revision=revision,
    )
    chain = chains_of(bindings).received
    hosts = Hosts()
    try:
        dispatched = await dispatch_with(
            steps(_ID, envelope, facts, content, chain, SystemClock()), None, hosts, False
        )
    finally:
        await hosts.close()
    called = {entry.binding_id for entry in dispatched.entries}
    after: Content = dispatched.content
    return Rehearsed(
        decision=dispatched.decision.value,
        words=dispatched.words,
        steps=tuple(_step(entry) for entry in dispatched.entries),
        not_called=tuple(binding.name for binding in chain if binding.guid not in called),
        mended=mended,
        size_before=content.size,
        size_after=after.size,
    )


def _step(entry: Entry) -> Step:
    faulty = any(finding.severity in (Severity.DAMAGE, Severity.VIOLATION) for finding in entry.findings)
    failed = (
        bool(entry.words) and entry.action not in _CLEAN and entry.verdict not in ("reject", "defer", "hold")
    )
    return Step(
        binding=entry.binding,
        guid=entry.binding_id,
        event=entry.event,
        action=entry.action.value,
        verdict=entry.verdict,
        took_seconds=entry.took_seconds,
        changes=tuple(words for change in entry.changes for words in change_in_words(change)),
        findings=tuple(f"{finding.severity.value}: {finding.words}" for finding in entry.findings),
        words=entry.words,
        is_fault=faulty or failed,
    )
