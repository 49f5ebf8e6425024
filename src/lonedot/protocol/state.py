"""What the server machine reads next: one thing at a time, so octets of a message are never commands."""

from __future__ import annotations

import enum

__all__ = ["State"]


class State(enum.Enum):
    """What the next octet is."""

    COMMAND = "command"
    """Of a command line, or of a line in an AUTH exchange."""
    JUNK = "junk"
    """Of the rest of an over-long line."""
    TEXT = "text"
    """Of the text after 354."""
    OCTETS = "octets"
    """One of a counted run (BDAT, or what a sink wants read behind a command)."""
    TLS = "tls"
    """TLS: no plaintext may come any more."""
    CLOSED = "closed"
    """Nobody reads it."""
