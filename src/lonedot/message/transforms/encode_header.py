"""Header fields for a hop that takes 7-bit text only, and fields whose lines are too long.

Rules: a field that needs nothing keeps its octets; what is encoded decodes to the octets it stood for; where the
meaning would have to be guessed, `CannotEncode` is raised and names the field.
"""

from __future__ import annotations

import binascii
import re

from lonedot.message.header import Field, HeaderView
from lonedot.message.profile import LINE_LIMIT
from lonedot.message.transforms.fault import CannotTransform

__all__ = ["CannotEncode", "rewrite_header"]


class CannotEncode(CannotTransform):
    """It cannot be encoded without changing what it means, or without breaking a signature; the words say why."""


_ADDRESS_FIELDS = frozenset(
    name
    for lead in (b"", b"resent-")
    for name in (
        lead + b"from",
        lead + b"sender",
        lead + b"to",
        lead + b"cc",
        lead + b"bcc",
        lead + b"reply-to",
    )
) | {b"disposition-notification-to", b"return-receipt-to", b"errors-to"}
_PARAMETER_FIELDS = frozenset({b"content-type", b"content-disposition"})
_NEVER = frozenset({
    b"received", b"return-path", b"message-id", b"in-reply-to", b"references", b"date", b"resent-date",
    b"resent-message-id", b"mime-version", b"content-transfer-encoding", b"content-id", b"dkim-signature",
    b"arc-seal", b"arc-message-signature", b"arc-authentication-results", b"authentication-results", b"auto-submitted",
    b"list-id", b"list-unsubscribe", b"list-post", b"list-help", b"list-archive", b"delivered-to",
})  # fmt: skip
"""Structured fields in which no encoded-word may stand (RFC 2047 §5)."""

_CHARSET_UNKNOWN = b"unknown-8bit"  # RFC 1428 §3: nothing is guessed about octets that are not UTF-8
_WORD_ROOM = 42
"""Octets in one encoded-word, so that it stays within 75 signs (RFC 2047 §2) whatever the charset is called."""
_FOLD = b"\r\n "


def rewrite_header(
    head: bytes, *, seven_bit: bool, fold: bool, encoding: bytes | None = None, add_mime_version: bool = False
) -> bytes:
    """The header section with what is asked for changed, and everything else as it was.

    `encoding` replaces Content-Transfer-Encoding, or is added behind the last field.

    Raises:
        CannotEncode: an 8-bit field is structured in a way that has no encoding, or a line has no white space.
    """
    view = HeaderView(head)
    out: list[bytes] = []
    has_encoding = False
    for field in view.fields:
        octets = head[field.start : field.end]
        if encoding is not None and field.name.lower() == b"content-transfer-encoding":
            if not has_encoding:
                out.append(b"%s: %s\r\n" % (field.name, encoding))
            has_encoding = True
            continue
        if seven_bit and not octets.isascii():
            octets = _encode_field(field)
        if fold:
            octets = _fold_field(field, octets)
        out.append(octets)
    rest = head[view.section_end :]
    if (seven_bit and not rest.isascii()) or (
        fold and max(map(len, rest.splitlines()), default=0) > LINE_LIMIT
    ):
        raise CannotEncode("a line of the header section is no field, and cannot be encoded")
    if add_mime_version:
        out.append(b"MIME-Version: 1.0\r\n")
    if encoding is not None:
        if not has_encoding:
            out.append(b"Content-Transfer-Encoding: %s\r\n" % encoding)
        if not rest:
            rest = b"\r\n"  # what follows was no field; encoded, it might look like one
    return b"".join(out) + rest


def _encode_field(field: Field) -> bytes:
    name = field.name.lower()
    value = field.value
    shown = field.name.decode()
    if name in _ADDRESS_FIELDS:
        encoded = _encode_addresses(value, shown)
    elif name in _PARAMETER_FIELDS:
        encoded = _encode_parameters(value, shown)
    elif name in _NEVER:
        raise CannotEncode(f"the field {shown} holds 8-bit octets and cannot be encoded")
    else:
        encoded = _encode_text(value)
    return _filled(field.name + b":", encoded)


