"""What a transaction came to, for each of its recipients. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lonedot.delivery.classify import classify_fault, classify_reply, classify_sink
from lonedot.delivery.jobs import Fault, TransactionReport
from lonedot.sinks.calls import Dispatched
from lonedot.spool.interface import RecipientState
from lonedot.terms.outcome import Outcome, Stage

__all__ = ["outcomes_of", "shared_outcome"]


def shared_outcome(report: TransactionReport, withheld: Dispatched | None) -> Outcome:
    """What holds for whoever the hop has said nothing else of. `withheld`: what a sink said that kept it from DATA."""
    if report.fault is not None:
        return classify_fault(report.fault, report.next_hop)
    if report.is_withheld and withheld is not None:
        return classify_sink(withheld, report.stage, report.next_hop)
    if report.reply is not None:
        return classify_reply(report.stage, report.reply, report.next_hop, passes_dsn=report.passes_dsn)
    nobody = Fault(report.stage, "the next hop accepted no recipient", False)
    return classify_fault(nobody, report.next_hop)


def outcomes_of(
    report: TransactionReport, states: Sequence[RecipientState], shared: Outcome, *, is_held: bool
) -> Iterator[tuple[int, Outcome]]:
    """An outcome for each recipient by its number. `is_held`: who shares the outcome stays as he was."""
    if report.stage is Stage.MAIL and report.reply is not None:
        yield from ((state.index, shared) for state in states)
        return
    hop, replies, finals = report.next_hop, report.recipients, report.finals
    for place, state in enumerate(states):
        own = replies[place] if place < len(replies) else None
        if finals and (final := finals[place]) is not None:
            # RFC 2033 §4.2: what is said of this one holds, whatever becomes of the session.
            said = classify_reply(Stage.CONTENT, final, hop, passes_dsn=report.passes_dsn, is_last=True)
            yield state.index, said
        elif own is not None and not own.is_positive:
            yield state.index, classify_reply(Stage.RCPT, own, hop)
        elif not is_held:
            yield state.index, shared
