"""The connection to a milter: where it is, and the carrying out of what `milter_client` wants said.

Rules a change here must keep:
1. Every wait has an end. A milter that says it is still busy gets the time once more; the deadline of the binding holds
   in any case.
2. A milter that has said anything when nobody had asked is not listened to any further: its words would be taken for
   the answer to the next question.
"""

from __future__ import annotations

import asyncio
import re
import socket
from typing import TypeVar, cast

import msgspec

from lonedot.sinks.builtin.milter_client import Talk
from lonedot.sinks.builtin.milter_wire import (
    PACKET_LIMIT,
    AnyReply,
    Command,
    MilterFault,
    Reply,
    Splitter,
    decode,
    packet,
)

__all__ = ["Line", "MilterGone", "MilterUnreachable", "Patience", "Place", "place_from"]

BUFFER = 64 * 1024
"""Octets that are put together before they are sent."""

T = TypeVar("T")

_INET = re.compile(r"(inet6?):(?:(\d{1,5})@(.+)|(.+):(\d{1,5}))")


class MilterUnreachable(Exception):
    """It is not there, is gone, or does not answer."""


class MilterGone(MilterUnreachable):
    """It has closed the connection."""


class Place(msgspec.Struct, frozen=True):
    """Where a milter listens."""

    path: str = ""
    """A unix socket; empty: host and port."""
    host: str = ""
    port: int = 0
    family: int = socket.AF_INET


class Patience(msgspec.Struct, frozen=True):
    """How long is waited, in seconds."""

    connect: float
    reply: float
    end: float
    """For an answer to the end of the message."""


def place_from(text: str) -> Place:
    """`unix:/path`, `local:/path`, `inet:port@host`, `inet6:port@host`; also `inet:host:port`.

    Raises:
        ValueError: none of these.
    """
    kind, _, rest = text.partition(":")
    if kind in ("unix", "local") and rest.startswith("/"):
        return Place(path=rest)
    found = _INET.fullmatch(text)
    if found is not None:
        host = (found[3] or found[4]).strip("[]")
        port = int(found[2] or found[5])
        if 1 <= port <= 65535 and host:
            return Place(
                host=host, port=port, family=socket.AF_INET6 if found[1] == "inet6" else socket.AF_INET
            )
    raise ValueError(
        f"address = {text!r} is not where a milter can be: write 'unix:/path', 'inet:port@host' or 'inet6:port@host'"
    )


class Line(asyncio.Protocol):
    """One connection. `open` makes it; what goes wrong on it closes it."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._splitter = Splitter()
        self._transport: asyncio.Transport | None = None
        self._heard = asyncio.Event()
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._unsent = bytearray()
        self._error: Exception | None = None

    @property
    def is_lost(self) -> bool:
        return self._error is not None

    @staticmethod
    async def open(place: Place, patience: Patience) -> Line:
        """A connection to it.

        Raises:
            MilterUnreachable: there is none to be had.
        """
        loop = asyncio.get_running_loop()
        line = Line(patience)
        try:
            async with asyncio.timeout(patience.connect):
                if place.path:
                    await loop.create_unix_connection(lambda: line, place.path)
                else:
                    await loop.create_connection(lambda: line, place.host, place.port, family=place.family)
        except TimeoutError:
            raise MilterUnreachable(f"it takes no connection within {patience.connect:g} s") from None
        except OSError as error:
            raise MilterUnreachable(f"it takes no connection: {error.strerror or error}") from error
        return line

    async def drive(self, talk: Talk[T]) -> T:
        """Say and hear what `talk` wants, to its end.

        Raises:
            MilterFault: the milter breaks its protocol.
            MilterUnreachable: it does not answer, or is gone.
        """
        reply: AnyReply | None = None
        try:
            while True:
                try:
                    say = talk.send(reply)
                except StopIteration as end:
                    result: T = end.value
                    return result
                if say.octets:
                    self._check_silence()
                    self._unsent += say.octets
                reply = None
                if say.waits or len(self._unsent) >= BUFFER:
                    await self._flush()
                if say.waits:
                    reply = await self._reply(
                        self._patience.end if say.is_end else self._patience.reply, say.what
                    )
        except BaseException:
            # Also when the call is cancelled: where the talk stands is not known any more.
            self.close()
            raise

    async def flush(self) -> None:
        """Send what has not been sent yet."""
        await self._flush()

    def quit(self) -> None:
        """Say goodbye and close."""
        if self._transport is not None and not self.is_lost:
            self._transport.write(bytes(self._unsent) + packet(Command.QUIT))
            self._transport.close()
        self._fail(MilterGone("the connection was closed"))

    def close(self) -> None:
        """Close at once."""
        self._fail(MilterGone("the connection was closed"))
        if self._transport is not None:
            self._transport.abort()

    # -- octets ------------------------------------------------------------------------------------

    def _check_silence(self) -> None:
        if self._error is not None:
            raise self._error
        while not self._splitter.is_empty:
            if self._next() is None:
                break
            raise MilterFault("spoke when nobody had asked it")

    def _next(self) -> AnyReply | None:
        """The next reply but for signs of life."""
        while (found := self._splitter.next()) is not None:
            reply = decode(*found)
            if reply is not Reply.PROGRESS:
                return reply
        return None

    async def _flush(self) -> None:
        if self._error is not None:
            raise self._error
        if not self._unsent or self._transport is None:
            return
        octets = bytes(self._unsent)
        self._unsent.clear()
        self._transport.write(octets)
        if not self._may_write.is_set():
            try:
                async with asyncio.timeout(self._patience.reply):
                    await self._may_write.wait()
            except TimeoutError:
                raise MilterUnreachable(f"it reads nothing for {self._patience.reply:g} s") from None
        elif len(octets) >= BUFFER:
            await asyncio.sleep(0)  # a milter that never answers must not have the loop for itself
        if self._error is not None:
            raise self._error

    async def _reply(self, seconds: float, what: str) -> AnyReply:
        while True:
            while (found := self._splitter.next()) is not None:
                reply = decode(*found)
                if reply is not Reply.PROGRESS:
                    if self._transport is not None and self._splitter.size < PACKET_LIMIT:
                        self._transport.resume_reading()
                    return reply
            if self._error is not None:
                raise MilterGone(f"{self._error}, while it was to answer {what}")
            self._heard.clear()
            if self._transport is not None:
                self._transport.resume_reading()
            try:
                async with asyncio.timeout(seconds):
                    await self._heard.wait()
            except TimeoutError:
                raise MilterUnreachable(f"it has not answered {what} within {seconds:g} s") from None

    def _fail(self, error: Exception) -> None:
        self._error = self._error or error
        self._heard.set()
        self._may_write.set()

    # -- what the loop calls -----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are of a type of their own

    def data_received(self, data: bytes) -> None:
        self._splitter.feed(data)
        if self._splitter.size > 2 * PACKET_LIMIT and self._transport is not None:
            self._transport.pause_reading()  # it goes on when what has come is taken
        self._heard.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(MilterGone("it has closed the connection"))

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()
