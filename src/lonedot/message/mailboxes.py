"""The mailboxes in a field such as From, To or Cc (RFC 5322 §3.4), for reading. Groups are taken apart.

Rule: nothing here raises for what it finds, and the work grows with the length of the field.
"""

from __future__ import annotations

import re

import msgspec

from lonedot.message.words import decode_octets, decode_text

__all__ = ["MAX_MAILBOXES", "VALUE_LIMIT", "Mailbox", "ends_in_comment", "read_mailboxes"]

MAX_MAILBOXES = 5000
VALUE_LIMIT = 512 * 1024
"""Octets of a field value that are looked at."""

_TOKEN = re.compile(
    rb'"(?:[^"\\]|\\.)*(?:"|\Z)|<[^<>]*>|[,:;()]|(?:[^",:;()<>\\]|\\.)+|.',
    re.DOTALL,
)
_QUOTED_PAIR = re.compile(rb"\\(.)", re.DOTALL)
_WHITE = re.compile(rb"[ \t\r\n]+")


class Mailbox(msgspec.Struct, frozen=True):
    """One mailbox as a header names it. It is no address to send to: that is the envelope's."""

    name: str
    """Decoded; empty when there is none."""
    address: str
    """`local@domain` as it stands, without the angle brackets."""

    def __str__(self) -> str:
        return f"{self.name} <{self.address}>" if self.name else self.address


def read_mailboxes(value: bytes, *, bare: bool = False) -> tuple[Mailbox, ...]:
    """Every mailbox in an unfolded value that has an `@`, in their order; with `bare`, those without one too."""
    found: list[Mailbox] = []
    words: list[bytes] = []
    angle: bytes | None = None
    depth = 0
    for token in _TOKEN.findall(value[:VALUE_LIMIT] + b","):
        if token == b"(":
            depth += 1
        elif token == b")":
            depth = max(depth - 1, 0)
        elif depth:
            pass
        elif token == b":":
            words, angle = [], None  # the name of a group ends
        elif token in (b",", b";"):
            box = _mailbox(words, angle)
            if box.address and (bare or "@" in box.address):
                found.append(box)
                if len(found) >= MAX_MAILBOXES:
                    break
            words, angle = [], None
        elif token.startswith(b"<") and token.endswith(b">"):
            angle = token[1:-1]
        else:
            words.append(token)
    return tuple(found)


def ends_in_comment(value: bytes) -> bool:
    """True when a comment is opened and never closed: what stands behind it is not read."""
    depth = 0
    for token in _TOKEN.findall(value[:VALUE_LIMIT]):
        depth = depth + 1 if token == b"(" else max(depth - 1, 0) if token == b")" else depth
    return depth > 0


def _mailbox(words: list[bytes], angle: bytes | None) -> Mailbox:
    if angle is None:
        address = (
            _WHITE.sub(b"", b"".join(words))
            if not any(w.startswith(b'"') for w in words)
            else b"".join(words)
        )
        name = ""
    else:
        address = angle.rpartition(b":")[2] if angle.startswith(b"@") else angle  # RFC 5322 §4.4: a route
        name = " ".join(filter(None, (_text(word) for word in words)))
    address = address.strip()
    return Mailbox(name, decode_octets(address))


def _text(word: bytes) -> str:
    if word.startswith(b'"'):
        inner = word[1:-1] if len(word) > 1 and word.endswith(b'"') else word[1:]
        return decode_text(_QUOTED_PAIR.sub(rb"\1", inner)).strip()
    return decode_text(_WHITE.sub(b" ", word)).strip()
