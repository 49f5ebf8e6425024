"""Accepting beside other workers: each gets its part, nobody waits, and a close leaves the socket to the others."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections import Counter
from collections.abc import Iterator

import pytest

from lonedot.reception import sharing
from lonedot.reception.sharing import SharedServer


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=128) as one:
        one.setblocking(False)
        yield one


class Greeter(asyncio.Protocol):
    def __init__(self, name: bytes) -> None:
        self._name = name

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(self._name)
        transport.close()


def server(listening: socket.socket, name: bytes) -> SharedServer:
    return SharedServer(lambda: Greeter(name), listening.dup())


async def said(listening: socket.socket) -> bytes:
    reader, writer = await asyncio.open_connection(*listening.getsockname()[:2])
    try:
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()


async def test_of_many_that_come_at_once_each_gets_a_part(listening: socket.socket) -> None:
    servers = [server(listening, b"a"), server(listening, b"b")]
    counts = Counter(await asyncio.gather(*[said(listening) for _ in range(60)]))
    assert counts[b"a"] + counts[b"b"] == 60
    assert min(counts[b"a"], counts[b"b"]) >= 10
    for one in servers:
        one.close()


async def test_one_alone_takes_all(listening: socket.socket) -> None:
    one = server(listening, b"a")
    assert await asyncio.gather(*[said(listening) for _ in range(100)]) == [b"a"] * 100
    one.close()


async def test_who_connects_behind_a_close_is_another_s(listening: socket.socket) -> None:
    first = server(listening, b"a")
    assert await said(listening) == b"a"
    first.close()
    first.close()
    assert not first.is_opening
    waiting = asyncio.create_task(said(listening))
    second = server(listening, b"b")
    assert await waiting == b"b"
    second.close()


async def test_without_descriptors_it_waits_and_goes_on(
    listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "OUT_OF_RESOURCES_SECONDS", 0.01)
    failures = [OSError(errno.EMFILE, "too many open files"), OSError(errno.ENFILE, "too many")]

    class Scarce:
        def __init__(self) -> None:
            self._real = listening.dup()

        def accept(self) -> tuple[socket.socket, object]:
            if failures:
                raise failures.pop()
            return self._real.accept()

        def __getattr__(self, name: str) -> object:
            return getattr(self._real, name)

    one = SharedServer(lambda: Greeter(b"a"), Scarce())  # type: ignore[arg-type]  # as much of a socket as is used
    assert await said(listening) == b"a"
    assert failures == []
    one.close()
