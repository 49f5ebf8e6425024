"""`@sink`: how a function or a class says what it is, and the defaults of its bindings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal, TypedDict, TypeVar, Unpack, cast, overload

import msgspec

from lonedot.message.edits import Effect
from lonedot.sinks.bindings import (
    DEFAULT_PRIORITY,
    MAX_PRIORITY,
    OnDamage,
    OnError,
    Part,
    Role,
    Setting,
    SinkCall,
    check_fit,
)
from lonedot.sinks.events import Event, event_named
from lonedot.sinks.hop import Hop
from lonedot.sinks.protocol import Session
from lonedot.sinks.rules import compile_rule
from lonedot.sinks.settings import SettingsFault, check_settings_type, typed
from lonedot.sinks.verdicts import Verdict
from lonedot.sinks.view import Message

__all__ = ["USUAL_READS", "HopEvent", "SessionEvent", "Sink", "sink"]

S = TypeVar("S")

USUAL_READS = frozenset({Part.ENVELOPE, Part.HEADER})
"""What every sink of messages is shown."""

SessionEvent = Literal[
    Event.CONNECT,
    Event.HELO,
    Event.AUTH,
    Event.VERB,
    Event.MAIL,
    Event.RCPT,
    Event.DATA,
    "connect",
    "OnConnect",
    "helo",
    "OnHeloCommand",
    "OnEhloCommand",
    "auth",
    "OnAuthCommand",
    "OnProcessAuthentication",
    "OnEndOfAuthentication",
    "verb",
    "OnInboundCommand",
    "OnHelpCommand",
    "OnNoopCommand",
    "OnRsetCommand",
    "mail",
    "OnMailCommand",
    "rcpt",
    "OnRcptCommand",
    "data",
    "OnDataCommand",
]
"""Where a sink is called with a `Session`: for whoever checks types. What counts is the table of events."""

HopEvent = Literal[
    Event.SESSION_START,
    Event.SESSION_END,
    "session-start",
    "OnSessionStart",
    "OnOpenConnection",
    "session-end",
    "OnSessionEnd",
    "OnCloseConnection",
]
"""Where a sink is called with a `Hop`: likewise."""

Prepare = Callable[[Mapping[str, Setting]], SinkCall]


class Sink(msgspec.Struct, frozen=True):
    """A sink with the defaults of its bindings. Call it like the function it wraps.

    A class is made anew for each such call; a binding keeps the one that it made.
    """

    name: str
    function: SinkCall
    """What it takes is in the table of events, see `Binding.call`."""
    priority: int
    rule: str
    effects: frozenset[Effect]
    role: Role
    on_damage: OnDamage | None
    on_error: OnError
    settings: type[object] | None = None
    """The type of its settings; None when it takes none."""
    prepare: Prepare | None = None
    """Makes the function of one argument from the settings of a binding; there when it is a class or takes settings."""
    event: Event = Event.ARRIVAL
    split: bool = False
    reads: frozenset[Part] = USUAL_READS

    def call_with(self, settings: Mapping[str, Setting]) -> SinkCall:
        """What a binding with these settings calls.

        Raises:
            SettingsFault: they are not those that the sink takes, or its class cannot be made with them.
        """
        return self.function if self.prepare is None else self.prepare(settings)

    def __call__(self, shown: Message | Session | Hop) -> Verdict:
        return self.function(cast(Message, shown))


class _Declared(TypedDict, total=False):
    """What any sink may say of itself."""

    priority: int
    rule: str
    effects: Iterable[Effect | str]
    role: Role | str
    on_damage: OnDamage | str | None
    on_error: OnError | str


class _MessageDeclared(_Declared, total=False):
    """What a sink of messages may say besides."""

    split: bool
    reads: Iterable[Part | str]


@overload
def sink(  # type: ignore[overload-overlap]  # a literal is told from any other text
    name: str, *, on: SessionEvent, **declared: Unpack[_Declared]
) -> Callable[[Callable[[Session], Verdict] | Callable[[], Callable[[Session], Verdict]]], Sink]: ...


@overload
def sink(  # type: ignore[overload-overlap]  # a literal is told from any other text
    name: str, *, settings: type[S], on: SessionEvent, **declared: Unpack[_Declared]
) -> Callable[[Callable[[Session, S], Verdict] | Callable[[S], Callable[[Session], Verdict]]], Sink]: ...


@overload
def sink(  # type: ignore[overload-overlap]  # a literal is told from any other text
    name: str, *, on: HopEvent, **declared: Unpack[_Declared]
) -> Callable[[Callable[[Hop], Verdict] | Callable[[], Callable[[Hop], Verdict]]], Sink]: ...


@overload
def sink(  # type: ignore[overload-overlap]  # a literal is told from any other text
    name: str, *, settings: type[S], on: HopEvent, **declared: Unpack[_Declared]
) -> Callable[[Callable[[Hop, S], Verdict] | Callable[[S], Callable[[Hop], Verdict]]], Sink]: ...


@overload
def sink(
    name: str, *, on: Event | str = Event.ARRIVAL, **declared: Unpack[_MessageDeclared]
) -> Callable[[Callable[[Message], Verdict] | Callable[[], Callable[[Message], Verdict]]], Sink]: ...


@overload
def sink(
    name: str, *, settings: type[S], on: Event | str = Event.ARRIVAL, **declared: Unpack[_MessageDeclared]
) -> Callable[[Callable[[Message, S], Verdict] | Callable[[S], Callable[[Message], Verdict]]], Sink]: ...


def sink(
    name: str,
    *,
    settings: type[object] | None = None,
    on: Event | str = Event.ARRIVAL,
    priority: int = DEFAULT_PRIORITY,
    rule: str = "",
    effects: Iterable[Effect | str] = (),
    role: Role | str = Role.COSMETIC,
    on_damage: OnDamage | str | None = None,
    on_error: OnError | str = OnError.DEFER,
    split: bool = False,
    reads: Iterable[Part | str] = (),
) -> Callable[..., Sink]:
    """Declare a sink: its name, event, priority, rule, and the effects it may have. For a function or a class.

    An edit outside `effects` is undone and booked against the binding. `on_damage` defaults to `undo` for the role
    `cosmetic` and `hold` for `protective`. `on` is any name in the table of events (`sinks.events`), which says whether
    the sink is called with a `Message`, a `Session` or a `Hop`. With `settings`, a dataclass or a `msgspec.Struct`, a
    function takes a second argument of that type: the settings of its binding, checked when the binding is made.

    A class is made once for each binding, with the settings when it takes them, and its `__call__` is called: what it
    keeps lasts until the configuration is taken anew or its process ends. It may be made to check settings alone, so
    making it costs little and does nothing outside.

    `reads`: a sink of messages that looks at the body says `reads={"body"}`; one with the effect `body` says so by
    that. With `split` it is called for each recipient that the rule matches, shown that one alone, and its edits are
    for the copy of that one.

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
    read = USUAL_READS | {Part(part) for part in reads}
    if Effect.BODY in declared:
        read |= {Part.BODY}
    check_fit(name, event, declared, compile_rule(rule), split)
    wanted_role = Role(role)
    damage = None if on_damage is None else OnDamage(on_damage)
    error = OnError(on_error)
    if settings is not None:
        check_settings_type(settings)

    def declare(code: Callable[..., object]) -> Sink:
        prepare = _preparation(code, settings)
        return Sink(
            name,
            cast(SinkCall, code) if prepare is None else lambda shown: prepare(shown.settings)(shown),
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
            read,
        )

    return declare


def _preparation(code: Callable[..., object], settings: type[object] | None) -> Prepare | None:
    """How the function of one argument is made from code; None: it is that function."""
    if isinstance(code, type):

        def make(given: Mapping[str, Setting]) -> SinkCall:
            arguments = () if settings is None else (typed(settings, given),)
            try:
                made: object = code(*arguments)
            except Exception as error:  # a class of the author's may do anything when it is made
                raise SettingsFault(
                    f"{code.__name__} cannot be made: {type(error).__name__}: {error}"
                ) from error
            if not callable(made):
                raise SettingsFault(f"{code.__name__} has no __call__, so nothing of it can be called")
            return cast(SinkCall, made)

        return make
    if settings is None:
        return None
    kind = settings

    def prepare(given: Mapping[str, Setting]) -> SinkCall:
        value = typed(kind, given)
        return cast(SinkCall, lambda shown: code(shown, value))

    return prepare
