"""A person acts on the queue of a running relay through its control socket."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from lonedot.app import Relay
from lonedot.cli import run
from lonedot.spool.interface import MessageState, RecipientStatus, Stored
from lonedot.terms.ids import MessageId
from lonedot.testing.relay import running_relay
from tests.system.talk import finished, first_config, reports_of, submit, until
from tests.unit.delivery.peer import Peer, running

BUSY = {b"<anna@dest.example>": b"452 4.2.2 her mailbox is full\r\n"}


def _config(port: int, other: int) -> str:
    spare = f'\n[[route]]\nname = "spare"\nto = "*@nowhere.example"\nsmarthost = "127.0.0.1:{other}"\ntls = "off"\n'
    return first_config(port) + spare


def _peer(*, busy: bool) -> Peer:
    offer = (b"PIPELINING", b"8BITMIME", b"SIZE 10000000", b"ENHANCEDSTATUSCODES")
    return Peer(offer, dict(BUSY) if busy else {})


async def _lonedot(relay: Relay, *arguments: str) -> int:
    """A command in a thread, at this relay's socket."""
    return await asyncio.to_thread(run, [*arguments, "--spool", str(relay.config.server.paths.root)])


async def _deferred(relay: Relay) -> MessageId:
    id = await submit(relay)

    def is_deferred(stored: Stored) -> bool:
        return stored.recipients[0].attempts == 1

    await until(relay, id, is_deferred)
    return id


async def test_bounce_tells_the_sender_and_tries_no_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(_peer(busy=True)) as peer, running_relay(tmp_path, first_config(peer.port)) as relay:
        id = await _deferred(relay)
        assert (
            await _lonedot(
                relay, "queue", "bounce", "--why", "mailbox is full", "--yes", "--reason", "she left"
            )
            == 0
        )
        assert "1 message returned" in capsys.readouterr().out
        stored = await finished(relay, id)
        assert stored.recipients[0].status is RecipientStatus.FAILED
        (report,) = reports_of(relay, id)
        assert report.envelope.reverse_path.is_null
        await finished(relay, report.id)
        (sent,) = [one for one in peer.messages if b"she left" in one.octets]
        assert b"multipart/report" in sent.octets


async def test_reroute_sends_it_another_way_at_once(tmp_path: Path) -> None:
    async with running(_peer(busy=True)) as peer, running(_peer(busy=False)) as other:
        async with running_relay(tmp_path, _config(peer.port, other.port)) as relay:
            id = await _deferred(relay)
            assert await _lonedot(relay, "queue", "reroute", id, "--to", "spare") == 0
            stored = await finished(relay, id)
            assert stored.recipients[0].status is RecipientStatus.DELIVERED
            assert stored.recipients[0].route == "spare"
        assert len(other.messages) == 1


async def test_a_backup_of_a_running_relay_holds_what_was_promised(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = str(tmp_path / "new")
    async with running(_peer(busy=True)) as peer, running_relay(tmp_path, first_config(peer.port)) as relay:
        first = await _deferred(relay)
        copying = asyncio.ensure_future(_lonedot(relay, "backup", str(tmp_path / "copy")))
        while not copying.done():
            await submit(relay)
        assert await copying == 0
    assert await asyncio.to_thread(run, ["restore", str(tmp_path / "copy"), "--hold", "--spool", new]) == 0
    capsys.readouterr()
    assert await asyncio.to_thread(run, ["queue", "list", "--json", "--spool", new]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert first in [row["id"] for row in rows]
    assert {row["state"] for row in rows} == {MessageState.HELD.value}


async def test_a_standing_rule_holds_what_waits_and_what_comes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(_peer(busy=True)) as peer, running_relay(tmp_path, first_config(peer.port)) as relay:
        waits = await _deferred(relay)
        words = ("--rule", "to=*@dest.example", "--reason", "their server loses mail")
        assert await _lonedot(relay, "queue", "hold", *words, "--dry-run") == 0
        assert "1 message would be held" in capsys.readouterr().out
        assert await _lonedot(relay, "queue", "hold", *words) == 0
        assert "rule 1 holds to=*@dest.example: 1 message of the queue" in capsys.readouterr().out
        assert relay.spool.show(waits).state is MessageState.HELD
        comes = await submit(relay)
        stored = relay.spool.show(comes)
        assert (stored.state, stored.reason) == (
            MessageState.HELD,
            "held by rule 1: their server loses mail",
        )
        assert stored.recipients[0].attempts == 0
        await relay.spool.hold((waits,), "looked at by hand")
        peer.answers.clear()
        assert await _lonedot(relay, "queue", "rules", "--json") == 0
        assert json.loads(capsys.readouterr().out)["rules"][0]["recipient"] == "@dest.example"
        assert await _lonedot(relay, "queue", "release", "--rule", "1", "--and-messages") == 0
        assert "1 message released" in capsys.readouterr().out
        await finished(relay, comes)
        assert relay.spool.show(waits).state is MessageState.HELD  # not for the rule alone
        await finished(relay, await submit(relay))


async def test_what_is_returned_with_the_relay_down_is_returned_when_it_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(_peer(busy=True)) as peer:
        async with running_relay(tmp_path, first_config(peer.port)) as relay:
            id, kept = await _deferred(relay), await _deferred(relay)
            spool = str(relay.config.server.paths.root)
        down = ("queue", "bounce", "--yes", "--reason", "she left; for good", "--spool", spool)
        assert await asyncio.to_thread(run, [*down, id, kept]) == 0
        assert "returned to its sender when the relay starts" in capsys.readouterr().out
        assert await asyncio.to_thread(run, ["queue", "release", kept, "--spool", spool]) == 0
        async with running_relay(tmp_path, first_config(peer.port)) as relay:
            stored = await finished(relay, id)
            assert stored.recipients[0].status is RecipientStatus.FAILED
            (report,) = reports_of(relay, id)
            await finished(relay, report.id)
            assert relay.spool.show(kept).state is MessageState.QUEUED
        (sent,) = [one for one in peer.messages if b"multipart/report" in one.octets]
        assert b"she left, for good" in sent.octets
        async with running_relay(tmp_path, first_config(peer.port)) as relay:
            assert len(reports_of(relay, id)) == 1
