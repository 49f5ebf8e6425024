"""Octets of mail as text, for reading: charsets, and the encoded words of header fields (RFC 2047).

Rules: nothing here raises for what it finds, whatever the octets are; a charset is one of a fixed table, so that a
stranger's name neither loads code nor picks a codec whose cost grows faster than its input; nothing that was read so
is ever written back.
"""

from __future__ import annotations

import binascii
import re
from encodings import normalize_encoding
from encodings.aliases import aliases

__all__ = ["FALLBACK", "codec_for", "decode_base64", "decode_octets", "decode_text"]

FALLBACK = "cp1252"
"""For octets that say no charset and are not UTF-8: what most mail without a label was written in."""
NAME_LIMIT = 60
"""Signs of a charset's name."""

# Codecs that are not charsets, or (`hz`, `utf_7`) that mail has no use for and that hide ASCII.
_NO_CHARSETS = frozenset(
    {
        "base64_codec",
        "bz2_codec",
        "hex_codec",
        "quopri_codec",
        "rot_13",
        "uu_codec",
        "zlib_codec",
        "mbcs",
        "hz",
        "utf_7",
    }
)
_CODECS = {
    name: codec for alias, codec in aliases.items() for name in (alias, codec) if codec not in _NO_CHARSETS
} | {
    "cp874": "cp874",
    "windows_874": "cp874",
    "koi8_t": "koi8_t",
    "koi8_u": "koi8_u",
    "iso_8859_8_i": "iso8859_8",
    "iso_8859_6_i": "iso8859_6",
    "x_sjis": "shift_jis",
    "x_gbk": "gbk",
    "unicode_1_1_utf_8": "utf_8",
}

# RFC 2047 §2, and what software makes of it: a language (RFC 2231 §5), any length, blanks inside a word in Q.
_ENCODED_WORD = re.compile(rb"=\?([!-)+-<>@-~]{1,60})(?:\*[!->@-~]{0,60})?\?([bBqQ])\?([^?\r\n]*)\?=")
_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/]+")


def codec_for(charset: str) -> str | None:
    """Python's name of a charset; None: it is not one of those that are read."""
    if not charset or len(charset) > NAME_LIMIT or not charset.isascii():
        return None
    return _CODECS.get(normalize_encoding(charset.strip().lower()))


def decode_octets(octets: bytes, charset: str = "") -> str:
    """Text of octets: by their charset; else, or when that fails, as UTF-8; else as windows-1252.

    What cannot be read becomes U+FFFD. ASCII counts as no charset: whoever says it may still send 8-bit octets.
    """
    codec = codec_for(charset)
    if codec is not None and codec not in ("ascii", "utf_8"):
        return octets.decode(codec, "replace")
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return octets.decode("utf-8" if codec == "utf_8" else FALLBACK, "replace")


def decode_text(value: bytes) -> str:
    """The text of an unfolded field value: encoded words decoded, octets beyond ASCII read as `decode_octets` does."""
    if b"=?" not in value:
        return decode_octets(value)
    texts: list[str] = []
    waiting = (
        b""  # octets of words in one charset: a sign may be cut in two (RFC 2047 §5 forbids it, mail has it)
    )
    charset = ""
    place = 0
    is_behind_word = False
    for found in _ENCODED_WORD.finditer(value):
        octets = _decode_word(found[2], found[3])
        if octets is None:
            continue
        between = value[place : found.start()]
        named = found[1].decode("ascii").lower()
        if not is_behind_word or between.strip(b" \t\r\n") or named != charset:
            texts.append(decode_octets(waiting, charset))
            waiting = b""
            if not is_behind_word or between.strip(b" \t\r\n"):  # RFC 2047 §6.2
                texts.append(decode_octets(between))
        waiting += octets
        charset, place, is_behind_word = named, found.end(), True
    texts.append(decode_octets(waiting, charset))
    texts.append(decode_octets(value[place:]))
    return "".join(texts)


def decode_base64(octets: bytes) -> bytes:
    """What base64 holds; signs that are none of its alphabet are passed over, and it ends at its padding."""
    signs = _NOT_BASE64.sub(b"", octets.partition(b"=")[0])
    if len(signs) % 4 == 1:
        signs = signs[:-1]
    return binascii.a2b_base64(signs + b"=" * (-len(signs) % 4))


def _decode_word(encoding: bytes, text: bytes) -> bytes | None:
    if encoding in b"qQ":
        return binascii.a2b_qp(text, header=True)
    try:
        return binascii.a2b_base64(text + b"=" * (-len(text) % 4))
    except binascii.Error:
        return None
