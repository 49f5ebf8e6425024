"""Bindings that sign: behind all others, of a 7-bit copy, and whoever breaks a signature is named."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from lonedot.delivery.form import BEFORE_SIGNING
from lonedot.message.dkimverify import Checked, Standing, verify
from lonedot.message.edits import Edit, Effect
from lonedot.message.fold import fold
from lonedot.message.intake import content_from
from lonedot.message.ledger import Action
from lonedot.sinks.bindings import Binding, Mode
from lonedot.sinks.builtin.dkim import Dkim
from lonedot.sinks.events import Event
from lonedot.sinks.load import bind
from lonedot.sinks.standing import Fault
from lonedot.sinks.verdicts import Next, Stop, Verdict
from lonedot.sinks.view import Message
from lonedot.terms.address import Address
from lonedot.terms.envelope import Envelope
from tests.unit.delivery.outbound import claim, outbound, route
from tests.unit.delivery.peer import Peer, running
from tests.unit.delivery.test_delivery_sinks import bound, chains, elsewhere
from tests.unit.sinks.builtin.dkim_keys import Keys

KEYS = Keys()
HEAD = b"From: <a@office.example>\r\nTo: <b@example.org>\r\nSubject: test\r\n"
PLAIN = HEAD + b"\r\ntext\r\n"
EIGHT = (
    HEAD + b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Transfer-Encoding: 8bit\r\n\r\n" + "wörter\r\n".encode()
)
IN_SIGNED = (
    HEAD + b"MIME-Version: 1.0\r\nContent-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    + "wörter\r\n--b--\r\n".encode()
)
OFFERS = pytest.mark.parametrize(
    "offer", [(b"PIPELINING", b"8BITMIME"), (b"PIPELINING",)], ids=["8bitmime", "7bit"]
)


def signing(folder: Path, name: str = "DKIM", selector: str = "e") -> Binding:
    key = KEYS.write_rsa(folder) if selector == "r" else KEYS.write_ed25519(folder)
    settings = {"domain": "office.example", "selector": selector, "key": str(key)}
    return bind(Dkim, sink_class="tests:dkim", name=name, settings=settings)


def stamp(shown: Message) -> Next:
    return Next([Edit.add_field("X-Stamp", "yes"), Edit.replace_field("Subject", "changed")])


def checked(octets: bytes) -> tuple[Checked, ...]:
    return verify(content_from(octets.removesuffix(b".\r\n")), KEYS.find)


@OFFERS
async def test_what_is_signed_is_7_bit_and_holds(offer: tuple[bytes, ...], tmp_path: Path) -> None:
    peer = Peer(offer=offer)
    what = claim(content=content_from(EIGHT))
    async with running(peer), outbound(route(peer.port), chains=chains(signing(tmp_path))) as out:
        (attempt,) = (await out.send(what)).attempts
    (received,) = peer.messages
    assert received.octets.isascii()
    (one,) = checked(received.octets)
    assert one.standing is Standing.PASSED, one.words
    downgrade, dkim = attempt.suffix
    assert (downgrade.event, dkim.binding, dkim.event) == ("downgrade", "DKIM", "message-start")
    assert (downgrade.words == BEFORE_SIGNING) == (b"8BITMIME" in offer)
    assert what.arrival is not None
    assert received.octets == fold(what.arrival, attempt.suffix, 0, verify=True).octets() + b".\r\n"


async def test_a_copy_that_cannot_be_7_bit_is_signed_as_it_is(tmp_path: Path) -> None:
    peer = Peer(offer=(b"8BITMIME",))
    async with running(peer), outbound(route(peer.port), chains=chains(signing(tmp_path))) as out:
        (attempt,) = (await out.send(claim(content=content_from(IN_SIGNED)))).attempts
    (received,) = peer.messages
    assert received.octets.removesuffix(b".\r\n").endswith(IN_SIGNED)
    assert checked(received.octets)[0].standing is Standing.PASSED
    assert [entry.binding for entry in attempt.suffix] == ["DKIM"]


@pytest.mark.parametrize("options", [{"mode": Mode.SHADOW}, {"rule": "RCPT TO=*@other.example"}])
async def test_nothing_is_encoded_when_nothing_is_signed(options: dict[str, object], tmp_path: Path) -> None:
    peer = Peer(offer=(b"8BITMIME",))
    binding = signing(tmp_path)
    if "mode" in options:
        binding = msgspec.structs.replace(binding, mode=Mode.SHADOW)
    else:
        binding = msgspec.structs.replace(
            binding, rule=bound(Event.MESSAGE_START, stamp, rule="RCPT TO=*@other.example").rule
        )
    async with running(peer), outbound(route(peer.port), chains=chains(binding)) as out:
        await out.send(claim(content=content_from(EIGHT)))
    (received,) = peer.messages
    assert received.octets == EIGHT + b".\r\n"


async def test_smtputf8_stays_as_it_is(tmp_path: Path) -> None:
    peer = Peer(offer=(b"8BITMIME", b"SMTPUTF8"))
    raw = EIGHT.replace(b"Subject: test", "Subject: wörter".encode())
    envelope = Envelope(Address(b"a@office.example"), (), smtputf8=True)
    async with running(peer), outbound(route(peer.port), chains=chains(signing(tmp_path))) as out:
        await out.send(claim(content=content_from(raw), envelope=envelope))
    (received,) = peer.messages
    assert received.octets == received.octets[: -len(raw) - 3] + raw + b".\r\n"
    assert checked(received.octets)[0].standing is Standing.PASSED


@pytest.mark.parametrize("apart", [False, True], ids=["inline", "apart"])
@pytest.mark.parametrize("stops", [False, True])
async def test_who_signs_is_asked_behind_all_others(apart: bool, stops: bool, tmp_path: Path) -> None:
    def last(shown: Message) -> Verdict:
        edits = stamp(shown).edits
        return Stop(edits) if stops else Next(edits)

    late = msgspec.structs.replace(bound(Event.MESSAGE_START, last, "zz", apart=apart), priority=32767)
    signer = msgspec.structs.replace(signing(tmp_path), priority=0)
    peer = Peer()
    asks = chains(signer, late)
    async with running(peer), outbound(route(peer.port), chains=asks, elsewhere=elsewhere) as out:
        (attempt,) = (await out.send(claim(content=content_from(PLAIN)))).attempts
    (received,) = peer.messages
    assert [entry.binding for entry in attempt.suffix] == ["zz", "DKIM"]
    assert b"Subject: changed\r\n" in received.octets
    assert checked(received.octets)[0].standing is Standing.PASSED


async def test_two_that_sign_do_not_disturb_each_other(tmp_path: Path) -> None:
    peer = Peer()
    asks = chains(signing(tmp_path, "one", "r"), signing(tmp_path, "two", "e"))
    async with running(peer), outbound(route(peer.port), chains=asks) as out:
        (attempt,) = (await out.send(claim(content=content_from(PLAIN)))).attempts
    (received,) = peer.messages
    assert [one.standing for one in checked(received.octets)] == [Standing.PASSED] * 2
    assert not any(entry.fault for entry in attempt.suffix)


async def test_who_breaks_a_signature_is_named(tmp_path: Path) -> None:
    peer = Peer()
    breaking = msgspec.structs.replace(
        bound(Event.MESSAGE_START, stamp, "zz"),
        signs=True,
        effects=frozenset({Effect.HEADER}),
        priority=32767,
    )
    asks = chains(signing(tmp_path), breaking)
    async with running(peer), outbound(route(peer.port), chains=asks) as out:
        (attempt,) = (await out.send(claim(content=content_from(PLAIN)))).attempts
    dkim, broke = attempt.suffix
    assert (dkim.binding, dkim.fault) == ("DKIM", "")
    assert (broke.binding, broke.fault, broke.action) == ("zz", Fault.DAMAGE.value, Action.KEPT)
    assert checked(peer.messages[0].octets)[0].standing is Standing.FAILED


@pytest.mark.parametrize("event", ["arrival", "end-of-data", "dsn"])
def test_signing_elsewhere_is_a_fault(event: str, tmp_path: Path) -> None:
    settings = {"domain": "office.example", "selector": "e", "key": str(KEYS.write_ed25519(tmp_path))}
    with pytest.raises(ValueError, match="use 'message-start'"):
        bind(Dkim, sink_class="tests:dkim", settings=settings, event=event)
    with pytest.raises(ValueError, match="effect 'body'"):
        bind(Dkim, sink_class="tests:dkim", settings=settings, effects={"body"})
