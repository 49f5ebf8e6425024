"""What the tests of this room share: octets as people and machines write them, and a file for large bodies."""

from __future__ import annotations

from pathlib import Path

from hypothesis import strategies as st

from lonedot.message.content import FileBody

__all__ = ["HEAD", "SCAN", "TemporaryBody", "chunked", "cuts", "mail_octets"]

HEAD = (
    b"From: Scanner <scanner@example.com>\r\n"
    b"To: joe@example.net\r\n"
    b"Subject: a scan of\r\n\ttwo lines\r\n"
    b"Date: Thu, 02 Jul 2026 10:00:00 +0000\r\n"
    b"Message-ID: <1@example.com>\r\n"
    b"\r\n"
)
SCAN = HEAD + (b"A" * 76 + b"\r\n") * 130

_PIECES = [
    b"\r\n", b"\r\n", b"\r\n", b"\r\n\r\n", b"\n", b"\r", b".", b"a: b\r\n", b"From: q\r\n", b"name :", b" ", b"\t",
    b"x" * 30, b"y" * 997, b"z" * 999, b"\xff\xe9", b"\0", b":", b"Received: by x\r\n",
]  # fmt: skip

mail_octets = st.lists(st.sampled_from(_PIECES) | st.binary(max_size=6), max_size=24).map(b"".join)
"""Octets full of line ends, dots, fields and long lines, in every order."""

cuts = st.lists(st.integers(1, 400), max_size=20)
"""Sizes of chunks, for `chunked`."""


def chunked(octets: bytes, sizes: list[int]) -> list[bytes]:
    """The octets cut into chunks of these sizes; the rest is the last."""
    pieces = []
    for size in sizes:
        pieces.append(octets[:size])
        octets = octets[size:]
    return [piece for piece in [*pieces, octets] if piece]


class TemporaryBody:
    """A body file as the spool gives one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self.is_discarded = False
        self._file = path.open("wb")

    def write(self, octets: bytes) -> None:
        self.size += self._file.write(octets)

    def finish(self) -> FileBody:
        self._file.close()
        return FileBody(self.path, self.size)

    def discard(self) -> None:
        self._file.close()
        self.path.unlink(missing_ok=True)
        self.is_discarded = True
