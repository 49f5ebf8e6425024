"""Connections: how many, which one, how long, and what is nobody's fault."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from lonedot.delivery.pool import PoolState
from lonedot.terms.outcome import Result
from tests.unit.delivery.outbound import Outbound, claim, outbound, route
from tests.unit.delivery.peer import HANG_UP, SILENCE, Peer, running

CHUNKING = (b"PIPELINING", b"8BITMIME", b"CHUNKING")


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until it is so; the test's own time limit ends what never comes."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in a peer that knows no events
            await asyncio.sleep(0)


def state(out: Outbound) -> PoolState:
    (only,) = out.courier.pools()
    return only


async def results(out: Outbound, number: int) -> list[Result]:
    deliveries = await asyncio.gather(*(out.send(claim()) for _ in range(number)))
    return [outcome.result for delivery in deliveries for _, outcome in delivery.outcomes]


async def test_one_connection_serves_messages_that_come_one_after_the_other() -> None:
    async with running(Peer()) as peer, outbound(route(peer.port)) as out:
        for _ in range(5):
            assert await results(out, 1) == [Result.DELIVERED]
        assert peer.sessions == 1
        assert state(out) == PoolState("out", "", 1, 1, 0, 0)


async def test_never_more_connections_than_the_route_allows() -> None:
    async with running(Peer()) as peer, outbound(route(peer.port, connections=3)) as out:
        assert await results(out, 40) == [Result.DELIVERED] * 40
        assert len(peer.messages) == 40
        assert 1 <= peer.sessions <= 3


async def test_no_more_connections_than_messages() -> None:
    async with running(Peer()) as peer, outbound(route(peer.port)) as out:
        await results(out, 2)
        assert peer.sessions <= 2


async def test_a_connection_leaves_with_quit_when_it_has_carried_its_share() -> None:
    async with (
        running(Peer()) as peer,
        outbound(route(peer.port, messages_per_connection=2, connections=1)) as out,
    ):
        assert await results(out, 5) == [Result.DELIVERED] * 5
        assert [received.session for received in peer.messages] == [1, 1, 2, 2, 3]
        await until(lambda: peer.commands.count(b"QUIT") == 2)


async def test_an_idle_connection_leaves_after_its_time() -> None:
    async with running(Peer()) as peer, outbound(route(peer.port, idle_seconds=0.02)) as out:
        await results(out, 3)
        await until(lambda: peer.open == 0)
        assert peer.commands.count(b"QUIT") == peer.sessions
        assert state(out) == PoolState("out", "", 0, 0, 0, 0)
        assert await results(out, 1) == [Result.DELIVERED]


@pytest.mark.parametrize("goodbye", [b"", b"421 4.4.2 idle too long\r\n"])
async def test_a_connection_that_dies_while_idle_is_no_fault(goodbye: bytes) -> None:
    answers = {b"END": b"250 2.0.0 Ok\r\n" + goodbye}
    async with running(Peer(answers=answers, hang_up_after=1)) as peer, outbound(route(peer.port)) as out:
        for _ in range(3):
            assert await results(out, 1) == [Result.DELIVERED]
            await until(lambda: state(out).connections == 0)
        assert peer.sessions == 3


@pytest.mark.parametrize("first_reply", [HANG_UP, b"421 4.4.2 idle too long\r\n"])
@pytest.mark.parametrize("offer", [(b"PIPELINING",), (b"8BITMIME",)])
async def test_a_used_connection_that_had_been_closed_costs_no_attempt(
    offer: tuple[bytes, ...], first_reply: bytes
) -> None:
    async with (
        running(Peer(offer, {b"MAIL": [b"", first_reply, b""]})) as peer,
        outbound(route(peer.port)) as out,
    ):
        assert await results(out, 1) == [Result.DELIVERED]
        assert await results(out, 1) == [Result.DELIVERED]
        assert [received.session for received in peer.messages] == [1, 2]


async def test_a_message_gets_a_second_connection_only_once() -> None:
    answers = {b"MAIL": [b"", HANG_UP, HANG_UP, b""]}
    async with running(Peer(answers=answers)) as peer, outbound(route(peer.port)) as out:
        assert await results(out, 1) == [Result.DELIVERED]
        assert await results(out, 1) == [Result.DEFERRED]
        assert await results(out, 1) == [Result.DELIVERED]


async def test_a_message_whose_end_was_written_gets_no_second_connection() -> None:
    """Then it may have been taken: only the queue may decide to send it again."""
    async with (
        running(Peer(CHUNKING, {b"MAIL": [b"", HANG_UP, b""]})) as peer,
        outbound(route(peer.port)) as out,
    ):
        await out.send(claim())
        outcome = await out.outcome(claim())
        assert outcome.result is Result.DEFERRED
        assert "second copy is possible" in outcome.reason
        assert peer.sessions == 1


async def test_messages_that_follow_each_other_are_one_write_each() -> None:
    async with running(Peer(CHUNKING)) as peer, outbound(route(peer.port, connections=1)) as out:
        assert await results(out, 5) == [Result.DELIVERED] * 5
        assert [segment[:4] for segment in peer.segments] == [b"EHLO", *[b"MAIL"] * 5]


async def test_on_a_connection_that_lay_idle_the_end_is_not_written_before_a_reply() -> None:
    async with (
        running(Peer(CHUNKING, {b"MAIL": [b"", HANG_UP, b""]})) as peer,
        outbound(route(peer.port)) as out,
    ):
        await out.send(claim())
        (pool,) = out.courier._pools.values()
        pool._idle[0]._heard -= 2  # as if two seconds had passed
        assert (await out.outcome(claim())).result is Result.DELIVERED
        assert peer.sessions == 2
        assert b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\n" in peer.segments


async def test_sessions_that_are_refused_beside_one_that_works_are_no_failure() -> None:
    """A hop that allows us one connection gets all messages over it."""
    answers = {b"GREETING": [b"", b"421 4.7.0 too many connections\r\n"]}
    async with running(Peer(answers=answers)) as peer, outbound(route(peer.port, connections=5)) as out:
        assert await results(out, 20) == [Result.DELIVERED] * 20
        assert {received.session for received in peer.messages} == {1}


async def test_what_waits_is_told_when_the_last_hope_is_gone() -> None:
    answers = {b"GREETING": b"421 4.3.2 closed for today\r\n"}
    async with running(Peer(answers=answers)) as peer, outbound(route(peer.port, connections=3)) as out:
        assert await results(out, 10) == [Result.DEFERRED] * 10
        assert state(out).waiting == 0


async def test_a_slow_hop_is_given_more_connections() -> None:
    async with (
        running(Peer(answers={b"END": SILENCE})) as peer,
        outbound(route(peer.port, connections=4)) as out,
    ):
        waiting = [out.post(claim()) for _ in range(10)]
        await until(lambda: len(peer.messages) == 4)
        assert (state(out).connections, state(out).waiting) == (4, 6)
        await out.courier.close(0)
        assert sorted(len(future.result().outcomes) for future in waiting) == [0] * 6 + [1] * 4


async def test_closing_takes_leave() -> None:
    async with running(Peer()) as peer:
        async with outbound(route(peer.port)) as out:
            await results(out, 3)
        await until(lambda: peer.open == 0)
        assert peer.commands.count(b"QUIT") == peer.sessions


async def test_closing_while_a_session_is_opened_leaves_nothing_behind() -> None:
    async with running(Peer(answers={b"GREETING": SILENCE})) as peer, outbound(route(peer.port)) as out:
        waiting = out.post(claim())
        await until(lambda: peer.open == 1)
        await out.courier.close(0)
        assert (await waiting).outcomes == ()
        await until(lambda: peer.open == 0)
