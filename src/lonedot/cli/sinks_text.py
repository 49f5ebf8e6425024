"""Bindings as text: the list, one of them, differences, and what a test of them did."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC

import msgspec

from lonedot.admin.sinks import Bindings, ListedBinding
from lonedot.diagnosis.tell import moment
from lonedot.message.edits import Effect
from lonedot.sinks.bindings import Mode, Part, Role
from lonedot.sinks.events import Event
from lonedot.sinks.registry import Origin
from lonedot.sinks.standing import Measure

__all__ = ["differing_lines", "effects_in_words", "event_in_words", "heading_of", "list_lines", "show_lines"]

_HEADINGS = ("PRIORITY", "NAME", "STATUS", "EFFECTS", "ROLE", "RULE", "SINK")


def event_in_words(event: Event | None) -> str:
    """`?` where the code would say."""
    return event.value if event is not None else "?"


def heading_of(listing: Bindings, binding: ListedBinding) -> str:
    """What stands above the bindings of one event: with the virtual server, where there are several."""
    event = event_in_words(binding.event)
    if len(listing.sources) < 2:
        return event
    name = next((source.name for source in listing.sources if source.number == binding.source), "")
    return f"source {binding.source} ({name}): {event}"


def effects_in_words(effects: Sequence[Effect | Part] | None) -> str:
    """`header,body`; `-` for none, `?` where the code would say."""
    if effects is None:
        return "?"
    return ",".join(effect.value for effect in effects) or "-"


def list_lines(listing: Bindings) -> Iterator[str]:
    """Every event that has bindings, in the order of a message's life, each in firing order."""
    if not listing.bindings:
        yield "no bindings"
    rows = [_row(binding) for binding in listing.bindings]
    widths = [max(len(row[n]) for row in (_HEADINGS, *rows)) for n in range(len(_HEADINGS) - 1)]
    at = ""
    for binding, row in zip(listing.bindings, rows, strict=True):
        here = heading_of(listing, binding)
        if here != at:
            if at:
                yield ""
            yield here
            yield _columns(_HEADINGS, widths)
            at = here
        yield _columns(row, widths)
    where = "in force" if listing.running else "as the files say; no relay runs"
    if listing.registry:
        yield ""
        yield f"{listing.registry}, revision {listing.registry_revision}, {where}"


def _columns(row: Sequence[str], widths: Sequence[int]) -> str:
    fixed = [text.ljust(width) for text, width in zip(row, widths, strict=False)]
    return "  ".join(["", *fixed, row[-1]]).rstrip()


def _row(binding: ListedBinding) -> tuple[str, ...]:
    status = binding.status.value
    if binding.origin is Origin.CONFIG:
        status += " (config)"
    if binding.mode is Mode.SHADOW:
        status += ", in shadow"
    if binding.is_enabled:
        status = _MEASURES[_measure_of(binding)].format(status, _faults(binding))
    return (
        _priority(binding).rjust(len(_HEADINGS[0])),
        binding.name,
        status,
        effects_in_words(binding.effects),
        binding.role.value if binding.role is not None else "?",
        binding.rule or "-",
        binding.sink,
    )


def _priority(binding: ListedBinding) -> str:
    """With a `?` where the code would say it and is not loaded."""
    is_known = binding.priority_is_written or binding.role is not None
    return str(binding.priority) if is_known else f"{binding.priority}?"


_MEASURES = {
    Measure.NONE: "{0}",
    Measure.OFF: "off by itself: {1}",
    Measure.HOLDS: "{0}, holds what it fails on: {1}",
}


def _measure_of(binding: ListedBinding) -> Measure:
    standing = binding.standing
    if standing is None or (standing.measure is Measure.OFF and binding.role is Role.PROTECTIVE):
        return Measure.NONE  # a person made it protective since: it is called again
    return standing.measure


def _faults(binding: ListedBinding) -> str:
    """`20 faults since 2026-11-22 14:00:00 +0000`."""
    standing = binding.standing
    if standing is None:
        return "none"
    count = len(standing.faults)
    return f"{count} fault{'s' if count != 1 else ''} since {moment(standing.since, UTC)}"


def show_lines(binding: ListedBinding) -> Iterator[str]:
    """All of one binding."""
    seconds = f"{binding.deadline_seconds:g}s"
    pairs = [
        ("name", binding.name),
        ("guid", binding.guid),
        ("sink", binding.sink),
        ("event", event_in_words(binding.event)),
        ("source", str(binding.source)),
        ("status", binding.status.value),
        ("priority", _priority(binding)),
        ("rule", binding.rule or "every message"),
        ("reads", effects_in_words(binding.reads)),
        ("effects", effects_in_words(binding.effects)),
        ("role", binding.role.value if binding.role is not None else "?"),
        ("on_damage", binding.on_damage.value if binding.on_damage is not None else "?"),
        ("on_error", binding.on_error.value if binding.on_error is not None else "?"),
        ("split", "?" if binding.split is None else "yes" if binding.split else "no"),
        ("isolation", binding.isolation.value),
        ("deadline", seconds),
        ("mode", binding.mode.value),
        ("maximum_faults", str(binding.maximum_faults) if binding.maximum_faults else "0 (never off)"),
        ("faults", _faults(binding)),
        ("last fault", binding.standing.words if binding.standing is not None else "none"),
        ("group", binding.group or "none"),
        ("stands in", binding.origin.value),
    ]
    for key, text in pairs:
        yield f"{key:<15} {text}"
    for title, bag in (
        ("source_properties", binding.source_properties),
        ("sink_properties", binding.sink_properties),
    ):
        for name, value in bag.items():
            yield f"{title}.{name} = {msgspec.json.encode(value).decode()}"
    if None in (binding.event, binding.role, binding.on_damage, binding.on_error, binding.effects):
        yield "?: the code says, and it is not loaded here"


def differing_lines(before: Sequence[ListedBinding], after: Sequence[ListedBinding]) -> Iterator[str]:
    """`-` what is gone, `+` what is new, `~` what differs, in the order of the second list; what is gone comes last."""
    left = {binding.guid: binding for binding in before}
    by_name = {(binding.name, binding.event, binding.source): binding for binding in before}
    matched: set[str] = set()
    for new in after:
        old = left.get(new.guid) or by_name.get((new.name, new.event, new.source))
        if old is None or old.guid in matched:
            yield f"+ {new.name} {new.guid}: {new.sink}, {new.status.value}, priority {new.priority}"
            continue
        matched.add(old.guid)
        for key in ListedBinding.__struct_fields__:
            was, now = getattr(old, key), getattr(new, key)
            if was != now and key not in ("origin", "standing"):
                yield f"~ {new.name}: {key}: {_value(was)} -> {_value(now)}"
    for gone in before:
        if gone.guid not in matched:
            yield f"- {gone.name} {gone.guid}: {gone.sink}, {gone.status.value}, priority {gone.priority}"


def _value(value: object) -> str:
    return msgspec.json.encode(value).decode()
