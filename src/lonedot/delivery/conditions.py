"""What a route asks of a message besides the address of the recipient.

Rules: all kinds of condition must hold; of one kind any one is enough. Header fields are looked at last, and only when
a route asks for them: that is what needs the octets. A pattern cannot cost more than the text is long.
"""

from __future__ import annotations

import fnmatch
import functools
import ipaddress
import re
from collections.abc import Callable

import msgspec

from lonedot.message.header import HeaderView
from lonedot.terms.address import Address

__all__ = ["NULL_SENDER", "Circumstances", "Conditions", "HeaderPattern", "matches"]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

NULL_SENDER = "<>"
"""The pattern of the null reverse-path: reports and other mail that nobody may answer."""


class HeaderPattern(msgspec.Struct, frozen=True):
    """A header field whose value, unfolded, fits a pattern with `*` and `?`, without regard to case."""

    name: str
    pattern: str

    def __str__(self) -> str:
        return f"{self.name}={self.pattern}"

    def fits(self, head: bytes) -> bool:
        return any(
            _wildcard(self.pattern).fullmatch(field.value.decode("utf-8", "replace").strip())
            for field in HeaderView(head).every(self.name)
        )


class Circumstances(msgspec.Struct, frozen=True):
    """What is known of a message when its route is chosen."""

    sender: Address
    listener: str = ""
    """Its name; of a message that came another way `pickup`, `dsn`, …"""
    client: str = ""
    """Address of the client; anything else is in no network."""
    size: int = 0
    """Octets of the queued form."""
    head: Callable[[], bytes] = bytes
    """Reads the header section of the queued form."""


class Conditions(msgspec.Struct, frozen=True):
    """Empty ones always hold."""

    senders: tuple[str, ...] = ()
    listeners: tuple[str, ...] = ()
    networks: tuple[Network, ...] = ()
    over: int = -1
    """More octets than this; -1: any number."""
    under: int = -1
    """Fewer octets than this; -1: any number."""
    headers: tuple[HeaderPattern, ...] = ()

    def failed(self, message: Circumstances) -> str:
        """The first condition that does not hold, in words; empty when all do."""
        if self.senders and not any(matches(pattern, message.sender) for pattern in self.senders):
            return f"from {message.sender.text} is not under {_listed(self.senders)}"
        if self.listeners and message.listener not in self.listeners:
            return f"listener {message.listener or '(none)'} is not {_listed(self.listeners)}"
        if self.networks and not _is_in(message.client, self.networks):
            return f"client {message.client or '(none)'} is not in {_listed(self.networks)}"
        if self.over >= 0 and message.size <= self.over:
            return f"size {message.size} is not over {self.over}"
        if self.under >= 0 and message.size >= self.under:
            return f"size {message.size} is not under {self.under}"
        if self.headers:
            head = message.head()
            if not any(pattern.fits(head) for pattern in self.headers):
                return f"no header field fits {_listed(self.headers)}"
        return ""


def matches(pattern: str, address: Address) -> bool:
    """True when `address` falls under `pattern`."""
    if pattern == "*":
        return True
    if pattern == NULL_SENDER:
        return address.is_null
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


@functools.lru_cache(maxsize=1000)
def _wildcard(pattern: str) -> re.Pattern[str]:
    # Brackets are plain signs here: subjects are full of them.
    return re.compile(fnmatch.translate(pattern.replace("[", "[[]")), re.IGNORECASE)


def _is_in(client: str, networks: tuple[Network, ...]) -> bool:
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in networks)


def _listed(items: tuple[object, ...]) -> str:
    shown = ", ".join(str(item) for item in items[:5])
    return shown if len(items) <= 5 else f"{shown}, …"
