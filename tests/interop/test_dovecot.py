"""LMTP to a real Dovecot: what it delivers, refuses and leaves open is told apart for each recipient."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from lonedot.delivery.classify import HANDED_OVER
from lonedot.delivery.routing import Lmtp, NextHop
from lonedot.terms.outcome import Outcome, Result, Stage
from tests.peers.dovecot import Dovecot, need_dovecot
from tests.unit.delivery.outbound import claim, message, outbound, route

ANNA, BEN, CARL = b"anna@example.org", b"ben@example.org", b"carl@example.org"
NOBODY = b"nobody@example.org"
CONTENT = message(b"one\r\n.two\r\n.\r\n\xc3\xa4\r\nend\r\n")


@pytest.fixture(scope="module")
def dovecot() -> Iterator[Dovecot]:
    need_dovecot()
    names = [address.decode() for address in (ANNA, BEN, CARL)]
    with Dovecot(names, full=[CARL.decode()]) as one:
        yield one


def bodies(dovecot: Dovecot, user: bytes) -> list[bytes]:
    return [octets.partition(b"\n\n")[2] for octets in dovecot.messages(user.decode())]


@pytest.mark.parametrize("over", ["socket", "host"])
async def test_each_recipient_has_the_outcome_that_dovecot_gives_it(dovecot: Dovecot, over: str) -> None:
    hop = NextHop(str(dovecot.socket), 0) if over == "socket" else NextHop("127.0.0.1", dovecot.port)
    before = {user: len(bodies(dovecot, user)) for user in (ANNA, BEN)}
    async with outbound(route(0, target=Lmtp((hop,)))) as out:
        delivery = await out.send(claim(ANNA, NOBODY, CARL, BEN, content=CONTENT))
    (attempt,) = delivery.attempts
    found: dict[int, Outcome] = dict(attempt.outcomes)
    assert [found[index].result for index in (0, 3)] == [Result.DELIVERED, Result.DELIVERED]
    assert found[0].reason == HANDED_OVER
    assert (found[1].result, found[1].stage, found[1].status) == (Result.FAILED, Stage.RCPT, "5.1.1")
    # Dovecot says 552 5.2.2 behind the end of data, for this mailbox alone.
    assert (found[2].stage, found[2].reason) == (Stage.CONTENT, "the mailbox is full")
    assert found[2].result is Result.FAILED and found[2].status == "5.2.2"
    assert attempt.wire is not None and attempt.wire.mode == "DATA"
    for user in (ANNA, BEN):
        stored = bodies(dovecot, user)
        assert len(stored) == before[user] + 1
        assert stored[-1] == CONTENT.body.octets().replace(b"\r\n", b"\n")
    assert bodies(dovecot, CARL) == []


async def test_many_messages_over_one_session(dovecot: Dovecot) -> None:
    before = len(bodies(dovecot, ANNA))
    one = route(0, target=Lmtp((NextHop(str(dovecot.socket), 0),)), connections=1)
    async with outbound(one) as out:
        deliveries = await asyncio.gather(*(out.send(claim(ANNA, NOBODY, BEN)) for _ in range(20)))
    for delivery in deliveries:
        results = [outcome.result for _, outcome in sorted(delivery.outcomes)]
        assert results == [Result.DELIVERED, Result.FAILED, Result.DELIVERED]
    assert len(bodies(dovecot, ANNA)) == before + 20


async def test_cut_between_two_replies_of_dovecot(dovecot: Dovecot, tmp_path: Path) -> None:
    """What the first reply says holds; who heard none is deferred, and known to be in doubt."""
    before = len(bodies(dovecot, ANNA))
    path = tmp_path / "cut"
    over = route(0, target=Lmtp((NextHop(str(path), 0),)))
    async with cutting(dovecot.socket, path), outbound(over) as out:
        delivery = await out.send(claim(ANNA, BEN))
    found = [(outcome.result, outcome.is_in_doubt) for _, outcome in sorted(delivery.outcomes)]
    assert found == [(Result.DELIVERED, False), (Result.DEFERRED, True)]
    assert len(bodies(dovecot, ANNA)) == before + 1


async def test_a_dead_socket_is_passed_over_for_a_host(dovecot: Dovecot, tmp_path: Path) -> None:
    hops = (NextHop(str(tmp_path / "dead"), 0), NextHop("127.0.0.1", dovecot.port))
    async with outbound(route(0, target=Lmtp(hops))) as out:
        outcome = await out.outcome(claim(ANNA))
    assert outcome.result is Result.DELIVERED


@asynccontextmanager
async def cutting(behind: Path, path: Path) -> AsyncIterator[None]:
    """Stands before a socket, and drops both sides behind the first reply to the end of data."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_unix_connection(behind)

        async def forward() -> None:
            while octets := await reader.read(65536):
                far_writer.write(octets)

        forwarding = asyncio.create_task(forward())
        has_content = False
        while line := await far_reader.readline():
            writer.write(line)
            if has_content:
                break
            has_content = line.startswith(b"354")
        await writer.drain()
        forwarding.cancel()
        writer.close()
        far_writer.transport.abort()

    server = await asyncio.start_unix_server(serve, path)
    async with server:
        yield
