"""Antivirus: every message is shown to clamd, and what it finds does not go on.

Rules a change here must keep:
1. What no scanner has called clean goes on only where a policy of the operator says so (`oversize`, `unreachable`).
2. What was found infected never goes on by such a policy.
3. A scanner that fails is asked last for a while, not never: with one scanner alone it is asked each time.
"""

from __future__ import annotations

import asyncio
import enum
import random
from collections.abc import AsyncGenerator, Callable

import msgspec

from lonedot.message.edits import AnyEdit, Edit
from lonedot.observability import log
from lonedot.observability.levels import LogLevel
from lonedot.sinks.bindings import Role
from lonedot.sinks.builtin.antivirus_clamd import (
    Answer,
    Clean,
    Found,
    Place,
    ScannerFault,
    TooLarge,
    ask_version,
    places_from,
    scan,
    streamed,
)
from lonedot.sinks.builtin.antivirus_strip import NotStripped, Scan, stripped
from lonedot.sinks.sink import sink
from lonedot.sinks.verdicts import Defer, Discard, Hold, Next, Reject, Verdict
from lonedot.sinks.view import Message

__all__ = ["Antivirus", "AntivirusSettings", "Choice", "OnInfected", "Policy"]

LARGEST = 100 * 1024 * 1024
"""clamd's own default of StreamMaxLength."""
SECONDS_LIMIT = 3600
WORDS_LIMIT = 400
LIMITS_EXCEEDED = "Heuristics.Limits.Exceeded"
"""What clamd finds with `AlertExceedsMax yes` in what it did not look at because of its limits."""

Octets = Callable[[], AsyncGenerator[bytes, None]]
"""The octets to be scanned, from the first one on, as often as they are wanted."""


class OnInfected(enum.Enum):
    """What becomes of an infected message."""

    REJECT = "reject"
    HOLD = "hold"
    QUARANTINE = "quarantine"
    """Held, and called so."""
    DISCARD = "discard"
    STRIP = "strip"
    """The infected part is replaced by a note; held where that cannot be."""


class Policy(enum.Enum):
    """What becomes of a message that was not scanned."""

    DEFER = "defer"
    HOLD = "hold"
    GO_ON = "pass"


class Choice(enum.Enum):
    """Which scanner is asked first."""

    ORDER = "order"
    RANDOM = "random"


class AntivirusSettings(msgspec.Struct, frozen=True):
    """The settings of a binding."""

    scanners: str
    """`unix:/path` and `host:port`, separated by commas."""
    choose: Choice = Choice.ORDER
    on_infected: OnInfected = OnInfected.REJECT
    oversize: Policy = Policy.HOLD
    unreachable: Policy = Policy.DEFER
    largest: int = LARGEST
    """Octets; a larger message is `oversize` without being sent to a scanner."""
    header: str = ""
    """Name of a field that says what came of it; empty: none."""
    connect_seconds: float = 3.0
    scan_seconds: float = 60.0
    """For one scanner to take a message and to answer."""
    rest_seconds: float = 30.0
    """For which a scanner that failed is asked last."""

    def __post_init__(self) -> None:
        places_from(self.scanners)
        for name in ("connect_seconds", "scan_seconds", "rest_seconds"):
            if not 0 < getattr(self, name) <= SECONDS_LIMIT:
                raise ValueError(
                    f"{name} = {getattr(self, name)}: write seconds above 0, at most {SECONDS_LIMIT}"
                )
        if self.largest < 1:
            raise ValueError(f"largest = {self.largest}: write octets, at least 1")
        if self.header:
            Edit.add_field(self.header, "clean")


class NoScanner(Exception):
    """None of them has answered; the words say why of each."""


