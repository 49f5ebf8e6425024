"""A listener for LMTP: LHLO, a reply for each recipient behind the end of data, and nobody who is not trusted."""

from __future__ import annotations

import asyncio
import os
import signal
import smtplib
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lonedot.app import AppFault
from lonedot.config.load import examine
from lonedot.testing.relay import running_relay
from tests.peers.strict_sink import StrictSink
from tests.system.talk import (
    MESSAGE,
    PATIENCE,
    Client,
    connected,
    finished,
    first_config,
    id_of,
    strangers_only,
)

LMTP = 'protocol = "lmtp"'
DOMAIN = """
[[domain]]
name = "dest.example"
recipients = { file = "people" }
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "people").write_text("anna\nbert\n")
    return tmp_path


async def replies(client: Client, count: int) -> list[str]:
    return [await client.reply() for _ in range(count)]


async def test_each_recipient_that_was_taken_has_its_reply_in_order(folder: Path) -> None:
    with StrictSink() as receiver:
        toml = first_config(receiver.port, listener=LMTP, more=DOMAIN)
        async with running_relay(folder, toml) as relay, connected(relay, ehlo=False) as client:
            assert await client.reply() == "220 relay.example.com LMTP"
            greeted = await client.say("LHLO client.example")
            assert greeted.startswith("250")
            assert "PIPELINING" in greeted
            assert "CHUNKING" not in greeted
            for _ in range(2):
                said = await client.envelope("anna@dest.example", "nobody@dest.example", "bert@dest.example")
                assert [answer[:3] for answer in said] == ["250", "250", "550", "250"]
                first = await client.content()
                (second,) = await replies(client, 1)
                assert first == second
                stored = await finished(relay, id_of(first))
                assert stored.facts.protocol == "LMTP"
            assert (await client.say("NOOP")).startswith("250")
            assert (await client.say("QUIT")).startswith("221")
    assert [len(arrival.recipients) for arrival in receiver.arrivals] == [2, 2]


async def test_a_refused_message_is_refused_for_each(folder: Path) -> None:
    with StrictSink() as receiver:
        toml = first_config(receiver.port, listener=LMTP + '\nline_ends = "reject"')
        async with running_relay(folder, toml) as relay, connected(relay, ehlo=False) as client:
            await client.reply()
            await client.say("LHLO client.example")
            await client.envelope("anna@dest.example", "bert@dest.example", "carl@dest.example")
            answers = [await client.content(MESSAGE + b"bare\nLF\r\n"), *await replies(client, 2)]
            assert {answer[:3] for answer in answers} == {"550"}
            assert (await client.say("NOOP")).startswith("250")
    assert receiver.arrivals == []


async def test_commands_of_smtp_are_not_spoken(folder: Path) -> None:
    with StrictSink() as receiver:
        toml = first_config(receiver.port, listener=LMTP)
        async with running_relay(folder, toml) as relay, connected(relay, ehlo=False) as client:
            await client.reply()
            assert (await client.say("EHLO client.example")).startswith("500 ")
            assert (await client.say("HELO client.example")).startswith("500 ")
            assert (await client.say("MAIL FROM:<>")).startswith("503 ")
            await client.say("LHLO client.example")
            await client.say("MAIL FROM:<>")
            assert (await client.say("DATA")).startswith("503 ")


async def test_strangers_are_sent_away(folder: Path) -> None:
    with StrictSink() as receiver:
        toml = first_config(receiver.port, listener=LMTP)
        toml = toml.replace("127.0.0.0/8", "192.0.2.0/24")
        async with running_relay(folder, toml) as relay, connected(relay, ehlo=False) as client:
            assert (await client.reply()).startswith("554")
            assert await client.ended() == b""


async def test_smtp_listeners_do_not_speak_it(folder: Path) -> None:
    with StrictSink() as receiver:
        toml = strangers_only(first_config(receiver.port))
        async with running_relay(folder, toml) as relay, connected(relay, ehlo=False) as client:
            await client.reply()
            assert (await client.say("LHLO client.example")).startswith("502")


async def test_the_client_of_the_standard_library_hands_over_mail(folder: Path) -> None:
    def send(address: tuple[str, int]) -> dict[str, tuple[int, bytes]]:
        with smtplib.LMTP(*address) as lmtp:
            return lmtp.sendmail("c@office.example", ["anna@dest.example"], MESSAGE)

    with StrictSink() as receiver:
        async with running_relay(folder, first_config(receiver.port, listener=LMTP)) as relay:
            assert await asyncio.to_thread(send, relay.addresses["in"]) == {}


def over_socket(toml: str, path: Path, more: str = "") -> str:
    """The same with the listener at a unix socket."""
    toml = toml.replace('address = "127.0.0.1:0"', f'address = "unix:{path}"\nprotocol = "lmtp"\n{more}')
    return strangers_only(toml)


async def test_who_can_connect_to_a_unix_socket_may_send(folder: Path) -> None:
    path = folder / "lmtp"
    with StrictSink() as receiver:
        toml = over_socket(first_config(receiver.port, more=DOMAIN), path)
        async with running_relay(folder, toml) as relay:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert relay.addresses["in"] == (str(path), 0)
            async with Client(*await asyncio.open_unix_connection(str(path))) as client:
                await client.reply()
                await client.say("LHLO client.example")
                said = await client.envelope("anna@dest.example", "nobody@dest.example", "x@away.example")
                assert [answer[:3] for answer in said] == ["250", "250", "550", "250"]
                await finished(relay, id_of(await client.content()))
    (arrival,) = receiver.arrivals
    assert set(arrival.recipients) == {b"anna@dest.example", b"x@away.example"}
    assert b"with LMTP id " in arrival.content


async def test_a_reload_keeps_the_socket_and_gives_it_to_whom_the_file_says(folder: Path) -> None:
    path = folder / "lmtp"
    with StrictSink() as receiver:
        toml = first_config(receiver.port)
        async with running_relay(folder, over_socket(toml, path)) as relay:
            before = path.stat().st_ino
            for more, mode in (('group = "*"', 0o666), ("", 0o600)):
                (folder / "lonedot.toml").write_text(over_socket(toml, path, more))
                await relay.reload(os.getuid())
                assert stat.S_IMODE(path.stat().st_mode) == mode
                assert path.stat().st_ino == before
            (folder / "lonedot.toml").write_text(over_socket(toml, folder / "moved"))
            await relay.reload(os.getuid())
            assert not path.exists()
            async with Client(*await asyncio.open_unix_connection(str(folder / "moved"))) as client:
                assert await client.reply() == "220 relay.example.com LMTP"


async def test_a_socket_that_a_dead_relay_has_left_is_replaced_and_a_live_one_is_not(folder: Path) -> None:
    path = folder / "lmtp"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    with StrictSink() as receiver:
        toml = over_socket(first_config(receiver.port), path)
        async with running_relay(folder, toml):
            other = folder / "other"
            other.mkdir()
            with pytest.raises(AppFault, match="served by another process"):
                async with running_relay(other, toml):
                    raise AssertionError("two relays at one socket")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ('protocol = "smtp"', "where SMTP is not spoken"),
        ('protocol = "lmtp"\nrelay_from = ["127.0.0.0/8"]', "no clients of a network"),
        ('protocol = "lmtp"\ngroup = "no such group"', "there is no group"),
    ],
)
def test_what_a_unix_socket_cannot_have_is_told(folder: Path, wrong: str, words: str) -> None:
    toml = strangers_only(first_config(2526)).replace(
        'address = "127.0.0.1:0"', f'address = "unix:{folder}/lmtp"\n{wrong}'
    )
    file = folder / "lonedot.toml"
    file.write_text(toml)
    assert [one.what for one in examine(file).faults if words in one.what]
    file.write_text(first_config(2526, listener='group = "root"'))
    assert ["group" in one.where for one in examine(file).faults] == [True]


WORKERS = """
[server]
hostname = "relay.example.com"
spool = "spool"
workers = 2

[[listener]]
address = "unix:{path}"
protocol = "lmtp"

[[route]]
to = "*"
discard = true
"""


def greeting(path: Path) -> bytes:
    """What is said there; who connects is never refused, and waits where nobody accepts."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE)
        client.connect(str(path))
        return client.recv(100)


def test_the_socket_outlives_workers(folder: Path) -> None:
    path = folder / "lmtp"
    (folder / "lonedot.toml").write_text(WORKERS.format(path=path))
    command = [sys.executable, "-m", "lonedot", "serve", "-c", str(folder / "lonedot.toml")]
    parent = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    deadline = time.monotonic() + PATIENCE
    try:
        while not path.exists() or len(children.read_text().split()) < 2:
            assert parent.poll() is None and time.monotonic() < deadline
            threading.Event().wait(0.02)
        inode = path.stat().st_ino
        for _ in range(3):
            assert greeting(path) == b"220 relay.example.com LMTP\r\n"
            for worker in children.read_text().split():
                os.kill(int(worker), signal.SIGKILL)
        assert greeting(path) == b"220 relay.example.com LMTP\r\n"
        assert path.stat().st_ino == inode
    finally:
        parent.terminate()
        assert parent.wait(PATIENCE) == 0
