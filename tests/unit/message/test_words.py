"""Text of mail: charsets of a fixed table, encoded words, and nothing that raises."""

from __future__ import annotations

import base64
from email.header import Header, decode_header, make_header

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.message.words import codec_for, decode_base64, decode_octets, decode_text


@pytest.mark.parametrize(
    ("charset", "codec"),
    [
        ("utf-8", "utf_8"),
        ("UTF8", "utf_8"),
        ("US-ASCII", "ascii"),
        ("ISO-8859-1", "latin_1"),
        ("iso-8859-15", "iso8859_15"),
        ("windows-1252", "cp1252"),
        ("Shift_JIS", "shift_jis"),
        ("koi8-u", "koi8_u"),
        ("gb18030", "gb18030"),
        ("iso-8859-8-i", "iso8859_8"),
        ("base64", None),
        ("zlib", None),
        ("rot13", None),
        ("unicode_escape", None),
        ("idna", None),
        ("punycode", None),
        ("undefined", None),
        ("os.path", None),
        ("x" * 100, None),
        ("ü", None),
        ("", None),
    ],
)
def test_charsets(charset: str, codec: str | None) -> None:
    assert codec_for(charset) == codec
    assert codec is None or "a".encode(codec).decode(codec) == "a"


@pytest.mark.parametrize(
    ("octets", "charset", "text"),
    [
        ("grüße".encode(), "utf-8", "grüße"),
        ("grüße".encode(), "", "grüße"),
        ("grüße".encode(), "us-ascii", "grüße"),
        ("grüße".encode("latin-1"), "", "grüße"),
        ("grüße".encode("latin-1"), "iso-8859-1", "grüße"),
        ("grüße".encode("latin-1"), "no-such-charset", "grüße"),
        ("“a”".encode("cp1252"), "", "“a”"),
        (b"a\xffb", "utf-8", "a�b"),
        ("漢字".encode("shift_jis"), "Shift_JIS", "漢字"),
    ],
)
def test_octets(octets: bytes, charset: str, text: str) -> None:
    assert decode_octets(octets, charset) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"plain", "plain"),
        (b"=?utf-8?q?gr=C3=BC=C3=9Fe?=", "grüße"),
        (b"=?UTF-8?B?Z3LDvMOfZQ==?= and =?iso-8859-1?Q?K=F6ln?=", "grüße and Köln"),
        (b"=?utf-8?q?one?= =?utf-8?q?two?=", "onetwo"),
        (b"=?utf-8?q?one?=\t=?iso-8859-1?q?two?=", "onetwo"),
        (b"=?utf-8?b?w7w=?==?utf-8?b?w7w=?=", "üü"),
        (b"=?utf-8?q?=C3?= =?utf-8?q?=BC?=", "ü"),
        (b"=?utf-8*de?q?gr=C3=BC=C3=9Fe?=", "grüße"),
        (b"=?utf-8?q?a_b?=", "a b"),
        (b"=?utf-8?b?Z3LDvMOfZQ?=", "grüße"),
        (b"=?utf-8?x?no?=", "=?utf-8?x?no?="),
        (b"=?utf-8?q?no end", "=?utf-8?q?no end"),
        ("raw grüße".encode(), "raw grüße"),
        (b"raw gr\xfc\xdfe", "raw grüße"),
        (b"", ""),
    ],
)
def test_encoded_words(value: bytes, text: str) -> None:
    assert decode_text(value) == text


@given(st.text(st.characters(blacklist_categories=("Cs", "Cc", "Zl", "Zp")), max_size=60))
def test_what_the_standard_library_encodes_is_read_as_it_reads_it(text: str) -> None:
    value = Header(text.strip(), "utf-8", maxlinelen=60).encode(linesep="\r\n")
    unfolded = value.replace("\r\n", "")
    assert decode_text(unfolded.encode()) == str(make_header(decode_header(unfolded)))


@given(
    st.binary(max_size=200)
    | st.lists(st.sampled_from([b"=?utf-8?", b"q?", b"b?", b"=C3", b"?=", b" "])).map(b"".join)
)
def test_anything_is_text(value: bytes) -> None:
    decode_text(value).encode()


@given(st.binary(max_size=200), st.binary(max_size=10))
def test_base64(octets: bytes, junk: bytes) -> None:
    encoded = base64.encodebytes(octets).replace(b"\n", b"\r\n")
    assert decode_base64(encoded) == octets
    decode_base64(junk)
