"""What a listener's server machine may do: limits and offered keywords. Set once, shared by its sessions."""

from __future__ import annotations

import msgspec

__all__ = ["DEFAULT_KEYWORDS", "ServerLimits", "ServerOptions"]

DEFAULT_KEYWORDS = frozenset(
    {
        b"PIPELINING",
        b"SIZE",
        b"8BITMIME",
        b"SMTPUTF8",
        b"ENHANCEDSTATUSCODES",
        b"CHUNKING",
        b"DSN",
        b"STARTTLS",
        b"AUTH",
        b"XCLIENT",
    }
)


class ServerLimits(msgspec.Struct, frozen=True):
    """Bounds on what one client can ask for in one session."""

    command_line: int = 512
    """Octets of a command line with its CRLF (RFC 5321 §4.5.3.1.4); extensions lengthen MAIL and RCPT."""
    auth_line: int = 12288
    """Octets of AUTH and of a line in its exchange, with CRLF (RFC 4954 §4)."""
    junk_line: int = 65536
    """An over-long line is swallowed up to here; a longer one ends the session."""
    size: int = 52_428_800
    """Octets of a message as SIZE counts them (RFC 1870 §3). More than twice as many end the session."""
    recipients: int = 1000
    """Recipients of a transaction; further ones get 452 (RFC 5321 §4.5.3.1.10); as many again, and they are errors."""
    errors: int = 20
    """Commands refused by the machine and failed logins since the last accepted message; then 421."""
    rejections: int = 100
    """MAIL, RCPT, VRFY and EXPN that the shell answered with 4xx or 5xx since the last accepted message; then 421."""
    idle_commands: int = 100
    """NOOP, RSET, HELP, EHLO, VRFY and the like since the last accepted message; then 421."""


class ServerOptions(msgspec.Struct, frozen=True):
    """One listener's face. `tls_active` is true of implicit TLS, where the session starts inside TLS."""

    hostname: bytes
    keywords: frozenset[bytes] = DEFAULT_KEYWORDS
    """Enabled EHLO keywords in upper case. A keyword that is absent is off: its parameters and commands are refused."""
    tls_available: bool = False
    tls_active: bool = False
    tls_required: bool = False
    """MAIL, AUTH, VRFY and EXPN are answered 530 outside TLS (RFC 3207 §4)."""
    auth_mechanisms: tuple[bytes, ...] = ()
    """Of `PLAIN` and `LOGIN`; empty: AUTH is not offered."""
    auth_requires_tls: bool = True
    auth_required: bool = False
    """MAIL is answered 530 before a login (RFC 4954 §6)."""
    limits: ServerLimits = ServerLimits()
    lmtp: bool = False
    """LMTP (RFC 2033) in place of SMTP: LHLO, and a reply for each recipient behind the end of data."""
    xclient: bool = False
    """The client is a proxy that may say whom it speaks for."""
