"""A POP3 server for tests: one mailbox, and faults that a test lays at its steps."""

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections.abc import AsyncIterator

__all__ = ["Fault", "Pop3Server"]


class Fault(enum.Enum):
    """What the server does in place of an answer; once."""

    DROP = "drop"
    """Closes the line, nothing done."""
    DROP_AFTER = "drop after"
    """Does what was asked, and closes the line in place of the answer."""
    HALF = "half"
    """Half of the answer, then it closes the line."""
    GARBAGE = "garbage"
    ERR = "err"
    MORE = "more"
    """The answer, and something that nobody asked for."""
    SILENT = "silent"


class Pop3Server:
    """`mailbox` may be changed between looks; `faults` by verb (`hello` is the greeting), the first one first."""

    def __init__(self) -> None:
        self.mailbox: list[tuple[str, bytes]] = []
        self.faults: dict[str, list[Fault | None]] = {}
        self.sizes: dict[str, int] = {}
        """By UIDL, where it lies about them."""
        self.raw: dict[str, bytes] = {}
        """By UIDL, the whole answer to RETR."""
        self.said: list[str] = []
        self.has_sasl = True
        self.has_uidl = True
        self.password = "secret"
        self.port = 0
        self.is_silent = asyncio.Event()
        """Set when it says nothing."""
        self._servings: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Pop3Server]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self
            for task in self._servings:
                task.cancel()

    def verbs(self, verb: str) -> list[str]:
        return [line for line in self.said if line.split()[0] == verb]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._servings.add(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await self._session(reader, writer)
        writer.close()

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        box = list(self.mailbox)
        doomed: set[int] = set()
        verb, answer = "hello", b"+OK ready\r\n"
        while True:
            if not await self._answer(writer, verb, answer) or verb == "QUIT":
                return
            line = (await reader.readline()).decode()
            if not line:
                return
            self.said.append(line.strip())
            verb, _, argument = line.strip().partition(" ")
            waiting = self.faults.get(verb, [])
            is_done = not waiting or waiting[0] in (None, Fault.DROP_AFTER, Fault.HALF, Fault.MORE)
            answer = self._do(verb, argument, box, doomed) if is_done else b"+OK\r\n"

    async def _answer(self, writer: asyncio.StreamWriter, verb: str, answer: bytes) -> bool:
        waiting = self.faults.get(verb, [])
        match waiting.pop(0) if waiting else None:
            case Fault.DROP | Fault.DROP_AFTER:
                return False
            case Fault.HALF:
                writer.write(answer[: max(1, len(answer) // 2)])
                await writer.drain()
                return False
            case Fault.GARBAGE:
                answer = b"\x00\xff what is this\r\n"
            case Fault.ERR:
                answer = b"-ERR [SYS/TEMP] not now\r\n"
            case Fault.MORE:
                answer += b"+OK and this too\r\n"
            case Fault.SILENT:
                self.is_silent.set()
                await asyncio.Event().wait()
        writer.write(answer)
        await writer.drain()
        return True

    def _do(self, verb: str, argument: str, box: list[tuple[str, bytes]], doomed: set[int]) -> bytes:
        match verb:
            case "CAPA":
                return b"+OK\r\nUIDL\r\n" + (b"SASL PLAIN\r\n" if self.has_sasl else b"USER\r\n") + b".\r\n"
            case "PASS":
                return b"+OK\r\n" if argument == self.password else b"-ERR [AUTH] no\r\n"
            case "UIDL":
                if not self.has_uidl:
                    return b"-ERR what\r\n"
                lines = [f"{number} {uidl}\r\n" for number, (uidl, _) in enumerate(box, 1)]
                return b"+OK\r\n" + "".join(lines).encode() + b".\r\n"
            case "LIST":
                lines = [
                    f"{number} {self.sizes.get(uidl, len(octets))}\r\n"
                    for number, (uidl, octets) in enumerate(box, 1)
                ]
                return b"+OK\r\n" + "".join(lines).encode() + b".\r\n"
            case "RETR":
                uidl, octets = box[int(argument) - 1]
                if uidl in self.raw:
                    return self.raw[uidl]
                stuffed = (b"\r\n" + octets).replace(b"\r\n.", b"\r\n..")[2:]
                end = b"" if stuffed.endswith(b"\r\n") else b"\r\n"
                return b"+OK\r\n" + stuffed + end + b".\r\n"
            case "DELE":
                doomed.add(int(argument))
            case "QUIT":
                gone = [box[number - 1] for number in doomed]
                self.mailbox = [one for one in self.mailbox if one not in gone]
        return b"+OK\r\n"
