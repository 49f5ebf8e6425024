"""What a route asks of a message besides the address of the recipient."""

from __future__ import annotations

import ipaddress

import msgspec
import pytest

from lonedot.delivery.choosing import RouteChooser
from lonedot.delivery.conditions import Circumstances, Conditions, HeaderPattern, matches
from lonedot.delivery.routing import Discard, Hold, Route, RouteTable, choose_route
from lonedot.message.content import Content
from lonedot.spool.interface import NoSuchMessage
from lonedot.terms.address import NULL_REVERSE_PATH, Address
from lonedot.terms.ids import MessageId
from tests.unit.delivery.outbound import claim, message

HEAD = b"Subject: [urgent] Printer\r\n on fire\r\nX-Tag: a\r\nX-Tag: b\r\n\r\n"
MESSAGE = Circumstances(Address(b"scan@Branch.example"), "copiers", "192.168.10.7", 5000, lambda: HEAD)
NETWORK = ipaddress.ip_network("192.168.10.0/24")


@pytest.mark.parametrize(
    "conditions",
    [
        Conditions(),
        Conditions(senders=("other.example", "branch.example")),
        Conditions(listeners=("office", "copiers")),
        Conditions(networks=(ipaddress.ip_network("::/0"), NETWORK)),
        Conditions(over=4999, under=5001),
        Conditions(headers=(HeaderPattern("subject", "[URGENT]*fire"),)),
        Conditions(headers=(HeaderPattern("Missing", "*"), HeaderPattern("X-Tag", "b"))),
        Conditions(senders=("*",), listeners=("copiers",), networks=(NETWORK,), over=0),
    ],
)
def test_what_holds(conditions: Conditions) -> None:
    assert conditions.failed(MESSAGE) == ""


@pytest.mark.parametrize(
    ("conditions", "words"),
    [
        (Conditions(senders=("<>", "example.org")), "from scan@Branch.example is not under <>, example.org"),
        (Conditions(listeners=("office",)), "listener copiers is not office"),
        (
            Conditions(networks=(ipaddress.ip_network("10.0.0.0/8"),)),
            "client 192.168.10.7 is not in 10.0.0.0/8",
        ),
        (Conditions(over=5000), "size 5000 is not over 5000"),
        (Conditions(under=5000), "size 5000 is not under 5000"),
        (Conditions(headers=(HeaderPattern("Subject", "urgent*"),)), "no header field fits Subject=urgent*"),
        (Conditions(senders=("branch.example",), over=9999), "size 5000 is not over 9999"),
    ],
)
def test_what_does_not_hold_is_named(conditions: Conditions, words: str) -> None:
    assert conditions.failed(MESSAGE) == words


@pytest.mark.parametrize("client", ["", "scan.eml", "unix"])
def test_what_is_no_address_is_in_no_network(client: str) -> None:
    everything = Conditions(networks=(ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")))
    assert everything.failed(msgspec.structs.replace(MESSAGE, client=client))


def test_an_address_in_the_clothes_of_ipv6_is_in_its_network() -> None:
    mapped = msgspec.structs.replace(MESSAGE, client="::ffff:192.168.10.7")
    assert Conditions(networks=(NETWORK,)).failed(mapped) == ""


def test_the_null_reverse_path_has_a_pattern_of_its_own() -> None:
    assert matches("<>", NULL_REVERSE_PATH)
    assert not matches("<>", Address(b"a@example.com"))
    assert matches("*", NULL_REVERSE_PATH)


def test_octets_are_not_read_when_another_condition_fails() -> None:
    def read() -> bytes:
        raise AssertionError("read")

    unread = msgspec.structs.replace(MESSAGE, head=read)
    assert Conditions(over=9999, headers=(HeaderPattern("Subject", "*"),)).failed(unread)


def test_a_pattern_of_many_stars_is_done_with_at_once() -> None:
    head = b"Subject: " + b"a" * 5000 + b"\r\n\r\n"
    assert not HeaderPattern("Subject", "*a" * 90 + "*b").fits(head)


LARGE = Route(name="large", ehlo_name="r", target=Hold("large"), conditions=Conditions(over=4000))
TAGGED = Route(
    name="tagged",
    ehlo_name="r",
    target=Discard(),
    conditions=Conditions(headers=(HeaderPattern("X-Tag", "b"),)),
)
REST = Route(name="rest", ehlo_name="r", target=Discard())


def test_the_first_route_whose_conditions_hold_is_taken() -> None:
    address = Address(b"u@example.org")
    small = msgspec.structs.replace(MESSAGE, size=10, head=lambda: b"X-Tag: a\r\n\r\n")
    assert choose_route(address, (LARGE, REST), MESSAGE) is LARGE
    assert choose_route(address, (LARGE, REST), small) is REST
    assert choose_route(address, (LARGE, TAGGED), small) is None
    assert choose_route(address, (LARGE, TAGGED)) is LARGE  # some message could go that way


class Octets:
    def __init__(self, content: Content | None) -> None:
        self.content = content
        self.read = 0

    def of(self, id: MessageId) -> Content:
        self.read += 1
        if self.content is None:
            raise NoSuchMessage(id)
        return self.content


def test_a_stored_message_is_read_once_and_only_for_header_fields() -> None:
    octets = Octets(message(head=HEAD))
    stored = claim(b"a@example.org", b"b@example.org").message
    plain = RouteChooser(RouteTable([REST]), octets.of)
    assert plain.name_for(Address(b"a@example.org"), stored) == "rest"
    by_size = RouteChooser(RouteTable([LARGE, REST]), octets.of)
    assert by_size.name_for(Address(b"a@example.org"), stored) == "rest"
    assert octets.read == 0
    by_field = RouteChooser(RouteTable([TAGGED, REST]), octets.of)
    assert [by_field.name_for(Address(a), stored) for a in (b"a@example.org", b"b@example.org")] == [
        "tagged"
    ] * 2
    assert octets.read == 1


def test_a_message_that_cannot_be_read_fits_no_header_pattern() -> None:
    chooser = RouteChooser(RouteTable([TAGGED, REST]), Octets(None).of)
    assert chooser.name_for(Address(b"a@example.org"), claim().message) == "rest"
