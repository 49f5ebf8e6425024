"""Real filters behind the milter bridge, and Postfix with the same filters as second opinion: octets are compared."""

from __future__ import annotations

import asyncio
import contextlib
import re
import smtplib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from lonedot.message.ledger import Action
from lonedot.spool.interface import MessageState
from tests.need import need
from tests.peers.filters import EICAR, GTUBE, ClamavMilter, OpenDkim, Rspamd, need_clamav_milter
from tests.peers.milter import CONTINUE, ScriptedMilter, change, pack
from tests.peers.postfix import Postfix, PostfixSettings, need_postfix
from tests.peers.strict_sink import StrictSink
from tests.system.milters import HOSTNAME, bindings, relay_with, sent
from tests.system.talk import MESSAGE, eventually, id_of

pytestmark = pytest.mark.peer

# --- rspamd -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rspamd() -> Iterator[Rspamd]:
    need("rspamd", "rspamd")
    with Rspamd() as one:
        yield one


async def test_rspamd_adds_its_result_and_refuses_spam(rspamd: Rspamd, tmp_path: Path) -> None:
    with StrictSink() as receiver:
        async with relay_with(tmp_path, receiver, bindings(rspamd.address)) as relay:
            id = id_of(await sent(relay, MESSAGE))
            refused = await sent(relay, MESSAGE + GTUBE + b"\r\n")
            await eventually(lambda: receiver.arrivals)
            stored = relay.spool.show(id)
    assert refused.startswith("554 5.7.1 Gtube pattern")
    (arrival,) = receiver.arrivals
    assert b"\r\nX-Spamd-Result: default: False [" in arrival.content
    assert arrival.content.endswith(MESSAGE.partition(b"\r\n\r\n")[2])
    assert receiver.faults == [] and arrival.bare_octets == ()
    (entry,) = [one for one in stored.ledger if one.binding == "Milter"]
    assert (entry.action, entry.event) == (Action.KEPT, "end-of-data")


# --- opendkim -----------------------------------------------------------------------------------------


SIGNED = re.compile(rb"DKIM-Signature: .*?\r\n(?![ \t])", re.DOTALL)


@pytest.mark.parametrize("canonicalization", ["relaxed/simple", "simple/simple", "relaxed/relaxed"])
async def test_opendkim_signs_and_another_verifies(tmp_path: Path, canonicalization: str) -> None:
    """Folded fields, fields without a space behind the colon: what is signed is what is sent."""
    need("opendkim", "opendkim")
    octets = MESSAGE.replace(
        b"Subject: hello\r\n", b"Subject: one\r\n\ttwo\r\n  three\r\nX-Tight:a\r\nX-Wide:   b \r\n"
    )
    with StrictSink() as receiver, OpenDkim("s", "office.example", canonicalization) as signer:
        async with relay_with(tmp_path, receiver, bindings(signer.address)) as relay:
            id_of(await sent(relay, octets))
            await eventually(lambda: receiver.arrivals)
        signed = receiver.arrivals[0].content
        assert SIGNED.search(signed)
        with OpenDkim("v", "office.example") as verifier:
            (verifier.folder / "keys").write_text((signer.folder / "keys").read_text())
            second, third = tmp_path / "second", tmp_path / "third"
            second.mkdir()
            async with relay_with(second, receiver, bindings(verifier.address), stranger=True) as relay:
                id_of(await sent(relay, signed))
                await eventually(lambda: len(receiver.arrivals) == 2)
            third.mkdir()
            async with relay_with(third, receiver, bindings(verifier.address), stranger=True) as relay:
                id_of(await sent(relay, signed.replace(b"first", b"other")))
                await eventually(lambda: len(receiver.arrivals) == 3)
    assert b"dkim=pass" in receiver.arrivals[1].content
    assert b"dkim=fail" in receiver.arrivals[2].content
    assert receiver.faults == []


# --- clamav-milter ------------------------------------------------------------------------------------


