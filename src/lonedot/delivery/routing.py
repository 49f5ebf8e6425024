"""Where mail for an address goes: the settings of a route, the choice among routes, the next hops of one.

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

from lonedot.protocol.client import Login
from lonedot.queue.retry import RetrySchedule
from lonedot.terms.address import Address

__all__ = [
    "IMPLICIT_TLS_PORT",
    "NextHop",
    "NoNextHop",
    "Resolver",
    "Route",
    "RouteTable",
    "SmarthostResolver",
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
    """A host to connect to: a name that is looked up, or an address."""

    host: str
    port: int = 25

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One route with everything that an attempt over it needs."""

    name: str
    to: tuple[str, ...] = ("*",)
    """`*`, `example.com`, `*.example.com` or `.example.com` (what is below it), `someone@example.com`."""
    smarthosts: tuple[NextHop, ...]
    """Tried in turn when a connection is opened."""
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
    messages_per_connection: int = 100
    """Some servers take no more over one connection, and a new one now and then finds hosts that came back."""
    recipients_per_transaction: int = 100
    """What every server must take (RFC 5321 §4.5.3.1.8)."""
    idle_seconds: float = 15.0
    """How long a connection without work is kept."""
    timeouts: Timeouts = Timeouts()
    schedule: RetrySchedule = RetrySchedule()


def matches(pattern: str, address: Address) -> bool:
    """True when mail for `address` falls under `pattern`."""
    if pattern == "*":
        return True
    wanted = pattern.lower().encode()
    if b"@" in wanted:
        return _folded(address.octets) == wanted
    domain = _folded(address.domain)
    if wanted.startswith((b"*.", b".")):
        return domain.endswith(wanted.removeprefix(b"*"))
    # An address without a domain (`postmaster`) is under `*` alone.
    return bool(domain) and domain == wanted


def _folded(octets: bytes) -> bytes:
    return (
        octets.lower()
        if octets.isascii()
        else octets.decode("utf-8", "surrogateescape").lower().encode("utf-8", "surrogateescape")
    )


def choose_route(address: Address, routes: Sequence[Route]) -> Route | None:
    """The first route one of whose patterns takes `address`; None when none does."""
    for route in routes:
        for pattern in route.to:
            if matches(pattern, address):
                return route
    return None


class RouteTable:
    """The routes of one configuration: choice by address, with the answer for recent domains kept."""

    def __init__(self, routes: Sequence[Route]) -> None:
        """Raises ValueError when two routes have one name."""
        self._routes = tuple(routes)
        self._by_name = {route.name: route for route in routes}
        if len(self._by_name) != len(self._routes):
            raise ValueError("two routes have the same name")
        # A domain decides alone, unless some pattern names a whole address.
        self._by_domain_only = not any("@" in pattern for route in routes for pattern in route.to)
        self._known: dict[bytes, Route | None] = {}

    def __iter__(self) -> Iterator[Route]:
        return iter(self._routes)

    def by_name(self, name: str) -> Route | None:
        return self._by_name.get(name)

    def choose(self, address: Address) -> Route | None:
        """As `choose_route`."""
        if not self._by_domain_only:
            return choose_route(address, self._routes)
        domain = address.octets.rpartition(b"@")[2] if b"@" in address.octets else b""
        known = self._known
        if domain in known:
            return known[domain]
        route = choose_route(address, self._routes)
        if len(known) >= 10_000:
            known.clear()
        known[domain] = route
        return route

    def name_for(self, address: Address) -> str | None:
        """The name of the route, for the scheduler."""
        route = self.choose(address)
        return None if route is None else route.name


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
    """Where the mail should go could not be found out."""


class SmarthostResolver:
    """The hosts are those of the route."""

    def destination(self, route: Route, domain: bytes) -> str:
        return ""

    async def next_hops(self, route: Route, destination: str) -> Sequence[NextHop]:
        return route.smarthosts
