"""Several virtual servers in one relay: each has its listeners, its Pickup, its Badmail and its bindings."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from lonedot.admin.client import ControlClient, connect
from lonedot.admin.sinks import ApplyArguments
from lonedot.admin.sinks_operations import APPLY, BINDINGS
from lonedot.admin.values import NoArguments
from lonedot.app import Relay
from lonedot.config.load import examine
from lonedot.sinks.registry import Add, Selected, SetKey, Status, Switch
from lonedot.spool.interface import Filter, MessageState, Stored
from lonedot.terms.ids import MessageId
from lonedot.testing.relay import running_relay
from tests.peers.strict_sink import StrictSink
from tests.system.talk import MESSAGE, connected, eventually, finished, first_config, id_of
from tests.unit.delivery.peer import Peer, running

SINKS = """
from lonedot import Edit, Next, Reject, sink

@sink("mark", on="arrival", effects={"header"})
def mark(message):
    return Next([Edit.add_field("X-Mark", str(message.settings.get("value", "")))])

@sink("door", on="rcpt")
def door(session):
    return Reject("not at this door")
"""
REGISTRY = """
[[binding]]
name = "mark"
sink = "sinks.py:mark"
sink_properties = { value = "one" }

[[binding]]
name = "mark"
source = 2
sink = "sinks.py:mark"
sink_properties = { value = "two" }

[[binding]]
name = "apart"
source = 2
sink = "sinks.py:mark"
isolation = "process"
priority = 30000
sink_properties = { value = "apart" }
"""
MORE = """
[[listener]]
name = "second"
address = "127.0.0.1:0"
source = 2
relay_from = ["127.0.0.0/8"]

[[source]]
number = 2
name = "devices"
pickup = "spool/pickup-2"

[[sink]]
name = "of the configuration"
source = 2
file = "sinks.py:mark"
settings = { value = "config" }
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sinks.py").write_text(SINKS)
    (tmp_path / "sinks.toml").write_text(REGISTRY)
    return tmp_path


def config(port: int = 1) -> str:
    server = 'registry = "sinks.toml"'
    return first_config(port, server=server, more=MORE + "\n[pickup]\npoll_seconds = 0.05\n")


async def control(relay: Relay) -> ControlClient:
    return await connect(relay.config.server.paths)


async def send(relay: Relay, listener: str, *recipients: str, sender: str = "c@office.example") -> Stored:
    async with connected(relay, listener=listener) as client:
        await client.envelope(*recipients, sender=sender)
        return relay.spool.show(id_of(await client.content()))


def called(stored: Stored) -> list[str]:
    return [entry.binding for entry in stored.ledger if entry.binding_id]


async def test_each_has_its_own_bindings_and_a_message_knows_whose_it_is(folder: Path) -> None:
    with StrictSink() as receiver:
        async with running_relay(folder, config(receiver.port)) as relay:
            first, second = await send(relay, "in"), await send(relay, "second")
            assert (first.facts.server, called(first)) == (1, ["mark"])
            assert second.facts.server == 2
            ended = await finished(relay, second.id)
            assert called(ended) == ["mark", "of the configuration", "apart"]
            assert relay.chains_of_server(1).received != relay.chains_of_server(2).received
            assert relay.chains_of_server(3).received == ()
            await finished(relay, first.id)
        marks = [arrival.content.count(b"X-Mark:") for arrival in receiver.arrivals]
        assert sorted(marks) == [1, 3]


async def test_each_has_its_own_pickup_and_badmail(folder: Path) -> None:
    with StrictSink() as receiver:
        async with running_relay(folder, config(receiver.port)) as relay:
            for number, name in ((1, "pickup"), (2, "pickup-2")):
                taken = relay.config.server.paths.root / name
                (taken / "scan.eml").write_bytes(
                    b"x-sender: c@office.example\r\nx-receiver: a@b.example\r\n" + MESSAGE
                )
                await eventually(functools.partial(servers_of, relay, number))
                (taken / "wrong.eml").write_bytes(b"nothing at all\n")
            badmail = relay.config.server.paths.root / "badmail-2"
            await eventually(lambda: len(list(badmail.glob("*.txt"))) == 1)
            await eventually(lambda: len(list(relay.config.badmail.folder.glob("*.txt"))) == 1)
            await eventually(lambda: len(receiver.arrivals) == 2)
            by_server = {row.facts.server: called(row) for row in rows(relay)}
            assert by_server == {1: ["mark"], 2: ["mark", "of the configuration", "apart"]}


