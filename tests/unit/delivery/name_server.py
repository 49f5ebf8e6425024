"""A name server on loopback that answers as it is told: from a zone, or with a fault for a name."""

from __future__ import annotations

import asyncio
import enum
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import cast

from dnslib import AAAA, CNAME, MX, QTYPE, RCODE, RR, SOA, A, DNSHeader, DNSRecord  # type: ignore[import-untyped]

from lonedot.delivery.dns import NameServer

__all__ = ["Fails", "ScriptedNameServer", "name_server"]


class Fails(enum.Enum):
    SERVFAIL = "servfail"
    SILENT = "silent"
    TRUNCATED = "truncated"
    """Over UDP; whole over TCP."""
    WRONG_ID = "wrong id"
    WRONG_QUESTION = "wrong question"
    GARBAGE = "garbage"


Zone = Mapping[str, Sequence[str]]
"""Name to records such as `MX 10 a.test`, `A 127.0.0.1`, `CNAME b.test`. A name without records has no data."""


class ScriptedNameServer(asyncio.DatagramProtocol):
    def __init__(self, zone: Zone, faults: Mapping[str, Fails], ttl: int) -> None:
        self._zone = zone
        self._faults = faults
        self._ttl = ttl
        self._transport: asyncio.DatagramTransport | None = None
        self.asked: Counter[tuple[str, str]] = Counter()
        self.over_tcp: Counter[str] = Counter()
        self.port = 0

    @property
    def address(self) -> NameServer:
        return NameServer("127.0.0.1", self.port)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)  # that of uvloop is none by class

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = self._answer(data, over_tcp=False)
        if answer and self._transport is not None:
            self._transport.sendto(answer, addr)

    async def serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = int.from_bytes(await reader.readexactly(2), "big")
        answer = self._answer(await reader.readexactly(size), over_tcp=True)
        writer.write(len(answer).to_bytes(2, "big") + answer)
        await writer.drain()
        writer.close()

    def _answer(self, octets: bytes, over_tcp: bool) -> bytes:
        asked = DNSRecord.parse(octets)
        name = str(asked.q.qname).rstrip(".").lower()
        kind = str(QTYPE[asked.q.qtype])
        self.asked[name, kind] += 1
        if over_tcp:
            self.over_tcp[name] += 1
        reply = asked.reply()
        match self._faults.get(f"{name} {kind}") or self._faults.get(name):
            case Fails.SERVFAIL:
                reply.header.rcode = RCODE.SERVFAIL
                return bytes(reply.pack())
            case Fails.SILENT:
                return b""
            case Fails.GARBAGE:
                return octets[:2] + b"\xff" * 9
            case Fails.TRUNCATED if not over_tcp:
                reply.header.tc = 1
                return bytes(reply.pack())
            case Fails.WRONG_ID:
                header = DNSHeader(id=asked.header.id ^ 1, qr=1, ra=1)
                wrong = DNSRecord(header, q=asked.q)
                wrong.add_answer(RR(asked.q.qname, QTYPE.MX, rdata=MX("evil.test", 0), ttl=9))
                return bytes(wrong.pack())
            case Fails.WRONG_QUESTION:
                other = DNSRecord.question("other.test", kind)
                wrong = DNSRecord(DNSHeader(id=asked.header.id, qr=1, ra=1), q=other.q)
                wrong.add_answer(RR("other.test", QTYPE.MX, rdata=MX("evil.test", 0), ttl=9))
                return bytes(wrong.pack())
            case _:
                self._fill(reply, name, kind)
                return bytes(reply.pack())

    def _fill(self, reply: DNSRecord, name: str, kind: str) -> None:  # type: ignore[no-any-unimported]
        for _ in range(20):
            records = self._zone.get(name)
            if records is None:
                reply.header.rcode = RCODE.NXDOMAIN
                break
            found = [record.split(" ", 1) for record in records]
            alias = next((value for one, value in found if one == "CNAME"), None)
            if alias is not None:
                reply.add_answer(RR(name, QTYPE.CNAME, rdata=CNAME(alias), ttl=self._ttl))
                name = alias
                continue
            wanted = [value for one, value in found if one == kind]
            for value in wanted:
                reply.add_answer(RR(name, getattr(QTYPE, kind), rdata=_rdata(kind, value), ttl=self._ttl))
            if wanted:
                return
            break
        times = (1, 60, 60, 60, self._ttl)
        reply.add_auth(RR("test", QTYPE.SOA, rdata=SOA("ns.test", "root.test", times), ttl=self._ttl))


def _rdata(kind: str, value: str) -> object:
    if kind == "MX":
        preference, host = value.split()
        return MX(host, int(preference))
    return A(value) if kind == "A" else AAAA(value)


@asynccontextmanager
async def name_server(
    zone: Zone, faults: Mapping[str, Fails] | None = None, ttl: int = 300
) -> AsyncIterator[ScriptedNameServer]:
    """A server of that zone on a free port, UDP and TCP."""
    loop = asyncio.get_running_loop()
    server = ScriptedNameServer(zone, faults or {}, ttl)
    tcp = await asyncio.start_server(server.serve_tcp, "127.0.0.1", 0)
    server.port = tcp.sockets[0].getsockname()[1]
    udp, _ = await loop.create_datagram_endpoint(lambda: server, local_addr=("127.0.0.1", server.port))
    try:
        yield server
    finally:
        udp.close()
        tcp.close()
        await tcp.wait_closed()
