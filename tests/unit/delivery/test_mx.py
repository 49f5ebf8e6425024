"""The hosts of a domain: by preference, without this relay, and what DNS rules out."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from lonedot.delivery.dns import Answer, Dns, DnsFault, Kind, Record, ServerAsker, Status
from lonedot.delivery.mx import HOSTS, Exchange, HostFinder, Ourselves, RouteResolver
from lonedot.delivery.routing import Family, Mx, NextHop, NoNextHop, Smarthosts
from lonedot.terms.outcome import Outcome, Result, Stage
from lonedot.testing.clock import ManualClock
from tests.unit.delivery.name_server import Fails, name_server
from tests.unit.delivery.outbound import SystemClock, claim, outbound, route
from tests.unit.delivery.peer import Peer, running

Names = Mapping[str, Mapping[Kind, list[tuple[int, str]]] | None]
"""A name without entry does not exist; None: DNS fails for it."""


class Zone:
    def __init__(self, names: Names) -> None:
        self._names = names
        self.asked: list[tuple[str, Kind]] = []

    async def ask(self, name: str, kind: Kind) -> Answer:
        self.asked.append((name, kind))
        if name not in self._names:
            return Answer(Status.NO_NAME, (), 60)
        kinds = self._names[name]
        if kinds is None:
            raise DnsFault(f"DNS fails for {name}")
        if kind not in kinds:
            return Answer(Status.NO_DATA, (), 60)
        return Answer(Status.FOUND, tuple(Record(*pair) for pair in kinds[kind]), 60)


def mx(*hosts: tuple[int, str]) -> dict[Kind, list[tuple[int, str]]]:
    return {Kind.MX: list(hosts)}


def host(*addresses: str) -> dict[Kind, list[tuple[int, str]]]:
    kinds: dict[Kind, list[tuple[int, str]]] = {}
    for address in addresses:
        kinds.setdefault(Kind.AAAA if ":" in address else Kind.A, []).append((0, address))
    return kinds


OURS = Ourselves(frozenset({"relay.test"}), (NextHop("192.0.2.99", 25), NextHop("127.0.0.5", 2525)))


def finder(names: Names) -> HostFinder:
    return HostFinder(Dns(Zone(names), ManualClock()), lambda: OURS, lambda records: None)


async def hosts(names: Names, domain: str = "d.test", target: Mx = Mx()) -> Exchange:  # noqa: B008 (a value)
    return await finder(names).exchange(domain, target)


def tried(exchange: Exchange) -> list[tuple[int, str, tuple[str, ...]]]:
    return [(host.preference, host.name, host.addresses) for host in exchange.hosts]


async def test_hosts_stand_by_preference_whatever_the_order_of_the_answer() -> None:
    exchange = await hosts(
        {
            "d.test": mx((20, "b.test"), (10, "a.test"), (30, "c.test")),
            "a.test": host("192.0.2.1", "2001:db8::1", "192.0.2.2"),
            "b.test": host("192.0.2.3"),
            "c.test": host("2001:db8::4"),
        }
    )
    assert tried(exchange) == [
        (10, "a.test", ("2001:db8::1", "192.0.2.1", "192.0.2.2")),
        (20, "b.test", ("192.0.2.3",)),
        (30, "c.test", ("2001:db8::4",)),
    ]


async def test_equal_hosts_come_in_random_order() -> None:
    names = {"d.test": mx((10, "a.test"), (10, "b.test"), (5, "first.test"))}
    names |= {name: host("192.0.2.1") for name in ("a.test", "b.test", "first.test")}
    orders = set()
    for _ in range(60):
        exchange = await HostFinder(Dns(Zone(names), ManualClock())).exchange("d.test", Mx())
        orders.add(tuple(host.name for host in exchange.hosts))
    # The chance that one of the two never shows is 2 ** -59.
    assert orders == {("first.test", "a.test", "b.test"), ("first.test", "b.test", "a.test")}


async def test_a_domain_without_mx_is_its_own_host() -> None:
    exchange = await hosts({"d.test": host("192.0.2.1")})
    assert exchange.is_implicit
    assert tried(exchange) == [(0, "d.test", ("192.0.2.1",))]


@pytest.mark.parametrize(
    ("family", "addresses"),
    [
        (Family.AUTO, ("2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2")),
        (Family.IPV4, ("192.0.2.1", "192.0.2.2")),
        (Family.IPV6, ("2001:db8::1", "2001:db8::2")),
    ],
)
async def test_the_family_of_addresses(family: Family, addresses: tuple[str, ...]) -> None:
    zone = {"d.test": host("192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2")}
    assert (await hosts(zone, target=Mx(family))).hosts[0].addresses == addresses


@pytest.mark.parametrize(
    ("names", "kept"),
    [
        (mx((10, "a.test"), (20, "relay.test"), (20, "b.test"), (30, "c.test")), ["a.test"]),
        (mx((10, "a.test"), (20, "ours.test"), (30, "c.test")), ["a.test"]),
        (mx((10, "a.test"), (10, "b.test"), (20, "relay.test")), ["a.test", "b.test"]),
    ],
)
async def test_this_relay_cuts_the_list(names: dict[Kind, list[tuple[int, str]]], kept: list[str]) -> None:
    zone: Names = {
        "d.test": names,
        "a.test": host("192.0.2.1"),
        "b.test": host("192.0.2.2"),
        "c.test": host("192.0.2.3"),
        "ours.test": host("192.0.2.99"),
        "relay.test": host("192.0.2.99"),
    }
    exchange = await hosts(zone)
    assert [one.name for one in exchange.hosts] == kept
    assert any("is this relay" in words for words in exchange.left_out)


@pytest.mark.parametrize(
    ("domain", "names", "status"),
    [
        ("nobody.test", {}, "5.1.2"),
        ("d.test", {"d.test": mx((0, ""))}, "5.1.10"),
        ("d.test", {"d.test": {}}, "5.4.4"),
        ("d.test", {"d.test": mx((10, "gone.test"))}, "5.4.4"),
        ("d.test", {"d.test": mx((10, "relay.test"), (20, "a.test")), "a.test": host("192.0.2.1")}, "5.4.6"),
        ("d.test", {"d.test": mx((10, "o.test")), "o.test": host("192.0.2.99")}, "5.4.6"),
        ("d.test", {"d.test": mx((10, r"a\032b.test"), (20, "x_-.test"))}, "5.4.4"),
        ("", {}, "5.1.2"),
        ("[192.0.2.300]", {}, "5.1.2"),
        ("[IPv6:fe80::1%eth0]", {}, "5.1.2"),
        ("[192.0.2.99]", {}, "5.4.6"),
    ],
)
async def test_what_fails_for_good(domain: str, names: Names, status: str) -> None:
    with pytest.raises(NoNextHop) as caught:
        await hosts(names, domain)
    assert (caught.value.status, caught.value.is_final) == (status, True)


async def test_hosts_without_an_address_are_passed_over_each_with_its_reason() -> None:
    names: Names = {
        "d.test": mx((10, "gone.test"), (20, "bare.test"), (30, "a.test")),
        "bare.test": {},
        "a.test": host("192.0.2.1"),
    }
    exchange = await hosts(names)
    assert tried(exchange) == [(30, "a.test", ("192.0.2.1",))]
    assert exchange.left_out == ("gone.test: does not exist", "bare.test: has no address")
    with pytest.raises(NoNextHop) as caught:
        await hosts({name: said for name, said in names.items() if name != "a.test"})
    assert (caught.value.status, caught.value.is_final) == ("5.4.4", True)
    assert "gone.test: does not exist; bare.test: has no address; a.test: does not exist" in str(caught.value)


@pytest.mark.parametrize("names", [{"d.test": host("2001:db8::1")}, {"d.test": mx((10, "a.test"))}])
async def test_what_the_route_does_not_ask_for_may_be_there(names: Names) -> None:
    names = {**names, "a.test": host("2001:db8::1")}
    with pytest.raises(NoNextHop) as caught:
        await hosts(names, target=Mx(Family.IPV4))
    assert (caught.value.status, caught.value.is_final) == ("4.4.4", False)
    assert "the route takes no other addresses (ip)" in str(caught.value)


@pytest.mark.parametrize(
    "names",
    [
        {"d.test": None},
        {"d.test": mx((10, "a.test"), (20, "gone.test")), "a.test": None},
    ],
)
async def test_a_fault_of_dns_puts_off(names: Names) -> None:
    with pytest.raises(NoNextHop) as caught:
        await hosts(names)
    assert (caught.value.status, caught.value.is_final) == ("4.4.3", False)


async def test_a_host_that_cannot_be_looked_up_stands_back_for_the_others() -> None:
    exchange = await hosts(
        {"d.test": mx((10, "a.test"), (20, "b.test")), "a.test": None, "b.test": host("192.0.2.2")}
    )
    assert [one.name for one in exchange.hosts] == ["b.test"]
    assert exchange.left_out == ("a.test: DNS fails for a.test",)


async def test_a_root_among_real_hosts_is_passed_over() -> None:
    exchange = await hosts({"d.test": mx((0, ""), (10, "a.test")), "a.test": host("192.0.2.2")})
    assert [one.name for one in exchange.hosts] == ["a.test"]


async def test_hosts_are_limited() -> None:
    count = HOSTS + 7
    zone: dict[str, dict[Kind, list[tuple[int, str]]]] = {
        "d.test": mx(*[(n, f"{n}.test") for n in range(count)])
    }
    zone |= {f"{n}.test": host("192.0.2.1") for n in range(count)}
    exchange = await hosts(zone)
    assert [one.preference for one in exchange.hosts] == list(range(HOSTS))
    assert len(exchange.left_out) == count - HOSTS


@pytest.mark.parametrize(
    ("domain", "address"),
    [("[192.0.2.1]", "192.0.2.1"), ("[IPv6:2001:DB8::1]", "2001:db8::1"), ("[ipv6:::1]", "::1")],
)
async def test_a_literal_needs_no_dns(domain: str, address: str) -> None:
    zone = Zone({})
    exchange = await HostFinder(Dns(zone, ManualClock()), lambda: OURS).exchange(domain, Mx())
    assert exchange.is_literal
    assert tried(exchange) == [(0, address, (address,))]
    assert not zone.asked


async def test_a_domain_in_other_scripts_is_asked_in_the_form_of_dns() -> None:
    exchange = await hosts({"xn--bcher-kva.test": host("192.0.2.1")}, "bücher.test")
    assert exchange.domain == "xn--bcher-kva.test"


@pytest.mark.parametrize(
    ("own", "address", "port", "is_ours"),
    [
        (NextHop("0.0.0.0", 25), "127.0.0.1", 25, True),
        (NextHop("::", 25), "127.0.0.1", 25, True),
        (NextHop("0.0.0.0", 25), "127.0.0.1", 26, False),
        (NextHop("0.0.0.0", 25), "192.0.2.1", 25, False),
        (NextHop("127.0.0.1", 25), "127.0.0.2", 25, False),
    ],
)
def test_an_address_of_our_own_is_known(own: NextHop, address: str, port: int, is_ours: bool) -> None:
    assert Ourselves(frozenset(), (own,)).answers_at(address, port) is is_ours


async def test_a_route_with_hosts_asks_nobody() -> None:
    resolver = RouteResolver(finder({}))
    over = route(25, target=Smarthosts((NextHop("a"), NextHop("b"))))
    assert resolver.destination(over, b"d.test") == resolver.destination(over, b"e.test")
    assert await resolver.next_hops(over, "") == (NextHop("a"), NextHop("b"))


# --- with a courier and a name server -------------------------------------------------------------


async def sent(
    zone: Mapping[str, list[str]], port: int, *recipients: bytes, faults: Mapping[str, Fails] | None = None
) -> list[Outcome]:
    """The outcome of each recipient of one message over a route by MX."""
    async with name_server(zone, faults) as server:
        asker = ServerAsker([server.address], timeout_seconds=0.3, lifetime_seconds=0.6)
        resolver = RouteResolver(HostFinder(Dns(asker, SystemClock())))
        async with outbound(route(port, target=Mx(port=port)), resolver=resolver) as out:
            delivery = await out.send(claim(*recipients))
            return [outcome for _, outcome in sorted(delivery.outcomes)]


async def test_the_second_host_is_tried_when_the_best_is_away() -> None:
    zone = {
        "d.test": ["MX 10 away.test", "MX 20 here.test"],
        "away.test": ["A 127.0.0.77"],
        "here.test": ["A 127.0.0.78", "A 127.0.0.1"],
    }
    async with running(Peer()) as peer:
        (outcome,) = await sent(zone, peer.port, b"u@D.test")
    assert outcome.result is Result.DELIVERED
    assert outcome.next_hop == f"here.test[127.0.0.1]:{peer.port}"


async def test_each_domain_fares_by_itself() -> None:
    zone = {"good.test": ["A 127.0.0.1"], "null.test": ["MX 0 ."]}
    faults = {"bad.test": Fails.SERVFAIL, "slow.test": Fails.SILENT}
    names = (b"u@good.test", b"u@null.test", b"u@gone.test", b"u@bad.test", b"u@slow.test", b"u@[127.0.0.1]")
    async with running(Peer()) as peer:
        outcomes = await sent(zone, peer.port, *names, faults=faults)
    assert [(one.result, one.status) for one in outcomes] == [
        (Result.DELIVERED, "2.0.0"),
        (Result.FAILED, "5.1.10"),
        (Result.FAILED, "5.1.2"),
        (Result.DEFERRED, "4.4.3"),
        (Result.DEFERRED, "4.4.3"),
        (Result.DELIVERED, "2.0.0"),
    ]
    assert outcomes[1].stage is Stage.ROUTE
