"""Archive, intersite and the program bridge in a running relay: what lies on the disk, leaves, and is said of it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from lonedot.sinks.bindings import Binding, Setting
from lonedot.sinks.builtin.archive import archive
from lonedot.sinks.builtin.intersite import Intersite
from lonedot.sinks.builtin.program import ProgramFilter
from lonedot.sinks.load import bind
from lonedot.sinks.sink import AnySink
from lonedot.spool.interface import MessageState, RecipientStatus
from lonedot.testing.relay import running_relay
from tests.peers.strict_sink import StrictSink
from tests.system.talk import MESSAGE, finished, first_config, submit, until

EXACT = "_IsmService@5f3c._msdcs.example.com"
USER = "nobody" if os.geteuid() == 0 else ""
TAGGING = "/usr/bin/sed 's/^Subject: /Subject: [x] /'"


def bound(
    sink: AnySink,
    settings: Mapping[str, Setting],
    name: str,
    event: str | None = None,
    effects: Sequence[str] | None = None,
    priority: int | None = None,
) -> Binding:
    return bind(
        sink,
        sink_class=f"tests:{name}",
        name=name,
        settings=settings,
        event=event,
        effects=effects,
        priority=priority,
        deadline_seconds=30.0,
    )


def copies(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.glob("*.eml"))]


async def test_copies_as_received_and_as_sent(tmp_path: Path) -> None:
    bindings = [
        bound(archive, {"folder": str(tmp_path / "in")}, "in"),
        bound(ProgramFilter, {"command": TAGGING, "user": USER, "returns": "message"}, "tag"),
        bound(archive, {"folder": str(tmp_path / "out"), "envelope": False}, "out", "message-start"),
        bound(archive, {"folder": str(tmp_path / "sent"), "envelope": False}, "sent", "outcome"),
    ]
    with StrictSink() as hop:
        async with running_relay(tmp_path, first_config(hop.port), bindings=bindings) as relay:
            id = await submit(relay, MESSAGE, "b@example.org")
            stored = await finished(relay, id)
            (arrival,) = hop.wait_for(1)
    (received,) = copies(tmp_path / "in")
    assert received.startswith(b"X-Envelope-From: <c@office.example>\r\nX-Envelope-To: <b@example.org>\r\n")
    assert received.endswith(MESSAGE)
    assert b"[x]" not in received
    assert copies(tmp_path / "out") == copies(tmp_path / "sent") == [arrival.content]
    assert b"\r\nSubject: [x] " in arrival.content
    assert [entry.binding for entry in stored.ledger if entry.binding in ("in", "tag")] == ["in", "tag"]


async def test_mail_for_the_exact_address_is_consumed_and_others_get_theirs(tmp_path: Path) -> None:
    binding = bound(Intersite, {"folder": str(tmp_path / "taken")}, "ism")
    with StrictSink() as hop:
        async with running_relay(tmp_path, first_config(hop.port), bindings=[binding]) as relay:
            id = await submit(relay, MESSAGE, "b@example.org", EXACT)
            stored = await finished(relay, id)
            (arrival,) = hop.wait_for(1)
    assert arrival.recipients == (b"b@example.org",)
    (taken,) = copies(tmp_path / "taken")
    assert taken.endswith(MESSAGE)
    assert [state.status for state in stored.recipients] == [
        RecipientStatus.DELIVERED,
        RecipientStatus.DELETED,
    ]
    assert any(re.fullmatch(r"filed as .*\.eml", entry.words) for entry in stored.ledger)


async def test_what_cannot_be_handed_over_waits_in_custody(tmp_path: Path) -> None:
    place = tmp_path / "mounted later"
    binding = bound(Intersite, {"folder": str(place / "taken")}, "ism")
    with StrictSink() as hop:
        async with running_relay(tmp_path, first_config(hop.port), bindings=[binding]) as relay:
            id = await submit(relay, MESSAGE, EXACT)
            stored = await until(relay, id, lambda s: s.transport is not None and s.transport.deferrals == 1)
            assert stored.state is MessageState.QUEUED
            place.mkdir()
            await relay.spool.retry([id], relay.clock.now())
            relay.scheduler.kick()
            stored = await finished(relay, id)
    assert len(copies(place / "taken")) == 1
    assert [state.status for state in stored.recipients] == [RecipientStatus.DELETED]
    assert hop.arrivals == []
