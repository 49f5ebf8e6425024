"""Replies of a peer, read from octets (RFC 5321 §4.2).

Two rules. The text is kept exactly as sent: what decides is the code and the enhanced status code, both taken out
beside it. And everything is bounded: a peer that never ends a line, or never ends a reply, is an error, not memory.
Lenient where it is harmless: a line may end in a bare LF, and may be longer than the 512 octets of the standard.
"""

from __future__ import annotations

import re

from lonedot.protocol.errors import RemoteProtocolError
from lonedot.terms.reply import Reply

__all__ = ["LINES_LIMIT", "LINE_LIMIT", "ReplyReader"]

LINE_LIMIT = 4096
"""Octets in one line with its end; RFC 5321 §4.5.3.1.5 says 512, servers with long texts say more."""

LINES_LIMIT = 100
"""Lines in one reply."""

# RFC 2034 §4, RFC 3463 §2: class, subject and detail, then white space or the end.
_ENHANCED = re.compile(rb"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?:[ \t]|\Z)").match


class ReplyReader:
    """Takes octets in any pieces, gives replies one at a time."""

    __slots__ = ("_buffer", "_code", "_enhanced", "_lines", "_start")

    def __init__(self) -> None:
        self._buffer = b""
        self._start = 0
        self._code = b""
        self._enhanced = ""
        self._lines: list[bytes] = []

    @property
    def is_empty(self) -> bool:
        """Nothing is left of what was fed: no complete reply, no begun one."""
        return self._start == len(self._buffer) and not self._lines

    def feed(self, octets: bytes) -> None:
        """Add what the socket gave."""
        start = self._start
        if start == len(self._buffer):
            self._buffer = octets
        else:
            self._buffer = self._buffer[start:] + octets
        self._start = 0

    def clear(self) -> None:
        """Forget everything read so far (STARTTLS, RFC 3207 §4.2)."""
        self.__init__()  # type: ignore[misc]

    def next(self) -> Reply | None:
        """The next whole reply; None when more octets are needed.

        Raises:
            RemoteProtocolError: what came is not a reply, or has no end.
        """
        buffer = self._buffer
        while True:
            start = self._start
            end = buffer.find(b"\n", start)
            if end < 0:
                if len(buffer) - start > LINE_LIMIT:
                    raise RemoteProtocolError(f"a reply line of more than {LINE_LIMIT} octets")
                return None
            if end - start >= LINE_LIMIT:
                raise RemoteProtocolError(f"a reply line of more than {LINE_LIMIT} octets")
            self._start = end + 1
            if end > start and buffer[end - 1] == 13:
                end -= 1
            code = buffer[start : start + 3]
            separator = buffer[start + 3 : start + 4] if end > start + 3 else b""
            # isdigit() of bytes knows ASCII digits only.
            if not (len(code) == 3 and end - start >= 3 and code.isdigit() and b"2" <= code < b"6"):
                raise RemoteProtocolError(f"not a reply: {_shown(buffer[start:end])}")
            text = buffer[start + 4 : end]
            if separator == b" " or not separator:
                if not self._lines:
                    found = _ENHANCED(text)
                    # RFC 2034 §4: the class must be that of the reply code, else it is just text.
                    if found is None or text[0] != code[0]:
                        return Reply(int(code), "", (text,))
                    return Reply(int(code), found[1].decode(), (text,))
                return self._last(code, text)
            if separator != b"-":
                raise RemoteProtocolError(f"not a reply: {_shown(buffer[start:end])}")
            self._more(code, text)

    def _more(self, code: bytes, text: bytes) -> None:
        """Keep a line of a multi-line reply."""
        lines = self._lines
        if not lines:
            self._code = code
        elif code != self._code:
            raise RemoteProtocolError(
                f"one reply with two codes: {self._code.decode()} and {code.decode()} {_shown(text)}"
            )
        if len(lines) >= LINES_LIMIT:
            raise RemoteProtocolError(f"a reply of more than {LINES_LIMIT} lines")
        if not self._enhanced and (found := _ENHANCED(text)) is not None and text[0] == code[0]:
            self._enhanced = found[1].decode()
        lines.append(text)

    def _last(self, code: bytes, text: bytes) -> Reply:
        """End a multi-line reply."""
        self._more(code, text)
        whole = Reply(int(code), self._enhanced, tuple(self._lines))
        self._lines = []
        self._enhanced = ""
        return whole


def _shown(octets: bytes) -> str:
    """Octets of a stranger for an error text: escaped and cut."""
    cut = octets[:80]
    return repr(cut)[1:] + ("…" if len(octets) > 80 else "")
