"""The sample of `lonedot try`: a scan of three pages, and the message that a copier makes of it.

`scan.pdf` was made by `tools/make_scan.py`. It ends in `%%EOF` and one LF, and so do the octets of whoever decodes it
and forgets what stood around it.
"""

from __future__ import annotations

import base64
from functools import cache
from importlib.resources import files

from lonedot.terms.address import Address

__all__ = ["COPIER", "RECIPIENT", "SENDER", "attached_scan", "letter", "scan_message", "scan_pdf"]

SENDER = Address(b"copier@example.com")
RECIPIENT = Address(b"goods-in@example.com")
COPIER = "copier-3140.example.com"
"""The name that the copier gives in EHLO."""

_BOUNDARY = b"Larkspur-C3140-0000118700-1"
_LINE = 76  # RFC 2045 §6.8


@cache
def scan_pdf() -> bytes:
    """The scan as the copier's scanner made it."""
    return (files(__package__) / "scan.pdf").read_bytes()


def scan_message(date: bytes, pdf: bytes | None = None) -> bytes:
    """The scan as copiers send it: multipart, base64 in lines of 76 octets, CRLF; no Message-ID, which many omit.

    `date` is the value of the Date field (`trace.date_time`).
    """
    encoded = base64.b64encode(scan_pdf() if pdf is None else pdf)
    lines = [encoded[start : start + _LINE] for start in range(0, len(encoded), _LINE)]
    return b"\r\n".join(
        (
            b"From: Copier, second floor <" + SENDER.octets + b">",
            b"To: <" + RECIPIENT.octets + b">",
            b"Subject: Scan of 3 pages",
            b"Date: " + date,
            b"X-Mailer: Larkspur C3140 scan to e-mail 2.07",
            b"MIME-Version: 1.0",
            b'Content-Type: multipart/mixed; boundary="' + _BOUNDARY + b'"',
            b"",
            b"This is a message in several parts.",
            b"--" + _BOUNDARY,
            b"Content-Type: text/plain; charset=us-ascii",
            b"Content-Transfer-Encoding: 7bit",
            b"",
            b"The attached document was scanned at the copier on the second floor.",
            b"Pages: 3, resolution: 120 dpi, format: PDF",
            b"",
            b"--" + _BOUNDARY,
            b'Content-Type: application/pdf; name="scan.pdf"',
            b"Content-Transfer-Encoding: base64",
            b'Content-Disposition: attachment; filename="scan.pdf"',
            b"",
            *lines,
            b"--" + _BOUNDARY + b"--",
            b"",
        )
    )


def attached_scan(octets: bytes) -> bytes | None:
    """The attachment of `scan_message` decoded again; None when it is not there whole."""
    _, found, rest = octets.partition(b'filename="scan.pdf"\r\n\r\n')
    encoded, end, _ = rest.partition(b"\r\n--" + _BOUNDARY + b"--\r\n")
    if not found or not end:
        return None
    try:
        return base64.b64decode(encoded.replace(b"\r\n", b""), validate=True)
    except ValueError:
        return None


def letter(date: bytes) -> bytes:
    """A small message for people to send by themselves. Its third line of text is a dot, which must come through."""
    return b"\r\n".join(
        (
            b"From: <you@example.com>",
            b"To: <" + RECIPIENT.octets + b">",
            b"Subject: A letter of my own",
            b"Date: " + date,
            b"",
            b"The line below this one is a dot by itself, which ends a message",
            b"for everybody who forgets to double it:",
            b".",
            b"This line stands behind it.",
            b"",
        )
    )