@sink(
    "Antivirus",
    settings=AntivirusSettings,
    on="end-of-data",
    priority=28000,
    effects={"header", "body"},
    role=Role.PROTECTIVE,
)
class Antivirus:
    """Shows the message to the first scanner that answers, and does what the settings say."""

    def __init__(self, settings: AntivirusSettings) -> None:
        self._settings = settings
        self._scanners = _Scanners(settings)

    async def __call__(self, message: Message) -> Verdict:
        settings = self._settings
        if message.size > settings.largest:
            return self._oversize(
                message, f"it has {message.size} octets, and at most {settings.largest} are scanned"
            )
        try:
            answer = await self._scanners.ask(lambda: _whole(message))
        except NoScanner as none:
            return self._unscanned(
                message, settings.unreachable, "no virus scanner answers", str(none), "scanner away"
            )
        match answer:
            case Clean():
                return Next(self._told("clean", message))
            case TooLarge():
                return self._oversize(message, "it is larger than the scanner takes")
            case Found(signature=signature) if signature.startswith(LIMITS_EXCEEDED):
                return self._oversize(message, f"it is beyond the limits of the scanner ({signature})")
            case Found(signature=signature):
                return await self._infected(message, signature)

    async def _infected(self, message: Message, signature: str) -> Verdict:
        wanted = self._settings.on_infected
        log.event(
            "antivirus.found", LogLevel.WARNING, id=message.id, signature=signature, action=wanted.value
        )
        match wanted:
            case OnInfected.REJECT:
                return Reject(f"infected with {signature}", 550, "5.7.1")
            case OnInfected.HOLD:
                return Hold(f"infected with {signature}")
            case OnInfected.QUARANTINE:
                return Hold(f"quarantine: infected with {signature}")
            case OnInfected.DISCARD:
                return Discard(f"infected with {signature}")
            case OnInfected.STRIP:
                return await self._stripped(message, signature)

    async def _stripped(self, message: Message, signature: str) -> Verdict:
        ask: Scan = self._scanners.ask
        try:
            edits, removed = await stripped(message, ask)
        except NotStripped as why:
            return Hold(f"infected with {signature}, and not stripped: {why}")
        except NoScanner as none:
            return Hold(f"infected with {signature}, and not stripped: {none}"[:WORDS_LIMIT])
        return Next([*edits, *self._told(f"removed {removed} infected with {signature}", message)])

    def _oversize(self, message: Message, why: str) -> Verdict:
        return self._unscanned(
            message, self._settings.oversize, "too large for the virus scanner", why, "too large"
        )

    def _unscanned(self, message: Message, policy: Policy, what: str, why: str, short: str) -> Verdict:
        match policy:
            case Policy.DEFER:
                # The words go to the client: nothing of where the scanners are.
                return Defer(f"{what}; try again later")
            case Policy.HOLD:
                return Hold(f"not scanned: {what}: {why}"[:WORDS_LIMIT])
            case Policy.GO_ON:
                log.event(
                    "antivirus.not-scanned",
                    LogLevel.WARNING,
                    id=message.id,
                    words=f"{what}: {why}"[:WORDS_LIMIT],
                )
                return Next(self._told(f"not scanned: {short}", message))

    def _told(self, result: str, message: Message) -> list[AnyEdit]:
        """The field, where the settings name one. One that came with the message is somebody else's word."""
        name = self._settings.header
        if not name:
            return []
        removed: list[AnyEdit] = [Edit.remove_field(name)] if message.headers.has(name) else []
        return [*removed, Edit.add_field(name, result)]


class _Scanners:
    """The scanners of a binding, and which of them rest."""

    def __init__(self, settings: AntivirusSettings) -> None:
        self._settings = settings
        self._places = places_from(settings.scanners)
        self._rests: dict[Place, float] = {}
        """Until when, on the clock of the loop."""
        self._up: set[Place] = set()
        """Those whose version was written to the log since they last failed."""

    async def ask(self, octets: Octets) -> Answer:
        """What the first of them says that answers.

        Raises:
            NoScanner: none does.
        """
        settings = self._settings
        faults = []
        for place in self._order():
            try:
                answer = await scan(place, octets(), settings.connect_seconds, settings.scan_seconds)
            except ScannerFault as fault:
                self._fell(place, str(fault))
                faults.append(f"{place}: {fault}")
                continue
            await self._stood(place)
            return answer
        raise NoScanner("; ".join(faults))

    def _order(self) -> list[Place]:
        """Those that are well first; the others by the time at which they have rested."""
        now = asyncio.get_running_loop().time()
        well = [place for place in self._places if self._rests.get(place, 0.0) <= now]
        if self._settings.choose is Choice.RANDOM:
            random.shuffle(well)
        rest = [place for place in self._places if place not in well]
        return well + sorted(rest, key=self._rests.__getitem__)

    def _fell(self, place: Place, words: str) -> None:
        is_news = place in self._up or place not in self._rests
        self._up.discard(place)
        self._rests[place] = asyncio.get_running_loop().time() + self._settings.rest_seconds
        if is_news:
            log.event("antivirus.scanner-down", LogLevel.WARNING, scanner=str(place), words=words)

    async def _stood(self, place: Place) -> None:
        if place in self._up:
            return
        self._up.add(place)
        self._rests.pop(place, None)
        try:
            version = await ask_version(place, self._settings.connect_seconds)
        except ScannerFault as fault:
            version = f"unknown: {fault}"
        log.event("antivirus.scanner-up", LogLevel.INFO, scanner=str(place), version=version)


def _whole(message: Message) -> AsyncGenerator[bytes, None]:
    return streamed(message.content.head, message.body_chunks(), message.content.body.size)
