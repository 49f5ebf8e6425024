"""SIZE (RFC 1870): the limit is told, a declared size over it is refused at MAIL."""

from __future__ import annotations

from lonedot.protocol import answers
from lonedot.protocol.errors import RemoteProtocolError
from lonedot.protocol.extension import Extension
from lonedot.protocol.grammar import parse_size
from lonedot.protocol.options import ServerOptions
from lonedot.protocol.session import ServerSession
from lonedot.protocol.transaction import MailParameters

__all__ = ["SIZE"]


def _line(options: ServerOptions, tls_active: bool) -> bytes:
    return b"SIZE %d" % options.limits.size


def _size(session: ServerSession, value: bytes | None, given: MailParameters) -> None:
    size = parse_size(value or b"")
    if size < 0:
        raise RemoteProtocolError("SIZE= is not a number", answers.PARAMETER_SYNTAX)
    if size > session.options.limits.size:
        raise RemoteProtocolError("declared size over the limit", answers.TOO_LARGE)  # RFC 1870 §6.1
    given.size = size


SIZE = Extension(b"SIZE", _line, mail_parameters={b"SIZE": _size}, mail_octets=26)
