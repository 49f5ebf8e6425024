"""A whole relay from socket to socket: what the first config promises, step by step."""

from __future__ import annotations

import asyncio
import os
import smtplib
import sqlite3
import ssl
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
import trustme

from lonedot.app import AppFault, Relay
from lonedot.message.ledger import Action
from lonedot.spool.interface import Filter, MessageState, RecipientStatus, Stored
from lonedot.terms.ids import MessageId
from lonedot.testing.relay import CONFIG, running_relay
from tests.peers.strict_sink import StrictSink

MESSAGE = b"From: <c@office.example>\r\nTo: <anna@dest.example>\r\nSubject: hello\r\n\r\nfirst\r\n.second\r\n"


def send(
    port: int,
    octets: bytes = MESSAGE,
    sender: str = "c@office.example",
    to: tuple[str, ...] = ("anna@dest.example",),
    options: tuple[str, ...] = (),
    rcpt_options: tuple[str, ...] = (),
) -> str:
    """Send one message octet for octet; the text of the reply to the end of data."""
    with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
        client.ehlo("client.example")
        client.mail(sender, options)
        for address in to:
            code, words = client.rcpt(address, rcpt_options)
            if code != 250:
                raise smtplib.SMTPRecipientsRefused({address: (code, words)})
        assert client.docmd("DATA")[0] == 354
        stuffed = octets.replace(b"\r\n.", b"\r\n..")
        client.send(stuffed + b".\r\n")
        code, words = client.getreply()
        return f"{code} {words.decode()}"


def id_of(answer: str) -> MessageId:
    assert answer.startswith("250 2.0.0 Ok: queued as "), answer
    return MessageId(answer.rsplit(maxsplit=1)[-1])


async def until(relay: Relay, id: MessageId, done: Callable[[Stored], bool], seconds: float = 15.0) -> Stored:
    with anyio.fail_after(seconds):
        while True:
            stored = relay.spool.show(id)
            if done(stored):
                return stored
            await asyncio.sleep(0.02)


async def quiet(relay: Relay, seconds: float = 15.0) -> None:
    """Wait until nothing is queued."""
    with anyio.fail_after(seconds):
        while True:
            if not relay.spool.listing(Filter(limit=1)):
                return
            await asyncio.sleep(0.05)


def is_finished(stored: Stored) -> bool:
    return stored.state is MessageState.FINISHED


def first_config(port: int, server: str = "", listener: str = "", route: str = "") -> str:
    return CONFIG.format(server=server, listener=listener, route=route, port=port)


async def test_delivered_with_one_id_from_reply_to_next_hop(tmp_path: Path) -> None:
    with StrictSink() as sink:
        async with running_relay(tmp_path, first_config(sink.port)) as relay:
            port = relay.addresses["in"][1]
            id = id_of(await asyncio.to_thread(send, port))
            stored = await until(relay, id, is_finished)
        arrival = sink.arrivals[0]
    assert sink.faults == []
    assert arrival.wire.endswith(b"first\r\n..second\r\n.\r\n")
    assert id.encode() in arrival.content.partition(b"\r\n\r\n")[0]
    assert b"Message-ID: " in arrival.content
    assert b"Date: " in arrival.content
    assert stored.recipients[0].status is RecipientStatus.DELIVERED
    attempt = stored.attempts[0]
    assert attempt.wire is not None
    assert attempt.wire.tail == arrival.wire[-64:]
    assert attempt.wire.size == len(arrival.wire)
    assert attempt.transcript is not None
    assert stored.facts.transcript is not None


async def test_bare_line_feeds_of_a_trusted_device_are_mended_and_named(tmp_path: Path) -> None:
    octets = b"From: <c@office.example>\nSubject: scan\n\n%PDF\n%%EOF\n\r\n"
    with StrictSink() as sink:
        async with running_relay(tmp_path, first_config(sink.port)) as relay:
            id = id_of(await asyncio.to_thread(send, relay.addresses["in"][1], octets))
            stored = await until(relay, id, is_finished)
    assert sink.arrivals[0].wire.endswith(b"%PDF\r\n%%EOF\r\n\r\n.\r\n")
    entry = stored.ledger[0]
    assert (entry.event, entry.action) == ("door", Action.REPAIRED)
    assert any(finding.code.value == "bare-lf" for finding in entry.findings)


async def test_strangers_may_not_relay_but_reach_postmaster(tmp_path: Path) -> None:
    toml = first_config(1).replace('relay_from = ["127.0.0.0/8"]', "")
    async with running_relay(tmp_path, toml) as relay:
        port = relay.addresses["in"][1]

        def talk() -> list[int]:
            with smtplib.SMTP("127.0.0.1", port) as client:
                client.ehlo()
                client.mail("x@y.example")
                return [client.rcpt("anna@dest.example")[0], client.docmd("RCPT", "TO:<Postmaster>")[0]]

        assert await asyncio.to_thread(talk) == [550, 250]


