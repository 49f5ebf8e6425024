"""TLS towards next hops: what each policy verifies, and what is said of a session afterwards.

Rules: a context is made once per route, never per connection; `verified` checks name and issuer and has no way
round; the other policies encrypt without knowing to whom, and say so.
"""

from __future__ import annotations

import ipaddress
import ssl
from asyncio import BaseTransport
from typing import assert_never

from lonedot.delivery.routing import Route, TlsPolicy
from lonedot.protocol.client import StartTls

__all__ = ["TlsSettingsFault", "is_loopback", "outbound_context", "starttls_of", "tls_words"]


class TlsSettingsFault(Exception):
    """The TLS settings of a route cannot be used (its file of issuers is missing or holds none)."""


def outbound_context(route: Route) -> ssl.SSLContext | None:
    """The context for all connections of a route; None when TLS is off.

    Raises:
        TlsSettingsFault: the file of issuers cannot be used.
    """
    policy = route.tls
    match policy:
        case TlsPolicy.OFF:
            return None
        case TlsPolicy.OPPORTUNISTIC | TlsPolicy.REQUIRED:
            # RFC 7435: some protection where there was none; a certificate that proves nothing is no reason to
            # fall back to plaintext.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            return context
        case TlsPolicy.VERIFIED:
            try:
                return ssl.create_default_context(cafile=None if route.tls_ca is None else str(route.tls_ca))
            except (OSError, ssl.SSLError) as error:
                raise TlsSettingsFault(f"tls_ca {route.tls_ca} of route {route.name}: {error}") from error
        case _:
            assert_never(policy)


def starttls_of(policy: TlsPolicy) -> StartTls:
    match policy:
        case TlsPolicy.OFF:
            return StartTls.NEVER
        case TlsPolicy.OPPORTUNISTIC:
            return StartTls.WHEN_OFFERED
        case TlsPolicy.REQUIRED | TlsPolicy.VERIFIED:
            return StartTls.REQUIRED
        case _:
            assert_never(policy)


def tls_words(transport: BaseTransport, policy: TlsPolicy) -> str:
    """Version, cipher and what is known of the peer; empty without TLS."""
    tls = transport.get_extra_info("ssl_object")
    if tls is None:
        return ""
    cipher = tls.cipher()
    known = "verified" if policy is TlsPolicy.VERIFIED else "not verified"
    return f"{tls.version()} {cipher[0] if cipher else ''} {known}"


def is_loopback(address: str) -> bool:
    """True of an address (not a name) of this machine."""
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False
