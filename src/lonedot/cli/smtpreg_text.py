"""The listing of the old tool: two spaces for each step, no empty line, both bags always, braces balanced.

The old tool showed the bindings of OnArrival alone; other events have a block of their own here, and only when they
have bindings. Bindings stand in the order of their GUIDs, as they did there: for the order in which they fire there
is `lonedot sinks list`.
"""

from __future__ import annotations

from collections.abc import Iterator

from lonedot.admin.sinks import Bindings, ListedBinding
from lonedot.sinks.bindings import Setting
from lonedot.sinks.events import EVENTS, Event

__all__ = ["enum_lines"]


_ORDER: tuple[Event | None, ...] = (
    Event.ARRIVAL,
    *(event for event in Event if event is not Event.ARRIVAL),
    None,
)


def enum_lines(listing: Bindings) -> Iterator[str]:
    """All sources with all their bindings."""
    for source in listing.sources:
        yield f"Source {source.guid} {{"
        yield f"  DisplayName = {source.name}"
        for event in _ORDER:
            bindings = [
                binding
                for binding in listing.bindings
                if binding.source == source.number and binding.event is event
            ]
            if bindings or event is Event.ARRIVAL:
                yield f"  {_name(event)} Sinks {{"
                for binding in sorted(bindings, key=lambda binding: binding.guid):
                    yield from _binding(binding)
                yield "  }"
        yield "}"


def _name(event: Event | None) -> str:
    if event is None:
        return "?"  # its code says, which is not loaded
    old_names = EVENTS[event].old_names
    return old_names[0] if old_names else event.value


def _binding(binding: ListedBinding) -> Iterator[str]:
    yield f"    Binding {binding.guid} {{"
    yield f"      DisplayName = {binding.name}"
    yield f"      SinkClass = {binding.sink}"
    yield f"      Status = {'Enabled' if binding.is_enabled else 'Disabled'}"
    source_bag: dict[str, Setting] = {}
    if binding.rule:
        source_bag["Rule"] = binding.rule
    if binding.priority_is_written or binding.is_enabled:
        source_bag["Priority"] = binding.priority
    yield from _bag("SourceProperties", {**source_bag, **binding.source_properties})
    yield from _bag("SinkProperties", binding.sink_properties)
    yield "    }"


def _bag(title: str, bag: dict[str, Setting]) -> Iterator[str]:
    yield f"      {title} {{"
    for name, value in bag.items():
        yield f"        {name} = {value}"
    yield "      }"
