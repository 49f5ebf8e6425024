"""Which octets a message's DKIM signatures cover, as far as is needed to tell that a change touches them (RFC 6376).

Nothing is verified here: no key is fetched, no hash compared. Two heads are compared field by field, in the
canonical form that each signature names, for the fields that it signs.
"""

from __future__ import annotations

import re

import msgspec

from lonedot.message.header import Field, HeaderView

__all__ = ["Signature", "broken_by_head", "signatures_of"]

_MAX_SIGNATURES = 20
_MAX_SIGNED = 200
_TAG = re.compile(rb"([A-Za-z][A-Za-z0-9_]*)\s*=\s*([^;]*)")
_SPACE = re.compile(rb"[ \t\r\n]+")


class Signature(msgspec.Struct, frozen=True):
    """What one DKIM-Signature field says of itself."""

    domain: bytes
    selector: bytes
    signed: tuple[bytes, ...]
    """Names of the signed fields in lower case, as often as they are listed (RFC 6376 §5.4.2)."""
    is_relaxed: bool
    """How header fields are made canonical: relaxed, else simple (§3.4)."""

    @property
    def words(self) -> str:
        domain = self.domain.decode("ascii", "backslashreplace")
        return f"the DKIM signature of {domain}" if domain else "a DKIM signature"


def signatures_of(view: HeaderView) -> tuple[Signature, ...]:
    """The signatures of a message, top first; those that cannot be read are left out."""
    if b"dkim-signature" not in view.head.lower():  # by far the quickest way to see that there is none
        return ()
    found = []
    for field in view.every(b"dkim-signature")[:_MAX_SIGNATURES]:
        tags: dict[bytes, bytes] = {}
        for tag in _TAG.finditer(field.value):
            tags.setdefault(tag.group(1).lower(), _SPACE.sub(b"", tag.group(2)))
        signed = tuple(name.lower() for name in tags.get(b"h", b"").split(b":") if name)[:_MAX_SIGNED]
        if signed:
            is_relaxed = tags.get(b"c", b"").lower().startswith(b"relaxed")
            found.append(Signature(tags.get(b"d", b""), tags.get(b"s", b""), signed, is_relaxed))
    return tuple(found)


def broken_by_head(signature: Signature, before: HeaderView, after: HeaderView) -> bytes | None:
    """The name of a signed field that is not what it was, or None.

    The instances signed are counted from the bottom (RFC 6376 §5.4.2); one listed more often than it occurs is signed
    as absent, so that adding it breaks the signature too.
    """
    old = _by_name(before, signature.signed)
    new = _by_name(after, signature.signed)
    for name in dict.fromkeys(signature.signed):
        count = signature.signed.count(name)
        if _picked(old[name], count, signature.is_relaxed) != _picked(new[name], count, signature.is_relaxed):
            return name
    return None


def _by_name(view: HeaderView, names: tuple[bytes, ...]) -> dict[bytes, list[Field]]:
    fields: dict[bytes, list[Field]] = {name: [] for name in names}
    for field in view.fields:
        name = field.name.lower()
        if name in fields:
            fields[name].append(field)
    return fields


def _picked(fields: list[Field], count: int, is_relaxed: bool) -> list[bytes]:
    """The signed instances in canonical form, the last first."""
    chosen = fields[-count:]
    if is_relaxed:
        return [_SPACE.sub(b" ", field.value).rstrip() for field in reversed(chosen)]  # RFC 6376 §3.4.2
    return [field.name + b":" + field.raw for field in reversed(chosen)]
