"""Names as they are looked up: quotes, case, extensions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.directory.directory import LocalDomain
from lonedot.terms.address import Address


@pytest.mark.parametrize(
    ("local", "keys"),
    [
        (b"joe", ("joe",)),
        (b"Joe", ("joe",)),
        (b'"joe"', ("joe",)),
        (b'"j\\oe"', ("joe",)),
        (b'"joe smith"', ("joe smith",)),
        (b'"a\\"b"', ('a"b',)),
        (b"joe+news", ("joe+news", "joe")),
        (b"Joe+News+More", ("joe+news+more", "joe")),
        (b'"joe+news"', ("joe+news", "joe")),
        (b"+news", ("+news",)),
        (b"joe+", ("joe+", "joe")),
        (b'"', ('"',)),
        (b'""', ("",)),
        ("J\u00fcrgen".encode(), ("j\u00fcrgen",)),
        ("Stra\u00dfe".encode(), ("stra\u00dfe",)),
        (b"\xff", ("\\xff",)),
    ],
)
def test_the_names_under_which_an_address_is_looked_up(local: bytes, keys: tuple[str, ...]) -> None:
    assert LocalDomain("here.example").keys(Address(local + b"@here.example")) == keys


def test_case_counts_where_the_domain_says_so() -> None:
    domain = LocalDomain("here.example", is_case_sensitive=True, extension="-")
    assert domain.keys(Address(b"Joe-News@here.example")) == ("Joe-News", "Joe")
    plain = LocalDomain("here.example", extension="")
    assert plain.keys(Address(b"joe+news@here.example")) == ("joe+news",)


@given(st.binary(max_size=20))
def test_what_was_quoted_is_what_is_meant(name: bytes) -> None:
    quoted = b'"' + name.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'
    assert Address(quoted + b"@here.example").name == name
