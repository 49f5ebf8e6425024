"""SMTPUTF8 (RFC 6531): with the parameter on MAIL, addresses and header fields may hold UTF-8."""

from __future__ import annotations

from lonedot.protocol import answers
from lonedot.protocol.errors import RemoteProtocolError
from lonedot.protocol.extension import Extension, plain_line
from lonedot.protocol.session import ServerSession
from lonedot.protocol.transaction import MailParameters

__all__ = ["SMTPUTF8"]


def _smtputf8(session: ServerSession, value: bytes | None, given: MailParameters) -> None:
    if value is not None:
        raise RemoteProtocolError("SMTPUTF8 takes no value", answers.PARAMETER_SYNTAX)
    given.smtputf8 = True


SMTPUTF8 = Extension(
    b"SMTPUTF8", plain_line(b"SMTPUTF8"), mail_parameters={b"SMTPUTF8": _smtputf8}, mail_octets=10
)
