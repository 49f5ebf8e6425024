"""The events of a session with a next hop: who is asked, and what their word is worth.

Rules a change here must keep:
1. The first refusal is the answer; nobody is asked behind it.
2. There is no message: an edit is a fault of the sink, and what would hold a message defers.
3. Who refuses is named: an attempt that failed here must not look like a fault of the next hop.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import cast

import msgspec

from lonedot.message.intake import content_from
from lonedot.sinks.bindings import Binding, Isolation
from lonedot.sinks.calls import Answer, Decision, answer_of
from lonedot.sinks.events import Event
from lonedot.sinks.hop import Hop
from lonedot.sinks.judge import failed, take
from lonedot.sinks.standing import Fault
from lonedot.sinks.verdicts import Next, Stop, Verdict
from lonedot.terms.address import NULL_REVERSE_PATH
from lonedot.terms.envelope import Envelope

__all__ = [
    "AskElsewhere",
    "HopCall",
    "HopJudgement",
    "HopNote",
    "HopSinkCall",
    "advance_hop",
    "ask_hop",
    "inquire",
]

HopSinkCall = Callable[[Hop], Verdict]


class HopCall(msgspec.Struct, frozen=True):
    """A sink that is to be asked, and what it is to be shown."""

    binding: Binding
    hop: Hop


class HopNote(msgspec.Struct, frozen=True):
    """What a sink said that is worth a line in the log."""

    binding: str
    guid: str
    event: Event
    words: str
    fault: Fault | None = None
    """What is booked against the binding; None: it refused."""


class HopJudgement(msgspec.Struct, frozen=True):
    """What the chain says: ACCEPT, REJECT or DEFER."""

    decision: Decision = Decision.ACCEPT
    words: str = ""
    enhanced: str = ""
    binding: str = ""
    """Who refuses."""
    notes: tuple[HopNote, ...] = ()


Inquiry = Generator[HopCall, Answer, HopJudgement]
AskElsewhere = Callable[[HopCall], Awaitable[Answer]]
"""Calls a sink that does not run here. What goes wrong is an answer too; it raises only when it is cancelled."""

_ACCEPTED = HopJudgement()
_NOBODY = Envelope(NULL_REVERSE_PATH, ())
_NOTHING = content_from(b"")
"""What is judged where there is no message."""


def inquire(hop: Hop, bindings: Sequence[Binding]) -> Inquiry:
    """The chain without the calls: yields each call that is due and is sent its answer.

    `bindings` are those of the hop's event, in firing order.
    """
    notes: list[HopNote] = []
    for binding in bindings:
        answer = yield HopCall(binding, msgspec.structs.replace(hop, settings=binding.settings))
        if isinstance(answer.returned, Next | Stop) and answer.returned.edits:
            error = ValueError(f"returned edits at event {hop.event.value!r}, where there is no message")
            taken = failed(binding, error, _NOTHING, _NOBODY, Fault.NONSENSE)
        else:
            _, taken = take(binding, answer, _NOTHING, _NOBODY)
        refuses = taken.decision is not Decision.ACCEPT
        fault = taken.fault
        words = taken.words
        if fault is None and answer.took_seconds > binding.deadline_seconds:
            fault = Fault.DEADLINE
            late = f"took {answer.took_seconds:.3g} s; its deadline is {binding.deadline_seconds:g} s"
            words = f"{words}; {late}" if words else late
        if refuses or fault is not None:
            notes.append(HopNote(binding.name, binding.guid, hop.event, words, fault))
        if refuses:
            decision = Decision.REJECT if taken.decision is Decision.REJECT else Decision.DEFER
            return HopJudgement(decision, taken.words, taken.enhanced, binding.name, tuple(notes))
        if isinstance(answer.returned, Stop) and taken.fault is None:
            break
    return HopJudgement(notes=tuple(notes)) if notes else _ACCEPTED


def advance_hop(chain: Inquiry, answer: Answer | None = None) -> HopCall | HopJudgement:
    """Go on until the chain has ended or a sink is due that does not run here. The first step has no answer."""
    try:
        call = next(chain) if answer is None else chain.send(answer)
        while call.binding.isolation is Isolation.INLINE:
            call = chain.send(answer_of(cast(HopSinkCall, call.binding.call), call.hop))
    except StopIteration as end:
        judgement: HopJudgement = end.value
        return judgement
    return call


async def ask_hop(hop: Hop, bindings: Sequence[Binding], elsewhere: AskElsewhere) -> HopJudgement:
    """Ask all of them; `elsewhere` calls those that do not run here."""
    chain = inquire(hop, bindings)
    step = advance_hop(chain)
    while isinstance(step, HopCall):
        step = advance_hop(chain, await elsewhere(step))
    return step
