"""A command line as logs and transcripts may show it: cut, and without what may be a secret."""

from __future__ import annotations

__all__ = ["HIDDEN", "shown_line"]

HIDDEN = b"***"

_SHOWN_OCTETS = 128
_TOLD_MECHANISMS = frozenset(
    {b"PLAIN", b"LOGIN", b"CRAM-MD5", b"DIGEST-MD5", b"NTLM", b"GSSAPI"}
) | frozenset({b"XOAUTH2", b"OAUTHBEARER", b"SCRAM-SHA-1", b"SCRAM-SHA-256", b"EXTERNAL"})
"""What may stand behind AUTH in a log. Any other word there could be a credential."""


def shown_line(line: bytes) -> bytes:
    """`line` cut to 128 octets; a line that speaks of AUTH or PASS loses its argument."""
    start = line[:16].upper()
    if start.startswith(b"AUTH "):
        words = line.split(b" ", 2)
        is_told = words[1].upper() in _TOLD_MECHANISMS
        shown = b" ".join(words[:2]) if is_told else words[0]
        return shown if is_told and len(words) == 2 else shown + b" " + HIDDEN
    if b"AUTH" in start or b"PASS" in start:
        return HIDDEN
    return line[:_SHOWN_OCTETS]
