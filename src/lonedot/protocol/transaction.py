"""What one transaction has gathered: the parameters of its commands and how far it has come."""

from __future__ import annotations

import msgspec

from lonedot.protocol.events import ContentMode
from lonedot.terms.envelope import BodyType, Notify, Ret

__all__ = ["MailParameters", "RcptParameters", "Transaction"]


class MailParameters(msgspec.Struct):
    """What the parameters of one MAIL said."""

    body: BodyType = BodyType.UNSTATED
    smtputf8: bool = False
    size: int = 0
    ret: Ret = Ret.UNSTATED
    envid: bytes = b""


class RcptParameters(msgspec.Struct):
    """What the parameters of one RCPT said. `smtputf8` is that of the transaction."""

    smtputf8: bool
    notify: Notify = Notify.UNSTATED
    orcpt: bytes = b""


class Transaction(msgspec.Struct):
    """From an accepted MAIL to the end of its message, RSET or EHLO."""

    smtputf8: bool
    recipients: int = 0
    overshoot: int = 0
    """Recipients refused because there were too many."""
    mode: ContentMode | None = None
    """Set once content has begun."""
    size: int = 0
    """Octets of content received so far."""
    has_failed: bool = False
    """A BDAT failed: only RSET, EHLO or QUIT help (RFC 3030 §2)."""
