"""SMTP replies, ours and the peers', with the codes the product uses.

A peer's reply keeps its text exactly as sent; what decides is the code and the enhanced status code.
"""

from __future__ import annotations

import msgspec

__all__ = ["Reply", "reply"]


class Reply(msgspec.Struct, frozen=True, array_like=True):
    """A reply code, an enhanced status code (`""` when there is none) and one or more lines of text.

    `lines` hold the text behind code and separator. In our own replies the enhanced code is *not* in them; in
    a peer's reply it stays where the peer put it.
    """

    code: int
    enhanced: str
    lines: tuple[bytes, ...]

    @property
    def is_positive(self) -> bool:
        """2xx or 3xx."""
        return 200 <= self.code < 400

    @property
    def is_transient(self) -> bool:
        """4xx."""
        return 400 <= self.code < 500

    @property
    def is_permanent(self) -> bool:
        """5xx."""
        return 500 <= self.code < 600

    @property
    def text(self) -> str:
        """One line for people: code and text, in the peer's own words; controls escaped."""
        words = b" / ".join(self.lines).decode("utf-8", "backslashreplace")
        words = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in words)
        if self.enhanced and not words.startswith(self.enhanced):
            return f"{self.code} {self.enhanced} {words}"
        return f"{self.code} {words}"

    def encode(self) -> bytes:
        """The octets on the wire (RFC 5321 §4.2.1); the enhanced code stands on every line (RFC 2034 §4)."""
        lead = f"{self.enhanced} ".encode() if self.enhanced else b""
        if len(self.lines) == 1:
            return b"%d %s%s\r\n" % (self.code, lead, self.lines[0])
        first = b"".join(b"%d-%s%s\r\n" % (self.code, lead, line) for line in self.lines[:-1])
        return first + b"%d %s%s\r\n" % (self.code, lead, self.lines[-1])


def reply(code: int, enhanced: str, *lines: str) -> Reply:
    """Our own reply from text; `enhanced` may be empty (greeting, 354, EHLO, 221 before EHLO)."""
    return Reply(code, enhanced, tuple(line.encode() for line in lines) or (b"",))