async def test_a_second_relay_on_one_spool_is_refused(tmp_path: Path) -> None:
    async with running_relay(tmp_path, first_config(1)) as relay:
        with pytest.raises(AppFault, match=str(os.getpid())):
            await Relay(relay.config).start()


async def test_refused_for_good_becomes_a_dsn_and_the_dsn_of_nobody_badmail(tmp_path: Path) -> None:
    """The next hop refuses anna; the report to her sender is refused too, and ends in Badmail."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 strict\r\n")
        while line := await reader.readline():
            verb = line[:4].upper()
            if verb == b"RCPT":
                writer.write(b"550 5.1.1 No such mailbox here, friend\r\n")
            elif verb == b"DATA":
                writer.write(b"503 5.5.1 no recipients\r\n")
            elif verb == b"QUIT":
                writer.write(b"221 bye\r\n")
                break
            else:
                writer.write(b"250 fine\r\n")
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with running_relay(tmp_path, first_config(port)) as relay:
            id = id_of(await asyncio.to_thread(send, relay.addresses["in"][1]))
            stored = await until(relay, id, is_finished)
            assert stored.recipients[0].status is RecipientStatus.FAILED
            last = stored.recipients[0].last
            assert last is not None and last.reply is not None
            assert last.reply.lines == (b"5.1.1 No such mailbox here, friend",)
            await quiet(relay)
            reports = [
                s
                for row in relay.spool.listing(Filter(states=(MessageState.FINISHED,)))
                if (s := relay.spool.show(MessageId(row.id))).facts.source == "dsn"
            ]
    assert [report.facts.parent for report in reports] == [id]
    texts = list((tmp_path / "spool" / "badmail").glob("*.txt"))
    mails = list((tmp_path / "spool" / "badmail").glob("*.eml"))
    assert len(texts) == len(mails) == 1
    assert b"No such mailbox here, friend" in mails[0].read_bytes()


async def test_success_is_reported_as_asked(tmp_path: Path) -> None:
    with StrictSink(extensions=("PIPELINING", "SIZE 1000000", "8BITMIME")) as sink:
        async with running_relay(tmp_path, first_config(sink.port)) as relay:
            port = relay.addresses["in"][1]
            await asyncio.to_thread(
                send,
                port,
                MESSAGE,
                "c@office.example",
                ("anna@dest.example",),
                ("ENVID=abc",),
                ("NOTIFY=SUCCESS",),
            )
            await asyncio.to_thread(sink.wait_for, 2, 15.0)
    report = sink.arrivals[1]
    assert report.reverse_path == b""
    assert report.recipients == (b"c@office.example",)
    assert b"Original-Envelope-Id: abc" in report.content
    assert b"Action: relayed" in report.content


async def test_eight_bit_to_a_seven_bit_hop_is_encoded_in_the_attempts_ledger(tmp_path: Path) -> None:
    octets = (
        b"From: <c@office.example>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=iso-8859-1\r\n"
        b"Content-Transfer-Encoding: 8bit\r\n\r\ncaf\xe9\r\n"
    )
    with StrictSink(extensions=("PIPELINING",)) as sink:
        async with running_relay(tmp_path, first_config(sink.port)) as relay:
            id = id_of(await asyncio.to_thread(send, relay.addresses["in"][1], octets))
            stored = await until(relay, id, is_finished)
    assert sink.arrivals[0].wire.isascii()
    assert b"caf=E9" in sink.arrivals[0].wire
    assert [entry.event for entry in stored.attempts[0].suffix] == ["downgrade"]


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"421 busy\r\n")
    writer.close()


async def test_an_altered_stored_message_is_held_and_never_sent(tmp_path: Path) -> None:
    """A hand changes the octets of a waiting message; they never leave, and the digest says why."""
    with StrictSink() as sink:
        refusing = await asyncio.start_server(hang_up, "127.0.0.1", 0)
        async with refusing:
            toml = first_config(refusing.sockets[0].getsockname()[1])
            async with running_relay(tmp_path, toml) as relay:
                port = relay.addresses["in"][1]
                small = id_of(await asyncio.to_thread(send, port))
                large = id_of(await asyncio.to_thread(send, port, MESSAGE + (b"x" * 70 + b"\r\n") * 8000))
                for id in (small, large):
                    await until(relay, id, lambda s: s.recipients[0].last is not None)
        body = next((tmp_path / "spool").rglob("*.body"))
        octets = bytearray(body.read_bytes())
        octets[5] ^= 1
        body.write_bytes(octets)
        database = next((tmp_path / "spool").rglob("queue.db"))
        with sqlite3.connect(database) as connection:
            connection.execute("UPDATE content SET body = CAST(replace(body, 'first', 'thirst') AS BLOB)")
        connection.close()
        async with running_relay(tmp_path, first_config(sink.port)) as relay:
            await relay.spool.retry([small, large], relay.clock.now())
            relay.scheduler.kick()
            for id in (small, large):
                stored = await until(relay, id, lambda s: s.state is MessageState.HELD)
                assert "not those that were" in stored.reason
        assert sink.arrivals == []


async def test_starttls_on_both_sides(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    (tmp_path / "key.pem").chmod(0o600)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    tls = 'tls = "starttls"\ntls_certificate = "cert.pem"\ntls_key = "key.pem"\n'
    behind_folder = tmp_path / "behind"
    behind_folder.mkdir()
    for name in ("cert.pem", "key.pem"):
        (behind_folder / name).write_bytes((tmp_path / name).read_bytes())
        (behind_folder / name).chmod(0o600)
    with StrictSink() as sink:
        async with running_relay(behind_folder, first_config(sink.port, listener=tls)) as behind:
            route = 'tls = "verified"\ntls_ca = "ca.pem"'
            toml = first_config(behind.addresses["in"][1], listener=tls, route=route)
            async with running_relay(tmp_path, toml) as relay:

                def talk() -> str:
                    with smtplib.SMTP("127.0.0.1", relay.addresses["in"][1]) as client:
                        client._host = "localhost"  # type: ignore[attr-defined]  # the name in the certificate
                        client.starttls(context=context)
                        client.ehlo("client.example")
                        client.mail("c@office.example")
                        client.rcpt("anna@dest.example")
                        code, words = client.data(MESSAGE)
                        return f"{code} {words.decode()}"

                id = id_of(await asyncio.to_thread(talk))
                stored = await until(relay, id, is_finished)
                await asyncio.to_thread(sink.wait_for, 1, 10.0)
    assert stored.facts.protocol == "ESMTPS"
    assert stored.facts.tls.startswith("TLSv1.")
    assert stored.attempts[0].tls.startswith("TLSv1.")
    head = sink.arrivals[0].content.partition(b"\r\n\r\n")[0]
    assert head.count(b"with ESMTPS id") == 2


async def test_loop_is_refused(tmp_path: Path) -> None:
    hops = b"".join(b"Received: by hop%d.example; Thu, 02 Jul 2026 10:00:00 +0000\r\n" % n for n in range(30))
    async with running_relay(tmp_path, first_config(1)) as relay:
        answer = await asyncio.to_thread(send, relay.addresses["in"][1], hops + MESSAGE)
    assert answer.startswith("554 5.4.6")


async def test_pickup(tmp_path: Path) -> None:
    with StrictSink() as sink:
        toml = first_config(sink.port) + "\n[pickup]\npoll_seconds = 0.05\n"
        async with running_relay(tmp_path, toml):
            folder = tmp_path / "spool" / "pickup"
            part = tmp_path / "message.part"
            part.write_bytes(
                b"x-sender: erp@office.example\nx-receiver: anna@dest.example\nFrom: erp@office.example\n"
                b"To: someone@else.example\nBcc: hidden@else.example\nSubject: bill\n\n.\n.dot\n"
            )
            part.rename(folder / "bill.eml")
            (folder / "broken.eml").write_bytes(b"Subject: nobody\n\ntext\n")
            await asyncio.to_thread(sink.wait_for, 1, 15.0)
            with anyio.fail_after(10):
                while True:
                    if not [e for e in (*folder.iterdir(), *(folder / ".taking").iterdir()) if e.is_file()]:
                        break
                    await asyncio.sleep(0.05)
            assert list((tmp_path / "spool" / "badmail").glob("*broken.eml.txt"))
    arrival = sink.arrivals[0]
    assert arrival.reverse_path == b"erp@office.example"
    assert arrival.recipients == (b"anna@dest.example",)
    assert b"x-receiver" not in arrival.content.lower()
    assert b"hidden@" not in arrival.content
    assert arrival.wire.endswith(b"\r\n\r\n..\r\n..dot\r\n.\r\n")


async def test_stop_drains_what_is_on_its_way(tmp_path: Path) -> None:
    """SIGTERM's path: a session in the middle of a message may finish it, an idle one is told 421."""
    with StrictSink() as sink:
        async with running_relay(tmp_path, first_config(sink.port)) as relay:
            port = relay.addresses["in"][1]
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            idle_reader, idle_writer = await asyncio.open_connection("127.0.0.1", port)
            await idle_reader.readline()
            await reader.readline()
            writer.write(b"HELO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n")
            for _ in range(4):
                await reader.readline()
            stopping = asyncio.create_task(relay.stop())
            assert (await idle_reader.readline()).startswith(b"421 4.3.2")
            writer.write(b"Subject: late\r\n\r\ntext\r\n.\r\n")
            assert (await reader.readline()).startswith(b"250 2.0.0")
            await stopping
            writer.close()
            idle_writer.close()
        async with running_relay(tmp_path, first_config(sink.port)):
            await asyncio.to_thread(sink.wait_for, 1, 10.0)
    assert len(sink.arrivals) == 1
