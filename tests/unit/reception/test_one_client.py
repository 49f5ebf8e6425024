"""All clients look like one: what is told, what is not, how often, and what the system says of its gateways."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.reception.one_client import (
    DAY_SECONDS,
    ENOUGH_NAMES,
    ENOUGH_SESSIONS,
    ClientWatch,
    OneClient,
    default_gateways,
    is_container,
)
from lonedot.testing.clock import ManualClock

GATEWAY, OTHER = "172.17.0.1", "192.0.2.7"


class Door:
    """A watch with what it tells."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.told: list[OneClient] = []
        self.reads = 0
        self.watch = ClientWatch(self.told.append, self.clock, self.gateways)

    def gateways(self) -> frozenset[str]:
        self.reads += 1
        return frozenset({GATEWAY})

    def sessions(
        self,
        count: int,
        client: str = GATEWAY,
        *,
        trusted: bool = True,
        helo: str = "scanner",
        at: str = "in",
    ) -> None:
        for _ in range(count):
            self.watch.closed(at, client, trusted, helo)


@pytest.mark.parametrize("client", [GATEWAY, f"::ffff:{GATEWAY}"])
def test_a_gateway_that_all_sessions_come_from_is_told(client: str) -> None:
    door = Door()
    door.sessions(ENOUGH_SESSIONS - 1, client)
    assert door.told == []
    door.sessions(100, client)
    (found,) = door.told
    assert (found.listener, found.client) == ("in", client)
    assert f"the gateway of this machine, {client}, which relay_from trusts" in found.words
    assert door.reads == 1


@pytest.mark.parametrize("clients", [(OTHER, GATEWAY), (GATEWAY, OTHER)])
def test_where_other_addresses_are_seen_too_they_are_not_translated(clients: tuple[str, str]) -> None:
    door = Door()
    for client in clients:
        door.sessions(1, client, trusted=False)
    door.sessions(100)
    assert door.told == []


def test_one_machine_that_sends_all_mail_is_nothing_to_tell() -> None:
    door = Door()
    for name in ("erp", "ERP", "localhost"):
        door.sessions(1000, OTHER, helo=name)
    assert door.told == []


def test_many_names_from_one_address_are_told_once() -> None:
    door = Door()
    for number in range(ENOUGH_NAMES + 5):
        door.sessions(2, OTHER, helo=f"copier-{number}")
    (found,) = door.told
    assert found.client == OTHER and f"clients of {ENOUGH_NAMES} names" in found.words


@pytest.mark.parametrize(("trusted", "helo"), [(False, "x"), (True, "")])
def test_who_is_not_trusted_or_says_nothing_does_not_count(trusted: bool, helo: str) -> None:
    door = Door()
    door.sessions(100, trusted=trusted, helo=helo)
    assert door.told == []


def test_once_a_day_and_for_each_listener() -> None:
    door = Door()
    for _ in range(3):
        door.sessions(10)
        door.sessions(10, at="second")
        door.clock.advance(DAY_SECONDS / 4)
    assert [found.listener for found in door.told] == ["in", "second"]
    door.clock.advance(DAY_SECONDS)
    door.sessions(10)
    assert [found.listener for found in door.told] == ["in", "second", "in"]


def test_a_network_that_was_mended_is_seen_to_be() -> None:
    door = Door()
    door.sessions(10)
    door.clock.advance(DAY_SECONDS)
    door.sessions(1, OTHER)
    door.sessions(100)
    assert len(door.told) == 1


_CLOSED = st.tuples(
    st.sampled_from([GATEWAY, OTHER]), st.booleans(), st.sampled_from(["", *(f"n{n}" for n in range(9))])
)


@given(st.lists(_CLOSED, max_size=60))
def test_whatever_comes_it_is_told_at_most_once_and_never_wrongly(
    closed: list[tuple[str, bool, str]],
) -> None:
    door = Door()
    for number, one in enumerate(closed):
        before = len(door.told)
        door.watch.closed("in", *one)
        if len(door.told) > before:
            assert len({client for client, _, _ in closed[: number + 1]}) == 1
    assert len(door.told) <= 1


ROUTES = (
    "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\n"
    "eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\n"
    "eth0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\n"
    "tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\n"
)
ROUTES_6 = (
    f"{'0' * 32} 00 {'0' * 32} 00 fd000000000000000000000000000001 00000400 00000001 00000000 00000003 eth0\n"
    f"{'0' * 32} 00 {'0' * 32} 00 {'0' * 32} ffffffff 00000001 00000000 00200200 lo\n"
)


def test_gateways_are_read_from_the_system(tmp_path: Path) -> None:
    assert default_gateways(tmp_path) == frozenset()
    (tmp_path / "route").write_text(ROUTES)
    assert default_gateways(tmp_path) == {GATEWAY}
    (tmp_path / "ipv6_route").write_text(ROUTES_6)
    assert default_gateways(tmp_path) == {GATEWAY, "fd00::1"}


def test_a_container_is_known_by_its_marks(tmp_path: Path) -> None:
    assert not is_container(tmp_path, {})
    assert is_container(tmp_path, {"container": "podman"})
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".containerenv").touch()
    assert is_container(tmp_path, {})
