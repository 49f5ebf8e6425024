"""Verifying DKIM signatures (RFC 6376 §6): what each of a message says of body and header fields, and whether it holds.

Rules: nothing is fetched here: who asks brings the key records; whatever the octets are, nothing is raised for them;
the body is read once for all signatures, and how many are looked at is bounded.
"""

from __future__ import annotations

import binascii
import enum
from collections.abc import Callable

import msgspec

from lonedot.message.content import Content
from lonedot.message.dkim import (
    FIELD_NAME,
    Algorithm,
    BodyDigest,
    Canonical,
    TagFault,
    data_of,
    read_tags,
    without_signature,
)
from lonedot.message.dkimkeys import KeyFault, read_key_record
from lonedot.message.header import Field, HeaderView

__all__ = ["SIGNATURES_LIMIT", "Checked", "KeyLookup", "Standing", "key_names", "verify"]

SIGNATURES_LIMIT = 20
"""Signatures of one message that are looked at, from the top."""
_NAMES_LIMIT = 200
_SKEW_SECONDS = 300.0

KeyLookup = Callable[[bytes], bytes | None]
"""From `SELECTOR._domainkey.DOMAIN` to the text of its TXT record; None: there is none."""


class Standing(enum.Enum):
    """What came of a signature."""

    PASSED = "pass"
    FAILED = "fail"
    """Body or header fields are not what was signed."""
    ERROR = "error"
    """It could not be checked: it is malformed, or its key is not there."""


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """One signature."""

    standing: Standing
    words: str
    """Why, for a person."""
    domain: bytes = b""
    selector: bytes = b""
    algorithm: str = ""
    head: Canonical = Canonical.SIMPLE
    body: Canonical = Canonical.SIMPLE
    signed: tuple[bytes, ...] = ()
    """Names of the signed fields in lower case."""
    is_body_same: bool | None = None
    """The digest of the body is the one signed; None: it was not taken."""
    is_head_same: bool | None = None
    """The signature holds for the header fields and for what it says of itself; None: it was not checked."""
    body_octets: int = -1
    """How much of the body counts (`l=`); -1: all."""
    is_testing: bool = False
    """The domain says that it tests its key."""


class _Fault(Exception):
    """The signature cannot be checked."""


class _Signature(msgspec.Struct, frozen=True):
    """A signature as it says it is."""

    field: Field
    domain: bytes
    selector: bytes
    identity: bytes
    algorithm: Algorithm
    head: Canonical
    body: Canonical
    signed: tuple[bytes, ...]
    body_sha256: bytes
    octets: bytes
    limit: int | None
    expires_at: int | None

    @property
    def key_name(self) -> bytes:
        return self.selector + b"._domainkey." + self.domain


def key_names(content: Content) -> tuple[bytes, ...]:
    """The names of the key records that `verify` will ask for."""
    names: dict[bytes, None] = {}
    for field in _fields(HeaderView(content.head)):
        try:
            names[_read(field).key_name] = None
        except _Fault:
            pass
    return tuple(names)


def verify(content: Content, key_of: KeyLookup, now: float | None = None) -> tuple[Checked, ...]:
    """What comes of each signature, the topmost first. `now`: seconds since 1970, to tell one that has expired.

    Raises:
        OSError, ValueError: the body is a file that cannot be read, or is not as long as recorded.
    """
    view = HeaderView(content.head)
    found: list[_Signature | _Fault] = []
    for field in _fields(view):
        try:
            found.append(_read(field))
        except _Fault as fault:
            found.append(fault)
    digests = {
        (one.body, one.limit): BodyDigest(one.body, one.limit) for one in found if isinstance(one, _Signature)
    }
    if digests:
        for piece in content.body.chunks():
            for digest in digests.values():
                digest.update(piece)
    bodies = {key: (digest.digest(), digest.size) for key, digest in digests.items()}
    return tuple(
        Checked(standing=Standing.ERROR, words=str(one))
        if isinstance(one, _Fault)
        else _checked(one, view, bodies[one.body, one.limit], key_of, now)
        for one in found
    )


def _fields(view: HeaderView) -> tuple[Field, ...]:
    return view.every(FIELD_NAME)[:SIGNATURES_LIMIT]


