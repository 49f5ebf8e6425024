"""The codec of the milter protocol: what is written can be read, in any pieces; garbage is a fault and nothing else."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.sinks.builtin.milter_wire import (
    OFFERED_STEPS,
    PACKET_LIMIT,
    Action,
    AddHeader,
    AnyReply,
    ChangeHeader,
    ChangeSender,
    Command,
    InsertHeader,
    MilterFault,
    Negotiated,
    Quarantine,
    ReplaceBody,
    Reply,
    ReplyText,
    Splitter,
    Stage,
    Step,
    connect,
    decode,
    header,
    macros,
    negotiation,
    packet,
    texts,
)
from tests.peers.milter import change, pack, reply_text

NAMES = st.from_regex(rb"\A[!-9;-~]{1,20}\Z")
VALUES = st.binary(max_size=60).map(lambda octets: octets.replace(b"\0", b""))
INDICES = st.integers(0, 0xFFFFFFFF)
REPLIES = st.one_of(
    st.sampled_from(Reply).map(lambda reply: (pack(reply.value), reply)),
    st.builds(lambda n, v: (change(b"h", n, v), AddHeader(n, v)), NAMES, VALUES),
    st.builds(lambda i, n, v: (change(b"i", n, v, index=i), InsertHeader(i, n, v)), INDICES, NAMES, VALUES),
    st.builds(lambda i, n, v: (change(b"m", n, v, index=i), ChangeHeader(i, n, v)), INDICES, NAMES, VALUES),
    st.binary(max_size=200).map(lambda octets: (pack(b"b", octets), ReplaceBody(octets))),
    st.just((change(b"e", b"<a@b.example>", b"RET=HDRS"), ChangeSender(b"a@b.example"))),
    st.just((change(b"q", b"odd"), Quarantine("odd"))),
    st.just((reply_text("550 5.7.1 No"), ReplyText(550, "5.7.1", "No"))),
)


def read(splitter: Splitter) -> list[AnyReply]:
    found = []
    while (one := splitter.next()) is not None:
        found.append(decode(*one))
    return found


@given(st.lists(REPLIES, max_size=8), st.lists(st.integers(1, 50), min_size=1))
def test_replies_in_any_pieces(replies: list[tuple[bytes, AnyReply]], sizes: list[int]) -> None:
    octets = b"".join(one for one, _ in replies)
    splitter = Splitter()
    found: list[AnyReply] = []
    place = turn = 0
    while place < len(octets):
        size = sizes[turn % len(sizes)]
        splitter.feed(octets[place : place + size])
        found += read(splitter)
        place += size
        turn += 1
    assert found == [wanted for _, wanted in replies]
    assert splitter.is_empty


@given(st.binary(min_size=1, max_size=1), st.binary(max_size=300))
def test_garbage_is_a_reply_or_a_fault(letter: bytes, octets: bytes) -> None:
    try:
        decode(letter, octets)
    except MilterFault as fault:
        assert str(fault).isprintable()
        assert len(str(fault)) < 200


@given(st.binary(max_size=60))
def test_lengths_are_bounded(octets: bytes) -> None:
    splitter = Splitter()
    splitter.feed(octets)
    try:
        read(splitter)
    except MilterFault:
        return
    assert (
        splitter.size < 4
        or 1 <= struct.unpack_from("!I", octets[len(octets) - splitter.size :])[0] <= PACKET_LIMIT
    )


@given(st.integers(0, 0xFFFFFFFF), st.integers(0, 0xFFFFFFFF), st.integers(0, 0xFFFFFFFF))
def test_what_is_negotiated_was_offered(version: int, actions: int, steps: int) -> None:
    try:
        found = decode(b"O", struct.pack("!III", version, actions, steps))
    except MilterFault:
        return
    assert isinstance(found, Negotiated)
    assert 2 <= found.version <= 6
    assert not found.steps & ~OFFERED_STEPS


def test_what_we_offer() -> None:
    offered = negotiation(Action.ADD_HEADERS | Action.QUARANTINE)
    assert offered == struct.pack("!I", 13) + b"O" + struct.pack("!III", 6, 0x21, 0x1FF7FF)
    assert Step.REFUSED_RECIPIENTS not in OFFERED_STEPS


def test_lists_of_macros() -> None:
    octets = struct.pack("!III", 6, 0, 0)
    octets += struct.pack("!I", 0) + b"j {client_addr},_\0" + struct.pack("!I", 6) + b"\0"
    found = decode(b"O", octets)
    assert isinstance(found, Negotiated)
    assert found.macros == {Stage.CONNECT: ("j", "client_addr", "_"), Stage.END_OF_HEADERS: ()}


@pytest.mark.parametrize(
    ("raw", "leading", "told"),
    [
        (b" value", False, b"value"),
        (b" value", True, b" value"),
        (b"value", False, b"value"),
        (b"  value", False, b" value"),
        (b"\tvalue", False, b"\tvalue"),
        (b"\r\n\tvalue", False, b"\n\tvalue"),
        (b" one\r\n two\r\n\tthree", True, b" one\n two\n\tthree"),
        (b"", False, b""),
    ],
)
def test_values_of_fields(raw: bytes, leading: bool, told: bytes) -> None:
    assert header(b"X-N", raw, leading) == packet(Command.HEADER, b"X-N\0" + told + b"\0")


def test_no_text_ends_early() -> None:
    assert texts(b"a\0b", b"") == b"ab\0\0"


def test_macros() -> None:
    told = macros(Command.MAIL, [("i", b"1"), ("mail_addr", b"a@b")])
    assert told == packet(Command.MACROS, b"Mi\0001\0{mail_addr}\0a@b\0")
    assert macros(Command.MAIL, []) == b""


def test_a_client_without_an_address() -> None:
    assert connect(b"localhost", "") == packet(Command.CONNECT, b"localhost\0U")
