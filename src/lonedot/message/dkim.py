"""DKIM (RFC 6376): canonical forms, digests, tag lists, and what a signature is made over. No key is used here.

Rules: a body is read in chunks, and what is kept between two of them is bounded; what comes out depends on the octets
alone and never on how they were cut; the octets signed and the octets verified come from the same functions.
"""

from __future__ import annotations

import base64
import enum
import hashlib
import re
from collections.abc import Iterable, Sequence

import msgspec

from lonedot.message.header import Field, HeaderView

__all__ = [
    "FIELD_NAME",
    "Algorithm",
    "BodyDigest",
    "Canonical",
    "Signing",
    "TagFault",
    "canonical_field",
    "data_of",
    "digest_of",
    "finished",
    "picked",
    "read_tags",
    "unsigned",
    "without_signature",
]

FIELD_NAME = b"DKIM-Signature"
_FOLD_AT = 72
_BLOCK = 8192
_SPACE = re.compile(rb"[ \t]+")
_LINE_ENDS = re.compile(rb"[\r\n]+")
_TAG = re.compile(rb"[A-Za-z][A-Za-z0-9_]*")
_SIGNATURE = re.compile(rb"((?:^|;)[ \t\r\n]*b[ \t\r\n]*=)[^;]*")
_PAIRS = re.compile(rb"(?:\n\r)*")
_WHITE = b" \t\r\n"


class Canonical(enum.Enum):
    """How octets are made the same before they are hashed (RFC 6376 §3.4)."""

    SIMPLE = "simple"
    RELAXED = "relaxed"


class Algorithm(enum.Enum):
    """What signs (RFC 6376 §3.3, RFC 8463 §3; RFC 8301 took SHA-1 away)."""

    RSA_SHA256 = "rsa-sha256"
    ED25519_SHA256 = "ed25519-sha256"


class TagFault(ValueError):
    """Not a tag list (RFC 6376 §3.2)."""


class BodyDigest:
    """SHA-256 of the canonical form of a body, fed in pieces. `limit`: octets of it that count (`l=`)."""

    def __init__(self, canonical: Canonical, limit: int | None = None) -> None:
        self._sha256 = hashlib.sha256()
        self._is_relaxed = canonical is Canonical.RELAXED
        self._held = b""  # the end of a piece that what follows may change
        self._pairs = 0  # CRLFs that are empty lines at the end, unless something follows
        self._left = limit
        self.size = 0
        """Octets of the canonical form so far, `limit` or not."""

    def update(self, piece: bytes) -> None:
        data = self._held + piece if self._held else piece
        if self._is_relaxed:
            data, self._held = _relaxed(data)
        elif data.endswith(b"\r"):
            data, self._held = data[:-1], b"\r"
        else:
            self._held = b""
        self._take(data)

    def digest(self) -> bytes:
        """The digest of the whole body. Nothing may be fed behind it."""
        if self._is_relaxed:
            self._held = self._held.lstrip(b" ")  # RFC 6376 §3.4.4: white space at the end of a line
        if self._held:
            self._take(self._held)
            self._held = b""
        if (
            self.size or not self._is_relaxed
        ):  # RFC 6376 §3.4.3, §3.4.4: of nothing, one is CRLF and one is nothing
            self._put(b"\r\n")
        return self._sha256.digest()

    def _take(self, data: bytes) -> None:
        """Octets in canonical form but for the empty lines at the end of the body."""
        text = data.rstrip(b"\r\n")
        tail = data[len(text) :]
        found = _PAIRS.match(tail[::-1])
        pairs = (found.end() if found else 0) // 2
        end = len(data) - 2 * pairs
        if not end:
            self._pairs += pairs
            return
        while self._pairs:
            block = min(self._pairs, _BLOCK)
            self._put(b"\r\n" * block)
            self._pairs -= block
        self._put(data[:end] if pairs else data)
        self._pairs = pairs

    def _put(self, octets: bytes) -> None:
        self.size += len(octets)
        if self._left is not None:
            octets = octets[: self._left]
            self._left -= len(octets)
        self._sha256.update(octets)


def _relaxed(data: bytes) -> tuple[bytes, bytes]:
    """White space in lines reduced, none at their ends; and what has to wait for the next piece, two octets at most."""
    if b"\t" in data:
        data = data.replace(b"\t", b" ")
    while b"  " in data:
        data = data.replace(b"  ", b" ")
    held = b""
    if data.endswith(b"\r"):
        data, held = data[:-1], b"\r"
    if data.endswith(b" "):
        data, held = data[:-1], b" " + held
    if b" \r\n" in data:
        data = data.replace(b" \r\n", b"\r\n")
    return data, held


