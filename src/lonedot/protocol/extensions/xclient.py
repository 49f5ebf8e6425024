"""XCLIENT, Postfix's extension by which a trusted proxy says whom it speaks for.

Offered only where the shell says so (`ServerOptions.xclient`); to everybody else it does not exist. After it the
session begins anew: it is answered as a greeting, and EHLO is needed again. Values are xtext (RFC 3461 §4);
`[UNAVAILABLE]` and `[TEMPUNAVAIL]` mean that the proxy does not know.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address

from lonedot.protocol.errors import LocalProtocolError
from lonedot.protocol.events import ClientStated, Event
from lonedot.protocol.extension import Extension
from lonedot.protocol.grammar import is_xtext
from lonedot.protocol.options import ServerOptions
from lonedot.protocol.session import ServerSession
from lonedot.terms.reply import Reply, reply

__all__ = ["XCLIENT"]

_NAMES = (b"ADDR", b"NAME", b"PORT", b"PROTO", b"HELO", b"LOGIN", b"DESTADDR", b"DESTPORT")
_UNKNOWN = (b"[UNAVAILABLE]", b"[TEMPUNAVAIL]")
_VALUE_LIMIT = 255
_QUOTED = re.compile(rb"\+([0-9A-F]{2})")
_CLEAN = re.compile(r"[!-~\x80-\U0010ffff]*")

IN_TRANSACTION = reply(503, "5.5.1", "A transaction is open")
BAD_ATTRIBUTE = reply(501, "5.5.4", "XCLIENT takes NAME=value, once each, in xtext")
BAD_ADDRESS = reply(501, "5.5.4", "ADDR is no IP address")
BAD_PROTOCOL = reply(501, "5.5.4", "PROTO is SMTP or ESMTP")


def _line(options: ServerOptions, tls_active: bool) -> bytes:
    return b"XCLIENT " + b" ".join(_NAMES)


def _is_available(options: ServerOptions) -> bool:
    return options.xclient


def _xclient(session: ServerSession, argument: bytes) -> Event | None:
    if session.transaction is not None:
        return session.refuse(IN_TRANSACTION)
    if refused := session.count_idle():
        return refused
    given: dict[bytes, str] = {}
    for word in argument.split():
        name, equals, value = word.partition(b"=")
        name = name.upper()
        decoded = _decoded(value)
        if not equals or name not in _NAMES or name in given or decoded is None:
            return session.refuse(BAD_ATTRIBUTE)
        given[name] = decoded
    if not given:
        return session.refuse(BAD_ATTRIBUTE)
    address = given.get(b"ADDR")
    if address:
        address = _address(address)
        if address is None:
            return session.refuse(BAD_ADDRESS)
    protocol = given.get(b"PROTO", "").upper()
    if protocol not in ("", "SMTP", "ESMTP"):
        return session.refuse(BAD_PROTOCOL)
    session.decide(_decided)
    return ClientStated(address, given.get(b"HELO", ""), protocol.encode(), given.get(b"LOGIN", ""))


def _decoded(value: bytes) -> str | None:
    """The text of a value, empty when the proxy does not know it; None: it is not one."""
    if value.upper() in _UNKNOWN:
        return ""
    if not is_xtext(value):
        return None
    text = _QUOTED.sub(lambda found: bytes([int(found[1], 16)]), value).decode("utf-8", "replace")
    return text if len(text) <= _VALUE_LIMIT and _CLEAN.fullmatch(text) else None


def _address(text: str) -> str | None:
    try:
        if text[:5].upper() == "IPV6:":
            return str(IPv6Address(text[5:])) if "%" not in text else None
        return str(IPv4Address(text))
    except ValueError:
        return None


def _decided(session: ServerSession, answer: Reply) -> None:
    if answer.code < 400 and answer.code != 220:
        raise LocalProtocolError(f"XCLIENT is answered with 220 or refused, not with {answer.text}")
    session.write(answer)
    if answer.code == 220:
        session.is_greeted = False
        session.is_authenticated = False


def _not_there(session: ServerSession, argument: bytes) -> Event | None:
    return session.vocabulary.unknown.handler(session, argument)


XCLIENT = Extension(
    b"XCLIENT",
    _line,
    is_available=_is_available,
    commands={b"XCLIENT": _xclient},
    commands_off={b"XCLIENT": _not_there},
)
