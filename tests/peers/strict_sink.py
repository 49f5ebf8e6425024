"""A receiver that ends a message at CRLF.CRLF and at nothing else, and keeps every octet it was sent.

It is written apart from Lonedot's own protocol code, so that a fault there cannot hide a fault here. It is a
judge, not a mail server: it takes all mail, announces what it is told to announce and records what was wrong.

Rules:
1. Octets are recorded as they came; nothing is repaired. `Arrival.content` differs from `Arrival.wire` by dot
   transparency and the closing line alone. # RFC 5321 §4.5.2
2. A command line that does not end in CRLF, or text after the end of data that is no command, is a fault in
   `faults`, and never a reason to be lenient.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Callable, Collection, Sequence
from types import TracebackType
from typing import Self

import msgspec

END_OF_DATA = b"\r\n.\r\n"
LINE_LIMIT = 12288  # octets of a command line; RFC 4954 §4 allows the longest, AUTH
SESSION_SECONDS = 60.0
DEFAULT_EXTENSIONS = ("PIPELINING", "SIZE 104857600", "8BITMIME", "ENHANCEDSTATUSCODES", "SMTPUTF8", "DSN")

_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n")


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """One message as it came over the wire."""

    helo: bytes
    mail: bytes  # the argument of MAIL, "FROM:<…> SIZE=…"
    rcpts: tuple[bytes, ...]  # the arguments of RCPT
    wire: bytes  # from the first octet after 354 to the end of data, both included

    @property
    def content(self) -> bytes:
        """The message: dots unstuffed, the closing dot line removed."""
        text = b"\r\n" + self.wire[:-3]
        return text.replace(b"\r\n.", b"\r\n")[2:]

    @property
    def reverse_path(self) -> bytes:
        """What stands between the angle brackets of MAIL."""
        return _path(self.mail)

    @property
    def recipients(self) -> tuple[bytes, ...]:
        """What stands between the angle brackets of each RCPT."""
        return tuple(_path(rcpt) for rcpt in self.rcpts)

    @property
    def bare_octets(self) -> tuple[int, ...]:
        """Where a CR or LF without its partner stands in `wire`; empty in well-formed mail."""
        return tuple(match.start() for match in _BARE.finditer(self.wire))


class StrictSink:
    """The receiver; a context manager that listens on a free loopback port from entry to exit."""

    def __init__(
        self, *, extensions: Sequence[str] = DEFAULT_EXTENSIONS, unknown: Collection[bytes] = ()
    ) -> None:
        """Mail for an address that is `unknown` is refused with 550, in words that name it."""
        self.extensions = tuple(extensions)
        self.unknown = frozenset(unknown)
        self.arrivals: list[Arrival] = []
        self.faults: list[str] = []
        self._changed = threading.Condition()
        self._listener = socket.socket()
        self._threads: list[threading.Thread] = []
        self._peers: set[socket.socket] = set()
        self._closing = False

    def __enter__(self) -> Self:
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(128)
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._changed:
            self._closing = True
            peers = list(self._peers)
        for peer in [self._listener, *peers]:
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(SESSION_SECONDS)

    @property
    def port(self) -> int:
        """Where it listens on 127.0.0.1."""
        port: int = self._listener.getsockname()[1]
        return port

    def wait_for(self, count: int, seconds: float = 30.0) -> list[Arrival]:
        """The arrivals, as soon as there are `count` of them.

        Raises:
            TimeoutError: fewer came in `seconds`; the text tells how many, and the faults seen.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.arrivals) >= count, seconds):
                raise TimeoutError(f"{len(self.arrivals)} of {count} messages came; faults: {self.faults}")
            return list(self.arrivals)

    def _start(self, work: Callable[..., None], *arguments: socket.socket) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            with self._changed:
                if self._closing:
                    peer.close()
                    return
                self._peers.add(peer)
            self._start(self._serve, peer)

    def _serve(self, peer: socket.socket) -> None:
        try:
            peer.settimeout(SESSION_SECONDS)
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _Session(self, peer).run()
        except OSError as error:
            if not self._closing and not isinstance(error, ConnectionError):
                self._fault(f"the session broke: {error}")
        finally:
            with self._changed:
                self._peers.discard(peer)
            peer.close()

    def _arrived(self, arrival: Arrival) -> None:
        with self._changed:
            self.arrivals.append(arrival)
            self._changed.notify_all()

    def _fault(self, text: str) -> None:
        with self._changed:
            self.faults.append(text)
            self._changed.notify_all()


