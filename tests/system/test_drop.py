"""Drop folders in a whole relay: each virtual server has its own, and the Pickup of another relay takes the files."""

from __future__ import annotations

import asyncio
import smtplib
import time
from pathlib import Path

import pytest

from lonedot.admin.octets import octets_of
from lonedot.admin.values import Form, Octets, Remark
from lonedot.app import Relay
from lonedot.cli import run
from lonedot.spool.interface import Filter, MessageState, Stored
from lonedot.terms.ids import MessageId
from lonedot.testing.process import RelayProcess
from lonedot.testing.relay import running_relay
from tests.system.talk import eventually

SERVER = """
[server]
hostname = "relay.example.com"
spool = "spool"
keep_content = "all"
"""
DROPPING = (
    SERVER
    + """
[pickup]
enabled = false

[[listener]]
name = "in"
address = "127.0.0.1:0"
relay_from = ["127.0.0.0/8"]

[[source]]
number = 2

[[listener]]
name = "second"
address = "127.0.0.1:0"
source = 2
relay_from = ["127.0.0.0/8"]

[[route]]
name = "programs"
to = "local.example"
drop = true
"""
)
TAKING = (
    SERVER
    + """
[pickup]
folder = "{folder}"
poll_seconds = 0.05

[[listener]]
address = "127.0.0.1:0"

[[route]]
to = "*"
hold = "here"
"""
)
MESSAGE = (
    b"From: copier@office.example\r\nTo: a@local.example\r\nSubject: scan\r\n"
    b"Date: Sun, 22 Nov 2026 12:00:00 +0000\r\nMessage-ID: <1@office.example>\r\n\r\n"
    b".\r\n..two\r\n\xe4\r\n.\r\n%%EOF\r\n"
)


def send(port: int, *recipients: str, sender: str = "copier@office.example", text: bytes = MESSAGE) -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
        client.sendmail(sender, recipients, text)


def stored(relay: Relay) -> list[Stored]:
    rows = relay.spool.listing(Filter(states=tuple(MessageState)))
    return [relay.spool.show(MessageId(row.id)) for row in rows]


async def octets(relay: Relay, one: Stored, form: Form) -> bytes:
    pieces = [piece async for piece in octets_of(relay.spool, one, form, 0, "")]
    assert not [piece for piece in pieces if isinstance(piece, Remark) and piece.is_fault]
    return b"".join(piece.octets for piece in pieces if isinstance(piece, Octets))


def test_the_route_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "lonedot.toml"
    file.write_text(DROPPING)
    assert run(("route", "a@local.example", "-c", str(file))) == 0
    said = capsys.readouterr().out
    for folder, number in (("drop", 1), ("drop-2", 2)):
        assert f"{tmp_path}/spool/{folder} (source {number})" in said


async def test_each_virtual_server_has_its_own(tmp_path: Path) -> None:
    async with running_relay(tmp_path, DROPPING) as relay:
        for name in ("in", "second"):
            await asyncio.to_thread(send, relay.addresses[name][1], "a@local.example", "b@local.example")
        folders = {number: tmp_path / "spool" / name for number, name in ((1, "drop"), (2, "drop-2"))}
        await eventually(lambda: all(list(folder.glob("*.eml")) for folder in folders.values()))
        await eventually(lambda: {one.state for one in stored(relay)} == {MessageState.FINISHED})
        for one in stored(relay):
            (file,) = folders[one.facts.server].iterdir()
            lines = b"x-sender: copier@office.example\r\nx-receiver: a@local.example\r\nx-receiver: b@local.example\r\n"
            assert file.name == f"{one.id}-0.eml"
            assert file.read_bytes() == lines + await octets(relay, one, Form.QUEUED)
            assert await octets(relay, one, Form.SENT) == await octets(relay, one, Form.QUEUED)
            assert one.attempts[-1].next_hop == f"drop:{file.parent}"


async def test_the_pickup_of_another_relay_takes_the_same_octets(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    folder = tmp_path / "first" / "spool" / "drop"
    async with (
        running_relay(tmp_path / "first", DROPPING) as first,
        running_relay(tmp_path / "second", TAKING.format(folder=folder)) as second,
    ):
        port = first.addresses["in"][1]
        await asyncio.to_thread(send, port, "a@local.example", "b@local.example")
        await asyncio.to_thread(send, port, "c@local.example", sender="")
        bad = b"X-Receiver: victim@example.net\r\n" + MESSAGE
        await asyncio.to_thread(send, port, "d@local.example", text=bad)
        await eventually(lambda: len(stored(second)) == 3)
        before = {one.recipients[0].recipient.address.text[0]: one for one in stored(first)}
        after = {one.recipients[0].recipient.address.text[0]: one for one in stored(second)}
        for key in "acd":
            assert after[key].envelope.reverse_path == before[key].envelope.reverse_path
            assert [one.recipient.address for one in after[key].recipients] == [
                one.recipient.address for one in before[key].recipients
            ]
            assert await octets(second, after[key], Form.ARRIVAL) == await octets(
                first, before[key], Form.SENT
            )
        await eventually(lambda: not list(folder.glob("*.eml")))


def test_killed_while_it_drops_it_loses_nothing_and_writes_no_file_twice(tmp_path: Path) -> None:
    """Nobody takes the files, so each that is written again is found to be there."""
    folder = tmp_path / "spool" / "drop"
    with RelayProcess(tmp_path, DROPPING) as relay:
        for number in range(60):
            send(relay.ports["in"], "a@local.example", text=MESSAGE + b"number %d\r\n" % number)
        relay.kill()
        relay.start()
        send(relay.ports["in"], "a@local.example", text=MESSAGE + b"number 60\r\n")
        deadline = time.monotonic() + 60
        while len(list(folder.glob("*.eml"))) < 61 and time.monotonic() < deadline:
            time.sleep(0.05)
        relay.stop()
    found = sorted(int(file.read_bytes().split()[-1]) for file in folder.glob("*.eml"))
    assert found == list(range(61))
    assert not list(folder.glob(".*"))