async def test_clamav_milter_refuses_a_virus_before_the_250(tmp_path: Path) -> None:
    need_clamav_milter()
    with StrictSink() as receiver, ClamavMilter() as scanner:
        async with relay_with(tmp_path, receiver, bindings(scanner.address)) as relay:
            refused = await sent(relay, MESSAGE + EICAR + b"\r\n")
            id_of(await sent(relay, MESSAGE))
            await eventually(lambda: receiver.arrivals)
    assert refused == "550 5.7.1 Virus Eicar-Test.UNOFFICIAL found"
    (arrival,) = receiver.arrivals
    assert b"\r\nX-Virus-Status: Clean\r\n" in arrival.content


async def test_clamav_milter_puts_into_quarantine(tmp_path: Path) -> None:
    need_clamav_milter()
    with StrictSink() as receiver, ClamavMilter("Quarantine") as scanner:
        async with relay_with(tmp_path, receiver, bindings(scanner.address, "rcpt")) as relay:
            id = id_of(await sent(relay, MESSAGE + EICAR + b"\r\n"))
            stored = relay.spool.show(id)
            assert (stored.state, stored.reason) == (
                MessageState.HELD,
                "Milter: quarantined by clamav-milter",
            )


# --- Postfix with the same filters --------------------------------------------------------------------


OURS = re.compile(
    rb"Received: (?:[^\r\n]|\r\n[ \t])*(?:\(Postfix\)|by relay\.example\.com)(?:[^\r\n]|\r\n[ \t])*\r\n"
)


def comparable(octets: bytes) -> bytes:
    """Without what each server says of itself in its trace field, whose place is kept."""
    assert len(OURS.findall(octets)) == 1
    return OURS.sub(b"Received: ours\r\n", octets)


@contextlib.asynccontextmanager
async def beside_postfix(
    folder: Path, address: str
) -> AsyncIterator[Callable[[bytes], Awaitable[tuple[bytes, bytes]]]]:
    """The relay and Postfix with that milter: a function that sends a message through both, to what comes out."""
    kind, _, place = address.partition(":")
    port, _, host = place.partition("@")
    where = f"unix:{place}" if kind == "unix" else f"inet:{host}:{port}"
    with StrictSink() as receiver, StrictSink() as other:
        settings = PostfixSettings(
            hostname=HOSTNAME,
            relayhost=f"[127.0.0.1]:{other.port}",
            parameters={"smtpd_milters": where, "smtputf8_enable": "no"},
        )
        with Postfix(settings) as postfix:
            async with relay_with(folder, receiver, bindings(address)) as relay:

                def hand_in(octets: bytes) -> None:
                    with smtplib.SMTP(*postfix.address, local_hostname="client.example") as client:
                        client.sendmail("c@office.example", ["anna@dest.example"], octets)

                async def through(octets: bytes) -> tuple[bytes, bytes]:
                    count = len(receiver.arrivals)
                    id_of(await sent(relay, octets))
                    await asyncio.to_thread(hand_in, octets)
                    await eventually(lambda: len(receiver.arrivals) > count and len(other.arrivals) > count)
                    return comparable(receiver.arrivals[-1].content), comparable(other.arrivals[-1].content)

                yield through
        assert receiver.faults == []


ODD = MESSAGE.replace(
    b"Subject: hello\r\n",
    b"Subject: one\r\n\ttwo\r\nX-N:1\r\nX-N:  2\r\nX-N: 3\r\nX-Tab:\tt\r\nX-Empty:\r\n",
)

