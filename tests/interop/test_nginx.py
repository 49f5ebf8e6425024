"""nginx as a mail proxy in front of the relay: it says by XCLIENT, or by the PROXY protocol, for whom it speaks."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lonedot.reception.recorder import Recorder
from lonedot.testing.relay import running_relay
from tests.need import need
from tests.system.talk import MESSAGE, PATIENCE, Client, finished, first_config, id_of

MODULE = Path("/usr/lib/nginx/modules/ngx_mail_module.so")
TRUSTED, STRANGER = "127.0.0.5", "127.0.0.6"
NGINX = """
load_module {module};
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr;
events {{ }}
mail {{
  server_name front.example;
  auth_http 127.0.0.1:{auth}/;
  server {{
    listen 127.0.0.1:{port};
    protocol smtp;
    smtp_auth none plain;
    xclient {xclient};
    proxy_protocol {proxy};
  }}
}}
"""
LISTENERS = {
    "xclient": ("on", "off", 'xclient_from = ["127.0.0.1/32"]\n'),
    "proxy": ("off", "on", 'proxy_from = ["127.0.0.1/32"]\n'),
}


def need_nginx() -> Path:
    program = need("nginx", "nginx libnginx-mod-mail")
    if not MODULE.exists():
        need(
            MODULE.name, "libnginx-mod-mail"
        )  # it is no program: skipped, or failed where peers are required
    return program


def config(next_hop: int, kind: str) -> str:
    """Of a relay that trusts one address behind the proxy, and not the proxy's own."""
    return first_config(next_hop, listener=LISTENERS[kind][2]).replace("127.0.0.0/8", f"{TRUSTED}/32")


@contextlib.asynccontextmanager
async def front_of(folder: Path, port: int, kind: str) -> AsyncIterator[int]:
    """nginx before the relay at `port`; gives its own port. Whoever asks it for a login has one."""
    program = need_nginx()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        told = f"Auth-Status: OK\r\nAuth-Server: 127.0.0.1\r\nAuth-Port: {port}\r\n"
        writer.write(f"HTTP/1.0 200 OK\r\n{told}\r\n".encode())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as auth:
        xclient, proxy, _ = LISTENERS[kind]
        with socket.create_server(("127.0.0.1", 0)) as probe:
            front = probe.getsockname()[1]
        file = folder / "nginx.conf"
        file.write_text(
            NGINX.format(
                module=MODULE,
                folder=folder,
                auth=auth.sockets[0].getsockname()[1],
                port=front,
                xclient=xclient,
                proxy=proxy,
            )
        )
        process = await asyncio.create_subprocess_exec(
            *(str(program), "-e", "stderr", "-p", str(folder), "-c", str(file)),
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            yield front
        finally:
            process.terminate()
            await process.wait()


async def client_from(address: str, port: int) -> Client:
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(ConnectionError):
                return Client(*await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0)))
            await asyncio.sleep(0.02)


@pytest.mark.peer
@pytest.mark.parametrize("kind", sorted(LISTENERS))
async def test_rights_are_those_of_the_client_behind_it(tmp_path: Path, kind: str) -> None:
    async with Recorder() as hop:
        toml = config(hop.port, kind)
        async with (
            running_relay(tmp_path, toml) as relay,
            front_of(tmp_path, relay.addresses["in"][1], kind) as front,
        ):
            async with await client_from(TRUSTED, front) as client:
                assert (await client.reply()).startswith("220 front.example")
                assert (await client.say("EHLO scanner.example")).startswith("250")
                assert (await client.envelope())[-1].startswith("250")
                stored = await finished(relay, id_of(await client.content(MESSAGE)))
            async with await client_from(STRANGER, front) as client:
                await client.reply()
                await client.say("EHLO spike.example")
                assert f"Relaying denied: {STRANGER} " in (await client.envelope())[-1]
    assert (stored.facts.client, stored.facts.trusted) == (TRUSTED, True)
    assert stored.facts.helo == "scanner.example" or kind == "proxy"


@pytest.mark.peer
async def test_who_logs_in_at_the_proxy_may_relay(tmp_path: Path) -> None:
    async with Recorder() as hop:
        toml = config(hop.port, "xclient")
        async with (
            running_relay(tmp_path, toml) as relay,
            front_of(tmp_path, relay.addresses["in"][1], "xclient") as front,
            await client_from(STRANGER, front) as client,
        ):
            await client.reply()
            await client.say("EHLO spike.example")
            words = base64.b64encode(b"\0anna@office.example\0password").decode()
            assert (await client.say(f"AUTH PLAIN {words}")).startswith("235")
            assert (await client.envelope())[-1].startswith("250")
            stored = await finished(relay, id_of(await client.content(MESSAGE)))
    assert (stored.facts.client, stored.facts.login) == (STRANGER, "anna@office.example")