def _filled(line: bytes, words: list[bytes]) -> bytes:
    """A field from words, folded before those that would pass 78 octets (RFC 5322 §2.1.1)."""
    lines = []
    for number, word in enumerate(words):
        if number and len(line) + 1 + len(word) > 78:
            lines.append(line)
            line = b""
        line += b" " + word
    lines.append(line)
    return b"\r\n".join(lines) + b"\r\n"


def _encode_text(text: bytes) -> list[bytes]:
    """Unstructured text: from the first word with 8-bit octets to the last everything becomes encoded-words.

    Encoded-words that are there already stay; beside one of them the space goes into ours, since the white space
    between two encoded-words is not shown (RFC 2047 §6.2).
    """
    found = list(re.finditer(rb"[^ \t]+", text))
    kept = [bool(word.group().isascii() and _LOOKS_ENCODED.fullmatch(word.group())) for word in found]
    words: list[bytes] = []
    start = 0
    while start < len(found):
        if kept[start]:
            words.append(found[start].group())
            start += 1
            continue
        stop = next((number for number in range(start, len(found)) if kept[number]), len(found))
        strange = [number for number in range(start, stop) if not found[number].group().isascii()]
        if strange:
            first, last = strange[0], strange[-1]
            run = text[found[first].start() : found[last].end()]
            if first == start > 0:
                run = b" " + run
            if last == stop - 1 and stop < len(found):
                run += b" "
            words += [word.group() for word in found[start:first]]
            words += _encoded_words(run)
            start = last + 1
        words += [word.group() for word in found[start:stop]]
        start = stop
    return words


_LOOKS_ENCODED = re.compile(rb"=\?[^? ]+\?[bqBQ]\?[^? ]*\?=")


def _encoded_words(octets: bytes) -> list[bytes]:
    """Octets as encoded-words in base64 (RFC 2047 §4.1); no sign of UTF-8 is cut."""
    try:
        octets.decode("utf-8")
        charset = b"utf-8"
    except UnicodeDecodeError:
        charset = _CHARSET_UNKNOWN
    words = []
    start = 0
    while start < len(octets):
        cut = min(start + _WORD_ROOM, len(octets))
        while charset == b"utf-8" and cut < len(octets) and octets[cut] & 0xC0 == 0x80:
            cut -= 1
        words.append(b"=?%s?b?%s?=" % (charset, binascii.b2a_base64(octets[start:cut], newline=False)))
        start = cut
    return words


_MAILBOX_PARTS = re.compile(
    rb'"[^"\\]*+(?:\\.[^"\\]*+)*"'  # a quoted string
    rb"|\([^()\\]*+(?:\\.[^()\\]*+)*\)"  # a comment without one inside
    rb"|<[^<>]*+>"
    rb'|[,;:]|[^"(<,;:]+',
    re.DOTALL,
)


def _encode_addresses(value: bytes, shown: str) -> list[bytes]:
    """Mailboxes: 8-bit octets may stand in a display name, and nowhere else (RFC 2047 §5 (3))."""
    refusal = CannotEncode(f"the field {shown} holds 8-bit octets outside of a display name")
    out: list[bytes] = []
    phrase: list[bytes] = []
    place = 0
    while place < len(value):
        found = _MAILBOX_PARTS.match(value, place)
        if not found:
            raise refusal
        token, place = found.group(), found.end()
        if token.startswith(b"<"):
            if not token.isascii():
                raise refusal
            out += [*_encode_phrase(phrase), token]
            phrase = []
        elif token in (b",", b";", b":"):
            before = b"".join(phrase).strip()
            if token == b":":
                words = _encode_phrase(phrase)  # the name of a group
            elif before.isascii():
                words = [before] if before else []
            else:
                raise refusal
            out += words
            phrase = []
            if out:
                out[-1] += token
            else:
                out.append(token)
        elif token.startswith(b"(") and not token.isascii():
            raise refusal
        else:
            phrase.append(token)
    rest = b"".join(phrase).strip()
    if not rest.isascii():
        raise refusal
    return [*out, rest] if rest else out


