"""TLS at the door: at once, by STARTTLS, required; and what may not be said before it."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
import trustme

from lonedot.testing.relay import running_relay
from tests.peers.strict_sink import StrictSink
from tests.system.talk import MESSAGE, connected, finished, first_config, id_of


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    """A client's context that believes the relay's certificate."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture
def folder(tmp_path: Path, authority: trustme.CA) -> Path:
    """A folder with certificate and key for the configuration."""
    certificate = authority.issue_cert("localhost")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    key = tmp_path / "key.pem"
    certificate.private_key_pem.write_to_path(key)
    key.chmod(0o600)
    return tmp_path


def tls(mode: str, more: str = "") -> str:
    return f'tls = "{mode}"\ntls_certificate = "cert.pem"\ntls_key = "key.pem"\n{more}'


async def test_tls_from_the_first_octet(folder: Path, trusting: ssl.SSLContext) -> None:
    with StrictSink() as sink:
        toml = first_config(sink.port, listener=tls("implicit"))
        async with running_relay(folder, toml) as relay, connected(relay, tls=trusting) as client:
            assert "STARTTLS" not in await client.say("EHLO client.example")
            await client.envelope()
            stored = await finished(relay, id_of(await client.content()))
    assert stored.facts.protocol == "ESMTPS"
    assert stored.facts.tls.startswith("TLSv1.")
    assert b"with ESMTPS id" in sink.arrivals[0].content


async def test_plaintext_where_tls_comes_first_gets_nothing(folder: Path) -> None:
    async with (
        running_relay(folder, first_config(1, listener=tls("implicit"))) as relay,
        connected(relay, ehlo=False) as client,
    ):
        client.write(b"EHLO client.example\r\nMAIL FROM:<a@b.example>\r\n")
        assert b"250" not in await client.ended()


async def test_mail_waits_for_tls_where_it_is_required(folder: Path, trusting: ssl.SSLContext) -> None:
    with StrictSink() as sink:
        toml = first_config(sink.port, listener=tls("starttls", "require_tls = true\n"))
        async with running_relay(folder, toml) as relay, connected(relay) as client:
            assert (await client.say("MAIL FROM:<c@office.example>")).startswith("530 5.7.0")
            await client.start_tls(trusting)
            assert (await client.say("MAIL FROM:<c@office.example>")).startswith("503")  # EHLO first, anew
            assert "STARTTLS" not in await client.say("EHLO client.example")
            await client.envelope()
            await finished(relay, id_of(await client.content()))
    assert len(sink.arrivals) == 1


async def test_plaintext_behind_starttls_ends_the_session(folder: Path) -> None:
    """Injected commands must not be taken for those of the session inside TLS (CVE-2011-0411)."""
    async with (
        running_relay(folder, first_config(1, listener=tls("starttls"))) as relay,
        connected(relay) as client,
    ):
        client.write(b"STARTTLS\r\nMAIL FROM:<injected@evil.example>\r\n")
        assert (await client.reply()).startswith("554 5.5.0")
        assert await client.ended() == b""


async def test_a_handshake_that_fails_costs_its_session_alone(folder: Path) -> None:
    async with running_relay(folder, first_config(1, listener=tls("starttls"))) as relay:
        async with connected(relay) as client:
            assert (await client.say("STARTTLS")).startswith("220")
            client.write(b"this is no handshake\r\n" * 20)
            assert b"250" not in await client.ended()
        async with connected(relay) as client:
            assert (await client.say("NOOP")).startswith("250")


async def test_what_was_said_before_tls_is_forgotten(folder: Path, trusting: ssl.SSLContext) -> None:
    async with (
        running_relay(folder, first_config(1, listener=tls("starttls"))) as relay,
        connected(relay) as client,
    ):
        await client.envelope()
        await client.start_tls(trusting)
        await client.say("EHLO client.example")
        assert (await client.say("RCPT TO:<a@d.example>")).startswith("503")
        assert (await client.say("DATA")).startswith("503")


async def test_a_client_that_closes_inside_tls_without_quit_loses_nothing(
    folder: Path, trusting: ssl.SSLContext
) -> None:
    with StrictSink() as sink:
        async with running_relay(folder, first_config(sink.port, listener=tls("implicit"))) as relay:
            async with connected(relay, tls=trusting) as client:
                await client.envelope()
                client.write(b"BDAT %d LAST\r\n" % len(MESSAGE) + MESSAGE)
                assert (await client.reply()).startswith("250 2.0.0 Ok: queued")
            await asyncio.to_thread(sink.wait_for, 1)
