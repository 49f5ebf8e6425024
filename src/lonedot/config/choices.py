"""The words that a key may choose from; the value of each member is what stands in the file."""

from __future__ import annotations

import enum

__all__ = [
    "InboundTls",
    "KeepContent",
    "LineEnds",
    "LongLines",
    "OnDamage",
    "OnError",
    "OutboundTls",
    "Role",
    "SinkEffect",
]


class KeepContent(enum.Enum):
    NONE = "none"
    DAMAGED = "damaged"
    ALL = "all"


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


class OutboundTls(enum.Enum):
    OFF = "off"
    OPPORTUNISTIC = "opportunistic"
    REQUIRED = "required"
    VERIFIED = "verified"


class SinkEffect(enum.Enum):
    HEADER = "header"
    BODY = "body"
    ENVELOPE = "envelope"


class Role(enum.Enum):
    COSMETIC = "cosmetic"
    PROTECTIVE = "protective"


class OnDamage(enum.Enum):
    UNDO = "undo"
    REPAIR = "repair"
    HOLD = "hold"
    REJECT = "reject"


class OnError(enum.Enum):
    DEFER = "defer"
    SKIP = "skip"
    REJECT = "reject"
    HOLD = "hold"
