"""Clients behind a proxy: PROXY headers and XCLIENT against a relay that runs; swaks and haproxy are real."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path

import pytest

from lonedot.app import Relay
from lonedot.reception import proxy
from lonedot.reception.recorder import Recorder
from lonedot.testing.relay import running_relay
from tests.need import need
from tests.system.talk import MESSAGE, PATIENCE, Client, connected, finished, first_config, id_of
from tests.unit.reception.test_proxy import FOUR, v2

PROXIED = 'proxy_from = ["127.0.0.1/32"]\n'
"""The proxy is in `relay_from` too (127.0.0.0/8): its own rights must not be its clients'."""
STATED = 'xclient_from = ["127.0.0.1/32"]\n'
DENIED = "550 5.7.1 Relaying denied"


async def opened(relay: Relay, header: bytes) -> Client:
    host, port = relay.addresses["in"]
    client = Client(*await asyncio.open_connection(host, port))
    client.write(header)
    return client


async def greeted(relay: Relay, header: bytes) -> Client:
    client = await opened(relay, header)
    assert (await client.reply()).startswith("220 ")
    assert (await client.say("EHLO client.example")).startswith("250")
    return client


# --- PROXY ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [b"PROXY TCP4 192.0.2.7 10.0.0.5 40000 25\r\n", v2(1, 0x11, FOUR)])
async def test_the_client_has_its_own_rights(tmp_path: Path, header: bytes) -> None:
    listener = PROXIED + 'relay_to = ["dest.example"]\n'
    async with (
        Recorder() as hop,
        running_relay(tmp_path, first_config(hop.port, listener=listener)) as relay,
        await greeted(relay, header) as client,
    ):
        replies = await client.envelope("x@other.example")
        assert replies[-1].startswith(f"{DENIED}: 192.0.2.7 ")
        assert (await client.say("RCPT TO:<anna@dest.example>")).startswith("250")
        stored = await finished(relay, id_of(await client.content(MESSAGE)))
    assert (stored.facts.client, stored.facts.trusted) == ("192.0.2.7", False)
    assert b"from client.example ([192.0.2.7])" in hop.messages[0].content


async def test_a_client_in_relay_from_has_its_right_back(tmp_path: Path) -> None:
    async with (
        Recorder() as hop,
        running_relay(tmp_path, first_config(hop.port, listener=PROXIED)) as relay,
        await greeted(relay, b"PROXY TCP4 127.0.0.9 10.0.0.5 40000 25\r\n") as client,
    ):
        assert (await client.envelope())[-1].startswith("250")


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", v2(0, 0, b"")])
async def test_who_is_not_named_has_no_rights(tmp_path: Path, header: bytes) -> None:
    async with (
        running_relay(tmp_path, first_config(1, listener=PROXIED)) as relay,
        await greeted(relay, header) as client,
    ):
        assert (await client.envelope())[-1].startswith(DENIED)


async def test_a_header_in_pieces_with_a_command_behind_it(tmp_path: Path) -> None:
    async with (
        running_relay(tmp_path, first_config(1, listener=PROXIED)) as relay,
        await opened(relay, b"PROXY TCP4 127.0.0.9 ") as client,
    ):
        await client.writer.drain()
        client.write(b"10.0.0.5 40000 25\r\nEHLO early.example\r\n")
        assert (await client.reply()).startswith("220 ")
        assert (await client.reply()).startswith("250")


@pytest.mark.parametrize("start", [b"EHLO client.example\r\n", b"PROXY TCP4 nonsense\r\n", b"\x16\x03\x01"])
async def test_without_a_header_nothing_is_said(tmp_path: Path, start: bytes) -> None:
    async with (
        running_relay(tmp_path, first_config(1, listener=PROXIED)) as relay,
        await opened(relay, start) as client,
    ):
        assert await client.ended() == b""


async def test_a_proxy_that_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "HEADER_SECONDS", 0.05)
    async with (
        running_relay(tmp_path, first_config(1, listener=PROXIED)) as relay,
        await opened(relay, b"PROXY TCP4 ") as client,
    ):
        assert await client.ended() == b""


async def test_from_elsewhere_the_header_is_no_command(tmp_path: Path) -> None:
    listener = 'proxy_from = ["192.0.2.0/24"]\n'
    async with (
        running_relay(tmp_path, first_config(1, listener=listener)) as relay,
        await opened(relay, b"PROXY TCP4 127.0.0.9 10.0.0.5 40000 25\r\n") as client,
    ):
        assert (await client.reply()).startswith("220 ")
        assert (await client.reply()).startswith("500 ")


async def test_haproxy(tmp_path: Path) -> None:
    """Both versions, from the real program."""
    program = need("haproxy", "haproxy")
    for version in ("send-proxy", "send-proxy-v2"):
        async with Recorder() as hop:
            toml = first_config(hop.port, listener=PROXIED)
            folder = tmp_path / version
            folder.mkdir()
            async with running_relay(folder, toml) as relay:
                place = folder / "front.sock"
                file = folder / "haproxy.cfg"
                file.write_text(
                    "defaults\n mode tcp\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n"
                    f"listen front\n bind unix@{place}\n bind 127.0.0.1:0\n"
                    f" server relay 127.0.0.1:{relay.addresses['in'][1]} {version}\n"
                )
                probe = socket.socket()
                probe.bind(("127.0.0.1", 0))
                front = probe.getsockname()[1]
                file.write_text(file.read_text().replace("127.0.0.1:0", f"127.0.0.1:{front}"))
                probe.close()
                process = await asyncio.create_subprocess_exec(str(program), "-db", "-f", str(file))
                try:
                    client = await _connected_to(front)
                    async with client:
                        assert (await client.reply()).startswith("220 ")
                        assert (await client.say("EHLO behind.example")).startswith("250")
                        await client.envelope()
                        stored = await finished(relay, id_of(await client.content(MESSAGE)))
                finally:
                    process.terminate()
                    await process.wait()
                assert (stored.facts.client, stored.facts.helo) == ("127.0.0.1", "behind.example")


