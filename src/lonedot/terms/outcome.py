"""What came of one try to hand a recipient on: delivered, deferred or failed, with the remote's own words.

A 4xx or 5xx from a peer is news, not an exception.
"""

from __future__ import annotations

import enum

import msgspec

from lonedot.terms.reply import Reply

__all__ = ["Outcome", "Result", "Stage"]


class Result(enum.Enum):
    DELIVERED = "delivered"
    DEFERRED = "deferred"
    FAILED = "failed"


class Stage(enum.Enum):
    """Where in the outbound session it happened."""

    ROUTE = "route"
    CONNECT = "connect"
    GREETING = "greeting"
    EHLO = "ehlo"
    STARTTLS = "starttls"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    CONTENT = "content"
    """While the octets went out, or waiting for the reply to the end of data."""
    LOCAL = "local"
    """On our side: spool, content check, expiry."""


class Outcome(msgspec.Struct, frozen=True, array_like=True):
    """The outcome of one attempt for one recipient."""

    result: Result
    stage: Stage
    reason: str
    """Plain words of ours: what happened, for a person."""
    reply: Reply | None = None
    """The remote's reply that decided it; None when it never spoke."""
    next_hop: str = ""
    """`host[address]:port`, empty when none was chosen."""
    status: str = ""
    """Enhanced status code for the DSN (`5.1.1`); the remote's when it gave one, else ours."""
    is_in_doubt: bool = False
    """The end of data went out and no reply came: the next hop may have taken the message, and will get it again."""
