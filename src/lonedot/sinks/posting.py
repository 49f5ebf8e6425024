"""Octets sent to an HTTP endpoint by POST, and its answer: for sinks that ask or hand over to a web service.

HTTP/1.1 with `h11`, over connections that are kept for the next call. Rules a change here must keep:
1. What is posted is read in pieces, and may be posted again from the start; an answer is bounded.
2. A redirection is not followed: the endpoint is the one that a person wrote down.
3. A call that is cancelled leaves no connection behind whose next answer would be another's.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import re
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import h11
import msgspec

from lonedot.sinks.calls import Failure

__all__ = [
    "IN_MEMORY",
    "Endpoint",
    "Fields",
    "Posted",
    "Poster",
    "Reply",
    "endpoint_of",
    "form",
    "signed",
]

CONNECT_SECONDS = 5.0
IDLE_SECONDS = 30.0
IDLE_CONNECTIONS = 8
KEY_OCTETS = 16
"""The least length of a key for signatures."""
IN_MEMORY = 64 * 1024
"""Octets that are read on the loop; more may lie in a file, and a thread reads them."""
TRIES = 3
WAIT_SECONDS = 0.2
"""Before the second try; doubled for the next."""

_HEAD_OCTETS = 32 * 1024
_INTERIM_REPLIES = 10
_NOT_PLAIN = re.compile(r"[^ -~]+")

Fields = Sequence[tuple[str, str]]


class Endpoint(msgspec.Struct, frozen=True):
    """Where it is sent to."""

    is_tls: bool
    host: str
    port: int
    target: str
    """Path and query."""
    authority: str


class Posted(msgspec.Struct, frozen=True):
    """What is posted."""

    size: int
    pieces: Callable[[], Iterator[bytes]]
    """From the first octet, at every call."""


class Reply(msgspec.Struct, frozen=True):
    """What an endpoint answers."""

    status: int
    body: bytes

    @property
    def words(self) -> str:
        """For people, bounded."""
        said = _NOT_PLAIN.sub(" ", self.body[:400].decode("utf-8", "replace")).strip()[:200]
        return f"{self.status}: {said}" if said else f"{self.status}"


class _Lost(Exception):
    """A connection that cannot be made, or broke before the answer was whole."""


def endpoint_of(url: str) -> Endpoint:
    """The endpoint at `http://…` or `https://…`.

    Raises:
        ValueError: it is none.
    """
    try:
        split = urlsplit(url)
        host, port = split.hostname or "", split.port
    except ValueError as error:
        raise ValueError(f"url: {error}; write https://host/path") from None
    if split.scheme not in ("http", "https") or not host:
        raise ValueError("url: write https://host/path, or http:// where the way to it is your own")
    if split.username is not None or split.fragment:
        raise ValueError("url: must not hold a name, a password or a #")
    if not re.fullmatch(r"[!-~]+", url):
        raise ValueError("url: must be ASCII without spaces; write %20 for a space")
    is_tls = split.scheme == "https"
    target = (split.path or "/") + (f"?{split.query}" if split.query else "")
    return Endpoint(is_tls, host, port or (443 if is_tls else 80), target, split.netloc)


def form(parts: Sequence[tuple[str, str, str, Posted]]) -> tuple[str, Posted]:
    """A `multipart/form-data` of (name, file name or empty, content type, octets), and its content type.

    RFC 7578
    """
    boundary = secrets.token_hex(20)
    heads = []
    for name, file, kind, _ in parts:
        filename = f'; filename="{file}"' if file else ""
        heads.append(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{filename}\r\n'
            f"Content-Type: {kind}\r\n\r\n".encode()
        )
    end = f"--{boundary}--\r\n".encode()

    def pieces() -> Iterator[bytes]:
        for head, (_, _, _, posted) in zip(heads, parts, strict=True):
            yield head
            yield from posted.pieces()
            yield b"\r\n"
        yield end

    size = sum(len(head) + part[3].size + 2 for head, part in zip(heads, parts, strict=True)) + len(end)
    return f"multipart/form-data; boundary={boundary}", Posted(size, pieces)


async def signed(posted: Posted, key_file: str, now: float | None = None) -> str:
    """`t=SECONDS,v1=HEX`: HMAC-SHA256, with the key in the file, of the seconds since 1970, a dot, and what is posted.

    Raises:
        Failure: the key cannot be read, or is too short.
    """
    seconds = str(int(time.time() if now is None else now))

    def made() -> str:
        try:
            key = Path(key_file).read_bytes().strip()
        except OSError as error:
            raise Failure(f"the key in {key_file} cannot be read: {error.strerror}") from error
        if len(key) < KEY_OCTETS:
            raise Failure(f"the key in {key_file} is shorter than {KEY_OCTETS} octets")
        digest = hmac.new(key, f"{seconds}.".encode(), hashlib.sha256)
        for piece in posted.pieces():
            digest.update(piece)
        return digest.hexdigest()

    return f"t={seconds},v1={await asyncio.to_thread(made)}"


class _Line(msgspec.Struct):
    """A connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    http: h11.Connection
    used_at: float = 0.0

    def abort(self) -> None:
        self.writer.transport.abort()


