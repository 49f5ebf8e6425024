"""A binding ties an event to a sink: name, GUID, priority, rule, declared effects, and what damage or an error does."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping

import msgspec

from lonedot.message.edits import Effect
from lonedot.sinks.events import EVENTS, Event, Kind
from lonedot.sinks.rules import ANY_VERB, Command, Rule
from lonedot.sinks.verdicts import Verdict
from lonedot.sinks.view import Message

__all__ = [
    "DEADLINE_SECONDS",
    "DEFAULT_PRIORITY",
    "MAXIMUM_FAULTS",
    "MAX_PRIORITY",
    "MEMORY_OCTETS",
    "Binding",
    "Chains",
    "Isolation",
    "Mode",
    "OnDamage",
    "OnError",
    "OrderKey",
    "Part",
    "Role",
    "Setting",
    "SinkCall",
    "chains_of",
    "check_fit",
    "firing_order",
    "guid_for",
    "is_folded",
    "order_key",
]

DEFAULT_PRIORITY = 24575
MAX_PRIORITY = 32767
DEADLINE_SECONDS = 10.0
"""For one call."""
MEMORY_OCTETS = 512 * 1024 * 1024
"""Address space of a sink's process."""
MAXIMUM_FAULTS = 20
"""Faults within the window of `standing` after which a binding is no longer trusted."""

_NAMESPACE = uuid.UUID("5e9b3f0a-6d0c-5d1e-9a55-1c0d0e0f4c44")

Setting = str | int | float | bool
SinkCall = Callable[[Message], Verdict]


class Role(enum.Enum):
    COSMETIC = "cosmetic"
    """Adds a header, a footer: damage is undone and the mail goes out."""
    PROTECTIVE = "protective"
    """A scanner, anything that removes: damage, a violation or an error holds the message."""


class OnDamage(enum.Enum):
    UNDO = "undo"
    REPAIR = "repair"
    HOLD = "hold"
    REJECT = "reject"


class OnError(enum.Enum):
    DEFER = "defer"
    SKIP = "skip"
    REJECT = "reject"
    HOLD = "hold"


class Isolation(enum.Enum):
    """Where a sink's code runs."""

    INLINE = "inline"
    """In the relay itself: quick, and trusted. At its deadline the parent ends the relay and starts it again."""
    PROCESS = "process"
    """In a process of its own, which is killed when a call takes too long."""
    TASK = "task"
    """In the relay, many calls at once, which is for coroutines (`async def`); a call that is late is cancelled."""


class Part(enum.Enum):
    """What of a message a sink is shown. It says so beforehand: a body that nobody reads need not be carried."""

    ENVELOPE = "envelope"
    HEADER = "header"
    BODY = "body"


class Mode(enum.Enum):
    """Whether what a sink says counts."""

    LIVE = "live"
    SHADOW = "shadow"
    """It is shown live mail, and what it would have done is recorded and compared; nothing of it is ever applied."""


class Binding(msgspec.Struct, frozen=True):
    """One binding of an event."""

    name: str
    guid: str
    call: SinkCall
    """Where the event shows no content, it is called with a `Session` (`sinks.protocol`) in place of a `Message`."""
    sink_class: str
    """Where the code is: `package.module:attribute` or `file.py:attribute`."""
    priority: int = DEFAULT_PRIORITY
    rule: Rule | None = None
    effects: frozenset[Effect] = frozenset()
    role: Role = Role.COSMETIC
    on_damage: OnDamage = OnDamage.UNDO
    on_error: OnError = OnError.DEFER
    settings: Mapping[str, Setting] = {}
    event: Event = Event.ARRIVAL
    isolation: Isolation = Isolation.INLINE
    deadline_seconds: float = DEADLINE_SECONDS
    memory_octets: int = MEMORY_OCTETS
    user: str = ""
    """Whom a process runs as, where the relay is root; empty: as the relay."""
    mode: Mode = Mode.LIVE
    maximum_faults: int = MAXIMUM_FAULTS
    """See `standing`; 0: faults are counted, and nothing follows."""
    split: bool = False
    """It is called for each recipient apart, and what it does concerns the copy of that recipient."""
    source: int = 1
    """Number of the virtual server that it belongs to."""
    reads_body: bool = True
    """It is shown the body; else reading it is a fault of the sink."""
    close: Callable[[], Awaitable[None]] | None = None
    """Of a coroutine's object: lets go of what it keeps open. It may be called again afterwards."""
    signs: bool = False
    """It signs what it is shown: asked of a 7-bit copy, behind all that may still change it, whatever its priority."""


class Chains(msgspec.Struct, frozen=True):
    """All bindings, split by event once. Immutable: a message keeps the one it began with."""

    session: Mapping[Event, tuple[Binding, ...]] | None = None
    """Those asked before there is a message; None when there are none, so that asking costs one test."""
    received: tuple[Binding, ...] = ()
    """Those shown a message that came from outside, through a session or by POP3: of `end-of-data`, then of the
    transport events."""
    submitted: tuple[Binding, ...] = ()
    """Those shown any other message (Pickup): of the transport events."""
    has_apart: bool = False
    """Some of those that are shown a message are not called right here: processes and tasks."""
    revision: str = ""
    """Of configuration and registry; the ledger of each message names it. Empty: that of the session."""
    splits: bool = False
    """Some binding is called for each recipient."""
    delivery: Mapping[Event, tuple[Binding, ...]] | None = None
    """Those of delivery events; None when there are none."""
    asked: frozenset[bytes] = frozenset()
    """Commands that a session asks its sinks about before it obeys them, in upper case (`ANY_VERB`: all others)."""
    waits: bool = False
    """Some binding of a transport event is called only when the message is in custody."""
    routes: frozenset[str] | None = None
    """Names of the routes that a sink may redirect to; None: whatever it says."""
    signers: tuple[Binding, ...] = ()
    """Those of `message-start` that sign; they stand in `delivery` behind its others."""


