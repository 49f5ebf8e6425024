"""Parts for reading: those that the standard library finds in well-formed mail, with spans that an edit can aim at."""

from __future__ import annotations

import base64
import io
import random
from collections.abc import Iterator
from email.message import Message as StandardMessage
from email.parser import BytesParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.message import parts
from lonedot.message.content import FileBody, MemoryBody, SplicedBody
from lonedot.message.intake import content_from
from lonedot.message.parts import PartTooLarge, parts_of
from lonedot.message.reading import octets_at, open_range
from tests.corpus.files import CORPUS
from tests.corpus.messages import random_message
from tests.unit.message.messages import mail_octets

SCAN = b"".join(
    line + b"\r\n"
    for line in (
        b"Subject: =?utf-8?q?ein_Gru=C3=9F?=",
        b'Content-Type: multipart/mixed; boundary="b"',
        b"",
        b"preamble",
        b"--b",
        b"Content-Type: text/plain; charset=ISO-8859-1",
        b"Content-Transfer-Encoding: quoted-printable",
        b"",
        b"gr=FC=DFe=",
        b" aus K=F6ln",
        b"--b",
        b"Content-Type: application/pdf; name=plain.pdf",
        b"Content-Transfer-Encoding: BASE64",
        b"Content-Disposition: Attachment; filename*=utf-8''gr%C3%BC%C3%9Fe.pdf",
        b"",
        base64.b64encode(b"%PDF-1.4 \xff %%EOF\n"),
        b"--b--",
    )
)


def test_a_scan() -> None:
    root = parts_of(content_from(SCAN))
    assert (root.path, root.content_type, root.is_multipart) == ("1", "multipart/mixed", True)
    assert root.headers.subject == "ein Gruß"
    text, scan = root.children
    assert (text.content_type, text.charset, text.encoding) == (
        "text/plain",
        "iso-8859-1",
        "quoted-printable",
    )
    assert (text.text(), text.disposition, text.filename) == ("grüße aus Köln", "", "")
    assert (scan.filename, scan.disposition, scan.is_attachment) == ("grüße.pdf", "attachment", True)
    assert scan.payload() == b"%PDF-1.4 \xff %%EOF\n"
    assert scan.parameters == {"name": "plain.pdf"}
    assert [part.path for part in root.walk()] == ["1", "1.1", "1.2"]
    assert [part.path for part in scan.walk()] == ["1.2"]
    assert not scan.children and not text.is_attachment
    with scan.open() as file:
        assert file.read() == scan.octets() == base64.b64encode(scan.payload())


def test_a_span_is_where_an_edit_aims() -> None:
    content = content_from(SCAN)
    text = parts_of(content).children[0]
    body = content.body.octets()
    assert body[text.start : text.end] == text.octets() == b"gr=FC=DFe=\r\n aus K=F6ln"
    changed = content_from(content.head + body[: text.start] + b"hello" + body[text.end :])
    assert [part.payload() for part in parts_of(changed).children] == [b"hello", b"%PDF-1.4 \xff %%EOF\n"]


def test_a_message_in_a_message() -> None:
    inner = b"Subject: inner\r\n\r\nhello\r\n"
    root = parts_of(content_from(b"Content-Type: message/rfc822\r\n\r\n" + inner))
    (child,) = root.children
    assert (root.octets(), child.headers.subject, child.text()) == (inner, "inner", "hello\r\n")


def test_what_is_too_large_is_read_as_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_LIMIT", 3)
    root = parts_of(content_from(b"A: b\r\n\r\nfour"))
    for read in (root.octets, root.payload, root.text):
        with pytest.raises(PartTooLarge, match=r"4 octets; read it with open\(\)"):
            read()
    assert root.open().read(2) == b"fo"


def standard_parts(message: StandardMessage) -> list[tuple[str, bytes | None]]:
    """Type and payload of every part; of a part with children no payload."""
    found = []
    for part in message.walk():
        is_leaf = not part.is_multipart()
        payload = part.get_payload(decode=True) if is_leaf else None
        assert payload is None or isinstance(payload, bytes)
        found.append((part.get_content_type(), payload))
    return found


def assert_as_the_standard_library(octets: bytes) -> None:
    ours = [
        (part.content_type, None if part.is_multipart else part.payload())
        for part in parts_of(content_from(octets)).walk()
    ]
    assert ours == standard_parts(BytesParser().parsebytes(octets))


# What the standard library makes of these is another thing, each for a reason of its own.
_DIFFERENT = {
    "boundary-absent.eml": "a multipart without a boundary is a leaf of its type",
    "boundary-never.eml": "a multipart whose boundary never comes",
    "deep.eml": "deeper than what is read",
    "delivery-report.eml": "the blocks of a message/delivery-status are no parts (RFC 3464 §2.1)",
}


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*.eml")), ids=lambda path: path.name)
def test_the_corpus(path: Path) -> None:
    octets = path.read_bytes()
    if path.name.startswith(("damaged-", "unended-", "header-malformed", "header-only-junk")):
        assert list(parts_of(content_from(octets)).walk())
    elif path.name in _DIFFERENT:
        assert parts_of(content_from(octets)).path == "1"
    else:
        assert_as_the_standard_library(octets)


@given(st.integers(0, 2**32))
def test_random_mail(seed: int) -> None:
    assert_as_the_standard_library(random_message(random.Random(seed)))


@given(mail_octets)
def test_nothing_raises_whatever_the_octets(octets: bytes) -> None:
    for part in parts_of(content_from(SCAN + octets)).walk():
        assert part.octets() == part.open().read()
        assert isinstance(part.text(), str)
        assert (part.filename, part.charset, part.disposition, repr(part)) is not None


@given(
    st.binary(max_size=60), st.integers(0, 70), st.integers(0, 70), st.lists(st.integers(-70, 70), max_size=8)
)
def test_a_body_is_read_at_any_place(data: bytes, start: int, end: int, reads: list[int]) -> None:
    half = len(data) // 2
    spliced = SplicedBody(
        MemoryBody(b"xx" + data[half:]), (data[:half], (2, 2 + len(data) - half)), len(data)
    )
    for body in (MemoryBody(data), spliced, _Chunked(data)):
        assert octets_at(body, start, end) == data[start : max(start, end)]
        ours, theirs = open_range(body, 0, len(data)), io.BytesIO(data)
        for place in reads:
            if place < 0:
                assert ours.read(-place) == theirs.read(-place)
            else:
                assert ours.seek(place) == theirs.seek(place)
        assert ours.seek(0, io.SEEK_END) == len(data)


class _Chunked:
    """A body that only comes in chunks."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def chunks(self, limit: int = 7) -> Iterator[bytes]:
        return iter([self._data[at : at + 7] for at in range(0, len(self._data), 7)])

    def octets(self) -> bytes:
        return self._data


def test_a_file_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "body"
    path.write_bytes(b"a" * 1_000_000 + b"the end")
    body = FileBody(path, 1_000_007)
    assert octets_at(body, 1_000_000, 2_000_000) == b"the end"
    with pytest.raises(ValueError, match="shorter than what was stored"):
        octets_at(FileBody(path, 1_000_010), 1_000_000, 1_000_010)
