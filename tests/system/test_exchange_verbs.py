"""XEXCH50 and X-LINK2STATE in a running relay: offered, taken, refused, and switched off by their group."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from lonedot.testing.process import RelayProcess
from lonedot.testing.relay import running_relay
from tests.peers.strict_sink import StrictSink
from tests.system.talk import connected, finished, first_config, id_of, strangers_only
from tests.system.test_commands import run

BOTH = """
[[sink]]
name = "Exchange verbs offered"
import = "lonedot.sinks.builtin.xexch50:xexch50_offer"
group = "Exchange"
{more}

[[sink]]
name = "Exchange verbs"
import = "lonedot.sinks.builtin.xexch50:xexch50"
group = "Exchange"
{more}
"""
BLOB = b"\0\x01\r\n.\r\nQUIT\r\n" + bytes(range(256)) * 400


@pytest.mark.parametrize("isolation", ["inline", "process"])
async def test_what_a_peer_brings_is_dropped_and_never_sent_on(tmp_path: Path, isolation: str) -> None:
    with StrictSink(extensions=["PIPELINING", "XEXCH50", "X-LINK2STATE"]) as receiver:
        toml = first_config(receiver.port, more=BOTH.format(more=f'isolation = "{isolation}"'))
        async with running_relay(tmp_path, toml) as relay, connected(relay, ehlo=False) as client:
            await client.reply()
            assert (await client.say("EHLO exchange")).endswith("250-XEXCH50\n250 X-LINK2STATE")
            assert await client.say("X-LINK2STATE LAST CHUNK={0000000A} QUERY 0000") == "250 2.0.0 Ok"
            assert (await client.say("XEXCH50 -1 2")).startswith("501 5.5.4 Syntax: XEXCH50")
            assert (await client.say("XEXCH50 1048577 2")).startswith("552 5.3.4 At most 1048576")
            await client.envelope("anna@dest.example")
            assert await client.say(f"XEXCH50 {len(BLOB)} 1") == "354 Send binary data"
            assert await client.say(BLOB[:-2]) == f"250 2.0.0 {len(BLOB)} octets received"
            await finished(relay, id_of(await client.content()))
        (arrival,) = receiver.arrivals
        assert receiver.faults == [], "the next hop offers the verbs, and hears neither"
        assert b"octets received" not in arrival.content


async def test_a_stranger_is_told_nothing_and_may_nothing(tmp_path: Path) -> None:
    with StrictSink() as receiver:
        toml = strangers_only(first_config(receiver.port, more=BOTH.format(more="")))
        async with running_relay(tmp_path, toml) as relay, connected(relay, ehlo=False) as client:
            await client.reply()
            assert "XEXCH50" not in await client.say("EHLO stranger")
            commands = [f"XEXCH50 {argument}" for argument in ("4 2", "-1 2", "4294967295 2", "")]
            for command in (*commands, "X-LINK2STATE FIRST CHUNK={FFFFFFFF}"):
                assert await client.say(command) == "504 5.7.0 Need to authenticate first"


def test_one_switch_turns_all_bindings_of_the_group(tmp_path: Path) -> None:
    registry = BOTH.format(more="").replace("[[sink]]", "[[binding]]").replace("import =", "sink =")
    (tmp_path / "sinks.toml").write_text(registry)
    with StrictSink() as receiver:
        toml = first_config(receiver.port, server='registry = "sinks.toml"')
        with RelayProcess(tmp_path, toml) as relay:
            assert greeting(relay) == (True, b"354")
            run(tmp_path, "sinks", "disable", "--group", "Exchange")
            assert greeting(relay) == (False, b"500")
            run(tmp_path, "sinks", "enable", "--group", "Exchange")
            assert greeting(relay) == (True, b"354")


def greeting(relay: RelayProcess) -> tuple[bool, bytes]:
    """Whether the verb is offered, and what is said to it."""
    with socket.create_connection(("127.0.0.1", relay.ports["in"]), timeout=20) as line:
        file = line.makefile("rb")
        file.readline()
        line.sendall(b"EHLO a\r\n")
        offer: list[bytes] = []
        while not offer or offer[-1][3:4] == b"-":
            offer.append(file.readline())
        line.sendall(b"XEXCH50 4 2\r\n")
        return any(b"XEXCH50" in one for one in offer), file.readline()[:3]
