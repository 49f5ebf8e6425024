"""8BITMIME (RFC 6152): `BODY=` of MAIL. BINARYMIME (RFC 3030) is not offered and its value refused."""

from __future__ import annotations

from lonedot.protocol import answers
from lonedot.protocol.errors import RemoteProtocolError
from lonedot.protocol.extension import Extension, plain_line
from lonedot.protocol.session import ServerSession
from lonedot.protocol.transaction import MailParameters
from lonedot.terms.envelope import BodyType

__all__ = ["EIGHT_BIT_MIME"]

_TYPES = {b"7BIT": BodyType.SEVEN_BIT, b"8BITMIME": BodyType.EIGHT_BIT_MIME}


def _body(session: ServerSession, value: bytes | None, given: MailParameters) -> None:
    body = _TYPES.get((value or b"").upper())
    if body is None:
        raise RemoteProtocolError("BODY= of a type not offered", answers.PARAMETER_UNKNOWN)
    given.body = body


EIGHT_BIT_MIME = Extension(
    b"8BITMIME", plain_line(b"8BITMIME"), mail_parameters={b"BODY": _body}, mail_octets=17
)
