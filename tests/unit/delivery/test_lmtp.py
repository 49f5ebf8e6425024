"""LMTP over loopback: each recipient has an outcome of its own, whatever becomes of the others."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from lonedot.delivery.classify import HANDED_OVER, PASSED_ON
from lonedot.delivery.routing import Lmtp, NextHop, Route, TlsPolicy
from lonedot.terms.outcome import Result, Stage
from tests.unit.delivery.outbound import claim, message, outbound, route
from tests.unit.delivery.peer import HANG_UP, Peer, running

PIPELINING = (b"PIPELINING", b"8BITMIME")
LOCKSTEP = (b"8BITMIME",)
CHUNKING = (b"PIPELINING", b"8BITMIME", b"CHUNKING")
ANNA, BEN, CARL = b"anna@example.org", b"ben@example.org", b"carl@example.org"


def lmtp(port: int = 0, socket: str = "", **changes: object) -> Route:
    hop = NextHop(socket, 0) if socket else NextHop("127.0.0.1", port)
    return route(port, target=Lmtp((hop,)), **changes)


@pytest.mark.parametrize("offer", [PIPELINING, LOCKSTEP, CHUNKING])
async def test_each_recipient_has_an_outcome_of_its_own(offer: Sequence[bytes]) -> None:
    answers = {
        b"END <ben@example.org>": b"452 4.2.2 full\r\n",
        b"<carl@example.org>": b"550 5.1.1 unknown\r\n",
    }
    content = message(b"one\r\n.two\r\n")
    async with running(Peer(offer, answers, lmtp=True)) as peer, outbound(lmtp(peer.port)) as out:
        delivery = await out.send(claim(ANNA, CARL, BEN, content=content))
        (received,) = peer.messages
        (attempt,) = delivery.attempts
    assert received.mode == "DATA"
    assert received.octets == content.octets().replace(b"\n.", b"\n..") + b".\r\n"
    assert not [line for line in peer.commands if line.startswith((b"EHLO", b"HELO", b"BDAT"))]
    found = {index: (one.result, one.stage, one.status) for index, one in attempt.outcomes}
    assert found == {
        0: (Result.DELIVERED, Stage.CONTENT, "2.0.0"),
        1: (Result.FAILED, Stage.RCPT, "5.1.1"),
        2: (Result.DEFERRED, Stage.CONTENT, "4.2.2"),
    }
    assert dict(attempt.outcomes)[0].reason == HANDED_OVER
    assert attempt.wire is not None
    assert attempt.wire.head_sha256 == hashlib.sha256(content.head).digest()
    assert attempt.wire.tail == received.octets[-64:]


@pytest.mark.parametrize("offer", [PIPELINING, LOCKSTEP])
async def test_nobody_is_taken_and_the_session_goes_on(offer: Sequence[bytes]) -> None:
    answers = {b"<carl@example.org>": b"550 5.1.1 unknown\r\n"}
    async with running(Peer(offer, answers, lmtp=True)) as peer, outbound(lmtp(peer.port)) as out:
        refused = await out.send(claim(CARL))
        taken = await out.send(claim(ANNA, BEN))
        assert peer.sessions == 1
    assert [one.result for _, one in refused.outcomes] == [Result.FAILED]
    assert [one.result for _, one in taken.outcomes] == [Result.DELIVERED, Result.DELIVERED]


async def test_lost_between_two_replies_only_the_second_is_in_doubt() -> None:
    answers = {b"END <ben@example.org>": HANG_UP}
    async with running(Peer(PIPELINING, answers, lmtp=True)) as peer, outbound(lmtp(peer.port)) as out:
        delivery = await out.send(claim(ANNA, BEN, CARL))
    found = [(one.result, one.is_in_doubt) for _, one in delivery.outcomes]
    assert found == [(Result.DELIVERED, False), (Result.DEFERRED, True), (Result.DEFERRED, True)]


async def test_421_between_two_replies_ends_the_session_for_the_rest() -> None:
    answers = {b"END <ben@example.org>": b"421 4.3.2 going down\r\n"}
    async with running(Peer(PIPELINING, answers, lmtp=True)) as peer, outbound(lmtp(peer.port)) as out:
        delivery = await out.send(claim(ANNA, BEN, CARL))
    found = [one.result for _, one in delivery.outcomes]
    assert found == [Result.DELIVERED, Result.DEFERRED, Result.DEFERRED]


async def test_a_354_without_a_recipient_ends_the_session_and_the_refusals_stand() -> None:
    answers = {b"RCPT": b"550 5.1.1 unknown\r\n", b"DATA": b"354 go on\r\n"}
    async with running(Peer(PIPELINING, answers, lmtp=True)) as peer, outbound(lmtp(peer.port)) as out:
        delivery = await out.send(claim(ANNA, BEN))
        assert peer.messages == []
    assert [one.result for _, one in delivery.outcomes] == [Result.FAILED, Result.FAILED]


async def test_what_speaks_smtp_is_not_spoken_to() -> None:
    answers = {b"LHLO": b"500 5.5.1 what?\r\n"}
    async with running(Peer(PIPELINING, answers)) as peer, outbound(lmtp(peer.port)) as out:
        delivery = await out.send(claim(ANNA))
        assert not [line for line in peer.commands if line.startswith((b"HELO", b"EHLO", b"MAIL"))]
    ((_, outcome),) = delivery.outcomes
    assert (outcome.result, outcome.stage) == (Result.DEFERRED, Stage.EHLO)


async def test_a_socket_is_a_next_hop(tmp_path: Path) -> None:
    path = tmp_path / "lmtp"
    # What is asked of TLS is for what leaves the machine.
    over = lmtp(socket=str(path), tls=TlsPolicy.REQUIRED)
    async with running(Peer(PIPELINING, lmtp=True), path) as peer, outbound(over) as out:
        delivery = await out.send(claim(ANNA, BEN))
        assert len(peer.messages) == 1
    assert [one.result for _, one in delivery.outcomes] == [Result.DELIVERED, Result.DELIVERED]
    assert delivery.attempts[0].next_hop == f"unix:{path}"


async def test_no_socket_is_deferred_with_its_path(tmp_path: Path) -> None:
    path = tmp_path / "lmtp"
    async with outbound(lmtp(socket=str(path))) as out:
        outcome = await out.outcome(claim(ANNA))
    assert (outcome.result, outcome.stage) == (Result.DEFERRED, Stage.CONNECT)
    assert str(path) in outcome.next_hop


async def test_a_delivery_agent_that_offers_dsn_reports_success_itself() -> None:
    peer_offer = (*PIPELINING, b"DSN")
    async with running(Peer(peer_offer, lmtp=True)) as peer, outbound(lmtp(peer.port)) as out:
        outcome = await out.outcome(claim(ANNA))
    assert outcome.reason == PASSED_ON
