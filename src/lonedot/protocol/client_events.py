"""What the client machine is told (`ClientOptions`), what it waits for (`Phase`), and what it tells its shell.

Events without values are single objects, so that a shell may compare them by identity.
"""

from __future__ import annotations

import enum

import msgspec

from lonedot.terms.outcome import Stage
from lonedot.terms.reply import Reply

__all__ = [
    "CONTENT_WANTED",
    "GREETED",
    "HANDSHAKE_WANTED",
    "READY",
    "RECIPIENTS_ANSWERED",
    "ClientEvent",
    "ClientOptions",
    "ContentWanted",
    "Greeted",
    "HandshakeWanted",
    "Login",
    "Phase",
    "Ready",
    "RecipientsAnswered",
    "SessionEnded",
    "SessionFailed",
    "StartTls",
    "TransactionEnded",
]


class Phase(enum.Enum):
    """What the machine waits for; the value is the stage that a failure belongs to."""

    GREETING = "greeting"
    GREETED = "greeted"
    """The shell decides whether this session is wanted; nothing may be read."""
    EHLO = "ehlo"
    HELO = "helo"
    STARTTLS = "starttls"
    HANDSHAKE = "handshake"
    """The shell's work; nothing may be read in plaintext."""
    AUTH = "auth"
    READY = "ready"
    RESET = "reset"
    MAIL = "mail"
    RCPT = "rcpt"
    ANSWERED = "answered"
    """Every RCPT is answered, some were taken; the shell decides whether content goes. Nothing may be read."""
    DATA = "data"
    CONTENT = "content"
    """The encoder writes."""
    END = "end"
    """The end of data is written, or the lone dot of a transaction without recipients."""
    QUIT = "quit"
    CLOSED = "closed"


class StartTls(enum.Enum):
    """What to do with STARTTLS."""

    NEVER = "never"
    WHEN_OFFERED = "when-offered"
    REQUIRED = "required"


class Login(msgspec.Struct, frozen=True):
    """A name and its password. Neither `repr` nor an error shows the password."""

    name: bytes
    password: bytes

    def __repr__(self) -> str:
        return f"Login(name={self.name!r}, password not shown)"


class ClientOptions(msgspec.Struct, frozen=True):
    """How to open a session."""

    ehlo_name: bytes
    starttls: StartTls = StartTls.WHEN_OFFERED
    tls_active: bool = False
    """The connection began with TLS."""
    login: Login | None = None
    plaintext_login: bool = False
    """The password may go over a connection without TLS."""
    ignored: frozenset[bytes] = frozenset()
    """EHLO keywords (upper case) that count as not offered."""
    asks_at_greeting: bool = False
    """EHLO waits for `go_on`, see `Greeted`."""
    lmtp: bool = False
    """LMTP (RFC 2033): LHLO, and the end of data is answered once for each recipient that was taken."""


class Ready(msgspec.Struct, frozen=True):
    """The session is open; `begin` may be called. `offer` stands in the machine."""


class Greeted(msgspec.Struct, frozen=True):
    """The server greets us. Call `go_on`, or `quit`; only with `ClientOptions.asks_at_greeting`."""


class RecipientsAnswered(msgspec.Struct, frozen=True):
    """MAIL and at least one RCPT were taken. Call `go_on` (and see `wants_content`), or `withhold`.

    Only where `begin` was told to ask. `recipient_replies` has the replies.
    """


class HandshakeWanted(msgspec.Struct, frozen=True):
    """The peer said 220 to STARTTLS: shake hands, then call `tls_started` (or close)."""


class ContentWanted(msgspec.Struct, frozen=True):
    """Write `take_output()` together with the encoder's octets, then call `content_sent`."""


class TransactionEnded(msgspec.Struct, frozen=True):
    """All replies of a transaction are in, or no more will come."""

    stage: Stage
    """Where it was decided for every recipient that was not refused by a reply of its own."""
    reply: Reply | None
    """The reply that decided it; None when every recipient was refused by its own."""
    recipients: tuple[Reply | None, ...]
    """The reply to each RCPT, in the order of the plan; None where none came."""
    finals: tuple[Reply | None, ...] = ()
    """LMTP: what the end of data was answered for each, in the order of the plan; None where nothing was said.
    Where a recipient has such a reply, it decides. Empty in SMTP."""


class SessionFailed(msgspec.Struct, frozen=True):
    """No transaction is possible in this session. Write what is left, then close."""

    stage: Stage
    reply: Reply | None
    words: str


class SessionEnded(msgspec.Struct, frozen=True):
    """The session is over and nothing is lost by it: 221 after QUIT, or 421 while nothing was asked. Close."""

    reply: Reply


ClientEvent = (
    Ready
    | Greeted
    | RecipientsAnswered
    | HandshakeWanted
    | ContentWanted
    | TransactionEnded
    | SessionFailed
    | SessionEnded
)

READY = Ready()
GREETED = Greeted()
RECIPIENTS_ANSWERED = RecipientsAnswered()
HANDSHAKE_WANTED = HandshakeWanted()
CONTENT_WANTED = ContentWanted()
