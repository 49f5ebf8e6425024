"""The milter bridge in the contract suite: a milter that lets all pass."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Mapping
from pathlib import Path

from lonedot.sinks.bindings import Setting
from lonedot.sinks.builtin.milter import Milter
from tests.unit.sinks.builtin.contract import Backend, Out, Row, SocketBackend

__all__ = ["ROWS"]

WITHOUT_REPLY = b"DAQK"


async def speak(reader: asyncio.StreamReader, out: Out) -> None:
    while True:
        size = struct.unpack("!I", await reader.readexactly(4))[0]
        letter = await reader.readexactly(1)
        await reader.readexactly(size - 1)
        if letter == b"O":
            out.write(struct.pack("!I", 13) + b"O" + struct.pack("!III", 6, 0, 0))
        elif letter not in WITHOUT_REPLY:
            out.write(struct.pack("!I", 1) + b"c")
        await out.drain()


def settings(folder: Path, address: str) -> Mapping[str, Setting]:
    return {"address": address, "hostname": "relay.example", "reply_seconds": 1, "end_seconds": 1}


def backend(folder: Path) -> Backend:
    return SocketBackend(folder, speak)


# Each of 10 000 recipients is answered: the deadline is that of all of them.
ROWS = (Row("milter", Milter, settings, backend, torn=(1, 2, 3), deadline_seconds=20.0),)
