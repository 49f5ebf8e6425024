"""`[[route]]`: which recipients a route is for, and how an attempt over it is made. Where it leads, and for which
messages besides, are the keys of `reach`."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

from lonedot.config import addresses as a
from lonedot.config import values as v
from lonedot.config.key import Key
from lonedot.config.rates import rate
from lonedot.config.reach import ReachKeys
from lonedot.config.secrets import secret_command
from lonedot.delivery.routing import TlsPolicy
from lonedot.queue.pace import Rate

__all__ = ["Route"]

_MINUTE = 60.0
_HOUR = 3600.0
_DAY = 86400.0


class Route(ReachKeys, frozen=True, kw_only=True):
    """Where mail for some recipients goes. The first route that matches, in the order of the file, is taken."""

    to: Annotated[
        tuple[str, ...],
        Key(
            v.many(a.pattern, at_least=1),
            "Which recipients: `*`, a domain (also as `*@example.com`), `*.example.com` (what is below it), or one "
            "address.",
            '"*"',
        ),
    ]
    name: Annotated[str, Key(v.label, "What logs call it.", '"provider"', "the patterns")] = ""
    tls: Annotated[
        TlsPolicy,
        Key(
            v.one_of(TlsPolicy),
            "`opportunistic` uses STARTTLS where offered and believes any certificate; `required` does not send "
            "without TLS; `verified` also checks name and issuer. At port 465 TLS comes first, but for `off`.",
            '"opportunistic"',
        ),
    ] = TlsPolicy.OPPORTUNISTIC
    tls_ca: Annotated[
        Path | None,
        Key(
            v.path, "PEM file of the issuers that `verified` believes.", '"tls/ca.pem"', "those of the system"
        ),
    ] = None
    login: Annotated[
        str,
        Key(v.text, "Name for AUTH at the smarthost; it is given only under TLS or on loopback.", '"relay"'),
    ] = ""
    password: Annotated[
        v.Secret | None,
        Key(v.secret, "Its password in plain. Better is one of the next three.", '"…"'),
    ] = None
    password_file: Annotated[
        Path | None,
        Key(
            v.path,
            "File with the password on its first line, readable by the relay alone.",
            '"smarthost.password"',
        ),
    ] = None
    password_env: Annotated[
        str,
        Key(v.text, "Name of the environment variable with the password.", '"SMARTHOST_PASSWORD"'),
    ] = ""
    password_command: Annotated[
        tuple[str, ...],
        Key(
            secret_command,
            "Program, with its arguments, that writes the password on its first line. It is run without a shell when "
            "the relay takes its configuration, and has 10 seconds.",
            '["pass", "show", "smarthost"]',
        ),
    ] = ()
    ehlo_off: Annotated[
        tuple[str, ...],
        Key(
            v.many(a.keyword),
            "EHLO keywords of the smarthost that are treated as not offered. `8BITMIME` makes every copy 7-bit.",
            '["CHUNKING"]',
        ),
    ] = ()
    connections: Annotated[
        int,
        Key(
            v.whole(1, 1000),
            "Connections to one next hop, or runs of a program, at one time, over all workers. Many providers allow "
            "few, and refuse or delay what is above.",
            "20",
        ),
    ] = 20
    rate: Annotated[
        Rate | None,
        Key(
            rate,
            "Messages to one next hop (under `mx`: to each domain) in a second, minute, hour or day, evenly spread. "
            "What is above waits in the queue. Too low, and mail comes late or expires.",
            '"30/min"',
            "no limit",
        ),
    ] = None
    messages_per_connection: Annotated[
        int,
        Key(v.whole(1, 1_000_000), "Messages over one connection before a new one is made.", "100"),
    ] = 100
    retry_minutes: Annotated[
        tuple[float, ...],
        Key(
            v.many(v.number(0.01, 10_080), at_least=1),
            "Minutes between attempts; the last is repeated. Too short, and the next hop may block the relay.",
            "[1, 5, 15, 30, 60, 240]",
        ),
    ] = (1.0, 5.0, 15.0, 30.0, 60.0, 240.0)
    jitter: Annotated[
        float,
        Key(
            v.number(0, 0.5),
            "By which share a waiting time is varied at random, so that retries do not come in one wave.",
            "0.1",
        ),
    ] = 0.1
    expire: Annotated[
        timedelta,
        Key(
            v.duration(60, 30 * _DAY),
            "After this the sender is told that the message could not be delivered.",
            '"2d"',
        ),
    ] = timedelta(days=2)
    delay_notice: Annotated[
        timedelta,
        Key(
            v.duration(0, 30 * _DAY),
            "After this the sender is told, once, that it is late; 0 never tells.",
            '"4h"',
        ),
    ] = timedelta(hours=4)
    connect_timeout: Annotated[
        timedelta,
        Key(v.duration(1, 10 * _MINUTE), "For the connection and its TLS handshake.", '"30s"'),
    ] = timedelta(seconds=30)
    command_timeout: Annotated[
        timedelta,
        Key(
            v.duration(1, _HOUR),
            "For the greeting and for the reply to a command (RFC 5321 §4.5.3.2 asks for 5 minutes).",
            '"5m"',
        ),
    ] = timedelta(minutes=5)
    data_timeout: Annotated[
        timedelta,
        Key(
            v.duration(1, _HOUR),
            "For 354, and for each piece of a message to be taken (the RFC asks for 2 and 3 minutes).",
            '"3m"',
        ),
    ] = timedelta(minutes=3)
    final_timeout: Annotated[
        timedelta,
        Key(
            v.duration(1, _HOUR),
            "For the reply to the end of data (the RFC asks for 10 minutes). Too short, and slow receivers get copies.",
            '"10m"',
        ),
    ] = timedelta(minutes=10)
