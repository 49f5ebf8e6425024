"""The table of events as Markdown: `docs/events.md` is checked against it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import Enum
from pathlib import Path

from lonedot.sinks.events import EVENTS, Event

__all__ = ["tables"]


def tables(_folder: Path) -> str:
    """One table for each event. The argument is what generators of documentation are given."""
    return "\n".join(line for event in Event for line in _table(event))


def _table(event: Event) -> Iterator[str]:
    facts = EVENTS[event]
    yield f"### `{event.value}`"
    yield ""
    yield "| | |"
    yield "|---|---|"
    yield f"| fires when | {facts.fires} |"
    yield f"| shows | `{facts.shows.value}`: {_list(facts.reads)} |"
    yield f"| verdicts | {', '.join(f'`{said.value.capitalize()}`' for said in _sorted(facts.says))} |"
    yield f"| edits | {_list(facts.effects, '`') or 'none'} |"
    yield f"| a rule may ask of | {_list(facts.rule, '`') or 'nothing'} |"
    yield f"| old names | {', '.join(f'`{name}`' for name in facts.old_names) or 'none'} |"
    yield ""


def _sorted(members: Iterable[Enum]) -> list[Enum]:
    """In the order in which their type lists them."""
    found = list(members)
    return [member for member in type(found[0]) if member in found] if found else []


def _list(members: Iterable[Enum], quote: str = "") -> str:
    return ", ".join(f"{quote}{member.value}{quote}" for member in _sorted(members))
