"""Antivirus in the contract suite: a scanner that finds EICAR where it stands in plain octets."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from lonedot.sinks.bindings import Setting
from lonedot.sinks.builtin.antivirus import Antivirus
from lonedot.sinks.calls import Decision
from tests.peers.filters import EICAR
from tests.unit.sinks.builtin.contract import Backend, Out, Row, SocketBackend

__all__ = ["ROWS", "SIGNATURE", "speak"]

SIGNATURE = "Eicar-Test"
VERSION = b"ClamAV 0.0/1/today\0"


async def speak(reader: asyncio.StreamReader, out: Out, largest: int = 1 << 30) -> None:
    """One command, as clamd answers it."""
    command = await reader.readuntil(b"\0")
    if command != b"zINSTREAM\0":
        out.write(VERSION if command == b"zVERSION\0" else b"UNKNOWN COMMAND\0")
        return
    tail = b""
    total = 0
    is_found = False
    while size := int.from_bytes(await reader.readexactly(4), "big"):
        total += size
        if total > largest:
            out.write(b"INSTREAM size limit exceeded. ERROR\0")
            await out.drain()
            return
        tail += await reader.readexactly(size)
        is_found = is_found or EICAR in tail
        tail = tail[-len(EICAR) :]
    out.write(f"stream: {SIGNATURE} FOUND\0".encode() if is_found else b"stream: OK\0")
    await out.drain()


NO_MORE: dict[str, Setting] = {}


def settings(folder: Path, address: str, more: Mapping[str, Setting] = NO_MORE) -> Mapping[str, Setting]:
    return {"scanners": address, **more}


def backend(folder: Path, tcp: bool = False) -> Backend:
    return SocketBackend(folder, speak, tcp)


SHORT: dict[str, Setting] = {"connect_seconds": 0.4, "scan_seconds": 0.4}
"""Within the deadline of the suite, so that the settings of the sink decide and not `on_error`."""
ONLY = {decision: frozenset({decision}) for decision in Decision}

ROWS = (
    Row("antivirus", Antivirus, settings, backend),
    Row("antivirus-tcp", Antivirus, settings, partial(backend, tcp=True)),
    Row(
        "antivirus-holding",
        Antivirus,
        partial(settings, more=SHORT | {"unreachable": "hold", "largest": 1 << 20}),
        backend,
        fails=ONLY[Decision.HOLD],
        event="arrival",
        huge=Decision.HOLD,
    ),
    Row(
        "antivirus-passing",
        Antivirus,
        partial(settings, more=SHORT | {"unreachable": "pass", "oversize": "pass", "largest": 1 << 20}),
        backend,
        fails=ONLY[Decision.ACCEPT],
    ),
)
