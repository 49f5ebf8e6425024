"""What an SMTP extension is: one value, made in one file of `extensions/`.

To add one: write the file, add it to the table in `extensions/__init__.py`, add its row to `docs/standards.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from lonedot.protocol.options import ServerOptions
from lonedot.protocol.session import CommandHandler, MailParameter, RcptParameter

__all__ = ["Extension", "always", "plain_line"]


def always(options: ServerOptions) -> bool:
    """The extension needs nothing but to be switched on."""
    return True


def plain_line(keyword: bytes) -> Callable[[ServerOptions, bool], bytes | None]:
    """An EHLO line that is the keyword alone, inside and outside TLS."""

    def line(options: ServerOptions, tls_active: bool) -> bytes | None:
        return keyword

    return line


@dataclass(frozen=True, slots=True)
class Extension:
    """One EHLO keyword with everything it brings. What is switched off brings nothing; its commands answer 502."""

    keyword: bytes
    line: Callable[[ServerOptions, bool], bytes | None]
    """The EHLO line for the options and whether TLS is active; None: not said (its commands may explain why)."""
    is_available: Callable[[ServerOptions], bool] = always
    """False where the options lack what it needs (a certificate, mechanisms): as good as switched off."""
    mail_parameters: Mapping[bytes, MailParameter] = field(default_factory=dict)
    rcpt_parameters: Mapping[bytes, RcptParameter] = field(default_factory=dict)
    commands: Mapping[bytes, CommandHandler] = field(default_factory=dict)
    commands_off: Mapping[bytes, CommandHandler] = field(default_factory=dict)
    """What they do when it is switched off, where an answer of 502 is not all."""
    secret_commands: frozenset[bytes] = frozenset()
    """Those whose argument is a credential: never shown, and with the line limit of AUTH."""
    mail_octets: int = 0
    """So many octets longer may MAIL be."""
    rcpt_octets: int = 0
