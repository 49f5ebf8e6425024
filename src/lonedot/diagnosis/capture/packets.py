"""Frames as TCP segments: link layers, IPv4 and IPv6 with fragments, and the ICMP that says a packet was too big.

Rules that must not break: no octet of a frame is trusted; what does not parse is left out and counted. Fragments are
kept within `FRAGMENTS_LIMIT`, the oldest packet goes first.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from lonedot.diagnosis.capture.files import Frame

__all__ = ["ACK", "FIN", "FRAGMENTS_LIMIT", "RST", "SYN", "Endpoint", "PacketReader", "Segment", "TooBig"]

FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10

FRAGMENTS_LIMIT = 256
"""Packets of which fragments are missing, kept at one time: at most 64 KiB each."""

_TCP, _ICMP, _ICMP6, _FRAGMENT6 = 6, 1, 58, 44
_HOPS6 = frozenset(
    {0, 43, 60}
)  # hop-by-hop, routing, destination options: all say their length in the same way

_IP_TYPES = frozenset({0x0800, 0x86DD})
_VLAN_TYPES = frozenset({0x8100, 0x88A8, 0x9100})

_PPPOE = 0x8864


class Endpoint(NamedTuple):
    """An address in its packed form, and a port."""

    address: bytes
    port: int

    def __str__(self) -> str:
        if len(self.address) == 4:
            return f"{IPv4Address(self.address)}:{self.port}"
        return f"[{IPv6Address(self.address)}]:{self.port}"


class Segment(NamedTuple):
    """One TCP segment."""

    number: int
    """Of the frame that completed it."""
    at: float
    source: Endpoint
    target: Endpoint
    sequence: int
    acknowledged: int
    flags: int
    payload: bytes
    cut: int
    """Octets of the payload that the snap length cut off its end."""


class TooBig(NamedTuple):
    """A router's word that a packet did not fit (RFC 1191, RFC 8201)."""

    number: int
    at: float
    source: Endpoint
    target: Endpoint
    mtu: int


class PacketReader:
    """Reads frame after frame; keeps only fragments that wait for others."""

    def __init__(self) -> None:
        self.unread = 0
        """Frames that hold neither TCP nor what is told about it."""
        self._fragments: dict[tuple[bytes, bytes, int, int], _Fragments] = {}

    def read(self, frame: Frame) -> Segment | TooBig | None:
        """What the frame holds or completes; None when it is nothing for us."""
        try:
            found = self._read(frame)
        except (struct.error, IndexError):
            found = None
        if found is None:
            self.unread += 1
        return found

    def _read(self, frame: Frame) -> Segment | TooBig | None:
        octets = frame.octets
        start = _ip_start(frame.link, octets)
        if start is None:
            return None
        version = octets[start] >> 4
        if version == 4:
            return self._v4(frame, start)
        if version == 6:
            return self._v6(frame, start)
        return None

    def _v4(self, frame: Frame, start: int) -> Segment | TooBig | None:
        octets = frame.octets
        head = (octets[start] & 15) * 4
        total, identity, cut = struct.unpack_from("!HHH", octets, start + 2)
        if head < 20 or (total and total < head):
            return None
        # 0: the card cuts the packet up itself, behind the capture.
        total = total or frame.length - start
        protocol = octets[start + 9]
        source, target = octets[start + 12 : start + 16], octets[start + 16 : start + 20]
        payload = octets[start + head : start + total]
        length = total - head
        if cut & 0x3FFF:
            key = (source, target, identity, protocol)
            whole = self._fragment(key, (cut & 0x1FFF) * 8, payload, length, bool(cut & 0x2000))
            if whole is None:
                return None
            payload, length = whole, len(whole)
        return _transport(frame, source, target, protocol, payload, length)

    def _v6(self, frame: Frame, start: int) -> Segment | TooBig | None:
        octets = frame.octets
        length, following = struct.unpack_from("!HB", octets, start + 4)
        source, target = octets[start + 8 : start + 24], octets[start + 24 : start + 40]
        length = length or frame.length - start - 40
        payload = octets[start + 40 : start + 40 + length]
        for _ in range(16):
            if following in _HOPS6:
                size = (payload[1] + 1) * 8
                following = payload[0]
                payload, length = payload[size:], length - size
            elif following == _FRAGMENT6:
                inner, _, cut, identity = struct.unpack_from("!BBHI", payload)
                payload, length = payload[8:], length - 8
                following = inner
                if cut & 0xFFF9:  # else: a packet in one fragment (RFC 6946)
                    key = (source, target, identity, inner)
                    whole = self._fragment(key, cut & 0xFFF8, payload, length, bool(cut & 1))
                    if whole is None:
                        return None
                    payload, length = whole, len(whole)
            else:
                break
        return _transport(frame, source, target, following, payload, length)

    def _fragment(
        self, key: tuple[bytes, bytes, int, int], offset: int, payload: bytes, length: int, more: bool
    ) -> bytes | None:
        if len(payload) < length or offset + length > 0xFFFF:
            return None  # cut by the snap length: never whole
        kept = self._fragments.get(key)
        if kept is None:
            if len(self._fragments) >= FRAGMENTS_LIMIT:
                del self._fragments[next(iter(self._fragments))]
            kept = self._fragments[key] = _Fragments()
        kept.pieces.setdefault(offset, payload)
        if not more:
            kept.total = offset + length
        whole = kept.whole()
        if whole is not None:
            del self._fragments[key]
        return whole


