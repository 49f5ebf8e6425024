"""The words that a key may choose from where no room has a type of its own; the value of each member is what stands
in the file."""

from __future__ import annotations

import enum

__all__ = ["InboundTls", "KeepContent", "LineEnds", "ListenerProtocol", "LongLines"]


class KeepContent(enum.Enum):
    NONE = "none"
    DAMAGED = "damaged"
    ALL = "all"


class ListenerProtocol(enum.Enum):
    """What a listener speaks."""

    SMTP = "smtp"
    LMTP = "lmtp"


class LineEnds(enum.Enum):
    AUTO = "auto"
    REJECT = "reject"
    NORMALIZE = "normalize"


class LongLines(enum.Enum):
    AUTO = "auto"
    REJECT = "reject"
    ENCODE = "encode"


class InboundTls(enum.Enum):
    OFF = "off"
    STARTTLS = "starttls"
    IMPLICIT = "implicit"
