"""Random aliases and lists, nested, with Bcc, copies that differ, hops that refuse: everybody gets each copy once,
and no copy and no report names anybody whom its reader has not addressed.

To and Cc are the sender's words and stay. A member is told of the list, its owner of the members that failed.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from lonedot.app import Relay
from lonedot.spool.interface import Filter, MessageState
from lonedot.terms.ids import MessageId
from lonedot.testing.relay import running_relay
from tests.peers.strict_sink import Arrival, StrictSink
from tests.system.talk import connected, eventually, first_config, id_of

SEED = os.environ.get("LONEDOT_SEED", "1")
MESSAGES = 12
PEOPLE = 14
NAMES = 8
SENDER = "c@office.example"
TABLES = """
[[domain]]
name = "local.example"
aliases = "aliases"
lists = "lists.toml"

[[sink]]
name = "X-Recipient"
import = "lonedot.sinks.builtin.x_recipient:x_recipient"
isolation = "{isolation}"
deadline = 60
settings = {{ header = "X-Recipient" }}

[pickup]
poll_seconds = 0.05
"""


class Leads(msgspec.Struct):
    """What became of an address: who gets the sender's copy, and who that of each list."""

    people: set[str]
    lists: dict[str, set[str]]


class World:
    """People, and names that lead to people and to later names."""

    def __init__(self, chosen: random.Random) -> None:
        self.people = [f"m{n}p@{chosen.choice(['local.example', 'far.example'])}" for n in range(PEOPLE)]
        self.unknown = set(chosen.sample(self.people, PEOPLE // 4))
        self.names = [f"n{n}n@local.example" for n in range(NAMES)]
        self.is_list = {name: chosen.random() < 0.5 for name in self.names}
        self.to = {
            name: chosen.sample(self.people + self.names[n + 1 :], chosen.randint(1, 4))
            for n, name in enumerate(self.names)
        }

    @property
    def everybody(self) -> set[str]:
        return {*self.people, *self.names, *(self.owner(name) for name in self.names)}

    def owner(self, name: str) -> str:
        return f"owner-of-{name.partition('@')[0]}@far.example"

    def write(self, folder: Path) -> None:
        aliases = [f"{name}: {', '.join(self.to[name])}\n" for name in self.names if not self.is_list[name]]
        (folder / "aliases").write_text("".join(aliases))
        (folder / "lists.toml").write_text(
            "".join(
                f'[lists."{name}"]\nowner = "{self.owner(name)}"\nmembers = {self.to[name]!r}\npost = "anyone"\n'
                for name in self.names
                if self.is_list[name]
            )
        )

    def leads(self, addresses: list[str]) -> Leads:
        found = Leads(set(), {})
        for one in addresses:
            self._follow(one, found.people, found)
        return found

    def _follow(self, address: str, into: set[str], found: Leads) -> None:
        if address not in self.to:
            into.add(address)
        elif not self.is_list[address]:
            for one in self.to[address]:
                self._follow(one, into, found)
        elif address not in found.lists:
            members = found.lists[address] = set()
            for one in self.to[address]:
                self._follow(one, members, found)


class Sent(msgspec.Struct):
    """One message: who is named in it, and who is not."""

    number: int
    shown: list[str]
    hidden: list[str]

    def head(self, *, with_bcc: bool) -> bytes:
        lines = [f"From: {SENDER}", f"Subject: {self.number}", f"Message-ID: <{self.number}@office.example>"]
        lines.append("Date: Sun, 22 Nov 2026 12:29:25 +0000")
        for name, addresses in (("To", self.shown), ("Bcc", self.hidden if with_bcc else [])):
            if addresses:
                lines.append(f"{name}: " + ", ".join(addresses))
        return "\r\n".join(lines).encode() + b"\r\n\r\ntext\r\n"

    @property
    def addressed(self) -> list[str]:
        return [*self.shown, *self.hidden]


async def send(relay: Relay, sent: Sent, by_smtp: bool) -> None:
    if not by_smtp:
        (relay.config.pickup.folder / f"{sent.number}.eml").write_bytes(sent.head(with_bcc=True))
        return
    async with connected(relay) as client:
        replies = await client.envelope(*sent.addressed, sender=SENDER)
        assert all(reply.startswith("250") for reply in replies), replies
        id_of(await client.content(sent.head(with_bcc=False)))


def number_of(arrival: Arrival) -> int:
    """A report has the subject of the message that it is about in what it quotes."""
    found = [line[9:] for line in arrival.content.split(b"\r\n") if line.startswith(b"Subject: ")]
    (number,) = [int(words) for words in found if words.isdigit()]
    return number


def may_name(world: World, arrival: Arrival, sent: Sent) -> set[str]:
    """The addresses that its reader may find in it, beside those of To."""
    own = {one.decode() for one in arrival.recipients}
    path = arrival.reverse_path.decode()
    lists = {world.owner(name): name for name in world.names}

    def known_of(name: str) -> set[str]:
        """A list, and what the sender has written to that leads to it."""
        return {name, *(one for one in sent.addressed if name in world.leads([one]).lists)}

    if path in lists:
        return known_of(lists[path])
    if path == SENDER:
        return own | {one for one in sent.addressed if world.leads([one]).people & own}
    (reader,) = own
    if reader == SENDER:
        return set(sent.addressed)
    name = lists[reader]
    return {reader, *known_of(name), *(world.leads(sent.addressed).lists[name] & world.unknown)}


@pytest.mark.parametrize("isolation", ["inline", "process"])
async def test_nobody_is_named_to_who_does_not_know(tmp_path: Path, isolation: str) -> None:
    chosen = random.Random(f"{SEED} {isolation}")  # which cases are tried, nothing secret
    world = World(chosen)
    world.write(tmp_path)
    everything = {}
    for number in range(MESSAGES):
        addressed = chosen.sample(world.people + world.names * 2, chosen.randint(1, 5))
        people = list(dict.fromkeys(addressed))
        cut = chosen.randint(0, len(people))
        everything[number] = Sent(number, people[:cut], people[cut:])
    with StrictSink(unknown={one.encode() for one in world.unknown}) as receiver:
        toml = first_config(receiver.port, more=TABLES.format(isolation=isolation))
        async with running_relay(tmp_path, toml) as relay:
            for sent in everything.values():
                await send(relay, sent, chosen.random() < 0.5)

            def over() -> bool:
                found = relay.spool.listing(Filter(states=tuple(MessageState)))
                parents = [relay.spool.show(MessageId(row.id)) for row in found]
                taken = sum(not one.facts.parent for one in parents)
                return taken == MESSAGES and all(one.state is MessageState.FINISHED for one in parents)

            await eventually(over)
    assert receiver.faults == []
    got: Counter[tuple[int, str, str]] = Counter()
    for arrival in receiver.arrivals:
        sent = everything[number_of(arrival)]
        path = arrival.reverse_path.decode()
        content = b"\r\n".join(line for line in arrival.content.split(b"\r\n") if not line.startswith(b"To:"))
        for other in world.everybody - may_name(world, arrival, sent):
            assert other.encode() not in content, (path, arrival.recipients, other)
        for one in arrival.recipients:
            if path:
                got[sent.number, path, one.decode()] += 1
    wanted: Counter[tuple[int, str, str]] = Counter()
    for sent in everything.values():
        leads = world.leads(sent.addressed)
        wanted.update((sent.number, SENDER, one) for one in leads.people - world.unknown)
        for name, members in leads.lists.items():
            wanted.update((sent.number, world.owner(name), one) for one in members - world.unknown)
    assert got == wanted
    wanted_reports = {
        SENDER if not name else world.owner(name)
        for sent in everything.values()
        for name, people in {
            "": world.leads(sent.addressed).people,
            **world.leads(sent.addressed).lists,
        }.items()
        if people & world.unknown
    }
    reports = [arrival for arrival in receiver.arrivals if not arrival.reverse_path]
    assert {one.decode() for report in reports for one in report.recipients} == wanted_reports
