"""Where mail for an address would go: what is asked, and what is told. Values alone; fields are only added."""

from __future__ import annotations

import msgspec

__all__ = ["HostTold", "Led", "ListTold", "Passed", "RouteArguments", "Routed", "Written"]


class RouteArguments(msgspec.Struct, frozen=True):
    """Which mail is meant."""

    address: str
    sender: str = ""
    """Empty: the null reverse-path."""
    listener: str = ""
    client: str = ""
    size: int = 0
    fields: tuple[str, ...] = ()
    """Of the header section, without line ends."""


class Written(msgspec.Struct, frozen=True):
    """An address that is written anew."""

    before: str
    after: str
    rule: str


class ListTold(msgspec.Struct, frozen=True):
    """A list that gets a copy of its own."""

    address: str
    owner: str
    members: int


class Passed(msgspec.Struct, frozen=True):
    """A route that is not taken."""

    route: str
    why: str


class HostTold(msgspec.Struct, frozen=True):
    """A host in the order in which it would be tried."""

    host: str
    """With its port."""
    preference: int | None = None
    """That of an MX."""
    addresses: tuple[str, ...] = ()
    from_cache: bool = False
    """Its addresses were kept from an answer before."""
    ttl_seconds: float = 0.0
    """How long they hold."""


class Routed(msgspec.Struct, frozen=True):
    """What would become of mail for an address."""

    address: str
    passed: tuple[Passed, ...]
    """In the order of the configuration, up to the route that is taken."""
    route: str = ""
    """Empty: none takes it."""
    target: str = ""
    """In words."""
    tls: str = ""
    """Empty where no connection is made."""
    hosts: tuple[HostTold, ...] = ()
    left_out: tuple[str, ...] = ()
    """Hosts that are not tried, and why."""
    problem: str = ""
    """Why it would not arrive: with no route, or by DNS."""
    status: str = ""
    is_final: bool = False
    """The sender would be told at once."""
    from_cache: bool = False
    """The list of hosts was kept from an answer before."""
    ttl_seconds: float = 0.0
    """How long it holds."""
    tls_ca: str = ""
    """The issuers that are believed, where they are not those of the system."""
    written: tuple[Written, ...] = ()
    """Sender and recipient, where they are written anew."""
    lists: tuple[ListTold, ...] = ()
    members: int = 0
    """Addresses that an alias, lists or a catch-all lead to; 0: it goes to itself, with the route above."""
    leads_to: tuple[Led, ...] = ()
    """The first of them."""
    revision: str = ""
    """Of the configuration."""


class Led(msgspec.Struct, frozen=True):
    """An address that another leads to."""

    list: str
    """That of which it is a member; empty: of none."""
    sender: str
    """In whose name it gets its copy."""
    routed: Routed
