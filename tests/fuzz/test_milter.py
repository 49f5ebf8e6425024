"""A milter that says anything at all: the bridge comes to an end, with a result that can be taken or a fault."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from lonedot.message.edits import EditFault, Effect, lower
from lonedot.message.fold import apply_changes, fold_envelope
from lonedot.message.header import HeaderView
from lonedot.message.intake import content_from
from lonedot.sinks.builtin.milter_client import Ended, MilterClient, Peer, Say, Talk
from lonedot.sinks.builtin.milter_edits import changed, shown_fields
from lonedot.sinks.builtin.milter_wire import (
    Action,
    AddHeader,
    AddRecipient,
    AnyReply,
    ChangeHeader,
    ChangeSender,
    DeleteRecipient,
    InsertHeader,
    MilterFault,
    Modification,
    ReplaceBody,
    Splitter,
    decode,
)
from lonedot.terms.address import Address
from lonedot.terms.envelope import Envelope, Recipient
from tests.peers.milter import pack

ALL = Action(0x7F) | Action.CHOOSE_MACROS
PEER = Peer(hostname="relay.example", daemon="in", client="192.0.2.1", helo="c.example", login="anna")
ENVELOPE = Envelope(
    Address(b"a@example.com"), tuple(Recipient(Address(a)) for a in (b"b@example.org", b"C@example.org"))
)
ID = "2AB4C6D8E0F12"
TRACE = b"Received: by relay.example with ESMTP id %b; now\r\n" % ID.encode()
NAMES = st.sampled_from([b"X-A", b"x-a", b"X-B", b"Received", b"Subject", b"DKIM-Signature"])
VALUES = st.one_of(
    st.sampled_from(
        [b"", b"v", b" v", b"one\n\ttwo", b"one\r\n two", b"one\nBcc: x", b"\n v", b" ", b"v\n", b"\xc3\xa4"]
    ),
    st.binary(max_size=30).map(lambda octets: octets.replace(b"\0", b"")),
)
INDICES = st.one_of(st.integers(0, 6), st.just(0xFFFFFFFF))
ADDRESSES = st.sampled_from(
    [b"b@example.org", b"c@example.org", b"new@x.example", b"", b"bad one", b"postmaster"]
)
HEADS = (
    st.builds(AddHeader, NAMES, VALUES)
    | st.builds(InsertHeader, INDICES, NAMES, VALUES)
    | st.builds(ChangeHeader, INDICES, NAMES, VALUES)
)
CHANGES: st.SearchStrategy[Modification] = st.one_of(
    HEADS,
    st.builds(ReplaceBody, st.binary(max_size=60)),
    st.builds(AddRecipient, ADDRESSES),
    st.builds(DeleteRecipient, ADDRESSES),
    st.builds(ChangeSender, ADDRESSES),
)
FIELDS = st.lists(
    st.builds(
        lambda name, value: name + b":" + value + b"\r\n",
        NAMES,
        st.sampled_from([b" 1", b"2", b" a\r\n b", b""]),
    ),
    max_size=6,
).map(b"".join)
MESSAGES = st.builds(
    lambda trace, fields, body: trace + fields + b"\r\n" + body,
    st.sampled_from([b"", TRACE]),
    FIELDS,
    st.sampled_from([b"", b"text\r\n", b"a\r\n.\r\nb"]),
)
PACKETS = st.one_of(
    st.sampled_from(
        [pack(letter) for letter in (b"c", b"c", b"c", b"c", b"a", b"r", b"t", b"d", b"s", b"p", b"4", b"f")]
    ),
    st.builds(pack, st.binary(min_size=1, max_size=1), st.binary(max_size=40)),
    st.builds(
        lambda actions, steps, lists: pack(b"O", struct.pack("!III", 6, actions, steps) + lists),
        st.integers(0, 0x7F),
        st.integers(0, 0x1FFFFF),
        st.sampled_from([b"", struct.pack("!I", 2) + b"i {x}\0", b"\0\0"]),
    ),
    st.binary(max_size=12),
)


class NothingMore(Exception):
    """The milter has said all that it says."""


class Ear:
    """Gives what the milter says, packet by packet."""

    def __init__(self, octets: bytes) -> None:
        self._splitter = Splitter()
        self._splitter.feed(octets)

    def drive(self, talk: Talk[Ended | None]) -> Ended | None:
        reply: AnyReply | None = None
        while True:
            try:
                say = talk.send(reply)
            except StopIteration as end:
                ended: Ended | None = end.value
                return ended
            assert isinstance(say, Say)
            reply = None
            if say.waits:
                found = self._splitter.next()
                if found is None:
                    raise NothingMore
                reply = decode(*found)


def whole(client: MilterClient, fields: HeaderView) -> Talk[Ended | None]:
    yield from client.greet(PEER)
    if client.said is None:
        yield from client.mail(PEER, ENVELOPE, ID)
    for recipient in ENVELOPE.recipients:
        if client.said is None:
            yield from client.rcpt(PEER, recipient, ID)
    if client.said is None:
        yield from client.data(PEER, ID)
    if client.said is None:
        yield from client.headers(PEER, shown_fields(fields, ID), ID)
    if client.takes_body():
        yield from client.body(b"x" * 70_000)
    if client.said is not None:
        return None
    return (yield from client.end(PEER, ID))


@given(st.lists(PACKETS, max_size=30), MESSAGES)
def test_a_milter_that_says_anything(packets: list[bytes], message: bytes) -> None:
    content = content_from(message)
    negotiated = pack(b"O", struct.pack("!III", 6, 0x7F, 0))
    client = MilterClient(ALL, 1000)
    try:
        ended = Ear(negotiated + b"".join(packets)).drive(whole(client, HeaderView(content.head)))
    except (MilterFault, NothingMore):
        return
    assert ended is not None or client.said is not None
    if ended is not None and ended.modifications:
        take(ended.modifications, message, True)


@given(st.lists(CHANGES, max_size=8), MESSAGES, st.booleans())
def test_changes_of_any_kind(changes: list[Modification], message: bytes, leading: bool) -> None:
    take(changes, message, leading)


@given(st.lists(HEADS, max_size=8), MESSAGES)
def test_changes_of_the_header_leave_what_they_do_not_name(
    changes: list[AddHeader | InsertHeader | ChangeHeader], message: bytes
) -> None:
    content = content_from(message)
    try:
        done = changed(changes, content, ENVELOPE, ID, False)
    except (MilterFault, EditFault):
        return
    after = apply_changes(content, lower(done.edits, content))
    assert after.body.octets() == content.body.octets()
    named = {change.name.lower() for change in changes}
    kept = [
        message_field(content.head, f.start, f.end)
        for f in HeaderView(content.head).fields
        if f.name.lower() not in named
    ]
    left = [
        message_field(after.head, f.start, f.end)
        for f in HeaderView(after.head).fields
        if f.name.lower() not in named
    ]
    assert kept == left, "no field but those that it names has come, gone or changed"
    if message.startswith(TRACE):
        assert TRACE in after.head, "our own trace field is not the milter's to touch"


def message_field(head: bytes, start: int, end: int) -> bytes:
    return head[start:end]


def take(changes: list[Modification] | tuple[Modification, ...], message: bytes, leading: bool) -> None:
    """What comes of it can be applied."""
    content = content_from(message)
    try:
        done = changed(changes, content, ENVELOPE, ID, leading)
    except (MilterFault, EditFault):
        return
    lowered = lower(done.edits, content)
    apply_changes(content, lowered)
    people = fold_envelope(ENVELOPE, lowered)
    assert done.nobody == (not people.recipients)
    assert {edit.effect for edit in done.edits} <= set(Effect)
