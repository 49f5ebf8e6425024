"""Octets as people can read them: printable ASCII stands for itself, everything else is named in angle brackets.

CR and LF are `<CR>` and `<LF>`, any other octet is its two hexadecimal digits, `<E9>`. A literal `<` that would read
as such a name is written `<3C>`, so what is shown can always be turned back into the octets.
"""

from __future__ import annotations

import re

__all__ = ["visible", "visible_lines", "visible_start"]

_NAMES = {0x0D: "<CR>", 0x0A: "<LF>"}
_TABLE = {octet: _NAMES.get(octet, f"<{octet:02X}>") for octet in range(256) if not 0x20 <= octet < 0x7F}
_LOOKS_NAMED = re.compile(r"<(?=(?:CR|LF|[0-9A-F]{2})>)")


def visible(octets: bytes) -> str:
    """All octets on one line."""
    text = octets.decode("latin-1")
    if "<" in text:
        text = _LOOKS_NAMED.sub("<3C>", text)
    return text.translate(_TABLE)


def visible_start(octets: bytes, limit: int = 120) -> str:
    """The first `limit` octets; `…` says that there are more."""
    return visible(octets) if len(octets) <= limit else visible(octets[:limit]) + "…"


def visible_lines(octets: bytes) -> str:
    """As `visible`, with a new line behind every LF (and at the end, when there is anything)."""
    text = visible(octets).replace("<LF>", "<LF>\n")
    return text if not text or text.endswith("\n") else text + "\n"
