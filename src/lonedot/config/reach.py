"""The keys of a route that say where it leads, and for which messages besides the recipient's address.

Rule: exactly one key is a target; `check_routes` says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec

from lonedot.config import addresses as a
from lonedot.config import values as v
from lonedot.config.key import Key
from lonedot.config.values import Unfit, show, text
from lonedot.delivery.conditions import NULL_SENDER, HeaderPattern
from lonedot.delivery.maildir import fault_of_path
from lonedot.delivery.pipe import fault_of_command
from lonedot.delivery.routing import Family
from lonedot.message.filed import LineEnd

__all__ = ["TARGETS", "ReachKeys"]

TARGETS = ("smarthost", "mx", "lmtp", "maildir", "pipe", "drop", "discard", "hold")
"""Keys of which a route has exactly one."""

VARIABLES = 100
"""Of a program."""

_GIB = 1024 * 1024 * 1024


def sender_pattern(value: object, folder: Path) -> str:
    """As `pattern`, or `<>` for the null reverse-path."""
    return NULL_SENDER if value == NULL_SENDER else a.pattern(value, folder)


def header_pattern(value: object, folder: Path) -> HeaderPattern:
    """`Name=pattern`."""
    name, equals, wanted = text(value, folder).partition("=")
    if not equals or not re.fullmatch(r"[!-9;-~]{1,80}", name.strip()) or not wanted.strip():
        raise Unfit(f"{show(value)} is not a field and a pattern", 'write it as "Subject=*invoice*"')
    if len(wanted) > 200:
        raise Unfit(f"{show(value)} is too long", "use a pattern of at most 200 signs")
    return HeaderPattern(name.strip(), wanted.strip())


def lmtp_hop(value: object, folder: Path) -> a.Endpoint:
    """`unix:/path` (port 0), or host and port."""
    words = text(value, folder).strip()
    if words.startswith("unix:"):
        return a.Endpoint(str(v.path(words.removeprefix("unix:"), folder)), 0)
    try:
        return a.next_hop(words, folder)
    except Unfit as unfit:
        raise Unfit(unfit.what, 'write it as "unix:/run/dovecot/lmtp" or "127.0.0.1:24"') from None


def folder_pattern(value: object, folder: Path) -> str:
    """A path that may hold `{local}` and `{domain}`."""
    name = str(v.path(value, folder.absolute()))
    fault = fault_of_path(name)
    if fault:
        raise Unfit(f"{show(value)}: {fault}", 'write it as "/srv/mail/{domain}/{local}"')
    return name


def command(value: object, folder: Path) -> tuple[str, ...]:
    """A program and its arguments, as a list."""
    words = v.many(v.text, at_least=1)(value, folder)
    fault = fault_of_command(words)
    if fault:
        raise Unfit(fault, 'write it as ["/usr/local/bin/program", "--to", "{recipient}"]')
    return words


def variables(value: object, folder: Path) -> dict[str, str]:
    """Environment variables as a table of texts."""
    if not isinstance(value, dict):
        raise Unfit(f"{show(value)} is not a table", 'write it as { NAME = "value" }')
    if len(value) > VARIABLES:
        raise Unfit(f"holds {len(value)} variables", f"use at most {VARIABLES}")
    for name, one in value.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,99}", name):
            raise Unfit(f"{show(name)} is not the name of a variable", 'write it as { NAME = "value" }')
        if not isinstance(one, str) or "\0" in one or len(one) > 4096:
            raise Unfit(f"{name} is {show(one)}", "use a text of at most 4096 signs, without NUL")
    return dict(value)


class TargetKeys(msgspec.Struct, frozen=True, kw_only=True):
    """Where a route leads."""

    smarthost: Annotated[
        tuple[a.Endpoint, ...],
        Key(
            v.many(a.next_hop, at_least=1),
            "Host and port (25 when not given), or several that are tried in turn. A route has one of the eight keys "
            "`smarthost`, `mx`, `lmtp`, `maildir`, `pipe`, `drop`, `discard` and `hold`.",
            '"smtp.example.com:587"',
        ),
    ] = ()
    mx: Annotated[
        bool,
        Key(v.boolean, "To the mail exchangers of the recipient's domain, as DNS names them.", "true"),
    ] = False
    ip: Annotated[
        Family,
        Key(
            v.one_of(Family),
            "Which addresses of a mail exchanger are tried: `auto` takes IPv6 and IPv4 in turn. Without a way out by "
            "IPv6, `4` saves a failed connection.",
            '"auto"',
        ),
    ] = Family.AUTO
    mx_port: Annotated[
        int,
        Key(v.whole(1, 65535), "The port at mail exchangers. The world answers at 25 alone.", "25"),
    ] = 25
    lmtp: Annotated[
        tuple[a.Endpoint, ...],
        Key(
            v.many(lmtp_hop, at_least=1),
            "To a delivery agent that speaks LMTP: `unix:` and a path, or host and port, or several that are tried in "
            "turn.",
            '"unix:/run/dovecot/lmtp"',
        ),
    ] = ()
    maildir: Annotated[
        str,
        Key(
            folder_pattern,
            "To Maildirs. `{local}` and `{domain}` stand for those of the recipient.",
            '"/srv/mail/{domain}/{local}"',
        ),
    ] = ""
    maildir_create: Annotated[
        bool,
        Key(
            v.boolean,
            "Makes a Maildir that is not there. Then whoever may send to the route decides which there are.",
            "false",
        ),
    ] = False
    pipe: Annotated[
        tuple[str, ...],
        Key(
            command,
            "To a program, run once for each recipient with the message on standard input. No shell; `{sender}`, "
            "`{recipient}` and `{id}` are filled in where they stand alone as an argument.",
            '["/usr/local/bin/ticket", "--from", "{sender}"]',
        ),
    ] = ()
    pipe_user: Annotated[
        str,
        Key(v.text, "Whose rights the program has; needed where the relay runs as root.", '"ticket"'),
    ] = ""
    pipe_seconds: Annotated[
        float,
        Key(v.number(1, 3600), "How long it may run; then it is killed, and the message tried again.", "300"),
    ] = 300.0
    pipe_memory: Annotated[
        int,
        Key(v.size(16 * 1024 * 1024, 64 * _GIB), "Octets of memory that it may have.", '"1 GiB"'),
    ] = _GIB
    pipe_environment: Annotated[
        Mapping[str, str],
        Key(
            variables,
            "Variables that it gets besides `PATH` and `LANG`. No place for passwords: `lonedot config show` "
            "shows them.",
            '{ QUEUE = "sales" }',
        ),
    ] = {}
    line_end: Annotated[
        LineEnd,
        Key(
            v.one_of(LineEnd),
            "How lines end in Maildirs, and in what a program is given: `LF` as is usual on this system, or `CRLF` as "
            "on the wire. Readers of a Maildir that expect the other show or count lines wrongly.",
            '"LF"',
        ),
    ] = LineEnd.LF
    drop: Annotated[
        bool,
        Key(
            v.boolean,
            "Into the Drop folder of the virtual server that took the message (`[drop]`, `[[source]]`), as files.",
            "true",
        ),
    ] = False
    discard: Annotated[
        bool,
        Key(v.boolean, "Nowhere: mail over the route counts as delivered, and is gone.", "true"),
    ] = False
    hold: Annotated[
        str,
        Key(
            v.text,
            "Nowhere until a person releases it; the text says why, and stands in the queue.",
            '"to be looked at"',
        ),
    ] = ""


class ReachKeys(TargetKeys, frozen=True, kw_only=True, rename={"sender": "from"}):
    """Where it leads, and for which messages besides the recipient. All conditions that are given must hold."""

    sender: Annotated[
        tuple[str, ...],
        Key(
            v.many(sender_pattern, at_least=1),
            'Only mail from these: patterns as in `to`, or `"<>"` for reports.',
            '["*.branch.example", "<>"]',
        ),
    ] = ()
    listener: Annotated[
        tuple[str, ...],
        Key(
            v.many(v.label, at_least=1),
            "Only mail that came by these listeners, by name; `pickup` and `dsn` for what came another way.",
            '"copiers"',
        ),
    ] = ()
    network: Annotated[
        tuple[a.Network, ...],
        Key(v.many(a.network, at_least=1), "Only mail from clients in these networks.", '"192.168.10.0/24"'),
    ] = ()
    size_over: Annotated[
        int | None,
        Key(v.size(0, 1024 * _GIB), "Only messages of more octets than this.", '"10 MiB"', "any size"),
    ] = None
    size_under: Annotated[
        int | None,
        Key(v.size(1, 1024 * _GIB), "Only messages of fewer octets than this.", '"10 MiB"', "any size"),
    ] = None
    header: Annotated[
        tuple[HeaderPattern, ...],
        Key(
            v.many(header_pattern, at_least=1),
            "Only messages with such a header field: name, `=`, and a pattern for the value as it is written (encoded "
            "words are not decoded). `*` stands for anything, `?` for one sign; case does not count.",
            '"X-Priority=urgent*"',
        ),
    ] = ()