class _Fragments:
    """Pieces of one packet by their offset: a multiple of 8 below 65536, so bounded."""

    __slots__ = ("pieces", "total")

    def __init__(self) -> None:
        self.pieces: dict[int, bytes] = {}
        self.total = -1

    def whole(self) -> bytes | None:
        if self.total < 0 or sum(map(len, self.pieces.values())) < self.total:
            return None
        joined = bytearray()
        for offset in sorted(self.pieces):
            if offset > len(joined):
                return None
            joined += self.pieces[offset][len(joined) - offset :]
        return bytes(joined[: self.total]) if len(joined) >= self.total else None


def _ip_start(link: int, octets: bytes) -> int | None:
    """Where the IP header begins."""
    match link:
        case 1:  # Ethernet
            return _behind_types(octets, 12)
        case 0 | 108:  # BSD loopback: the address family, in the byte order of the machine or of the network
            return 4
        case 12 | 14 | 101 | 228 | 229:  # raw IP
            return 0
        case 113:  # Linux cooked
            return _behind_types(octets, 14)
        case 276:  # Linux cooked, version 2: the type stands first
            (kind,) = struct.unpack_from("!H", octets, 0)
            if kind in _VLAN_TYPES:
                return _behind_types(octets, 22)
            return 20 if kind in _IP_TYPES else None
        case _:
            return None


def _behind_types(octets: bytes, place: int) -> int | None:
    """Behind the EtherType at `place` and any VLAN tags."""
    for _ in range(4):
        (kind,) = struct.unpack_from("!H", octets, place)
        if kind in _IP_TYPES:
            return place + 2
        if kind == _PPPOE:
            return place + 10
        if kind not in _VLAN_TYPES:
            return None
        place += 4
    return None


def _transport(
    frame: Frame, source: bytes, target: bytes, protocol: int, payload: bytes, length: int
) -> Segment | TooBig | None:
    """`length`: octets of the packet behind the IP header, caught or not."""
    if protocol == _TCP:
        from_port, to_port, sequence, acknowledged, head, flags = struct.unpack_from("!HHIIBB", payload)
        size = (head >> 4) * 4
        if size < 20:
            return None
        content = payload[size:]
        return Segment(
            frame.number,
            frame.at,
            Endpoint(source, from_port),
            Endpoint(target, to_port),
            sequence,
            acknowledged,
            flags,
            content,
            max(0, length - size - len(content)) if length > len(payload) else 0,
        )
    if protocol == _ICMP and payload[:2] == b"\x03\x04":  # RFC 792, RFC 1191 §4
        (mtu,) = struct.unpack_from("!H", payload, 6)
        inner = payload[8:]
        head = (inner[0] & 15) * 4
        if inner[9] != _TCP:
            return None
        ports = struct.unpack_from("!HH", inner, head)
        return TooBig(
            frame.number, frame.at, Endpoint(inner[12:16], ports[0]), Endpoint(inner[16:20], ports[1]), mtu
        )
    if protocol == _ICMP6 and payload[:1] == b"\x02":  # RFC 4443 §3.2
        (mtu,) = struct.unpack_from("!I", payload, 4)
        inner = payload[8:]
        if inner[6] != _TCP:
            return None
        ports = struct.unpack_from("!HH", inner, 40)
        return TooBig(
            frame.number, frame.at, Endpoint(inner[8:24], ports[0]), Endpoint(inner[24:40], ports[1]), mtu
        )
    return None
