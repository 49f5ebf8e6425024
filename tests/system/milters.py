"""A relay with milters: what the tests of the bridge share."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from lonedot.app import Relay
from lonedot.testing.relay import running_relay
from tests.peers.strict_sink import StrictSink
from tests.system.talk import connected, first_config, strangers_only

__all__ = ["HOSTNAME", "bindings", "relay_with", "sent"]

BINDING = """
[[sink]]
name = "Milter"
import = "milter"
deadline = "60s"
settings = {{ address = "{address}", hostname = "{hostname}"{more} }}
"""
EARLY = """
[[sink]]
name = "Milter at {event}"
import = "milter-session"
event = "{event}"
settings = {{ address = "{address}", hostname = "{hostname}"{more} }}
"""
HOSTNAME = "relay.example.com"


def bindings(address: str, *events: str, hostname: str = HOSTNAME, more: str = "") -> str:
    """The tables of a relay with that milter; `events` at which it is asked before there is a message."""
    rows = [EARLY.format(event=event, address=address, hostname=hostname, more=more) for event in events]
    return "".join(rows) + BINDING.format(address=address, hostname=hostname, more=more)


@contextlib.asynccontextmanager
async def relay_with(
    folder: Path, receiver: StrictSink, tables: str, *, stranger: bool = False
) -> AsyncIterator[Relay]:
    toml = first_config(receiver.port, more=tables)
    if stranger:
        toml = strangers_only(toml).replace('name = "in"', 'name = "in"\nrelay_to = ["dest.example"]')
    async with running_relay(folder, toml) as relay:
        yield relay


async def sent(relay: Relay, octets: bytes, *recipients: str) -> str:
    async with connected(relay) as client:
        await client.envelope(*recipients)
        return await client.content(octets)
