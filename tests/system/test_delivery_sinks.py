"""Sinks of delivery events in the running relay, here and in processes of their own."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from lonedot.admin.octets import octets_of
from lonedot.admin.values import Form, Octets, Remark
from lonedot.app import Relay
from lonedot.evidence.events import EventKind
from lonedot.message.ledger import Action
from lonedot.sinks.bindings import Binding, Isolation, guid_for
from lonedot.sinks.load import bind, load_class
from lonedot.sinks.standing import Measure
from lonedot.spool.interface import MessageState, RecipientStatus, Stored
from lonedot.testing.relay import running_relay
from tests.peers.strict_sink import StrictSink
from tests.system.talk import MESSAGE, eventually, finished, first_config, reports_of, submit, until
from tests.unit.delivery.peer import Peer, running

SINKS = Path(__file__).with_name("delivery_sinks.py")
BOTH = pytest.mark.parametrize("isolation", [Isolation.INLINE, Isolation.PROCESS], ids=lambda i: i.value)
ANNA, BLOCKED = "anna@dest.example", "blocked@dest.example"
KEPT = 'keep_content = "all"'


def bound(
    name: str,
    isolation: Isolation,
    log: Path | None = None,
    *,
    deadline: float = 60.0,
    on_error: str | None = None,
    maximum_faults: int = 0,
    source: int = 1,
) -> Binding:
    sink_class = f"{SINKS}:{name}"
    return bind(
        load_class(sink_class),
        sink_class=sink_class,
        isolation=isolation,
        settings={} if log is None else {"log": str(log)},
        deadline_seconds=deadline,
        on_error=on_error,
        maximum_faults=maximum_faults,
        source=source,
    )


def events_of(relay: Relay, kind: EventKind) -> list[str]:
    relay.events.flush()
    return [event.words for event in relay.events.read() if event.kind is kind]


async def sent(relay: Relay, stored: Stored) -> tuple[bytes, list[Remark]]:
    pieces = [piece async for piece in octets_of(relay.spool, stored, Form.SENT, 0, ANNA)]
    return (
        b"".join(piece.octets for piece in pieces if isinstance(piece, Octets)),
        [piece for piece in pieces if isinstance(piece, Remark)],
    )


@BOTH
async def test_a_message_meets_every_event_of_its_delivery(tmp_path: Path, isolation: Isolation) -> None:
    log = tmp_path / "log"
    names = ("start", "stamp", "recipient", "late", "end", "track", "desk")
    bindings = [bound(name, isolation, log) for name in names]
    with StrictSink() as receiver:
        toml = first_config(receiver.port, server=KEPT)
        async with running_relay(tmp_path, toml, bindings=bindings) as relay:
            id = await submit(relay, MESSAGE, ANNA, BLOCKED)
            stored = await finished(relay, id)
            await eventually(lambda: reports_of(relay, id))
            (report,) = reports_of(relay, id)
            octets, remarks = await sent(relay, stored)
    assert {state.recipient.address.text: state.status for state in stored.recipients} == {
        ANNA: RecipientStatus.DELIVERED,
        BLOCKED: RecipientStatus.FAILED,
    }
    lines = log.read_text().splitlines()
    own = lines[: lines.index("dsn failed") + 1]
    assert own == [
        "session-start out 127.0.0.1 0",
        "message-start 2",
        f"per-recipient {ANNA}",
        f"per-recipient {BLOCKED}",
        "before-data [250]",
        "outcome ['delivered', 'failed']",
        "dsn failed",
    ]
    assert "session-end True" in lines
    arrival = next(arrival for arrival in receiver.arrivals if arrival.recipients == (ANNA.encode(),))
    assert arrival.content == b"X-Hop: 127.0.0.1\r\n" + arrival.content.partition(b"\r\n")[2]
    assert octets == arrival.wire
    assert not any(remark.is_fault for remark in remarks)
    (attempt,) = stored.attempts
    assert sorted(entry.event for entry in attempt.suffix) == [
        "before-data",
        "message-start",
        "outcome",
        "per-recipient",
        "per-recipient",
    ]
    assert all(entry.revision for entry in attempt.suffix)
    assert [entry.event for entry in report.ledger] == ["dsn"]
    assert receiver.faults == []


@BOTH
async def test_damage_at_message_start_is_undone_and_named(tmp_path: Path, isolation: Isolation) -> None:
    with StrictSink() as receiver:
        toml = first_config(receiver.port, server=KEPT)
        bindings = [bound("faulty", isolation, maximum_faults=20)]
        async with running_relay(tmp_path, toml, bindings=bindings) as relay:
            stored = await finished(relay, await submit(relay))
            octets, remarks = await sent(relay, stored)
            standing = relay._standing.of(guid_for("faulty"))
            damaged = events_of(relay, EventKind.SINK_DAMAGED)
    (arrival,) = receiver.arrivals
    assert arrival.content.endswith(b"\r\nfirst\r\n.second\r\n")
    assert octets == arrival.wire
    assert not any(remark.is_fault for remark in remarks)
    (entry,) = stored.attempts[0].suffix
    assert (entry.binding, entry.fault) == ("faulty", "damage")
    assert entry.action in (Action.REDUCED, Action.UNDONE)
    assert standing is not None and len(standing.faults) == 1
    assert len(damaged) == 1
    assert receiver.faults == []


async def test_a_process_that_is_killed_costs_an_attempt_and_no_message(tmp_path: Path) -> None:
    with StrictSink() as receiver:
        toml = first_config(receiver.port)
        bindings = [bound("dies", Isolation.PROCESS, on_error="defer")]
        async with running_relay(tmp_path, toml, bindings=bindings) as relay:
            id = await submit(relay)
            stored = await until(relay, id, lambda one: bool(one.attempts))
            assert stored.state is MessageState.QUEUED
            assert stored.attempts[0].suffix[0].fault == "died"
            assert events_of(relay, EventKind.SINK_FAILED)
    assert receiver.arrivals == []


async def test_a_kill_from_outside_is_survived(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with StrictSink() as receiver:
        binding = bound("stamp", Isolation.PROCESS, log)
        async with running_relay(tmp_path, first_config(receiver.port), bindings=[binding]) as relay:
            await finished(relay, await submit(relay))
            pid = relay.hosts.host(binding).pid
            os.kill(pid, signal.SIGKILL)
            await eventually(lambda: relay.hosts.host(binding).pid not in (0, pid))
            await finished(relay, await submit(relay))
    assert [arrival.content.startswith(b"X-Hop: ") for arrival in receiver.arrivals] == [True, True]


async def test_a_sink_that_sleeps_costs_its_deadline_and_is_skipped(tmp_path: Path) -> None:
    with StrictSink() as receiver:
        bindings = [bound("sleeps", Isolation.PROCESS, deadline=0.2, on_error="skip")]
        async with running_relay(tmp_path, first_config(receiver.port), bindings=bindings) as relay:
            stored = await finished(relay, await submit(relay))
    (entry,) = stored.attempts[0].suffix
    assert (entry.fault, entry.action) == ("deadline", Action.SKIPPED)
    assert len(receiver.arrivals) == 1


@BOTH
async def test_a_sink_of_sessions_that_fails_is_booked_and_switched_off(
    tmp_path: Path, isolation: Isolation
) -> None:
    with StrictSink() as receiver:
        toml = first_config(receiver.port)
        bindings = [bound("raises", isolation, on_error="skip", maximum_faults=1)]
        async with running_relay(tmp_path, toml, bindings=bindings) as relay:
            await finished(relay, await submit(relay))
            standing = relay._standing.of(guid_for("raises"))
            assert standing is not None and standing.measure is Measure.OFF
            assert relay.chains_of_server(1).delivery is None
            assert events_of(relay, EventKind.BINDING_SWITCHED_OFF)
    assert len(receiver.arrivals) == 1


@BOTH
async def test_a_message_that_is_held_goes_out_when_it_is_released(
    tmp_path: Path, isolation: Isolation
) -> None:
    with StrictSink() as receiver:
        toml = first_config(receiver.port)
        bindings = [bound("holds", isolation)]
        async with running_relay(tmp_path, toml, bindings=bindings) as relay:
            id = await submit(relay)
            stored = await until(relay, id, lambda one: one.state is MessageState.HELD)
            assert stored.reason == "holds: not without a look"
            assert [entry.verdict for entry in stored.attempts[0].suffix] == ["hold"]
        async with running_relay(tmp_path, toml) as relay:
            await relay.spool.release([id], relay.clock.now())
            relay.scheduler.kick()
            await finished(relay, id)
    assert len(receiver.arrivals) == 1


async def test_a_message_that_is_put_off_is_tried_again(tmp_path: Path) -> None:
    with StrictSink() as receiver:
        bindings = [bound("puts_off", Isolation.INLINE)]
        async with running_relay(tmp_path, first_config(receiver.port), bindings=bindings) as relay:
            id = await submit(relay)
            stored = await until(relay, id, lambda one: bool(one.attempts))
            assert stored.recipients[0].next_at > stored.accepted_at
            last = stored.recipients[0].last
            assert last is not None and last.reason == "sink puts off refuses: not today"
            assert events_of(relay, EventKind.SINK_FAILED) == []
    assert receiver.arrivals == []


@BOTH
async def test_a_report_that_a_sink_discards_is_not_stored(tmp_path: Path, isolation: Isolation) -> None:
    peer = Peer(answers={b"RCPT": b"550 5.1.1 unknown\r\n"})
    async with running(peer):
        bindings = [bound("quiet", isolation)]
        async with running_relay(tmp_path, first_config(peer.port), bindings=bindings) as relay:
            id = await submit(relay)
            await finished(relay, id)
            assert reports_of(relay, id) == []
            assert events_of(relay, EventKind.SINK_REFUSED) == [
                "a delivery report was not sent: nobody reads these"
            ]


async def test_sinks_of_another_virtual_server_are_not_asked(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with StrictSink() as receiver:
        more = (
            '\n[[source]]\nnumber = 2\n[[listener]]\nname = "second"\nsource = 2\naddress = "127.0.0.1:0"\n'
        )
        bindings = [bound("start", Isolation.INLINE, log, source=2)]
        toml = first_config(receiver.port, more=more)
        async with running_relay(tmp_path, toml, bindings=bindings) as relay:
            assert relay.chains_of_server(2).delivery is not None
            await finished(relay, await submit(relay))
    assert not log.exists()
    assert len(receiver.arrivals) == 1
