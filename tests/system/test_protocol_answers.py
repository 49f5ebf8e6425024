"""Every event of a session in a running relay, with sinks inline and in processes: answers of their own, and logins."""

from __future__ import annotations

import base64
import ssl
from pathlib import Path

import pytest
import trustme

from lonedot.evidence.events import EventKind
from lonedot.observability import log
from lonedot.reception.logins import hash_of
from lonedot.testing.relay import running_relay
from tests.peers.strict_sink import StrictSink
from tests.system.talk import connected, finished, first_config, id_of, strangers_only

ANSWERS = """
from lonedot import Accept, Defer, Next, Reject, Session, Stop, Verdict, sink


@sink("Banner", on="connect")
def banner(session: Session) -> Verdict:
    return Accept("The mail of the office")


@sink("Greeting", on="helo")
def greeting(session: Session) -> Verdict:
    if session.helo == "localhost":
        return Reject("say who you are", code=550, enhanced="5.7.1")
    return Accept(f"hello {session.helo}", keywords=("XEXCH50", "X-LIMIT 5"))


@sink("Verbs", on="OnInboundCommand", rule="XEXCH50=*;NOOP=*slow*;QUIT=*")
def verbs(session: Session) -> Verdict:
    if session.command.verb == b"NOOP":
        return Defer("not now", code=450)
    return Accept(f"took {session.command.argument.decode()}", code=254)


@sink("Senders", on="mail", rule="MAIL FROM!=*@bank.example")
def senders(session: Session) -> Verdict:
    return Accept("from you, gladly")


@sink("Recipients", on="rcpt")
def recipients(session: Session) -> Verdict:
    if session.recipient.address.local == b"full":
        return Defer("full", code=452, enhanced="4.2.2")
    return Accept("known", enhanced="2.1.9")


@sink("Content", on="data", rule="RCPT TO=refused@.dest.example")
def content(session: Session) -> Verdict:
    return Reject("not today", code=554)


@sink("Logins", on="auth")
def logins(session: Session) -> Verdict:
    shown = session.credentials
    if shown.identity == b"broken":
        raise RuntimeError(f"no database for {shown.password.decode()}")
    if (shown.identity, shown.password) == (b"anna", b"geheim"):
        return Accept("Hello, Anna")
    return Reject("locked") if shown.identity == b"locked" else Next()
"""
NAMES = ("banner", "greeting", "verbs", "senders", "recipients", "content", "logins")


def answering(folder: Path, isolation: str, port: int, listener: str = "") -> str:
    (folder / "answers.py").write_text(ANSWERS)
    more = f'isolation = "{isolation}"\nmaximum_faults = 2\n'
    tables = "".join(
        f'\n[[sink]]\nname = "{name.capitalize()}"\nfile = "answers.py:{name}"\n{more}' for name in NAMES
    )
    return strangers_only(first_config(port, listener=listener)) + tables


def plain(name: str, password: str) -> str:
    return "AUTH PLAIN " + base64.b64encode(f"\0{name}\0{password}".encode()).decode()