def _encode_phrase(tokens: list[bytes]) -> list[bytes]:
    """A display name as words."""
    text = b"".join(tokens).strip()
    if text.isascii():
        return [text] if text else []
    plain = b"".join(
        re.sub(rb"\\(.)", rb"\1", token[1:-1], flags=re.DOTALL) if token.startswith(b'"') else token
        for token in tokens
    )
    if _LOOKS_ENCODED.search(plain):
        raise CannotEncode("a display name mixes encoded words and 8-bit octets")
    return _encoded_words(plain.strip())


_PARAMETERS_LIMIT = 8192
_PARAMETERS = re.compile(rb'(;\s*)([^\s=;"*]+)(\s*=\s*)("[^"\\]*+(?:\\.[^"\\]*+)*"|[^;"]*+)', re.DOTALL)


def _encode_parameters(value: bytes, shown: str) -> list[bytes]:
    """Parameters with 8-bit values as RFC 2231 §4 has them."""

    def replaced(found: re.Match[bytes]) -> bytes:
        octets = found.group(4)
        if octets.isascii():
            return found.group()
        name = found.group(2)
        if name.lower() == b"boundary":
            raise CannotEncode("a boundary holds 8-bit octets")
        octets = octets.strip()
        if octets.startswith(b'"'):
            octets = re.sub(rb"\\(.)", rb"\1", octets[1:-1], flags=re.DOTALL)
        try:
            octets.decode("utf-8")
            charset = b"utf-8"
        except UnicodeDecodeError:
            charset = _CHARSET_UNKNOWN
        quoted = b"".join(bytes([o]) if o in _ATTRIBUTE_SIGNS else b"%%%02X" % o for o in octets)
        return b"; %s*=%s''%s" % (name, charset, quoted)

    if len(value) > _PARAMETERS_LIMIT:
        raise CannotEncode(f"the field {shown} holds 8-bit octets and is too long to be encoded")
    encoded = _PARAMETERS.sub(replaced, value)
    words = _SPACE_OUTSIDE_QUOTES.findall(encoded)
    if not encoded.isascii() or max(map(len, words)) > 900:
        raise CannotEncode(f"the field {shown} holds 8-bit octets that cannot be encoded")
    return words


_ATTRIBUTE_SIGNS = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$&+-.^_`{|}~")
_SPACE_OUTSIDE_QUOTES = re.compile(rb'(?:"[^"\\]*+(?:\\.[^"\\]*+)*"|[^\s"]|")+', re.DOTALL)


def _fold_field(field: Field, octets: bytes) -> bytes:
    """Break lines of more than 998 octets before white space that is already there (RFC 5322 §2.2.3)."""
    if len(octets) <= LINE_LIMIT + 2:
        return octets
    lines = []
    first = len(field.name) + 1
    for line in re.split(rb"(?<=\n)", octets):
        rest = line
        while len(rest.rstrip(b"\r\n")) > LINE_LIMIT:
            cut = LINE_LIMIT
            while True:
                cut = max(rest.rfind(b" ", first, cut + 1), rest.rfind(b"\t", first, cut + 1))
                if cut < 0 or not rest[first:cut].strip(b" \t"):
                    name = field.name.decode()
                    raise CannotEncode(
                        f"a line of the field {name} is longer than 998 octets and has no white space"
                    )
                if rest[cut:].strip():
                    break
                cut -= 1
            lines.append(rest[:cut] + b"\r\n")
            rest = rest[cut:]
            first = 1
        lines.append(rest)
        first = 1
    return b"".join(lines)
