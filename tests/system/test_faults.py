"""Every fault that a sink can have, in a running relay: booked, `on_error` followed, other mail not touched by it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import NamedTuple, cast

import pytest

from lonedot.admin.client import connect
from lonedot.admin.sinks import Bindings
from lonedot.admin.sinks_operations import BINDINGS
from lonedot.admin.values import NoArguments
from lonedot.app import Relay
from lonedot.message.ledger import Action
from lonedot.sinks.bindings import Isolation
from lonedot.sinks.events import Event
from lonedot.sinks.standing import Fault
from lonedot.spool.interface import Filter, MessageState, RecipientStatus, Stored
from lonedot.testing.relay import running_relay
from tests.peers.strict_sink import Arrival, StrictSink
from tests.system.talk import connected, eventually, finished, first_config, id_of, until

SINKS = Path(__file__).with_name("fault_sinks.py")
PATIENT, SHORT = 60.0, 0.5


class Case(NamedTuple):
    fault: Fault | None
    """What is booked; None: nothing, for it did nothing wrong to this message."""
    words: str = ""
    deadline: float = PATIENT


APART = {
    "raises": Case(Fault.RAISED, "ValueError: it hurt"),
    "nonsense": Case(Fault.NONSENSE, "TypeError: returned int"),
    "exits": Case(Fault.DIED, "its process ended: exit code 3"),
    "killed": Case(Fault.DIED, "its process ended: signal 9"),
    "crashes": Case(Fault.DIED, "its process ended: signal 11"),
    "hangs": Case(Fault.DEADLINE, "no answer within 0.5 s", SHORT),
    "late": Case(Fault.DEADLINE, "no answer within 0.5 s", SHORT),
    "garbage": Case(Fault.NONSENSE, "an answer that is none"),
    "floods": Case(Fault.NONSENSE, "an answer has at most"),
    "leaks": Case(Fault.RAISED, "MemoryError"),
    "leaks_descriptors": Case(Fault.RAISED, "Too many open files"),
    "forks": Case(None, "its process said more than one answer"),
    "forks_and_dies": Case(Fault.DIED, "its process ended: exit code 0"),
    "closes": Case(Fault.DIED, "its process ended"),
    "surroundings": Case(None),
    "dies_later": Case(None),
}
INLINE = {
    "raises": Case(Fault.RAISED, "ValueError: it hurt"),
    "nonsense": Case(Fault.NONSENSE, "TypeError: returned int"),
}
UNDECIDED = {"forks"}
"""Of two answers to one question the second may come while the first is read, or find nobody who asked."""
CASES = {Isolation.PROCESS: APART, Isolation.INLINE: INLINE}
"""What an inline sink does to the whole relay is in `test_watchdog`."""


def table(name: str, case: Case, isolation: Isolation, on_error: str, event: Event) -> str:
    """A sink of `fault_sinks` that is called for the recipient of its own name."""
    rule = f'rule = "RCPT TO={name}@dest.example"\n' if name != "stamp" else ""
    return (
        f'\n[[sink]]\nname = "{name}"\nfile = "{SINKS}:{name}"\nevent = "{event.value}"\n{rule}'
        f'isolation = "{isolation.value}"\n'
        f'deadline = {case.deadline}\nmemory = "256 MiB"\non_error = "{on_error}"\nmaximum_faults = 0\n'
    )


async def faults(relay: Relay) -> dict[str, list[Fault]]:
    """What is booked against each binding."""
    client = await connect(relay.config.server.paths)
    try:
        listing: Bindings = await client.call(BINDINGS, NoArguments())
    finally:
        await client.close()
    return {
        row.name: [fault for _, fault in row.standing.faults] if row.standing is not None else []
        for row in listing.bindings
    }


@pytest.mark.parametrize("event", [Event.END_OF_DATA, Event.ARRIVAL])
@pytest.mark.parametrize("isolation", [Isolation.INLINE, Isolation.PROCESS])
@pytest.mark.parametrize("on_error", ["defer", "skip", "reject", "hold"])
async def test_every_fault(tmp_path: Path, on_error: str, isolation: Isolation, event: Event) -> None:
    """Where the client waits it is told; a sink in a process of its own is asked of an arrival in custody."""
    cases = CASES[isolation]
    client_waits = event is Event.END_OF_DATA or isolation is Isolation.INLINE
    tables = [table(name, case, isolation, on_error, event) for name, case in cases.items()]
    tables.append(table("stamp", Case(None), isolation, "defer", event))
    delivered = 0
    with StrictSink() as receiver:
        async with (
            running_relay(tmp_path, first_config(receiver.port, more="".join(tables))) as relay,
            connected(relay) as client,
            connected(relay) as other,
        ):
            for name, case in cases.items():
                await client.envelope(f"{name}@dest.example")
                waiting = asyncio.create_task(client.content())
                await other.envelope()
                clean = id_of(await other.content())
                if case.deadline == SHORT and client_waits:
                    assert not waiting.done(), "other mail does not wait for one that hangs"
                answer = await waiting
                stored = await finished(relay, clean)
                assert [entry.action for entry in stored.ledger[1:]] == [Action.KEPT], name
                delivered += 1
                if not answer.startswith("250"):
                    assert client_waits and (case.fault is not None or name in UNDECIDED)
                    refusal = {"defer": "451 4.3.0", "reject": f"550 5.7.1 {name} failed"}[on_error]
                    assert answer.startswith(refusal), name
                    continue
                stored = await until(relay, id_of(answer), is_settled)
                entry = stored.ledger[-1]
                assert entry.binding == name
                if case.fault is None and (name not in UNDECIDED or entry.action is Action.UNCHANGED):
                    assert entry.action is Action.UNCHANGED, name
                    delivered += 1
                    continue
                assert case.words in entry.words, name
                assert name in UNDECIDED or entry.fault == cast(Fault, case.fault).value, name
                delivered += on_error == "skip"
                check_outcome(on_error, stored)
            await eventually(lambda: len(delivered_to(receiver)) == delivered)
            booked = await faults(relay)
            for name in UNDECIDED & booked.keys():
                assert booked.pop(name) in ([], [Fault.NONSENSE])
            assert booked == {"stamp": []} | {
                name: [case.fault] if case.fault is not None else []
                for name, case in cases.items()
                if name not in UNDECIDED
            }
            held = relay.spool.listing(Filter(states=(MessageState.HELD,), limit=100))
            failed = (
                {name for name, case in cases.items() if case.fault is not None}
                if on_error == "hold"
                else set()
            )
            assert {row.recipients[0][0].partition("@")[0] for row in held} - UNDECIDED == failed
    assert all(b"X-Stamp: yes" in arrival.content for arrival in delivered_to(receiver))
    assert receiver.faults == []


def is_settled(stored: Stored) -> bool:
    """Its sinks were asked, or one of them put it off or had it held."""
    return stored.transport is None or stored.transport.deferrals > 0 or stored.state is MessageState.HELD


def delivered_to(receiver: StrictSink) -> list[Arrival]:
    """Without reports to the sender."""
    return [arrival for arrival in receiver.arrivals if arrival.reverse_path]


def check_outcome(on_error: str, stored: Stored) -> None:
    """A message that is in custody, behind the fault."""
    entry = stored.ledger[-1]
    match on_error:
        case "hold":
            assert (stored.state, entry.action) == (MessageState.HELD, Action.HELD)
        case "skip":
            assert entry.action is Action.SKIPPED
        case "reject":
            assert entry.action is Action.REJECTED
            assert {recipient.status for recipient in stored.recipients} == {RecipientStatus.FAILED}
        case _:
            assert (stored.state, entry.action) == (MessageState.QUEUED, Action.DEFERRED)
            assert stored.transport is not None and stored.transport.waits_for == entry.binding
