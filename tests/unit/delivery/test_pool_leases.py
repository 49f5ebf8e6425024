"""A pool whose route is shared with other workers: what it takes it gives back, and what others want it lets go of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from lonedot.delivery import pool
from lonedot.delivery.routing import NextHop, Pipe, Smarthosts
from lonedot.terms.outcome import Result
from tests.unit.delivery.outbound import Outbound, claim, outbound, route
from tests.unit.delivery.peer import SILENCE, Peer, running
from tests.unit.delivery.test_pipe import USER


class Book:
    """Leases by hand: `free` may be taken."""

    def __init__(self, free: int) -> None:
        self.free = free
        self.taken = 0
        self.most = 0
        self.owes = False
        self.wanted = False
        self.renounced = 0

    def take(self) -> bool:
        if self.taken >= self.free:
            return False
        self.taken += 1
        self.most = max(self.most, self.taken)
        return True

    def give(self) -> None:
        self.taken -= 1
        assert self.taken >= 0, "given twice"

    def renounce(self) -> None:
        self.renounced += 1

    def is_owed(self, leaving: int) -> bool:
        return self.owes and leaving == 0

    def is_wanted(self) -> bool:
        return self.wanted


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in a peer that knows no events
            await asyncio.sleep(0.001)


async def results(out: Outbound, number: int) -> list[Result]:
    deliveries = await asyncio.gather(*(out.send(claim()) for _ in range(number)))
    return [outcome.result for delivery in deliveries for _, outcome in delivery.outcomes]


async def test_no_more_than_is_leased_and_all_is_given_back() -> None:
    book = Book(2)
    async with (
        running(Peer()) as peer,
        outbound(route(peer.port, connections=10, idle_seconds=0.01), leases=lambda r, d: book) as out,
    ):
        assert await results(out, 30) == [Result.DELIVERED] * 30
        assert 1 <= peer.sessions <= 2
        await until(lambda: book.taken == 0)
    assert book.most <= 2


async def test_who_gets_none_waits_until_there_is_one() -> None:
    book = Book(0)
    async with running(Peer()) as peer, outbound(route(peer.port), leases=lambda r, d: book) as out:
        sending = asyncio.ensure_future(results(out, 3))
        await until(lambda: out.courier.pools() != () and out.courier.pools()[0].waiting == 3)
        assert peer.sessions == 0
        book.free = 1
        assert await sending == [Result.DELIVERED] * 3
        assert peer.sessions == 1


async def test_a_session_that_cannot_be_had_keeps_no_lease() -> None:
    book = Book(3)
    async with running(Peer(answers={b"EHLO": SILENCE})) as peer:
        dead = route(peer.port, connections=3, target=Smarthosts((NextHop("127.0.0.1", 1),)))
        async with outbound(dead, leases=lambda r, d: book) as out:
            assert await results(out, 5) == [Result.DEFERRED] * 5
            await until(lambda: book.taken == 0)
        silent = route(peer.port, connections=2)
        async with outbound(silent, leases=lambda r, d: book) as out:
            assert await results(out, 2) == [Result.DEFERRED] * 2
            await until(lambda: book.taken == 0)


async def test_one_that_is_owed_leaves_behind_its_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "ASK_SECONDS", 0.0)
    book = Book(1)
    async with running(Peer()) as peer, outbound(route(peer.port), leases=lambda r, d: book) as out:
        assert await results(out, 1) == [Result.DELIVERED]
        book.owes, book.free = True, 0
        sending = asyncio.ensure_future(results(out, 2))
        await until(lambda: book.taken == 0)
        book.owes, book.free = False, 1
        assert await sending == [Result.DELIVERED] * 2
        assert peer.sessions == 2
        assert peer.commands.count(b"QUIT") == 1


async def test_one_that_lies_idle_leaves_when_others_want_it() -> None:
    book = Book(1)
    async with running(Peer()) as peer, outbound(route(peer.port), leases=lambda r, d: book) as out:
        assert await results(out, 1) == [Result.DELIVERED]
        assert out.courier.pools()[0].idle == 1
        book.wanted = True
        await until(lambda: book.taken == 0)
        assert out.courier.pools()[0].idle == 0


async def test_a_pool_that_is_closed_gives_back_what_it_was_opening() -> None:
    book = Book(4)
    async with running(Peer(answers={b"EHLO": SILENCE})) as peer:
        async with outbound(route(peer.port), leases=lambda r, d: book) as out:
            sending = asyncio.ensure_future(results(out, 2))
            await until(lambda: peer.sessions == 2)
            await out.courier.close(0)
            await sending
        await until(lambda: book.taken == 0)


async def test_programs_are_leased_too() -> None:
    book = Book(1)
    reads = route(0, target=Pipe(("/bin/sh", "-c", "cat > /dev/null"), USER), connections=5)
    async with outbound(reads, leases=lambda r, d: book) as out:
        assert await results(out, 4) == [Result.DELIVERED] * 4
        await until(lambda: book.taken == 0)
    assert book.most == 1
