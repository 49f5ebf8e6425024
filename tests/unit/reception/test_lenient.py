"""The end of data as old servers took it."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.reception.lenient import LenientDecoder, look_alike


def decode(octets: bytes, cuts: list[int] | None = None) -> tuple[bytes, bytes, bytes] | None:
    """Content, what ended it, what stood behind; None when it does not end."""
    decoder = LenientDecoder()
    places = sorted({0, len(octets), *(cut % (len(octets) + 1) for cut in cuts or ())})
    for start, end in itertools.pairwise(places):
        rest = decoder.feed(octets[start:end])
        if rest is not None:
            return decoder.content(), decoder.ended_by, rest + octets[end:]
    return None


@pytest.mark.parametrize(
    ("octets", "decoded"),
    [
        (b"a\r\n.\r\n", (b"a\r\n", b"\r\n.\r\n", b"")),
        (b"a\n.\n", (b"a\n", b"\n.\n", b"")),
        (b"%%EOF\n.\r\nQUIT\r\n", (b"%%EOF\n", b"\n.\r\n", b"QUIT\r\n")),
        (b"a\r\n.\nMAIL", (b"a\r\n", b"\r\n.\n", b"MAIL")),
        (b".\r\n", (b"", b".\r\n", b"")),
        (b".\nx", (b"", b".\n", b"x")),
        (b"..a\r\n..\n.b\n.\n", (b".a\r\n.\nb\n", b"\n.\n", b"")),
        (b"a\r.\r\n", None),
        (b"a.\r\n", None),
        (b"", None),
        (b"a\r\n.", None),
    ],
)
def test_ends(octets: bytes, decoded: tuple[bytes, bytes, bytes] | None) -> None:
    assert decode(octets) == decoded
    assert decode(octets, list(range(len(octets)))) == decoded


@given(st.lists(st.sampled_from([b"\r", b"\n", b".", b"a"]), max_size=20), st.lists(st.integers(0, 99)))
def test_how_it_is_cut_makes_no_difference(parts: list[bytes], cuts: list[int]) -> None:
    octets = b"".join(parts)
    assert decode(octets, cuts) == decode(octets)


@pytest.mark.parametrize(
    ("octets", "alike"),
    [
        (b"%%EOF\n.\r\n", b"\n.\r\n"),
        (b"a\n.\n", b"\n.\n"),
        (b"a\r\n.\n", b"\r\n.\n"),
        (b"a\r.\r", b"\r.\r"),
        (b"a\r\n.\r", b"\r\n.\r"),
        (b"a\r\n.\r\n", b""),
        (b"a.\r\n", b""),
        (b"text\r\n", b""),
        (b"", b""),
    ],
)
def test_look_alike(octets: bytes, alike: bytes) -> None:
    assert look_alike(octets) == alike
