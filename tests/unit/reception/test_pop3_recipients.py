"""For whom a fetched message is: the fields in their order, our own domains only, nothing raised for what is there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.message.header import HeaderView
from lonedot.reception.pop3_account import AccountSettings
from lonedot.reception.pop3_recipients import MAX_RECIPIENTS, RECIPIENTS_FROM, recipients_in
from lonedot.terms.address import Address

SETTINGS = AccountSettings(
    name="n", host="h", port=1, user="u", password=b"p", domains=("a.example", "*.sub.example")
)


def found(head: str, *fields: str) -> list[str]:
    view = HeaderView(head.replace("\n", "\r\n").encode() + b"\r\n")
    return [one.text for one in recipients_in(view, fields or RECIPIENTS_FROM, SETTINGS.is_ours)]


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ("To: joe@a.example\n", ["joe@a.example"]),
        ("To: joe@b.example\n", []),
        ("To: joe@xa.example, j@mx.sub.example, k@sub.example\n", ["j@mx.sub.example"]),
        ("To: joe@a.example\nCc: Ann <ann@A.EXAMPLE>, joe@a.example\n", ["joe@a.example", "ann@A.EXAMPLE"]),
        ("To: team: joe@a.example, ann@a.example;\n", ["joe@a.example", "ann@a.example"]),
        ("Delivered-To: x@b.example\nTo: joe@a.example\n", ["joe@a.example"]),
        ("Delivered-To: new@a.example\nDelivered-To: old@a.example\nTo: joe@a.example\n", ["new@a.example"]),
        ("Delivered-To: d@a.example\nX-Original-To: o@a.example\n", ["o@a.example"]),
        ("Envelope-To: e@a.example, f@a.example\nX-Recipient: r@a.example\n", ["e@a.example", "f@a.example"]),
        (
            "Received: from x by y with ESMTP\n\tfor <new@a.example>; Mon\nReceived: from q for <old@a.example>\n"
            "To: joe@a.example\n",
            ["new@a.example"],
        ),
        ("Received: from x by y; for joe@a.example\nCc: ann@a.example\n", ["ann@a.example"]),
        ("Received: from x by y for <far@b.example>; Mon\nTo: joe@a.example\n", ["joe@a.example"]),
        ("Subject: joe@a.example\n", []),
    ],
)
def test_who_is_named(head: str, expected: list[str]) -> None:
    assert found(head) == expected


def test_only_the_field_that_is_trusted() -> None:
    head = "X-Envelope-To: joe@a.example\nX-Original-To: forged@a.example\nTo: forged@a.example\n"
    assert found(head, "X-Envelope-To") == ["joe@a.example"]
    assert found(head.partition("\n")[2], "X-Envelope-To") == []


def test_there_is_a_most() -> None:
    head = "To: " + ",\n ".join(f"n{number}@a.example" for number in range(MAX_RECIPIENTS + 10)) + "\n"
    assert len(found(head)) == MAX_RECIPIENTS


@given(st.binary(max_size=400))
def test_nothing_is_raised(octets: bytes) -> None:
    for name in RECIPIENTS_FROM:
        view = HeaderView(name.encode() + b": " + octets)
        for one in recipients_in(view, RECIPIENTS_FROM, SETTINGS.is_ours):
            assert SETTINGS.is_ours(one)
            assert isinstance(one, Address)
