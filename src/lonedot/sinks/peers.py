"""Lists of networks, logins and names as the settings of sinks have them: texts with commas or spaces between."""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

__all__ = ["Network", "client_address", "is_client_in", "listed", "networks"]

Network = IPv4Network | IPv6Network

LIST_LIMIT = 1000
"""Entries of one list."""

_SEPARATORS = re.compile(r"[\s,;]+")


@lru_cache(maxsize=256)
def listed(text: str) -> frozenset[str]:
    """The words of a list.

    Raises:
        ValueError: there are too many.
    """
    words = frozenset(word for word in _SEPARATORS.split(text) if word)
    if len(words) > LIST_LIMIT:
        raise ValueError(f"a list of {len(words)}; at most {LIST_LIMIT}")
    return words


@lru_cache(maxsize=256)
def networks(text: str, key: str = "networks") -> tuple[Network, ...]:
    """The networks of a list: `192.0.2.0/24 2001:db8::/32 192.0.2.7`.

    Raises:
        ValueError: one is none; the words name `key`.
    """
    found: list[Network] = []
    for word in sorted(listed(text)):
        try:
            found.append(ip_network(word))
        except ValueError as error:
            raise ValueError(f"{key}: {word!r} is no network ({error}); write 192.0.2.0/24") from error
    return tuple(found)


def client_address(client: str) -> Network | None:
    """The address of a client as a network of one; None: it has none (a local socket). IPv4 in IPv6 counts as IPv4."""
    try:
        address = ip_address(client.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return ip_network(address)


def is_client_in(client: str, among: tuple[Network, ...]) -> bool:
    """The client's address lies in one of the networks."""
    if not among:
        return False
    one = client_address(client)
    return one is not None and any(
        one.version == network.version and one.network_address in network for network in among
    )
