"""What a listener is: address, who may relay, line policy, bounds. Values; `app` makes them from the configuration."""

from __future__ import annotations

import ssl
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address

import msgspec

from lonedot.directory.directory import Directory
from lonedot.directory.rewriting import Rewriting
from lonedot.message.door import DoorPolicy, LineEnds, LongLines
from lonedot.message.edits import AnyEdit
from lonedot.protocol.options import ServerOptions
from lonedot.reception.logins import Logins
from lonedot.reception.sockets import Place
from lonedot.terms.address import Address

__all__ = [
    "STRANGER",
    "TRUSTED",
    "ListenerSettings",
    "is_in",
    "matches_domain",
    "with_logins",
    "with_xclient",
]

_MECHANISMS = (b"PLAIN", b"LOGIN")

STRANGER = DoorPolicy()
TRUSTED = DoorPolicy(LineEnds.NORMALIZE, LongLines.ENCODE, add_missing=True)


class ListenerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One listener. Times in seconds."""

    name: str
    host: str
    """A path is that of a unix socket: who can connect is trusted, there is nobody else to ask."""
    port: int
    group: str = ""
    """Whose members may connect to a unix socket."""
    options: ServerOptions
    """Without AUTH; `with_logins` adds it for those sessions that have somebody to ask."""
    tls: ssl.SSLContext | None = None
    logins: Logins | None = None
    """Who may log in; who has is trusted."""
    relay_from: tuple[IPv4Network | IPv6Network, ...] = ()
    proxy_from: tuple[IPv4Network | IPv6Network, ...] = ()
    """Connections from there begin with a header of the PROXY protocol."""
    xclient_from: tuple[IPv4Network | IPv6Network, ...] = ()
    """Clients there may say by XCLIENT whom they speak for."""
    edits: tuple[AnyEdit, ...] = ()
    """What is done to every message from here, in the ledger."""
    relay_to: tuple[bytes, ...] = ()
    """Domains in lower case; `*.example.com` is everything below it."""
    postmaster: Address
    directory: Directory | None = None
    """The local domains, whose mail is taken from anybody."""
    rewriting: Rewriting | None = None
    """What addresses become in custody. Whether a recipient exists is asked of that."""
    verifies_for_trusted: bool = False
    """VRFY and EXPN tell trusted clients what the directory says."""
    verifies_for_all: bool = False
    """And VRFY everybody."""
    door: tuple[DoorPolicy, DoorPolicy] = (STRANGER, TRUSTED)
    """What strangers may bring, and what trusted clients may."""
    max_connections: int = 1000
    max_connections_per_client: int = 100
    command_seconds: float = 300.0
    data_seconds: float = 180.0
    session_seconds: float = 7200.0

    @property
    def place(self) -> Place:
        return Place(self.name, self.host, self.port, self.group)


@lru_cache(maxsize=64)
def with_logins(options: ServerOptions) -> ServerOptions:
    """The same face with AUTH."""
    return msgspec.structs.replace(options, auth_mechanisms=_MECHANISMS)


@lru_cache(maxsize=64)
def with_xclient(options: ServerOptions) -> ServerOptions:
    """The same face with XCLIENT."""
    return msgspec.structs.replace(options, xclient=True)


def is_in(client: str, networks: tuple[IPv4Network | IPv6Network, ...]) -> bool:
    """True when the client's address lies in one of the networks; an IPv4 address mapped into IPv6 counts as IPv4."""
    try:
        address = ip_address(client.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    if mapped is not None:
        address = mapped
    return any(address in network for network in networks if network.version == address.version)


def matches_domain(domain: bytes, patterns: tuple[bytes, ...]) -> bool:
    """True when `domain` (lower case) is one of the patterns, or below one that begins with `*.`."""
    return any(
        domain == pattern or (pattern.startswith(b"*.") and domain.endswith(pattern[1:]))
        for pattern in patterns
    )
