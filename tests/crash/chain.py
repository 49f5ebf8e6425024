"""Bindings of every isolation for relays that are killed, and what a copy must show of them.

Each sink adds a field with its name and with the recipients that it saw: so a copy tells who worked on it, in which
order, and how often.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tests.system import transport_sinks

_MARK = re.compile(rb"(?m)^X-Mark: (.*?)\r?$")

BINDING = """
[[binding]]
name = "{name}"
sink = "transport_sinks.py:{sink}"
event = "{event}"
isolation = "{isolation}"
priority = {priority}
split = {split}
maximum_faults = 0
[binding.sink_properties]
name = "{name}"
log = "{log}"
armed = "{armed}"
at = "joe@dest.example"
"""


class Link(msgspec.Struct, frozen=True):
    """A binding. `sink` is a function of `transport_sinks`."""

    name: str
    sink: str
    event: str
    isolation: str
    split: bool = False


STEPS = (
    Link("eod", "mark", "end-of-data", "process"),
    Link("here", "mark", "arrival", "inline"),
    Link("arrival", "mark", "arrival", "process"),
    Link("split", "once", "arrival", "process", split=True),
    Link("behind", "mark", "after-resolve", "inline"),
    Link("route", "mark", "route", "process"),
)
"""For the steps of a message in transport."""

EVERYWHERE = (
    Link("eod", "mark", "end-of-data", "process"),
    Link("here", "mark", "arrival", "inline"),
    Link("arrival", "mark", "arrival", "process"),
    Link("split", "once", "arrival", "process", split=True),
    Link("leaves", "mark", "message-start", "process"),
    Link("told", "told", "outcome", "inline"),
)
"""From the end of the data to the outcome."""


def write_registry(folder: Path, chain: Sequence[Link]) -> Path:
    """A registry with the chain, and its code; where each sink writes, with `-NAME` behind it."""
    shutil.copy(transport_sinks.__file__, folder / "transport_sinks.py")
    log = folder / "keys"
    (folder / "sinks.toml").write_text(
        "".join(
            BINDING.format(
                name=link.name,
                sink=link.sink,
                event=link.event,
                isolation=link.isolation,
                priority=number,
                split=str(link.split).lower(),
                log=f"{log}-{link.name}",
                armed=folder / "armed",
            )
            for number, link in enumerate(chain)
        )
    )
    return log


def marks(head: bytes) -> tuple[str, ...]:
    """What sinks did to a copy, first to last."""
    return tuple(found.decode() for found in reversed(_MARK.findall(head)))


def work_of(
    chain: Sequence[Link], recipient: str, people: int, *, events: Sequence[str] = ()
) -> tuple[str, ...]:
    """What they must have done to the copy of one of so many recipients; `events`: at those alone."""
    done: list[str] = []
    is_split = False
    for link in chain:
        is_split = is_split or link.split
        if link.sink != "told" and (not events or link.event in events):
            done.append(f"{link.sink if link.split else link.name} {recipient if is_split else people}")
    return tuple(done)
