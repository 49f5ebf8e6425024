"""A milter for tests: it keeps all that it is told, and answers as a test says, rightly or wrongly.

It is written apart from Lonedot's own codec, so that a fault there cannot hide a fault here. It runs in threads of its
own: a mail server in the test's loop and one in another process can both speak to it.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["CONTINUE", "Answer", "ScriptedMilter", "change", "pack", "reply_text"]

Answer = Callable[[bytes, bytes], bytes | None]
"""From the letter of a command and its octets to what is sent back; None: the connection is closed."""

SILENT = {
    b"C": 0x1000,
    b"H": 0x2000,
    b"M": 0x4000,
    b"R": 0x8000,
    b"T": 0x10000,
    b"L": 0x80,
    b"N": 0x40000,
    b"B": 0x80000,
}
ALL_ACTIONS = 0x01 | 0x02 | 0x04 | 0x08 | 0x10 | 0x20 | 0x40 | 0x80
WITHOUT_REPLY = b"DAQK"
SECONDS = 20.0


def pack(letter: bytes, octets: bytes = b"") -> bytes:
    """A packet."""
    return struct.pack("!I", 1 + len(octets)) + letter + octets


CONTINUE = pack(b"c")


def change(letter: bytes, *texts: bytes, index: int | None = None) -> bytes:
    """A packet of texts, with an index before them where that letter has one."""
    lead = b"" if index is None else struct.pack("!I", index)
    return pack(letter, lead + b"".join(text + b"\0" for text in texts))


def reply_text(text: str) -> bytes:
    return change(b"y", text.encode())


class ScriptedMilter:
    """Listens on loopback, or on a unix socket when `path` is given. A context manager.

    `answers`: by letter of the command, or one function for all; what is not said is answered with `continue`.
    """

    def __init__(
        self,
        answers: Mapping[bytes, bytes | None] | Answer | None = None,
        *,
        actions: int = ALL_ACTIONS,
        steps: int = 0,
        version: int = 6,
        lists: bytes = b"",
        negotiation: bytes | None = None,
        path: Path | None = None,
        forgets: bytes = b"",
    ) -> None:
        self.sessions: list[list[tuple[bytes, bytes]]] = []
        """What was heard, by connection: letters and octets."""
        self.path = path
        self.forgets = forgets
        """Letters of commands whose octets are not kept."""
        self.port = 0
        self._answers = answers
        self._steps = steps
        self._negotiation = pack(b"O", struct.pack("!III", version, actions, steps) + lists)
        if negotiation is not None:
            self._negotiation = negotiation
        self._listener = socket.socket(socket.AF_UNIX if path else socket.AF_INET)
        self._threads: list[threading.Thread] = []
        self._peers: set[socket.socket] = set()

    @property
    def address(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"inet:{self.port}@127.0.0.1"

    def letters(self, session: int = -1) -> bytes:
        """The commands of one connection, macros aside."""
        return b"".join(letter for letter, _ in self.sessions[session] if letter != b"D")

    def told(self, letter: bytes, session: int = -1) -> list[bytes]:
        """The octets of every such command."""
        return [octets for known, octets in self.sessions[session] if known == letter]

    def macros(self, command: bytes, session: int = -1) -> dict[bytes, bytes]:
        """What was told before that command."""
        found: dict[bytes, bytes] = {}
        for octets in self.told(b"D", session):
            if octets[:1] == command:
                texts = octets[1:].split(b"\0")[:-1]
                found.update(zip(texts[::2], texts[1::2], strict=True))
        return found

    def headers(self, session: int = -1) -> list[tuple[bytes, bytes]]:
        """Names and values of the fields."""
        return [(parts[0], parts[1]) for parts in (o.split(b"\0") for o in self.told(b"L", session))]

    def __enter__(self) -> Self:
        self._listener.bind(str(self.path) if self.path else ("127.0.0.1", 0))
        self._listener.listen(64)
        if self.path is None:
            self.port = self._listener.getsockname()[1]
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for peer in list(self._peers):
            try:
                peer.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self._threads:
            thread.join(SECONDS)

    def _start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            peer.settimeout(SECONDS)
            self._peers.add(peer)
            heard: list[tuple[bytes, bytes]] = []
            self.sessions.append(heard)
            self._start(lambda peer=peer, heard=heard: self._serve(peer, heard))  # type: ignore[misc]

    def _serve(self, peer: socket.socket, heard: list[tuple[bytes, bytes]]) -> None:
        try:
            with peer, peer.makefile("rb") as stream:
                while len(lead := stream.read(4)) == 4:
                    octets = stream.read(struct.unpack("!I", lead)[0])
                    letter, rest = octets[:1], octets[1:]
                    heard.append((letter, b"" if letter in self.forgets else rest))
                    answer = self._answer(letter, rest)
                    if answer is None:
                        return
                    peer.sendall(answer)
        except OSError:
            pass
        finally:
            self._peers.discard(peer)

    def _answer(self, letter: bytes, octets: bytes) -> bytes | None:
        if letter == b"O":
            return self._negotiation
        if letter == b"Q":
            return None
        answers = self._answers
        if callable(answers):
            return answers(letter, octets)
        if answers is not None and letter in answers:
            return answers[letter]
        if letter in WITHOUT_REPLY or SILENT.get(letter, 0) & self._steps:
            return b""
        return CONTINUE
