"""STARTTLS (RFC 3207).

Octets behind the command end the session: they came in plaintext and must not run inside TLS.
"""

from __future__ import annotations

from lonedot.protocol import answers
from lonedot.protocol.events import Event, ResetGiven, TlsRequested
from lonedot.protocol.extension import Extension
from lonedot.protocol.options import ServerOptions
from lonedot.protocol.session import ServerSession

__all__ = ["STARTTLS"]


def _line(options: ServerOptions, tls_active: bool) -> bytes | None:
    return None if tls_active else b"STARTTLS"


def _is_available(options: ServerOptions) -> bool:
    return options.tls_available or options.tls_active


def _starttls(session: ServerSession, argument: bytes) -> Event | None:
    if argument:
        return session.refuse(answers.NO_ARGUMENT)
    if session.tls_active:
        return session.refuse(answers.TLS_ALREADY)
    if not session.is_greeted:
        return session.refuse(answers.EHLO_FIRST)
    if session.buffered:
        return session.refuse_and_close(answers.EARLY_PLAINTEXT, "plaintext behind STARTTLS")
    session.write(answers.READY_FOR_TLS)
    session.await_tls()
    if session.end_transaction():
        session.later(TlsRequested())
        return ResetGiven()
    return TlsRequested()


STARTTLS = Extension(b"STARTTLS", _line, is_available=_is_available, commands={b"STARTTLS": _starttls})
