"""Readers of names, addresses and networks. See `values` for what a reader is."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path

import msgspec

from lonedot.config.values import Unfit, path, show, text
from lonedot.terms.address import Address

__all__ = [
    "KEYWORDS",
    "Endpoint",
    "Network",
    "address",
    "domain",
    "domain_set",
    "host_name",
    "is_host_name",
    "keyword",
    "listen_endpoint",
    "listen_place",
    "name_server",
    "network",
    "next_hop",
    "pattern",
]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

KEYWORDS = (
    "8BITMIME",
    "AUTH",
    "CHUNKING",
    "DSN",
    "ENHANCEDSTATUSCODES",
    "PIPELINING",
    "SIZE",
    "SMTPUTF8",
    "STARTTLS",
)
"""The EHLO keywords that can be switched off."""


class Endpoint(msgspec.Struct, frozen=True, order=True):
    """Host (name or address, without brackets) and port; or the path of a unix socket, and 0."""

    host: str
    port: int

    @property
    def is_unix(self) -> bool:
        return self.host.startswith("/")

    def __str__(self) -> str:
        if self.is_unix:
            return f"unix:{self.host}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")


def is_host_name(name: str, *, dots: int = 0) -> bool:
    """A domain name in ASCII with at least so many dots (RFC 1123 §2.1; an underscore is forgiven)."""
    labels = name.split(".")
    if not 0 < len(name) <= 253 or len(labels) <= dots or labels[-1].isdigit():
        return False
    return all(_LABEL.fullmatch(label) for label in labels)


def host_name(value: object, folder: Path) -> str:
    """A full domain name, such as a peer is told in EHLO (RFC 5321 §2.3.5)."""
    name = text(value, folder).strip().rstrip(".")
    if not is_host_name(name, dots=1):
        raise Unfit(
            f"{show(value)} is not a full domain name",
            'write the name by which others know this relay, such as "relay.example.com"',
        )
    return name.lower()


def domain(value: object, folder: Path) -> str:
    """A domain in lower case; one in other scripts is kept as it is written."""
    name = text(value, folder).strip().rstrip(".").lower()
    ascii_name = name
    if not name.isascii():
        try:
            ascii_name = name.encode("idna").decode("ascii")
        except UnicodeError:
            ascii_name = ""
    if not is_host_name(ascii_name):
        raise Unfit(f"{show(value)} is not a domain", 'write a domain such as "example.com"')
    return name


def domain_set(value: object, folder: Path) -> str:
    """`example.com`, or `*.example.com` for everything below it. A lone `*` would make an open relay."""
    name = text(value, folder).strip()
    if name in ("*", "*.", "."):
        raise Unfit(
            '"*" would take mail for every domain from anybody: an open relay',
            "name your own domains; for clients that may send anywhere use relay_from with their networks",
        )
    if name.startswith("*."):
        rest = domain(name[2:], folder)
        if "." not in rest:
            raise Unfit(f"{show(value)} covers a whole top-level domain", "name your own domains")
        return "*." + rest
    return domain(name, folder)


def pattern(value: object, folder: Path) -> str:
    """Which recipients: `*`, a domain (`*@` may stand before it), `*.example.com`, or one address."""
    name = text(value, folder).strip().removeprefix("*@")
    if name == "*":
        return name
    try:
        if "@" in name:
            if "*" in name:
                raise Unfit("", "")
            return address(name, folder).text
        if name.startswith("*."):
            return "*." + domain(name[2:], folder)
        return domain(name, folder)
    except Unfit:
        raise Unfit(
            f"{show(value)} matches nothing",
            'write "*", "example.com", "*.example.com" or one address',
        ) from None


def address(value: object, folder: Path) -> Address:
    """One mail address, `local@domain`."""
    name = text(value, folder).strip()
    local, at, rest = name.rpartition("@")
    good = bool(at and local) and len(local.encode()) <= 64 and not re.search(r"[\s<>()\[\],;:\\\"@]", local)
    if good and not local.startswith(".") and not local.endswith(".") and ".." not in local:
        try:
            return Address(f"{local}@{domain(rest, folder)}".encode())
        except Unfit:
            pass
    raise Unfit(
        f"{show(value)} is not a mail address", 'write it as "name@example.com", without angle brackets'
    )


def network(value: object, folder: Path) -> Network:
    """A network in CIDR form; one address alone is a network of one."""
    words = text(value, folder).strip()
    try:
        return ipaddress.ip_network(words)
    except ValueError:
        pass
    try:
        meant = ipaddress.ip_network(words, strict=False)
    except ValueError:
        raise Unfit(
            f"{show(value)} is not a network", 'write it as "192.168.1.0/24" or "2001:db8::/32"'
        ) from None
    raise Unfit(
        f"{show(value)} has bits set behind the mask",
        f'write "{meant}", or a longer mask if you mean one host',
    )


def _endpoint(words: str, default_port: int | None, lowest_port: int) -> Endpoint | None:
    if words.startswith("["):
        host, bracket, rest = words[1:].partition("]")
        if not bracket or not _is_ip(host) or ":" not in host:
            return None
        port_words = rest[1:] if rest.startswith(":") else None
        if rest and port_words is None:
            return None
    elif words.count(":") > 1:
        return None
    else:
        host, colon, rest = words.partition(":")
        port_words = rest if colon else None
        if not (_is_ip(host) or is_host_name(host)):
            return None
    if port_words is None:
        return None if default_port is None else Endpoint(host, default_port)
    if not (port_words.isascii() and port_words.isdigit() and len(port_words) <= 5):
        return None
    port = int(port_words)
    return Endpoint(host, port) if lowest_port <= port <= 65535 else None


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return "%" not in host


def listen_endpoint(value: object, folder: Path) -> Endpoint:
    """Where to listen: address and port; port 0 takes a free one."""
    if isinstance(value, int) and not isinstance(value, bool):
        raise Unfit(
            f"{value} is a port without an address", f'write "127.0.0.1:{value}" or "0.0.0.0:{value}"'
        )
    found = _endpoint(text(value, folder).strip(), None, 0)
    if found is None:
        raise Unfit(
            f"{show(value)} is not address and port", 'write it as "127.0.0.1:25", "0.0.0.0:25" or "[::1]:25"'
        )
    return found


def listen_place(value: object, folder: Path) -> Endpoint:
    """Address and port, or `unix:` and a path."""
    words = value.strip() if isinstance(value, str) else ""
    if words.startswith("unix:"):
        return Endpoint(str(path(words.removeprefix("unix:"), folder.absolute())), 0)
    return listen_endpoint(value, folder)


def next_hop(value: object, folder: Path) -> Endpoint:
    """A host to send to; without a port it is 25."""
    words = text(value, folder).strip()
    found = _endpoint(words, 25, 1)
    if found is None:
        raise Unfit(
            f"{show(value)} is not host and port", 'write it as "smtp.example.com:587" or "[2001:db8::1]:25"'
        )
    return found


def name_server(value: object, folder: Path) -> Endpoint:
    """A server of DNS by its address; without a port it is 53."""
    words = text(value, folder).strip()
    found = Endpoint(words, 53) if _is_ip(words) else _endpoint(words, 53, 1)
    if found is None or not _is_ip(found.host):
        raise Unfit(
            f"{show(value)} is not the address of a name server",
            'write it as "192.0.2.53" or "[2001:db8::53]:53"',
        )
    return found


def keyword(value: object, folder: Path) -> str:
    """An EHLO keyword that can be switched off."""
    name = text(value, folder).strip().upper()
    if name not in KEYWORDS:
        raise Unfit(f"{show(value)} is not a keyword that can be switched off", f"use {', '.join(KEYWORDS)}")
    return name