CASES = {
    "add": change(b"h", b"X-New", b"v"),
    "add folded": change(b"h", b"X-New", b"one\n\ttwo\n three"),
    "insert 0": change(b"i", b"X-New", b"v", index=0),
    "insert 1": change(b"i", b"X-New", b"v", index=1),
    "insert 2": change(b"i", b"X-New", b"v", index=2),
    "insert 100": change(b"i", b"X-New", b"v", index=100),
    "insert several": b"".join(change(b"i", b"X-%d" % n, b"v", index=n % 3) for n in range(6)),
    "change": change(b"m", b"X-N", b"w", index=2),
    "change case": change(b"m", b"x-n", b"w", index=3),
    "change what is not there": change(b"m", b"X-Other", b"w", index=1),
    "change beyond": change(b"m", b"X-N", b"w", index=9),
    "delete": change(b"m", b"X-N", b"", index=2),
    "delete two": change(b"m", b"X-N", b"", index=1) + change(b"m", b"X-N", b"", index=1),
    "delete what is not there": change(b"m", b"X-Other", b"", index=1),
    "delete and insert": change(b"m", b"Subject", b"", index=1) + change(b"i", b"Subject", b"new", index=1),
    "received": change(b"m", b"Received", b"", index=1),
    "8 bits": change(b"h", b"X-New", "ä".encode()),
    "body": pack(b"b", b"new\r\n.body\r\n") + pack(b"b", b"more\r\n"),
    "body with LF": pack(b"b", b"new\n.body\n"),
}


@pytest.mark.parametrize("steps", [0, 0x100000], ids=["", "leading space"])
async def test_postfix_makes_the_same_of_what_a_milter_says(steps: int, tmp_path: Path) -> None:
    """Every kind of change, octet for octet, in one go: a start of Postfix for each would take a minute."""
    need_postfix()
    answers = {b"E": CONTINUE}
    with ScriptedMilter(answers, steps=steps) as milter:
        async with beside_postfix(tmp_path, milter.address) as through:
            for name, changes in CASES.items():
                answers[b"E"] = changes + CONTINUE
                ours, theirs = await through(ODD)
                assert ours == theirs, name
            answers[b"E"] = change(b"h", b"X-New", b"one\r\n\ttwo") + CONTINUE
            ours, theirs = await through(ODD)
            # CRLF where the protocol wants LF: Postfix sends a CR of its own. Ours are line ends.
            assert b"one\r\r\n\ttwo\r\n" in theirs
            assert ours == theirs.replace(b"\r\r\n", b"\r\n")
        told = [milter.headers(number) for number in range(len(milter.sessions)) if milter.told(b"L", number)]
    assert len(told) == 2 * (len(CASES) + 1)
    assert all(one == told[0] for one in told), "both tell the milter the same fields"


VARIES = re.compile(rb"(\bb=)[^;]*?(?=\r\n[^ \t])|(\bt=)\d+|(relay\.example\.com )\w+", re.DOTALL)


async def test_postfix_with_the_same_opendkim(tmp_path: Path) -> None:
    """The signature itself and the second aside, all octets are the same: places, folds, the digest of the body."""
    need_postfix()
    need("opendkim", "opendkim")
    with OpenDkim("s", "office.example", "simple/simple") as signer:
        async with beside_postfix(tmp_path, signer.address) as through:
            ours, theirs = await through(ODD)
    assert ours.startswith(b"DKIM-Filter: ")
    assert re.findall(rb"bh=[^;]+;", ours) == re.findall(rb"bh=[^;]+;", theirs) != []
    assert VARIES.sub(rb"\1\2\3", ours) == VARIES.sub(rb"\1\2\3", theirs)


async def test_postfix_with_the_same_rspamd(rspamd: Rspamd, tmp_path: Path) -> None:
    need_postfix()
    async with beside_postfix(tmp_path, rspamd.address) as through:
        ours, theirs = await through(ODD)
    assert b"\r\nX-Spamd-Result: default: False [" in ours
    assert ours == theirs


async def test_postfix_with_the_same_clamav_milter(tmp_path: Path) -> None:
    need_postfix()
    need_clamav_milter()
    with ClamavMilter() as scanner:
        async with beside_postfix(tmp_path, scanner.address) as through:
            ours, theirs = await through(ODD)
    assert b"\r\nX-Virus-Status: Clean\r\n" in ours
    assert ours == theirs
