"""Sinks of transport events in a running relay: the client does not wait for those in processes of their own, nothing
leaves before they were asked, and what each of their verdicts means once a message is in custody.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from lonedot.app import Relay
from lonedot.message.ledger import Action
from lonedot.sinks.bindings import Binding, Isolation, Mode, firing_order
from lonedot.sinks.child import declare
from lonedot.sinks.events import Event
from lonedot.sinks.load import bind
from lonedot.spool.interface import Filter, MessageState, RecipientStatus, Stored
from lonedot.terms.ids import MessageId
from lonedot.testing.relay import running_relay
from tests.peers.strict_sink import StrictSink
from tests.system import transport_sinks
from tests.system.talk import (
    MESSAGE,
    connected,
    eventually,
    finished,
    first_config,
    id_of,
    reports_of,
    strangers_only,
    submit,
    until,
)

SINKS = Path(__file__).parent / "transport_sinks.py"
SECOND = """
[[route]]
name = "second"
to = "second.example"
smarthost = "127.0.0.1:{port}"
"""


def marking(
    name: str,
    event: Event = Event.ARRIVAL,
    *,
    isolation: Isolation = Isolation.PROCESS,
    split: bool = False,
    on_error: str = "defer",
    mode: Mode = Mode.LIVE,
    sink: str = "mark",
    priority: int = 1000,
    rule: str | None = None,
    **settings: str | bool,
) -> Binding:
    """A binding of `mark`, in a process of its own."""
    sink_class = f"{SINKS}:{sink}"
    return bind(
        declare(sink_class) if isolation is Isolation.PROCESS else getattr(transport_sinks, sink),
        sink_class=sink_class,
        name=name,
        event=event,
        isolation=isolation,
        split=split,
        on_error=on_error,
        mode=mode,
        priority=priority,
        rule=rule,
        deadline_seconds=60.0,
        maximum_faults=0,
        settings={"name": name, **settings},
    )


def marks(content: bytes) -> list[str]:
    """The fields that sinks have added, in the order in which they did."""
    lines = [line for line in content.split(b"\r\n") if line.startswith(b"X-Mark: ")]
    return [line.decode().removeprefix("X-Mark: ") for line in reversed(lines)]


def names(stored: Stored) -> list[str]:
    return [entry.binding for entry in stored.ledger[1:]]


async def test_the_client_does_not_wait_for_them_and_nothing_leaves_before_they_were_asked(
    tmp_path: Path,
) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    with StrictSink() as hop:
        bindings = firing_order(
            [
                marking("eod", Event.END_OF_DATA),
                marking("here", isolation=Isolation.INLINE, priority=1),
                marking("slow", wait=str(gate)),
                marking("behind", isolation=Isolation.INLINE, priority=2000),
                marking("route", Event.ROUTE),
            ]
        )
        async with running_relay(tmp_path, first_config(hop.port), bindings=bindings) as relay:
            id = await submit(relay)
            stored = relay.spool.show(id)
            assert names(stored) == ["eod", "here"]
            assert stored.transport is not None
            assert stored.transport.waits_for == "slow"
            (row,) = relay.spool.listing(Filter())
            assert row.waits_for == "slow"
            gate.unlink()
            stored = await finished(relay, id)
    assert names(stored) == ["eod", "here", "slow", "behind", "route"]
    assert stored.transport is None
    (arrival,) = hop.arrivals
    assert marks(arrival.content) == [f"{name} anna@dest.example" for name in names(stored)]
    assert {entry.revision for entry in stored.ledger[1:]} == {stored.facts.revision}


async def test_a_rule_that_does_not_match_leaves_nothing_to_wait_for(tmp_path: Path) -> None:
    with StrictSink() as hop:
        apart = marking("apart", rule="RCPT TO=*@elsewhere.example")
        async with running_relay(tmp_path, first_config(hop.port), bindings=[apart]) as relay:
            async with connected(relay) as client:
                await client.envelope()
                id = id_of(await client.content())
                assert relay.spool.show(id).transport is None
            await finished(relay, id)
    assert marks(hop.arrivals[0].content) == []


async def test_copies_by_recipient(tmp_path: Path) -> None:
    people = ("anna@dest.example", "joe@dest.example", "max@dest.example")
    with StrictSink() as hop:
        bindings = firing_order(
            [
                marking("first", priority=1),
                marking("split", priority=2, split=True, say="stop", to="joe@dest.example"),
                marking("third", priority=3),
                marking("route", Event.ROUTE),
            ]
        )
        async with running_relay(tmp_path, first_config(hop.port), bindings=bindings) as relay:
            stored = await finished(relay, await submit(relay, MESSAGE, *people))
    got = {arrival.recipients[0].decode(): marks(arrival.content) for arrival in hop.arrivals}
    assert got == {
        name: ["first 3", f"split {name}"]
        + ([] if name.startswith("joe") else [f"third {name}"])
        + [f"route {name}"]
        for name in people
    }
    assert stored.state is MessageState.FINISHED


async def test_a_refusal_becomes_a_report_for_somebody_we_trust(tmp_path: Path) -> None:
    with StrictSink() as hop:
        refusing = marking("refusing", split=True, say="reject", to="joe@dest.example")
        async with running_relay(tmp_path, first_config(hop.port), bindings=[refusing]) as relay:
            id = await submit(relay, MESSAGE, "anna@dest.example", "joe@dest.example")
            stored = await finished(relay, id)
            (report,) = reports_of(relay, id)
            await finished(relay, report.id)
    assert [state.status for state in stored.recipients] == [
        RecipientStatus.DELIVERED,
        RecipientStatus.FAILED,
    ]
    assert sorted(arrival.recipients[0] for arrival in hop.arrivals) == [
        b"anna@dest.example",
        b"c@office.example",
    ]
    (told,) = [arrival for arrival in hop.arrivals if arrival.recipients == (b"c@office.example",)]
    assert b"Status: 5.6.0" in told.content
    assert b"joe@dest.example" in told.content


async def test_a_refusal_of_what_a_stranger_sent_is_a_hold(tmp_path: Path) -> None:
    with StrictSink() as hop:
        config = strangers_only(first_config(hop.port)).replace(
            'name = "in"', 'name = "in"\nrelay_to = ["dest.example"]'
        )
        refusing = marking("refusing", say="reject")
        async with running_relay(tmp_path, config, bindings=[refusing]) as relay:
            id = await submit(relay)
            stored = await until(relay, id, lambda s: s.state is MessageState.HELD)
            assert reports_of(relay, id) == []
    assert "refusing: no; refused when it was in custody" in stored.reason


async def test_what_is_put_off_says_why_and_is_asked_again(tmp_path: Path) -> None:
    with StrictSink() as hop:
        bindings = firing_order(
            [marking("first", priority=1), marking("putting off", say="defer", log=str(tmp_path / "log"))]
        )
        async with running_relay(tmp_path, first_config(hop.port), bindings=bindings) as relay:
            id = await submit(relay)
            stored = await until(relay, id, lambda s: s.transport is not None and s.transport.deferrals == 1)
            assert stored.state is MessageState.QUEUED
            assert [(e.binding, e.action) for e in stored.ledger[1:]] == [
                ("first", Action.KEPT),
                ("putting off", Action.DEFERRED),
            ]
            (row,) = relay.spool.listing(Filter())
            assert (row.waits_for, row.put_off) == ("putting off", "putting off: later")
            assert row.next_at > relay.clock.now() + 40
            await relay.spool.retry([id], relay.clock.now())
            relay.scheduler.kick()
            stored = await until(relay, id, lambda s: s.transport is not None and s.transport.deferrals == 2)
    assert len(stored.ledger) == 3, "said once"
    first, second = (tmp_path / "log").read_text().splitlines()
    assert first == second, "the same key"
    assert hop.arrivals == []


async def test_a_hold_goes_on_behind_its_entry(tmp_path: Path) -> None:
    with StrictSink() as hop:
        bindings = firing_order([marking("first", priority=1, say="hold"), marking("second", priority=2)])
        async with running_relay(tmp_path, first_config(hop.port), bindings=bindings) as relay:
            id = await submit(relay)
            stored = await until(relay, id, lambda s: s.state is MessageState.HELD)
            assert stored.reason == "first: a look, please"
            assert names(stored) == ["first"]
            await relay.spool.release([id], relay.clock.now())
            relay.scheduler.kick()
            stored = await finished(relay, id)
    assert names(stored) == ["first", "second"]
    assert len(marks(hop.arrivals[0].content)) == 2


async def test_a_hold_before_the_acceptance_goes_on_behind_its_entry_too(tmp_path: Path) -> None:
    with StrictSink() as hop:
        here = marking("first", isolation=Isolation.INLINE, priority=1, say="hold")
        bindings = firing_order([here, marking("second", priority=2)])
        async with running_relay(tmp_path, first_config(hop.port), bindings=bindings) as relay:
            id = await submit(relay)
            assert relay.spool.show(id).state is MessageState.HELD
            await relay.spool.release([id], relay.clock.now())
            relay.scheduler.kick()
            stored = await finished(relay, id)
    assert names(stored) == ["first", "second"]


async def test_who_is_discarded_gets_nothing(tmp_path: Path) -> None:
    with StrictSink() as hop:
        discarding = marking("away", split=True, say="discard", to="joe@dest.example")
        async with running_relay(tmp_path, first_config(hop.port), bindings=[discarding]) as relay:
            stored = await finished(
                relay, await submit(relay, MESSAGE, "joe@dest.example", "anna@dest.example")
            )
            other = await finished(relay, await submit(relay, MESSAGE, "joe@dest.example"))
    assert [state.status for state in stored.recipients] == [
        RecipientStatus.DELETED,
        RecipientStatus.DELIVERED,
    ]
    assert [state.status for state in other.recipients] == [RecipientStatus.DELETED]
    assert [arrival.recipients for arrival in hop.arrivals] == [(b"anna@dest.example",)]


@pytest.mark.parametrize("isolation", [Isolation.INLINE, Isolation.PROCESS])
async def test_a_redirect_is_for_the_copy_it_was_said_of(tmp_path: Path, isolation: Isolation) -> None:
    with StrictSink() as hop, StrictSink() as second:
        away = marking("away", split=True, isolation=isolation, say="redirect second", to="joe@dest.example")
        config = SECOND.format(port=second.port) + first_config(hop.port)
        head, _, _ = config.partition("[server]")
        config = config.removeprefix(head).replace("[[route]]", head + "[[route]]", 1)
        async with running_relay(tmp_path, config, bindings=[away]) as relay:
            stored = await finished(
                relay, await submit(relay, MESSAGE, "joe@dest.example", "anna@dest.example")
            )
    assert [state.redirect for state in stored.recipients] == ["second", ""]
    assert [arrival.recipients for arrival in second.arrivals] == [(b"joe@dest.example",)]
    assert [arrival.recipients for arrival in hop.arrivals] == [(b"anna@dest.example",)]
    assert ("redirect", "second") in [(entry.verdict, entry.words) for entry in stored.ledger]


@pytest.mark.parametrize("isolation", [Isolation.INLINE, Isolation.PROCESS])
async def test_a_route_that_there_is_not_is_a_fault_of_the_sink(tmp_path: Path, isolation: Isolation) -> None:
    with StrictSink() as hop:
        away = marking("away", isolation=isolation, say="redirect nowhere", on_error="skip")
        async with running_relay(tmp_path, first_config(hop.port), bindings=[away]) as relay:
            stored = await finished(relay, await submit(relay))
    entry = stored.ledger[-1]
    assert (entry.action, entry.fault) == (Action.SKIPPED, "nonsense")
    assert "it redirects to the route 'nowhere'; there are: out" in entry.words
    assert marks(hop.arrivals[0].content) == []


async def test_one_in_shadow_is_asked_in_custody_and_changes_nothing(tmp_path: Path) -> None:
    with StrictSink() as hop:
        bindings = firing_order(
            [
                marking("shadow", priority=1, mode=Mode.SHADOW),
                marking("mark", priority=2),
                marking("shadow of another", priority=3, mode=Mode.SHADOW),
            ]
        )
        async with running_relay(tmp_path, first_config(hop.port), bindings=bindings) as relay:
            stored = await finished(relay, await submit(relay))
    assert sorted(names(stored)) == ["mark", "shadow", "shadow of another"]
    assert len(marks(hop.arrivals[0].content)) == 1


async def test_pickup_too(tmp_path: Path) -> None:
    with StrictSink() as hop:
        config = first_config(hop.port) + "\n[pickup]\npoll_seconds = 0.05\n"
        async with running_relay(tmp_path, config, bindings=[marking("apart")]) as relay:
            (relay.config.pickup.folder / "one.eml").write_bytes(MESSAGE)
            await eventually(lambda: hop.arrivals)
    assert marks(hop.arrivals[0].content) == ["apart anna@dest.example"]


async def test_a_message_meets_the_bindings_with_which_it_began(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    with StrictSink() as hop:
        old = firing_order([marking("slow", wait=str(gate)), marking("old", priority=2000)])
        async with running_relay(tmp_path, first_config(hop.port), bindings=old) as relay:
            id = await submit(relay)
            _rebind(relay, [marking("new", priority=2000)])
            other = await submit(relay)
            gate.unlink()
            stored, later = await finished(relay, id), await finished(relay, other)
    assert names(stored) == ["slow", "old"]
    assert names(later) == ["new"]
    assert stored.facts.revision != later.facts.revision


def _rebind(relay: Relay, bindings: list[Binding]) -> None:
    acceptor = relay._entrances.acceptors[1]
    acceptor.rebind(bindings, "another")
    relay.hosts.use(bindings)


async def test_held_while_its_sink_is_at_it_stays_held(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    with StrictSink() as hop:
        bindings = firing_order([marking("slow", wait=str(gate)), marking("second", priority=2000)])
        async with running_relay(tmp_path, first_config(hop.port), bindings=bindings) as relay:
            id = await submit(relay)
            await eventually(lambda: not relay.hosts.host(bindings[0]).is_idle)
            assert await relay.spool.hold([id], "wait") == [True]
            relay.scheduler.forget([id])
            gate.unlink()
            stored = await until(relay, id, lambda s: len(s.ledger) == 2)
            await eventually(lambda: relay.scheduler.active == 0)
            assert relay.spool.show(id).state is MessageState.HELD
            assert hop.arrivals == []
            await relay.spool.release([id], relay.clock.now())
            relay.scheduler.kick()
            stored = await finished(relay, id)
    assert names(stored) == ["slow", "second"]


async def test_after_a_stop_it_goes_on_behind_what_was_committed(tmp_path: Path) -> None:
    gate, log = tmp_path / "gate", tmp_path / "log"
    gate.touch()
    with StrictSink() as hop:
        bindings = firing_order(
            [
                marking("first", priority=1, log=str(log)),
                marking("slow", priority=2, wait=str(gate)),
                marking("last", priority=3),
            ]
        )
        config = first_config(hop.port, server="drain_seconds = 0.2")
        async with running_relay(tmp_path, config, bindings=bindings) as relay:
            id = await submit(relay)
            await until(relay, id, lambda s: len(s.ledger) == 2)
        assert hop.arrivals == []
        gate.unlink()
        async with running_relay(tmp_path, config, bindings=bindings) as relay:
            stored = await finished(relay, MessageId(id))
    assert names(stored) == ["first", "slow", "last"]
    assert len(log.read_text().splitlines()) == 1, "nobody is asked again for what is committed"
    assert len(marks(hop.arrivals[0].content)) == 3
