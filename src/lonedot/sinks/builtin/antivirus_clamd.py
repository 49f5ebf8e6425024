"""clamd's protocol as a client speaks it: INSTREAM and VERSION, one connection for each.

Rules a change here must keep:
1. Clean is what the scanner says after it has been sent every octet, in exactly its words. All else is no answer.
2. Every wait has an end, and nothing that a scanner sends makes memory grow.
3. A piece is at most `CHUNK_SIZE` octets; a message is never put together.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Iterator

import msgspec

from lonedot.message.content import CHUNK_SIZE, MemoryBody

__all__ = [
    "Answer",
    "Clean",
    "Found",
    "Place",
    "ScannerFault",
    "TooLarge",
    "ask_version",
    "places_from",
    "scan",
    "streamed",
]

ANSWER_LIMIT = 4096
"""Octets of an answer, which is one line."""
SIGNATURE_LIMIT = 128
IN_MEMORY = 256 * 1024
"""Octets of a body that lies in memory; a larger one may be a file, and a thread reads it."""

_FOUND = re.compile(rb"stream: (.+?)(?:\([0-9a-f]{32}:\d+\))? FOUND", re.DOTALL)
_BEGINS = b"Received: "
_TOO_LARGE = b"INSTREAM size limit exceeded"
_UNPRINTABLE = re.compile(r"[^!-~]+")
_HOST_PORT = re.compile(r"(?:tcp:)?(?:\[([0-9A-Fa-f:.%]+)\]|([^\s:\[\]]+)):(\d{1,5})")
_SEPARATORS = re.compile(r"[\s,]+")


class ScannerFault(Exception):
    """It cannot be reached, does not answer, or answers what is no answer."""


class Clean(msgspec.Struct, frozen=True):
    """Nothing was found."""


class Found(msgspec.Struct, frozen=True):
    """The name of a signature: printable ASCII, bounded."""

    signature: str


class TooLarge(msgspec.Struct, frozen=True):
    """It is beyond what this scanner takes (StreamMaxLength)."""


Answer = Clean | Found | TooLarge


class Place(msgspec.Struct, frozen=True):
    """Where a scanner listens."""

    path: str = ""
    """A unix socket; empty: host and port."""
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def places_from(text: str) -> tuple[Place, ...]:
    """Places separated by commas or white space: `unix:/path` or `host:port`.

    Raises:
        ValueError: there is none, one is neither, or one stands there twice.
    """
    places = tuple(_place_from(word) for word in _SEPARATORS.split(text) if word)
    if not places:
        raise ValueError("scanners names none: write 'unix:/run/clamav/clamd.ctl' or 'host:3310'")
    if len(set(places)) < len(places):
        raise ValueError(f"scanners = {text!r} names one twice")
    return places


def _place_from(word: str) -> Place:
    kind, _, rest = word.partition(":")
    if kind == "unix" and rest.startswith("/"):
        return Place(path=rest)
    found = _HOST_PORT.fullmatch(word)
    if found is not None and kind != "unix" and 1 <= int(found[3]) <= 65535:
        return Place(host=found[1] or found[2], port=int(found[3]))
    raise ValueError(
        f"scanners: {word!r} is not where clamd can be: write 'unix:/path', 'host:port' or '[address]:port'"
    )


async def scan(
    place: Place, octets: AsyncGenerator[bytes, None], connect_seconds: float, scan_seconds: float
) -> Answer:
    """Stream the octets to a scanner. `scan_seconds` are for all after the connection stands.

    Raises:
        ScannerFault: it gave no answer.
        OSError, ValueError: the octets cannot be read; nobody else would read them either.
    """
    async with _connected(place, connect_seconds) as peer:
        try:
            async with asyncio.timeout(scan_seconds):
                is_whole = await _send(peer, octets)
                answer = _answer_from(await _heard(peer))
        except TimeoutError:
            raise ScannerFault(f"no answer within {scan_seconds:g} s") from None
    if isinstance(answer, Clean) and not is_whole:
        raise ScannerFault("says that it found nothing, and did not read all")
    return answer


async def ask_version(place: Place, connect_seconds: float) -> str:
    """The version of the scanner and of its signatures, as it says.

    Raises:
        ScannerFault: it does not say.
    """
    async with _connected(place, connect_seconds) as peer:
        try:
            async with asyncio.timeout(connect_seconds):
                await _push(peer, b"zVERSION\0")
                return _printable(await _heard(peer))
        except TimeoutError:
            raise ScannerFault(f"no answer within {connect_seconds:g} s") from None


async def streamed(head: bytes, body: Iterator[bytes], size: int) -> AsyncGenerator[bytes, None]:
    """Head and body in pieces; a body of more than a little is read by a thread, since it may be a file.

    clamd tells mail by how it begins, and looks into the parts of nothing else: who puts an odd field first must not
    get an attachment past it.
    """
    begins = b"" if head.startswith(_BEGINS) else _BEGINS + b"by lonedot\r\n"
    for piece in MemoryBody(begins + head).chunks(CHUNK_SIZE):
        yield piece
    if size <= IN_MEMORY:
        for piece in body:
            yield piece
        return
    loop = asyncio.get_running_loop()
    while piece := await loop.run_in_executor(None, next, body, b""):
        yield piece


# --- the connection -----------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _connected(place: Place, seconds: float) -> AsyncIterator[socket.socket]:
    try:
        async with asyncio.timeout(seconds):
            peer = await _connect(place)
    except TimeoutError:
        raise ScannerFault(f"no connection within {seconds:g} s") from None
    except OSError as error:
        raise ScannerFault(f"no connection: {error.strerror or error}") from error
    with peer:
        yield peer


async def _connect(place: Place) -> socket.socket:
    """A connection to the first address that takes one.

    Raises:
        OSError: none does.
    """
    loop = asyncio.get_running_loop()
    if place.path:
        return await _connect_to(socket.AF_UNIX, place.path)
    last: OSError | None = None
    for family, _, _, _, address in await loop.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM):
        try:
            return await _connect_to(family, address)
        except OSError as error:
            last = error
    raise last or OSError(f"{place.host} has no address")


async def _connect_to(family: int, address: object) -> socket.socket:
    peer = socket.socket(family, socket.SOCK_STREAM)
    try:
        peer.setblocking(False)
        if family != socket.AF_UNIX:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(peer, address)  # type: ignore[arg-type]  # as getaddrinfo gave it
    except BaseException:
        peer.close()
        raise
    return peer


async def _send(peer: socket.socket, octets: AsyncGenerator[bytes, None]) -> bool:
    """Send the stream; False: the scanner closed before all was sent, and may have said why."""
    if not await _push(peer, b"zINSTREAM\0"):
        return False
    async with contextlib.aclosing(octets) as pieces:
        async for piece in pieces:
            if not await _push(peer, len(piece).to_bytes(4, "big") + piece):
                return False
    return await _push(peer, bytes(4))


async def _push(peer: socket.socket, octets: bytes) -> bool:
    try:
        await asyncio.get_running_loop().sock_sendall(peer, octets)
    except OSError:
        # clamd answers and closes as soon as a message is too large: what it said is read all the same.
        return False
    return True


async def _heard(peer: socket.socket) -> bytes:
    """The answer without its NUL.

    Raises:
        ScannerFault: it is torn, longer than an answer is, or there is none.
    """
    loop = asyncio.get_running_loop()
    heard = bytearray()
    while b"\0" not in heard:
        if len(heard) > ANSWER_LIMIT:
            raise ScannerFault("its answer has no end")
        try:
            octets = await loop.sock_recv(peer, ANSWER_LIMIT)
        except OSError as error:
            raise ScannerFault(f"the connection broke: {error.strerror or error}") from error
        if not octets:
            raise ScannerFault("it closed the connection without an answer")
        heard += octets
    answer, _, rest = bytes(heard).partition(b"\0")
    if rest:
        raise ScannerFault("it says more than an answer")
    return answer


def _answer_from(octets: bytes) -> Answer:
    """Raises ScannerFault when it is neither clean nor found nor too large."""
    if octets == b"stream: OK":
        return Clean()
    if octets.startswith(_TOO_LARGE):
        return TooLarge()
    found = _FOUND.fullmatch(octets)
    if found is None:
        raise ScannerFault(f"it answers {_printable(octets)!r}")
    return Found(_printable(found[1]))


def _printable(octets: bytes) -> str:
    return _UNPRINTABLE.sub(" ", octets.decode("ascii", "replace")).strip()[:SIGNATURE_LIMIT]
