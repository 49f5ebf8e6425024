"""A relay whose clients all look like the gateway of its machine: the event, once a day; the screen; the check."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from lonedot.admin.client import connect
from lonedot.admin.seeing import Screen
from lonedot.admin.seeing_operations import SCREEN
from lonedot.admin.values import NoArguments
from lonedot.app import Relay, entrances
from lonedot.cli.screen_text import screen_lines
from lonedot.evidence.events import EventKind
from lonedot.reception.one_client import ENOUGH_SESSIONS, ClientWatch
from lonedot.testing.relay import running_relay
from tests.system.talk import connected, first_config


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> str:
    """Loopback is taken for the gateway: every session of the test comes from it."""
    address = "127.0.0.1"
    watch = functools.partial(ClientWatch, gateways=lambda: frozenset({address}))
    monkeypatch.setattr(entrances, "ClientWatch", watch)
    return address


async def sessions(relay: Relay, count: int) -> None:
    for _ in range(count):
        async with connected(relay) as client:
            await client.say("QUIT")


async def screen_of(relay: Relay) -> Screen:
    client = await connect(relay.config.server.paths)
    try:
        return await client.call(SCREEN, NoArguments())
    finally:
        await client.close()


async def test_the_operator_is_told_once_also_over_a_restart(tmp_path: Path, gateway: str) -> None:
    for _ in range(2):
        async with running_relay(tmp_path, first_config(1)) as relay:
            await sessions(relay, 3 * ENOUGH_SESSIONS)
            (event,) = relay.events.read(kinds=(EventKind.ONE_CLIENT,))
            assert event.fields == {"listener": "in", "client": gateway}
            shown = "\n".join(screen_lines(await screen_of(relay), 200))
            assert "one-client" in shown and "take that one out of relay_from" in shown


async def test_where_nobody_is_trusted_there_is_nothing_to_tell(tmp_path: Path, gateway: str) -> None:
    toml = first_config(1, listener='relay_to = ["dest.example"]').replace('relay_from = ["127.0.0.0/8"]', "")
    async with running_relay(tmp_path, toml) as relay:
        await sessions(relay, 3 * ENOUGH_SESSIONS)
        assert relay.events.read(kinds=(EventKind.ONE_CLIENT,)) == []