def guid_for(name: str) -> str:
    """The GUID of a binding that names none: always the same for the same name (UUIDv5), in registry form."""
    return "{" + str(uuid.uuid5(_NAMESPACE, name)).upper() + "}"


_LAST = MAX_PRIORITY + 1
_RANK = {event: rank for rank, event in enumerate(Event)}


OrderKey = tuple[int, int, str, str]


def order_key(event: Event, priority: int, name: str, guid: str) -> OrderKey:
    """The place of a binding in the firing order of all."""
    return _RANK[event], priority, name.casefold(), guid


def firing_order(bindings: Iterable[Binding]) -> tuple[Binding, ...]:
    """By event; within one, who signs last; low priority first, ties by name, then GUID: a total order."""
    return tuple(
        sorted(
            bindings,
            key=lambda b: order_key(b.event, b.priority + (_LAST if b.signs else 0), b.name, b.guid),
        )
    )


def is_folded(binding: Binding) -> bool:
    """It may be called before a message is in custody, so that its entry is committed with the acceptance.

    At transport events that is code that runs here; the client does not wait for any other.
    """
    return binding.isolation is Isolation.INLINE or EVENTS[binding.event].kind is not Kind.TRANSPORT


def check_fit(
    name: str,
    event: Event,
    effects: Iterable[Effect],
    rule: Rule | None,
    split: bool = False,
    signs: bool = False,
) -> None:
    """A binding that could never do what it says is a mistake, not a binding.

    Raises:
        ValueError: the event takes no such edits, or fires before what the rule asks of is known; or it splits where
            there is no message, or what the copies of a message have in common; or it signs what others change behind
            it, or changes what it signs.
    """
    facts = EVENTS[event]
    effects = frozenset(effects)
    if signs and event is not Event.MESSAGE_START:
        raise ValueError(
            f"sink {name!r}: it signs, at event {event.value!r}: what comes behind would break the signature; "
            "use 'message-start'"
        )
    if signs and Effect.BODY in effects:
        raise ValueError(f"sink {name!r}: it signs, with effect 'body': use effects = ['header']")
    if split and not facts.shows_message:
        raise ValueError(
            f"sink {name!r}: split at event {event.value!r}: there is no message yet; use 'end-of-data' or 'arrival'"
        )
    if split and facts.kind is Kind.DELIVERY:
        raise ValueError(
            f"sink {name!r}: split at event {event.value!r}: copies are made before a message is delivered; "
            "use 'per-recipient', or 'arrival'"
        )
    if split and Effect.ENVELOPE in effects:
        raise ValueError(
            f"sink {name!r}: split with effect 'envelope': the copies of a message have one envelope; "
            "drop one of the two"
        )
    if undoable := set(effects) - facts.effects:
        names = ", ".join(sorted(effect.value for effect in undoable))
        if facts.kind is Kind.DELIVERY:
            why = "a message on its way takes no such edits; use 'arrival', or for header and body 'message-start'"
        else:
            why = "there is no message to edit yet; use 'end-of-data' or 'arrival'"
        raise ValueError(f"sink {name!r}: effects {names} at event {event.value!r}: {why}")
    if rule is not None and Command.VERB in rule.asks - facts.rule:
        raise ValueError(
            f"sink {name!r}: rule {rule.text!r} at event {event.value!r} names a command that only event 'verb' is "
            "asked about; use EHLO, MAIL FROM or RCPT TO, or that event"
        )
    if rule is not None and (early := rule.asks - facts.rule):
        names = ", ".join(sorted(command.value for command in early))
        raise ValueError(
            f"sink {name!r}: rule {rule.text!r} at event {event.value!r}: {names} is not known yet; use a later event"
        )


def chains_of(
    bindings: Iterable[Binding], revision: str = "", routes: frozenset[str] | None = None
) -> Chains:
    """Split bindings by event, each part in firing order."""
    asked: dict[Event, tuple[Binding, ...]] = {}
    departing: dict[Event, tuple[Binding, ...]] = {}
    received: list[Binding] = []
    for binding in firing_order(bindings):
        facts = EVENTS[binding.event]
        if facts.kind is Kind.DELIVERY:
            departing[binding.event] = (*departing.get(binding.event, ()), binding)
        elif facts.shows_message:
            received.append(binding)
        else:
            asked[binding.event] = (*asked.get(binding.event, ()), binding)
    submitted = tuple([binding for binding in received if EVENTS[binding.event].kind is Kind.TRANSPORT])
    splits = any(binding.split for binding in received)
    has_apart = any(binding.isolation is not Isolation.INLINE for binding in received)
    return Chains(
        asked or None,
        tuple(received),
        submitted,
        has_apart,
        revision,
        splits,
        departing or None,
        _asked_about(asked),
        not all(map(is_folded, submitted)),
        routes,
        tuple([binding for binding in departing.get(Event.MESSAGE_START, ()) if binding.signs]),
    )


def _asked_about(asked: Mapping[Event, Iterable[Binding]]) -> frozenset[bytes]:
    """Commands that no session may obey before its sinks were asked."""
    verbs = [verb for binding in asked.get(Event.VERB, ()) for verb in _verbs_of(binding.rule)]
    if Event.HELO in asked:
        verbs += (b"EHLO", b"HELO")
    return frozenset(verbs)


def _verbs_of(rule: Rule | None) -> frozenset[bytes]:
    return frozenset((ANY_VERB,)) if rule is None else rule.verbs
