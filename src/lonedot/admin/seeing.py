"""What a person wants to see of a relay: its figures, one screen of what runs, waits and broke, and its log.

Values; the operations are in `seeing_operations`. Who runs the relay satisfies `Seer`; with the relay down, the screen
is made from the spool and the event log alone.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import msgspec

from lonedot.evidence.events import Event, EventKind
from lonedot.observability.levels import LogLevel
from lonedot.observability.metrics import Figures
from lonedot.queue.lanes import HopStatus
from lonedot.reception.pop3_account import AccountStatus
from lonedot.spool.interface import Listed, MessageState

__all__ = [
    "Broken",
    "Door",
    "Health",
    "LogLine",
    "LogLines",
    "LogsArguments",
    "Screen",
    "Seer",
    "Waiting",
    "Worker",
    "advice_of",
    "broken_of",
    "command_of",
    "order_hops",
    "waiting_of",
]

_MAX_WORDS = 200


class Worker(msgspec.Struct, frozen=True):
    """One process."""

    pid: int
    since: float
    sessions: int
    loop_lag_seconds: float
    last_commit_at: float
    """0: nothing was written yet."""
    fault: str = ""
    """Why it cannot write the spool; empty when it can."""
    number: int = 0
    """Counted from 0; also that of its part of the spool."""


class Door(msgspec.Struct, frozen=True):
    """A listener."""

    name: str
    address: str
    sessions: int


class Waiting(msgspec.Struct, frozen=True):
    """Messages that wait, or are held, for the same reason."""

    state: MessageState
    reason: str
    count: int
    example: str
    """Id of one of them."""
    next_at: float
    """When the first of them is tried again; 0: not by itself."""
    command: str


class Broken(msgspec.Struct, frozen=True):
    """Events of one kind within the last day."""

    kind: EventKind
    count: int
    last_at: float
    last_id: str
    words: str
    """Of the last one."""
    command: str
    """Ready to be run; empty when there is none."""
    advice: str = ""
    """What a person can do, in words."""


class Screen(msgspec.Struct, frozen=True):
    """Everything that `lonedot status` shows."""

    running: bool
    asked_at: float
    counts: dict[str, int]
    oldest_at: float
    """When the oldest message that is not finished was accepted; 0: there is none."""
    next_due: float
    waiting: tuple[Waiting, ...]
    looked_at: int
    """How many messages the reasons were counted over."""
    broken: tuple[Broken, ...]
    hostname: str = ""
    version: str = ""
    revision: str = ""
    workers: tuple[Worker, ...] = ()
    doors: tuple[Door, ...] = ()
    hops: tuple[HopStatus, ...] = ()
    """Next hops that are not open, those with most mail first."""
    figures: Figures = Figures()
    mailboxes: tuple[AccountStatus, ...] = ()
    """POP3 accounts."""
    missing: tuple[str, ...] = ()
    """Workers that did not answer, in words; what they have is not in it."""


class Health(msgspec.Struct, frozen=True):
    """Whether mail can be taken: the answer of `/healthz`."""

    live: bool
    ready: bool
    why: tuple[str, ...]
    """Why it is not ready, and which workers do not run."""
    loop_lag_seconds: float
    last_commit_at: float
    workers: int = 1
    """How many answered."""


class LogLine(msgspec.Struct, frozen=True):
    number: int
    """Counted by the worker that wrote it."""
    line: str
    """As it was written: an object of JSON, or a line for people."""
    worker: int = 0


class LogsArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    words: str
    """Usually an id; lines that hold it are wanted."""
    after: Mapping[int, int] = {}
    """By worker, the number of the last line known."""


class LogLines(msgspec.Struct, frozen=True):
    lines: tuple[LogLine, ...]
    last: Mapping[int, int]
    """By worker; to be given as `after` the next time."""


class Seer(Protocol):
    """What only the running relay can tell."""

    def figures(self) -> Figures: ...

    def screen(self, bare: Screen) -> Screen:
        """`bare` with what is known of the processes."""
        ...

    def health(self) -> Health: ...

    @property
    def number(self) -> int:
        """Of this worker."""
        ...

    def lines(self, words: bytes, after: int, limit: int) -> tuple[int, Sequence[tuple[int, bytes]]]:
        """Number of the last line of the log, and the kept lines that hold those words."""
        ...


def order_hops(hops: Iterable[HopStatus]) -> tuple[HopStatus, ...]:
    """Those with most mail first."""
    return tuple(sorted(hops, key=lambda hop: (-(hop.ready + hop.parked), hop.route, hop.destination)))


def waiting_of(rows: Iterable[Listed]) -> tuple[Waiting, ...]:
    """Rows of the queue put together by why they wait; what is most comes first."""
    groups: dict[tuple[MessageState, str], list[Listed]] = {}
    for row in rows:
        groups.setdefault((row.state, _reason(row)), []).append(row)
    found = [_group(state, reason, alike) for (state, reason), alike in groups.items()]
    return tuple(sorted(found, key=lambda one: (-one.count, one.state.value, one.reason)))


def _group(state: MessageState, reason: str, rows: Sequence[Listed]) -> Waiting:
    due = [row.next_at for row in rows if row.next_at and state is MessageState.QUEUED]
    example = rows[0].id
    match state:
        case MessageState.HELD:
            command = f"lonedot queue release {example}"
        case MessageState.QUEUED if reason != _UNTRIED:
            command = f"lonedot queue retry {example}"
        case _:
            command = f"lonedot why {example}"
    return Waiting(state, reason, len(rows), example, min(due, default=0.0), command)


_UNTRIED = "not tried yet"


def _reason(row: Listed) -> str:
    if row.put_off:
        return f"{row.waits_for}: {row.put_off}"[:_MAX_WORDS]
    if row.waits_for:
        return f"waits for sink {row.waits_for}"
    last = next((words for _, status, words in row.recipients if status == "waiting" and words), "")
    return (row.reason or last or _UNTRIED)[:_MAX_WORDS]


_COMMAND = re.compile(r"lonedot [^;,]+")


def advice_of(event: Event) -> str:
    """What a person can do about an event, in words and commands."""
    binding = event.fields.get("binding")
    advice = event.kind.facts.action.replace("{id}", event.id or "ID")
    return advice.replace("NAME", shlex.quote(binding)) if isinstance(binding, str) and binding else advice


def command_of(event: Event) -> str:
    """The command that acts on an event: what its kind says first, else the story of the message."""
    found = _COMMAND.search(advice_of(event))
    if found is not None and (event.id or "{id}" not in event.kind.facts.action):
        return found[0]
    return f"lonedot why {event.id}" if event.id else ""


def broken_of(events: Iterable[Event]) -> tuple[Broken, ...]:
    """Warnings and errors by kind, errors first, then what is most."""
    groups: dict[EventKind, list[Event]] = {}
    for event in events:
        if event.kind.facts.level in (LogLevel.WARNING, LogLevel.ERROR):
            groups.setdefault(event.kind, []).append(event)
    found = [
        Broken(
            kind,
            len(alike),
            alike[-1].at,
            alike[-1].id,
            alike[-1].words[:_MAX_WORDS],
            command_of(alike[-1]),
            advice_of(alike[-1]),
        )
        for kind, alike in groups.items()
    ]
    return tuple(
        sorted(found, key=lambda one: (-one.kind.facts.level.number, -one.count, one.kind.facts.number))
    )
