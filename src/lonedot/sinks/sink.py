"""`@sink`: how a function says what it is, and the defaults of its bindings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal, TypeVar, cast, overload

import msgspec

from lonedot.message.edits import Effect
from lonedot.sinks.bindings import (
    DEFAULT_PRIORITY,
    MAX_PRIORITY,
    OnDamage,
    OnError,
    Role,
    Setting,
    SinkCall,
    check_fit,
)
from lonedot.sinks.events import Event, event_named
from lonedot.sinks.protocol import ProtocolCall, Session
from lonedot.sinks.rules import compile_rule
from lonedot.sinks.settings import check_settings_type, typed
from lonedot.sinks.verdicts import Verdict
from lonedot.sinks.view import Message

__all__ = ["ProtocolEvent", "Sink", "sink"]

S = TypeVar("S")

ProtocolEvent = Literal[
    Event.CONNECT,
    Event.HELO,
    Event.VERB,
    Event.MAIL,
    Event.RCPT,
    Event.DATA,
    "connect",
    "OnConnect",
    "helo",
    "OnHeloCommand",
    "OnEhloCommand",
    "verb",
    "OnInboundCommand",
    "mail",
    "OnMailCommand",
    "rcpt",
    "OnRcptCommand",
    "data",
    "OnDataCommand",
]
"""Where a sink is called with a `Session`: for whoever checks types. What counts is the table of events."""

Prepare = Callable[[Mapping[str, Setting]], SinkCall]


class Sink(msgspec.Struct, frozen=True):
    """A sink with the defaults of its bindings. Call it like the function it wraps."""

    name: str
    function: SinkCall
    """At an event that shows no message it takes a `Session`, see `Binding.call`."""
    priority: int
    rule: str
    effects: frozenset[Effect]
    role: Role
    on_damage: OnDamage | None
    on_error: OnError
    settings: type[object] | None = None
    """The type of its second argument; None when it takes the message alone."""
    prepare: Prepare | None = None
    """Makes the function of one argument from the settings of a binding; there when `settings` is."""
    event: Event = Event.ARRIVAL
    split: bool = False

    def call_with(self, settings: Mapping[str, Setting]) -> SinkCall:
        """What a binding with these settings calls.

        Raises:
            SettingsFault: they are not those that the sink takes.
        """
        return self.function if self.prepare is None else self.prepare(settings)

    def __call__(self, shown: Message | Session) -> Verdict:
        return self.function(cast(Message, shown))


@overload
def sink(  # type: ignore[overload-overlap]  # a literal is told from any other text
    name: str,
    *,
    on: ProtocolEvent,
    priority: int = DEFAULT_PRIORITY,
    rule: str = "",
    effects: Iterable[Effect | str] = (),
    role: Role | str = Role.COSMETIC,
    on_damage: OnDamage | str | None = None,
    on_error: OnError | str = OnError.DEFER,
) -> Callable[[ProtocolCall], Sink]: ...


@overload
def sink(  # type: ignore[overload-overlap]  # a literal is told from any other text
    name: str,
    *,
    settings: type[S],
    on: ProtocolEvent,
    priority: int = DEFAULT_PRIORITY,
    rule: str = "",
    effects: Iterable[Effect | str] = (),
    role: Role | str = Role.COSMETIC,
    on_damage: OnDamage | str | None = None,
    on_error: OnError | str = OnError.DEFER,
) -> Callable[[Callable[[Session, S], Verdict]], Sink]: ...


@overload
def sink(
    name: str,
    *,
    on: Event | str = Event.ARRIVAL,
    priority: int = DEFAULT_PRIORITY,
    rule: str = "",
    effects: Iterable[Effect | str] = (),
    role: Role | str = Role.COSMETIC,
    on_damage: OnDamage | str | None = None,
    on_error: OnError | str = OnError.DEFER,
    split: bool = False,
) -> Callable[[SinkCall], Sink]: ...


@overload
def sink(
    name: str,
    *,
    settings: type[S],
    on: Event | str = Event.ARRIVAL,
    priority: int = DEFAULT_PRIORITY,
    rule: str = "",
    effects: Iterable[Effect | str] = (),
    role: Role | str = Role.COSMETIC,
    on_damage: OnDamage | str | None = None,
    on_error: OnError | str = OnError.DEFER,
    split: bool = False,
) -> Callable[[Callable[[Message, S], Verdict]], Sink]: ...


def sink(
    name: str,
    *,
    settings: type[S] | None = None,
    on: Event | str = Event.ARRIVAL,
    priority: int = DEFAULT_PRIORITY,
    rule: str = "",
    effects: Iterable[Effect | str] = (),
    role: Role | str = Role.COSMETIC,
    on_damage: OnDamage | str | None = None,
    on_error: OnError | str = OnError.DEFER,
    split: bool = False,
) -> (
    Callable[[SinkCall], Sink]
    | Callable[[Callable[[Message, S], Verdict]], Sink]
    | Callable[[ProtocolCall], Sink]
    | Callable[[Callable[[Session, S], Verdict]], Sink]
):
    """Declare a sink: its name, event, priority, rule, and the effects it may have.

    An edit outside `effects` is undone and booked against the binding. `on_damage` defaults to `undo` for the role
    `cosmetic` and `hold` for `protective`. With `settings`, a dataclass or a `msgspec.Struct`, the function takes a
    second argument of that type: the settings of its binding, checked when the binding is made. `on` is any name in the
    table of events (`sinks.events`); at an event that shows no message the function is called with a `Session`. With
    `split` it is called for each recipient that the rule matches, shown that one alone, and its edits are for the copy
    of that one.

    Raises:
        ValueError: a value is not one of those named; the words say which are.
        TypeError: `settings` is neither a dataclass nor a `msgspec.Struct`.
    """
    try:
        event = on if isinstance(on, Event) else event_named(on)
    except ValueError as unknown:
        raise ValueError(f"sink {name!r}: {unknown}") from None
    if not 0 <= priority <= MAX_PRIORITY:
        raise ValueError(f"sink {name!r}: priority {priority} is not in 0 … {MAX_PRIORITY}")
    declared = frozenset(Effect(effect) for effect in effects)
    check_fit(name, event, declared, compile_rule(rule), split)
    wanted_role = Role(role)
    damage = None if on_damage is None else OnDamage(on_damage)
    error = OnError(on_error)

    def declare(function: SinkCall, prepare: Prepare | None = None) -> Sink:
        return Sink(
            name,
            function,
            priority,
            rule,
            declared,
            wanted_role,
            damage,
            error,
            settings,
            prepare,
            event,
            split,
        )

    if settings is None:
        return declare
    check_settings_type(settings)
    kind = settings

    def wrap(function: Callable[[Message, S], Verdict]) -> Sink:
        def prepare(given: Mapping[str, Setting]) -> SinkCall:
            value = typed(kind, given)
            return lambda message: function(message, value)

        return declare(lambda message: prepare(message.settings)(message), prepare)

    return wrap
