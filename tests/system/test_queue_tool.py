"""A person acts on the queue of a running relay through its control socket."""

from __future__ import annotations

import asyncio
import json
import tarfile
from pathlib import Path

import pytest

from lonedot.app import Relay
from lonedot.cli import run
from lonedot.observability.clock import SystemClock
from lonedot.spool.interface import Filter, MessageState, RecipientStatus, SpoolPaths, Stored
from lonedot.spool.sqlite import Policy, open_spool
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


async def test_messages_move_to_another_relay(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    folder, archive, new = tmp_path / "files", str(tmp_path / "all.tar"), str(tmp_path / "new")
    async with running(_peer(busy=True)) as peer, running_relay(tmp_path, first_config(peer.port)) as relay:
        ids = [await _deferred(relay) for _ in range(2)]
        spool = str(relay.config.server.paths.root)
        assert await _lonedot(relay, "queue", "export", "--to", str(folder), "--domain", "dest.example") == 0
        assert {path.name for path in folder.iterdir()} == {
            f"{id}.{kind}" for id in ids for kind in ("eml", "json", "message")
        }
        assert await _lonedot(relay, "queue", "export", "--tar", archive, *ids) == 0
        assert await _lonedot(relay, "queue", "export", "--tar", archive, *ids) == 1  # it is there
        capsysbinary.readouterr()
        assert await _lonedot(relay, "queue", "export", "--tar", "-", *ids) == 0
        packed = capsysbinary.readouterr().out
        assert len(packed) == Path(archive).stat().st_size
        # Back into the relay it came from: nothing is taken.
        assert await _lonedot(relay, "queue", "import", archive) == 0
        assert b"2 were here already" in capsysbinary.readouterr().out
        assert len(list(await relay.spool.select(Filter()))) == 2
    # Into a spool whose relay is down, then beside a running one.
    await open_spool(SpoolPaths(Path(new)), SystemClock(), Policy(inline_sync=True)).close()
    (folder / f"{ids[0]}.message").rename(tmp_path / "put aside")
    assert await asyncio.to_thread(run, ["queue", "import", "--hold", str(folder), "--spool", new]) == 0
    assert b"1 message imported, and held" in capsysbinary.readouterr().out
    assert await asyncio.to_thread(run, ["queue", "delete", "--all", "--yes", "--spool", spool]) == 0
    async with running(_peer(busy=False)) as peer:
        other = tmp_path / "other"
        other.mkdir()
        async with running_relay(other, first_config(peer.port)) as relay:
            assert await _lonedot(relay, "queue", "import", archive) == 0
            assert b"2 messages imported" in capsysbinary.readouterr().out
            assert relay.spool.show(ids[0]).recipients[0].attempts == 1  # and tried at the time planned
            assert await _lonedot(relay, "queue", "retry", "--all") == 0
            for id in ids:
                await finished(relay, id)
            capsysbinary.readouterr()
            assert await _lonedot(relay, "queue", "import", archive, "--json") == 0
            assert sorted(json.loads(capsysbinary.readouterr().out)["here_already"]) == sorted(ids)
            assert not list((relay.config.server.paths.root / "importing").iterdir())
        assert len(peer.messages) == 2


async def test_another_message_with_the_same_id_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(_peer(busy=True)) as peer, running_relay(tmp_path, first_config(peer.port)) as relay:
        id = await _deferred(relay)
        folder = tmp_path / "files"
        assert await _lonedot(relay, "queue", "export", "--to", str(folder), id) == 0
        path = folder / f"{id}.message"
        path.write_bytes(path.read_bytes().replace(b"Subject: hello", b"Subject: hullo"))
        assert await _lonedot(relay, "queue", "import", str(folder)) == 1
        assert f"{id}: not taken: another message has this id here" in capsys.readouterr().err


async def test_nothing_of_a_hostile_archive_is_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(_peer(busy=True)) as peer, running_relay(tmp_path, first_config(peer.port)) as relay:
        id = await _deferred(relay)
        archive = tmp_path / "all.tar"
        assert await _lonedot(relay, "queue", "export", "--tar", str(archive), id) == 0
        await relay.spool.delete((id,), relay.clock.now())
        await relay.spool.purge(relay.clock.now() + 1, 10)
        whole = archive.read_bytes()
        link = tarfile.TarInfo("/etc/cron.d/x")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.write_bytes(whole[:-1024] + link.tobuf(tarfile.USTAR_FORMAT) + whole[-1024:])
        assert await _lonedot(relay, "queue", "import", str(archive)) == 1
        error = capsys.readouterr().err
        assert "'/etc/cron.d/x', is a symbolic link" in error and "nothing of it was taken" in error
        assert not relay.spool.contains(id)
        twice = whole[:-1024] + whole
        archive.write_bytes(twice)
        assert await _lonedot(relay, "queue", "import", str(archive)) == 1
        assert "is in it twice" in capsys.readouterr().err
        archive.write_bytes(whole)
        assert await _lonedot(relay, "queue", "import", str(archive)) == 0
