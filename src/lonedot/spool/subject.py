"""The fingerprint of a subject: what history is searched by when the content is gone.

Kept are eight octets of a keyed digest (BLAKE2b) of the subject's words: unfolded, decoded, white space and case
relaxed. The key is made once for each shard. Whoever has only the fingerprints learns nothing from them; whoever has
the shard has the key too, and can try words, as a search does.
"""

from __future__ import annotations

import hashlib
import re
from email.errors import HeaderParseError
from email.header import decode_header

__all__ = ["fingerprint", "fingerprint_of"]

_NAME = b"subject:"
_VALUE = re.compile(rb"[^\r\n]*(?:\r?\n[ \t][^\r\n]*)*")
_LIMIT = 2000
"""Octets of a subject that count."""
_SIZE = 8


def fingerprint_of(head: bytes, salt: bytes) -> bytes | None:
    """Of the first Subject field of a header section; None when there is none."""
    lower = head.lower()
    place = 0 if lower.startswith(_NAME) else lower.find(b"\n" + _NAME) + 1
    if not place and not lower.startswith(_NAME):
        return None
    found = _VALUE.match(head, place + len(_NAME), place + len(_NAME) + _LIMIT)
    return fingerprint(_words(found[0]), salt) if found is not None else None


def fingerprint(words: str, salt: bytes) -> bytes:
    """Of a subject as a person reads and types it."""
    plain = " ".join(words[:_LIMIT].casefold().split())
    return hashlib.blake2b(plain.encode("utf-8", "surrogateescape"), key=salt, digest_size=_SIZE).digest()


def _words(value: bytes) -> str:
    text = value.decode("utf-8", "backslashreplace").replace("\r\n", "").replace("\n", "")
    if "=?" not in text:
        return text
    try:
        return "".join(  # RFC 2047 §6.2: white space between encoded words goes, as decode_header has it
            [
                part if isinstance(part, str) else part.decode(charset or "ascii", "backslashreplace")
                for part, charset in decode_header(text)
            ]
        )
    except (HeaderParseError, LookupError, ValueError):
        return text
