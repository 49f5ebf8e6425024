"""`[[pop3]]`: mailboxes at a provider whose mail is fetched."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import msgspec

from lonedot.config import addresses as a
from lonedot.config import values as v
from lonedot.config.bindings import SOURCE_NUMBER
from lonedot.config.key import Key
from lonedot.config.secrets import secret_command
from lonedot.config.values import Unfit, show, text
from lonedot.reception.pop3_account import Mode, Pop3Tls
from lonedot.reception.pop3_recipients import RECIPIENTS_FROM
from lonedot.terms.address import Address

__all__ = ["Pop3"]

_DAY = 86400.0
_FIELD = re.compile(r"[!-9;-~]{1,76}")


def field_name(value: object, folder: Path) -> str:
    """The name of a header field, without the colon."""
    name = text(value, folder).strip().removesuffix(":")
    if not _FIELD.fullmatch(name):
        raise Unfit(f"{show(value)} is not the name of a header field", 'write a name such as "Delivered-To"')
    return name


def server_name(value: object, folder: Path) -> str:
    """A host name or an address."""
    name = text(value, folder).strip().strip("[]")
    if re.search(r"[\s/@]", name):
        raise Unfit(f"{show(value)} is not the name of a server", 'write "pop.example.com"; port is a key')
    return name


class Pop3(msgspec.Struct, frozen=True, kw_only=True):
    """A POP3 mailbox whose mail is fetched on a schedule."""

    name: Annotated[
        str, Key(v.label, "What logs and commands call it.", '"info"', "the user and the server")
    ] = ""
    host: Annotated[
        str, Key(server_name, "The server; its certificate must have this name.", '"pop.example.com"')
    ]
    port: Annotated[
        int, Key(v.whole(1, 65535), "Its port.", "995", '995 with `tls = "implicit"`, else 110')
    ] = 0
    tls: Annotated[
        Pop3Tls,
        Key(
            v.one_of(Pop3Tls),
            "`implicit` begins with TLS; `starttls` asks for it by STLS and goes no further without; `none` has none.",
            '"implicit"',
        ),
    ] = Pop3Tls.IMPLICIT
    tls_ca: Annotated[
        Path | None,
        Key(v.path, "PEM file of the issuers that are believed.", '"tls/ca.pem"', "those of the system"),
    ] = None
    tls_verify: Annotated[
        bool,
        Key(
            v.boolean,
            "With false any certificate is believed: whoever stands on the way can read password and mail.",
            "true",
        ),
    ] = True
    allow_plaintext: Annotated[
        bool,
        Key(
            v.boolean,
            "Allows `none` to another machine: password and mail cross the network in clear.",
            "false",
        ),
    ] = False
    user: Annotated[str, Key(v.text, "The name of the login.", '"info@example.com"')]
    password: Annotated[
        v.Secret | None, Key(v.secret, "Its password in plain. Better is one of the next three.", '"…"')
    ] = None
    password_file: Annotated[
        Path | None,
        Key(
            v.path,
            "File with the password on its first line, readable by the relay alone.",
            '"info.password"',
        ),
    ] = None
    password_env: Annotated[
        str, Key(v.text, "Name of the environment variable with the password.", '"INFO_PASSWORD"')
    ] = ""
    password_command: Annotated[
        tuple[str, ...],
        Key(
            secret_command,
            "Program, with its arguments, that writes the password on its first line; as that of a route.",
            '["pass", "show", "info"]',
        ),
    ] = ()
    every: Annotated[
        timedelta,
        Key(
            v.duration(10, _DAY),
            "How often it is looked at. Many providers lock accounts that ask more often than each minute.",
            '"5m"',
        ),
    ] = timedelta(minutes=5)
    timeout: Annotated[
        timedelta,
        Key(v.duration(1, 3600), "How long a silent server is waited for.", '"60s"'),
    ] = timedelta(seconds=60)
    leave_on_server: Annotated[
        bool,
        Key(
            v.boolean,
            "With true mail stays at the server, and is not fetched again. Else it is deleted there as soon as it is "
            "in custody here.",
            "false",
        ),
    ] = False
    delete_after: Annotated[
        timedelta | None,
        Key(
            v.duration(60, 3650 * _DAY),
            "With `leave_on_server`: it is deleted there so long after it was fetched.",
            '"14d"',
            "never",
        ),
    ] = None
    mode: Annotated[
        Mode,
        Key(
            v.one_of(Mode),
            "`user`: all of it is for `mailbox`. `global`: it is for those whom its header names, as far as they are "
            "in `domains`.",
            '"user"',
        ),
    ] = Mode.USER
    mailbox: Annotated[Address | None, Key(a.address, "With `user`: who gets it.", '"anna@example.com"')] = (
        None
    )
    domains: Annotated[
        tuple[str, ...],
        Key(
            v.many(a.domain_set, at_least=1),
            "With `global`: your own domains. Addresses of others in a header are never written to.",
            '["example.com"]',
        ),
    ] = ()
    undeliverable: Annotated[
        Address | None,
        Key(
            a.address,
            "With `global`: who gets what names nobody who is known here.",
            '"postmaster@example.com"',
        ),
    ] = None
    recipients_from: Annotated[
        tuple[str, ...],
        Key(
            v.many(field_name, at_least=1),
            "With `global`: the header fields that are asked, in this order; the first that names an address of "
            "`domains` decides. `To`, `Cc` and the like count as one. If your provider writes a field that nobody "
            "else can, name that one alone.",
            '["X-Original-To", "Delivered-To", "Envelope-To", "X-Recipient", "Received", "To", "Cc"]',
        ),
    ] = RECIPIENTS_FROM
    max_size: Annotated[
        int | None,
        Key(
            v.size(65536, 2 * 1024**3),
            "Larger messages are left at the server, with an event.",
            '"50 MiB"',
            "that of `[server]`",
        ),
    ] = None
    source: Annotated[
        int,
        Key(SOURCE_NUMBER, "The number of the virtual server whose bindings its mail meets.", "1"),
    ] = 1

    @property
    def at_port(self) -> int:
        """The port, by default that of the protection."""
        return self.port or (995 if self.tls is Pop3Tls.IMPLICIT else 110)
