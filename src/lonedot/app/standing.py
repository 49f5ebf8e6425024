"""Books the faults of bindings, acts when there are too many, and keeps that on disk (`spool/bindings.json`).

Rules:
1. Booking never blocks: it is done while mail is handled. Writing is done in a thread, a moment later; a crash in
   between costs counts, not mail. What follows from the counts is in force at once, for messages that begin then.
2. Only the first worker of the relay that has the spool writes the file. What another one books counts there at once,
   and is sent to the first, which tells all of them what follows.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from lonedot.admin.colleague import Booked
from lonedot.evidence.events import EventKind, EventLog
from lonedot.message.ledger import Entry
from lonedot.sinks.bindings import Binding
from lonedot.sinks.standing import Fault, Measure, Standing, StandingFile, Standings, StandingUnreadable
from lonedot.terms.clock import Clock

__all__ = ["STANDING_FILE", "StandingDesk"]

STANDING_FILE = "bindings.json"
UNSENT_LIMIT = 1000
"""Faults that wait to be sent to the first worker; more are not counted for all."""
SAVE_SECONDS = 5.0
"""Counts alone are written no oftener than this; what follows from them at once."""


class StandingDesk:
    """The standing of all bindings of one relay."""

    def __init__(self, spool: Path, clock: Clock, *, follows: bool = False) -> None:
        """`follows`: another worker has the file."""
        self._follows = follows
        self._unsent: list[Booked] = []
        self.events: EventLog | None = None
        self.when_changed: Callable[[], object] = _nobody
        """Called when other bindings are in force than before."""
        self._file = StandingFile(spool / STANDING_FILE)
        self._clock = clock
        self._standings = Standings(clock.now)
        self._bindings: dict[str, Binding] = {}
        self._is_dirty = False
        self._save_at = 0.0
        self._saving: asyncio.Future[None] | None = None

    def load(self) -> None:
        """Take what the file says; one that cannot be read counts as none, with an event. Blocks."""
        try:
            known = self._file.read()
        except StandingUnreadable as error:
            known = ()
            self._tell(EventKind.SPOOL_FAULT, "", f"{error}; every binding is called again")
        self._standings = Standings(self._clock.now, known)

    def use(self, bindings: Iterable[Binding], known: Iterable[str]) -> None:
        """These are loaded; `known` are the GUIDs of those that are not, too: all others are forgotten."""
        self._bindings = {binding.guid: binding for binding in bindings}
        if self._standings.keep({*self._bindings, *known}):
            self._is_dirty = True

    # -- what is in force --------------------------------------------------------------------------

    def in_force(self, bindings: Iterable[Binding]) -> tuple[Binding, ...]:
        """See `Standings.in_force`."""
        return self._standings.in_force(bindings)

    def of(self, guid: str) -> Standing | None:
        """What counts now against a binding."""
        return self._standings.of(guid)

    @property
    def mark(self) -> str:
        """What a revision has behind it while some binding is not called as it is written; else nothing."""
        taken = [f"{one.guid} {one.measure.value}" for one in self._standings.all() if self._counts(one)]
        return f"~{hashlib.sha256(' '.join(taken).encode()).hexdigest()[:6]}" if taken else ""

    def _counts(self, standing: Standing) -> bool:
        return standing.measure is not Measure.NONE and standing.guid in self._bindings

    # -- booking -----------------------------------------------------------------------------------

    def book_entries(self, id: str, entries: Sequence[Entry]) -> None:
        """Book the faults of a message's ledger: one for each binding, in however many copies it failed."""
        booked: set[str] = set()
        for entry in entries:
            if entry.fault and entry.binding_id not in booked:
                booked.add(entry.binding_id)
                words = entry.words or next((finding.words for finding in entry.findings), "")
                self.book(entry.binding_id, Fault(entry.fault), words, id)

    def book(self, guid: str, fault: Fault, words: str, id: str) -> None:
        """Book one fault; `id` is the message's or the session's. A binding that is no more has no faults."""
        binding = self._bindings.get(guid)
        if binding is None:
            return
        taken = self._standings.book(binding, fault, words)
        self._is_dirty = True
        if self._follows and len(self._unsent) < UNSENT_LIMIT:
            self._unsent.append(Booked(guid, fault, words, id))
        if taken is None:
            return
        if self._follows:
            self.when_changed()  # the first worker, who counts for all, tells people
            return
        self._save_at = 0.0
        since = datetime.fromtimestamp(taken.since, UTC).isoformat(" ", "seconds")
        said = f"{binding.name}: {taken.in_words}, since {since}; the last: {taken.words}"
        off = taken.measure is Measure.OFF
        kind = EventKind.BINDING_SWITCHED_OFF if off else EventKind.BINDING_HOLDS
        self._tell(kind, id, said, binding=binding.name, guid=guid, faults=len(taken.faults))
        self.when_changed()

    def all(self) -> tuple[Standing, ...]:
        """Everything that counts now."""
        return self._standings.all()

    def adopt(self, standings: Iterable[Standing]) -> None:
        """What the first worker has counted takes the place of what was counted here."""
        if self._standings.adopt(standings):
            self.when_changed()

    @property
    def has_unsent(self) -> bool:
        """Faults were booked that the first worker does not know."""
        return bool(self._unsent)

    def take_unsent(self) -> tuple[Booked, ...]:
        """Those faults, which are the caller's from now on."""
        unsent, self._unsent = tuple(self._unsent), []
        return unsent

    def put_back(self, faults: Sequence[Booked]) -> None:
        """They could not be sent."""
        self._unsent = [*faults, *self._unsent][:UNSENT_LIMIT]

    def clear(self, guids: Iterable[str]) -> tuple[Standing, ...]:
        """Forget all against these; what there was. The caller saves, and puts them in force again."""
        gone = self._standings.clear(guids)
        if gone:
            self._is_dirty = True
        return gone

    # -- the file ----------------------------------------------------------------------------------

    def save_soon(self) -> None:
        """Called every now and then on the loop: write, in a thread, what is new."""
        now = self._clock.monotonic()
        if self._follows or not self._is_dirty or now < self._save_at or self._saving is not None:
            return
        self._save_at = now + SAVE_SECONDS
        self._is_dirty = False
        loop = asyncio.get_running_loop()
        self._saving = loop.run_in_executor(None, self._file.write, self._standings.all())
        self._saving.add_done_callback(self._saved)

    def _saved(self, future: asyncio.Future[None]) -> None:
        self._saving = None
        if not future.cancelled() and (error := future.exception()) is not None:
            self._is_dirty = True
            self._tell(EventKind.SPOOL_FAULT, "", f"{self._file.path} cannot be written: {error}")

    async def save(self) -> None:
        """Write what is new, durably.

        Raises:
            OSError: it cannot be written.
        """
        while self._saving is not None:
            await asyncio.wait([self._saving])
        if self._is_dirty and not self._follows:
            self._is_dirty = False
            try:
                await asyncio.to_thread(self._file.write, self._standings.all())
            except BaseException:
                self._is_dirty = True
                raise

    def _tell(self, kind: EventKind, id: str, words: str, **fields: str | int) -> None:
        if self.events is not None:
            self.events.append(kind, id, words, **fields)


def _nobody() -> None:
    """Nobody has to know."""
