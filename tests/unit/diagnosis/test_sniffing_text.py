"""What is found in a text does not depend on how it was cut into segments; its end is that of a strict receiver."""

from __future__ import annotations

import re
from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from lonedot.diagnosis.sniffing_text import SentText, wrong_end_of

TEXTS = st.lists(
    st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"a", b"\r\n.", b"\n.\n", b"MAIL FROM:", b"\0", b"x" * 30]),
    max_size=30,
).map(b"".join)


def read(pieces: list[bytes]) -> SentText:
    text = SentText()
    for piece in pieces:
        if piece and not text.has_ended:
            text.feed(piece, 0.0, 1)
    text.conclude()
    return text


def told(text: SentText) -> list[object]:
    odd = [None if one is None else (one.offset, one.times) for one in (text.bare, text.not_stuffed)]
    return [*odd, text.hidden is not None, text.has_ended, text.size, text.tail]


@given(TEXTS, st.lists(st.integers(0, 200), max_size=12))
@example(b"a\r\n.\r\n", [1, 2, 3, 4, 5])
@example(b"a\n.\r\nMAIL FROM:", [1, 2, 3, 4, 5, 9])
def test_cuts_make_no_difference(octets: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(octets)) for cut in cuts), len(octets)]
    pieces = [octets[a:b] for a, b in pairwise(places)]
    assert told(read(pieces)) == told(read([octets]))
    assert told(read([octets[n : n + 1] for n in range(len(octets))])) == told(read([octets]))


@given(TEXTS)
def test_what_is_found_is_there(octets: bytes) -> None:
    text = read([octets])
    end = (b"\r\n" + octets).find(b"\r\n.\r\n")
    said = octets[: end + 3] if end >= 0 else octets
    assert text.has_ended == (end >= 0)
    assert text.size == len(said)
    bare = [found.start() for found in re.finditer(rb"\r(?!\n)|(?<!\r)\n", said)]
    assert (text.bare is None) == (not bare)
    if text.bare is not None:
        assert (text.bare.offset, text.bare.times) == (bare[0], len(bare))


def test_the_right_end_is_not_wrong() -> None:
    assert wrong_end_of(b"text\r\n.\r\n") is None
    assert wrong_end_of(b"text.\r\n") is None
    assert wrong_end_of(b"%%EOF\n.\r\n") == b"\n.\r\n"
