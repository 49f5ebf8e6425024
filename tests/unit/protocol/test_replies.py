"""Replies from octets: exact text, bounded memory, the same in any pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.protocol.errors import RemoteProtocolError
from lonedot.protocol.replies import LINE_LIMIT, LINES_LIMIT, ReplyReader
from lonedot.terms.reply import Reply


def read(octets: bytes) -> list[Reply]:
    reader = ReplyReader()
    reader.feed(octets)
    replies = []
    while (reply := reader.next()) is not None:
        replies.append(reply)
    return replies


@pytest.mark.parametrize(
    ("octets", "code", "enhanced", "lines"),
    [
        (b"250 Ok\r\n", 250, "", (b"Ok",)),
        (b"250\r\n", 250, "", (b"",)),
        (b"250 \r\n", 250, "", (b"",)),
        (b"250 2.1.0 Ok\r\n", 250, "2.1.0", (b"2.1.0 Ok",)),
        (b"250 2.1.0\r\n", 250, "2.1.0", (b"2.1.0",)),
        (b"250 bare line feed\n", 250, "", (b"bare line feed",)),
        (b"550-5.1.1 no\r\n550 5.1.1 such user\r\n", 550, "5.1.1", (b"5.1.1 no", b"5.1.1 such user")),
        (b"550-first\r\n550 5.7.1 second\r\n", 550, "5.7.1", (b"first", b"5.7.1 second")),
        (b"250-\r\n250\r\n", 250, "", (b"", b"")),
        # RFC 2034: the class must be that of the code; else it is text.
        (b"550 4.1.1 odd\r\n", 550, "", (b"4.1.1 odd",)),
        (b"550 5.1.1odd\r\n", 550, "", (b"5.1.1odd",)),
        (b"550 5.1000.1 odd\r\n", 550, "", (b"5.1000.1 odd",)),
        (b"220 caf\xc3\xa9 \xff\r\n", 220, "", (b"caf\xc3\xa9 \xff",)),
        (b"250  two spaces\r\n", 250, "", (b" two spaces",)),
    ],
)
def test_one_reply(octets: bytes, code: int, enhanced: str, lines: tuple[bytes, ...]) -> None:
    assert read(octets) == [Reply(code, enhanced, lines)]


def test_replies_behind_each_other_come_one_at_a_time() -> None:
    assert [r.code for r in read(b"250 a\r\n550-b\r\n550 c\r\n354 d\r\n25")] == [250, 550, 354]


@pytest.mark.parametrize(
    "octets",
    [
        b"hello\r\n",
        b"\r\n",
        b"\n",
        b"25\r\n",
        b"2x0 a\r\n",
        b"150 a\r\n",
        b"600 a\r\n",
        b"099 a\r\n",
        b"250xa\r\n",
        b"250\tOk\r\n",
        b"250-a\r\n251 b\r\n",
        b"250-a\r\nb\r\n",
        b"\xb2\xb5\xb0 digits that are none\r\n",
    ],
)
def test_what_is_no_reply_is_the_peers_fault(octets: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        read(octets)


def test_a_line_may_be_longer_than_the_standard_says_but_not_endless() -> None:
    assert read(b"250 " + b"x" * (LINE_LIMIT - 6) + b"\r\n")[0].code == 250
    with pytest.raises(RemoteProtocolError, match="more than 4096"):
        read(b"250 " + b"x" * LINE_LIMIT + b"\r\n")
    with pytest.raises(RemoteProtocolError, match="more than 4096"):
        read(b"250 " + b"x" * LINE_LIMIT)


def test_a_reply_has_no_more_than_a_hundred_lines() -> None:
    assert len(read(b"250-x\r\n" * (LINES_LIMIT - 1) + b"250 x\r\n")[0].lines) == LINES_LIMIT
    with pytest.raises(RemoteProtocolError, match="more than 100 lines"):
        read(b"250-x\r\n" * LINES_LIMIT + b"250 x\r\n")


@pytest.mark.parametrize(
    ("octets", "is_empty"), [(b"", True), (b"2", False), (b"250-a\r\n", False), (b"250-a\r\n250 b\r\n", True)]
)
def test_is_empty_knows_begun_lines_and_begun_replies(octets: bytes, is_empty: bool) -> None:
    reader = ReplyReader()
    reader.feed(octets)
    while reader.next() is not None:
        pass
    assert reader.is_empty is is_empty


def test_clear_forgets_a_begun_reply() -> None:
    reader = ReplyReader()
    reader.feed(b"250-a\r\n250-b")
    assert reader.next() is None
    reader.clear()
    assert reader.is_empty
    reader.feed(b"220 new\r\n")
    assert reader.next() == Reply(220, "", (b"new",))


LINES = st.lists(
    st.binary(max_size=30).map(lambda t: t.replace(b"\n", b"").rstrip(b"\r")), min_size=1, max_size=4
)


@given(st.lists(st.tuples(st.integers(200, 599), LINES), max_size=5), st.data())
def test_any_pieces_give_the_same_replies(given_: list[tuple[int, list[bytes]]], data: st.DataObject) -> None:
    octets = b"".join(
        b"".join(b"%d-%s\r\n" % (code, line) for line in lines[:-1]) + b"%d %s\r\n" % (code, lines[-1])
        for code, lines in given_
    )
    reader = ReplyReader()
    replies: list[Reply] = []
    place = 0
    while place < len(octets):
        step = data.draw(st.integers(1, 12))
        reader.feed(octets[place : place + step])
        place += step
        while (reply := reader.next()) is not None:
            replies.append(reply)
    assert replies == read(octets)
    assert [(reply.code, list(reply.lines)) for reply in replies] == given_


@given(st.binary(max_size=300))
def test_garbage_gives_replies_or_a_protocol_error(octets: bytes) -> None:
    try:
        replies = read(octets)
    except RemoteProtocolError:
        return
    assert all(200 <= reply.code < 600 for reply in replies)
