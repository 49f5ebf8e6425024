"""`@sink`: how a function says what it is, and the defaults of its bindings."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from lonedot.message.edits import Effect
from lonedot.sinks.bindings import DEFAULT_PRIORITY, MAX_PRIORITY, OnDamage, OnError, Role, SinkCall
from lonedot.sinks.rules import compile_rule
from lonedot.sinks.verdicts import Verdict
from lonedot.sinks.view import Message

__all__ = ["Sink", "sink"]


class Sink(msgspec.Struct, frozen=True):
    """A sink with the defaults of its bindings. Call it like the function it wraps."""

    name: str
    function: SinkCall
    priority: int
    rule: str
    effects: frozenset[Effect]
    role: Role
    on_damage: OnDamage | None
    on_error: OnError

    def __call__(self, message: Message) -> Verdict:
        return self.function(message)


def sink(
    name: str,
    *,
    on: str = "arrival",
    priority: int = DEFAULT_PRIORITY,
    rule: str = "",
    effects: Iterable[Effect | str] = (),
    role: Role | str = Role.COSMETIC,
    on_damage: OnDamage | str | None = None,
    on_error: OnError | str = OnError.DEFER,
) -> Callable[[SinkCall], Sink]:
    """Declare a sink: its name, event, priority, rule, and the effects it may have.

    An edit outside `effects` is undone and booked against the binding. `on_damage` defaults to `undo` for the role
    `cosmetic` and `hold` for `protective`.

    Raises:
        ValueError: a value is not one of those named; the words say which are.
    """
    if on != "arrival":
        raise ValueError(f"sink {name!r}: event {on!r} is not known; use on='arrival'")
    if not 0 <= priority <= MAX_PRIORITY:
        raise ValueError(f"sink {name!r}: priority {priority} is not in 0 … {MAX_PRIORITY}")
    compile_rule(rule)
    declared = frozenset(Effect(effect) for effect in effects)
    wanted_role = Role(role)
    damage = None if on_damage is None else OnDamage(on_damage)
    error = OnError(on_error)

    def wrap(function: SinkCall) -> Sink:
        return Sink(name, function, priority, rule, declared, wanted_role, damage, error)

    return wrap
