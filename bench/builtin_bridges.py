"""Bindings of the sinks that hand a message on, each with what takes it at once: rows of `bench.builtin`."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from lonedot.sinks.bindings import Binding, Setting
from lonedot.sinks.builtin.archive import archive, archive_address
from lonedot.sinks.builtin.http import HttpFilter
from lonedot.sinks.builtin.intersite import Intersite
from lonedot.sinks.builtin.program import ProgramFilter
from lonedot.sinks.load import bind
from lonedot.sinks.sink import AnySink

__all__ = ["BRIDGES"]

Given = Callable[[Path], AbstractAsyncContextManager[Binding]]

ANSWER = b'HTTP/1.1 200 OK\r\nContent-Length: 19\r\n\r\n{"verdict": "next"}'
DEADLINE_SECONDS = 60.0


def _alone(code: AnySink, settings: Callable[[Path], Mapping[str, Setting]], rule: str = "") -> Given:
    """A sink that needs no more than its settings."""

    @contextlib.asynccontextmanager
    async def given(folder: Path) -> AsyncIterator[Binding]:
        yield bind(
            code,
            sink_class="bench:alone",
            settings=settings(folder),
            rule=rule,
            deadline_seconds=DEADLINE_SECONDS,
        )

    return given


@contextlib.asynccontextmanager
async def _http(folder: Path) -> AsyncIterator[Binding]:
    """A service that reads the whole request and lets the message pass."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                await reader.readexactly(size)
                writer.write(ANSWER)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        settings: dict[str, Setting] = {"url": f"http://127.0.0.1:{port}/filter", "body": "form"}
        yield bind(HttpFilter, sink_class="bench:http", settings=settings)


BRIDGES: dict[str, Given] = {
    "archive (a file each)": _alone(archive, lambda folder: {"folder": str(folder / "archive")}),
    "archive-address": _alone(archive_address, lambda folder: {"address": "archive@b.example"}),
    "http (the body in the request)": _http,
    "intersite (a file each)": _alone(Intersite, lambda folder: {"folder": str(folder / "intersite")}),
    "program (/bin/true)": _alone(
        ProgramFilter, lambda folder: {"command": "/bin/true", "user": "nobody" if os.geteuid() == 0 else ""}
    ),
}
