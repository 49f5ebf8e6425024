"""Fields that the relay writes: well formed whatever the client said of itself."""

from __future__ import annotations

from email.utils import parsedate_to_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.message.header import HeaderView
from lonedot.message.measure import measure
from lonedot.message.trace import TraceFacts, date_field, date_time, message_id_field, received_field

FACTS = TraceFacts(
    helo="scanner.example.com",
    client="192.0.2.1",
    hostname="relay.example.com",
    protocol="ESMTPS",
    id="0l2v3k4m5n6o7",
    at=1_795_350_565.9,
    recipient=b"joe@example.net",
)


def test_all_clauses_stand_in_their_order() -> None:
    assert received_field(FACTS) == (
        b"Received: from scanner.example.com ([192.0.2.1])\r\n"
        b"\tby relay.example.com with ESMTPS id 0l2v3k4m5n6o7\r\n"
        b"\tfor <joe@example.net>; Sun, 22 Nov 2026 12:29:25 +0000\r\n"
    )


def test_several_recipients_are_not_told_of_each_other() -> None:
    facts = TraceFacts("h", "2001:db8::1", "relay.example.com", "SMTP", "1", 0.0)
    assert received_field(facts) == (
        b"Received: from h ([IPv6:2001:db8::1])\r\n"
        b"\tby relay.example.com with SMTP id 1;\r\n"
        b"\tThu, 01 Jan 1970 00:00:00 +0000\r\n"
    )


def test_a_message_without_a_client_comes_from_nowhere() -> None:
    facts = TraceFacts("", "", "relay.example.com", "local", "1", 0.0)
    assert received_field(facts).startswith(b"Received: by relay.example.com with local id 1;\r\n")


@given(st.text(max_size=300), st.text(max_size=300), st.binary(max_size=254))
def test_nothing_a_client_says_ends_the_field(helo: str, client: str, recipient: bytes) -> None:
    facts = TraceFacts(helo, client, "r" * 200 + ".example", "ESMTP", "0l2v3k4m5n6o7", 1e9, recipient)
    octets = received_field(facts)
    view = HeaderView(octets)
    assert len(view.fields) == 1
    assert view.malformed == -1
    assert measure(octets).profile.is_canonical
    assert octets.isascii()
    assert octets.count(b"(") <= 1
    assert octets.count(b";") == 1


@pytest.mark.parametrize("at", [0.0, 951_782_399.0, 1_795_350_565.0, 4_102_444_800.0])
def test_dates_are_those_of_the_standard_library(at: float) -> None:
    assert parsedate_to_datetime(date_time(at).decode()).timestamp() == at
    assert date_field(at) == b"Date: " + date_time(at) + b"\r\n"


def test_the_second_changes_the_date() -> None:
    assert date_time(10.9) == date_time(10.0)
    assert date_time(11.0) != date_time(10.9)


def test_a_message_id_holds_id_and_host() -> None:
    assert message_id_field("1", "relay.example.com") == b"Message-ID: <1@relay.example.com>\r\n"
