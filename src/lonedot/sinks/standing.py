"""What is known against each binding: its faults, counted, and what follows when there are too many.

Rules a change here must keep:
1. A cosmetic binding that reaches its maximum is switched off, as state: registry and configuration are a person's and
   are never edited. A protective one is never switched off: from then on a message that it fails on is held.
2. Faults count by GUID, so a binding keeps them through a change of its name, and only those of the last hour do.
3. What follows stays until a person says otherwise; no passing of time undoes it.
"""

from __future__ import annotations

import enum
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

import msgspec

from lonedot.sinks.bindings import Binding, OnError, Role

__all__ = [
    "MAXIMUM_STALLS",
    "WINDOW_SECONDS",
    "Fault",
    "Measure",
    "Standing",
    "StandingFile",
    "StandingUnreadable",
    "Standings",
    "faults_in_words",
]

WINDOW_SECONDS = 3600.0
"""Faults older than this do not count any more."""
MAXIMUM_STALLS = 3
"""As many stalls are enough: each cost all mail a restart."""
WORDS_LIMIT = 300
"""Signs of the last fault's words that are kept."""
FILE_LIMIT = 16 * 1024 * 1024


class Fault(enum.Enum):
    """What a binding can do wrong."""

    RAISED = "raised"
    NONSENSE = "nonsense"
    """It returned what no sink may."""
    DEADLINE = "deadline"
    DIED = "died"
    """Its process ended, or could not be had."""
    STALLED = "stalled"
    """It stopped the relay itself, which had to be ended."""
    DAMAGE = "damage"
    VIOLATION = "violation"
    """It changed what it had not declared."""


class Measure(enum.Enum):
    """What was done about a binding."""

    NONE = "none"
    OFF = "off"
    """It is not called any more."""
    HOLDS = "holds"
    """It is called, and a message that it fails on is held, where the sender was told to try again before."""


class Standing(msgspec.Struct, frozen=True):
    """What is known against one binding."""

    guid: str
    name: str
    faults: tuple[tuple[float, Fault], ...] = ()
    """Each with its time (seconds since 1970), oldest first. After a measure: those that led to it."""
    words: str = ""
    """Of the last fault."""
    measure: Measure = Measure.NONE
    at: float = 0.0
    """When the measure was taken."""

    @property
    def since(self) -> float:
        """Time of the first fault that counts; 0 when there is none."""
        return self.faults[0][0] if self.faults else 0.0

    @property
    def in_words(self) -> str:
        """`20 faults: 18 raised, 2 damage`."""
        return faults_in_words(fault for _, fault in self.faults)


def faults_in_words(faults: Iterable[Fault]) -> str:
    """How many, and how many of each kind."""
    counts = Counter(faults)
    total = counts.total()
    kinds = ", ".join(f"{counts[fault]} {fault.value}" for fault in Fault if counts[fault])
    return f"{total} fault{'s' if total != 1 else ''}" + (f": {kinds}" if kinds else "")


