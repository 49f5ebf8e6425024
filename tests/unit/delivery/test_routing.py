"""Which route takes an address."""

from __future__ import annotations

import pytest

from lonedot.delivery.routing import (
    NextHop,
    Route,
    RouteTable,
    SmarthostResolver,
    Smarthosts,
    choose_route,
    matches,
)
from lonedot.terms.address import Address


def named(table: RouteTable, address: bytes) -> str:
    found = table.choose(Address(address))
    return "" if found is None else found.name


def route(name: str, *to: str) -> Route:
    return Route(
        name=name, to=to, target=Smarthosts((NextHop("127.0.0.1", 25),)), ehlo_name="relay.example.com"
    )


@pytest.mark.parametrize(
    ("pattern", "address", "taken"),
    [
        ("*", b"a@example.com", True),
        ("*", b"postmaster", True),
        ("example.com", b"a@example.com", True),
        ("EXAMPLE.com", b"a@Example.COM", True),
        ("example.com", b"a@sub.example.com", False),
        ("example.com", b"a@notexample.com", False),
        ("example.com", b"postmaster", False),
        ("*.example.com", b"a@sub.example.com", True),
        ("*.example.com", b"a@b.sub.example.com", True),
        ("*.example.com", b"a@example.com", False),
        ("*.example.com", b"a@notexample.com", False),
        (".example.com", b"a@sub.example.com", True),
        (".example.com", b"a@example.com", False),
        ("a@example.com", b"a@example.com", True),
        ("a@example.com", b"A@EXAMPLE.com", True),
        ("a@example.com", b"b@example.com", False),
        ("a@example.com", b"ba@example.com", False),
        ("bücher.example", "a@BÜCHER.example".encode(), True),
        ("jörg@example.com", "JÖRG@example.com".encode(), True),
        ("[192.0.2.1]", b"a@[192.0.2.1]", True),
        ("example.com", b'"b@example.net"@example.com', True),
        ("example.net", b'"b@example.net"@example.com', False),
        ("example.com", b"a@example.com\xff", False),
    ],
)
def test_patterns(pattern: str, address: bytes, taken: bool) -> None:
    assert matches(pattern, Address(address)) is taken
    assert (RouteTable([route("r", pattern)]).choose(Address(address)) is not None) is taken


def test_the_first_route_that_matches_is_taken() -> None:
    routes = [route("one", "a@example.com"), route("two", "example.org", "example.com"), route("rest", "*")]
    table = RouteTable(routes)
    for address, name in ((b"a@example.com", "one"), (b"b@example.com", "two"), (b"c@example.net", "rest")):
        chosen = choose_route(Address(address), routes)
        assert chosen is not None and chosen.name == name
        assert named(table, address) == name
    assert choose_route(Address(b"c@example.net"), routes[:2]) is None
    assert RouteTable(routes[:2]).choose(Address(b"c@example.net")) is None


def test_a_table_that_knows_only_domains_remembers_them() -> None:
    table = RouteTable([route("own", "*.example.com"), route("rest", "*")])
    for number in range(3):
        assert named(table, b"%d@sub.EXAMPLE.com" % number) == "own"
        assert named(table, b"%d@example.com" % number) == "rest"
    assert named(table, b"postmaster") == "rest"


def test_two_routes_cannot_share_a_name() -> None:
    with pytest.raises(ValueError, match="same name"):
        RouteTable([route("a", "*"), route("a", "*")])


def test_routes_are_found_by_name() -> None:
    table = RouteTable([route("a", "example.com"), route("b", "*")])
    found = table.by_name("b")
    assert found is not None and found.to == ("*",)
    assert table.by_name("c") is None
    assert [known.name for known in table] == ["a", "b"]


async def test_a_smarthost_route_names_its_hosts() -> None:
    one = route("a", "*")
    resolver = SmarthostResolver()
    assert resolver.destination(one, b"example.com") == resolver.destination(one, b"example.org")
    assert await resolver.next_hops(one, "") == (NextHop("127.0.0.1", 25),)


@pytest.mark.parametrize(
    ("hop", "words"), [(NextHop("mx.example", 25), "mx.example:25"), (NextHop("::1", 587), "[::1]:587")]
)
def test_a_next_hop_reads_as_host_and_port(hop: NextHop, words: str) -> None:
    assert str(hop) == words


def test_a_route_does_not_show_its_password() -> None:
    from lonedot.protocol.client import Login

    secret = Route(
        name="x",
        target=Smarthosts((NextHop("h"),)),
        ehlo_name="relay.example.com",
        login=Login(b"user", b"s3cret"),
    )
    assert "s3cret" not in repr(secret)
