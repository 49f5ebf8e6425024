"""Where mail for an address goes: the settings of a route with its target, the choice among routes.

Rules: the first route that matches is taken; domains and local parts are compared without regard to case (ASCII and
beyond); a choice is a pure function. Finding the next hops of a route is the work of a `Resolver`, asked once per
connection and never per message, so that one that asks DNS for MX records fits in the same place.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from lonedot.delivery.conditions import Circumstances, Conditions, matches
from lonedot.message.filed import LineEnd
from lonedot.protocol.client import Login
from lonedot.queue.pace import Rate
from lonedot.queue.retry import RetrySchedule
from lonedot.terms.address import Address

__all__ = [
    "IMPLICIT_TLS_PORT",
    "Circumstances",
    "Conditions",
    "Discard",
    "Drop",
    "Family",
    "Hold",
    "Lmtp",
    "LocalNames",
    "Maildir",
    "Mx",
    "NextHop",
    "NoNextHop",
    "Pipe",
    "Resolver",
    "Route",
    "RouteTable",
    "SmarthostResolver",
    "Smarthosts",
    "Target",
    "Timeouts",
    "TlsPolicy",
    "choose_route",
    "matches",
]

IMPLICIT_TLS_PORT = 465
"""RFC 8314 §7.3: TLS comes first there."""


class TlsPolicy(enum.Enum):
    OFF = "off"
    OPPORTUNISTIC = "opportunistic"
    """STARTTLS where offered, any certificate; without TLS when the handshake fails."""
    REQUIRED = "required"
    """No mail without TLS; any certificate."""
    VERIFIED = "verified"
    """No mail without TLS to a host that proves its name."""


class Timeouts(msgspec.Struct, frozen=True):
    """Seconds of silence that are borne (RFC 5321 §4.5.3.2)."""

    connect: float = 30.0
    """For the connection, and for its TLS handshake."""
    greeting: float = 300.0
    command: float = 300.0
    """For the reply to EHLO, STARTTLS, AUTH, MAIL and RCPT."""
    data: float = 120.0
    """For the 354."""
    block: float = 180.0
    """For a piece of content to be taken."""
    end: float = 600.0
    """For the reply to the end of data: too short, and a slow receiver gets copies."""
    quit: float = 5.0


class NextHop(msgspec.Struct, frozen=True, order=True):
    """A host to connect to: a name that is looked up, an address, or the path of a Unix socket with port 0."""

    host: str
    port: int = 25
    addresses: tuple[str, ...] = ()
    """Where they are known already, in the order in which they are tried; else the host is looked up."""

    @property
    def is_socket(self) -> bool:
        return self.port == 0

    def __str__(self) -> str:
        if self.is_socket:
            return f"unix:{self.host}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Family(enum.Enum):
    """Which addresses of a host are tried."""

    AUTO = "auto"
    """IPv6 and IPv4 in turn, IPv6 first."""
    IPV4 = "4"
    IPV6 = "6"


class Mx(msgspec.Struct, frozen=True, tag="mx"):
    """The mail exchangers of the recipient's domain (RFC 5321 §5.1)."""

    family: Family = Family.AUTO
    port: int = 25


class Smarthosts(msgspec.Struct, frozen=True, tag="smarthost"):
    """Fixed hosts, tried in turn when a connection is opened."""

    hosts: tuple[NextHop, ...]


class Lmtp(msgspec.Struct, frozen=True, tag="lmtp"):
    """A delivery agent that answers for each recipient (RFC 2033)."""

    hosts: tuple[NextHop, ...]
    """Hosts and sockets, tried in turn."""


class LocalNames(msgspec.Struct, frozen=True):
    """How a local domain reads its addresses."""

    domain: bytes
    """In lower case."""
    extension: str = ""
    """What parts a name from its extension; empty: nothing does."""
    is_case_sensitive: bool = False


class Maildir(msgspec.Struct, frozen=True, tag="maildir"):
    """A folder per recipient, of one file per message."""

    path: str
    """Absolute; `{local}` and `{domain}` stand for those of the recipient."""
    line_end: LineEnd = LineEnd.LF
    create: bool = False
    """A Maildir that is not there is made, below what stands before the first placeholder. Then whoever may send to
    the route decides what folders there are."""
    names: tuple[LocalNames, ...] = ()
    """Domains that are not here have no extensions, and their case does not count."""


class Pipe(msgspec.Struct, frozen=True, tag="pipe"):
    """A program that takes one message for one recipient on standard input."""

    command: tuple[str, ...]
    """Program and arguments; `{sender}`, `{recipient}` and `{id}` as whole arguments."""
    user: str = ""
    """Whose rights the program has. Needed where the relay runs as root, which lends its own to nobody."""
    seconds: float = 300.0
    """How long it may run before it is killed."""
    memory: int = 1024 * 1024 * 1024
    """Octets of address space that it may have."""
    environment: tuple[tuple[str, str], ...] = ()
    """Variables besides PATH and LANG; nothing else is passed on."""
    line_end: LineEnd = LineEnd.LF


