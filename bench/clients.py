"""Many clients at once, for the memory benchmark, in a process of their own.

`python -m bench.clients large --port P --clients 200 --octets 25000000`
: all clients come to their DATA phase, trickle a little text, wait for each other, and then send as fast as
  they can.

`python -m bench.clients idle --port P --clients 5000`
: all clients connect and say EHLO; they stay until standard input is closed.

Both print one line of JSON when they are done; `idle` prints it as soon as all are connected.

Rule: clients come from many loopback addresses, fifty from each. Otherwise ports run out, or a limit for one
client is what is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import resource
import sys
import time
from collections.abc import Sequence

import msgspec

CLIENTS_PER_ADDRESS = 50
CONNECTING_AT_ONCE = 100
REPLY_SECONDS = 600.0
TRICKLE_OCTETS = 64
TRICKLE_SECONDS = 0.1  # between two pieces
TRICKLE_PIECES = 20
HEADER = b"From: <sender@example.com>\r\nTo: <recipient@example.net>\r\nSubject: large\r\n\r\n"
LINE = b"QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9wcXJzdHV2d3h5ejAxMjM0\r\n"
BLOCK = LINE * 840  # about 64 KiB


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the clients."""

    accepted: int  # messages answered with 250, or idle sessions that stand
    replies: dict[str, int]  # how often each final reply, or the error in its place, was seen
    seconds: float


class RefusedError(Exception):
    """A reply that ends the client's work; the text is its code."""


class Gate:
    """Opens when every client has arrived or given up."""

    def __init__(self, expected: int) -> None:
        self._expected = expected
        self._open = asyncio.Event()

    def arrive(self) -> None:
        """Count one client, whatever became of it."""
        self._expected -= 1
        if self._expected <= 0:
            self._open.set()

    async def passed(self) -> None:
        """Wait until the gate is open."""
        await self._open.wait()


class Client:
    """One connection."""

    def __init__(self, number: int, port: int) -> None:
        self._source = (
            f"127.1.{number // CLIENTS_PER_ADDRESS // 250}.{number // CLIENTS_PER_ADDRESS % 250 + 1}"
        )
        self._port = port
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def connect(self) -> None:
        """Connect, read the greeting, say EHLO."""
        self._reader, self._writer = await asyncio.open_connection(
            "127.0.0.1", self._port, local_addr=(self._source, 0)
        )
        await self._expect(b"220")
        await self.command(b"EHLO client.example.com", b"250")

    async def command(self, line: bytes, code: bytes) -> None:
        """Send a command and read its reply, which must have the code."""
        self._writer.write(line + b"\r\n")
        await self._expect(code)

    async def send_text(self, octets: bytes) -> None:
        """Send content; the caller keeps the form of lines and dots."""
        self._writer.write(octets)
        await self._writer.drain()

    def close(self) -> None:
        """Hang up."""
        if hasattr(self, "_writer"):
            self._writer.close()

    async def _expect(self, code: bytes) -> None:
        while True:
            line = await asyncio.wait_for(self._reader.readline(), REPLY_SECONDS)
            if line[3:4] != b"-":
                break
        if not line.startswith(code):
            raise RefusedError(line[:3].decode(errors="replace") or "closed")


async def send_large(port: int, clients: int, octets: int) -> Summary:
    """All clients send one message of about `octets` at the same time."""
    started_at = time.perf_counter()
    replies: collections.Counter[str] = collections.Counter()
    gate = Gate(clients)
    connecting = asyncio.Semaphore(CONNECTING_AT_ONCE)
    async with asyncio.TaskGroup() as group:
        for number in range(clients):
            group.create_task(_send_one(Client(number, port), octets, gate, connecting, replies))
    return Summary(accepted=replies["250"], replies=dict(replies), seconds=time.perf_counter() - started_at)


async def _send_one(
    client: Client, octets: int, gate: Gate, connecting: asyncio.Semaphore, replies: collections.Counter[str]
) -> None:
    arrived = False
    try:
        async with connecting:
            await client.connect()
        await client.command(b"MAIL FROM:<sender@example.com>", b"250")
        await client.command(b"RCPT TO:<recipient@example.net>", b"250")
        await client.command(b"DATA", b"354")
        await client.send_text(HEADER)
        for _ in range(TRICKLE_PIECES):
            await client.send_text(LINE[:TRICKLE_OCTETS])
            await asyncio.sleep(TRICKLE_SECONDS)
        await client.send_text(b"\r\n")
        gate.arrive()
        arrived = True
        await gate.passed()
        for _ in range(max(1, octets // len(BLOCK))):
            await client.send_text(BLOCK)
        await client.command(b".", b"250")
        replies["250"] += 1
    except RefusedError as refusal:
        replies[str(refusal)] += 1
    except (OSError, TimeoutError) as error:
        replies[type(error).__name__] += 1
    finally:
        if not arrived:
            gate.arrive()
        client.close()


async def stay_idle(port: int, clients: int) -> None:
    """Connect all clients, tell, and stay until standard input is closed."""
    started_at = time.perf_counter()
    replies: collections.Counter[str] = collections.Counter()
    connecting = asyncio.Semaphore(CONNECTING_AT_ONCE)
    crowd = [Client(number, port) for number in range(clients)]
    async with asyncio.TaskGroup() as group:
        for client in crowd:
            group.create_task(_connect_one(client, connecting, replies))
    summary = Summary(
        accepted=replies["250"], replies=dict(replies), seconds=time.perf_counter() - started_at
    )
    _tell(summary)
    await asyncio.to_thread(sys.stdin.read)
    for client in crowd:
        client.close()


async def _connect_one(
    client: Client, connecting: asyncio.Semaphore, replies: collections.Counter[str]
) -> None:
    try:
        async with connecting:
            await client.connect()
        replies["250"] += 1
    except RefusedError as refusal:
        replies[str(refusal)] += 1
    except (OSError, TimeoutError) as error:
        replies[type(error).__name__] += 1


def raise_file_limit(files: int) -> None:
    """Let this process, and those it starts, hold `files` descriptors open.

    Raises:
        ValueError: the hard limit is lower and may not be raised.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < files:
        highest = hard if hard == resource.RLIM_INFINITY else max(hard, files)
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, highest))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one of the two loads."""
    parser = argparse.ArgumentParser(prog="python -m bench.clients")
    parser.add_argument("load", choices=("large", "idle"))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--octets", type=int, default=25_000_000)
    chosen = parser.parse_args(arguments)
    raise_file_limit(chosen.clients + 100)
    if chosen.load == "large":
        _tell(asyncio.run(send_large(chosen.port, chosen.clients, chosen.octets)))
    else:
        asyncio.run(stay_idle(chosen.port, chosen.clients))


def _tell(summary: Summary) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(summary) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
