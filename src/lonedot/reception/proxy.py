"""The PROXY protocol, versions 1 and 2: what a load balancer says of its client before anything else is said.

Only connections from `proxy_from` are read this way, and they must begin with a header: nothing is greeted before it.
Rules: the header is bounded and must come within `HEADER_SECONDS`; a connection that begins otherwise is cut, for there
is nobody to answer to. A client that the header does not name (`UNKNOWN`, `LOCAL`, a unix socket) has no address and so
no rights: those of the proxy are not lent to it.

The grammar is that of HAProxy's document "The PROXY protocol", §2.1 and §2.2.
"""

from __future__ import annotations

import asyncio
import re
import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

import msgspec

__all__ = ["HEADER_SECONDS", "Preface", "ProxyFault", "ProxyHeader", "read_proxy_header"]

HEADER_SECONDS = 10.0
"""So long a proxy may take for its header."""
V1_LIMIT = 107
"""Octets of a version 1 header with its CRLF (§2.1)."""
V2_LIMIT = 4096
"""Octets of addresses and additions in a version 2 header; the format allows 65535, real ones have a few hundred."""

_V1_START = b"PROXY "
_V2_START = b"\r\n\r\n\0\r\nQUIT\n"
_V2_FIXED = struct.Struct("!12sBBH")
_PORT = re.compile(r"0|[1-9][0-9]{0,4}")
_LOCAL, _PROXY = 0, 1
_INET, _INET6 = 1, 2
_STREAM = 1


class ProxyFault(Exception):
    """What came is no header of the protocol; the words are for our log."""


class ProxyHeader(msgspec.Struct, frozen=True):
    """Whom the proxy speaks for."""

    client: str
    """Address of the client; empty when the header names none."""
    port: int
    used: int
    """Octets of the header; what follows is the client's."""


def read_proxy_header(octets: bytes) -> ProxyHeader | None:
    """The header at the start of a connection; None while it is not whole yet.

    Raises:
        ProxyFault: it is none, or it is too long.
    """
    if octets.startswith(_V2_START):
        return _read_v2(octets)
    if octets.startswith(_V1_START):
        return _read_v1(octets)
    if _V2_START.startswith(octets) or _V1_START.startswith(octets):
        return None
    raise ProxyFault("the connection does not begin with a PROXY header")


def _read_v1(octets: bytes) -> ProxyHeader | None:
    end = octets.find(b"\r\n", 0, V1_LIMIT)
    if end < 0:
        if len(octets) >= V1_LIMIT:
            raise ProxyFault(f"a PROXY line of more than {V1_LIMIT} octets")
        return None
    try:
        words = octets[len(_V1_START) : end].decode("ascii").split(" ")
    except UnicodeDecodeError:
        raise ProxyFault("a PROXY line that is not ASCII") from None
    if words[0] == "UNKNOWN":
        return ProxyHeader("", 0, end + 2)
    if len(words) != 5 or words[0] not in ("TCP4", "TCP6"):
        raise ProxyFault(f"a PROXY line that says {words[0][:20]!r} with {len(words)} words")
    kind = IPv4Address if words[0] == "TCP4" else IPv6Address
    try:
        client, _ = kind(words[1]), kind(words[2])
    except ValueError:
        raise ProxyFault("a PROXY line with an address that is none") from None
    ports = [int(word) if _PORT.fullmatch(word) else -1 for word in words[3:]]
    if "%" in words[1] or not all(0 <= port <= 65535 for port in ports):
        raise ProxyFault("a PROXY line with a port that is none")
    return ProxyHeader(str(client), ports[0], end + 2)


def _read_v2(octets: bytes) -> ProxyHeader | None:
    if len(octets) < _V2_FIXED.size:
        return None
    _, version_command, family_protocol, length = _V2_FIXED.unpack_from(octets)
    version, command = version_command >> 4, version_command & 15
    if version != 2 or command not in (_LOCAL, _PROXY):
        raise ProxyFault(f"a PROXY header of version {version}, command {command}")
    if length > V2_LIMIT:
        raise ProxyFault(f"a PROXY header of {length} octets; {V2_LIMIT} are read")
    used = _V2_FIXED.size + length
    if len(octets) < used:
        return None
    block = octets[_V2_FIXED.size : used]
    family, protocol = family_protocol >> 4, family_protocol & 15
    if command == _LOCAL or family not in (_INET, _INET6) or protocol != _STREAM:
        return ProxyHeader("", 0, used)
    width = 4 if family == _INET else 16
    if len(block) < 2 * width + 4:
        raise ProxyFault("a PROXY header that is too short for its addresses")
    client = IPv4Address(block[:4]) if family == _INET else IPv6Address(block[:16])
    (port,) = struct.unpack_from("!H", block, 2 * width)
    return ProxyHeader(str(client), port, used)


class Preface:
    """The start of one connection, until its header is read or it is cut."""

    __slots__ = ("_heard", "_introduced", "_refused", "_timer")

    def __init__(self, introduced: Callable[[str, bytes], None], refused: Callable[[str], None]) -> None:
        """`introduced` gets the client's address and what it has said already; `refused` why there is none."""
        self._introduced = introduced
        self._refused = refused
        self._heard = b""
        words = f"no PROXY header within {HEADER_SECONDS:g} seconds"
        self._timer = asyncio.get_running_loop().call_later(HEADER_SECONDS, refused, words)

    def feed(self, octets: bytes) -> None:
        self._heard += octets
        try:
            header = read_proxy_header(self._heard)
        except ProxyFault as fault:
            self.stop()
            self._refused(str(fault))
            return
        if header is not None:
            self.stop()
            self._introduced(header.client, self._heard[header.used :])

    def stop(self) -> None:
        """Nobody waits for it any more."""
        self._timer.cancel()