async def _connected_to(port: int) -> Client:
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(ConnectionError):
                return Client(*await asyncio.open_connection("127.0.0.1", port))
            await asyncio.sleep(0.02)


# --- XCLIENT --------------------------------------------------------------------------------------


async def test_a_proxy_speaks_for_a_stranger(tmp_path: Path) -> None:
    listener = STATED + 'relay_to = ["dest.example"]\n'
    async with (
        Recorder() as hop,
        running_relay(tmp_path, first_config(hop.port, listener=listener)) as relay,
        connected(relay) as client,
    ):
        answer = await client.say(
            "XCLIENT ADDR=192.0.2.7 NAME=[UNAVAILABLE] PORT=4711 PROTO=SMTP HELO=spike.example "
            "DESTADDR=10.0.0.5 LOGIN=[UNAVAILABLE]"
        )
        assert answer == "220 relay.example.com ESMTP"
        assert (await client.say("MAIL FROM:<a@b.example>")).startswith("503")  # begins anew
        assert (await client.say("EHLO proxy.example")).startswith("250")
        assert (await client.envelope("x@other.example"))[-1].startswith(f"{DENIED}: 192.0.2.7 ")
        assert (await client.say("XCLIENT ADDR=127.0.0.1")).startswith("503")
        assert (await client.say("RCPT TO:<anna@dest.example>")).startswith("250")
        stored = await finished(relay, id_of(await client.content(MESSAGE)))
    facts = stored.facts
    assert (facts.client, facts.helo, facts.protocol, facts.trusted) == (
        "192.0.2.7",
        "spike.example",
        "SMTP",
        False,
    )


async def test_who_has_logged_in_at_the_proxy_may_relay(tmp_path: Path) -> None:
    async with (
        Recorder() as hop,
        running_relay(tmp_path, first_config(hop.port, listener=STATED)) as relay,
        connected(relay) as client,
    ):
        assert (await client.say("XCLIENT ADDR=IPV6:2001:db8::7 LOGIN=anna+2Bscan")).startswith("220 ")
        assert (await client.say("EHLO proxy.example")).startswith("250")
        assert (await client.envelope("x@other.example"))[-1].startswith("250")
        stored = await finished(relay, id_of(await client.content(MESSAGE)))
    assert (stored.facts.client, stored.facts.login) == ("2001:db8::7", "anna+scan")


@pytest.mark.parametrize(
    "argument",
    [
        "",
        "ADDR",
        "ADDR=nonsense",
        "ADDR=IPV6:1.2.3.4",
        "ADDR=2001:db8::7",
        "ADDR=192.0.2.7 ADDR=127.0.0.1",
        "SHOE=42",
        "PROTO=HTTP",
        "HELO=a+0Ab",
        "LOGIN=" + "x" * 300,
    ],
)
async def test_what_is_no_statement(tmp_path: Path, argument: str) -> None:
    async with running_relay(tmp_path, first_config(1, listener=STATED)) as relay, connected(relay) as client:
        assert (await client.say(f"XCLIENT {argument}")).startswith("501 ")
        assert (await client.envelope())[-1].startswith("250")  # nothing has changed


async def test_for_others_it_does_not_exist(tmp_path: Path) -> None:
    listener = 'xclient_from = ["192.0.2.0/24"]\n'
    async with (
        running_relay(tmp_path, first_config(1, listener=listener)) as relay,
        connected(relay, ehlo=False) as client,
    ):
        await client.reply()
        assert "XCLIENT" not in await client.say("EHLO client.example")
        assert (await client.say("XCLIENT ADDR=127.0.0.1")).startswith("500 ")


async def test_limits_count_the_real_client(tmp_path: Path) -> None:
    listener = STATED + "max_connections_per_client = 1\n"
    async with running_relay(tmp_path, first_config(1, listener=listener)) as relay:
        async with connected(relay) as first, connected(relay) as second:
            assert (await first.say("XCLIENT ADDR=192.0.2.7")).startswith("220 ")
            assert (await second.say("XCLIENT ADDR=192.0.2.7")).startswith("421 ")
            assert await second.ended() == b""
        async with connected(relay) as third:
            await asyncio.wait_for(first.ended(), PATIENCE)
            assert (await third.say("XCLIENT ADDR=192.0.2.7")).startswith("220 ")


async def test_swaks(tmp_path: Path) -> None:
    program = need("swaks", "swaks")
    async with Recorder() as hop, running_relay(tmp_path, first_config(hop.port, listener=STATED)) as relay:
        host, port = relay.addresses["in"]
        process = await asyncio.create_subprocess_exec(
            *(str(program), "--server", host, "--port", str(port), "--ehlo", "swaks.example"),
            *("--from", "a@office.example", "--to", "anna@dest.example"),
            *("--xclient-addr", "192.0.2.9", "--xclient-helo", "real.example", "--xclient-login", "anna"),
            stdout=asyncio.subprocess.PIPE,
        )
        said, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
        assert process.returncode == 0, said.decode()
        await hop.wait_for(1, PATIENCE)
    assert b"from real.example ([192.0.2.9])" in hop.messages[0].content
