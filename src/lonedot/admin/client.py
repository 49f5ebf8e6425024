"""Who carries out what the command line asks: the running relay over its control socket, or this process itself.

Front door: `reach`. Rules:
1. With the relay running, only the relay writes; the spool is opened here only under its lock.
2. A lock that is held while the socket does not answer is an error. It is never worked around.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Protocol, TypeVar

import msgspec

from lonedot.admin.fleet import Fleet
from lonedot.admin.operations import Desk, Operation, StreamOperation
from lonedot.admin.values import AdminError, Piece
from lonedot.admin.wire import MAX_REQUEST, Hello, Reply, Request, encode_line, socket_address
from lonedot.spool.interface import SpoolFault, SpoolLocked, SpoolPaths

__all__ = ["Caller", "ControlClient", "LocalCaller", "RelayDown", "connect", "reach", "whole_relay"]

_HELLO_PATIENCE = 5.0
"""Seconds for a running relay to say hello."""
_ANSWER_PATIENCE = 120.0
_MAX_REPLY = 256 * 1024 * 1024

A = TypeVar("A", bound=msgspec.Struct)
R = TypeVar("R", bound=msgspec.Struct)


class RelayDown(Exception):
    """Nobody listens at the control socket."""


class Caller(Protocol):
    """Carries out operations. Both raise AdminError."""

    @property
    def missing(self) -> tuple[str, ...]:
        """A sentence for each worker of the relay that does not answer: what it has is left out."""
        ...

    async def call(self, operation: Operation[A, R], arguments: A) -> R: ...

    def stream(self, operation: StreamOperation[A], arguments: A) -> AsyncIterator[Piece]: ...


class LocalCaller:
    """This process, at a spool whose relay is down."""

    missing: tuple[str, ...] = ()

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def call(self, operation: Operation[A, R], arguments: A) -> R:
        try:
            return await operation.run(self._desk, arguments)
        except SpoolFault as error:
            raise _spool_failed(error) from error

    async def stream(self, operation: StreamOperation[A], arguments: A) -> AsyncIterator[Piece]:
        try:
            async for piece in operation.run(self._desk, arguments):
                yield piece
        except SpoolFault as error:
            raise _spool_failed(error) from error


class ControlClient:
    """One worker of the running relay. Made by `connect`."""

    missing: tuple[str, ...] = ()

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, where: str) -> None:
        self.hello = Hello("", 0)
        self._reader = reader
        self._writer = writer
        self._where = where

    async def call(self, operation: Operation[A, R], arguments: A) -> R:
        await self._ask(operation.name, arguments)
        reply = await self.read(_ANSWER_PATIENCE)
        if isinstance(reply.answer, msgspec.UnsetType):
            raise AdminError("the relay answered something else than was asked", self._where)
        try:
            return msgspec.json.decode(reply.answer, type=operation.result)
        except msgspec.MsgspecError as error:
            raise AdminError(
                f"the relay's answer is not understood: {error}",
                self._where,
                "the relay and this command may be of different versions; restart the relay",
            ) from error

    async def stream(self, operation: StreamOperation[A], arguments: A) -> AsyncIterator[Piece]:
        await self._ask(operation.name, arguments)
        while not (reply := await self.read(_ANSWER_PATIENCE)).done:
            if reply.piece is None:
                raise AdminError("the relay answered something else than was asked", self._where)
            yield reply.piece

    async def _ask(self, name: str, arguments: msgspec.Struct) -> None:
        line = encode_line(Request(name, msgspec.Raw(msgspec.json.encode(arguments))))
        if len(line) > MAX_REQUEST:
            raise AdminError("this asks for too much at once", self._where, "name fewer messages")
        try:
            self._writer.write(line)
            await self._writer.drain()
        except ConnectionError as error:
            raise AdminError(
                "the relay closed the connection", self._where, "see the log of the relay"
            ) from error

    async def read(self, patience: float) -> Reply:
        """The next line of the relay.

        Raises:
            AdminError: it is an error, nothing comes in time, or the connection ends.
        """
        try:
            async with asyncio.timeout(patience):
                line = await self._reader.readuntil(b"\n")
            reply = msgspec.json.decode(line, type=Reply)
        except TimeoutError as error:
            raise AdminError(
                f"the relay does not answer (for {patience:.0f} seconds)",
                self._where,
                "it may be overloaded or stopped: look at its log",
            ) from error
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise AdminError(
                "the relay closed the connection", self._where, "see the log of the relay"
            ) from error
        except msgspec.MsgspecError as error:
            raise AdminError(f"what answers is not a relay: {error}", self._where) from error
        if reply.error is not None:
            raise AdminError(reply.error.what, reply.error.where, reply.error.do)
        return reply

    async def close(self) -> None:
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except ConnectionError:
            pass  # the relay was quicker


async def connect(paths: SpoolPaths, patience: float = _HELLO_PATIENCE, *, worker: int = 0) -> ControlClient:
    """A connection to a worker of the running relay, the first by default.

    Raises:
        RelayDown: nobody listens.
        AdminError: somebody does, and does not let us in or does not answer.
    """
    path = paths.control_of(worker)
    connecting = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connecting.setblocking(False)
        with socket_address(path) as address:
            await asyncio.get_running_loop().sock_connect(connecting, address)
        reader, writer = await asyncio.open_unix_connection(sock=connecting, limit=_MAX_REPLY)
    except OSError as error:
        connecting.close()
        if error.errno in (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR):
            raise RelayDown(str(path)) from error
        reason = error.strerror or str(error)
        do = "ask as root, or as the user that the relay runs as" if error.errno == errno.EACCES else ""
        raise AdminError(f"the relay cannot be reached: {reason.lower()}", str(path), do) from error
    except BaseException:
        connecting.close()
        raise
    client = ControlClient(reader, writer, str(path))
    try:
        hello = (await client.read(patience)).hello
        if hello is None:
            raise AdminError("what answers is not a relay", str(path))
        client.hello = hello
    except BaseException:
        await client.close()
        raise
    return client


async def connect_any(paths: SpoolPaths) -> ControlClient:
    """A connection to the first worker; where it does not run, to another.

    Raises:
        RelayDown: none runs.
        AdminError: the first does, and does not let us in or does not answer.
    """
    try:
        return await connect(paths)
    except RelayDown:
        for path in sorted(paths.root.glob("control.*.sock")):
            number = path.name.split(".")[1]
            if number.isdecimal():
                with suppress(RelayDown, AdminError):
                    return await connect(paths, worker=int(number))
        raise


@asynccontextmanager
async def whole_relay(paths: SpoolPaths) -> AsyncIterator[Caller]:
    """All workers of the running relay.

    Raises:
        RelayDown: none runs.
        AdminError: the relay does not let us in, or does not answer.
    """
    one = await connect_any(paths)
    clients = {one.hello.worker: one}
    missing: dict[int, str] = {}
    try:
        others = [number for number in range(one.hello.workers) if number != one.hello.worker]
        found = await asyncio.gather(
            *[connect(paths, worker=number) for number in others], return_exceptions=True
        )
        for number, answer in zip(others, found, strict=True):
            match answer:
                case ControlClient():
                    clients[number] = answer
                case RelayDown():
                    missing[number] = "it does not run"
                case AdminError():
                    missing[number] = answer.problem.what
                case BaseException():
                    raise answer
        if not others:
            yield one
            return
        shards = {number: client.hello.shards for number, client in clients.items()}
        yield Fleet(clients, shards, missing)
    finally:
        for client in clients.values():
            await client.close()


@asynccontextmanager
async def reach(paths: SpoolPaths, open_desk: Callable[[], Awaitable[Desk]]) -> AsyncIterator[Caller]:
    """The relay when it runs, else the spool itself under its lock.

    Args:
        paths: of the spool.
        open_desk: opens the spool for this process, lock included; called only when the relay is down.

    Raises:
        AdminError: neither can be had.
    """
    if not paths.root.is_dir():
        raise AdminError(
            "there is no spool", str(paths.root), "name its folder with --spool, or its config with -c"
        )
    async with AsyncExitStack() as stack:
        try:
            relay = await stack.enter_async_context(whole_relay(paths))
        except RelayDown:
            pass
        else:
            yield relay
            return
    try:
        desk = await open_desk()
    except SpoolLocked as error:
        raise AdminError(
            f"the spool is in use ({error}), and no relay answers at its control socket",
            str(paths.control),
            "wait until it has started or stopped, then try again",
        ) from error
    except SpoolFault as error:
        raise _spool_failed(error) from error
    try:
        yield LocalCaller(desk)
    finally:
        await desk.spool.close()


def _spool_failed(error: SpoolFault) -> AdminError:
    return AdminError(f"the spool failed: {error}", "spool", "nothing was changed; look at the disk")
