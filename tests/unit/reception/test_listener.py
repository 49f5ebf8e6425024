"""A listener: limits, what it remembers of clients, and a handshake that breaks off."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from ipaddress import ip_network

import msgspec
import pytest
import trustme

from lonedot.reception import listener as module
from lonedot.reception.listener import Listener, MemoryBudget
from lonedot.reception.session import Session
from lonedot.reception.settings import ListenerSettings
from lonedot.terms.ids import IdSource
from tests.unit.reception.room import SETTINGS, Line, Room, Wire, settle


def make(room: Room, settings: ListenerSettings) -> Listener:
    return Listener(
        settings,
        room.acceptor,
        room.budget,
        IdSource(),
        room.transcript,
        room.has_route,
        room.noted,
        "r1",
    )


def connect(listener: Listener, client: str) -> Line:
    session = listener._new_session()
    wire = Wire(session, client)
    session.connection_made(wire)
    return Line(session, wire)


def test_a_budget_says_no_beyond_its_limit_and_counts_all() -> None:
    budget = MemoryBudget(100)
    assert budget.take(100)
    assert not budget.take(1)
    budget.give(51)
    assert budget.take(50)
    assert budget.used == 100


async def test_connections_in_all_and_by_client() -> None:
    room = Room()
    settings = msgspec.structs.replace(
        SETTINGS,
        max_connections=4,
        max_connections_per_client=2,
        relay_from=(ip_network("127.0.0.0/8"),),
    )
    listener = make(room, settings)
    strangers = [connect(listener, "192.0.2.1") for _ in range(3)]
    assert [line.codes() for line in strangers] == [[220], [220], [421]]
    await settle()
    assert len(listener.sessions) == 2
    devices = [connect(listener, "127.0.0.1") for _ in range(3)]
    assert [line.codes() for line in devices] == [[220], [220], [421]]
    for line in (*strangers, *devices):
        line.wire.lose()
    await settle()
    assert listener.sessions == set()
    assert not listener.seats.by_client
    assert connect(listener, "192.0.2.1").codes() == [220]


async def test_what_is_known_of_clients_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KNOWN_CLIENTS", 8)
    listener = make(Room(), msgspec.structs.replace(SETTINGS, relay_from=(ip_network("192.0.2.0/24"),)))
    for number in range(100):
        assert listener.is_trusted(f"192.0.2.{number}")
        assert not listener.is_trusted(f"198.51.100.{number}")
        assert len(listener._trusted) <= 8


async def test_an_address_that_is_taken_is_said_so() -> None:
    listener = make(Room(), SETTINGS)
    await listener.start()
    _, port = listener.address
    other = make(Room(), msgspec.structs.replace(SETTINGS, port=port))
    with pytest.raises(OSError, match="Address already in use"):
        await other.start()
    listener.close()


async def test_a_client_that_breaks_off_the_handshake_is_not_counted_for_ever() -> None:
    """A reset during the handshake: the transport tells nobody of it."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("relay.example.com").configure_cert(context)
    room = Room()
    room.give_timers_back()
    options = msgspec.structs.replace(SETTINGS.options, tls_available=True)
    listener = make(room, msgspec.structs.replace(SETTINGS, options=options, tls=context))
    gone = asyncio.Event()
    tell = listener.closed

    def closed(session: Session) -> None:
        tell(session)
        gone.set()

    listener.closed = closed  # type: ignore[method-assign]
    await listener.start()
    loop = asyncio.get_running_loop()
    for said in (b"", b"\x16\x03\x01\x02", b"no TLS at all\r\n"):
        client = socket.socket()
        client.setblocking(False)
        await loop.sock_connect(client, listener.address)
        await loop.sock_recv(client, 1000)
        await loop.sock_sendall(client, b"EHLO copier\r\n")
        await loop.sock_recv(client, 1000)
        await loop.sock_sendall(client, b"STARTTLS\r\n")
        assert (await loop.sock_recv(client, 1000)).startswith(b"220")
        assert len(listener.sessions) == 1
        if said:
            await loop.sock_sendall(client, said)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        await asyncio.wait_for(gone.wait(), 20)
        gone.clear()
        assert listener.sessions == set()
    assert not listener.seats.by_client
    listener.close()


async def test_ids_of_sessions_differ() -> None:
    listener = make(Room(), SETTINGS)
    sessions: list[Session] = [listener._new_session() for _ in range(50)]
    assert len({session.id for session in sessions}) == 50