@pytest.mark.parametrize("isolation", ["inline", "process"])
async def test_every_event_answers_for_itself(tmp_path: Path, isolation: str) -> None:
    with StrictSink() as receiver:
        toml = answering(tmp_path, isolation, receiver.port, "allow_plaintext_login = true")
        async with running_relay(tmp_path, toml) as relay:
            async with connected(relay, ehlo=False) as client:
                assert await client.reply() == "220 relay.example.com The mail of the office"
                assert await client.say("EHLO localhost") == "550 5.7.1 say who you are"
                assert await client.say("MAIL FROM:<>") == "503 5.5.1 EHLO or HELO first"
                greeting = await client.say("EHLO copier")
                assert greeting.startswith("250-relay.example.com hello copier\n250-PIPELINING\n")
                assert greeting.endswith("\n250-XEXCH50\n250 X-LIMIT 5")
                assert "\n250-AUTH PLAIN LOGIN\n" in greeting
                assert await client.say("XEXCH50 12 2") == "254 2.0.0 took 12 2"
                assert await client.say("NOOP slowly") == "450 4.7.1 not now"
                assert await client.say("NOOP") == "250 2.0.0 OK"
                assert await client.say("XOTHER") == "500 5.5.1 Command not recognised"
                assert await client.say(plain("broken", "s3cr3t")) == (
                    "454 4.7.0 The login could not be checked; try again later"
                )
                assert await client.say(plain("locked", "s3cr3t")) == "535 5.7.8 locked"
                assert await client.say(plain("bob", "s3cr3t")) == "535 5.7.8 Name or password refused"
                assert await client.say("MAIL FROM:<x@bank.example>") == "250 2.1.0 Ok"
                assert await client.say("RCPT TO:<anna@dest.example>") == (
                    "550 5.7.1 Relaying denied: 127.0.0.1 may not send to anna@dest.example"
                )
                await client.say("RSET")
                assert await client.say(plain("anna", "geheim")) == "235 2.7.0 Hello, Anna"
                client.write(b"MAIL FROM:<c@office.example>\r\nRCPT TO:<refused@a.dest.example>\r\nDATA\r\n")
                assert [await client.reply() for _ in range(3)] == [
                    "250 2.1.0 from you, gladly",
                    "250 2.1.9 known",
                    "554 5.7.1 not today",
                ]
                await client.say("RSET")
                assert await client.envelope("full@dest.example", "anna@dest.example") == [
                    "250 2.1.0 from you, gladly",
                    "452 4.2.2 full",
                    "250 2.1.9 known",
                ]
                id = id_of(await client.content())
                assert (await client.say("QUIT")).startswith("221 ")
            stored = await finished(relay, id)
            assert (stored.facts.login, stored.facts.trusted) == ("anna", True)
            assert b"with ESMTPA id " in receiver.arrivals[0].content
            (fault,) = [event for event in relay.events.read() if event.kind is EventKind.SINK_FAILED]
            assert fault.words == "Logins at auth: RuntimeError: no database for ***"
        log.flush()
        left = b"".join(path.read_bytes() for path in (tmp_path / "spool").rglob("*") if path.is_file())
        for secret in (
            b"s3cr3t",
            b"geheim",
            base64.b64encode(b"\0anna\0geheim"),
            base64.b64encode(b"\0bob\0s3cr3t"),
        ):
            assert secret not in left


async def test_faults_are_booked_by_the_guid_of_the_binding(tmp_path: Path) -> None:
    toml = answering(tmp_path, "inline", 1, "allow_plaintext_login = true")
    async with running_relay(tmp_path, toml) as relay, connected(relay) as client:
        for _ in range(2):
            assert (await client.say(plain("broken", "x"))).startswith("454 ")
        (off,) = [event for event in relay.events.read() if event.kind is EventKind.BINDING_SWITCHED_OFF]
        assert "Logins" in off.words
    async with running_relay(tmp_path, toml) as relay, connected(relay) as client:
        # It is switched off still, so nobody is left who could be asked.
        assert await client.say(plain("anna", "geheim")) == "502 5.5.1 Command not implemented"


async def test_a_login_inside_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "relay.pem"))
    (tmp_path / "relay.pem").chmod(0o600)
    (tmp_path / "logins.txt").write_text(f"scanner:{hash_of(b'geheim')}\n")
    (tmp_path / "logins.txt").chmod(0o600)
    listener = (
        'tls = "starttls"\ntls_certificate = "relay.pem"\ntls_key = "relay.pem"\nlogins = "logins.txt"\n'
    )
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with StrictSink() as receiver:
        toml = strangers_only(first_config(receiver.port, listener=listener))
        async with running_relay(tmp_path, toml) as relay, connected(relay, ehlo=False) as client:
            await client.reply()
            assert "AUTH" not in await client.say("EHLO scanner")
            assert (await client.say(plain("scanner", "geheim"))).startswith("538 5.7.11")
            await client.start_tls(context)
            assert "250-AUTH PLAIN LOGIN" in await client.say("EHLO scanner")
            assert (await client.say(plain("scanner", "Geheim"))).startswith("535 5.7.8")
            assert (await client.say(plain("scanner", "geheim"))).startswith("235 2.7.0")
            await client.envelope("anna@dest.example")
            stored = await finished(relay, id_of(await client.content()))
            assert stored.facts.protocol == "ESMTPSA"
        assert b"with ESMTPSA id " in receiver.arrivals[0].content