def digest_of(pieces: Iterable[bytes], canonical: Canonical) -> bytes:
    """The digest of a body (`bh=`)."""
    digest = BodyDigest(canonical)
    for piece in pieces:
        digest.update(piece)
    return digest.digest()


# --- header section -----------------------------------------------------------------------------------


def canonical_field(name: bytes, raw: bytes, canonical: Canonical) -> bytes:
    """A field as it is hashed, without a line end; `raw` is what stands behind the colon."""
    if canonical is Canonical.SIMPLE:
        return name + b":" + raw
    value = _SPACE.sub(b" ", _LINE_ENDS.sub(b"", raw)).strip(b" ")  # RFC 6376 §3.4.2
    return name.strip(b" \t").lower() + b":" + value


def picked(view: HeaderView, names: Sequence[bytes]) -> list[Field | None]:
    """The fields that a list of names means: of a name, the last one first (RFC 6376 §5.4.2); None: none is left."""
    left: dict[bytes, list[Field]] = {name.lower(): [] for name in names}
    for field in view.fields:
        found = left.get(field.name.lower())
        if found is not None:
            found.append(field)
    return [found.pop() if (found := left[name.lower()]) else None for name in names]


def data_of(
    view: HeaderView, names: Sequence[bytes], canonical: Canonical, signature: bytes, name: bytes = FIELD_NAME
) -> bytes:
    """What is signed: the fields named, then the signature's own, of which `signature` is all behind the colon."""
    lines = [
        canonical_field(view.head[field.start : view.head.index(b":", field.start)], field.raw, canonical)
        for field in picked(view, names)
        if field is not None
    ]
    lines.append(canonical_field(name, signature, canonical))
    return b"\r\n".join(lines)


def without_signature(raw: bytes) -> bytes:
    """The value of a signature's field without that of `b=` (RFC 6376 §3.7)."""
    return _SIGNATURE.sub(rb"\1", raw, count=1)


def read_tags(value: bytes) -> dict[bytes, bytes]:
    """The tags of a list, by name. White space around values is gone, that within stays.

    Raises:
        TagFault: it is none, or names a tag twice.
    """
    tags: dict[bytes, bytes] = {}
    specs = value.split(b";")
    if not specs[-1].strip(_WHITE):
        del specs[-1]
    for spec in specs:
        name, equals, found = spec.partition(b"=")
        name = name.strip(_WHITE)
        if not equals or not _TAG.fullmatch(name):
            raise TagFault(f"{name[:40].decode('ascii', 'backslashreplace')!r} is no tag with a value")
        if name in tags:
            raise TagFault(f"the tag {name.decode()[:40]} stands twice")
        tags[name] = found.strip(_WHITE)
    return tags


# --- making one -----------------------------------------------------------------------------------------


class Signing(msgspec.Struct, frozen=True):
    """What a signature that is to be made says of itself."""

    domain: bytes
    selector: bytes
    algorithm: Algorithm
    names: tuple[bytes, ...]
    """Of the signed fields, in lower case; one listed more often than it occurs is signed as absent."""
    head: Canonical = Canonical.RELAXED
    body: Canonical = Canonical.RELAXED
    signed_at: int = 0
    """Seconds since 1970; 0: it does not say."""
    expires_at: int = 0
    """Likewise."""


def unsigned(signing: Signing, body_sha256: bytes) -> bytes:
    """The value of the field, folded, with an empty `b=` at its end. `l=` is never written (RFC 6376 §8.2)."""
    tags = [
        b"v=1",
        b"a=" + signing.algorithm.value.encode(),
        b"c=" + f"{signing.head.value}/{signing.body.value}".encode(),
        b"d=" + signing.domain,
        b"s=" + signing.selector,
    ]
    if signing.signed_at:
        tags.append(b"t=%d" % signing.signed_at)
    if signing.expires_at:
        tags.append(b"x=%d" % signing.expires_at)
    tags.append(b"bh=" + base64.b64encode(body_sha256))
    lines = [b""]
    for tag in tags:
        _add(lines, tag + b"; ")
    last = len(signing.names) - 1
    for number, name in enumerate(signing.names):
        _add(lines, (b"" if number else b"h=") + name + (b";" if number == last else b":"))
    lines.append(b"b=")
    return b"\r\n\t".join([line.rstrip(b" ") for line in lines])


def _add(lines: list[bytes], word: bytes) -> None:
    room = _FOLD_AT - (len(FIELD_NAME) if len(lines) == 1 else 0)
    if len(lines[-1]) + len(word) > room:
        lines.append(word)
    else:
        lines[-1] += word


def finished(value: bytes, signature: bytes) -> bytes:
    """The value with the signature in its `b=`, folded."""
    text = base64.b64encode(signature)
    return value + b"\r\n\t".join([text[start : start + _FOLD_AT] for start in range(0, len(text), _FOLD_AT)])
