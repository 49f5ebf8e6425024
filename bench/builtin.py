"""What each sink that comes with the relay costs, one message after the other: `python -m bench sinks --part builtin`.

A sink takes part by one line of `BUILTIN`: its name, and a context manager that gives its binding. One that asks
somebody is given a backend in this process that answers at once, so that the figure is the sink's own and not the
scanner's; the backend's share is in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bench.builtin_bridges import BRIDGES
from bench.load import LoadError
from bench.micro_server import scan
from lonedot.message.intake import content_from
from lonedot.observability.clock import SystemClock
from lonedot.sinks.bindings import Binding, Setting
from lonedot.sinks.builtin.antivirus import Antivirus
from lonedot.sinks.builtin.disclaimer import Disclaimer
from lonedot.sinks.builtin.dkim import Dkim
from lonedot.sinks.builtin.header_edit import HeaderEdit
from lonedot.sinks.builtin.milter import Milter
from lonedot.sinks.builtin.pop3_routing import pop3_routing
from lonedot.sinks.builtin.rate_limit import RateLimitOctets
from lonedot.sinks.builtin.x_recipient import x_recipient
from lonedot.sinks.calls import Decision
from lonedot.sinks.dispatch import dispatch_with, steps
from lonedot.sinks.hosts import Hosts
from lonedot.sinks.load import bind
from lonedot.spool.interface import Facts
from lonedot.terms.address import Address
from lonedot.terms.envelope import Envelope, Recipient
from lonedot.terms.ids import SessionId

__all__ = ["BUILTIN", "Spent", "measure"]

ENVELOPE = Envelope(Address(b"a@b.example"), (Recipient(Address(b"c@d.example")),))
FACTS = Facts("smtp", SessionId("0000000000001"), client="192.0.2.1", helo="bench.example", revision="r1")

Given = Callable[[Path], AbstractAsyncContextManager[Binding]]
"""From a folder of its own to the binding, while its backend is there."""


class Spent(msgspec.Struct, frozen=True):
    """Of one message of 10 KiB."""

    name: str
    wall_us: float
    cpu_us: float


@contextlib.asynccontextmanager
async def _x_recipient(folder: Path) -> AsyncIterator[Binding]:
    yield bind(x_recipient, sink_class="bench:x_recipient", split=False)


@contextlib.asynccontextmanager
async def _pop3_routing(folder: Path) -> AsyncIterator[Binding]:
    yield bind(pop3_routing, sink_class="bench:pop3_routing", rule="RCPT TO=*")


@contextlib.asynccontextmanager
async def _header_edit(folder: Path) -> AsyncIterator[Binding]:
    """Ten rows, of which two fit."""
    rows = "\n".join(f"remove X-Internal-{number}* *none*" for number in range(8))
    settings: dict[str, Setting] = {
        "edits": f"{rows}\nadd X-Relay : {{id}}\nreplace Subject : [in] {{value}}"
    }
    yield bind(HeaderEdit, sink_class="bench:HeaderEdit", settings=settings)


@contextlib.asynccontextmanager
async def _rate_limit(folder: Path) -> AsyncIterator[Binding]:
    yield bind(RateLimitOctets, sink_class="bench:RateLimitOctets", settings={"limit": 1 << 50})


@contextlib.asynccontextmanager
async def _milter(folder: Path) -> AsyncIterator[Binding]:
    """A milter that answers every step."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                size = struct.unpack("!I", await reader.readexactly(4))[0]
                letter = (await reader.readexactly(size))[:1]
                if letter == b"O":
                    writer.write(struct.pack("!Ic", 13, b"O") + struct.pack("!III", 6, 0, 0))
                elif letter not in b"DAQ":
                    writer.write(struct.pack("!Ic", 1, b"c"))
        writer.close()

    async with await asyncio.start_unix_server(serve, folder / "milter"):
        yield bind(Milter, sink_class="bench:Milter", settings={"address": f"unix:{folder}/milter"})


@contextlib.asynccontextmanager
async def _antivirus(folder: Path) -> AsyncIterator[Binding]:
    """A scanner that reads the whole stream and finds nothing."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(EOFError, OSError):
            if await reader.readuntil(b"\0") == b"zINSTREAM\0":
                while size := int.from_bytes(await reader.readexactly(4), "big"):
                    await reader.readexactly(size)
            writer.write(b"stream: OK\0")
        writer.close()

    async with await asyncio.start_unix_server(serve, folder / "clamd"):
        yield bind(Antivirus, sink_class="bench:Antivirus", settings={"scanners": f"unix:{folder}/clamd"})


@contextlib.asynccontextmanager
async def _disclaimer(folder: Path) -> AsyncIterator[Binding]:
    yield bind(Disclaimer, sink_class="bench:Disclaimer", settings={"text": "Example Ltd, Oldtown"})


def _signing(make: Callable[[], rsa.RSAPrivateKey | Ed25519PrivateKey]) -> Given:
    @contextlib.asynccontextmanager
    async def given(folder: Path) -> AsyncIterator[Binding]:
        key = folder / "key.pem"
        key.touch(0o600)
        key.write_bytes(make().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        settings: dict[str, Setting] = {
            "domain": "bench.example",
            "selector": "s",
            "key": str(key),
            "sign_others": True,
        }
        yield bind(Dkim, sink_class="bench:Dkim", settings=settings)

    return given


BUILTIN: dict[str, Given] = {
    **BRIDGES,
    "disclaimer": _disclaimer,
    "dkim-rsa (2048 bits)": _signing(lambda: rsa.generate_private_key(65537, 2048)),
    "dkim-ed25519": _signing(Ed25519PrivateKey.generate),
    "antivirus": _antivirus,
    "pop3_routing": _pop3_routing,
    "header_edit (ten rows)": _header_edit,
    "rate-limit-octets": _rate_limit,
    "x_recipient": _x_recipient,
    "milter (every step answered)": _milter,
}


async def measure(messages: int, folder: Path) -> list[Spent]:
    """Each of them.

    Raises:
        LoadError: a sink did not let the message pass.
    """
    return [await _measured(name, given, messages, folder) for name, given in BUILTIN.items()]


async def _measured(name: str, given: Given, messages: int, folder: Path) -> Spent:
    place = folder / name.partition(" ")[0]
    place.mkdir()
    content = content_from(scan())
    clock = SystemClock()
    hosts = Hosts()
    async with given(place) as binding:
        wall, cpu = time.perf_counter(), time.process_time()
        for number in range(messages):
            chain = steps(f"{number:013d}", ENVELOPE, FACTS, content, [binding], clock)
            done = await dispatch_with(chain, None, hosts, False)
            if done.decision not in (Decision.ACCEPT, Decision.DISCARD):  # one that takes it all consumes it
                raise LoadError(f"{name}: {done.decision.value}: {done.words}")
        spent = Spent(
            name,
            (time.perf_counter() - wall) / messages * 1e6,
            (time.process_time() - cpu) / messages * 1e6,
        )
        await hosts.close()
    return spent