class Standings:
    """The faults of all bindings of one relay. Not for several threads."""

    def __init__(self, now: Callable[[], float], known: Iterable[Standing] = ()) -> None:
        self._now = now
        self._known = {standing.guid: standing for standing in known}
        self._changed: dict[str, tuple[Binding, Binding]] = {}

    def book(self, binding: Binding, fault: Fault, words: str) -> Standing | None:
        """Count a fault. The standing when it brought the binding to its maximum, else None."""
        now = self._now()
        before = self._known.get(binding.guid) or Standing(binding.guid, binding.name)
        if before.measure is not Measure.NONE:
            # What led to it stays on record; calls that had begun may still fail.
            return None
        # A clock that was set back leaves times ahead of it: those count.
        counting = tuple([one for one in before.faults if one[0] > now - WINDOW_SECONDS])
        limit = binding.maximum_faults or 1000
        faults = (*counting, (now, fault))[-limit:]
        stalls = sum(kind is Fault.STALLED for _, kind in faults)
        reached = binding.maximum_faults > 0 and (
            len(faults) >= binding.maximum_faults or stalls >= MAXIMUM_STALLS
        )
        measure = _measure(binding) if reached else Measure.NONE
        taken = measure is not Measure.NONE
        standing = Standing(
            binding.guid, binding.name, faults, words[:WORDS_LIMIT], measure, now if taken else 0.0
        )
        self._known[binding.guid] = standing
        return standing if taken else None

    def of(self, guid: str) -> Standing | None:
        """What counts now against a binding; None when nothing does."""
        standing = self._known.get(guid)
        if standing is None or standing.measure is not Measure.NONE:
            return standing
        counting = tuple([one for one in standing.faults if one[0] > self._now() - WINDOW_SECONDS])
        return msgspec.structs.replace(standing, faults=counting) if counting else None

    def all(self) -> tuple[Standing, ...]:
        """Everything that counts now, by GUID."""
        found = [self.of(guid) for guid in sorted(self._known)]
        return tuple([standing for standing in found if standing is not None])

    def adopt(self, known: Iterable[Standing]) -> bool:
        """These count from now on, and no others; whether a measure is another than before."""
        before = self._measures()
        self._known = {standing.guid: standing for standing in known}
        return self._measures() != before

    def _measures(self) -> dict[str, Measure]:
        return {one.guid: one.measure for one in self._known.values() if one.measure is not Measure.NONE}

    def clear(self, guids: Iterable[str]) -> tuple[Standing, ...]:
        """Forget all against these; what there was."""
        gone = [self._known.pop(guid, None) for guid in guids]
        return tuple([standing for standing in gone if standing is not None])

    def keep(self, guids: Collection[str]) -> bool:
        """Forget bindings that are no more; whether there were any."""
        return bool(self.clear([guid for guid in self._known if guid not in guids]))

    def in_force(self, bindings: Iterable[Binding]) -> tuple[Binding, ...]:
        """The bindings that are called: without those that are off, and with `hold` where that was the measure.

        The same binding comes out as the same value each time: a process of its own goes on.
        """
        found: list[Binding] = []
        for binding in bindings:
            standing = self._known.get(binding.guid)
            measure = standing.measure if standing is not None else Measure.NONE
            # A person may have changed the role since.
            if measure is Measure.OFF and binding.role is Role.COSMETIC:
                continue
            holds = measure is Measure.HOLDS and binding.on_error is OnError.DEFER
            found.append(self._holding(binding) if holds else binding)
        return tuple(found)

    def _holding(self, binding: Binding) -> Binding:
        known = self._changed.get(binding.guid)
        if known is None or known[0] is not binding:
            known = (binding, msgspec.structs.replace(binding, on_error=OnError.HOLD))
            self._changed[binding.guid] = known
        return known[1]


def _measure(binding: Binding) -> Measure:
    match binding.role:
        case Role.COSMETIC:
            return Measure.OFF
        case Role.PROTECTIVE:
            # Where it holds or rejects already, that goes on.
            return Measure.HOLDS if binding.on_error is OnError.DEFER else Measure.NONE


class StandingUnreadable(Exception):
    """The file is there and cannot be used; the words say why."""


class _Stored(msgspec.Struct, frozen=True):
    version: int = 1
    bindings: tuple[Standing, ...] = ()


class StandingFile:
    """The state on disk: one small file, replaced in one step."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> tuple[Standing, ...]:
        """What was written last; nothing when there is no file.

        Raises:
            StandingUnreadable: it is damaged, or may not be read.
        """
        try:
            with self.path.open("rb") as file:
                octets = file.read(FILE_LIMIT + 1)
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise StandingUnreadable(f"{self.path}: {error.strerror or error}") from error
        try:
            stored = msgspec.json.decode(octets, type=_Stored)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise StandingUnreadable(f"{self.path}: {error}") from error
        if stored.version != 1:
            raise StandingUnreadable(f"{self.path}: written by another version ({stored.version})")
        return stored.bindings

    def write(self, standings: Iterable[Standing]) -> None:
        """Put it in place of the old one; durable when this returns. Blocks.

        Raises:
            OSError: the old one is there as it was.
        """
        fresh = self.path.with_name(f".{self.path.name}.new")
        fresh.unlink(missing_ok=True)  # a crash may have left one
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(fresh, flags, 0o600)
        try:
            view = memoryview(msgspec.json.encode(_Stored(bindings=tuple(standings))))
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        fresh.replace(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
