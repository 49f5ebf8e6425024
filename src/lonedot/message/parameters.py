"""Values of the form `value; name=value; …` (Content-Type, Content-Disposition): RFC 2045 §5.1, RFC 2231.

Rule: nothing here raises for what it finds; what is not a parameter is passed over; the numbers are bounded.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from lonedot.message.words import decode_octets, decode_text

__all__ = ["read_parameters"]

MAX_PARAMETERS = 200
VALUE_LIMIT = 64 * 1024
"""Octets of a field value that are looked at."""

_LEAD = re.compile(rb"\s*([^\s;]*)")
_PARAMETER = re.compile(rb';\s*([^\s=;"]{1,200})\s*=\s*("[^"\\]*+(?:\\.[^"\\]*+)*(?:"|\Z)|[^;]*+)', re.DOTALL)
_QUOTED_PAIR = re.compile(rb"\\(.)", re.DOTALL)
_SECTION = re.compile(r"([^*]+)(?:\*(\d{1,3}))?(\*)?")


def read_parameters(value: bytes) -> tuple[str, dict[str, str]]:
    """What stands before the first `;`, in lower case, and the parameters by their names in lower case, as text."""
    value = value[:VALUE_LIMIT]
    lead = _LEAD.match(value)
    assert lead is not None  # it matches nothing too
    plain: dict[str, str] = {}
    sections: dict[str, dict[int, tuple[bytes, bool]]] = {}
    for number, found in enumerate(_PARAMETER.finditer(value, lead.end())):
        if number >= MAX_PARAMETERS:
            break
        octets = _unquoted(found[2])
        shape = _SECTION.fullmatch(found[1].decode("utf-8", "replace").lower())
        if shape is None:
            continue
        name, section, is_extended = shape[1], shape[2], shape[3] is not None
        if section is None and not is_extended:
            plain.setdefault(name, decode_text(octets))
        else:
            sections.setdefault(name, {}).setdefault(int(section or 0), (octets, is_extended))
    # RFC 2231 §3: who knows the continued form reads it, and the plain one is for those who do not.
    joined = {name: _join(pieces) for name, pieces in sections.items() if 0 in pieces}
    return lead[1].decode("utf-8", "replace").lower(), plain | joined


def _unquoted(value: bytes) -> bytes:
    if value.startswith(b'"'):
        inner = value[1:-1] if len(value) > 1 and value.endswith(b'"') else value[1:]
        return _QUOTED_PAIR.sub(rb"\1", inner)
    return value.strip()


def _join(pieces: dict[int, tuple[bytes, bool]]) -> str:
    """The text of a value in sections (RFC 2231 §3, §4); it ends where a section is missing."""
    charset = ""
    octets = b""
    for number in range(len(pieces)):
        if number not in pieces:
            break
        piece, is_extended = pieces[number]
        if not number and is_extended:
            named, quote, rest = piece.partition(b"'")
            _, second, text = rest.partition(b"'")
            if quote and second:
                charset, piece = named.decode("utf-8", "replace"), text
        octets += unquote_to_bytes(piece) if is_extended else piece
    return decode_octets(octets, charset)