class Drop(msgspec.Struct, frozen=True, tag="drop"):
    """The Drop folder of the virtual server that took the message."""

    folders: tuple[tuple[int, Path], ...]
    """Number of the virtual server, and its folder; the first one serves those that are gone."""
    envelope: bool = True
    """The file begins with `x-sender` and `x-receiver` lines; else each recipient has a file with trace fields."""

    def folder_of(self, server: int) -> Path:
        return dict(self.folders).get(server, self.folders[0][1])


class Discard(msgspec.Struct, frozen=True, tag="discard"):
    """Nowhere: it counts as delivered."""


class Hold(msgspec.Struct, frozen=True, tag="hold"):
    """Nowhere until a person releases it."""

    words: str


Target = Mx | Smarthosts | Lmtp | Maildir | Pipe | Drop | Discard | Hold


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One route with everything that an attempt over it needs."""

    name: str
    to: tuple[str, ...] = ("*",)
    """`*`, `example.com`, `*.example.com` or `.example.com` (what is below it), `someone@example.com`."""
    conditions: Conditions | None = None
    """What else a message must be like."""
    target: Target
    tls: TlsPolicy = TlsPolicy.OPPORTUNISTIC
    tls_ca: Path | None = None
    """PEM file of the issuers that VERIFIED believes; None: those of the system."""
    login: Login | None = None
    allow_plaintext_login: bool = False
    """Without it the password is sent under TLS or to a loopback address only."""
    ehlo_name: str
    ehlo_ignore: frozenset[str] = frozenset()
    """EHLO keywords that count as not offered; `8BITMIME` makes every copy 7-bit."""
    connections: int = 20
    """At one time. More may be refused by the next hop; fewer waits longer on a slow one."""
    rate: Rate | None = None
    """Messages to one next hop."""
    messages_per_connection: int = 100
    """Some servers take no more over one connection, and a new one now and then finds hosts that came back."""
    recipients_per_transaction: int = 100
    """What every server must take (RFC 5321 §4.5.3.1.8)."""
    idle_seconds: float = 15.0
    """How long a connection without work is kept."""
    timeouts: Timeouts = Timeouts()
    schedule: RetrySchedule = RetrySchedule()


def choose_route(
    address: Address, routes: Sequence[Route], message: Circumstances | None = None
) -> Route | None:
    """The first route one of whose patterns takes `address` and whose conditions hold; None when none does.

    Without `message` conditions are taken to hold: some message could go that way.
    """
    for route in routes:
        for pattern in route.to:
            if matches(pattern, address):
                if route.conditions is None or message is None or not route.conditions.failed(message):
                    return route
                break
    return None


class RouteTable:
    """The routes of one configuration: choice by address and message, with the answer for recent domains kept."""

    def __init__(self, routes: Sequence[Route]) -> None:
        """Raises ValueError when two routes have one name."""
        self.take(routes)

    def take(self, routes: Sequence[Route]) -> None:
        """Other routes, in one step; raises as the constructor, and then nothing has changed."""
        if len({route.name for route in routes}) != len(routes):
            raise ValueError("two routes have the same name")
        self._routes = tuple(routes)
        self._by_name = {route.name: route for route in routes}
        # A domain decides alone, unless some pattern names a whole address.
        self._by_domain_only = not any("@" in pattern for route in routes for pattern in route.to)
        self.is_conditional = any(route.conditions is not None for route in routes)
        """Some route asks for more than the address."""
        self._known: dict[bytes, Route | None] = {}

    def __iter__(self) -> Iterator[Route]:
        return iter(self._routes)

    def by_name(self, name: str) -> Route | None:
        return self._by_name.get(name)

    def choose(self, address: Address, message: Circumstances | None = None) -> Route | None:
        """As `choose_route`."""
        if not self._by_domain_only or (message is not None and self.is_conditional):
            return choose_route(address, self._routes, message)
        domain = address.octets.rpartition(b"@")[2] if b"@" in address.octets else b""
        known = self._known
        if domain in known:
            return known[domain]
        route = choose_route(address, self._routes)
        if len(known) >= 10_000:
            known.clear()
        known[domain] = route
        return route


class Resolver(Protocol):
    """Finds the hosts of a route."""

    def destination(self, route: Route, domain: bytes) -> str:
        """What connections are shared by: recipients with equal destinations go over the same ones."""
        ...

    def next_hops(self, route: Route, destination: str) -> Awaitable[Sequence[NextHop]]:
        """Hosts in the order in which they are to be tried.

        Raises:
            NoNextHop: there is none, for now or for good.
        """
        ...


class NoNextHop(Exception):
    """Where the mail should go could not be found out, or it can go nowhere."""

    def __init__(self, words: str, status: str = "4.4.4", is_final: bool = False) -> None:
        """`status` is an enhanced status code; `is_final`: asking again would not help."""
        super().__init__(words)
        self.status = status
        self.is_final = is_final


class SmarthostResolver:
    """The hosts are those of the route; it finds none for a target of another kind."""

    def destination(self, route: Route, domain: bytes) -> str:
        return ""

    async def next_hops(self, route: Route, destination: str) -> Sequence[NextHop]:
        match route.target:
            case Smarthosts(hosts) | Lmtp(hosts):
                return hosts
            case _:
                raise NoNextHop(f"route {route.name} names no host")
