"""The sinks of a message in custody: its chain goes on behind the last binding whose entries were committed.

Pure but for the calls, which whoever drives it makes. Rules a change here must keep:
1. What a binding did is handed out as one `Leg`, and the next binding is asked only when that is committed.
2. What is put together from a ledger is what stood there when its last entry was written: copies, stops, routes. So a
   chain in parts comes out as one that was never interrupted.
3. A client was told 250. A refusal becomes a report where the message came from somebody we trust; else the message is
   held: a report would go to whoever a stranger names.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from lonedot.message.content import Content
from lonedot.message.ledger import Action, Entry
from lonedot.sinks.bindings import MAX_PRIORITY, Binding, Chains, Mode, OrderKey, order_key
from lonedot.sinks.calls import Asking, Decision
from lonedot.sinks.copies import Copies
from lonedot.sinks.copying import Place, Said, ask_copies, said_for, turns_of
from lonedot.sinks.dispatch import ask_shadows
from lonedot.sinks.events import Event
from lonedot.sinks.judge import Taken
from lonedot.sinks.shadow import compared
from lonedot.spool.interface import Facts, Progress, RecipientState, RecipientStatus, Stored
from lonedot.terms.clock import Clock

__all__ = [
    "RESOLVED",
    "TO_RESOLVE",
    "Leg",
    "Refused",
    "Transit",
    "bindings_left",
    "parted_at_resolve",
    "progress_behind",
]

_FIRST: OrderKey = (-1, 0, "", "")
STRANGER = "refused when it was in custody; held, because a report could go to somebody who never sent it"


class Refused(msgspec.Struct, frozen=True):
    """A recipient that a sink has refused."""

    number: int
    words: str
    enhanced: str


class Leg(msgspec.Struct, frozen=True):
    """What the turn of one binding made of a message."""

    binding: str
    decision: Decision
    """ACCEPT: it goes on; DEFER: nothing is changed, and the binding is asked again later; HOLD."""
    entries: tuple[Entry, ...]
    recipients: tuple[RecipientState, ...] = ()
    """Those that are new, or changed: but for refused ones, whose outcome is made elsewhere."""
    refused: tuple[Refused, ...] = ()
    words: str = ""


def progress_behind(binding: Binding | None, waits_for: str) -> Progress:
    """The progress of a message that has this binding behind it (None: nothing yet)."""
    if binding is None:
        return Progress(waits_for=waits_for)
    return Progress(binding.event.value, binding.priority, binding.name, binding.guid, waits_for)


RESOLVED = Progress(Event.BEFORE_RESOLVE.value, MAX_PRIORITY + 1)
"""The place of a message whose recipients were resolved just now."""
TO_RESOLVE = Progress(Event.ROUTE.value, MAX_PRIORITY + 1, waits_for="resolve", resolves=True)
"""The place of a report: it meets no sink of transport events, and only its recipient is resolved."""


def parted_at_resolve(bindings: Sequence[Binding]) -> tuple[tuple[Binding, ...], tuple[Binding, ...]]:
    """The bindings of a chain that meet a message before its recipients are resolved, and those that do so after."""
    place = order_key(Event.BEFORE_RESOLVE, RESOLVED.priority, "", "")
    before = [b for b in bindings if order_key(b.event, b.priority, b.name, b.guid) < place]
    return tuple(before), tuple(bindings[len(before) :])


def bindings_left(chains: Chains, facts: Facts, progress: Progress) -> tuple[Binding, ...]:
    """The bindings of a chain that stand behind that place in the firing order.

    Raises:
        ValueError: the place names an event that there is not.
    """
    behind = _FIRST
    if progress.event:
        behind = order_key(Event(progress.event), progress.priority, progress.name, progress.guid)
    chain = chains.received if facts.is_received and progress.event else chains.submitted
    return tuple(
        [
            binding
            for binding in chain
            if order_key(binding.event, binding.priority, binding.name, binding.guid) > behind
        ]
    )


class Transit:
    """One message on its way through the rest of its chain."""

    def __init__(
        self,
        stored: Stored,
        arrival: Content,
        bindings: Sequence[Binding],
        clock: Clock,
        revision: str,
        routes: frozenset[str] | None = None,
    ) -> None:
        """`bindings` are those left, `revision` is theirs. Raises what `Copies.resumed` does."""
        self._id = stored.id
        self._facts = stored.facts
        self._revision = revision or stored.facts.revision
        self._bindings = bindings
        self._clock = clock
        self._routes = routes
        self._recipients = list(stored.recipients)
        self._copies = Copies.resumed(stored, arrival)
        self._place = -1
        """Of the binding whose turn it is, or was."""
        self._shadows: list[Place] = []

    @property
    def has_shadows(self) -> bool:
        """Some binding in shadow was passed."""
        return bool(self._shadows)

    @property
    def size(self) -> int:
        """Octets of the largest copy."""
        return max((copy.content.size for copy in self._copies.copies), default=0)

    @property
    def recipients(self) -> tuple[RecipientState, ...]:
        """All, as they are now; the same numbers as ever."""
        return tuple(self._recipients)

    @property
    def current(self) -> Binding:
        """The binding whose turn it is, or was."""
        return self._bindings[self._place]

    def next(self) -> Binding | None:
        """Go to the next binding that is to be called; None: the chain is at its end.

        Bindings in shadow are passed, and called by `ask_shadows` when everything is decided.
        """
        while self._place + 1 < len(self._bindings):
            self._place += 1
            binding = self._bindings[self._place]
            if binding.mode is Mode.SHADOW:
                self._pass(binding)
            elif turns_of(binding, self._copies, self._facts):
                return binding
        return None

    def _pass(self, binding: Binding) -> None:
        """Nobody is asked; what it would be shown is taken down."""
        before = len(self._shadows)
        for _ in self._ask(binding):
            raise AssertionError("a binding in shadow has no turn")
        everybody = self._copies.members
        self._shadows[before:] = [
            msgspec.structs.replace(place, scope=() if everybody <= set(place.scope) else place.scope)
            for place in self._shadows[before:]
        ]

    def _ask(self, binding: Binding) -> Asking[list[Said]]:
        return ask_copies(
            binding,
            self._copies,
            self._id,
            self._facts,
            self._clock,
            self._shadows,
            self._revision,
            self._routes,
        )

    def leg(self) -> Asking[Leg]:
        """The turn of the binding that `next` has named."""
        binding, copies = self.current, self._copies
        everybody = copies.members
        routes = dict(copies.routes)
        said = yield from self._ask(binding)
        for who, taken in said:
            if taken.decision is Decision.DEFER:
                return self._put_off(binding, who, taken, everybody)
        refused, hold = self._decide(binding, said, len(everybody))
        gone = [number for who, taken in said if taken.decision is Decision.DISCARD for number in who]
        copies.discard([*gone, *(one.number for one in refused)])
        entries = copies.commit(everybody)
        changed = self._changed(routes, {one.number for one in refused}, len(entries))
        return Leg(
            binding.name,
            Decision.ACCEPT if hold is None else Decision.HOLD,
            entries,
            changed,
            refused,
            hold or "",
        )

    def _put_off(self, binding: Binding, who: tuple[int, ...], taken: Taken, everybody: set[int]) -> Leg:
        """It is asked again, for all copies: what it said of others is not taken."""
        entry = next(entry for entry in reversed(self._copies.entries) if entry.action is Action.DEFERRED)
        entry = msgspec.structs.replace(entry, scope=() if everybody <= set(who) else who)
        words = said_for(taken.words, who, len(everybody), self._copies)
        return Leg(binding.name, Decision.DEFER, (entry,), words=words)

    def _decide(
        self, binding: Binding, said: Sequence[Said], everybody: int
    ) -> tuple[tuple[Refused, ...], str | None]:
        """Who is refused, and why the message is held; None: it is not."""
        refused: list[Refused] = []
        hold: str | None = None
        for who, taken in said:
            words = taken.words if taken.words.startswith(binding.name) else f"{binding.name}: {taken.words}"
            if taken.decision is Decision.HOLD:
                hold = hold or said_for(words, who, everybody, self._copies)
            elif taken.decision is Decision.REJECT:
                if self._facts.trusted:
                    refused += [Refused(number, words, taken.enhanced or "5.7.1") for number in who]
                else:
                    hold = hold or f"{said_for(words, who, everybody, self._copies)}; {STRANGER}"
        return tuple(refused), hold

    def _changed(self, routes: dict[int, str], refused: set[int], written: int) -> tuple[RecipientState, ...]:
        """Recipients that are new, get nothing any more, or go another way; as they are from now on."""
        copies = self._copies
        members = copies.members
        changed: list[RecipientState] = []
        for state in list(self._recipients):
            number = state.index
            after = state
            if copies.routes.get(number, "") != routes.get(number, ""):
                after = msgspec.structs.replace(after, redirect=copies.routes.get(number, ""))
            if state.status is RecipientStatus.WAITING and number not in members and number not in refused:
                after = msgspec.structs.replace(after, status=RecipientStatus.DELETED, next_at=0.0)
            if after is not state:
                self._recipients[number] = after
                changed.append(after)
        ledger = len(copies.entries) - written
        for number in range(len(self._recipients), len(copies.people)):
            other, _ = copies.joins[number]
            is_apart = any(entry.scope for entry in copies.entries[:ledger])
            new = RecipientState(
                number,
                copies.people[number],
                next_at=self._clock.now(),
                redirect=copies.routes.get(number, ""),
                joined=(other, ledger) if is_apart else None,
            )
            if number not in members:
                new = msgspec.structs.replace(new, status=RecipientStatus.DELETED, next_at=0.0)
            self._recipients.append(new)
            changed.append(new)
        return tuple(changed)

    def settle(self, states: Sequence[RecipientState]) -> None:
        """Refused recipients, with the outcome that was made for them."""
        for state in states:
            self._recipients[state.index] = state

    def ask_shadows(self) -> Asking[tuple[Entry, ...]]:
        """The entries of all bindings in shadow that were passed; they stand behind those of the live ones."""
        facts = msgspec.structs.replace(self._facts, revision=self._revision)
        shadows = yield from ask_shadows(self._shadows, facts, self._clock)
        live = [entry for entry in self._copies.entries if entry.action is not Action.SHADOWED]
        return tuple([compared(entry, live) for _, entry in shadows])
