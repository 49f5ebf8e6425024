"""Accepting on a socket that other workers accept on too, so that each gets its part.

A loop that accepts all that waits leaves nothing to the others: of ten clients that come at once, one worker would
serve all. Here a worker takes one connection and then lets go of the socket for a moment, in which a worker that has
nothing to do takes the next. When nobody did, it takes twice as many in the next turn: a busy relay is not slowed down.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable

from lonedot.observability import log
from lonedot.observability.levels import LogLevel

__all__ = ["SharedServer"]

PAUSE_SECONDS = 0.001
LONGEST_TURN = 64
"""Connections taken in one turn when nobody else takes any."""
OUT_OF_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
OUT_OF_RESOURCES_SECONDS = 1.0


class SharedServer:
    """Takes connections from one socket, which is its own from now on. As much of `asyncio.Server` as is needed."""

    def __init__(
        self,
        make: Callable[[], asyncio.Protocol],
        listening: socket.socket,
        context: ssl.SSLContext | None = None,
        handshake_seconds: float | None = None,
    ) -> None:
        """`context`: TLS begins at once, with so many seconds for the handshake."""
        self.sockets = (listening,)
        self._loop = asyncio.get_running_loop()
        self._make = make
        self._listening = listening
        self._context = context
        self._handshake_seconds = handshake_seconds
        self._turn = 1
        self._opening: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._is_closed = False
        listening.setblocking(False)
        self._loop.add_reader(listening, self._accept)

    @property
    def is_opening(self) -> bool:
        """Connections were taken that have no session yet."""
        return bool(self._opening)

    def close(self) -> None:
        """Take no more. What was taken goes on."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listening)
        self._listening.close()

    def _accept(self) -> None:
        taken = 0
        pause = PAUSE_SECONDS
        while taken < self._turn:
            try:
                connection, _ = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                break
            except OSError as error:
                if error.errno not in OUT_OF_RESOURCES:
                    raise
                log.event("listener.out-of-resources", LogLevel.ERROR, words=str(error))
                pause = OUT_OF_RESOURCES_SECONDS
                break
            taken += 1
            connection.setblocking(False)
            task = self._loop.create_task(self._open(connection))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)
        self._turn = min(2 * self._turn, LONGEST_TURN) if taken == self._turn else 1
        self._loop.remove_reader(self._listening)
        self._pause = self._loop.call_later(pause, self._go_on)

    def _go_on(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listening, self._accept)

    async def _open(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(
                self._make,
                connection,
                ssl=self._context,
                ssl_handshake_timeout=self._handshake_seconds,
            )
        except (OSError, TimeoutError):
            connection.close()  # the handshake failed, or the client has gone
