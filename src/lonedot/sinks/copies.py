"""Copies of one message that differ by recipient: who gets which, and to whom each entry of the ledger applies.

Rules a change here must keep:
1. Every recipient is in exactly one copy. Copies share their body; what differs lies in the ledger, as entries with a
   scope.
2. An entry that changes something holds for exactly the recipients of the copies that came of it. A scope is never
   empty for want of recipients: empty means all.
3. A recipient that is added joins the copy of the message that the sink was shown, and the route of its recipients.
4. In custody numbers stand: who is removed or gets nothing keeps its number, who is added gets the next one. Entries
   that were committed are never changed; what they have for somebody who joined later is told by `joins`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from lonedot.message.content import Content, MemoryBody
from lonedot.message.fold import fold
from lonedot.message.ledger import Action, Entry
from lonedot.sinks.events import Event
from lonedot.spool.interface import RecipientStatus, Stored
from lonedot.terms.envelope import Envelope, Recipient

__all__ = ["COPIES_LIMIT", "COPIES_OCTETS", "NOBODY", "Copied", "Copies", "Copy", "Outcome"]

COPIES_LIMIT = 1000
"""Recipients for which a binding that splits is called in one message, and copies of it."""
COPIES_OCTETS = 64 * 1024 * 1024
"""Memory for what is not shared by the copies of one message."""
NOBODY = -1
"""In a scope: its recipients were all removed later."""


class Copied(msgspec.Struct, frozen=True):
    """One copy, when all is decided."""

    recipients: tuple[int, ...]
    """Numbers of its recipients in the envelope."""
    content: Content


class Outcome(msgspec.Struct, frozen=True):
    """What came of one call: the entry, and the content and the stop that it leaves behind."""

    members: tuple[int, ...]
    entry: Entry
    content: Content
    stopped: Event | None


class Copy:
    """Recipients that get the same octets."""

    __slots__ = ("content", "lineage", "members", "stopped")

    def __init__(
        self, content: Content, members: tuple[int, ...], lineage: tuple[int, ...], stopped: Event | None
    ) -> None:
        self.content = content
        self.members = members
        self.lineage = lineage
        """Numbers of the entries that hold for all of it, so also for whoever is added."""
        self.stopped = stopped
        """The event that a sink has ended for it."""


class Copies:
    """All copies of one message while its chain runs."""

    def __init__(self, envelope: Envelope, content: Content) -> None:
        self.entries: list[Entry] = []
        self.copies = [Copy(content, tuple(range(len(envelope.recipients))), (), None)]
        self._envelope = envelope
        self._people: list[Recipient] = list(envelope.recipients)
        self._scopes: list[set[int]] = []
        self._discarded: set[int] = set()
        self._routes: dict[int, str] = {}
        self._octets = 0
        self._committed = 0
        """Entries that are in custody."""
        self.joins: dict[int, tuple[int, int]] = {}
        """In custody: for each recipient that was added, one whose copy it gets, and the number of entries then."""

    @classmethod
    def resumed(cls, stored: Stored, arrival: Content) -> Copies:
        """The copies of a message in custody, put together from its ledger.

        Raises:
            FoldFault, CannotTransform, OSError, ValueError: see `fold`.
        """
        made = cls(
            msgspec.structs.replace(
                stored.envelope, recipients=tuple(state.recipient for state in stored.recipients)
            ),
            arrival,
        )
        ledger = stored.ledger
        numbers = range(len(stored.recipients))
        made.entries = list(ledger)
        made._scopes = [set(entry.scope or numbers) for entry in ledger]
        made._committed = len(ledger)
        made._routes = {state.index: state.redirect for state in stored.recipients if state.redirect}
        alike: dict[tuple[object, ...], list[int]] = {}
        for state in stored.recipients:
            if state.status is RecipientStatus.WAITING:
                alike.setdefault(_way_of(state.index, ledger), []).append(state.index)
        made.copies = []
        for members in alike.values():
            content = fold(arrival, ledger, members[0], verify=True)
            lineage = [n for n, scope in enumerate(made._scopes) if scope.issuperset(members)]
            stopped = _stopped_for(members[0], ledger)
            made._octets += _unshared(content, arrival) if len(alike) > 1 else 0
            made.copies.append(Copy(content, tuple(members), tuple(lineage), stopped))
        return made

    @property
    def members(self) -> set[int]:
        """Everybody who is still to get it."""
        return {number for copy in self.copies for number in copy.members}

    def has_room(self, content: Content, base: Content) -> bool:
        """True when one more copy may be kept beside its base; its octets are counted from now on."""
        self._octets += _unshared(content, base)
        return not self.is_exhausted

    @property
    def is_exhausted(self) -> bool:
        """The room for copies is used up."""
        return self._octets > COPIES_OCTETS

    def shown(self, members: Sequence[int]) -> Envelope:
        """The envelope with these recipients only."""
        people = self._people
        return msgspec.structs.replace(
            self._envelope, recipients=tuple([people[number] for number in members])
        )

    def address(self, number: int) -> str:
        return self._people[number].address.text

    def settle(self, copy: Copy, outcomes: Sequence[Outcome]) -> None:
        """Book what came of the calls for a copy. Outcomes that are alike become one entry and stay one copy."""
        alike: dict[tuple[Entry, Event | None], list[Outcome]] = {}
        for outcome in outcomes:
            key = (msgspec.structs.replace(outcome.entry, at=0.0, took_seconds=0.0), outcome.stopped)
            alike.setdefault(key, []).append(outcome)
        unchanged: dict[Event | None, set[int]] = {copy.stopped: set(copy.members)}
        lineage = copy.lineage
        made: list[Copy] = []
        for (_, stopped), same in alike.items():
            members = {number for outcome in same for number in outcome.members}
            entry = same[0].entry
            if len(same) > 1:
                took = round(sum(outcome.entry.took_seconds for outcome in same), 6)
                entry = msgspec.structs.replace(entry, took_seconds=took)
            number = len(self.entries)
            self.entries.append(entry)
            self._scopes.append(members)
            is_whole = len(members) == len(copy.members)
            if not entry.changes and is_whole:
                lineage = (*lineage, number)
            if stopped is not copy.stopped or entry.changes:
                unchanged[copy.stopped] -= members
            if entry.changes:
                content = same[0].content
                made.append(Copy(content, tuple(sorted(members)), (*copy.lineage, number), stopped))
            elif stopped is not copy.stopped:
                unchanged.setdefault(stopped, set()).update(members)
        for stopped, left in unchanged.items():
            if left:
                made.append(Copy(copy.content, tuple(sorted(left)), lineage, stopped))
        made.sort(key=lambda one: one.members)
        place = self.copies.index(copy)
        self.copies[place : place + 1] = made

    def readdress(self, copy: Copy, after: Envelope) -> None:
        """A sink that was shown this copy has changed the envelope. The reverse-path is that of the whole message."""
        people = self._people
        self._envelope = msgspec.structs.replace(self._envelope, reverse_path=after.reverse_path)
        wanted = {recipient.address.octets for recipient in after.recipients}
        routes = {self._routes.get(number, "") for number in copy.members}
        route = routes.pop() if len(routes) == 1 else ""
        present = {people[number].address.octets for number in self.members}
        kept = [number for number in copy.members if people[number].address.octets in wanted]
        for recipient in after.recipients:
            if recipient.address.octets not in present:
                number = len(people)
                people.append(recipient)
                kept.append(number)
                for entry in copy.lineage:
                    self._scopes[entry].add(number)
                self.joins[number] = copy.members[0], self._committed
                if route:
                    self._routes[number] = route
        copy.members = tuple(kept)

    def discard(self, numbers: Sequence[int]) -> None:
        """These are to get nothing; they stay in the record."""
        self._discarded.update(numbers)
        for copy in self.copies:
            copy.members = tuple([number for number in copy.members if number not in self._discarded])

    def redirect(self, numbers: Iterable[int], route: str) -> None:
        """These go over that route."""
        self._routes.update(dict.fromkeys(numbers, route))

    def redirects(self) -> tuple[tuple[int, str], ...]:
        """Numbers in that envelope."""
        numbers = self._numbers()
        return tuple(
            (numbers[number], route) for number, route in sorted(self._routes.items()) if number in numbers
        )

    # -- in custody --------------------------------------------------------------------------------------

    @property
    def people(self) -> Sequence[Recipient]:
        """By number, everybody who ever was one."""
        return self._people

    @property
    def routes(self) -> dict[int, str]:
        """By number, for those that were redirected."""
        return self._routes

    def commit(self, everybody: set[int]) -> tuple[Entry, ...]:
        """The entries since the last time; they count as committed from now on.

        `everybody`: who was to get the message when the first of them was written; their scope is written as none.
        """
        made: list[Entry] = []
        for place in range(self._committed, len(self.entries)):
            scope = self._scopes[place]
            if not scope >= everybody:
                held = tuple(sorted(scope)) or (NOBODY,)
                self.entries[place] = msgspec.structs.replace(self.entries[place], scope=held)
            made.append(self.entries[place])
        self._committed = len(self.entries)
        return tuple(made)

    # -- when all is decided -----------------------------------------------------------------------------

    def envelope(self) -> Envelope:
        """With all that have not been removed, in the order in which they came."""
        return self.shown(sorted(self.members | self._discarded))

    def discarded(self) -> tuple[int, ...]:
        """Numbers in that envelope."""
        numbers = self._numbers()
        return tuple(sorted(numbers[number] for number in self._discarded))

    def copied(self) -> tuple[Copied, ...]:
        """Every copy that somebody is to get."""
        numbers = self._numbers()
        return tuple(
            Copied(tuple(sorted(numbers[number] for number in copy.members)), copy.content)
            for copy in self.copies
            if copy.members
        )

    def ledger(self) -> tuple[Entry, ...]:
        """The entries with their scopes, as numbers in that envelope."""
        numbers = self._numbers()
        made: list[Entry] = []
        for entry, scope in zip(self.entries, self._scopes, strict=True):
            held = tuple(sorted(numbers[number] for number in scope if number in numbers))
            made.append(
                entry
                if len(held) == len(numbers)
                else msgspec.structs.replace(entry, scope=held or (NOBODY,))
            )
        return tuple(made)

    def scope_of(self, members: Sequence[int]) -> tuple[int, ...]:
        """A scope as an entry keeps it."""
        numbers = self._numbers()
        held = tuple(sorted(numbers[number] for number in members if number in numbers))
        return () if len(held) == len(numbers) else held or (NOBODY,)

    def _numbers(self) -> dict[int, int]:
        return {number: place for place, number in enumerate(sorted(self.members | self._discarded))}


def _unshared(content: Content, base: Content) -> int:
    """Octets in memory that a copy has for itself."""
    own = len(content.head)
    if content.body is not base.body and isinstance(content.body, MemoryBody):
        own += content.body.size
    return own


def _stops(entry: Entry) -> bool:
    """It has ended its event for whom it concerns."""
    return entry.verdict == "stop" and entry.action not in (Action.UNDONE, Action.SHADOWED)


def _way_of(number: int, ledger: Sequence[Entry]) -> tuple[object, ...]:
    """What tells the copy of a recipient from that of another. Equal ways are one copy, as they were while it ran."""
    way: list[object] = []
    for place, entry in enumerate(ledger):
        if entry.scope and number in entry.scope:
            if entry.changes:
                way.append(place)
            elif _stops(entry):
                way.append((entry.event, entry.binding_id))
    return tuple(way)


def _stopped_for(number: int, ledger: Sequence[Entry]) -> Event | None:
    """The event that a sink has ended last."""
    for entry in reversed(ledger):
        if _stops(entry) and (not entry.scope or number in entry.scope):
            return Event(entry.event)
    return None
