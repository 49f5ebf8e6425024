"""DSN (RFC 3461): RET and ENVID on MAIL, NOTIFY and ORCPT on RCPT. xtext is kept as it came."""

from __future__ import annotations

import re

from lonedot.protocol import answers
from lonedot.protocol.errors import RemoteProtocolError
from lonedot.protocol.extension import Extension, plain_line
from lonedot.protocol.grammar import is_clean_utf8, is_xtext
from lonedot.protocol.session import ServerSession
from lonedot.protocol.transaction import MailParameters, RcptParameters
from lonedot.terms.envelope import Notify, Ret

__all__ = ["DSN"]

_ENVID_LIMIT = 100  # RFC 3461 §4.4
_ORCPT_LIMIT = 500  # RFC 3461 §4.2
_RETS = {b"FULL": Ret.FULL, b"HDRS": Ret.HEADERS}
_NOTIFICATIONS = {b"SUCCESS": Notify.SUCCESS, b"FAILURE": Notify.FAILURE, b"DELAY": Notify.DELAY}
_ADDRESS_TYPE = re.compile(rb"[A-Za-z0-9-]{1,32}")


def _ret(session: ServerSession, value: bytes | None, given: MailParameters) -> None:
    ret = _RETS.get((value or b"").upper())
    if ret is None:
        raise RemoteProtocolError("RET= is neither FULL nor HDRS", answers.PARAMETER_SYNTAX)
    given.ret = ret


def _envid(session: ServerSession, value: bytes | None, given: MailParameters) -> None:
    if not value or len(value) > _ENVID_LIMIT or not is_xtext(value):
        raise RemoteProtocolError("ENVID= is not xtext", answers.PARAMETER_SYNTAX)
    given.envid = value


def _notify(session: ServerSession, value: bytes | None, given: RcptParameters) -> None:
    words = (value or b"").upper().split(b",")
    if words == [b"NEVER"]:
        given.notify = Notify.NEVER
        return
    notify = Notify.UNSTATED
    for word in words:
        if word not in _NOTIFICATIONS:  # NEVER stands alone
            raise RemoteProtocolError("NOTIFY= of unknown words", answers.PARAMETER_SYNTAX)
        notify |= _NOTIFICATIONS[word]
    given.notify = notify


def _orcpt(session: ServerSession, value: bytes | None, given: RcptParameters) -> None:
    address_type, semicolon, address = (value or b"").partition(b";")
    if not semicolon or len(value or b"") > _ORCPT_LIMIT or not _ADDRESS_TYPE.fullmatch(address_type):
        raise RemoteProtocolError("ORCPT= is not type;xtext", answers.PARAMETER_SYNTAX)
    if given.smtputf8 and address_type.lower() == b"utf-8" and not address.isascii():
        # RFC 6533 §3: an address of type utf-8 may stand as UTF-8 itself.
        if not is_clean_utf8(address):
            raise RemoteProtocolError("ORCPT= is not clean UTF-8", answers.PARAMETER_SYNTAX)
        address = bytes(octet for octet in address if octet < 128) or b"x"
    if not is_xtext(address):
        raise RemoteProtocolError("ORCPT= is not xtext", answers.PARAMETER_SYNTAX)
    given.orcpt = value or b""


DSN = Extension(
    b"DSN",
    plain_line(b"DSN"),
    mail_parameters={b"RET": _ret, b"ENVID": _envid},
    rcpt_parameters={b"NOTIFY": _notify, b"ORCPT": _orcpt},
    mail_octets=len(" RET=FULL ENVID=") + _ENVID_LIMIT,
    rcpt_octets=len(" NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=") + _ORCPT_LIMIT,
)
