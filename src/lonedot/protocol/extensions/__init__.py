"""SMTP extensions, one file each, and the one table that lists them in the order of the EHLO reply."""

from __future__ import annotations

from lonedot.protocol.extension import Extension
from lonedot.protocol.extensions.auth import AUTH
from lonedot.protocol.extensions.chunking import CHUNKING
from lonedot.protocol.extensions.dsn import DSN
from lonedot.protocol.extensions.eightbitmime import EIGHT_BIT_MIME
from lonedot.protocol.extensions.enhancedstatuscodes import ENHANCED_STATUS_CODES
from lonedot.protocol.extensions.pipelining import PIPELINING
from lonedot.protocol.extensions.size import SIZE
from lonedot.protocol.extensions.smtputf8 import SMTPUTF8
from lonedot.protocol.extensions.starttls import STARTTLS
from lonedot.protocol.extensions.xclient import XCLIENT

__all__ = ["EXTENSIONS"]

EXTENSIONS: tuple[Extension, ...] = (
    PIPELINING,
    SIZE,
    STARTTLS,
    AUTH,
    EIGHT_BIT_MIME,
    SMTPUTF8,
    ENHANCED_STATUS_CODES,
    DSN,
    CHUNKING,
    XCLIENT,
)
