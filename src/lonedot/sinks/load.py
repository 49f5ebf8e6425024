"""Find a sink's code by file or import path, and make its binding."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

from lonedot.message.edits import Effect
from lonedot.sinks.bindings import (
    DEADLINE_SECONDS,
    MAXIMUM_FAULTS,
    MEMORY_OCTETS,
    Binding,
    Isolation,
    Mode,
    OnDamage,
    OnError,
    Part,
    Role,
    Setting,
    check_fit,
    guid_for,
)
from lonedot.sinks.events import EVENTS, Event, event_named
from lonedot.sinks.rules import compile_rule
from lonedot.sinks.settings import SettingsFault
from lonedot.sinks.sink import AnySink, Sink, declared_by

__all__ = ["GROUP", "SinkNotLoaded", "bind", "load_class", "load_file", "load_import", "offered_as"]

GROUP = "lonedot.sinks"
"""Entry point group in which a package offers sinks."""


class SinkNotLoaded(Exception):
    """The code of a sink cannot be used; the words say what, where and what to do."""


class _FreshLoader(SourceFileLoader):
    """Compiles the file as it is now, without the cache of bytecode.

    The cache goes by size and whole seconds: it would give old code for a file that was changed at once.
    """

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def load_class(sink_class: str) -> Sink:
    """The sink at `file.py`, `file.py:attribute` or `package.module:attribute`.

    Raises:
        SinkNotLoaded: there is none, or its code does not run.
    """
    place, _, attribute = sink_class.rpartition(":")
    if sink_class.endswith(".py"):
        return load_file(Path(sink_class))
    if place.endswith(".py"):
        return load_file(Path(place), attribute)
    return load_import(sink_class)


def offered_as(name: str) -> tuple[str, ...]:
    """Import paths of the sinks that installed packages offer under that name. None of their code is run."""
    return tuple(sorted({point.value for point in metadata.entry_points(group=GROUP, name=name)}))


def load_import(path: str) -> Sink:
    """The sink at `package.module:attribute`, or that which an installed package offers under a name without a dot.

    Raises:
        SinkNotLoaded: no such module or attribute, no such name, or it is not a sink.
    """
    module_name, colon, attribute = path.partition(":")
    if not colon and "." not in path:
        offered = offered_as(path)
        if not offered:
            raise SinkNotLoaded(f"no installed package offers a sink {path!r} (entry point group {GROUP!r})")
        if len(offered) > 1:
            raise SinkNotLoaded(f"several packages offer a sink {path!r}: write one of {', '.join(offered)}")
        return load_import(f"{offered[0]}:" if ":" not in offered[0] else offered[0])
    if not colon or not attribute:
        raise SinkNotLoaded(f"{path!r} names no attribute: write `package.module:attribute`")
    try:
        module = importlib.import_module(module_name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise SinkNotLoaded(f"cannot import {module_name!r}: {type(error).__name__}: {error}") from error
    return _pick(module, attribute, path)


def load_file(path: Path, attribute: str = "") -> Sink:
    """The sink in a Python file; without `attribute` the file must hold exactly one.

    Raises:
        SinkNotLoaded: the file is missing, does not run, or holds no such sink.
    """
    if not path.is_file():
        raise SinkNotLoaded(f"there is no file {str(path)!r}")
    module_name = f"lonedot_sink_{path.stem}_{abs(hash(str(path.resolve()))):x}"
    loader = _FreshLoader(module_name, str(path)) if path.suffix == ".py" else None
    spec = importlib.util.spec_from_file_location(module_name, path, loader=loader)
    if spec is None or spec.loader is None:
        raise SinkNotLoaded(f"{str(path)!r} is not a Python file: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        del sys.modules[module_name]
        raise SinkNotLoaded(f"{str(path)!r} does not load: {type(error).__name__}: {error}") from error
    return _pick(module, attribute, str(path))


def _pick(module: ModuleType, attribute: str, path: str) -> Sink:
    if not attribute:
        found = [sink for value in vars(module).values() if (sink := declared_by(value)) is not None]
        if len(found) != 1:
            names = ", ".join(sorted(sink.name for sink in found)) or "none"
            raise SinkNotLoaded(
                f"{path!r} must hold exactly one @sink, or be named as `file.py:function`; found: {names}"
            )
        return found[0]
    value = getattr(module, attribute, None)
    if value is None:
        raise SinkNotLoaded(f"{path!r}: {module.__name__} has no {attribute!r}")
    sink = declared_by(value)
    if sink is None:
        raise SinkNotLoaded(f"{path!r} is not a sink: decorate the function or class with @sink(…)")
    return sink


def bind(
    code: AnySink,
    /,
    *,
    sink_class: str,
    name: str = "",
    guid: str = "",
    priority: int | None = None,
    rule: str | None = None,
    effects: Iterable[Effect | str] | None = None,
    role: Role | str | None = None,
    on_damage: OnDamage | str | None = None,
    on_error: OnError | str | None = None,
    settings: Mapping[str, Setting] | None = None,
    isolation: Isolation | str = Isolation.INLINE,
    deadline_seconds: float = DEADLINE_SECONDS,
    memory_octets: int = MEMORY_OCTETS,
    user: str = "",
    event: Event | str | None = None,
    mode: Mode | str = Mode.LIVE,
    maximum_faults: int | None = None,
    split: bool | None = None,
    reads: Iterable[Part | str] | None = None,
    source: int = 1,
) -> Binding:
    """A binding from a sink's own defaults and what the configuration says otherwise.

    A protective binding never undoes or repairs: it holds or rejects. `event` must show what the sink's own does: a
    function of a message cannot be called with a session.

    Raises:
        ValueError: a combination that would weaken a protective sink, an event that does not suit, a faulty rule, or
            settings (`SettingsFault`) that the sink does not take.
        TypeError: it is a class that was not declared to be a sink.
    """
    sink = declared_by(code)
    if sink is None:
        raise TypeError(f"{code!r} is not a sink: decorate it with @sink(…)")
    wanted_role = sink.role if role is None else Role(role)
    default_damage = OnDamage.HOLD if wanted_role is Role.PROTECTIVE else OnDamage.UNDO
    damage = OnDamage(on_damage) if on_damage is not None else (sink.on_damage or default_damage)
    if wanted_role is Role.PROTECTIVE and damage not in (OnDamage.HOLD, OnDamage.REJECT):
        raise ValueError(
            f"on_damage = {damage.value!r} with role 'protective': damage by a protective sink holds or rejects; "
            "use 'hold' or 'reject'"
        )
    error = OnError(on_error) if on_error is not None else sink.on_error
    if wanted_role is Role.PROTECTIVE and error is OnError.SKIP:
        raise ValueError("on_error = 'skip' with role 'protective' would let mail past a scanner that failed")
    chosen_name = name or sink.name
    chosen_event = _event_for(sink, chosen_name, event)
    chosen_mode = Mode(mode)
    if chosen_mode is Mode.SHADOW and not EVENTS[chosen_event].shows_message:
        raise ValueError(
            f"sink {chosen_name!r}: mode 'shadow' at event {chosen_event.value!r}: there is no message whose ledger "
            "could say what it would have done; use 'end-of-data' or 'arrival'"
        )
    compiled = compile_rule(sink.rule if rule is None else rule)
    declared = sink.effects if effects is None else frozenset(Effect(effect) for effect in effects)
    splits = sink.split if split is None else split
    read = sink.reads if reads is None else frozenset(Part(part) for part in reads)
    # Who changes the body is shown it.
    reads_body = Effect.BODY in declared or Part.BODY in read
    check_fit(chosen_name, chosen_event, declared, compiled, splits, sink.signs)
    wanted = Isolation(isolation)
    if sink.is_coroutine and wanted is Isolation.INLINE:
        wanted = Isolation.TASK
    elif wanted is Isolation.TASK and not sink.is_coroutine:
        raise ValueError(
            f"sink {chosen_name!r}: isolation 'task' is for a coroutine (async def); use 'inline' or 'process'"
        )
    try:
        call = sink.call_with(settings or {})
    except SettingsFault as fault:
        raise SettingsFault(f"sink {chosen_name!r}: {fault}", fault.key) from fault
    return Binding(
        name=chosen_name,
        guid=guid or guid_for(chosen_name),
        call=call,
        sink_class=sink_class,
        priority=sink.priority if priority is None else priority,
        rule=compiled,
        effects=declared,
        role=wanted_role,
        on_damage=damage,
        on_error=error,
        settings=dict(settings or {}),
        isolation=wanted,
        deadline_seconds=deadline_seconds,
        memory_octets=memory_octets,
        user=user,
        event=chosen_event,
        mode=chosen_mode,
        maximum_faults=MAXIMUM_FAULTS if maximum_faults is None else maximum_faults,
        split=splits,
        source=source,
        reads_body=reads_body,
        close=getattr(call, "close", None) if sink.is_coroutine and wanted is Isolation.TASK else None,
        signs=sink.signs,
    )


def _event_for(sink: Sink, name: str, event: Event | str | None) -> Event:
    """The event of a binding.

    Raises:
        ValueError: it does not suit the sink.
    """
    if event is None:
        chosen = sink.event
    else:
        chosen = event if isinstance(event, Event) else event_named(event)
    takes, shows = EVENTS[sink.event].shows, EVENTS[chosen].shows
    if takes is not shows:
        raise ValueError(
            f"sink {name!r} takes a {takes.value} (it says on={sink.event.value!r}); "
            f"event {chosen.value!r} shows a {shows.value}"
        )
    return chosen
