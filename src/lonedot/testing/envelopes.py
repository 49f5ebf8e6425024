"""Envelopes of plain addresses."""

from __future__ import annotations

from collections.abc import Sequence

from lonedot.terms.address import Address
from lonedot.terms.envelope import Envelope, Recipient

__all__ = ["make_envelope"]


def make_envelope(
    recipients: str | Sequence[str] = "recipient@example.org", sender: str = "sender@example.com"
) -> Envelope:
    """An envelope of plain addresses; `sender=""` is the null reverse-path."""
    each = (recipients,) if isinstance(recipients, str) else recipients
    return Envelope(
        Address(sender.encode()), tuple(Recipient(Address(recipient.encode())) for recipient in each)
    )
