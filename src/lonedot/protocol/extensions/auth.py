"""AUTH (RFC 4954) with PLAIN (RFC 4616) and LOGIN.

Credentials are in the event alone; nothing here keeps or shows them.
"""

from __future__ import annotations

import binascii
import re

from lonedot.protocol import answers
from lonedot.protocol.errors import LocalProtocolError, RemoteProtocolError
from lonedot.protocol.events import AuthRequested, Event
from lonedot.protocol.extension import Extension
from lonedot.protocol.grammar import is_xtext
from lonedot.protocol.options import ServerOptions
from lonedot.protocol.session import CommandHandler, ServerSession
from lonedot.protocol.transaction import MailParameters
from lonedot.terms.reply import Reply

__all__ = ["AUTH"]

_BASE64 = re.compile(rb"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
_USERNAME = b"VXNlcm5hbWU6"  # Username:
_PASSWORD = b"UGFzc3dvcmQ6"  # Password:


def _line(options: ServerOptions, tls_active: bool) -> bytes | None:
    # RFC 4954 §4: what cannot be used outside TLS is not offered there.
    if options.auth_requires_tls and not tls_active:
        return None
    return b"AUTH " + b" ".join(options.auth_mechanisms)


def _is_available(options: ServerOptions) -> bool:
    return bool(options.auth_mechanisms)


def _auth(session: ServerSession, argument: bytes) -> Event | None:
    refused = _refusal(session)
    mechanism, _, initial = argument.partition(b" ")
    mechanism = mechanism.upper()
    initial = initial.strip(b" ")
    if refused is None:
        if not mechanism:
            refused = answers.ARGUMENT_MISSING
        elif mechanism not in session.options.auth_mechanisms or mechanism not in _MECHANISMS:
            refused = answers.AUTH_MECHANISM
    if refused is not None:
        return session.refuse(refused)
    challenge, handler = _MECHANISMS[mechanism]
    if not initial:
        session.ask_line(challenge, handler)
        return None
    return handler(session, b"" if initial == b"=" else initial)  # RFC 4954 §4: "=" is an empty response


def _refusal(session: ServerSession) -> Reply | None:
    options = session.options
    if not session.is_greeted:
        return answers.EHLO_FIRST
    if not session.tls_active:
        if options.tls_required:
            return answers.TLS_FIRST
        if options.auth_requires_tls:
            return answers.AUTH_NEEDS_TLS
    if session.is_authenticated:
        return answers.AUTH_ALREADY
    if session.transaction is not None:
        return answers.AUTH_IN_TRANSACTION
    return None


def _decoded(response: bytes) -> bytes:
    """Strict base64.

    Raises:
        RemoteProtocolError: `*` (the client gives up), or not base64.
    """
    if response == b"*":
        raise RemoteProtocolError("AUTH aborted", answers.AUTH_ABORTED)
    if not _BASE64.fullmatch(response):
        raise RemoteProtocolError("not base64", answers.AUTH_BASE64)
    return binascii.a2b_base64(response)


def _plain(session: ServerSession, response: bytes) -> Event | None:
    parts = _decoded(response).split(b"\0")
    if len(parts) != 3 or not parts[1] or not parts[2]:
        return session.refuse(answers.AUTH_MESSAGE)
    acting_as, identity, password = parts
    if acting_as not in {b"", identity}:
        return session.refuse(answers.AUTH_OTHER_IDENTITY)
    return _requested(session, b"PLAIN", identity, password)


def _login(session: ServerSession, response: bytes) -> Event | None:
    identity = _decoded(response)
    if not identity:
        return session.refuse(answers.AUTH_MESSAGE)

    def take_password(session: ServerSession, response: bytes) -> Event | None:
        password = _decoded(response)
        if not password:
            return session.refuse(answers.AUTH_MESSAGE)
        return _requested(session, b"LOGIN", identity, password)

    session.ask_line(_PASSWORD, take_password)
    return None


def _requested(session: ServerSession, mechanism: bytes, identity: bytes, password: bytes) -> Event:
    session.decide(_decided)
    return AuthRequested(mechanism, identity, password)


def _decided(session: ServerSession, reply: Reply) -> None:
    if 200 <= reply.code < 400 and reply.code != 235:
        raise LocalProtocolError(f"AUTH is answered with 235 or refused, not with {reply.text}")
    if reply.code == 235:
        session.write(reply)
        session.is_authenticated = True
    else:
        session.write_failed_login(reply)


_MECHANISMS: dict[bytes, tuple[bytes, CommandHandler]] = {
    b"PLAIN": (b"", _plain),
    b"LOGIN": (_USERNAME, _login),
}


def _mail_auth(session: ServerSession, value: bytes | None, given: MailParameters) -> None:
    """`AUTH=` of MAIL: who submitted it first. We do not vouch for others, so it is read and ignored (RFC 4954 §5)."""
    if value is None or not (value == b"<>" or is_xtext(value)):
        raise RemoteProtocolError("AUTH= is not xtext", answers.PARAMETER_SYNTAX)


AUTH = Extension(
    b"AUTH",
    _line,
    is_available=_is_available,
    mail_parameters={b"AUTH": _mail_auth},
    commands={b"AUTH": _auth},
    secret_commands=frozenset({b"AUTH"}),
    mail_octets=500,
)