class Poster:
    """Posts to one endpoint."""

    def __init__(self, endpoint: Endpoint, ca_file: str, answer_limit: int) -> None:
        self._endpoint = endpoint
        self._ca_file = ca_file
        self._limit = answer_limit
        self._tls: ssl.SSLContext | None = None
        self._idle: list[_Line] = []

    async def post(self, posted: Posted, fields: Fields) -> Reply:
        """Post it, and again when the connection fails: `fields` hold a key by which the endpoint knows that.

        Raises:
            Failure: there is no answer, or it breaks the protocol.
        """
        wait = WAIT_SECONDS
        for number in range(TRIES):
            try:
                return await self._posted(posted, fields)
            except _Lost as error:
                if number == TRIES - 1:
                    raise Failure(f"{self._place()}: {error}") from error
            await asyncio.sleep(wait)
            wait *= 2
        raise AssertionError

    def close(self) -> None:
        """End the connections that are kept."""
        while self._idle:
            self._idle.pop().abort()

    async def _posted(self, posted: Posted, fields: Fields) -> Reply:
        while (line := self._kept()) is not None:
            with contextlib.suppress(_Lost):  # it was closed while nobody used it
                return await self._over(line, posted, fields)
        return await self._over(await self._opened(), posted, fields)

    def _kept(self) -> _Line | None:
        now = asyncio.get_running_loop().time()
        while self._idle:
            line = self._idle.pop()
            if now - line.used_at < IDLE_SECONDS and not line.reader.at_eof():
                return line
            line.abort()
        return None

    async def _opened(self) -> _Line:
        place = self._endpoint
        try:
            if place.is_tls and self._tls is None:
                self._tls = await asyncio.to_thread(ssl.create_default_context, cafile=self._ca_file or None)
        except OSError as error:
            raise Failure(f"{self._ca_file} holds no certificates that can be read: {error}") from error
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                reader, writer = await asyncio.open_connection(
                    place.host, place.port, ssl=self._tls if place.is_tls else None
                )
        except TimeoutError as error:
            raise _Lost(f"no connection within {CONNECT_SECONDS:g} s") from error
        except ssl.SSLCertVerificationError as error:
            raise Failure(
                f"{self._place()}: its certificate is not accepted: {error.verify_message}"
            ) from error
        except OSError as error:
            raise _Lost(f"no connection: {error.strerror or error}") from error
        return _Line(reader, writer, h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_OCTETS))

    async def _over(self, line: _Line, posted: Posted, fields: Fields) -> Reply:
        """Send and hear at the same time: an endpoint may answer before it has read all."""
        sending = asyncio.ensure_future(self._send(line, posted, fields))
        is_kept = False
        try:
            reply = await self._heard(line, sending)
            if sending.done() and line.http.our_state is line.http.their_state is h11.DONE:
                line.http.start_next_cycle()
                line.used_at = asyncio.get_running_loop().time()
                is_kept = len(self._idle) < IDLE_CONNECTIONS
                if is_kept:
                    self._idle.append(line)
            return reply
        except h11.RemoteProtocolError as error:
            raise _Lost(f"it breaks HTTP: {error}") from error
        except OSError as error:
            raise _Lost(f"the connection broke: {error.strerror or error}") from error
        finally:
            sending.cancel()
            if not is_kept:
                line.abort()
            await asyncio.gather(sending, return_exceptions=True)

    async def _send(self, line: _Line, posted: Posted, fields: Fields) -> None:
        head = [
            ("Host", self._endpoint.authority),
            ("User-Agent", "lonedot"),
            ("Content-Length", str(posted.size)),
            *fields,
        ]
        request = h11.Request(method="POST", target=self._endpoint.target, headers=head)
        line.writer.write(line.http.send(request) or b"")
        async for piece in _read(posted):
            line.writer.write(line.http.send(h11.Data(data=piece)) or b"")
            await line.writer.drain()
        line.writer.write(line.http.send(h11.EndOfMessage()) or b"")
        await line.writer.drain()

    async def _heard(self, line: _Line, sending: asyncio.Future[None]) -> Reply:
        """The whole answer.

        Raises:
            _Lost, OSError, h11.RemoteProtocolError: there is none.
            Failure: it is too long, or what is posted cannot be read.
        """
        status, size, interim = 0, 0, 0
        body: list[bytes] = []
        while True:
            event = line.http.next_event()
            if event is h11.NEED_DATA:
                reading = asyncio.ensure_future(line.reader.read(65536))
                try:
                    if not sending.done():
                        both: tuple[asyncio.Future[bytes] | asyncio.Future[None], ...] = (reading, sending)
                        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                        self._check_sent(sending)
                    line.http.receive_data(await reading)
                finally:
                    reading.cancel()
            elif isinstance(event, h11.InformationalResponse):
                interim += 1
                if interim > _INTERIM_REPLIES:
                    raise _Lost("it answers with interim replies alone")
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                size += len(event.data)
                if size > self._limit:
                    raise Failure(f"{self._place()}: it answers with more than {self._limit} octets")
                body.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                return Reply(status, b"".join(body))
            else:
                raise _Lost("it closed the connection without an answer")

    def _check_sent(self, sending: asyncio.Future[None]) -> None:
        """Raises Failure when what is posted cannot be read; one that stops reading may still have answered."""
        error = sending.exception() if sending.done() and not sending.cancelled() else None
        if error is not None and not isinstance(error, ConnectionError):
            raise Failure(f"the message could not be read: {error}") from error

    def _place(self) -> str:
        return f"{self._endpoint.authority}{self._endpoint.target.partition('?')[0]}"


async def _read(posted: Posted) -> AsyncIterator[bytes]:
    pieces = posted.pieces()
    if posted.size <= IN_MEMORY:
        for piece in pieces:
            if piece:
                yield piece
        return
    while (read := await asyncio.to_thread(_next, pieces)) is not None:
        if read:
            yield read


def _next(pieces: Iterator[bytes]) -> bytes | None:
    return next(pieces, None)
