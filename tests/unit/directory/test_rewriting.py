"""Which rule takes an address, and what it becomes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.delivery.conditions import matches
from lonedot.directory.rewriting import Rewriting, Rule
from lonedot.terms.address import NULL_REVERSE_PATH, Address


def one(*patterns: str, into: str) -> Rewriting:
    return Rewriting([Rule("rewrite 1", into, patterns, patterns)])


@pytest.mark.parametrize(
    ("pattern", "into", "address", "becomes"),
    [
        ("old.example", "new.example", "Joe+x@OLD.example", "Joe+x@new.example"),
        ("old.example", "new.example", '"joe @ home"@old.example', '"joe @ home"@new.example'),
        ("old.example", "new.example", "joe@a.old.example", None),
        ("old.example", "new.example", "joe@old.example.com", None),
        ("*.old.example", "new.example", "joe@a.b.old.example", "joe@new.example"),
        ("*.old.example", "*.new.example", "joe@A.b.old.example", "joe@a.b.new.example"),
        ("*.old.example", "*.new.example", "joe@old.example", None),
        ("joe@old.example", "sales@new.example", "JOE@old.example", "sales@new.example"),
        ("joe@old.example", "new.example", "Joe@old.example", "Joe@new.example"),
        ("joe@old.example", "sales@new.example", "joe+x@old.example", None),
        ("*", "test@office.example", "joe@old.example", "test@office.example"),
        ("*", "test@office.example", "postmaster", "test@office.example"),
        ("straße.example", "new.example", "joe@STRASSE.example", None),
        ("straße.example", "new.example", "joe@Straße.example", "joe@new.example"),
    ],
)
def test_what_becomes_of_an_address(pattern: str, into: str, address: str, becomes: str | None) -> None:
    rewriting = one(pattern, into=into)
    given = Address(address.encode())
    for found in (rewriting.sender(given), rewriting.recipient(given)):
        assert (found and found.address.text) == becomes
    assert rewriting.goes_to(given).text == (becomes or address)
    assert rewriting.touches(given, ()) is (becomes is not None)
    assert rewriting.touches(Address(b"x@other.example"), [given]) is (becomes is not None or pattern == "*")


def test_the_null_sender_is_written_anew_by_nothing() -> None:
    rewriting = one("*", into="test@office.example")
    assert rewriting.sender(NULL_REVERSE_PATH) is None
    assert not rewriting.touches(NULL_REVERSE_PATH, ())


def test_senders_and_recipients_have_rules_of_their_own() -> None:
    rewriting = Rewriting(
        [
            Rule("1", "a.example", senders=("old.example",)),
            Rule("2", "b.example", recipients=("old.example",)),
        ]
    )
    address = Address(b"joe@old.example")
    sender, recipient = rewriting.sender(address), rewriting.recipient(address)
    assert sender is not None and (sender.address.text, sender.rule) == ("joe@a.example", "1")
    assert recipient is not None and (recipient.address.text, recipient.rule) == ("joe@b.example", "2")


PATTERNS = st.sampled_from(
    ["*", "a.test", "b.a.test", "*.a.test", "*.test", "x@a.test", "y@b.a.test", "c.test"]
)
ADDRESSES = st.sampled_from(["x@a.test", "y@b.a.test", "X@A.test", "z@c.b.a.test", "x@c.test", "x@d.other"])


@given(st.lists(st.tuples(PATTERNS, st.integers(0, 3)), max_size=6), ADDRESSES)
def test_the_first_rule_that_takes_an_address_decides_and_no_other(
    rules: list[tuple[str, int]], text: str
) -> None:
    address = Address(text.encode())
    made = Rewriting(
        Rule(str(place), f"into{number}@{place}.test", (), (pattern,))
        for place, (pattern, number) in enumerate(rules)
    )
    first = next((n for n, (pattern, _) in enumerate(rules) if matches(pattern, address)), None)
    found = made.recipient(address)
    if first is None:
        assert found is None
    else:
        assert found is not None
        assert (found.rule, found.address.text) == (str(first), f"into{rules[first][1]}@{first}.test")
