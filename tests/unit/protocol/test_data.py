"""The DATA decoder against a reference that walks octet by octet."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.protocol.data import DataDecoder

# Rich in what matters, so that look-alikes and splits of the end are common.
TEXTS = st.lists(
    st.sampled_from(
        [b"\r\n.\r\n", b"\r\n", b"\r\n.", b"\n", b"\r", b".", b"..", b"x", b"\0", b"text. more.", b"\xff"]
    ),
    max_size=24,
).map(b"".join)


def reference(octets: bytes) -> tuple[bytes, int | None]:
    """Content, and where the octets behind the end of data start; None when there is no end."""
    wire = b"\r\n" + octets
    content = bytearray()
    position = 0
    while position < len(wire):
        if wire.startswith(b"\r\n.\r\n", position):
            content += b"\r\n"
            return bytes(content[2:]), position + 5 - 2
        if wire.startswith(b"\r\n.", position):
            content += b"\r\n"
            position += 3
        else:
            content.append(wire[position])
            position += 1
    return bytes(content[2:]), None


def decode(pieces: list[bytes]) -> tuple[bytes, int | None]:
    decoder = DataDecoder()
    content = b""
    fed = 0
    for piece in pieces:
        content += decoder.feed(piece)
        if decoder.ended:
            return content, fed + decoder.used
        assert decoder.used == len(piece)
        assert decoder.held <= 4
        fed += len(piece)
    return content, None


@given(TEXTS, st.lists(st.integers(0, 120), max_size=6))
def test_any_chunking_gives_what_the_reference_gives(text: bytes, cuts: list[int]) -> None:
    octets = text + b"\r\n.\r\nNOOP\r\n"
    places = [0, *sorted(min(cut, len(octets)) for cut in cuts), len(octets)]
    pieces = [octets[a:b] for a, b in itertools.pairwise(places)]
    assert decode(pieces) == reference(octets)


@given(TEXTS)
def test_octet_by_octet_gives_what_the_reference_gives(text: bytes) -> None:
    octets = text + b"\r\n.\r\n"
    assert decode([octets[i : i + 1] for i in range(len(octets))]) == reference(octets)


@given(TEXTS, st.binary(max_size=5))
def test_a_start_in_the_middle_of_a_buffer_gives_the_same(text: bytes, before: bytes) -> None:
    octets = text + b"\r\n.\r\nQUIT\r\n"
    decoder = DataDecoder()
    content = decoder.feed(before + octets, len(before))
    expected, end = reference(octets)
    assert end is not None
    assert (content, decoder.ended, decoder.used) == (expected, True, len(before) + end)


@given(TEXTS)
def test_without_an_end_only_what_may_start_it_is_held_back(text: bytes) -> None:
    expected, end = reference(text)
    decoder = DataDecoder()
    content = decoder.feed(text)
    assert decoder.ended == (end is not None)
    if end is None:
        # What is held is `CR`, `CRLF`, `CRLF.` or `CRLF.CR`; the reference has counted it already.
        assert expected.startswith(content)
        assert len(expected) - len(content) <= decoder.held


@pytest.mark.parametrize("dots", [0, 1, 23, 24, 25, 26, 100])
def test_a_stuffed_line_is_found_behind_any_number_of_dots(dots: int) -> None:
    """The search looks at the first dots one by one and at the rest in one go."""
    text = b"a." * dots + b"\r\n..x\r\n"
    decoder = DataDecoder()
    assert decoder.feed(text + b".\r\n") == b"a." * dots + b"\r\n.x\r\n"
    assert decoder.ended


@pytest.mark.parametrize("dots", [22, 23, 24, 25])
def test_the_end_is_found_behind_any_number_of_dots(dots: int) -> None:
    decoder = DataDecoder()
    assert decoder.feed(b"." + b"." * dots + b"\r\n.\r\n") == b"." * dots + b"\r\n"
    assert decoder.ended


def test_clean_text_is_not_copied() -> None:
    text = b"base64" * 1000
    decoder = DataDecoder()
    assert decoder.feed(text) is text


def test_an_empty_message() -> None:
    decoder = DataDecoder()
    assert decoder.feed(b".\r\nQUIT\r\n") == b""
    assert decoder.ended
    assert decoder.used == 3
