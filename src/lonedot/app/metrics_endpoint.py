"""`/metrics` for Prometheus and `/healthz` for whoever watches whether the relay takes mail: a small HTTP server.

Rules: it only reads, knows GET and HEAD, and answers one request on a connection. Connections, the time of one and
the size of a request are bounded; nothing that a client writes comes back in an answer or into the log.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from http import HTTPStatus

import h11
import msgspec

from lonedot.admin.seeing import Health
from lonedot.app.exposition import expose
from lonedot.observability.levels import LogLevel
from lonedot.observability.log import event
from lonedot.observability.metrics import Figures

__all__ = ["MetricsEndpoint"]

MAX_CONNECTIONS = 20
PATIENCE_SECONDS = 10.0
_MAX_REQUEST = 16 * 1024
_TEXT = "text/plain; charset=utf-8"


class MetricsEndpoint:
    """Answers from what it is given; `figures` and `health` speak for the relay as a whole."""

    def __init__(
        self,
        host: str,
        port: int,
        figures: Callable[[], Awaitable[Figures]],
        health: Callable[[], Awaitable[Health]],
    ) -> None:
        self._host = host
        self._port = port
        self._figures = figures
        self._health = health
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> tuple[str, int]:
        """As bound."""
        assert self._server is not None
        host, port = self._server.sockets[0].getsockname()[:2]
        return str(host), int(port)

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the address cannot be had; the words name it.
        """
        try:
            self._server = await asyncio.start_server(
                self._serve, self._host, self._port, limit=_MAX_REQUEST, backlog=MAX_CONNECTIONS
            )
        except OSError as error:
            reason = error.strerror or str(error)
            raise OSError(f"cannot listen on {self._host}:{self._port} for metrics: {reason}") from error
        host, port = self.address
        event("metrics.listening", host=host, port=port)

    async def stop(self) -> None:
        """Close the socket and what is being answered. May be called twice."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        for task in tuple(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            if len(self._serving) >= MAX_CONNECTIONS:
                return
            self._serving.add(task)
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._converse(reader, writer)
        except (OSError, TimeoutError, asyncio.CancelledError, h11.LocalProtocolError):
            pass  # the client has gone, sleeps, or the relay stops: there is nobody to tell
        finally:
            self._serving.discard(task)
            writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_REQUEST)
        try:
            while True:
                received = connection.next_event()
                if received is h11.NEED_DATA:
                    connection.receive_data(await reader.read(_MAX_REQUEST))
                    continue
                break
        except h11.RemoteProtocolError as error:
            status = HTTPStatus(error.error_status_hint)
            await self._reply(connection, writer, status, _TEXT, b"this is no request\n", False)
            return
        if not isinstance(received, h11.Request):
            return
        status, kind, octets = await self._answer(received)
        await self._reply(connection, writer, status, kind, octets, received.method == b"HEAD")

    async def _answer(self, request: h11.Request) -> tuple[HTTPStatus, str, bytes]:
        if request.method not in (b"GET", b"HEAD"):
            return HTTPStatus.METHOD_NOT_ALLOWED, _TEXT, b"only GET and HEAD are known here\n"
        target = request.target.partition(b"?")[0]
        try:
            if target == b"/metrics":
                accept = next((value for name, value in request.headers if name == b"accept"), b"")
                kind, octets = expose(await self._figures(), accept.decode("latin-1"))
                return HTTPStatus.OK, kind, octets
            if target == b"/healthz":
                health = await self._health()
                status = HTTPStatus.OK if health.ready else HTTPStatus.SERVICE_UNAVAILABLE
                return status, "application/json", msgspec.json.encode(health) + b"\n"
        except Exception as error:  # our own fault; who watches must see that something is wrong
            event("metrics.failed", LogLevel.ERROR, error=f"{type(error).__name__}: {error}"[:500])
            return HTTPStatus.INTERNAL_SERVER_ERROR, _TEXT, b"the figures cannot be had; see the log\n"
        return HTTPStatus.NOT_FOUND, _TEXT, b"there is /metrics, and /healthz\n"

    async def _reply(
        self,
        connection: h11.Connection,
        writer: asyncio.StreamWriter,
        status: HTTPStatus,
        kind: str,
        octets: bytes,
        is_head: bool,
    ) -> None:
        fields = [
            ("Content-Type", kind),
            ("Content-Length", str(len(octets))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("Connection", "close"),
        ]
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            fields.append(("Allow", "GET, HEAD"))
        send = functools.partial(_send, connection, writer)
        send(h11.Response(status_code=status.value, headers=fields, reason=status.phrase.encode()))
        if not is_head:
            send(h11.Data(data=octets))
        send(h11.EndOfMessage())
        await writer.drain()


def _send(connection: h11.Connection, writer: asyncio.StreamWriter, what: h11.Event) -> None:
    octets = connection.send(what)
    if octets:
        writer.write(octets)
