"""The envelope: reverse-path, recipients, and the parameters that travel with them (RFC 5321 §2.3.1, RFC 3461)."""

from __future__ import annotations

import enum

import msgspec

from lonedot.terms.address import Address

__all__ = ["BodyType", "Envelope", "Notify", "Recipient", "Ret"]


class BodyType(enum.Enum):
    """`BODY=` of MAIL (RFC 6152). UNSTATED is kept apart from 7BIT: the client said nothing."""

    UNSTATED = ""
    SEVEN_BIT = "7BIT"
    EIGHT_BIT_MIME = "8BITMIME"


class Ret(enum.Enum):
    """`RET=` of MAIL (RFC 3461 §4.3): what a failure DSN returns."""

    UNSTATED = ""
    FULL = "FULL"
    HEADERS = "HDRS"


class Notify(enum.IntFlag):
    """`NOTIFY=` of RCPT (RFC 3461 §4.1). UNSTATED means failure and delay are reported, success is not."""

    UNSTATED = 0
    NEVER = 1
    SUCCESS = 2
    FAILURE = 4
    DELAY = 8


class Recipient(msgspec.Struct, frozen=True, array_like=True):
    """One forward-path with its DSN parameters."""

    address: Address
    notify: int = 0
    """Bits of `Notify` (a plain int, so that it is stored as one)."""
    orcpt: bytes = b""
    """`addr-type;xtext` as the client gave it, undecoded; empty when absent."""


class Envelope(msgspec.Struct, frozen=True, array_like=True):
    """What the next hop is told; the content never decides it."""

    reverse_path: Address
    recipients: tuple[Recipient, ...]
    body: BodyType = BodyType.UNSTATED
    smtputf8: bool = False
    ret: Ret = Ret.UNSTATED
    envid: bytes = b""
    """xtext as the client gave it, undecoded; empty when absent."""
