"""The HTTP bridge in the contract suite: a service that lets all pass."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from lonedot.sinks.bindings import Setting
from lonedot.sinks.builtin.http import HttpFilter
from tests.unit.sinks.builtin.contract import Backend, Out, Row, SocketBackend

__all__ = ["ROWS", "speak"]

ANSWER = b'HTTP/1.1 200 OK\r\nContent-Length: 19\r\n\r\n{"verdict": "next"}'


async def speak(reader: asyncio.StreamReader, out: Out) -> None:
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        left = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        while left:
            left -= len(await reader.read(min(left, 65536)))
        out.write(ANSWER)
        await out.drain()


def settings(folder: Path, address: str) -> Mapping[str, Setting]:
    return {"url": f"http://{address}/filter", "body": "form"}


def backend(folder: Path) -> Backend:
    return SocketBackend(folder, speak, tcp=True)


ROWS = (Row("http", HttpFilter, settings, backend),)
