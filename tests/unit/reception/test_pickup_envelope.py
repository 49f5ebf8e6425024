"""The envelope of a Pickup file: lines at the top, else fields, and words for what is wrong."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.reception.pickup_envelope import TOP_LIMIT, PickupFault, PickupStart, read_start
from lonedot.terms.address import NULL_REVERSE_PATH

FROM = b"From: Copier <copier@a.example>\r\n"
REST = FROM + b"Subject: x\r\n\r\nbody\r\n"


def recipients(start: PickupStart) -> list[bytes]:
    return [recipient.address.octets for recipient in start.envelope.recipients]


@pytest.mark.parametrize(
    ("octets", "sender", "expected"),
    [
        (b"x-sender: s@a.example\r\nx-receiver: r@b.example\r\n" + REST, b"s@a.example", [b"r@b.example"]),
        (b"X-Sender: <s@a.example>\nX-RECEIVER:r@b.example\n" + REST, b"s@a.example", [b"r@b.example"]),
        (b"x-sender: <>\r\nx-receiver: <r@b.example>\r\n" + REST, b"", [b"r@b.example"]),
        (b"x-receiver: r@b.example\r\n" + REST, b"copier@a.example", [b"r@b.example"]),
        (
            b"x-receiver: r@b.example\r\nx-receiver: q@b.example\r\nx-receiver: r@b.example\r\n" + REST,
            b"copier@a.example",
            [b"r@b.example", b"q@b.example"],
        ),
        (
            b"To: R <r@b.example>, q@b.example\r\nCc: (note) p@b.example\r\nBcc: o@b.example\r\n" + REST,
            b"copier@a.example",
            [b"r@b.example", b"q@b.example", b"p@b.example", b"o@b.example"],
        ),
        (
            b"To: Team: r@b.example, q@b.example;\r\n" + REST,
            b"copier@a.example",
            [b"r@b.example", b"q@b.example"],
        ),
        (b'To: "Last, First" <r@b.example>\r\n' + REST, b"copier@a.example", [b"r@b.example"]),
        (b"To: r@b.example\r\nSender: s@a.example\r\n" + REST, b"s@a.example", [b"r@b.example"]),
        (b"x-receiver: postmaster\r\n" + REST, b"copier@a.example", [b"postmaster"]),
        (b'x-receiver: "a b"@b.example\r\n' + REST, b"copier@a.example", [b'"a b"@b.example']),
    ],
)
def test_who_sends_and_who_gets_it(octets: bytes, sender: bytes, expected: list[bytes]) -> None:
    start = read_start(octets)
    assert (start.envelope.reverse_path.octets, recipients(start)) == (sender, expected)
    assert octets[start.content_at :].endswith(REST)
    assert b"x-" not in octets[start.content_at :].lower()


def test_the_lines_count_only_at_the_very_top() -> None:
    start = read_start(b"x-receiver: r@b.example\r\n" + FROM + b"x-receiver: q@b.example\r\n\r\nbody")
    assert recipients(start) == [b"r@b.example"]
    assert start.content_at == 25


def test_letters_beyond_ascii_ask_for_smtputf8() -> None:
    assert read_start("x-receiver: jürg@b.example\r\n".encode() + REST).envelope.smtputf8
    assert not read_start(b"x-receiver: r@b.example\r\n" + REST).envelope.smtputf8


@pytest.mark.parametrize(
    ("value", "addresses"),
    [
        (b"r@b.example,", [b"r@b.example"]),
        (b"r@b.example, , q@b.example", [b"r@b.example", b"q@b.example"]),
        (b"All: r@b.example, q@b.example;", [b"r@b.example", b"q@b.example"]),
        (b'"b, r" <r@b.example> (home), q@b.example', [b"r@b.example", b"q@b.example"]),
    ],
)
def test_recipients_are_taken_from_the_header_as_old_programs_write_it(
    value: bytes, addresses: list[bytes]
) -> None:
    start = read_start(b"To: " + value + b"\r\n" + REST)
    assert [recipient.address.octets for recipient in start.envelope.recipients] == addresses


def test_the_null_sender_is_a_value() -> None:
    start = read_start(b"x-sender:\r\nx-receiver: r@b.example\r\n" + REST)
    assert start.envelope.reverse_path is NULL_REVERSE_PATH


@pytest.mark.parametrize(
    ("octets", "words"),
    [
        (b"", "there is no From field: add one"),
        (b"x-sender: s@a.example\r\nx-receiver: r@b.example\r\n", "there is no From field"),
        (b"x-receiver: r@b.example\r\nSubject: x\r\n\r\nbody", "there is no From field"),
        (REST, "no recipient: add a line `x-receiver: address`"),
        (b"To: undisclosed-recipients:;\r\n" + REST, "no recipient"),
        (b"To: r@b.example\r\nFrom: nobody\r\n\r\n", "the sender 'nobody' is not an address"),
        (b"x-receiver: r@b.example\r\nFrom:\r\n\r\n", "no sender: add a line `x-sender: address`"),
        (b"x-receiver:\r\n" + REST, "the recipient '' is not an address"),
        (b"x-receiver: r@b.example, q@b.example\r\n" + REST, "is not an address"),
        (b"x-receiver: r@b.example> NOTIFY=NEVER <x\r\n" + REST, "there is more than a mailbox"),
        (
            b"x-sender: s@a.example> BODY=8BITMIME <x\r\nx-receiver: r@b.example\r\n" + REST,
            "more than a mailbox",
        ),
        (b"x-receiver: r@b.example\0\r\n" + REST, r"the recipient 'r@b.example\x00' is not"),
        (b"x-receiver: r\r@b.example\r\n" + REST, "is not an address"),
        (b"x-receiver: J\xfcrg@b.example\r\n" + REST, r"'J\\xfcrg@b.example' is not an address"),
        (b"x-receiver: r@b.example\r\n" * (TOP_LIMIT + 1) + REST, "more than 1000 envelope lines"),
        (b"To: " + b"(" * 200_000 + b"\r\n" + REST, "the field To cannot be read"),
        (b"To: r@b.example (at last, q@b.example\r\n" + REST, "the field To cannot be read"),
        (b"To: r@b.example, q\r\n" + REST, "the recipient 'q' is not an address"),
        (b"To: " + b"r@b.example," * 5000 + b"\r\n" + REST, "more than 5000 addresses"),
    ],
)
def test_what_cannot_be_sent_is_said_in_words(octets: bytes, words: str) -> None:
    with pytest.raises(PickupFault, match=re.escape(words)) as caught:
        read_start(octets)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


def test_a_thousand_recipients_are_taken() -> None:
    lines = b"".join(b"x-receiver: r%d@b.example\r\n" % number for number in range(TOP_LIMIT - 1))
    assert len(recipients(read_start(lines + REST))) == TOP_LIMIT - 1


PIECES = st.sampled_from(
    [
        b"x-sender: ", b"x-receiver: ", b"X-Receiver:", b"From: ", b"To: ", b"Bcc: ", b"Subject: x",
        b"a@b.example", b"<a@b.example>", b"<>", b"postmaster", b"\r\n", b"\r\n", b"\n", b"\r", b"\r\n\r\n", b" ",
        b"\t", b",", b";", b":", b"(", b")", b"\"", b"\\", b"@", b">", b"<", b"\0", b"\xff", b"\xc3\xbc", b".",
    ]
)  # fmt: skip


@given(st.lists(PIECES | st.binary(max_size=5), max_size=40).map(b"".join))
def test_anything_is_a_start_or_a_fault(octets: bytes) -> None:
    try:
        start = read_start(octets)
    except PickupFault as fault:
        assert str(fault)
        return
    envelope = start.envelope
    assert envelope.recipients
    assert 0 <= start.content_at <= len(octets)
    assert len({recipient.address for recipient in envelope.recipients}) == len(envelope.recipients)
    for address in (envelope.reverse_path, *(recipient.address for recipient in envelope.recipients)):
        assert not re.search(rb"[\x00-\x1f\x7f]", address.octets)
        assert address.octets.decode().encode() == address.octets
    assert all(not recipient.address.is_null for recipient in envelope.recipients)


@given(
    st.lists(st.sampled_from([b"x-sender: s@a.example", b"x-receiver: r@b.example"]), max_size=6),
    st.booleans(),
)
def test_the_content_is_what_stands_behind_the_lines(lines: list[bytes], crlf: bool) -> None:
    end = b"\r\n" if crlf else b"\n"
    top = b"".join(line + end for line in lines)
    octets = top + b"To: t@b.example\r\n" + REST
    assert octets[read_start(octets).content_at :] == b"To: t@b.example\r\n" + REST
