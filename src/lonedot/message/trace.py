"""The fields that a relay writes by itself: Received (RFC 5321 §4.4), Date and Message-ID for devices that omit them.

What a client said of itself is bounded and stripped of everything that could end a line, a comment or a field. Times
are seconds since 1970 and are written in UTC.
"""

from __future__ import annotations

import re
import time

import msgspec

__all__ = ["TraceFacts", "date_field", "date_time", "message_id_field", "received_field"]

_FOLD_AT = 78
_HELO_LIMIT = 255
_NOT_IN_HELO = re.compile(r"[^A-Za-z0-9.:_\[\]-]")
_NOT_IN_PATH = re.compile(
    rb'[^!-~]|[()<>",;\\]'
)  # left out rather than told wrong: quoted and 8-bit local parts
_DAYS = (b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun")
_MONTHS = (
    b"Jan",
    b"Feb",
    b"Mar",
    b"Apr",
    b"May",
    b"Jun",
    b"Jul",
    b"Aug",
    b"Sep",
    b"Oct",
    b"Nov",
    b"Dec",
)
_last_date: tuple[int, bytes] = (-1, b"")  # one value replaced as a whole, so threads never see half of it


class TraceFacts(msgspec.Struct, frozen=True):
    """What the Received field tells."""

    helo: str
    """As the client gave it; may hold anything."""
    client: str
    """Address of the client without brackets (`192.0.2.1`, `2001:db8::1`), or empty when it has none (Pickup)."""
    hostname: str
    protocol: str
    """With-keyword (RFC 3848): SMTP, ESMTP, ESMTPS, …"""
    id: str
    at: float
    recipient: bytes = b""
    """The one recipient; empty when there are more, so that none is told of another."""


def received_field(facts: TraceFacts) -> bytes:
    """The whole Received field with its line end, a clause on each line of at most 78 octets where they allow it."""
    helo = _NOT_IN_HELO.sub("?", facts.helo[:_HELO_LIMIT]) or "unknown"
    client = facts.client
    if client:
        literal = f"IPv6:{client}" if ":" in client else client
        lead = f"Received: from {helo} ([{_NOT_IN_HELO.sub('?', literal[:_HELO_LIMIT])}])\r\n\tby {facts.hostname}"
    else:
        lead = f"Received: by {facts.hostname}"
    with_clause = f"with {facts.protocol} id {facts.id}"
    gap = " " if len(facts.hostname) + len(with_clause) <= _FOLD_AT - 16 else "\r\n\t"
    date = date_time(facts.at)
    recipient = facts.recipient
    if recipient and not _NOT_IN_PATH.search(recipient):
        end = b"\r\n\tfor <%b>;" % recipient
        end += (b" " if len(recipient) + len(date) <= _FOLD_AT - 16 else b"\r\n\t") + date + b"\r\n"
    else:
        end = b";\r\n\t" + date + b"\r\n"
    return f"{lead}{gap}{with_clause}".encode("ascii", "replace") + end


def date_time(at: float) -> bytes:
    """`Sun, 22 Nov 2026 12:29:25 +0000` (RFC 5322 §3.3)."""
    global _last_date  # noqa: PLW0603  # a cache of one: many messages arrive in the same second
    second = int(at)
    known = _last_date
    if known[0] == second:
        return known[1]
    when = time.gmtime(second)
    octets = b"%s, %02d %s %04d %02d:%02d:%02d +0000" % (
        _DAYS[when.tm_wday],
        when.tm_mday,
        _MONTHS[when.tm_mon - 1],
        when.tm_year,
        when.tm_hour,
        when.tm_min,
        when.tm_sec,
    )
    _last_date = (second, octets)
    return octets


def date_field(at: float) -> bytes:
    """A whole Date field."""
    return b"Date: " + date_time(at) + b"\r\n"


def message_id_field(id: str, hostname: str) -> bytes:
    """A whole Message-ID field, unique because the id is."""
    return f"Message-ID: <{id}@{hostname}>\r\n".encode("ascii", "replace")
