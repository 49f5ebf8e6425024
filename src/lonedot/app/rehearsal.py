"""One message through the sinks and nowhere else: nothing is stored, nothing is sent."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import cast

import msgspec

from lonedot.app.rehearsal_scene import ID, Scene
from lonedot.diagnosis.record import change_in_words
from lonedot.message.content import Content
from lonedot.message.findings import Severity
from lonedot.message.intake import content_from
from lonedot.message.ledger import Action, Entry
from lonedot.message.transforms.crlf import repair_line_ends
from lonedot.observability.clock import SystemClock
from lonedot.sinks.bindings import Binding, Chains, Isolation, chains_of, firing_order
from lonedot.sinks.calls import Answer, Decision
from lonedot.sinks.dispatch import dispatch_with, steps
from lonedot.sinks.events import EVENTS, Event, Shows
from lonedot.sinks.hop import Departure
from lonedot.sinks.hosts import Hosts
from lonedot.sinks.inquiry import HopCall, HopJudgement, Inquiry, inquire
from lonedot.sinks.protocol import Judgement, Question, Questions, questions
from lonedot.sinks.view import Message

__all__ = ["Rehearsed", "Scene", "Step", "rehearse"]

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


async def rehearse(octets: bytes | None, scene: Scene, bindings: Sequence[Binding]) -> Rehearsed:
    """Let the bindings meet a message from the client's connection to the outcome, as far as they let it come.

    `octets`: None when no binding is shown a message. At `auth` and `verb` sinks are asked about what the scene says.

    Raises:
        NotCanonical, ValueError: the octets are no message.
    """
    content = content_from(octets or b"")
    mended = octets is not None and not content.is_canonical
    if mended:
        content = repair_line_ends(content)
    hosts = Hosts()
    play = _Play(scene, chains_of(bindings, scene.revision), content, hosts)
    try:
        await play.session()
        if octets is not None:
            await play.message()
        await play.delivery()
    finally:
        await hosts.close()
    called = {step.guid for step in play.steps}
    return Rehearsed(
        decision=play.decision.value,
        words=play.words,
        steps=tuple(play.steps),
        not_called=tuple(binding.name for binding in firing_order(bindings) if binding.guid not in called),
        mended=mended,
        size_before=content.size if octets is not None else 0,
        size_after=play.content.size if octets is not None else 0,
    )


class _Play:
    """One rehearsal, event by event; it ends where the message would."""

    def __init__(self, scene: Scene, chains: Chains, content: Content, hosts: Hosts) -> None:
        self.scene = scene
        self.content = content
        self.envelope = scene.envelope
        self.decision = Decision.ACCEPT
        self.words = ""
        self.steps: list[Step] = []
        self._chains = chains
        self._hosts = hosts

    @property
    def _goes_on(self) -> bool:
        return self.decision is Decision.ACCEPT

    async def session(self) -> None:
        """The events before there is a message."""
        for event, bindings in (self._chains.session or {}).items():
            for moment in self.scene.moments(event):
                if self._goes_on:
                    self._heard(await self._ask(questions(moment, bindings)))

    async def message(self) -> None:
        """The events between the end of data and the queue."""
        if self._goes_on and self._chains.received:
            await self._show(self._chains.received)

    async def delivery(self) -> None:
        """The events of an attempt that succeeds; then of a report that it failed, which is a message of its own."""
        for event, bindings in (self._chains.delivery or {}).items():
            if not self._goes_on:
                return
            if EVENTS[event].shows is Shows.HOP:
                self._heard(await self._ask(inquire(self.scene.hop(event), bindings)))
                continue
            if event is Event.DSN:
                self.content, self.envelope = self.scene.report(self.content)
            for departure in self.scene.departures(event):
                if self._goes_on:
                    await self._show(bindings, departure)

    async def _show(self, bindings: Sequence[Binding], departure: Departure | None = None) -> None:
        chain = steps(
            ID,
            self.envelope,
            self.scene.facts,
            self.content,
            bindings,
            SystemClock(),
            departure=departure,
        )
        dispatched = await dispatch_with(chain, None, self._hosts, False)
        self.steps += [_step(entry) for entry in dispatched.entries]
        self.decision, self.words = dispatched.decision, dispatched.words
        self.content, self.envelope = dispatched.content, dispatched.envelope

    async def _ask(self, chain: Questions | Inquiry) -> Judgement | HopJudgement:
        """Ask about a session, and book a step for each that was asked."""
        answer: Answer | None = None
        while True:
            try:
                call = cast("Question | HopCall", next(chain) if answer is None else chain.send(answer))
            except StopIteration as end:
                judged: Judgement | HopJudgement = end.value
                return judged
            answer = await self._answer(call)
            self.steps.append(_asked(call, answer))

    async def _answer(self, call: Question | HopCall) -> Answer:
        if call.binding.isolation is not Isolation.INLINE:
            return await self._hosts(call)
        shown = call.session if isinstance(call, Question) else call.hop
        began = time.perf_counter()
        try:
            returned: object = call.binding.call(cast(Message, shown))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a sink may also exit
            return Answer(error=error, took_seconds=time.perf_counter() - began)
        return Answer(returned, took_seconds=time.perf_counter() - began)

    def _heard(self, judged: Judgement | HopJudgement) -> None:
        self.decision = judged.decision
        self.words = judged.words or "; ".join(note.words for note in judged.notes)
        faults = {note.guid: note.words for note in judged.notes if note.fault is not None}
        self.steps = [
            msgspec.structs.replace(step, words=faults.pop(step.guid), verdict="error", is_fault=True)
            if step.guid in faults
            else step
            for step in self.steps
        ]


def _asked(call: Question | HopCall, answer: Answer) -> Step:
    binding = call.binding
    words = getattr(answer.returned, "words", "")
    return Step(
        binding=binding.name,
        guid=binding.guid,
        event=binding.event.value,
        action="asked",
        verdict=type(answer.returned).__name__.lower() if answer.error is None else "error",
        took_seconds=answer.took_seconds,
        changes=(),
        findings=(),
        words=words if isinstance(words, str) else "",
        is_fault=False,
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
