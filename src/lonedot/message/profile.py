"""What is known of octets after one pass: sizes and the first place of everything that is not canonical text.

Offsets are counted from the start of the section (head or body) that the profile describes; -1 means "nowhere".
Canonical text: CRLF lines of at most 998 octets, no bare CR or LF, no NUL, a line end at the end (RFC 5321 §2.3.8,
RFC 5322 §2.1.1). 8-bit octets and lines that start with a dot are canonical; they only need care on the way out.
"""

from __future__ import annotations

import msgspec

__all__ = ["LINE_LIMIT", "Profile"]

LINE_LIMIT = 998
"""Octets in a line without its CRLF (RFC 5322 §2.1.1)."""


class Profile(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The profile of one section."""

    size: int = 0
    lines: int = 0
    """Number of LF octets."""
    bare_cr: int = -1
    bare_lf: int = -1
    nul: int = -1
    eight_bit: int = -1
    long_line: int = -1
    """Offset of the first line of more than 998 octets (a line ends at CRLF, bare CR or bare LF)."""
    dot_line: bool = False
    """Some line (also the first) starts with a dot."""
    ends_with_crlf: bool = True
    """True of an empty section."""
    ends_with_line_end: bool = True
    """The last octet is CR or LF. True of an empty section."""

    @property
    def has_clean_line_ends(self) -> bool:
        return self.bare_cr < 0 and self.bare_lf < 0 and self.ends_with_crlf

    @property
    def is_canonical(self) -> bool:
        return self.has_clean_line_ends and self.nul < 0 and self.long_line < 0
