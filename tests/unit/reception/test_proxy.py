"""Headers of the PROXY protocol: the examples of its document, every way to break them, and any chunking."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.reception.proxy import V1_LIMIT, V2_LIMIT, ProxyFault, ProxyHeader, read_proxy_header

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def v2(command: int, family: int, block: bytes, *, length: int | None = None, version: int = 2) -> bytes:
    size = len(block) if length is None else length
    return SIGNATURE + bytes([version << 4 | command, family]) + struct.pack("!H", size) + block


FOUR = IPv4Address("192.0.2.7").packed + IPv4Address("10.0.0.5").packed + struct.pack("!HH", 40000, 25)
SIX = IPv6Address("2001:db8::7").packed + IPv6Address("::1").packed + struct.pack("!HH", 40000, 25)


@pytest.mark.parametrize(
    ("octets", "client", "port"),
    [
        (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255", 65535),
        (b"PROXY TCP4 192.0.2.7 10.0.0.5 40000 25\r\n", "192.0.2.7", 40000),
        (b"PROXY TCP6 2001:db8::7 ::1 1 25\r\n", "2001:db8::7", 1),
        (b"PROXY UNKNOWN\r\n", "", 0),
        (b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", "", 0),
        (v2(1, 0x11, FOUR), "192.0.2.7", 40000),
        (v2(1, 0x21, SIX), "2001:db8::7", 40000),
        (v2(1, 0x11, FOUR + b"\x04\0\x01x"), "192.0.2.7", 40000),  # additions are passed over
        (v2(0, 0x11, FOUR), "", 0),  # LOCAL: the proxy speaks for itself
        (v2(0, 0, b""), "", 0),
        (v2(1, 0x31, b"\0" * 216), "", 0),  # a unix socket
        (v2(1, 0x12, FOUR), "", 0),  # datagrams
    ],
)
def test_whole_headers(octets: bytes, client: str, port: int) -> None:
    assert read_proxy_header(octets + b"EHLO x\r\n") == ProxyHeader(client, port, len(octets))
    for end in range(len(octets)):
        assert read_proxy_header(octets[:end]) is None


@pytest.mark.parametrize(
    "octets",
    [
        b"EHLO x\r\n",
        b"proxy TCP4 192.0.2.7 10.0.0.5 1 2\r\n",
        b"PROXY TCP4 192.0.2.7 10.0.0.5 1\r\n",
        b"PROXY TCP4  192.0.2.7 10.0.0.5 1 2\r\n",
        b"PROXY TCP4 192.0.2.256 10.0.0.5 1 2\r\n",
        b"PROXY TCP4 2001:db8::7 ::1 1 2\r\n",
        b"PROXY TCP6 192.0.2.7 10.0.0.5 1 2\r\n",
        b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
        b"PROXY TCP4 192.0.2.7 10.0.0.5 65536 2\r\n",
        b"PROXY TCP4 192.0.2.7 10.0.0.5 01 2\r\n",
        b"PROXY TCP4 192.0.2.7 10.0.0.5 -1 2\r\n",
        b"PROXY TCP4 \xff 10.0.0.5 1 2\r\n",
        b"PROXY TCP4 127.0.0.1 10.0.0.5 1 2\nEHLO x\r\n",
        b"PROXY " + b"x" * V1_LIMIT,
        v2(1, 0x11, FOUR, version=1),
        v2(2, 0x11, FOUR),
        v2(1, 0x11, FOUR[:-1]),
        v2(1, 0x21, FOUR),
        v2(1, 0x11, b"", length=V2_LIMIT + 1),
        SIGNATURE[:-1] + b"\r\n",
        b"\r\n\r\nEHLO",
    ],
)
def test_what_is_none(octets: bytes) -> None:
    with pytest.raises(ProxyFault):
        read_proxy_header(octets)


@given(st.binary(max_size=300) | st.binary(max_size=60).map(lambda tail: SIGNATURE + tail))
def test_any_octets(octets: bytes) -> None:
    try:
        header = read_proxy_header(octets)
    except ProxyFault:
        return
    assert header is None or 0 < header.used <= len(octets)


@given(st.ip_addresses(v=4) | st.ip_addresses(v=6), st.integers(0, 65535))
def test_both_versions_say_the_same(client: IPv4Address | IPv6Address, port: int) -> None:
    kind = "TCP4" if client.version == 4 else "TCP6"
    line = f"PROXY {kind} {client} {client} {port} 25\r\n".encode()
    packed = v2(1, 0x11 if client.version == 4 else 0x21, client.packed * 2 + struct.pack("!HH", port, 25))
    for octets in (line, packed):
        header = read_proxy_header(octets)
        assert header == ProxyHeader(str(client), port, len(octets))
