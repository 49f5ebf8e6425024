"""Canonical forms, tag lists, and what a signature is made over."""

from __future__ import annotations

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.message.dkim import (
    Algorithm,
    BodyDigest,
    Canonical,
    Signing,
    TagFault,
    canonical_field,
    data_of,
    digest_of,
    finished,
    picked,
    read_tags,
    unsigned,
    without_signature,
)
from lonedot.message.header import HeaderView

CANONICALS = pytest.mark.parametrize("canonical", list(Canonical), ids=lambda one: one.value)
PIECES = st.lists(
    st.sampled_from([b"\r\n", b" ", b"\t", b"a", b"bc d", b"\r", b"\n", b".", b" \r\n", b"\r\n\r\n"]),
    max_size=30,
)


def plain(body: bytes, canonical: Canonical) -> bytes:
    """RFC 6376 §3.4.3 and §3.4.4, word by word, of a body in one piece."""
    if canonical is Canonical.RELAXED:
        body = re.sub(rb"[ \t]+(?=\r\n|\Z)", b"", body)
        body = re.sub(rb"[ \t]+(?=\r\Z)", b" ", body)
        body = re.sub(rb"[ \t]+", b" ", body)
    while body.endswith(b"\r\n"):
        body = body[:-2]
    return body + b"\r\n" if body or canonical is Canonical.SIMPLE else b""


@CANONICALS
@given(pieces=PIECES)
def test_a_body_is_hashed_alike_however_it_is_cut(canonical: Canonical, pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    assert digest_of([whole], canonical) == digest_of(pieces, canonical)
    octets = [whole[place : place + 1] for place in range(len(whole))]
    assert digest_of([whole], canonical) == digest_of(octets, canonical)


@CANONICALS
@given(pieces=PIECES)
def test_a_body_is_hashed_as_the_standard_says(canonical: Canonical, pieces: list[bytes]) -> None:
    body = b"".join(pieces).replace(b"\r\n", b"\n").replace(b"\r", b"").replace(b"\n", b"\r\n")
    assert digest_of([body], canonical) == hashlib.sha256(plain(body, canonical)).digest()


@pytest.mark.parametrize(
    ("body", "simple", "relaxed"),
    [  # RFC 6376 §3.4.5
        (b" C \r\nD \t E\r\n\r\n\r\n", b" C \r\nD \t E\r\n", b" C\r\nD E\r\n"),
        (b"", b"\r\n", b""),
        (b"\r\n\r\n", b"\r\n", b""),
        (b" \t\r\n\r\n", b" \t\r\n", b""),
        (b"text", b"text\r\n", b"text\r\n"),
    ],
)
def test_bodies_of_the_standard(body: bytes, simple: bytes, relaxed: bytes) -> None:
    assert digest_of([body], Canonical.SIMPLE) == hashlib.sha256(simple).digest()
    assert digest_of([body], Canonical.RELAXED) == hashlib.sha256(relaxed).digest()


def test_a_limit_counts_canonical_octets() -> None:
    digest = BodyDigest(Canonical.RELAXED, 5)
    digest.update(b"a  b\r\nc\r\n")
    assert digest.digest() == hashlib.sha256(b"a b\r\n").digest()
    assert digest.size == 8


def test_nothing_grows_with_white_space() -> None:
    digest = BodyDigest(Canonical.RELAXED)
    for _ in range(2000):
        digest.update(b" " * 1000)
    assert len(digest._held) <= 2
    for _ in range(2000):
        digest.update(b"\r\n" * 500)
    digest.update(b"x")
    assert digest.digest() == hashlib.sha256(b"\r\n" * 1_000_000 + b"x\r\n").digest()


def test_fields_of_the_standard() -> None:
    head = b"A: X\r\nB : Y\t\r\n\tZ  \r\n\r\n"  # RFC 6376 §3.4.5
    fields = HeaderView(head).fields
    names = [head[field.start : head.index(b":", field.start)] for field in fields]
    done = [canonical_field(n, f.raw, Canonical.RELAXED) for n, f in zip(names, fields, strict=True)]
    assert done == [b"a:X", b"b:Y Z"]
    done = [canonical_field(n, f.raw, Canonical.SIMPLE) for n, f in zip(names, fields, strict=True)]
    assert done == [b"A: X", b"B : Y\t\r\n\tZ  "]


def test_instances_are_taken_from_the_bottom() -> None:
    view = HeaderView(b"To: 1\r\nFrom: a\r\nTo: 2\r\n\r\n")
    found = picked(view, [b"to", b"TO", b"to", b"cc"])
    assert [field and field.value for field in found] == [b"2", b"1", None, None]
    assert data_of(view, [b"to", b"to", b"to", b"from"], Canonical.RELAXED, b" v=1; b=").split(b"\r\n") == [
        b"to:2",
        b"to:1",
        b"from:a",
        b"dkim-signature:v=1; b=",
    ]


def test_tags() -> None:
    assert read_tags(b" v=1 ;\r\n\ta = rsa-sha256; b=a=b\r\n =;") == {
        b"v": b"1",
        b"a": b"rsa-sha256",
        b"b": b"a=b\r\n =",
    }


@pytest.mark.parametrize("text", [b"", b"v=1; ;a=2", b"v", b"1v=1", b"v=1; v=2", b"\xff=1"])
def test_what_is_no_tag_list(text: bytes) -> None:
    if not text:
        assert read_tags(text) == {}
        return
    with pytest.raises(TagFault):
        read_tags(text)


@pytest.mark.parametrize(
    ("raw", "without"),
    [
        (b" v=1; b=AAA\r\n\tBBB; s=x", b" v=1; b=; s=x"),
        (b" v=1; bh=AAA; b=AAA \r\n ", b" v=1; bh=AAA; b="),
        (b"b=1;bh=2", b"b=;bh=2"),
        (b" v=1; b = x", b" v=1; b ="),
    ],
)
def test_the_signature_is_taken_out(raw: bytes, without: bytes) -> None:
    assert without_signature(raw) == without


@given(
    names=st.lists(st.from_regex(rb"[a-z-]{1,60}", fullmatch=True), min_size=1, max_size=60),
    domain=st.from_regex(rb"[a-z]{1,60}\.example", fullmatch=True),
    octets=st.binary(max_size=512),
)
def test_the_field_is_folded_and_says_what_was_meant(
    names: list[bytes], domain: bytes, octets: bytes
) -> None:
    signing = Signing(domain, b"s1", Algorithm.RSA_SHA256, tuple(names), signed_at=1, expires_at=2)
    empty = b" " + unsigned(signing, bytes(32))
    whole = finished(empty, octets)
    assert without_signature(whole) == empty
    assert all(len(line) <= 140 and line.strip() for line in whole.split(b"\r\n"))
    tags = read_tags(whole)
    assert b"".join(tags[b"h"].split()).split(b":") == names
    assert tags[b"d"] == domain
    assert b"l" not in tags
