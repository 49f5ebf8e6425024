"""Paths, parameters, xtext: what is an address, and that nothing else becomes one."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.protocol.errors import RemoteProtocolError
from lonedot.protocol.grammar import (
    NO_BRACKETS,
    SPACE_AFTER_COLON,
    GivenPath,
    is_clean_utf8,
    is_xtext,
    parse_forward_path,
    parse_parameters,
    parse_reverse_path,
    parse_size,
)
from lonedot.terms.address import NULL_REVERSE_PATH, Address


@pytest.mark.parametrize(
    ("argument", "mailbox", "parameters", "tolerated"),
    [
        (b"FROM:<a@b.example>", b"a@b.example", b"", ""),
        (b"from:<a@b.example> SIZE=1  BODY=7BIT", b"a@b.example", b"SIZE=1  BODY=7BIT", ""),
        (b"FROM:<>", b"", b"", ""),
        (b"FROM:<> RET=HDRS", b"", b"RET=HDRS", ""),
        (b"FROM: <>", b"", b"", SPACE_AFTER_COLON),
        (b"FROM: <a@b> SIZE=1", b"a@b", b"SIZE=1", SPACE_AFTER_COLON),
        (b"FROM:a@b SIZE=1", b"a@b", b"SIZE=1", NO_BRACKETS),
        (b"FROM: a@b", b"a@b", b"", f"{SPACE_AFTER_COLON}, {NO_BRACKETS}"),
        (b"FROM:<@r.example:a@b>", b"a@b", b"", ""),
        (b'FROM:<"a b>c"@d>', b'"a b>c"@d', b"", ""),
        (b'FROM:<@r:"a>"@d> SIZE=1', b'"a>"@d', b"SIZE=1", ""),
        (b'FROM:<""@d>', b'""@d', b"", ""),
        (b"FROM:<a@[127.0.0.1]>", b"a@[127.0.0.1]", b"", ""),
        (b"FROM:<a@[ipv6:::1]>", b"a@[ipv6:::1]", b"", ""),
    ],
)
def test_reverse_paths(argument: bytes, mailbox: bytes, parameters: bytes, tolerated: str) -> None:
    path = parse_reverse_path(argument)
    assert path == GivenPath(Address(mailbox), parameters, tolerated)
    assert (path.address == NULL_REVERSE_PATH) == (not mailbox)


@pytest.mark.parametrize(
    "argument",
    [
        b"",
        b"FROM",
        b"FROM :<a@b>",
        b"TO:<a@b>",
        b"FROM:",
        b"FROM:<",
        b"FROM:<a@b",
        b"FROM:<a@b>x",
        b"FROM:<a@b> <c@d>x\x01",
        b"FROM:<<a@b>>",
        b"FROM:< a@b >",
        b"FROM:<a b@c>",
        b"FROM:<a@b c>",
        b"FROM:<a@b@c>",
        b"FROM:<a@@b>",
        b"FROM:<a..b@c>",
        b"FROM:<a.@c>",
        b"FROM:<a@.c>",
        b"FROM:<a@c.>",
        b"FROM:<a@[1.2.3]>",
        b"FROM:<a@[01.2.3.4]>",
        b"FROM:<a@[IPv6:fe80::1%eth0]>",
        b"FROM:<a@[]>",
        b'FROM:<"a"b@c>',
        b'FROM:<"a@c>',
        b'FROM:<"a\\"@c>',
        b"FROM:<a\tb@c>",
        b"FROM:<a\rb@c>",
        b"FROM:<a\nb@c>",
        b'FROM:<"a\r\nb"@c>',
        b"FROM:<a\0b@c>",
        b"FROM:<a\x7f@c>",
        b"FROM:<a@b,c@d>",
        b"FROM:<@a,b:c@d>",
        b"FROM:<postmaster>",
        b"FROM:Ann <a@b>",
        b"FROM:\xc3\xa9@b",
        b"FROM:<\xc2\x80@b>",
        b"FROM:<\xe2\x80\xa8@b>",
        b"FROM:<\xed\xa0\x80@b>",
        b"FROM:<\xc0\x8d@b>",
    ],
)
def test_what_is_no_reverse_path(argument: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        parameters = parse_reverse_path(argument).parameters
        parse_parameters(parameters)  # `<a@b> <c@d>` fails only here
    assert caught.value.reply is not None
    assert caught.value.reply.is_permanent


def test_non_ascii_mailboxes_are_told_apart() -> None:
    assert parse_forward_path(b"TO:<a@b>").is_ascii
    path = parse_forward_path("TO:<jürgen@bücher.example>".encode())
    assert not path.is_ascii
    assert path.address.text == "jürgen@bücher.example"


@pytest.mark.parametrize("argument", [b"TO:<>", b"TO:< >", b"TO:<ann>"])
def test_what_is_no_forward_path(argument: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_forward_path(argument)


@pytest.mark.parametrize("name", [b"postmaster", b"Postmaster", b"POSTMASTER"])
def test_postmaster_needs_no_domain(name: bytes) -> None:
    assert parse_forward_path(b"TO:<" + name + b">").address.local == name


@pytest.mark.parametrize(
    ("local", "domain", "is_allowed"),
    [(64, 1, True), (65, 1, False), (1, 252, True), (1, 253, False), (64, 189, True), (64, 190, False)],
)
@pytest.mark.parametrize("space", [b"", b" "])  # the quick way and the thorough one
def test_limits_of_octets(local: int, domain: int, is_allowed: bool, space: bytes) -> None:
    argument = b"TO:" + space + b"<" + b"l" * local + b"@" + b"d" * domain + b">"
    if is_allowed:
        assert len(parse_forward_path(argument).address.octets) == local + 1 + domain
    else:
        with pytest.raises(RemoteProtocolError, match=r"limit|octets"):
            parse_forward_path(argument)


def test_a_source_route_counts_for_the_limit() -> None:
    route = b"@" + b"r" * 243 + b":"
    assert parse_reverse_path(b"FROM:<" + route + b"a@example>").address.octets == b"a@example"
    with pytest.raises(RemoteProtocolError):
        parse_reverse_path(b"FROM:<" + b"@" + b"r" * 244 + b":" + b"a@example>")


# Pieces of paths and of attacks, so that a good part of what is made comes near a path.
PIECES = st.sampled_from(
    [
        b"<",
        b">",
        b"@",
        b'"',
        b"\\",
        b".",
        b":",
        b",",
        b" ",
        b"[",
        b"]",
        b"a",
        b"example",
        b"127.0.0.1",
        b"IPv6:",
        b"::1",
        b"\r",
        b"\n",
        b"\0",
        b"\t",
        b"\x7f",
        b"\xc3\xa9",
        b"\xc2\x85",
        b"\xe2\x80\xa8",
        b"\xff",
        b"postmaster",
        b"=",
    ]
)


@given(st.lists(PIECES, max_size=16).map(b"".join) | st.binary(max_size=64))
def test_no_control_octet_ever_becomes_part_of_an_address(text: bytes) -> None:
    for parse, verb in ((parse_reverse_path, b"FROM:"), (parse_forward_path, b"TO:")):
        for argument in (
            verb + text,
            verb + b"<" + text + b">",
            verb + b"<a@" + text + b">",
            verb + b"<" + text + b"@b>",
        ):
            try:
                path = parse(argument)
            except RemoteProtocolError as error:
                assert error.reply is not None
                continue
            mailbox = path.address.octets
            assert not re.search(rb"[\x00-\x1f\x7f]", mailbox)
            assert is_clean_utf8(mailbox)
            assert path.is_ascii == mailbox.isascii()
            assert b"<" not in mailbox or b'"' in mailbox
            assert len(mailbox) <= 254
            # What was taken for an address is taken for the same one when it comes back.
            if mailbox:
                assert parse(verb + b"<" + mailbox + b">").address == path.address


def test_hostile_paths_take_no_time() -> None:
    """Each would take for ever with a pattern that tries every way to split it."""
    for text in (
        b"<" + b"a." * 5000,
        b"<" + b'"' + b"\\a" * 5000,
        b"<@" + b"a,@" * 5000,
        b"a" * 20000 + b"@",
    ):
        with pytest.raises(RemoteProtocolError):
            parse_reverse_path(b"FROM:" + text)


def test_parameters() -> None:
    assert parse_parameters(b"SIZE=1  smtputf8 x-Y=a+2Bb") == [
        (b"SIZE", b"1"),
        (b"SMTPUTF8", None),
        (b"X-Y", b"a+2Bb"),
    ]
    assert parse_parameters(b"") == []


@pytest.mark.parametrize(
    "text", [b"=", b"SIZE=", b"-A=1", b"A=B=C", b"A=\x01", b"A==", b"A B= C", b"A=1 a=2"]
)
def test_what_is_no_parameter(text: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_parameters(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (b"0", 0),
        (b"007", 7),
        (b"9" * 20, 10**20 - 1),
        (b"9" * 21, -1),
        (b"", -1),
        (b"-1", -1),
        (b"+1", -1),
        (b"1_0", -1),
        (b"0x1", -1),
        (b" 1", -1),
        (b"1\n", -1),
        ("٣".encode(), -1),
    ],
)
def test_sizes(text: bytes, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        (b"abc", True),
        (b"a+2Bb+3D", True),
        (b"", False),
        (b"a+b", False),
        (b"a+2b", False),
        (b"a=b", False),
        (b"a b", False),
        (b"a+0A", False),
        (b"a+0D", False),
        (b"a+00", False),
        (b"a+7F", False),
        (b"a+1B", False),
        (b"a\x01", False),
        (b"a\xff", False),
    ],
)
def test_xtext(text: bytes, is_one: bool) -> None:
    assert is_xtext(text) is is_one
