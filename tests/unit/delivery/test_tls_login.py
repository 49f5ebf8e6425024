"""TLS and logins towards a next hop: each policy, each way it can go wrong."""

from __future__ import annotations

import base64
import ssl
from pathlib import Path

import pytest
import trustme

from lonedot.delivery import pool
from lonedot.delivery.routing import NextHop, Smarthosts, Timeouts, TlsPolicy
from lonedot.delivery.tls import TlsSettingsFault, is_loopback, outbound_context
from lonedot.protocol.client import Login
from lonedot.terms.outcome import Result, Stage
from tests.unit.delivery.outbound import claim, outbound, route
from tests.unit.delivery.peer import SILENCE, Peer, running

OFFER = (b"PIPELINING", b"8BITMIME", b"STARTTLS")
WITH_AUTH = (*OFFER, b"AUTH PLAIN LOGIN")
LOGIN = Login(b"relay", b"correct-horse-7")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


@pytest.mark.parametrize("policy", [TlsPolicy.OPPORTUNISTIC, TlsPolicy.REQUIRED])
async def test_starttls_with_any_certificate(server_context: ssl.SSLContext, policy: TlsPolicy) -> None:
    async with (
        running(Peer(OFFER, tls=server_context)) as peer,
        outbound(route(peer.port, tls=policy)) as out,
    ):
        delivery = await out.send(claim())
        assert delivery.outcomes[0][1].result is Result.DELIVERED
        assert delivery.attempts[-1].tls.startswith("TLSv1.3 ")
        assert delivery.attempts[-1].tls.endswith(" not verified")
        assert peer.commands[:4] == [
            b"EHLO relay.example.com",
            b"STARTTLS",
            b"EHLO relay.example.com",
            b"MAIL FROM:<a@example.com>",
        ]
        assert b"TLS began: TLSv1.3" in out.transcripts.text
        # The session is reused inside TLS.
        assert (await out.send(claim())).attempts[-1].tls == delivery.attempts[-1].tls
        assert peer.sessions == 1


async def test_a_verified_host(server_context: ssl.SSLContext, ca_file: Path) -> None:
    changes = {"tls": TlsPolicy.VERIFIED, "tls_ca": ca_file}
    async with running(Peer(OFFER, tls=server_context)) as peer:
        for host in ("127.0.0.1", "localhost"):
            async with outbound(route(0, target=Smarthosts((NextHop(host, peer.port),)), **changes)) as out:
                delivery = await out.send(claim())
                assert delivery.attempts[-1].tls.endswith(" verified")
                assert "not verified" not in delivery.attempts[-1].tls


async def test_an_issuer_that_is_not_believed_defers(server_context: ssl.SSLContext) -> None:
    async with (
        running(Peer(OFFER, tls=server_context)) as peer,
        outbound(route(peer.port, tls=TlsPolicy.VERIFIED)) as out,
    ):
        outcome = await out.outcome(claim())
        assert (outcome.result, outcome.stage, outcome.status) == (Result.DEFERRED, Stage.STARTTLS, "4.7.5")
        assert "certificate" in outcome.reason
        assert peer.messages == []