class _Session:
    """One connection: commands in order, pipelined or not."""

    def __init__(self, sink: StrictSink, peer: socket.socket) -> None:
        self.sink = sink
        self.peer = peer
        self.buffer = bytearray()
        self.helo = b""
        self.mail: bytes | None = None
        self.rcpts: list[bytes] = []

    def run(self) -> None:
        self.reply("220 strict.example.net ESMTP")
        while (line := self.read_line()) is not None:
            verb, _, argument = line.partition(b" ")
            match verb.upper():
                case b"EHLO":
                    self.reset()
                    self.helo = argument
                    self.reply_lines(250, ("strict.example.net", *self.sink.extensions))
                case b"HELO":
                    self.reset()
                    self.helo = argument
                    self.reply("250 strict.example.net")
                case b"MAIL":
                    self.mail = argument
                    self.reply("250 2.1.0 ok")
                case b"RCPT" if self.mail is not None and _path(argument) in self.sink.unknown:
                    self.reply(f"550 5.1.1 <{_path(argument).decode()}> is unknown at strict.example.net")
                case b"RCPT" if self.mail is not None:
                    self.rcpts.append(argument)
                    self.reply("250 2.1.5 ok")
                case b"DATA" if self.mail is not None and self.rcpts:
                    self.take_data(self.mail)
                case b"DATA" if self.mail is not None and self.sink.unknown:
                    self.reply("554 5.5.1 no recipients")
                case b"RSET":
                    self.reset()
                    self.reply("250 2.0.0 ok")
                case b"NOOP":
                    self.reply("250 2.0.0 ok")
                case b"QUIT":
                    self.reply("221 2.0.0 bye")
                    return
                case b"MAIL" | b"RCPT" | b"DATA":
                    self.sink._fault(f"command out of order: {line!r}")
                    self.reply("503 5.5.1 out of order")
                case _:
                    self.sink._fault(f"no command: {line[:200]!r}")
                    self.reply("500 5.5.2 no such command")

    def take_data(self, mail: bytes) -> None:
        self.reply("354 go ahead")
        # A message may be the closing dot line alone: the CRLF before its dot is that of the DATA command.
        start = 0
        while not self.buffer.startswith(b".\r\n") and (end := self.buffer.find(END_OF_DATA, start)) < 0:
            start = max(0, len(self.buffer) - len(END_OF_DATA) + 1)
            if not self.receive():
                self.sink._fault(f"closed inside a message, which ended {bytes(self.buffer[-64:])!r}")
                self.buffer.clear()
                return
        size = 3 if self.buffer.startswith(b".\r\n") else end + len(END_OF_DATA)
        wire = bytes(self.buffer[:size])
        del self.buffer[:size]
        self.sink._arrived(Arrival(helo=self.helo, mail=mail, rcpts=tuple(self.rcpts), wire=wire))
        self.reset()
        self.reply("250 2.0.0 taken")

    def reset(self) -> None:
        self.mail = None
        self.rcpts = []

    def read_line(self) -> bytes | None:
        """The next command without its CRLF; None when the peer has closed."""
        while (end := self.buffer.find(b"\n")) < 0:
            if len(self.buffer) > LINE_LIMIT:
                self.sink._fault(f"a command line longer than {LINE_LIMIT} octets")
                return None
            if not self.receive():
                if self.buffer:
                    self.sink._fault(f"closed inside a command: {bytes(self.buffer[:200])!r}")
                return None
        line = bytes(self.buffer[: end + 1])
        del self.buffer[: end + 1]
        if not line.endswith(b"\r\n") or b"\r" in line[:-2]:
            self.sink._fault(f"a command line with a bare CR or LF: {line[:200]!r}")
        return line.rstrip(b"\r\n")

    def receive(self) -> bool:
        """Wait for more octets; False when the peer has closed."""
        chunk = self.peer.recv(262144)
        self.buffer += chunk
        return bool(chunk)

    def reply(self, line: str) -> None:
        self.peer.sendall(line.encode() + b"\r\n")

    def reply_lines(self, code: int, lines: Sequence[str]) -> None:
        text = "".join(f"{code}-{line}\r\n" for line in lines[:-1]) + f"{code} {lines[-1]}\r\n"
        self.peer.sendall(text.encode())


def _path(argument: bytes) -> bytes:
    start = argument.find(b"<")
    return argument[start + 1 : argument.find(b">", start)]
