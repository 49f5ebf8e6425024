"""Custody in the running relay: disks that fill and fail, records that cannot be read, messages that kill."""

from __future__ import annotations

import asyncio
import errno
import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lonedot.queue import settlements
from lonedot.spool.flight import SLOT_SIZE
from lonedot.spool.interface import Filter, MessageState
from lonedot.spool.sqlite import CONTENT_LIMIT
from lonedot.terms.ids import MessageId, number_from_id
from lonedot.testing.clock import ManualClock
from lonedot.testing.power import PowerDisk
from lonedot.testing.relay import running_relay
from tests.peers.strict_sink import StrictSink
from tests.system.talk import MESSAGE, connected, eventually, finished, first_config, id_of, submit, until

NOBODY = first_config(1)
LARGE = MESSAGE + (b"x" * 70 + b"\r\n") * (CONTENT_LIMIT // 60)
RESERVE = 1 << 30


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[PowerDisk]:
    disk = PowerDisk(tmp_path)
    yield disk
    disk.close()


# --- full ----------------------------------------------------------------------------------------


async def test_nearly_full_is_told_at_mail_and_ends_when_there_is_room(
    tmp_path: Path, disk: PowerDisk
) -> None:
    clock = ManualClock()
    async with running_relay(tmp_path, NOBODY, disk=disk, clock=clock) as relay, connected(relay) as client:
        disk.free_octets = RESERVE + 1000
        clock.advance(2)
        assert (await client.say("MAIL FROM:<a@b.example> SIZE=2000")).startswith("452 4.3.1")
        assert (await client.say("MAIL FROM:<a@b.example> SIZE=500")).startswith("250")
        await client.say("RSET")
        disk.free_octets = RESERVE - 1
        clock.advance(2)
        assert (await client.say("MAIL FROM:<a@b.example>")).startswith("452 4.3.1")
        disk.free_octets = RESERVE + (1 << 30)
        clock.advance(2)
        await client.envelope()
        id_of(await client.content())


async def test_room_that_goes_while_a_large_message_arrives(tmp_path: Path, disk: PowerDisk) -> None:
    """It is read to its end, answered 452, its file is removed, and the session goes on."""
    clock = ManualClock()
    async with running_relay(tmp_path, NOBODY, disk=disk, clock=clock) as relay, connected(relay) as client:
        await client.envelope()
        assert (await client.say("DATA")).startswith("354")
        client.write(LARGE)
        await eventually(lambda: list((tmp_path / "spool").rglob("*.body")))
        disk.free_octets = RESERVE
        clock.advance(2)
        client.write(LARGE + b".\r\n")
        assert (await client.reply()).startswith("452 4.3.1")
        assert list((tmp_path / "spool").rglob("*.body")) == []
        assert relay.spool.listing(Filter()) == []
        assert (await client.say("NOOP")).startswith("250")


async def test_a_write_that_finds_the_disk_full_is_452(tmp_path: Path, disk: PowerDisk) -> None:
    async with running_relay(tmp_path, NOBODY, disk=disk) as relay, connected(relay) as client:
        await client.envelope()
        disk.fail("create", ".body", errno.ENOSPC)
        assert (await client.content(LARGE)).startswith("452 4.3.1")
        await client.envelope()
        id = id_of(await client.content(LARGE))
        assert relay.spool.content(id).octets() == LARGE


# --- failing -------------------------------------------------------------------------------------


async def test_a_sync_that_fails_is_451_and_custody_recovers(tmp_path: Path, disk: PowerDisk) -> None:
    """Nobody is told 250 for what is not there; what was promised before is delivered afterwards."""
    clock = ManualClock()
    with StrictSink() as sink:
        toml = first_config(sink.port)
        async with running_relay(tmp_path, toml, disk=disk, clock=clock) as relay, connected(relay) as client:
            await client.envelope()
            first = id_of(await client.content())
            await finished(relay, first)
            disk.fail("sync", "queue.db-wal", times=1000)
            for _ in range(2):
                await client.envelope()
                assert (await client.content()).startswith("451 4.3.0")
            disk.failures.clear()
            clock.advance(2)
            await client.envelope()
            again = id_of(await client.content())
            await finished(relay, again)
        assert len(sink.arrivals) == 2
    events = "".join(path.read_text() for path in (tmp_path / "spool" / "evidence" / "events").iterdir())
    assert "the spool failed" in events
    assert "the spool works again" in events


async def test_an_outcome_that_cannot_be_written_is_written_later_and_nothing_sent_twice(
    tmp_path: Path, disk: PowerDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settlements, "SETTLE_AGAIN_SECONDS", 0.05)
    clock = ManualClock()
    with StrictSink() as sink:
        async with running_relay(tmp_path, NOBODY, disk=disk, clock=clock) as relay:
            id = await submit(relay)
            await until(relay, id, lambda stored: stored.recipients[0].attempts == 1)
            # A start asks each next hop at once: not for this one.
            await relay.spool.hold([id], "for now")
        async with running_relay(tmp_path, first_config(sink.port), disk=disk, clock=clock) as relay:
            await relay.spool.release([id], clock.now())
            # The claim is one commit, the settlement the next.
            disk.fail("sync", "queue.db-wal", skip=1, times=1000)
            relay.scheduler.kick()
            await asyncio.to_thread(sink.wait_for, 1)
            await eventually(lambda: any(failure.times < 1000 for failure in disk.failures))
            disk.failures.clear()
            clock.advance(10)
            relay.scheduler.kick()
            await finished(relay, id)
        assert len(sink.arrivals) == 1


async def test_a_body_file_that_cannot_be_synced_is_451(tmp_path: Path, disk: PowerDisk) -> None:
    async with running_relay(tmp_path, NOBODY, disk=disk) as relay, connected(relay) as client:
        await client.envelope()
        disk.fail("sync", ".body")
        assert (await client.content(LARGE)).startswith("451 4.3.0")
        assert list((tmp_path / "spool").rglob("*.body")) == []
        await client.envelope()
        id_of(await client.content(LARGE))


# --- damaged -------------------------------------------------------------------------------------


def spoil(folder: Path, statement: str, *values: object) -> None:
    """Change the database behind the back of a stopped relay."""
    connection = sqlite3.connect(folder / "spool" / "shards" / "0" / "queue.db")
    with connection:
        assert connection.execute(statement, values).rowcount == 1
    connection.close()


def listed(folder: Path, *more: str) -> list[dict[str, object]]:
    """What `lonedot queue list` says from a process of its own."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "lonedot",
            "queue",
            "list",
            "--json",
            "-c",
            str(folder / "lonedot.toml"),
            *more,
        ],
        capture_output=True,
        check=True,
        timeout=60,
    )
    rows: list[dict[str, object]] = json.loads(done.stdout)["rows"]
    return rows


async def test_what_cannot_be_read_is_listed_as_damaged_and_everything_else_goes_on(tmp_path: Path) -> None:
    with StrictSink() as sink:
        async with running_relay(tmp_path, NOBODY) as relay:
            names = ["record", "recipient", "measures", "missing", "short", "sound"]
            ids = {}
            for name in names:
                octets = LARGE if name in ("missing", "short") else MESSAGE
                id = ids[name] = await submit(relay, octets, f"{name}@dest.example")
                await until(relay, id, lambda stored: stored.recipients[0].last is not None)
        numbers = {name: number_from_id(id) for name, id in ids.items()}
        spoil(tmp_path, "UPDATE record SET value = x'c1' WHERE message = ?", numbers["record"])
        spoil(tmp_path, "UPDATE recipient SET value = x'9301' WHERE message = ?", numbers["recipient"])
        spoil(tmp_path, "UPDATE content SET measures = x'00' WHERE message = ?", numbers["measures"])
        spool = tmp_path / "spool"
        next(spool.rglob(f"{ids['missing']}.body")).unlink()
        short = next(spool.rglob(f"{ids['short']}.body"))
        short.write_bytes(short.read_bytes()[:-1])

        async with running_relay(tmp_path, first_config(sink.port)) as relay:
            for id in ids.values():
                await relay.spool.retry([id], relay.clock.now())
            relay.scheduler.kick()
            await finished(relay, ids["sound"])
            await finished(relay, await submit(relay, MESSAGE, "after@dest.example"))

            def put_aside() -> bool:
                rows = {row.id: row for row in relay.spool.listing(Filter())}
                return all(
                    rows[ids[name]].state in (MessageState.DAMAGED, MessageState.HELD)
                    for name in names
                    if name != "sound"
                )

            await eventually(put_aside)
            rows = {str(row["id"]): row for row in await asyncio.to_thread(listed, tmp_path)}
        states = {name: rows[id]["state"] for name, id in ids.items() if name != "sound"}
        assert states == {
            "record": "damaged",
            "recipient": "damaged",
            "measures": "held",
            "missing": "damaged",
            "short": "damaged",
        }
        for name in states:
            assert rows[ids[name]]["reason"], name
        assert sorted(arrival.recipients for arrival in sink.arrivals) == [
            (b"after@dest.example",),
            (b"sound@dest.example",),
        ]
        # The same with the relay down.
        assert {str(row["id"]) for row in listed(tmp_path, "--state", "damaged")} == {
            ids[name] for name, state in states.items() if state == "damaged"
        }


# --- poison --------------------------------------------------------------------------------------


async def test_in_flight_at_three_deaths_is_held(tmp_path: Path) -> None:
    async with running_relay(tmp_path, NOBODY) as relay:
        id = await submit(relay)
        other = await submit(relay)
        await until(relay, id, lambda stored: stored.recipients[0].attempts == 1)
        await until(relay, other, lambda stored: stored.recipients[0].last is not None)
    flight = tmp_path / "spool" / "shards" / "0" / "flight"
    stored = None
    for death in (1, 2, 3):
        octets = flight.read_bytes()
        flight.write_bytes(number_from_id(id).to_bytes(SLOT_SIZE, "little") + octets[SLOT_SIZE:])
        async with running_relay(tmp_path, NOBODY) as relay:
            stored = relay.spool.show(id)
            assert stored.state is (MessageState.HELD if death == 3 else MessageState.QUEUED)
            assert relay.spool.show(other).state is MessageState.QUEUED
    assert stored is not None and "three deaths" in stored.reason
    events = "".join(path.read_text() for path in (tmp_path / "spool" / "evidence" / "events").iterdir())
    assert "the relay died three times" in events
    with StrictSink() as sink:
        async with running_relay(tmp_path, first_config(sink.port)) as relay:
            assert list(await relay.spool.release([MessageId(id)], relay.clock.now())) == [True]
            relay.scheduler.kick()
            await finished(relay, id)
