"""The values of the configuration, each key with what it means and what goes wrong when it is mis-set.

Rules: a key exists exactly when a field here carries a `Key`; the reader in it is the only way from TOML to the
value; `docs/config.md` is written from these lines. Field and key have the same name, but for `import_path`, which
is `import` in a file. Rooms below do not know this one: `app` hands them what they need.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import msgspec

from lonedot.config import addresses as a
from lonedot.config import code
from lonedot.config import values as v
from lonedot.config.bindings import SOURCE_NUMBER, BindingKeys, SourceKeys, row_from
from lonedot.config.choices import InboundTls, KeepContent, LineEnds, ListenerProtocol, LongLines
from lonedot.config.domains import Domain, Vrfy
from lonedot.config.drop import Drop
from lonedot.config.key import Key
from lonedot.config.pop3 import Pop3
from lonedot.config.rewrites import Rewrite
from lonedot.config.routes import Route
from lonedot.observability.levels import LogKind, LogLevel
from lonedot.sinks.bindings import Setting
from lonedot.sinks.registry import Origin, Row, Status
from lonedot.spool.interface import SpoolPaths
from lonedot.terms.address import Address
from lonedot.terms.ids import MAX_SHARDS

__all__ = [
    "Badmail",
    "Config",
    "Key",
    "Listener",
    "Metrics",
    "Pickup",
    "Pop3",
    "Route",
    "Sendmail",
    "Server",
    "Sink",
    "Source",
]

_MIB = 1024 * 1024
_GIB = 1024 * _MIB
_HOUR = 3600.0
_DAY = 86400.0
_YEAR = 366 * _DAY


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """The relay as a whole."""

    hostname: Annotated[
        str,
        Key(
            a.host_name,
            "The name the relay gives itself in greetings, EHLO, trace fields and Message-IDs. Receivers judge by it: "
            "a name that is not in DNS makes some of them refuse.",
            '"relay.example.com"',
            "the machine's full name, when it has one",
        ),
    ]
    spool: Annotated[
        Path,
        Key(
            v.path,
            "The folder of the queue, made with mode 0700. It must be on a local disk; two relays cannot share it.",
            '"spool"',
            "`spool`",
        ),
    ]
    user: Annotated[
        str,
        Key(
            v.text,
            "Whom a relay that is started as root becomes when its listeners are open. The spool, keys of certificates "
            "and files of passwords must be that user's; sinks that run as a user of their own need root, and fail.",
            '"lonedot"',
            "the user who starts it",
        ),
    ] = ""
    workers: Annotated[
        int | str,
        Key(
            v.count_or_auto(MAX_SHARDS),
            "How many processes share the work; each has a part of the queue. `auto` is one for each core that the "
            "relay may use. More than there are cores make it slower.",
            '"auto"',
        ),
    ] = "auto"
    registry: Annotated[
        Path | None,
        Key(
            v.path,
            "The file of bindings that commands may change. A file that is missing is no fault.",
            '"sinks.toml"',
        ),
    ] = None
    postmaster: Annotated[
        Address,
        Key(
            a.address,
            "Where mail to `postmaster` without a domain goes; everybody may write there, so a route must lead to it.",
            '"postmaster@example.com"',
            "`postmaster@` and the hostname",
        ),
    ] = Address(b"postmaster")
    max_size: Annotated[
        int,
        Key(
            v.size(65536, 2 * _GIB),
            "Largest message in octets, also announced by SIZE. Too small, and scans are refused with 552.",
            '"50 MiB"',
        ),
    ] = 50 * _MIB
    hop_limit: Annotated[
        int,
        Key(
            v.whole(5, 200),
            "A message with so many Received fields goes in a circle and is returned. Too small, and honest mail that "
            "passes many relays is returned too.",
            "30",
        ),
    ] = 30
    nameservers: Annotated[
        tuple[a.Endpoint, ...],
        Key(
            v.many(a.name_server, at_least=1),
            "Whom to ask for mail exchangers: addresses, with a port where it is not 53. One beside the relay, with a "
            "cache, answers best.",
            '["127.0.0.1"]',
            "those of the system",
        ),
    ] = ()
    memory: Annotated[
        int,
        Key(
            v.size(1 * _MIB, 64 * _GIB),
            "Octets of messages being received that may be in memory at one time; beyond it they go to disk at once.",
            '"64 MiB"',
        ),
    ] = 64 * _MIB
    log: Annotated[
        LogKind,
        Key(
            v.one_of(LogKind),
            "`human` is one coloured line, `json` one object a line; `auto` looks at the terminal.",
            '"auto"',
        ),
    ] = LogKind.AUTO
    log_level: Annotated[
        LogLevel,
        Key(
            v.one_of(LogLevel),
            "The least that is logged. `debug` has a line for every command of every session.",
            '"info"',
        ),
    ] = LogLevel.INFO
    keep_history: Annotated[
        timedelta,
        Key(
            v.duration(0, 10 * _YEAR),
            "How long finished messages, transcripts and events can be searched. The longer, the more disk.",
            '"7d"',
        ),
    ] = timedelta(days=7)
    keep_content: Annotated[
        KeepContent,
        Key(
            v.one_of(KeepContent),
            "Of which finished messages the content is kept for that time: of none, of those that something damaged, "
            "of all. With `none`, a damage can no longer be looked at.",
            '"damaged"',
        ),
    ] = KeepContent.DAMAGED
    drain_seconds: Annotated[
        float,
        Key(
            v.number(0, 3600),
            "How long a stop waits for sessions and attempts. What is cut off is tried again, and may arrive twice.",
            "30",
        ),
    ] = 30.0

    @property
    def paths(self) -> SpoolPaths:
        return SpoolPaths(self.spool)


class Listener(msgspec.Struct, frozen=True, kw_only=True):
    """One address where SMTP is spoken."""

    address: Annotated[
        a.Endpoint,
        Key(
            a.listen_place,
            "Address and port. `0.0.0.0` is every IPv4 address, `[::]` every IPv6 address. For `lmtp` also `unix:` and "
            "the path of a socket.",
            '"127.0.0.1:2525"',
        ),
    ]
    group: Annotated[
        str,
        Key(
            v.text,
            "Of a unix socket: whose members may connect; `*`: every user of the machine. Whoever can connect may send "
            "anywhere.",
            '"postfix"',
            "root, and the user of the relay",
        ),
    ] = ""
    name: Annotated[str, Key(v.label, "What logs call it.", '"copiers"', "the address")] = ""
    source: Annotated[
        int,
        Key(
            SOURCE_NUMBER,
            "The number of the virtual server that it belongs to: whose bindings its sessions and messages meet.",
            "1",
        ),
    ] = 1
    protocol: Annotated[
        ListenerProtocol,
        Key(
            v.one_of(ListenerProtocol),
            "`lmtp` for programs that hand over mail by LMTP (RFC 2033): a reply for each recipient; only for "
            "`relay_from`.",
            '"smtp"',
        ),
    ] = ListenerProtocol.SMTP
    relay_from: Annotated[
        tuple[a.Network, ...],
        Key(
            v.many(a.network),
            "Networks whose clients may send anywhere without a login. Everybody in them is trusted with your name.",
            '["127.0.0.0/8", "192.168.10.0/24"]',
        ),
    ] = ()
    proxy_from: Annotated[
        tuple[a.Network, ...],
        Key(
            v.many(a.network),
            "Networks of load balancers whose connections begin with the PROXY protocol (version 1 or 2). Rights and "
            "limits are then those of the client that it names. Without the header such a connection is cut.",
            '["10.0.0.5/32"]',
        ),
    ] = ()
    xclient_from: Annotated[
        tuple[a.Network, ...],
        Key(
            v.many(a.network),
            "Networks of proxies that may say by Postfix's `XCLIENT` whom they speak for. Whoever is in them can take "
            "any address, and so any right.",
            '["127.0.0.1/32"]',
        ),
    ] = ()
    relay_to: Annotated[
        tuple[str, ...],
        Key(
            v.many(a.domain_set),
            "Domains for which mail is taken from anybody: your own.",
            '["example.com", "*.example.com"]',
        ),
    ] = ()
    line_ends: Annotated[
        LineEnds,
        Key(
            v.one_of(LineEnds),
            "What happens to a bare CR or LF in a message: refused with 550, or made CRLF and written in the ledger. "
            "`auto` refuses strangers and mends for `relay_from`. No choice lets one through.",
            '"auto"',
        ),
    ] = LineEnds.AUTO
    long_lines: Annotated[
        LongLines,
        Key(
            v.one_of(LongLines),
            "What happens to a line over 998 octets: refused with 550, or the part is encoded anew and the ledger says "
            "so. `auto` refuses strangers and encodes for `relay_from`.",
            '"auto"',
        ),
    ] = LongLines.AUTO
    tls: Annotated[
        InboundTls,
        Key(
            v.one_of(InboundTls),
            "`starttls` offers it in EHLO, `implicit` begins with TLS (port 465).",
            '"off"',
        ),
    ] = InboundTls.OFF
    tls_certificate: Annotated[
        Path | None,
        Key(v.path, "PEM file with the certificate, the issuers' behind it.", '"tls/relay.pem"'),
    ] = None
    tls_key: Annotated[
        Path | None,
        Key(v.path, "PEM file with the key, readable by the relay alone.", '"tls/relay.key"'),
    ] = None
    require_tls: Annotated[
        bool,
        Key(
            v.boolean,
            "Refuses MAIL before STARTTLS with 530. Old devices cannot do TLS and are locked out.",
            "false",
        ),
    ] = False
    logins: Annotated[
        Path | None,
        Key(
            v.path,
            "The file of those who may log in, made by `lonedot logins add`. Who has logged in may send anywhere, as "
            "from `relay_from`. Without it only sinks at `auth` let anybody log in.",
            '"logins.txt"',
        ),
    ] = None
    allow_plaintext_login: Annotated[
        bool,
        Key(
            v.boolean,
            "Offers AUTH outside TLS too. Passwords then travel in clear: for old devices in your own network.",
            "false",
        ),
    ] = False
    ehlo_off: Annotated[
        tuple[str, ...],
        Key(
            v.many(a.keyword),
            'EHLO keywords that are not offered. `["8BITMIME"]` is the old 7-bit setting.',
            '["CHUNKING", "8BITMIME"]',
        ),
    ] = ()
    vrfy: Annotated[
        Vrfy,
        Key(
            v.one_of(Vrfy),
            "Who is told by VRFY whether an address of a `[[domain]]` exists: nobody (252), trusted clients, or "
            "everybody. EXPN shows members to trusted clients alone, and only when this is not `none`.",
            '"none"',
        ),
    ] = Vrfy.NONE
    max_connections: Annotated[
        int,
        Key(
            v.whole(1, 100_000),
            "Sessions at one time; more are told 421. The system's limit of open files must allow it.",
            "1000",
        ),
    ] = 1000
    max_connections_per_client: Annotated[
        int,
        Key(
            v.whole(1, 100_000),
            "Sessions at one time from one address outside `relay_from`; more are told 421.",
            "100",
        ),
    ] = 100
    max_recipients: Annotated[
        int,
        Key(
            v.whole(100, 100_000),
            "Recipients of one message; more are told 452 and senders try them again.",
            "1000",
        ),
    ] = 1000
    max_errors: Annotated[
        int,
        Key(
            v.whole(1, 10_000),
            "Refused commands in one session before 421 ends it. Too small punishes clumsy devices.",
            "20",
        ),
    ] = 20
    command_timeout: Annotated[
        timedelta,
        Key(v.duration(1, _HOUR), "How long a silent client is waited for between commands.", '"5m"'),
    ] = timedelta(minutes=5)
    data_timeout: Annotated[
        timedelta,
        Key(v.duration(1, _HOUR), "How long a silent client is waited for inside a message.", '"3m"'),
    ] = timedelta(minutes=3)
    session_timeout: Annotated[
        timedelta,
        Key(
            v.duration(60, 7 * _DAY),
            "How long a session may last in all; between two messages it is then told 421. Guards against clients that "
            "drip.",
            '"2h"',
        ),
    ] = timedelta(hours=2)


class Sink(BindingKeys, frozen=True, kw_only=True, rename={"import_path": "import"}):
    """A function that is called at an event. What it does not declare is undone."""

    file: Annotated[
        code.SinkFile | None,
        Key(
            code.sink_file,
            "Python file, and the function in it when it holds several. Either this or `import`.",
            '"sinks/stamp.py:stamp"',
        ),
    ] = None
    import_path: Annotated[
        str,
        Key(
            code.import_path,
            "Module and attribute of an installed package, or the name under which a package offers a sink (its entry "
            "point in the group `lonedot.sinks`). Either this or `file`.",
            '"lonedot.sinks.builtin.x_recipient:x_recipient"',
        ),
    ] = ""
    enabled: Annotated[bool, Key(v.boolean, "With false it stays in the file and never runs.", "true")] = True
    settings: Annotated[
        Mapping[str, Setting],
        Key(
            code.property_bag,
            "Texts and numbers for the sink itself. Case does not count in their names.",
            '{ field = "X-Stamp" }',
        ),
    ] = {}

    @property
    def row(self) -> Row:
        """As the registry would have it."""
        sink = self.import_path or str(self.file)
        status = Status.ENABLED if self.enabled else Status.DISABLED
        return row_from(self, sink, status, Origin.CONFIG, self.settings, {})


class Pickup(msgspec.Struct, frozen=True, kw_only=True):
    """The folder where programs leave messages as files."""

    enabled: Annotated[bool, Key(v.boolean, "Whether the folder is looked at.", "true")] = True
    folder: Annotated[
        Path,
        Key(
            v.path,
            "Who can write there can send mail in any name. It must be on the spool's file system.",
            '"spool/pickup"',
            "`pickup` in the spool",
        ),
    ] = Path()
    poll_seconds: Annotated[
        float,
        Key(v.number(0.05, 3600), "How often it is looked at.", "1"),
    ] = 1.0


class Badmail(msgspec.Struct, frozen=True, kw_only=True):
    """The folder for what can be neither delivered nor returned."""

    folder: Annotated[
        Path, Key(v.path, "Made with mode 0700.", '"spool/badmail"', "`badmail` in the spool")
    ] = Path()


class Sendmail(msgspec.Struct, frozen=True, kw_only=True):
    """The socket by which programs of this machine hand over mail (`lonedot sendmail`)."""

    enabled: Annotated[bool, Key(v.boolean, "Whether the socket is there.", "true")] = True
    socket: Annotated[
        Path,
        Key(
            v.path,
            "Where it is. Others than the relay's own user reach it only outside the spool, whose folder is closed. "
            "`lonedot sendmail` looks at `/run/lonedot/submit.sock` without being told.",
            '"/run/lonedot/submit.sock"',
            "`submit.sock` in the spool",
        ),
    ] = Path()
    group: Annotated[
        str,
        Key(
            v.text,
            "Whose members may hand over mail, in any name; `*` is everybody who has a login here. Without it only "
            "root and the relay's own user may.",
            '"mail"',
        ),
    ] = ""
    domain: Annotated[
        str,
        Key(
            a.host_name,
            "What is added to an address without a domain, such as `root`.",
            '"example.com"',
            "the hostname",
        ),
    ] = ""


class Source(SourceKeys, frozen=True, kw_only=True):
    """A virtual server: listeners, folders and bindings of its own. Source 1 is always there."""

    pickup: Annotated[
        Path | None,
        Key(
            v.path,
            "A Pickup folder of its own, on the spool's file system; that of source 1 is the one of `[pickup]`.",
            '"spool/pickup-2"',
            "none",
        ),
    ] = None
    badmail: Annotated[
        Path,
        Key(
            v.path,
            "Its folder for what can be neither delivered nor returned; that of source 1 is the one of `[badmail]`.",
            '"spool/badmail-2"',
            "`badmail-` and the number in the spool",
        ),
    ] = Path()
    drop: Annotated[
        Path,
        Key(
            v.path,
            "Its folder for routes with `drop = true`; that of source 1 is the one of `[drop]`.",
            '"spool/drop-2"',
            "`drop-` and the number in the spool",
        ),
    ] = Path()


class Metrics(msgspec.Struct, frozen=True, kw_only=True):
    """The relay's figures over HTTP: `/metrics` for Prometheus, `/healthz` for whoever watches it."""

    address: Annotated[
        a.Endpoint | None,
        Key(
            a.listen_endpoint,
            "Address and port. There is no login: who reaches it reads how much mail there is, and the names of "
            "listeners and sinks. Without it nothing listens.",
            '"127.0.0.1:9125"',
        ),
    ] = None


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """A configuration without a fault."""

    file: Path
    server: Server
    listeners: tuple[Listener, ...]
    routes: tuple[Route, ...]
    sinks: tuple[Sink, ...]
    pickup: Pickup
    badmail: Badmail
    sendmail: Sendmail
    sources: tuple[Source, ...]
    """The virtual servers by number, the first among them; each with its name and its folders."""
    domains: tuple[Domain, ...] = ()
    rewrites: tuple[Rewrite, ...] = ()
    pop3: tuple[Pop3, ...] = ()
    metrics: Metrics = Metrics()
    drop: Drop = Drop()
    revision: str
    """12 hexadecimal digits over the effective values; passwords are left out of it."""

    @property
    def served(self) -> frozenset[int]:
        """Numbers of the virtual servers that take mail."""
        by_folder = {source.number for source in self.sources if source.pickup is not None}
        by_fetching = {account.source for account in self.pop3}
        return frozenset(by_folder | by_fetching | {listener.source for listener in self.listeners})
