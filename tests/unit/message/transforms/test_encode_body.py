"""Quoted-printable and base64 over streams: any cutting gives the same octets, and decoding gives them back."""

from __future__ import annotations

import base64
import binascii
import random
from collections.abc import Callable, Iterable, Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lonedot.message.transforms.encode_body import (
    base64_lines,
    decode_quoted_printable,
    fold_lines,
    quoted_printable,
    rewrap_base64,
)

PIECES = st.lists(
    st.one_of(
        st.sampled_from(
            [b"\r\n", b"\r", b"\n", b" ", b"\t", b"=", b".", b"x" * 70, b"y" * 76, b"\xff", b"--b", b"=3D"]
        ),
        st.binary(max_size=20),
    ),
    max_size=60,
)


@given(PIECES)
@example([b"a \r\n", b"\t"])
@example([b"x" * 75, b" ", b"\r\n"])
@example([(b"\0" * 9 + b" " * 10) * 2, b"\r\n", b"\r", b"\r\n"])
@example([(b"\0" * 9 + b" " * 11) * 2, b"\n"])
def test_quoted_printable_decodes_to_the_text(pieces: list[bytes]) -> None:
    octets = b"".join(pieces)
    encoded = b"".join(quoted_printable(pieces))
    assert encoded == b"".join(quoted_printable([octets]))
    assert binascii.a2b_qp(encoded) == octets
    lines = encoded.split(b"\r\n")
    assert max(map(len, lines)) <= 76
    assert encoded.isascii()
    assert not any(line.endswith((b" ", b"\t")) or b"\r" in line or b"\n" in line for line in lines)
    assert b"".join(decode_quoted_printable([encoded])) == octets


@given(st.lists(st.binary(max_size=200), max_size=10))
def test_base64_decodes_to_the_octets(pieces: list[bytes]) -> None:
    octets = b"".join(pieces)
    encoded = b"".join(base64_lines(pieces))
    assert encoded == base64.encodebytes(octets).rstrip(b"\n").replace(b"\n", b"\r\n")
    assert b"".join(rewrap_base64([encoded.replace(b"\r\n", b"")])) == encoded


def cut(octets: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(octets), size):
        yield octets[start : start + size]


LONG = random.Random(1).randbytes(300_000).translate(bytes(o if o not in b"\r\n" else 65 for o in range(256)))


@pytest.mark.parametrize(
    "encoder",
    [quoted_printable, base64_lines, rewrap_base64, decode_quoted_printable, lambda p: fold_lines(p, 998)],
)
@pytest.mark.parametrize(
    "octets",
    [
        LONG,
        LONG.replace(b"A", b" "),
        b"plain text and more of it, all in one line " * 9000,
        b" " * 200_000,
        b"=3D" * 90_000,
        b"=" * 200_000,
        b"\r" * 100_000 + b"\n" * 1000 + b"x" * 100_000,
    ],
    ids=["octets", "blanks", "words", "spaces", "escapes", "equals", "crs"],
)
def test_a_line_without_end_is_coded_in_pieces(
    encoder: Callable[[Iterable[bytes]], Iterator[bytes]], octets: bytes
) -> None:
    whole = b"".join(encoder([octets]))
    for size in (1 << 16, 70_001, 262_144):
        assert b"".join(encoder(cut(octets, size))) == whole
    if encoder is quoted_printable:
        assert binascii.a2b_qp(whole) == octets
        assert max(map(len, whole.split(b"\r\n"))) <= 76


@given(st.lists(st.sampled_from([b"x" * 997, b"x", b"\r\n", b"xy" * 700, b"--b", b" "]), max_size=12))
def test_broken_lines_are_short_and_start_with_a_space(pieces: list[bytes]) -> None:
    octets = b"".join(pieces)
    folded = b"".join(fold_lines(pieces, 998))
    assert folded == b"".join(fold_lines([octets], 998))
    assert max(map(len, folded.split(b"\r\n"))) <= 998
    if max(map(len, octets.split(b"\r\n"))) <= 998:
        assert folded == octets
    assert folded.replace(b"\r\n ", b"") == octets.replace(b"\r\n ", b"")


@pytest.mark.parametrize("boundary", [b"b", b"=_1", b"a=3Db"])
def test_no_line_passes_for_a_delimiter(boundary: bytes) -> None:
    for pad in range(60, 80):
        text = b"x" * pad + b"--" + boundary + b"--" + b"\r\n--" + boundary + b"x" * 30
        encoded = b"".join(quoted_printable([text], [boundary]))
        assert binascii.a2b_qp(encoded) == text
        assert b"\r\n--" + boundary not in b"\r\n" + encoded
