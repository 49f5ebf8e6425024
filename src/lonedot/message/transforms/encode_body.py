"""Quoted-printable and base64 over streams (RFC 2045 §6.7, §6.8).

Rules: what comes out depends on the octets alone, never on how they were cut into pieces, since a transform is run
again from the ledger and must give the same digest; memory stays bounded, also for a line without end; decoding gives
back the octets that went in.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable, Iterator

__all__ = ["base64_lines", "decode_quoted_printable", "fold_lines", "quoted_printable", "rewrap_base64"]

_SOFT = b"=\r\n"
_PENDING = 64 * 1024
"""A line that is longer is encoded before its end is seen."""
_LINE = 76
_OCTETS_IN_LINE = 57
_BLOCK = 4096
"""Lines of base64 made at once."""


def quoted_printable(pieces: Iterable[bytes], boundaries: Iterable[bytes] = ()) -> Iterator[bytes]:
    """Encode text: CRLF stays a line end; a CR or LF by itself is an octet like others and becomes `=0D`, `=0A`.

    A soft line break can bring text to the start of a line where it did not stand before. `boundaries` are those of
    the multiparts around: what would then pass for one of their delimiters loses its first hyphen to `=2D`.
    """
    hidden = [
        (b"\r\n--" + boundary, b"\r\n=2D-" + boundary) for boundary in boundaries if b"=" not in boundary
    ]
    for block in _quoted_blocks(pieces):
        for delimiter, replacement in hidden:
            if block.startswith(delimiter[2:]) or delimiter in block:
                block = (b"\r\n" + block).replace(delimiter, replacement)[2:]  # noqa: PLW2901 - the block goes on changed
        yield block


def _quoted_blocks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Encoded text in blocks that start where a line starts."""
    pending = b""
    for piece in pieces:
        pending = pending + piece if pending else piece
        cut = pending.rfind(b"\r\n") + 2
        if cut >= 2:
            yield _quote_lines(pending[:cut])
            pending = pending[cut:]
        elif len(pending) > _PENDING:
            # Everything up to a soft break is settled once some octets behind it are known; what follows it goes
            # back, decoded, so that the encoder goes on as if it had never been cut.
            quoted = _quote_start(pending)
            settled = quoted.rfind(_SOFT, 0, len(quoted) - 8) + 3
            yield quoted[:settled]
            pending = binascii.a2b_qp(quoted[settled:])
    if pending:
        yield _quote_line(pending)


def _quote_lines(lines: bytes) -> bytes:
    """Encode whole lines."""
    pairs = lines.count(b"\r\n")
    if lines.count(b"\n") == pairs and lines.count(b"\r") == pairs:
        return _break_overlong(binascii.b2a_qp(lines, istext=True))
    return b"\r\n".join([_quote_line(line) for line in lines.split(b"\r\n")])


def _quote_line(line: bytes) -> bytes:
    """Encode one line, which is given without its CRLF."""
    if b"\r" in line or b"\n" in line:
        return _quote_strange(line)
    return _break_overlong(binascii.b2a_qp(line + b"\r\n", istext=True))[:-2]


_OVERLONG = re.compile(rb"(?:^|(?<=\n))([^\r\n]{74,75})(=20|=09)(?=\r\n)")


def _break_overlong(quoted: bytes) -> bytes:
    """`b2a_qp` does not count what white space at the end of a line grows by when it is encoded."""
    if b"=20\r\n" in quoted or b"=09\r\n" in quoted:
        return _OVERLONG.sub(rb"\1=\r\n\2", quoted)
    return quoted


def _quote_start(line: bytes) -> bytes:
    """Encode the beginning of a line. What comes out at the end does not hold for the line as a whole."""
    if b"\r" in line or b"\n" in line:
        return _quote_strange(line)
    return binascii.b2a_qp(line, istext=False).replace(b"=\n", _SOFT)


def _quote_strange(line: bytes) -> bytes:
    """Encode octets with a CR or LF by itself, breaking lines where `b2a_qp` breaks others.

    That function writes a line of 77 before an LF. Octet by octet, since canonical text never comes here.
    """
    out: list[bytes] = []
    used = 0
    final = len(line) - 1
    for place, octet in enumerate(line):
        sign = _QUOTED[octet]
        if (octet in b" \t" and place == final) or (
            octet == 46 and not used and (place == final or line[place + 1] in b"\r\n\0")
        ):
            sign = b"=%02X" % octet
        if used + len(sign) >= _LINE and (len(sign) == 3 or place != final):
            out.append(_SOFT)
            used = 0
        out.append(sign)
        used += len(sign)
    return b"".join(out)


_QUOTED = [bytes([o]) if o in b" \t" or (33 <= o <= 126 and o != 61) else b"=%02X" % o for o in range(256)]


def decode_quoted_printable(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The octets that quoted-printable text stands for; what is not well formed stands for itself."""
    pending = b""
    for piece in pieces:
        pending = pending + piece if pending else piece
        cut = pending.rfind(b"\n") + 1
        if not cut and len(pending) > _PENDING:
            cut = len(pending) - 4
            cut = pending.rfind(b"=", cut - 200, cut + 4)
            cut = cut if cut >= 0 else len(pending) - 4
        if cut:
            yield binascii.a2b_qp(pending[:cut])
            pending = pending[cut:]
    if pending:
        yield binascii.a2b_qp(pending)


def base64_lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Encode octets in lines of 76 signs, each ended by CRLF but the last."""
    yield from _wrap(
        binascii.b2a_base64(block, newline=False) for block in _blocks(pieces, _OCTETS_IN_LINE * _BLOCK)
    )


def rewrap_base64(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same base64 in lines of 76 signs; other white space is dropped."""
    yield from _wrap(_blocks((piece.translate(None, b" \t\r\n") for piece in pieces), _LINE * _BLOCK))


def _wrap(blocks: Iterable[bytes]) -> Iterator[bytes]:
    lead = b""
    for block in blocks:
        yield lead + b"\r\n".join([block[start : start + _LINE] for start in range(0, len(block), _LINE)])
        lead = b"\r\n"


def _blocks(pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The same octets in pieces of exactly `size`, but for the last; none is empty."""
    pending = b""
    for piece in pieces:
        pending = pending + piece if pending else piece
        place = 0
        while len(pending) - place >= size:
            yield pending[place : place + size]
            place += size
        pending = pending[place:]
    if pending:
        yield pending


def fold_lines(pieces: Iterable[bytes], limit: int) -> Iterator[bytes]:
    """Break lines longer than `limit` by CRLF and a space, so that no piece of a line can pass for a delimiter.

    Lines end at LF. For what no reader shows (preambles, epilogues): the break stays in the text.
    """
    pending = b""
    room = limit + 2
    for piece in pieces:
        data = pending + piece if pending else piece
        place = 0
        out: list[bytes] = []
        while len(data) - place >= room:
            at = data.rfind(b"\n", place, place + room) + 1
            if at:
                out.append(data[place:at])
                place, room = at, limit + 2
            else:
                out += (data[place : place + room - 2], b"\r\n ")
                place, room = place + room - 2, limit + 1
        if out:
            yield b"".join(out)
        pending = data[place:]
    if b"\n" in pending or len(pending) <= room - 2:
        if pending:
            yield pending
    else:
        yield pending[: room - 2] + b"\r\n " + pending[room - 2 :]
