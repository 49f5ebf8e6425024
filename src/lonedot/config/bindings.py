"""The keys that a binding has wherever it is written: in a `[[sink]]` of the configuration, in a `[[binding]]` of the
registry. One description of each, and one way from a table to a `Row`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated

import msgspec

from lonedot.config import code
from lonedot.config import values as v
from lonedot.config.key import Key
from lonedot.message.edits import Effect
from lonedot.sinks.bindings import (
    MAX_PRIORITY,
    MAXIMUM_FAULTS,
    Isolation,
    Mode,
    OnDamage,
    OnError,
    Part,
    Role,
    Setting,
)
from lonedot.sinks.events import Event
from lonedot.sinks.registry import Origin, Row, Status, derived_guid

__all__ = ["SOURCE_NUMBER", "BindingKeys", "SourceKeys", "row_from"]

_MAX_NUMBER = 999_999
_MIB = 1024 * 1024
_BY_CODE = "what the sink's own code says"

SOURCE_NUMBER = v.whole(1, _MAX_NUMBER)


class SourceKeys(msgspec.Struct, frozen=True, kw_only=True):
    """A virtual server. Source 1 is always there."""

    number: Annotated[int, Key(SOURCE_NUMBER, "Its number, by which listeners and bindings name it.", "2")]
    name: Annotated[str, Key(v.label, "Its display name.", '"smtpsvc 2"', "`smtpsvc` and the number")] = ""

    @property
    def shown(self) -> str:
        return self.name or f"smtpsvc {self.number}"


class BindingKeys(msgspec.Struct, frozen=True, kw_only=True):
    """One binding, but for its code, its status and its properties."""

    name: Annotated[
        str,
        Key(
            v.label,
            "Its display name: in the ledger, in logs, in `lonedot why`, in every command.",
            '"XRecipientList"',
        ),
    ]
    guid: Annotated[
        str, Key(v.guid, "Its identity through changes of name.", '"{…}"', "derived from the name")
    ] = ""
    source: Annotated[
        int, Key(SOURCE_NUMBER, "The number of the virtual server that it belongs to.", "1")
    ] = 1
    event: Annotated[
        Event | None,
        Key(
            code.event,
            "When it is called: a name in the table of [events](events.md), ours or an old one.",
            '"OnArrival"',
            _BY_CODE,
        ),
    ] = None
    priority: Annotated[
        int | None,
        Key(
            v.whole(0, MAX_PRIORITY),
            "Low numbers fire first; equal ones by name. A number, never a text.",
            "28010",
            f"{_BY_CODE}, else 24575",
        ),
    ] = None
    rule: Annotated[
        str | None,
        Key(
            code.rule,
            "Which messages: `RCPT TO=pattern`, `MAIL FROM=pattern`, `EHLO=pattern`, several separated by `;` of which "
            "one is enough. A matching recipient is enough for the whole message.",
            '"RCPT TO=*@example.com"',
            f"{_BY_CODE}, else every message",
        ),
    ] = None
    reads: Annotated[
        tuple[Part, ...] | None,
        Key(
            v.many(v.one_of(Part)),
            "What it is shown: `envelope`, `header`, `body`. Reading a body that is not named here fails. A binding "
            "with the effect `body` is shown it in any case.",
            '["envelope", "header", "body"]',
            f"{_BY_CODE}, else envelope and header",
        ),
    ] = None
    effects: Annotated[
        tuple[Effect, ...] | None,
        Key(
            v.many(v.one_of(Effect)),
            "What it may change: `header`, `body`, `envelope`. With an empty list it only looks. Anything else it "
            "changes is undone.",
            '["header"]',
            _BY_CODE,
        ),
    ] = None
    role: Annotated[
        Role | None,
        Key(
            v.one_of(Role),
            "`cosmetic`: mail goes out without its work when it fails. `protective` (a scanner): mail is held when it "
            "fails. A scanner set to cosmetic lets mail pass unscanned.",
            '"cosmetic"',
            f"{_BY_CODE}, else `cosmetic`",
        ),
    ] = None
    on_damage: Annotated[
        OnDamage | None,
        Key(
            v.one_of(OnDamage),
            "What is done when it damages a message: `undo` sends it as it was before, `repair` mends it, `hold` and "
            "`reject` send nothing. A protective sink holds or rejects.",
            '"undo"',
            f"{_BY_CODE}, else `undo` for a cosmetic sink and `hold` for a protective one",
        ),
    ] = None
    on_error: Annotated[
        OnError | None,
        Key(
            v.one_of(OnError),
            "What is done when it raises, hangs or returns nonsense: `defer` answers 451 so that the client tries "
            "again, `skip` goes on without it (a cosmetic sink only), `reject`, or `hold`.",
            '"defer"',
            f"{_BY_CODE}, else `defer`",
        ),
    ] = None
    isolation: Annotated[
        Isolation,
        Key(
            v.one_of(Isolation),
            "Where its code runs: in the relay (`inline`), or in a process of its own (`process`). Code that you would "
            "not trust with the whole queue belongs in a process. A coroutine (`async def`) in the relay is always "
            "`task`: many calls at once.",
            '"process"',
        ),
    ] = Isolation.INLINE
    deadline: Annotated[
        timedelta,
        Key(
            v.duration(0.1, 300),
            "How long one call may take. A process is killed then and `on_error` says what becomes of the message; for "
            "an inline sink the relay itself is ended and started again. Senders wait for the reply meanwhile.",
            '"10s"',
        ),
    ] = timedelta(seconds=10)
    memory: Annotated[
        int,
        Key(
            v.size(64 * _MIB, 64 * 1024 * _MIB),
            "Address space of its process in octets. Too small, and it cannot load its libraries.",
            '"512 MiB"',
        ),
    ] = 512 * _MIB
    user: Annotated[
        str,
        Key(
            v.label,
            "The user as whom its process runs, when the relay runs as root. Otherwise the process may do all that the "
            "relay may.",
            '"nobody"',
            "that of the relay",
        ),
    ] = ""
    mode: Annotated[
        Mode,
        Key(
            v.one_of(Mode),
            "`live`, or `shadow`: it is shown live mail, and what it would have done is recorded and compared, never "
            "done. A message waits at most half a second for shadows in processes; one that runs inline takes the time "
            "it takes.",
            '"shadow"',
        ),
    ] = Mode.LIVE
    split: Annotated[
        bool | None,
        Key(
            v.boolean,
            "It is called for each recipient that the rule matches and shown that one alone; its edits are for the "
            "copy of that one. Each copy that differs is sent apart.",
            "true",
            f"{_BY_CODE}, else `false`",
        ),
    ] = None
    maximum_faults: Annotated[
        int,
        Key(
            v.whole(0, 1000),
            "After so many faults within an hour a cosmetic binding switches itself off until `lonedot sinks enable`; "
            "a protective one that deferred holds the messages that it fails on. 0: never.",
            "20",
        ),
    ] = MAXIMUM_FAULTS
    group: Annotated[
        str, Key(v.label, "Bindings that are enabled and disabled together.", '"XEXCH50"', "none")
    ] = ""


def row_from(
    keys: BindingKeys,
    sink: str,
    status: Status,
    origin: Origin,
    sink_properties: Mapping[str, Setting],
    source_properties: Mapping[str, Setting],
) -> Row:
    """The binding as it is registered."""
    return Row(
        guid=keys.guid or derived_guid(keys.name, keys.event, keys.source),
        name=keys.name,
        sink=sink,
        event=keys.event,
        source=keys.source,
        status=status,
        priority=keys.priority,
        rule=keys.rule,
        reads=keys.reads,
        effects=keys.effects,
        role=keys.role,
        on_damage=keys.on_damage,
        on_error=keys.on_error,
        isolation=keys.isolation,
        deadline_seconds=keys.deadline.total_seconds(),
        memory_octets=keys.memory,
        user=keys.user,
        mode=keys.mode,
        split=keys.split,
        maximum_faults=keys.maximum_faults,
        group=keys.group,
        source_properties=dict(source_properties),
        sink_properties=dict(sink_properties),
        origin=origin,
    )
