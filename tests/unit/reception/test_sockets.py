"""Listening sockets: kept while their address stays, told to the parent, taken from systemd."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from lonedot.reception import sockets
from lonedot.reception.sockets import ListeningSockets, Place, bound, from_environment, from_systemd

FREE = Place("in", "127.0.0.1", 0)


@pytest.fixture
def held() -> Iterator[ListeningSockets]:
    one = ListeningSockets()
    yield one
    one.close()


def port_of(listening: socket.socket) -> int:
    return int(listening.getsockname()[1])


def opened(held: ListeningSockets, place: Place) -> int:
    """The port; the copy is closed again."""
    (copy,) = held.open(place)
    with copy:
        return port_of(copy)


def test_a_socket_outlives_the_copies_that_accept(held: ListeningSockets) -> None:
    port = opened(held, FREE)
    with socket.create_connection(("127.0.0.1", port), timeout=10):
        assert opened(held, FREE) == port


def test_two_listeners_at_port_0_are_two_places(held: ListeningSockets) -> None:
    assert opened(held, FREE) != opened(held, FREE._replace(name="other"))


def test_what_is_no_more_in_the_configuration_is_closed(held: ListeningSockets) -> None:
    port, gone = opened(held, FREE), opened(held, FREE._replace(name="in 2"))
    held.keep_only([FREE])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", gone), timeout=10)
    assert opened(held, FREE) == port


def test_an_address_that_is_taken_names_itself_and_leaves_nothing(held: ListeningSockets) -> None:
    with bound(FREE) as other:
        taken = Place("in", "127.0.0.1", port_of(other))
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{taken.port}: Address already in use"):
            held.open(taken)
    assert held.descriptors() == {}
    assert opened(held, taken) == taken.port


def test_a_name_has_all_its_addresses(held: ListeningSockets, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, 0)) for host in ("127.0.0.1", "127.0.0.2")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    copies = held.open(Place("in", "relay.example.com", 0))
    hosts = [copy.getsockname()[0] for copy in copies]
    for copy in copies:
        copy.close()
    assert hosts == ["127.0.0.1", "127.0.0.2"]
    held.keep_only([Place("in", "relay.example.com", 0)])
    assert len(held.descriptors()) == 2


def test_the_parent_is_told_what_is_opened_and_what_is_dropped() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        held = ListeningSockets(parent=theirs.fileno())
        port = opened(held, FREE)
        said, descriptors, _, _ = socket.recv_fds(ours, 1024, 4)
        assert said == b"+in 127.0.0.1:0"
        (descriptor,) = descriptors
        with socket.socket(fileno=descriptor) as passed:
            assert port_of(passed) == port
        opened(held, FREE)  # it is there already: nothing is said
        held.keep_only([])
        assert ours.recv(1024) == b"-in 127.0.0.1:0"


def test_a_parent_that_has_died_is_no_fault() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        ours.close()
        held = ListeningSockets(parent=theirs.fileno())
        assert opened(held, FREE)
        held.close()


def test_what_the_parent_holds_is_taken_from_the_environment() -> None:
    listening = bound(FREE)
    port = port_of(listening)
    os.set_inheritable(listening.fileno(), True)
    said = f'{{"{FREE.key}": {listening.detach()}}}'
    held = ListeningSockets(from_environment({sockets.SOCKETS_ENVIRONMENT: said}))
    assert opened(held, FREE) == port
    assert [os.get_inheritable(number) for number in held.descriptors().values()] == [False]
    held.close()


@pytest.mark.parametrize("said", ["[]", "{", '{"a": "x"}'])
def test_what_is_not_the_parents_is_said(said: str) -> None:
    with pytest.raises(ValueError, match=r"JSON|Expecting|invalid"):
        from_environment({sockets.SOCKETS_ENVIRONMENT: said})


def test_without_a_parent_there_is_nothing_to_take() -> None:
    assert from_environment({}) == {}


def systemd(monkeypatch: pytest.MonkeyPatch, listening: socket.socket, names: str) -> dict[str, str]:
    """The environment that systemd makes for one socket."""
    monkeypatch.setattr(sockets, "FIRST_OF_SYSTEMD", listening.detach())
    return {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": names}


@pytest.mark.parametrize(
    ("names", "place"),
    [
        ("in", Place("in", "192.0.2.1", 25)),  # by name, whatever the address
        ("lonedot.socket", Place("in", "127.0.0.1", -1)),  # by address
        ("", Place("in", "127.0.0.1", -1)),
    ],
)
def test_sockets_of_systemd_are_known_by_name_or_address(
    monkeypatch: pytest.MonkeyPatch, names: str, place: Place
) -> None:
    listening = bound(FREE)
    port = port_of(listening)
    if place.port == -1:
        place = place._replace(port=port)
    environment = systemd(monkeypatch, listening, names)
    held = ListeningSockets(from_systemd(environment, os.getpid(), [Place("x", "192.0.2.9", 1), place]))
    assert opened(held, place) == port
    held.close()


def test_what_systemd_hands_to_another_process_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    with bound(FREE) as listening:
        environment = {"LISTEN_PID": "1", "LISTEN_FDS": "1"}
        place = Place("in", "127.0.0.1", port_of(listening))
        assert from_systemd(environment, os.getpid(), [place]) == {}


def test_a_socket_of_systemd_that_no_listener_has_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    listening = bound(FREE)
    number = listening.fileno()
    environment = systemd(monkeypatch, listening, "other")
    assert from_systemd(environment, os.getpid(), [FREE]) == {}
    os.close(number)


def test_one_that_follows_opens_nothing_and_takes_what_is_passed_on() -> None:
    parent, line = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with parent, line:
        held = ListeningSockets({}, line.fileno(), follows=True)
        assert held.heed_parent()
        with pytest.raises(OSError, match="has not handed over"):
            held.open(FREE)
        with bound(FREE) as listening:
            socket.send_fds(parent, [b"+" + FREE.key.encode()], [listening.fileno()])
            assert held.heed_parent()
            assert held.has(FREE)
            assert opened(held, FREE) == port_of(listening)
        held.drop([FREE.key])
        parent.setblocking(False)
        with pytest.raises(BlockingIOError):
            parent.recv(100)  # it tells nobody
        parent.send(b"-" + FREE.key.encode())
        assert held.heed_parent()
        assert not held.has(FREE)
        parent.close()
        assert not held.heed_parent()
        held.close()
