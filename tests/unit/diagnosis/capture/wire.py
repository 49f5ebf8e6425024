"""A small writer of captures: conversations as TCP segments in frames of any link layer, faults put in by the test."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable
from io import BytesIO

import msgspec

from lonedot.diagnosis.capture.files import read_frames
from lonedot.diagnosis.capture.packets import ACK, FIN, RST, SYN
from lonedot.diagnosis.sniffing import Sniffer
from lonedot.diagnosis.sniffing_values import SessionReport

CLIENT, SERVER = "192.0.2.1", "192.0.2.2"
CLIENT6, SERVER6 = "2001:db8::1", "2001:db8::2"


class Packet(msgspec.Struct, kw_only=True):
    """One IP packet on its way into a file."""

    at: float
    ip: bytes


def ip_packet(
    source: str, target: str, protocol: int, payload: bytes, *, fragment: int = 0, more: bool = False
) -> bytes:
    one, two = ipaddress.ip_address(source), ipaddress.ip_address(target)
    if one.version == 4:
        head = struct.pack(
            "!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 7, fragment // 8 | (0x2000 if more else 0), 64, protocol, 0,
            one.packed, two.packed,
        )  # fmt: skip
        return head + payload
    if fragment or more:
        payload = struct.pack("!BBHI", protocol, 0, fragment | more, 7) + payload
        protocol = 44
    return (
        struct.pack("!IHBB16s16s", 0x60000000, len(payload), protocol, 64, one.packed, two.packed) + payload
    )


def tcp(sport: int, dport: int, sequence: int, acknowledged: int, flags: int, payload: bytes = b"") -> bytes:
    mask = 0xFFFFFFFF
    return (
        struct.pack(
            "!HHIIBBHHH", sport, dport, sequence & mask, acknowledged & mask, 0x50, flags, 65535, 0, 0
        )
        + payload
    )


class Talk:
    """One connection; each call adds packets."""

    def __init__(
        self, *, port: int = 25, v6: bool = False, start: int = 0xFFFFFF00, sport: int = 40000
    ) -> None:
        self.ends = (CLIENT6, SERVER6) if v6 else (CLIENT, SERVER)
        self.ports = (sport, port)
        self.numbers = [start, 1000]
        self.at = 1_800_000_000.0
        self.packets: list[Packet] = []

    def segment(self, side: int, flags: int, payload: bytes = b"", *, sequence: int | None = None) -> None:
        number = self.numbers[side] if sequence is None else sequence
        octets = tcp(self.ports[side], self.ports[1 - side], number, self.numbers[1 - side], flags, payload)
        self.packets.append(Packet(at=self.at, ip=ip_packet(self.ends[side], self.ends[1 - side], 6, octets)))
        self.at += 0.001

    def connect(self) -> Talk:
        self.segment(0, SYN)
        self.numbers[0] += 1
        self.segment(1, SYN | ACK)
        self.numbers[1] += 1
        self.segment(0, ACK)
        return self

    def say(self, side: int, octets: bytes, size: int = 1400) -> Talk:
        for start in range(0, len(octets), size):
            piece = octets[start : start + size]
            self.segment(side, ACK, piece)
            self.numbers[side] += len(piece)
        return self

    def c(self, octets: bytes, size: int = 1400) -> Talk:
        return self.say(0, octets, size)

    def s(self, octets: bytes) -> Talk:
        return self.say(1, octets)

    def wait(self, seconds: float) -> Talk:
        self.at += seconds
        return self

    def close(self, side: int = 0) -> Talk:
        for one in (side, 1 - side):
            self.segment(one, FIN | ACK)
            self.numbers[one] += 1
        self.segment(side, ACK)
        return self

    def reset(self, side: int = 0) -> Talk:
        self.segment(side, RST | ACK)
        return self

    def hello(self, keywords: bytes = b"250-PIPELINING\r\n250 SIZE 1000000\r\n") -> Talk:
        self.connect().s(b"220 mx.example ESMTP\r\n").c(b"EHLO c.example\r\n")
        return self.s(b"250-mx.example\r\n" + keywords)

    def envelope(self) -> Talk:
        self.c(b"MAIL FROM:<a@c.example>\r\n").s(b"250 2.1.0 Ok\r\n").c(b"RCPT TO:<b@mx.example>\r\n")
        return self.s(b"250 2.1.5 Ok\r\n").c(b"DATA\r\n").s(b"354 go\r\n")

    def bye(self) -> Talk:
        return self.c(b"QUIT\r\n").s(b"221 bye\r\n").close(1)


def lead(link: int, ip: bytes) -> bytes:
    """What stands before an IP packet in a frame of this link layer."""
    kind = b"\x86\xdd" if ip[0] >> 4 == 6 else b"\x08\x00"
    return {
        1: bytes(12) + kind,
        1000: bytes(12) + b"\x88\xa8\x00\x07\x81\x00\x00\x05" + kind,
        0: b"\x02\x00\x00\x00",
        108: b"\x00\x00\x00\x02",
        101: b"",
        228: b"",
        113: bytes(14) + kind,
        276: kind + bytes(18),
    }[link]


def pcap(
    packets: Iterable[Packet], *, link: int = 1, order: str = "<", nano: bool = False, snap: int = 262144
) -> bytes:
    magic = 0xA1B23C4D if nano else 0xA1B2C3D4
    out = [struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, snap, 1 if link == 1000 else link)]
    for packet in packets:
        frame = lead(link, packet.ip) + packet.ip
        seconds = int(packet.at)
        part = int((packet.at - seconds) * (1_000_000_000 if nano else 1_000_000))
        out.append(
            struct.pack(f"{order}IIII", seconds, part, min(len(frame), snap), len(frame)) + frame[:snap]
        )
    return b"".join(out)


def block(order: str, kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    return struct.pack(f"{order}II", kind, len(body) + 12) + body + struct.pack(f"{order}I", len(body) + 12)


def pcapng(packets: Iterable[Packet], *, link: int = 1, order: str = "<", power: int = 9) -> bytes:
    out = [block(order, 0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1))]
    option = struct.pack(f"{order}HHB3x", 9, 1, power) + bytes(4)
    out.append(block(order, 1, struct.pack(f"{order}HHI", link, 0, 0) + option))
    for packet in packets:
        frame = lead(link, packet.ip) + packet.ip
        stamp = round(packet.at * 10**power)
        head = struct.pack(f"{order}IIIII", 0, stamp >> 32, stamp & 0xFFFFFFFF, len(frame), len(frame))
        out.append(block(order, 6, head + frame))
    return b"".join(out)


def sniffed(capture: bytes, *ports: int) -> list[SessionReport]:
    return list(Sniffer(ports).read(read_frames(BytesIO(capture))))


def judged(talk: Talk) -> SessionReport:
    """The report of its one session."""
    (report,) = sniffed(pcap(talk.packets))
    return report
