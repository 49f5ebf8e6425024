"""When a field or a body that a mail library wrote again still says the same.

Libraries fold fields anew, encode words in another charset or form, split long parameters (RFC 2231), write line ends
of their own and tidy what stands between parts. Rules: only what such rewriting changes is passed over, and for a
field only where there was something to rewrite (a fold, a long line, an encoded word, 8-bit octets): a sink that
changes a short plain value means it.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import assert_never
from urllib.parse import unquote_to_bytes

from lonedot.message.compare import relaxed
from lonedot.message.content import Body, Content
from lonedot.message.header import Field, HeaderView
from lonedot.message.mime import Structure, walk
from lonedot.message.survey import RegionKind, by_region, regions_of
from lonedot.message.transforms.crlf import CrlfRepair

__all__ = ["is_same_body", "is_same_field"]

_WORD = re.compile(rb"=\?([^?\s]{1,40})\?([bBqQ])\?([^?\s]*)\?=")
_WORD_GAP = re.compile(rb"(\?=)\s+(?==\?)")
_PARAMETER = re.compile(
    rb';\s*([^\s=;"*]+)(\*[0-9]{1,3})?(\*)?\s*=\s*("[^"\\]*+(?:\\.[^"\\]*+)*"|[^;]*+)', re.DOTALL
)
_PARAMETER_FIELDS = frozenset({b"content-type", b"content-disposition"})
_IGNORED = re.compile(r'[\s"\\]+')
_NOT_ASCII = re.compile("[^\x00-\x7f]+")
_LONG = 70


def is_same_field(old: Field, new: Field) -> bool:
    """The new field says what the old one says, as far as folding and encoding leave a choice."""
    if old.name.lower() != new.name.lower():
        return False
    if relaxed(old) == relaxed(new):
        return True
    if not (_is_rewritable(old) or _is_rewritable(new)):
        return False
    one, other = _meaning(old), _meaning(new)
    if one == other:
        return True
    if "\ufffd" in other:  # octets that the library could not read
        return _NOT_ASCII.sub("\ufffd", one) == _NOT_ASCII.sub("\ufffd", other)
    return False


def _is_rewritable(field: Field) -> bool:
    raw = field.raw
    return (
        len(field.name) + len(raw) > _LONG
        or b"\n" in raw
        or b"\r" in raw
        or b"=?" in raw
        or not raw.isascii()
    )


def _meaning(field: Field) -> str:
    value = field.value
    if field.name.lower() in _PARAMETER_FIELDS:
        value = _joined_parameters(value)
    return _IGNORED.sub("", _decoded(value))


def _decoded(value: bytes) -> str:
    """Encoded words as text (RFC 2047); octets that are no UTF-8 stand for themselves."""
    text = []
    place = 0
    value = _WORD_GAP.sub(rb"\1", value)
    octets = b""  # of words in one charset, which may cut a sign in two
    charset = ""
    for found in _WORD.finditer(value):
        if found.start() > place or found.group(1).decode("latin-1").lower() != charset:
            text.append(_text(octets, charset))
            text.append(_text(value[place : found.start()], "utf-8"))
            octets = b""
        charset = found.group(1).decode("latin-1").lower()
        octets += _word_octets(found.group(2).lower(), found.group(3))
        place = found.end()
    return "".join((*text, _text(octets, charset), _text(value[place:], "utf-8")))


def _word_octets(encoding: bytes, coded: bytes) -> bytes:
    if encoding == b"q":
        return binascii.a2b_qp(coded, header=True)
    try:
        return binascii.a2b_base64(coded + b"=" * (-len(coded) % 4))
    except binascii.Error:
        return coded


def _text(octets: bytes, charset: str) -> str:
    if _CHARSET.fullmatch(charset):
        try:
            return octets.decode(charset, "surrogateescape")
        except (LookupError, UnicodeError):
            pass
    return octets.decode("utf-8", "surrogateescape")


# Only charsets of mail: other codecs of Python are slow on long input, warn, or are no charsets at all.
_CHARSET = re.compile(
    r"iso-8859-\d{1,2}|latin-?\d|windows-\d{3,4}|cp\d{3,4}|koi8-[ru]|iso-2022-[a-z0-9-]{2,6}|euc-(?:jp|kr)|"
    r"shift[_-]jis|gb(?:2312|k|18030)|big5|utf-16(?:le|be)?|macintosh|tis-620"
)


def _joined_parameters(value: bytes) -> bytes:
    """Every parameter in one piece and decoded, so that the ways of RFC 2231 look alike."""
    first = value.partition(b";")[0].strip().lower()
    pieces: dict[bytes, list[tuple[int, bytes]]] = {}
    for name, number, star, octets in _PARAMETER.findall(value):
        octets = octets.strip()  # noqa: PLW2901 - the value without the white space around it
        if octets.startswith(b'"'):
            octets = re.sub(rb"\\(.)", rb"\1", octets[1:-1], flags=re.DOTALL)  # noqa: PLW2901
        order = int(number[1:]) if number else 0
        if star:
            if not order and octets.count(b"'") >= 2:
                octets = octets.split(b"'", 2)[2]  # noqa: PLW2901
            octets = unquote_to_bytes(octets)  # noqa: PLW2901
        pieces.setdefault(name.lower(), []).append((order, octets))
    joined = [
        b"%s=%s" % (name, b"".join(o for _, o in sorted(found))) for name, found in sorted(pieces.items())
    ]
    return b";".join([first, *joined])


# --- bodies ------------------------------------------------------------------------------------------


def is_same_body(before: Content, after: Content) -> bool:
    """The bodies are the same, line ends aside, and the tidying of part headers and delimiters aside.

    Raises:
        OSError, ValueError: a stored body cannot be read, or is not as long as recorded.
    """
    if before.body_measure.sha256 == after.body_measure.sha256:
        return True
    if _text_digest(before.body.chunks()) == _text_digest(after.body.chunks()):
        return True
    old, new = walk(before), walk(after)
    if len(old.parts) == 1 or len(old.parts) != len(new.parts) or not old.is_complete:
        return False
    if [(part.path, part.kind) for part in old.parts] != [(part.path, part.kind) for part in new.parts]:
        return False
    one, other = _Outline(before.body, old), _Outline(after.body, new)
    return (
        one.leaves == other.leaves
        and one.between == other.between
        and one.headers.keys() == other.headers.keys()
        and all(_is_same_header(octets, other.headers[number]) for number, octets in one.headers.items())
    )


def _text_digest(pieces: Iterable[bytes]) -> bytes:
    """Digest of text with every line end as CRLF and those at its end left out."""
    digest = hashlib.sha256()
    held = 0  # line ends that count only if text follows
    for piece in _repaired(pieces):
        text = piece.rstrip(b"\r\n")
        if text:
            digest.update(b"\r\n" * held)
            digest.update(text)
            held = 0
        held += piece.count(b"\n", len(text))
    return digest.digest()


def _repaired(pieces: Iterable[bytes]) -> Iterator[bytes]:
    repair = CrlfRepair()
    for piece in pieces:
        yield repair.feed(piece)
    yield repair.finish(False)


_TIDIED_LIMIT = 1024 * 1024
"""Octets between parts that are looked at line by line; more are compared as text."""


class _Outline:
    """A body by its regions: digests of leaves and of the text between parts, header sections of parts."""

    __slots__ = ("between", "headers", "leaves")

    def __init__(self, body: Body, structure: Structure) -> None:
        regions = regions_of(structure, body.size)
        delimiters = tuple(b"--" + part.boundary for part in structure.parts if part.boundary)
        self.leaves: dict[int, bytes] = {}
        self.headers: dict[int, bytes] = {}
        between = hashlib.sha256()
        for number, group in groupby(by_region(body, regions), itemgetter(0)):
            region = regions[number]
            pieces = (piece for _, piece in group)
            match region.kind:
                case RegionKind.LEAF:
                    digest = _text_digest(pieces)
                    if digest != _NOTHING:
                        self.leaves[region.part] = digest
                case RegionKind.HEADER:
                    self.headers[region.part] = b"".join(pieces)
                case RegionKind.BETWEEN if region.end - region.start > _TIDIED_LIMIT:
                    between.update(_text_digest(pieces))
                case RegionKind.BETWEEN:
                    lines = b"".join(pieces).replace(b"\r", b"\n").split(b"\n")
                    for line in lines:
                        if line.strip() and not line.startswith(delimiters):
                            between.update(line.rstrip() + b"\n")
                case _:
                    assert_never(region.kind)
        self.between = between.digest()


_NOTHING = _text_digest(())


def _is_same_header(one: bytes, other: bytes) -> bool:
    """The header sections of two parts say the same, field by field."""
    old, new = HeaderView(one), HeaderView(other)
    if len(old.fields) != len(new.fields):
        return False
    return all(is_same_field(a, b) for a, b in zip(old.fields, new.fields, strict=True))
