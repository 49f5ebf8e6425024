"""A sink sends each recipient of one message over a route of another kind, and each gets its own copy there."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lonedot.app import Relay
from lonedot.sinks.bindings import Isolation
from lonedot.spool.interface import MessageState, RecipientStatus, Stored
from lonedot.testing.relay import running_relay
from tests.peers.strict_sink import StrictSink
from tests.system.talk import MESSAGE, finished, submit, until
from tests.system.test_transport import marking
from tests.unit.delivery.name_server import name_server
from tests.unit.delivery.peer import Peer, running

CONFIG = """
[server]
hostname = "relay.example.com"
nameservers = ["127.0.0.1:{names}"]
[[listener]]
name = "in"
address = "127.0.0.1:0"
relay_from = ["127.0.0.0/8"]
[[route]]
name = "usual"
to = "*"
hold = "no sink has sent it away"
[[route]]
name = "smarthost"
to = "by.sinks.example"
smarthost = "127.0.0.1:{smarthost}"
[[route]]
name = "mx"
to = "by.sinks.example"
mx = true
mx_port = {mx}
[[route]]
name = "lmtp"
to = "by.sinks.example"
lmtp = "127.0.0.1:{lmtp}"
[[route]]
name = "maildir"
to = "by.sinks.example"
maildir = "{folder}/mail/{{domain}}/{{local}}"
maildir_create = true
[[route]]
name = "pipe"
to = "by.sinks.example"
pipe = ["/bin/sh", "-c", "cat >{open}/got; echo $1 >>{open}/got", "sh", "{{recipient}}"]
{user}
[[route]]
name = "discard"
to = "by.sinks.example"
discard = true
[[route]]
name = "hold"
to = "by.sinks.example"
hold = "a sink wants it"
"""
NAMES = ("smarthost", "mx", "lmtp", "maildir", "pipe", "discard")


class World:
    def __init__(self, relay: Relay, smarthost: StrictSink, mx: StrictSink, lmtp: Peer, got: Path) -> None:
        self.relay, self.smarthost, self.mx, self.lmtp, self.got = relay, smarthost, mx, lmtp, got


@contextlib.asynccontextmanager
async def world(folder: Path, isolation: Isolation) -> AsyncIterator[World]:
    (folder / "mail").mkdir()
    binding = marking("away", sink="away", split=True, isolation=isolation)
    with StrictSink() as smarthost, StrictSink() as mx, tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        zone = {"dest.example": ["MX 10 host.example"], "host.example": ["A 127.0.0.1"]}
        async with running(Peer(lmtp=True)) as lmtp, name_server(zone) as names:
            toml = CONFIG.format(
                names=names.port,
                smarthost=smarthost.port,
                mx=mx.port,
                lmtp=lmtp.port,
                folder=folder,
                open=name,
                user='pipe_user = "nobody"' if os.geteuid() == 0 else "",
            )
            async with running_relay(folder, toml, bindings=[binding]) as relay:
                yield World(relay, smarthost, mx, lmtp, Path(name) / "got")


def routes_of(stored: Stored) -> dict[str, tuple[RecipientStatus, str, str]]:
    return {
        state.recipient.address.local.decode(): (state.status, state.redirect, state.route)
        for state in stored.recipients
    }


@pytest.mark.parametrize("isolation", [Isolation.INLINE, Isolation.PROCESS])
async def test_one_message_goes_every_way(tmp_path: Path, isolation: Isolation) -> None:
    async with world(tmp_path, isolation) as out:
        to = tuple(f"{name}@dest.example" for name in NAMES)
        stored = await finished(out.relay, await submit(out.relay, MESSAGE, *to))
        (mailed,) = (tmp_path / "mail" / "dest.example" / "maildir" / "new").iterdir()
        copies = {
            "smarthost": out.smarthost.arrivals[0].content,
            "mx": out.mx.arrivals[0].content,
            "lmtp": out.lmtp.messages[0].octets,
            "maildir": mailed.read_bytes(),
            "pipe": out.got.read_bytes(),
        }
    assert routes_of(stored) == {name: (RecipientStatus.DELIVERED, name, name) for name in NAMES}
    for name, octets in copies.items():
        assert [line for line in octets.splitlines() if line.startswith(b"X-Away")] == [
            f"X-Away: {name}@dest.example".encode()
        ]
        assert b"first" in octets
    assert copies["pipe"].endswith(b"\npipe@dest.example\n")
    assert len(out.smarthost.arrivals) == len(out.mx.arrivals) == len(out.lmtp.messages) == 1


@pytest.mark.parametrize("isolation", [Isolation.INLINE, Isolation.PROCESS])
async def test_a_hold_waits_for_a_person_with_the_words_of_the_route(
    tmp_path: Path, isolation: Isolation
) -> None:
    async with world(tmp_path, isolation) as out:
        id = await submit(out.relay, MESSAGE, "hold@dest.example", "smarthost@dest.example")
        stored = await until(out.relay, id, lambda one: one.state is MessageState.HELD)
        assert stored.reason == "route hold: a sink wants it"
        found = routes_of(stored)
        assert found["hold"][:2] == (RecipientStatus.WAITING, "hold")
        # Nobody else got what is held.
        assert all(arrival.recipients == (b"smarthost@dest.example",) for arrival in out.smarthost.arrivals)
