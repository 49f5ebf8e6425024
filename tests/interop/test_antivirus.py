"""Antivirus with a real clamd: EICAR in every wrapping, refusals, and a scanner that dies under load."""

from __future__ import annotations

import asyncio
import base64
import io
import socket
import zipfile
from collections.abc import Iterator
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path

import pytest

from lonedot.delivery import transport
from lonedot.message.ledger import Action
from lonedot.queue.retry import RetrySchedule
from lonedot.sinks.builtin.antivirus_clamd import ask_version, places_from
from lonedot.spool.interface import MessageState
from lonedot.testing.relay import running_relay
from tests.peers.clamd import SIGNATURE, Clamd, need_clamd
from tests.peers.filters import EICAR
from tests.peers.strict_sink import StrictSink
from tests.system.talk import Client, connected, eventually, finished, first_config, id_of, until
from tests.unit.sinks.builtin.contract import both_loops

pytestmark = pytest.mark.peer
anyio_backend = both_loops

BINDING = """
[[sink]]
name = "Antivirus"
import = "antivirus"
deadline = "60s"
event = "{event}"
settings = {{ scanners = "{scanners}", connect_seconds = 5, rest_seconds = 0.5{more} }}
"""
STREAM_LIMIT = "StreamMaxLength 2M\n"
AT_ONCE = 8
EACH = 25


def table(scanners: str, more: str = "", event: str = "end-of-data") -> str:
    return BINDING.format(scanners=scanners, more=more, event=event)


@pytest.fixture(scope="module")
def clamd() -> Iterator[Clamd]:
    need_clamd()
    with Clamd(STREAM_LIMIT) as one:
        yield one


def letter(attachment: bytes = b"", name: str = "bill.com", text: str = "hello") -> bytes:
    """A message as a mail program writes it; the attachment is in base64."""
    made = EmailMessage(policy=policy.SMTP)
    made["From"], made["To"], made["Subject"] = "c@office.example", "anna@dest.example", "a letter"
    made.set_content(text)
    if attachment:
        made.add_attachment(attachment, maintype="application", subtype="octet-stream", filename=name)
    return made.as_bytes()


def zipped(octets: bytes, name: str = "bill.com") -> bytes:
    place = io.BytesIO()
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, octets)
    return place.getvalue()


def within(octets: bytes) -> bytes:
    """A message that carries another one."""
    return (
        b"From: <c@office.example>\r\nSubject: fwd\r\nMIME-Version: 1.0\r\n"
        b'Content-Type: multipart/mixed; boundary="out"\r\n\r\n--out\r\nContent-Type: message/rfc822\r\n\r\n'
        + octets
        + b"\r\n--out--\r\n"
    )


WRAPPED = {
    "text": letter(text=EICAR.decode()),
    "base64": letter(EICAR),
    "zip": letter(zipped(EICAR), "bill.zip"),
    "zip in zip": letter(zipped(zipped(EICAR), "inner.zip"), "bill.zip"),
    "message in message": within(letter(EICAR)),
    "an odd field first": b"X-Odd: 1\r\n" + letter(EICAR),
    "quoted-printable": (
        b"From: <c@office.example>\r\nMIME-Version: 1.0\r\nContent-Type: application/x-com; name=a.com\r\n"
        b"Content-Transfer-Encoding: quoted-printable\r\n\r\n" + EICAR.replace(b"$", b"=24") + b"\r\n"
    ),
    "8-bit around it": letter().replace(b"hello", b"\xe4\xff " + EICAR),
    "no header": b"\r\n" + EICAR + b"\r\n",
    "base64 alone, no MIME-Version": (
        b"Content-Type: application/x-com\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        + base64.encodebytes(EICAR).replace(b"\n", b"\r\n")
    ),
}


async def sent(client: Client, octets: bytes) -> str:
    await client.envelope()
    return await client.content(octets)


async def test_eicar_is_found_in_every_wrapping(clamd: Clamd, tmp_path: Path) -> None:
    with StrictSink() as receiver:
        async with running_relay(tmp_path, first_config(receiver.port, more=table(clamd.address))) as relay:
            async with connected(relay) as client:
                for name, octets in WRAPPED.items():
                    answer = await sent(client, octets)
                    assert answer == f"550 5.7.1 infected with {SIGNATURE}", name
                taken = await sent(client, letter(b"harmless"))
                assert taken.startswith("250"), taken
            await eventually(lambda: len(receiver.arrivals) == 1)
        assert EICAR not in receiver.arrivals[0].content


@pytest.mark.parametrize(
    ("wanted", "state"),
    [("hold", MessageState.HELD), ("quarantine", MessageState.HELD), ("discard", MessageState.FINISHED)],
)
async def test_on_arrival_it_does_not_go_on(
    clamd: Clamd, wanted: str, state: MessageState, tmp_path: Path
) -> None:
    tables = table(clamd.address, f', on_infected = "{wanted}"', "arrival")
    with StrictSink() as receiver:
        async with running_relay(tmp_path, first_config(receiver.port, more=tables)) as relay:
            async with connected(relay) as client:
                id = id_of(await sent(client, WRAPPED["zip"]))
            await until(relay, id, lambda stored: stored.state is state)
            words = [entry.words for entry in relay.spool.show(id).ledger if entry.binding == "Antivirus"]
        assert not receiver.arrivals
    assert [SIGNATURE in one for one in words] == [True]


