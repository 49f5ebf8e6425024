"""The control socket: the relay's side. Operations by name, over a unix socket in the spool folder.

Rules:
1. Only root and the relay's own user are heard: the socket has mode 0600, and the kernel says who asks (SO_PEERCRED).
2. Start it only while this process holds the lock of the spool: then a socket file that is there is nobody's.
3. Everything a peer controls is bounded: length of a request, connections, the time it may say nothing or not read.
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import msgspec

from lonedot import __version__
from lonedot.admin import (
    backup_operations,
    colleague_operations,
    hold_rules,
    hops,
    import_operations,
    operations,
    pop3_operations,
    queue_operations,
    reload_operations,
    route_operations,
    seeing_operations,
    sinks_operations,
)
from lonedot.admin.operations import Desk, Operation, StreamOperation
from lonedot.admin.values import AdminError, Changed, Piece, Problem
from lonedot.admin.wire import MAX_REQUEST, Hello, Reply, Request, encode_line, socket_address
from lonedot.observability.levels import LogLevel
from lonedot.observability.log import event
from lonedot.spool.interface import SpoolFault

__all__ = ["MAX_CONNECTIONS", "ControlServer"]

MAX_CONNECTIONS = 32
_PATIENCE = 60.0
"""Seconds a peer may say nothing, or leave unread what it asked for."""

A = TypeVar("A", bound=msgspec.Struct)
R = TypeVar("R", bound=msgspec.Struct)

_Answer = Callable[[Desk, msgspec.Raw, int], Awaitable[msgspec.Raw]]
_Stream = Callable[[Desk, msgspec.Raw], AsyncGenerator[Piece, None]]


def _answering(operation: Operation[A, R]) -> _Answer:
    decoder = msgspec.json.Decoder(operation.arguments)

    async def answer(desk: Desk, arguments: msgspec.Raw, uid: int) -> msgspec.Raw:
        result = await operation.run(replace(desk, asker=uid), decoder.decode(arguments))
        if isinstance(result, Changed):
            for id in result.done:
                event(f"queue.{operation.name}", id=id, uid=uid)
        return msgspec.Raw(msgspec.json.encode(result))

    return answer


def _streaming(operation: StreamOperation[A]) -> _Stream:
    decoder = msgspec.json.Decoder(operation.arguments)

    async def stream(desk: Desk, arguments: msgspec.Raw) -> AsyncGenerator[Piece, None]:
        async for piece in operation.run(desk, decoder.decode(arguments)):
            yield piece

    return stream


_ANSWERS: dict[str, _Answer] = {
    operations.LIST.name: _answering(operations.LIST),
    operations.SELECT.name: _answering(operations.SELECT),
    operations.SHOW.name: _answering(operations.SHOW),
    operations.WHY.name: _answering(operations.WHY),
    operations.HOLD.name: _answering(operations.HOLD),
    operations.RELEASE.name: _answering(operations.RELEASE),
    operations.RETRY.name: _answering(operations.RETRY),
    operations.DELETE.name: _answering(operations.DELETE),
    queue_operations.BOUNCE.name: _answering(queue_operations.BOUNCE),
    queue_operations.REROUTE.name: _answering(queue_operations.REROUTE),
    hops.HOPS.name: _answering(hops.HOPS),
    import_operations.IMPORT.name: _answering(import_operations.IMPORT),
    hold_rules.RULES.name: _answering(hold_rules.RULES),
    hold_rules.ADD.name: _answering(hold_rules.ADD),
    hold_rules.REMOVE.name: _answering(hold_rules.REMOVE),
    hold_rules.TAKE.name: _answering(hold_rules.TAKE),
    operations.STATUS.name: _answering(operations.STATUS),
    sinks_operations.BINDINGS.name: _answering(sinks_operations.BINDINGS),
    sinks_operations.APPLY.name: _answering(sinks_operations.APPLY),
    sinks_operations.RELOAD.name: _answering(sinks_operations.RELOAD),
    reload_operations.RELOAD.name: _answering(reload_operations.RELOAD),
    route_operations.ROUTE.name: _answering(route_operations.ROUTE),
    pop3_operations.POP3_LIST.name: _answering(pop3_operations.POP3_LIST),
    pop3_operations.POP3_POLL.name: _answering(pop3_operations.POP3_POLL),
    seeing_operations.FIGURES.name: _answering(seeing_operations.FIGURES),
    seeing_operations.HEALTH.name: _answering(seeing_operations.HEALTH),
    seeing_operations.SCREEN.name: _answering(seeing_operations.SCREEN),
    seeing_operations.LOGS.name: _answering(seeing_operations.LOGS),
}
_BETWEEN_WORKERS: dict[str, _Answer] = {
    colleague_operations.PREPARE.name: _answering(colleague_operations.PREPARE),
    colleague_operations.COMMIT.name: _answering(colleague_operations.COMMIT),
    colleague_operations.ABANDON.name: _answering(colleague_operations.ABANDON),
    colleague_operations.ALIGN.name: _answering(colleague_operations.ALIGN),
    colleague_operations.JOIN.name: _answering(colleague_operations.JOIN),
    colleague_operations.BOOK.name: _answering(colleague_operations.BOOK),
}
_STREAMS: dict[str, _Stream] = {
    backup_operations.BACKUP.name: _streaming(backup_operations.BACKUP),
    operations.OCTETS.name: _streaming(operations.OCTETS),
    operations.EXPORT.name: _streaming(operations.EXPORT),
}


class ControlServer:
    """Serves the operations to the command line.

    Args:
        desk: what they work on.
        path: of the socket; its folder is the spool's.
        allowed_uids: who is heard; by default root and the user of this process.
        patience: seconds a peer may be silent.
        hello: what is said first; by default that of a relay with one worker.
    """

    def __init__(
        self,
        desk: Desk,
        path: Path,
        *,
        allowed_uids: frozenset[int] | None = None,
        patience: float = _PATIENCE,
        max_connections: int = MAX_CONNECTIONS,
        hello: Hello | None = None,
    ) -> None:
        self._hello = hello if hello is not None else Hello(__version__, os.getpid())
        self._desk = desk
        self._path = path
        self._uids = frozenset({0, os.geteuid()}) if allowed_uids is None else allowed_uids
        self._patience = patience
        self._max_connections = max_connections
        self._server: asyncio.Server | None = None
        self._inode = 0
        self._serving: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen.

        Raises:
            AdminError: the path cannot be used; the words say why.
        """
        try:
            listening = self._bind()
        except OSError as error:
            reason = error.strerror or str(error)
            raise AdminError(f"the control socket cannot be opened: {reason}", str(self._path)) from error
        self._server = await asyncio.start_unix_server(self._serve, sock=listening, limit=MAX_REQUEST)

    def _bind(self) -> socket.socket:
        folder = self._path.parent
        if folder.stat().st_mode & 0o022:
            raise AdminError(
                "others may write in the folder of the control socket", str(folder), f"chmod 700 {folder}"
            )
        try:
            there = self._path.lstat()
        except FileNotFoundError:
            pass
        else:
            if not stat.S_ISSOCK(there.st_mode):
                raise AdminError(
                    "a file that is not a socket has its place", str(self._path), "move it elsewhere"
                )
            self._path.unlink()
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            os.fchmod(listening.fileno(), 0o600)  # before bind: on Linux the file is made with this mode
            with socket_address(self._path) as address:
                listening.bind(address)
            self._path.chmod(0o600)
            self._inode = self._path.lstat().st_ino
            listening.listen(self._max_connections)
            listening.setblocking(False)
        except BaseException:
            listening.close()
            raise
        return listening

    async def stop(self) -> None:
        """Close the socket, end what is being served, remove the file. May be called twice."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        for task in tuple(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        try:
            if self._path.lstat().st_ino == self._inode:
                self._path.unlink()
        except OSError:
            pass  # the folder is gone already

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            uid = _peer_uid(writer)
            refusal = self._refusal(uid)
            self._serving.add(task)
            if refusal is not None:
                await self._write(writer, Reply(error=refusal))
                return
            await self._write(writer, Reply(hello=self._hello))
            while await self._one(reader, writer, uid):
                pass
        except (ConnectionError, TimeoutError, asyncio.CancelledError):
            pass  # the peer has gone, sleeps, or the relay stops: there is nobody to tell
        finally:
            self._serving.discard(task)
            if writer.transport.get_write_buffer_size():
                writer.transport.abort()  # nobody reads it; closing would wait for them
            else:
                writer.close()

    def _refusal(self, uid: int) -> Problem | None:
        if uid not in self._uids:
            event("control.refused", LogLevel.WARNING, uid=uid)
            return Problem(
                f"user {uid} may not control this relay",
                str(self._path),
                "ask as root, or as the user that the relay runs as",
            )
        if len(self._serving) >= self._max_connections:
            return Problem("too many connections to the control socket", str(self._path), "try again soon")
        return None

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, uid: int) -> bool:
        """Answer one request; False at the end of the conversation."""
        try:
            async with asyncio.timeout(self._patience):
                line = await reader.readuntil(b"\n")
        except asyncio.IncompleteReadError:
            return False
        except asyncio.LimitOverrunError:
            problem = Problem(f"the request is longer than {MAX_REQUEST} octets", "", "ask for fewer at once")
            await self._write(writer, Reply(error=problem))
            return False
        try:
            request = msgspec.json.decode(line, type=Request)
            if (answer := _ANSWERS.get(request.do) or _BETWEEN_WORKERS.get(request.do)) is not None:
                await self._write(writer, Reply(answer=await answer(self._desk, request.arguments, uid)))
            elif (stream := _STREAMS.get(request.do)) is not None:
                async with aclosing(stream(self._desk, request.arguments)) as pieces:
                    async for piece in pieces:
                        await self._write(writer, Reply(piece=piece))
                await self._write(writer, Reply(done=True))
            else:
                known = ", ".join(sorted({*_ANSWERS, *_STREAMS}))
                raise AdminError(f"there is no operation {request.do[:40]!r}", "do", f"one of: {known}")
        except (ConnectionError, TimeoutError):
            raise
        except Exception as error:
            await self._write(writer, Reply(error=_problem(error)))
        return True

    async def _write(self, writer: asyncio.StreamWriter, reply: Reply) -> None:
        writer.write(encode_line(reply))
        async with asyncio.timeout(self._patience):
            await writer.drain()


def _problem(error: Exception) -> Problem:
    match error:
        case AdminError():
            return error.problem
        case msgspec.MsgspecError() | UnicodeDecodeError():
            return Problem(f"the request is not understood: {error}", "control socket")
        case SpoolFault():
            return Problem(f"the spool failed: {error}", "spool", "nothing was changed; look at the disk")
        case _:
            event("control.failed", LogLevel.ERROR, error=f"{type(error).__name__}: {error}"[:500])
            return Problem(f"the relay failed at this: {type(error).__name__}: {error}"[:500], "relay")


def _peer_uid(writer: asyncio.StreamWriter) -> int:
    """Who connected, as the kernel says; -1 when it does not."""
    peer = writer.get_extra_info("socket")
    try:
        credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    except OSError:
        return -1
    uid: int = struct.unpack("3i", credentials)[1]
    return uid