def _read(field: Field) -> _Signature:
    """Raises _Fault."""
    try:
        tags = read_tags(field.raw)
    except TagFault as fault:
        raise _Fault(f"the field is no tag list: {fault}") from None
    for name in (b"v", b"a", b"b", b"bh", b"d", b"h", b"s"):
        if name not in tags:
            raise _Fault(f"the tag {name.decode()}= is missing")
    if tags[b"v"] != b"1":
        raise _Fault("it is not of version 1 (`v=`)")
    named = tags[b"a"].decode("ascii", "replace").lower()
    try:
        algorithm = Algorithm(named)
    except ValueError:
        why = ", which nobody accepts any more (RFC 8301)" if named == "rsa-sha1" else ""
        raise _Fault(f"the algorithm is {named[:40]!r}{why}") from None
    head, _, body = tags.get(b"c", b"simple/simple").lower().decode("ascii", "replace").partition("/")
    try:
        ways = Canonical(head), Canonical(body or "simple")
    except ValueError:
        raise _Fault("the canonicalisation (`c=`) is none that is known") from None
    signed = tuple(name.strip(b" \t\r\n").lower() for name in tags[b"h"].split(b":"))
    if b"from" not in signed:
        raise _Fault("it does not sign From")
    if len(signed) > _NAMES_LIMIT:
        raise _Fault(f"it signs {len(signed)} fields; at most {_NAMES_LIMIT} are looked at")
    domain = tags[b"d"].lower()
    identity = tags.get(b"i", b"@" + domain).rpartition(b"@")[2].lower()
    if not domain or (identity != domain and not identity.endswith(b"." + domain)):
        raise _Fault("its identity (`i=`) is not of its domain (`d=`)")
    if b"q" in tags and b"dns/txt" not in tags[b"q"].replace(b" ", b"").split(b":"):
        raise _Fault("its key is not to be found in DNS (`q=`)")
    return _Signature(
        field,
        domain,
        tags[b"s"],
        identity,
        algorithm,
        *ways,
        signed,
        _decoded(tags[b"bh"], "bh"),
        _decoded(tags[b"b"], "b"),
        _number(tags, b"l"),
        _number(tags, b"x"),
    )


def _decoded(text: bytes, tag: str) -> bytes:
    try:
        return binascii.a2b_base64(b"".join(text.split()), strict_mode=True)
    except binascii.Error:
        raise _Fault(f"the tag {tag}= is not base64") from None


def _number(tags: dict[bytes, bytes], name: bytes) -> int | None:
    text = tags.get(name)
    if text is None:
        return None
    if not text.isdigit() or len(text) > 15:
        raise _Fault(f"the tag {name.decode()}= is not a number")
    return int(text)


def _checked(
    one: _Signature, view: HeaderView, body: tuple[bytes, int], key_of: KeyLookup, now: float | None
) -> Checked:
    digest, size = body
    is_body_same = digest == one.body_sha256
    checked = Checked(
        standing=Standing.ERROR,
        words="",
        domain=one.domain,
        selector=one.selector,
        algorithm=one.algorithm.value,
        head=one.head,
        body=one.body,
        signed=one.signed,
        is_body_same=is_body_same,
        body_octets=-1 if one.limit is None else one.limit,
    )
    name = one.key_name.decode("ascii", "backslashreplace")
    if one.limit is not None and one.limit > size:
        return _said(checked, Standing.ERROR, f"it signs {one.limit} octets of a body of {size} (`l=`)")
    try:
        record = key_of(one.key_name)
        if record is None:
            return _said(checked, Standing.ERROR, f"there is no key record {name}")
        key = read_key_record(record)
    except KeyFault as fault:
        return _said(checked, Standing.ERROR, f"{name}: {fault}")
    if key.algorithm is not one.algorithm or (key.hashes and b"sha256" not in key.hashes):
        return _said(checked, Standing.ERROR, f"{name}: the key is not one for {one.algorithm.value}")
    if key.is_strict and one.identity != one.domain:
        return _said(checked, Standing.ERROR, f"{name}: the key is for the domain itself alone (`t=s`)")
    own_name = view.head[one.field.start : view.head.index(b":", one.field.start)]
    data = data_of(view, one.signed, one.head, without_signature(one.field.raw), own_name)
    is_head_same = key.verifies(data, one.octets)
    checked = msgspec.structs.replace(checked, is_head_same=is_head_same, is_testing=key.is_testing)
    if not is_body_same or not is_head_same:
        what = {
            (False, True): "the body is not what was signed",
            (
                True,
                False,
            ): "the header fields that it signs, or what it says of itself, are not what was signed",
            (False, False): "neither the body nor the header fields are what was signed",
        }[is_body_same, is_head_same]
        return _said(checked, Standing.FAILED, what)
    if now is not None and one.expires_at is not None and one.expires_at + _SKEW_SECONDS < now:
        return _said(checked, Standing.ERROR, "it has expired (`x=`)")
    return _said(checked, Standing.PASSED, "it holds")


def _said(checked: Checked, standing: Standing, words: str) -> Checked:
    return msgspec.structs.replace(checked, standing=standing, words=words)