async def test_a_host_with_another_name_defers(authority: trustme.CA, ca_file: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("elsewhere.example").configure_cert(context)
    async with (
        running(Peer(OFFER, tls=context)) as peer,
        outbound(route(peer.port, tls=TlsPolicy.VERIFIED, tls_ca=ca_file)) as out,
    ):
        outcome = await out.outcome(claim())
        assert (outcome.result, outcome.stage) == (Result.DEFERRED, Stage.STARTTLS)
        assert "mismatch" in outcome.reason.lower()


@pytest.mark.parametrize("policy", [TlsPolicy.REQUIRED, TlsPolicy.VERIFIED])
async def test_required_tls_that_is_not_offered_defers(policy: TlsPolicy) -> None:
    async with running(Peer((b"PIPELINING",))) as peer, outbound(route(peer.port, tls=policy)) as out:
        outcome = await out.outcome(claim())
        assert (outcome.result, outcome.stage) == (Result.DEFERRED, Stage.STARTTLS)
        assert "requires TLS" in outcome.reason
        assert peer.messages == []


async def test_without_tls_none_is_asked_for(server_context: ssl.SSLContext) -> None:
    async with running(Peer(OFFER, tls=server_context)) as peer, outbound(route(peer.port)) as out:
        assert (await out.send(claim())).attempts[-1].tls == ""
        assert b"STARTTLS" not in peer.commands


@pytest.mark.parametrize(
    ("policy", "result"), [(TlsPolicy.OPPORTUNISTIC, Result.DELIVERED), (TlsPolicy.REQUIRED, Result.DEFERRED)]
)
async def test_a_broken_handshake(policy: TlsPolicy, result: Result) -> None:
    async with running(Peer(OFFER)) as peer, outbound(route(peer.port, tls=policy)) as out:
        delivery = await out.send(claim())
        assert delivery.outcomes[0][1].result is result
        assert delivery.attempts[-1].tls == ""
        if result is Result.DEFERRED:
            assert delivery.outcomes[0][1].stage is Stage.STARTTLS
            assert b"the TLS handshake failed" in out.transcripts.text
        else:
            assert peer.sessions == 2


@pytest.mark.parametrize("policy", [TlsPolicy.OPPORTUNISTIC, TlsPolicy.REQUIRED])
async def test_replies_injected_before_the_handshake_end_the_session(
    server_context: ssl.SSLContext, policy: TlsPolicy
) -> None:
    injected = b"250-injected\r\n250 AUTH PLAIN\r\n"
    async with (
        running(Peer(OFFER, tls=server_context, behind_starttls=injected)) as peer,
        outbound(route(peer.port, tls=policy)) as out,
    ):
        outcome = await out.outcome(claim())
        assert (outcome.result, outcome.stage) == (Result.DEFERRED, Stage.STARTTLS)
        assert "plaintext behind the reply to STARTTLS" in outcome.reason
        assert peer.messages == []


async def test_a_handshake_that_never_ends_is_not_waited_for() -> None:
    changes = {"tls": TlsPolicy.REQUIRED, "timeouts": Timeouts(connect=0.1)}
    silent = Peer(OFFER, {b"GARBLE": SILENCE})
    async with running(silent) as peer, outbound(route(peer.port, **changes)) as out:
        outcome = await out.outcome(claim())
        assert (outcome.result, outcome.stage) == (Result.DEFERRED, Stage.STARTTLS)


async def test_at_the_port_of_implicit_tls_it_comes_first(
    server_context: ssl.SSLContext, ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(Peer(OFFER, tls=server_context, implicit=True)) as peer:
        monkeypatch.setattr(pool, "IMPLICIT_TLS_PORT", peer.port)
        async with outbound(route(peer.port, tls=TlsPolicy.VERIFIED, tls_ca=ca_file)) as out:
            delivery = await out.send(claim())
            assert delivery.outcomes[0][1].result is Result.DELIVERED
            assert delivery.attempts[-1].tls.endswith(" verified")
            assert b"STARTTLS" not in peer.commands
            assert b"TLS began" in out.transcripts.text


async def test_implicit_tls_to_a_host_that_speaks_none_defers(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(Peer(OFFER)) as peer:
        monkeypatch.setattr(pool, "IMPLICIT_TLS_PORT", peer.port)
        async with outbound(route(peer.port, tls=TlsPolicy.OPPORTUNISTIC)) as out:
            outcome = await out.outcome(claim())
            assert (outcome.result, outcome.stage) == (Result.DEFERRED, Stage.STARTTLS)
            assert peer.messages == []


async def test_a_file_of_issuers_that_cannot_be_used_defers_and_names_it(tmp_path: Path) -> None:
    for content in (None, b"no certificate\n"):
        path = tmp_path / "ca.pem"
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        changed = route(25, tls=TlsPolicy.VERIFIED, tls_ca=path)
        with pytest.raises(TlsSettingsFault, match=r"ca\.pem"):
            outbound_context(changed)
        async with outbound(changed) as out:
            outcome = await out.outcome(claim())
            assert (outcome.result, outcome.stage) == (Result.DEFERRED, Stage.STARTTLS)
            assert str(path) in outcome.reason


# --- logins -------------------------------------------------------------------------------------------


def shown_nowhere(text: bytes) -> bool:
    plain = b"\0" + LOGIN.name + b"\0" + LOGIN.password
    secrets = (LOGIN.password, base64.b64encode(LOGIN.password), base64.b64encode(plain))
    return not any(secret in text for secret in secrets)


async def test_a_login_inside_tls(server_context: ssl.SSLContext) -> None:
    async with (
        running(Peer(WITH_AUTH, tls=server_context)) as peer,
        outbound(route(peer.port, tls=TlsPolicy.REQUIRED, login=LOGIN)) as out,
    ):
        assert (await out.outcome(claim())).result is Result.DELIVERED
        assert peer.logins == [base64.b64encode(b"\0relay\0correct-horse-7")]
        assert b"AUTH PLAIN [redacted]" in out.transcripts.text
        assert shown_nowhere(out.transcripts.text)


async def test_auth_login_on_loopback_without_tls() -> None:
    async with (
        running(Peer((b"PIPELINING", b"AUTH LOGIN"))) as peer,
        outbound(route(peer.port, login=LOGIN)) as out,
    ):
        assert (await out.outcome(claim())).result is Result.DELIVERED
        assert peer.logins == [base64.b64encode(b"relay"), base64.b64encode(b"correct-horse-7")]
        assert shown_nowhere(out.transcripts.text)


async def test_a_refused_login_defers_in_the_servers_words_less_the_secret() -> None:
    answers = {b"AUTH": b"535 5.7.8 bad password correct-horse-7\r\n"}
    async with (
        running(Peer((b"AUTH PLAIN",), answers)) as peer,
        outbound(route(peer.port, login=LOGIN)) as out,
    ):
        outcome = await out.outcome(claim())
        assert (outcome.result, outcome.stage, outcome.status) == (Result.DEFERRED, Stage.AUTH, "4.7.8")
        assert outcome.reply is not None and outcome.reply.lines == (b"5.7.8 bad password [redacted]",)
        assert shown_nowhere(out.transcripts.text)
        assert shown_nowhere(repr(outcome).encode())


async def test_a_refused_login_is_not_tried_at_the_next_host() -> None:
    answers = {b"AUTH": b"535 5.7.8 no\r\n"}
    async with running(Peer((b"AUTH PLAIN",), answers)) as one, running(Peer((b"AUTH PLAIN",))) as two:
        hosts = (NextHop("127.0.0.1", one.port), NextHop("127.0.0.1", two.port))
        async with outbound(route(0, target=Smarthosts(hosts), login=LOGIN)) as out:
            assert (await out.outcome(claim())).stage is Stage.AUTH
            assert two.sessions == 0


async def test_no_password_over_an_open_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "is_loopback", lambda address: False)
    async with running(Peer((b"AUTH PLAIN",))) as peer:
        async with outbound(route(peer.port, login=LOGIN)) as out:
            outcome = await out.outcome(claim())
            assert (outcome.result, outcome.stage) == (Result.DEFERRED, Stage.AUTH)
            assert "no TLS" in outcome.reason
            assert peer.logins == []
        async with outbound(route(peer.port, login=LOGIN, allow_plaintext_login=True)) as out:
            assert (await out.outcome(claim())).result is Result.DELIVERED


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.0.1", True),
        ("::1", True),
        ("::1%lo", True),
        ("192.0.2.1", False),
        ("x", False),
    ],
)
def test_loopback(address: str, expected: bool) -> None:
    assert is_loopback(address) is expected
