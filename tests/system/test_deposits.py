"""A whole relay whose routes end on this machine, and what is left when it is killed."""

from __future__ import annotations

import asyncio
import os
import select
import smtplib
import tempfile
import time
from pathlib import Path

from lonedot.admin.octets import octets_of
from lonedot.admin.values import Form, Octets, Remark
from lonedot.spool.interface import MessageState, RecipientStatus
from lonedot.testing.process import RelayProcess
from lonedot.testing.relay import running_relay
from tests.system.test_journey import id_of, until
from tests.system.test_journey import send as send_one

CONFIG = """
[server]
hostname = "relay.example.com"
spool = "spool"

[[listener]]
name = "in"
address = "127.0.0.1:0"
relay_from = ["127.0.0.0/8"]

[[route]]
name = "mailboxes"
to = "*"
maildir = "{folder}/mail/{{local}}"
maildir_create = true
"""


def marks(folder: Path) -> list[str]:
    """The number in each message of a mailbox."""
    found = []
    for path in (folder / "mail" / "anna").glob("new/*"):
        octets = path.read_bytes()
        assert octets.startswith(b"Return-Path: <") and octets.endswith(b"\nthe end\n")
        assert b"\r" not in octets
        found.append(octets.rpartition(b"number ")[2].partition(b"\n")[0].decode())
    return sorted(found)


def send(port: int, numbers: range) -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
        for number in numbers:
            client.sendmail(
                "copier@office.example",
                ["anna@dest.example"],
                f"Subject: scan\r\n\r\nnumber {number}\r\nthe end\r\n",
            )


def wait_for(folder: Path, numbers: range) -> list[str]:
    deadline = time.monotonic() + 60
    wanted = {str(number) for number in numbers}
    while not wanted <= set(found := marks(folder)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert wanted <= set(found)
    return found


def test_killed_while_it_delivers_it_loses_nothing_and_doubles_what_was_in_flight(tmp_path: Path) -> None:
    (tmp_path / "mail").mkdir()
    numbers = range(60)
    with RelayProcess(tmp_path, CONFIG.format(folder=tmp_path)) as relay:
        send(relay.ports["in"], numbers)
        relay.kill()
        before = marks(tmp_path)
        relay.start()
        found = wait_for(tmp_path, numbers)
        # One message more: behind it nothing of the others is still to come.
        send(relay.ports["in"], range(60, 61))
        found = wait_for(tmp_path, range(61))
    doubled = len(found) - len(set(found))
    assert doubled <= len(before)
    # No message arrived more often than twice: once before the kill, once after it.
    assert all(found.count(one) <= 2 for one in set(found))
    assert all(found.count(one) == 1 for one in found if one not in before)


MANY = """
[server]
hostname = "relay.example.com"
spool = "spool"
keep_content = "all"

[[listener]]
name = "in"
address = "127.0.0.1:0"
relay_from = ["127.0.0.0/8"]

[[route]]
name = "mailboxes"
to = "mail.example"
maildir = "{folder}/mail/{{domain}}/{{local}}"
maildir_create = true

[[route]]
name = "tickets"
to = "program.example"
pipe = ["/bin/sh", "-c", "cat >/dev/null; test $1 = known@program.example || exit 67", "sh", "{{recipient}}"]
{user}

[[route]]
name = "waste"
to = "discard.example"
discard = true

[[route]]
name = "quarantine"
to = "hold.example"
hold = "to be looked at"
"""
MESSAGE = b"From: <c@office.example>\r\nSubject: hello\r\n\r\nfirst\r\n.second\r\n"


async def test_one_message_over_routes_of_every_kind(tmp_path: Path) -> None:
    (tmp_path / "mail").mkdir()
    user = 'pipe_user = "nobody"' if os.geteuid() == 0 else ""
    to = ("anna@mail.example", "known@program.example", "other@program.example", "x@discard.example")
    async with running_relay(tmp_path, MANY.format(folder=tmp_path, user=user)) as relay:
        answer = await asyncio.to_thread(send_one, relay.addresses["in"][1], MESSAGE, "c@office.example", to)
        stored = await until(relay, id_of(answer), lambda one: one.state is MessageState.FINISHED)
        fared = {state.recipient.address.text: state for state in stored.recipients}
        assert [fared[one].status for one in to] == [
            RecipientStatus.DELIVERED,
            RecipientStatus.DELIVERED,
            RecipientStatus.FAILED,
            RecipientStatus.DELIVERED,
        ]
        last = fared["other@program.example"].last
        assert last is not None and last.status == "5.1.1"
        pieces = [piece async for piece in octets_of(relay.spool, stored, Form.SENT, 0, "anna@mail.example")]
        (file,) = (tmp_path / "mail" / "mail.example" / "anna" / "new").iterdir()
        assert b"".join(piece.octets for piece in pieces if isinstance(piece, Octets)) == file.read_bytes()
        assert not [piece for piece in pieces if isinstance(piece, Remark) and piece.is_fault]


async def test_a_route_keeps_mail_until_a_person_releases_it(tmp_path: Path) -> None:
    async with running_relay(tmp_path, MANY.format(folder=tmp_path, user="")) as relay:
        answer = await asyncio.to_thread(
            send_one, relay.addresses["in"][1], MESSAGE, "c@office.example", ("x@hold.example",)
        )
        stored = await until(relay, id_of(answer), lambda one: one.state is MessageState.HELD)
        assert stored.reason == "route quarantine: to be looked at"


def test_a_running_program_dies_with_the_relay(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        fifo = Path(name) / "fifo"
        Path(name).chmod(0o755)
        os.mkfifo(fifo)
        fifo.chmod(0o666)
        user = 'pipe_user = "nobody"' if os.geteuid() == 0 else ""
        toml = MANY.format(folder=tmp_path, user=user).replace(
            "cat >/dev/null;", f"exec >{fifo}; echo $$; exec sleep 600;"
        )
        with RelayProcess(tmp_path, toml) as relay:
            send_one(relay.ports["in"], MESSAGE, "c@office.example", ("known@program.example",))
            # Open as long as the program is there; its end is the proof.
            with fifo.open("rb") as heard:
                assert heard.readline().strip().isdigit()
                relay.kill()
                ready, _, _ = select.select([heard], [], [], 20)
                assert ready and heard.read() == b""