async def test_the_infected_part_alone_is_taken_out(clamd: Clamd, tmp_path: Path) -> None:
    tables = table(clamd.address, ', on_infected = "strip", header = "X-Virus-Status"')
    with StrictSink() as receiver:
        async with running_relay(tmp_path, first_config(receiver.port, more=tables)) as relay:
            async with connected(relay) as client:
                id = id_of(await sent(client, letter(zipped(EICAR), "bill.zip")))
            await eventually(lambda: len(receiver.arrivals) == 1)
            (entry,) = [one for one in relay.spool.show(id).ledger if one.binding == "Antivirus"]
    read = BytesParser(policy=policy.default).parsebytes(receiver.arrivals[0].content)
    assert read["X-Virus-Status"] == f"removed 1 infected with {SIGNATURE}"
    text, note = read.iter_parts()
    assert text.get_content().strip() == "hello"
    assert SIGNATURE in note.get_content()
    assert "bill.zip" in note.get_content()
    assert entry.action is Action.KEPT


async def test_what_is_beyond_its_limit(clamd: Clamd, tmp_path: Path) -> None:
    large = letter(b"\x01\x02\x03" * 1_500_000)
    with StrictSink() as receiver:
        toml = first_config(receiver.port, more=table(clamd.address, ', oversize = "defer"'))
        async with running_relay(tmp_path, toml) as relay, connected(relay) as client:
            answer = await sent(client, large)
    assert answer == "451 4.7.1 too large for the virus scanner; try again later"


async def test_over_tcp_when_the_first_scanner_is_not_there(tmp_path: Path) -> None:
    need_clamd()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with Clamd(f"TCPSocket {port}\nTCPAddr 127.0.0.1\n") as one, StrictSink() as receiver:
        (place,) = places_from(f"127.0.0.1:{port}")
        assert (await ask_version(place, 5)).startswith("ClamAV 1.")
        tables = table(f"unix:{one.folder}/none, 127.0.0.1:{port}")
        toml = first_config(receiver.port, more=tables)
        async with running_relay(tmp_path, toml) as relay, connected(relay) as client:
            assert (await sent(client, WRAPPED["base64"])).startswith("550 5.7.1")
            assert (await sent(client, letter())).startswith("250")


async def test_a_scanner_that_is_killed_under_load_lets_nothing_pass(tmp_path: Path) -> None:
    need_clamd()
    taken: set[str] = set()
    refused: set[str] = set()
    deferred = 0

    async def client_of(number: int) -> None:
        """Sends each message until it is taken or refused, as a client with a queue does."""
        nonlocal deferred
        async with connected(relay) as client:
            for count in range(EACH):
                name = f"{number}-{count}"
                octets = letter(EICAR if count % 2 else b"fine", text=f"this is {name}.")
                while (answer := await sent(client, octets)).startswith("4"):
                    deferred += 1
                    await asyncio.sleep(0.01)  # a client waits before it comes again
                (refused if answer.startswith("550 5.7.1 infected") else taken).add(name)
                assert answer[:3] in ("250", "550"), answer

    with Clamd() as scanner, StrictSink() as receiver:
        toml = first_config(receiver.port, more=table(scanner.address))
        async with running_relay(tmp_path, toml) as relay:
            clients = asyncio.gather(*map(client_of, range(AT_ONCE)))
            for part in (1, 2, 3):
                await eventually(lambda part=part: len(taken) + len(refused) >= part * 40)  # type: ignore[misc]
                await asyncio.to_thread(scanner.kill)
                seen = deferred
                await eventually(lambda seen=seen: deferred > seen)  # type: ignore[misc]
                await asyncio.to_thread(scanner.run)
            await clients
            await eventually(lambda: len(receiver.arrivals) == len(taken))
        contents = [message.content for message in receiver.arrivals]
    assert len(refused) == AT_ONCE * (EACH // 2)
    assert len(taken) == AT_ONCE * EACH - len(refused)
    assert all(int(name.partition("-")[2]) % 2 for name in refused)
    body = base64.b64encode(EICAR)[:40]
    assert not any(body in one or EICAR in one for one in contents)
    assert {
        name for name in taken if sum(f"this is {name}.".encode() in one for one in contents) == 1
    } == taken


async def test_what_came_in_while_the_scanner_was_dead_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_clamd()
    monkeypatch.setattr(transport, "SCHEDULE", RetrySchedule(minutes=(0.002,)))
    with Clamd() as scanner, StrictSink() as receiver:
        scanner.kill()
        tables = table(scanner.address, ', on_infected = "hold"', "arrival")
        toml = first_config(receiver.port, more=tables)
        async with running_relay(tmp_path, toml) as relay:
            async with connected(relay) as client:
                good = id_of(await sent(client, letter(b"fine")))
                bad = id_of(await sent(client, WRAPPED["zip"]))
            for id in (good, bad):
                await until(relay, id, lambda stored: stored.ledger[-1].action is Action.DEFERRED)
            assert not receiver.arrivals
            await asyncio.to_thread(scanner.run)
            await finished(relay, good)
            held = await until(relay, bad, lambda stored: stored.state is MessageState.HELD)
        (arrival,) = receiver.arrivals
    assert held.reason == f"Antivirus: infected with {SIGNATURE}"
    assert EICAR not in arrival.content
