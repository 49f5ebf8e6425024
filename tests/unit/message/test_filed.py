"""What is put into files and programs: no dots, the line ends wanted, hashed, and never whole when altered."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.message.content import CHUNK_SIZE, Content, FileBody, MemoryBody
from lonedot.message.encode import StoredAltered, canonicalise
from lonedot.message.filed import FileEncoder, LineEnd
from lonedot.message.measure import measure, measured

HEAD = b"Subject: test\r\n\r\n"


class Pieces(msgspec.Struct, frozen=True):
    """A body that is read in the pieces that a test wants."""

    pieces: tuple[bytes, ...]

    @property
    def size(self) -> int:
        return sum(map(len, self.pieces))

    def chunks(self, limit: int = CHUNK_SIZE) -> Iterator[bytes]:
        yield from self.pieces

    def octets(self) -> bytes:
        return b"".join(self.pieces)


@given(
    st.lists(st.sampled_from([b"a", b".", b"\r\n", b".\r\n"]), max_size=30),
    st.sampled_from(LineEnd),
    st.data(),
)
def test_however_it_is_read_the_same_is_written(
    parts: list[bytes], line_end: LineEnd, data: st.DataObject
) -> None:
    body = b"".join(parts) + b"\r\n"
    cuts = sorted(data.draw(st.sets(st.integers(1, len(body) - 1), max_size=6)))
    pieces = tuple(body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True))
    content = Content(HEAD, Pieces(pieces), measure(HEAD), measure(body))
    encoder = FileEncoder(canonicalise(content), line_end)
    written = b"".join(encoder.chunks())
    own = b"\n" if line_end is LineEnd.LF else b"\r\n"
    head, rest = HEAD.replace(b"\r\n", own), body.replace(b"\r\n", own)
    assert written == head + rest
    sent = encoder.record()
    assert (sent.mode, sent.size, sent.tail) == (line_end.value, len(written), written[-64:])
    assert sent.head_sha256 == hashlib.sha256(head).digest()
    assert sent.body_sha256 == hashlib.sha256(rest).digest()


def test_a_message_without_a_body() -> None:
    encoder = FileEncoder(canonicalise(measured(HEAD, MemoryBody(b""))), LineEnd.LF)
    assert b"".join(encoder.chunks()) == b"Subject: test\n\n"
    assert encoder.record().body_sha256 == hashlib.sha256(b"").digest()


@pytest.mark.parametrize("stored", [b"paid\r\n", b"owed\r", b"owed\r\n\r\n"])
def test_altered_octets_are_never_given_whole(tmp_path: Path, stored: bytes) -> None:
    (tmp_path / "body").write_bytes(stored)
    content = Content(HEAD, FileBody(tmp_path / "body", 6), measure(HEAD), measure(b"owed\r\n"))
    encoder = FileEncoder(canonicalise(content), LineEnd.LF)
    written = b""
    with pytest.raises(StoredAltered):
        for chunk in encoder.chunks():
            written += chunk
    assert written in (b"", b"Subject: test\n\n")
    with pytest.raises(RuntimeError):
        encoder.record()
