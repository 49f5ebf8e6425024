"""`@sink`: how a function or a class says what it is, and the defaults of its bindings."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Literal, Protocol, TypeAlias, TypedDict, TypeVar, Unpack, cast, overload

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

__all__ = ["USUAL_READS", "AnySink", "HopEvent", "SessionEvent", "Sink", "declared_by", "sink"]

S = TypeVar("S")
Said: TypeAlias = Verdict | Awaitable[Verdict]
"""What a sink gives back: a verdict, or as a coroutine (`async def`) one in a while."""

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

_MARK = "__lonedot_sink__"
"""Attribute of a class that was declared to be a sink; one that inherits from it is none by that."""

Prepare = Callable[[Mapping[str, Setting]], SinkCall]


class Sink(msgspec.Struct, frozen=True):
    """A sink with the defaults of its bindings. Call it like the function it wraps."""

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
    is_coroutine: bool = False
    """Calling it gives a coroutine."""
    signs: bool = False
    """It signs what it is shown, see `Binding.signs`."""

    def call_with(self, settings: Mapping[str, Setting]) -> SinkCall:
        """What a binding with these settings calls.

        Raises:
            SettingsFault: they are not those that the sink takes, or its class cannot be made with them.
        """
        return self.function if self.prepare is None else self.prepare(settings)

    def __call__(self, shown: Message | Session | Hop) -> Verdict:
        return self.function(cast(Message, shown))


AnySink: TypeAlias = Sink | type[object]
"""A sink, or a class that was declared to be one."""


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
    signs: bool


class _OfMessages(Protocol):
    def __call__(self, message: Message, /) -> Said: ...


class _OfSessions(Protocol):
    def __call__(self, session: Session, /) -> Said: ...


class _OfHops(Protocol):
    def __call__(self, hop: Hop, /) -> Said: ...


MessageClass = TypeVar("MessageClass", bound=_OfMessages)
SessionClass = TypeVar("SessionClass", bound=_OfSessions)
HopClass = TypeVar("HopClass", bound=_OfHops)
Function_contra = TypeVar("Function_contra", contravariant=True)


class _DeclaresMessages(Protocol[Function_contra]):
    @overload
    def __call__(  # type: ignore[overload-overlap]  # a class is told from a function
        self, code: type[MessageClass], /
    ) -> type[MessageClass]: ...
    @overload
    def __call__(self, code: Function_contra, /) -> Sink: ...


class _DeclaresSessions(Protocol[Function_contra]):
    @overload
    def __call__(  # type: ignore[overload-overlap]  # a class is told from a function
        self, code: type[SessionClass], /
    ) -> type[SessionClass]: ...
    @overload
    def __call__(self, code: Function_contra, /) -> Sink: ...


class _DeclaresHops(Protocol[Function_contra]):
    @overload
    def __call__(  # type: ignore[overload-overlap]  # a class is told from a function
        self, code: type[HopClass], /
    ) -> type[HopClass]: ...
    @overload
    def __call__(self, code: Function_contra, /) -> Sink: ...


@overload
def sink(  # type: ignore[overload-overlap]  # a literal is told from any other text
    name: str, *, on: SessionEvent, **declared: Unpack[_Declared]
) -> _DeclaresSessions[Callable[[Session], Said]]: ...


@overload
def sink(  # type: ignore[overload-overlap]  # a literal is told from any other text
    name: str, *, settings: type[S], on: SessionEvent, **declared: Unpack[_Declared]
) -> _DeclaresSessions[Callable[[Session, S], Said]]: ...


@overload
def sink(  # type: ignore[overload-overlap]  # a literal is told from any other text
    name: str, *, on: HopEvent, **declared: Unpack[_Declared]
) -> _DeclaresHops[Callable[[Hop], Said]]: ...


@overload
def sink(  # type: ignore[overload-overlap]  # a literal is told from any other text
    name: str, *, settings: type[S], on: HopEvent, **declared: Unpack[_Declared]
) -> _DeclaresHops[Callable[[Hop, S], Said]]: ...


@overload
def sink(
    name: str, *, on: Event | str = Event.ARRIVAL, **declared: Unpack[_MessageDeclared]
) -> _DeclaresMessages[Callable[[Message], Said]]: ...


@overload
def sink(
    name: str, *, settings: type[S], on: Event | str = Event.ARRIVAL, **declared: Unpack[_MessageDeclared]
) -> _DeclaresMessages[Callable[[Message, S], Said]]: ...


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
    signs: bool = False,
) -> Callable[..., object]:
    """Declare a sink: its name, event, priority, rule, and the effects it may have. For a function or a class.

    An edit outside `effects` is undone and booked against the binding. `on_damage` defaults to `undo` for the role
    `cosmetic` and `hold` for `protective`. `on` is any name in the table of events (`sinks.events`), which says whether
    the sink is called with a `Message`, a `Session` or a `Hop`. With `settings`, a dataclass or a `msgspec.Struct`, a
    function takes a second argument of that type: the settings of its binding, checked when the binding is made.

    A class stays what it is. One of it is made for each binding, with the settings when it takes them, and called with
    what the event shows: what it keeps lasts until the configuration is taken anew or its process ends. It may be made
    only to check settings, so making it costs little and does nothing outside.

    `reads`: a sink of messages that looks at the body says `reads={"body"}`; one with the effect `body` says so by
    that. With `split` it is called for each recipient that the rule matches, shown that one alone, and its edits are
    for the copy of that one. One that `signs` what it is shown is asked behind all others of `message-start`, of a copy
    that is 7-bit already, and may change the header section alone.

    A function, or the `__call__` of a class, may be `async def`: it is for code that waits for others, and many calls
    are under way at once. It must not do anything long without waiting. A class may have `async def close(self)`, which
    lets go of what the object keeps open; the object may be called again after that.

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
    check_fit(name, event, declared, compile_rule(rule), split, signs)
    wanted_role = Role(role)
    damage = None if on_damage is None else OnDamage(on_damage)
    error = OnError(on_error)
    if settings is not None:
        check_settings_type(settings)

    def declare(code: Callable[..., object]) -> object:
        prepare = _preparation(code, settings)
        made = Sink(
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
            inspect.iscoroutinefunction(code.__call__ if isinstance(code, type) else code),
            signs,
        )
        if not isinstance(code, type):
            return made
        setattr(code, _MARK, made)
        return code

    return declare


def declared_by(value: object) -> Sink | None:
    """The sink that a value is: a `Sink`, or a class that was declared to be one; None: it is none."""
    if isinstance(value, Sink):
        return value
    found = vars(value).get(_MARK) if isinstance(value, type) else None
    return found if isinstance(found, Sink) else None


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
