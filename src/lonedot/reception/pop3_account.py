"""What a POP3 account is told by its configuration, and what it tells of itself."""

from __future__ import annotations

import enum
from pathlib import Path

import msgspec

from lonedot.terms.address import Address

__all__ = ["AccountSettings", "AccountStatus", "Mode", "Pop3Tls"]


class Pop3Tls(enum.Enum):
    """How the connection is protected."""

    NONE = "none"
    STARTTLS = "starttls"
    IMPLICIT = "implicit"


class Mode(enum.Enum):
    """Whose mail is in the mailbox."""

    USER = "user"
    """One recipient's."""
    GLOBAL = "global"
    """That of whole domains."""


class AccountSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One account. Equal ones need no change when a configuration is taken again."""

    name: str
    host: str
    port: int
    user: str
    password: bytes
    tls: Pop3Tls = Pop3Tls.IMPLICIT
    tls_ca: Path | None = None
    tls_verify: bool = True
    every_seconds: float = 300.0
    timeout_seconds: float = 60.0
    leave_on_server: bool = False
    delete_after_seconds: float = float("inf")
    """Of what is left on the server, since it was taken."""
    mode: Mode = Mode.USER
    mailbox: Address | None = None
    domains: tuple[str, ...] = ()
    """In lower case; `*.` and a domain is what is below it."""
    undeliverable: Address | None = None
    recipients_from: tuple[str, ...] = ()
    max_size: int = 50 * 1024 * 1024
    source: int = 1
    """Number of the virtual server that its mail belongs to."""

    def __repr__(self) -> str:
        return f"AccountSettings({self.name!r})"

    def is_ours(self, address: Address) -> bool:
        domain = address.domain.decode("utf-8", "replace")
        return any(
            domain.endswith(one[1:]) if one.startswith("*.") else domain == one for one in self.domains
        )


class AccountStatus(msgspec.Struct, frozen=True):
    """How an account fares."""

    name: str
    server: str
    user: str
    looking: bool = False
    looks: int = 0
    """Since the relay started, the one under way not counted."""
    looked_at: float = 0.0
    """When the last one ended."""
    next_at: float = 0.0
    """0 while it looks."""
    failed: int = 0
    """So many looks in a row."""
    words: str = ""
    """Why the last one failed."""
    listed: int = 0
    """Messages at the server, at the last look."""
    taken: int = 0
    """Since the relay started."""
    refused: int = 0
    """Left at the server for good."""
