"""The client's side of POP3 without I/O: answers out of octets, commands as octets. # RFC 1939, RFC 2449, RFC 5034

Rules that must not break:

1. The end of a multi-line answer is CRLF.CRLF and nothing else; the CRLF of the status line counts as the first one.
   Dots are removed as in SMTP. # RFC 1939 §3
2. Octets that come while nothing was asked are a fault: they were not said in answer to us, and behind STLS somebody
   on the way may have said them. # RFC 2595 §4
3. Everything that a server can make long is bounded: a status line, a listing. A message is handed on in pieces.
"""

from __future__ import annotations

import re

import msgspec

from lonedot.protocol.data import DataDecoder
from lonedot.protocol.errors import RemoteProtocolError

__all__ = [
    "MAX_MESSAGES",
    "MAX_UIDL",
    "Answers",
    "Ended",
    "Listed",
    "Piece",
    "Status",
    "capabilities",
    "command",
    "numbered",
    "sizes",
    "uidls",
]

MAX_LINE = 4096
"""Octets of a status line; the RFC says 512, and servers talk."""
MAX_LISTING = 16 * 1024 * 1024
"""Octets of an answer that is a listing."""
MAX_MESSAGES = 100_000
"""Messages of one mailbox that are looked at."""
MAX_UIDL = 500
"""Octets; the RFC says 70."""

_CODE = re.compile(rb"\[([A-Z][A-Z0-9/-]{0,40})\]\s*")
_UIDL = re.compile(rb"[!-~]{1,%d}" % MAX_UIDL)
_UNFIT = re.compile(rb"[\r\n\0]")


class Status(msgspec.Struct, frozen=True):
    """The first line of an answer."""

    ok: bool
    text: str
    """Behind `+OK` or `-ERR`, what is no printable ASCII as escapes."""
    code: str = ""
    """Response code in brackets: `AUTH`, `IN-USE`, `SYS/TEMP`. # RFC 2449 §8, RFC 3206"""


class Piece(msgspec.Struct, frozen=True):
    """Octets of a multi-line answer, dots removed."""

    octets: bytes


class Ended(msgspec.Struct, frozen=True):
    """A multi-line answer is whole."""


Answer = Status | Piece | Ended


class Answers:
    """Reads what a server says. Say by `expect` what was asked before its answer is fed."""

    __slots__ = ("_buffer", "_data", "_is_asked", "_is_multiline", "tail")

    def __init__(self) -> None:
        self._buffer = b""
        self._data: DataDecoder | None = None
        self._is_multiline = False
        self._is_asked = True  # the greeting
        self.tail = b""
        """The last octets that came: for people who look for the reason of a time-out."""

    def expect(self, *, multiline: bool) -> None:
        """A command was sent; `multiline`: unless it is `-ERR`, the answer goes on behind the status line."""
        self._is_asked = True
        self._is_multiline = multiline

    @property
    def is_idle(self) -> bool:
        """All that was asked is answered."""
        return not self._is_asked

    def feed(self, octets: bytes) -> list[Answer]:
        """What the octets complete, in order.

        Raises:
            RemoteProtocolError: they are no answer; nothing more can be read from this server.
        """
        self.tail = (self.tail + octets[-16:])[-16:]
        answers: list[Answer] = []
        if self._data is None:
            self._buffer += octets
            octets = self._status(answers)
        if self._data is not None:
            octets = self._content(self._data, octets, answers)
        if octets and not self._is_asked:
            raise RemoteProtocolError("the server said more than it was asked")
        return answers

    def _status(self, answers: list[Answer]) -> bytes:
        """The status line out of the buffer; what stands behind it."""
        if not self._is_asked:
            rest, self._buffer = self._buffer, b""
            return rest
        line, end, rest = self._buffer.partition(b"\n")
        if not end:
            if len(line) > MAX_LINE:
                raise RemoteProtocolError(f"a line of more than {MAX_LINE} octets")
            return b""
        if len(line) > MAX_LINE:
            raise RemoteProtocolError(f"a line of more than {MAX_LINE} octets")
        self._buffer = b""
        status = _status_of(line.removesuffix(b"\r"))
        answers.append(status)
        if status.ok and self._is_multiline:
            self._data = DataDecoder()
        else:
            self._is_asked = False
        return rest

    def _content(self, data: DataDecoder, octets: bytes, answers: list[Answer]) -> bytes:
        piece = data.feed(octets)
        if piece:
            answers.append(Piece(piece))
        if not data.ended:
            return b""
        answers.append(Ended())
        self._data = None
        self._is_asked = False
        return octets[data.used :]


def _status_of(line: bytes) -> Status:
    for lead, ok in ((b"+OK", True), (b"-ERR", False)):
        if line[: len(lead)].upper() == lead and line[len(lead) : len(lead) + 1] in (b"", b" ", b"\t"):
            words = line[len(lead) :].strip()
            found = _CODE.match(words)
            code = found[1].decode() if found else ""
            return Status(ok, _shown(words[found.end() :] if found else words), code)
    raise RemoteProtocolError(f"not an answer of POP3: {_shown(line[:100])!r}")


def _shown(octets: bytes) -> str:
    return "".join(sign if " " <= sign <= "~" else "?" for sign in octets.decode("utf-8", "replace"))[:300]


def command(verb: bytes, *arguments: bytes) -> bytes:
    """A command line.

    Raises:
        ValueError: an argument would end the line.
    """
    line = b" ".join((verb, *arguments))
    if _UNFIT.search(line):
        raise ValueError("CR, LF or NUL in a command")
    return line + b"\r\n"


class Listed(msgspec.Struct, frozen=True):
    """A message as the server lists it."""

    number: int
    uidl: str
    size: int
    """As the server says: a hint, never relied on."""


def numbered(listing: bytes, what: str) -> dict[int, bytes]:
    """`NUMBER WORD` lines. # RFC 1939 §5 (LIST), §7 (UIDL)

    Raises:
        RemoteProtocolError: a line is none, a number stands there twice, or there are too many.
    """
    found: dict[int, bytes] = {}
    for line in listing.split(b"\n"):
        words = line.split()
        if not words:
            continue
        if len(words) < 2 or not words[0].isdigit() or len(words[0]) > 9:
            raise RemoteProtocolError(f"{what}: {_shown(line[:100])!r} is no message and its {what}")
        number = int(words[0])
        if number in found or not number:
            raise RemoteProtocolError(f"{what}: message {number} stands there twice")
        found[number] = words[1]
        if len(found) > MAX_MESSAGES:
            raise RemoteProtocolError(f"more than {MAX_MESSAGES} messages")
    return found


def uidls(listing: bytes) -> dict[int, str]:
    """Unique ids by number. Raises RemoteProtocolError."""
    found: dict[int, str] = {}
    for number, word in numbered(listing, "UIDL").items():
        if not _UIDL.fullmatch(word):
            raise RemoteProtocolError(f"UIDL: {_shown(word[:100])!r} is no unique id")
        found[number] = word.decode("ascii")
    return found


def sizes(listing: bytes) -> dict[int, int]:
    """Sizes by number, as the server says; what is no number is 0. Raises RemoteProtocolError."""
    return {
        number: int(word) if word.isdigit() and len(word) < 16 else 0
        for number, word in numbered(listing, "LIST").items()
    }


def capabilities(listing: bytes) -> dict[str, tuple[str, ...]]:
    """What CAPA names, each with its words, in upper case. # RFC 2449 §5"""
    lines = [line.decode("ascii", "replace").upper().split() for line in listing.splitlines()[:200]]
    return {words[0]: tuple(words[1:]) for words in lines if words}
