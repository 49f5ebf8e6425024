"""Networks and domains: who may relay, and where to."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.reception.settings import is_in, matches_domain

NETWORKS = tuple(ip_network(n) for n in ("127.0.0.0/8", "192.0.2.0/24", "2001:db8::/32", "fe80::/10"))


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        ("127.0.0.1", True),
        ("192.0.2.255", True),
        ("192.0.3.0", False),
        ("2001:db8::1", True),
        ("2001:db9::1", False),
        ("::ffff:192.0.2.7", True),
        ("::ffff:198.51.100.1", False),
        ("fe80::1%eth0", True),
        ("::1", False),
        ("", False),
        ("copier.example", False),
        ("192.0.2.7:25", False),
        ("192.0.2.07", False),
    ],
)
def test_an_address_in_a_network(client: str, expected: bool) -> None:
    assert is_in(client, NETWORKS) is expected


@given(st.text(max_size=40))
def test_any_text_is_in_no_network_or_an_address(client: str) -> None:
    assert is_in(client, ()) is False
    is_in(client, NETWORKS)


@given(st.ip_addresses(v=4))
def test_a_mapped_address_counts_as_its_ipv4(address: object) -> None:
    assert is_in(f"::ffff:{address}", NETWORKS) is is_in(str(address), NETWORKS)


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        (b"a.example", True),
        (b"b.a.example", False),
        (b"x.c.example", True),
        (b"y.x.c.example", True),
        (b"c.example", False),
        (b"badc.example", False),
        (b".c.example", True),
        (b"", False),
        (b"*.c.example", True),
    ],
)
def test_a_domain_and_its_patterns(domain: bytes, expected: bool) -> None:
    assert matches_domain(domain, (b"a.example", b"*.c.example")) is expected