def servers_of(relay: Relay, number: int) -> bool:
    return any(row.facts.server == number for row in rows(relay))


def rows(relay: Relay) -> list[Stored]:
    listed = relay.spool.listing(Filter(states=tuple(MessageState)))
    return [relay.spool.show(MessageId(row.id)) for row in listed]


async def test_what_can_be_returned_to_nobody_goes_to_its_own_badmail(folder: Path) -> None:
    refusing = Peer((b"8BITMIME",), {b"RCPT": b"550 5.1.1 nobody here\r\n"})
    async with running(refusing) as receiver, running_relay(folder, config(receiver.port)) as relay:
        stored = await send(relay, "second", sender="")
        await finished(relay, stored.id)
        root = relay.config.server.paths.root
        assert [path.name for path in (root / "badmail-2").glob("*.eml")] == [f"{stored.id}-0.eml"]
        assert not list(root.glob("badmail/*.eml"))


async def test_a_change_of_one_leaves_the_other_as_it_was(folder: Path) -> None:
    async with running_relay(folder, config()) as relay:
        client = await control(relay)
        try:
            switch = Switch(Selected(("mark",), source=2), Status.DISABLED)
            door = Add({"name": "door", "sink": "sinks.py:door", "source": 2})
            taken = await client.call(APPLY, ApplyArguments((switch, door)))
            assert [line.split()[0] for line in taken.done] == ["disabled", "added"]
            async with connected(relay, listener="second") as session:
                assert (await session.envelope())[-1] == "550 5.7.1 not at this door"
            assert called(await send(relay, "in")) == ["mark"]
            listing = await client.call(BINDINGS, NoArguments())
            assert [(one.source, one.event and one.event.value, one.name) for one in listing.bindings] == [
                (1, "arrival", "mark"),
                (2, "rcpt", "door"),
                (2, "arrival", "mark"),
                (2, "arrival", "of the configuration"),
                (2, "arrival", "apart"),
            ]
            assert [source.name for source in listing.sources] == ["smtpsvc 1", "devices"]
            await client.call(
                APPLY,
                ApplyArguments((SetKey(Selected(("mark",), source=1), "sink_properties.value", "new"),)),
            )
            chains = relay.chains_of_server(1).received, relay.chains_of_server(2).received
            assert [dict(one.settings) for one in chains[0]] == [{"value": "new"}]
            assert [one.name for one in chains[1]] == ["of the configuration", "apart"]
            assert relay.chains_of_server(1).revision == relay.chains_of_server(2).revision
        finally:
            await client.close()


def test_check_names_what_belongs_to_nothing(folder: Path) -> None:
    def said(more: str, old: str = "", new: str = "") -> list[str]:
        (folder / "lonedot.toml").write_text((config() + more).replace(old or "\0", new))
        faults = examine(folder / "lonedot.toml").faults
        return [f"{fault.severity.value} {fault.where}: {fault.what}" for fault in faults]

    assert said("") == []
    assert said("\n[[source]]\nnumber = 2\n") == ["fault source 2: number: source 2 is also source 1"]
    assert said("\n[[source]]\nnumber = 3\n") == [
        "warning source 2: takes no mail: no listener and no Pickup belong to source 3"
    ]
    assert said('\n[[source]]\nnumber = 1\npickup = "spool/x"\n') == [
        "fault source 2: pickup: source 1 has the folder of [pickup]"
    ]
    assert "fault listener 2: source: there is no source 4" in said(
        "", "source = 2\nrelay", "source = 4\nrelay"
    )
    assert "fault sink 1: source: there is no source 4" in said("", "source = 2\nfile", "source = 4\nfile")
    assert said("", '"spool/pickup-2"', '"spool/pickup"') == [
        "fault source 1: pickup: is also the folder of [pickup]"
    ]
    assert said("", '"spool/pickup-2"', '"spool/badmail"') == [
        "fault source 1: pickup: is also the folder of [badmail]: what cannot be sent would be sent again"
    ]
