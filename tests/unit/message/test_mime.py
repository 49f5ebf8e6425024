"""MIME structure by spans: what it finds in lawful messages, and that nothing makes it raise."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.message.content import CHUNK_SIZE, Content, FileBody, MemoryBody
from lonedot.message.intake import content_from
from lonedot.message.measure import measure
from lonedot.message.mime import MAX_DEPTH, MAX_PARTS, Kind, Structure, walk
from lonedot.message.survey import RegionKind, by_region, regions_of, survey
from tests.corpus.files import CORPUS, FILES, corpus, library_leaves, our_leaves
from tests.corpus.messages import random_message


def bodies(content: Content, structure: Structure) -> list[tuple[str, bytes]]:
    octets = content.body.octets()
    return [(part.path, octets[part.body_start : part.body_end]) for part in structure.parts if part.is_leaf]


def test_a_copier_scan_has_a_text_and_a_document() -> None:
    content = corpus("copier-scan")
    structure = walk(content)
    assert [(p.path, p.content_type, p.encoding) for p in structure.parts] == [
        ("1", b"multipart/mixed", b""),
        ("1.1", b"text/plain", b"7bit"),
        ("1.2", b"application/pdf", b"base64"),
    ]
    text = dict(bodies(content, structure))["1.1"]
    assert text.startswith(b"Scanned from MFP-07\r\n")
    assert text.endswith(b"DPI\r\n")  # the last CRLF belongs to the delimiter
    assert structure.unended == ()
    octets = content.body.octets()
    part = structure.parts[2]
    start, end = part.encoding_field
    assert octets[start:end] == b"Content-Transfer-Encoding: base64\r\n"
    assert octets[part.header_end - 2 : part.header_end] == b"\r\n"
    assert octets[structure.root.closed_at - 7 : structure.root.closed_at] == b"CAN--\r\n"


def test_a_boundary_may_be_the_beginning_of_another() -> None:
    structure = walk(corpus("outlook-related"))
    assert [p.path for p in structure.parts] == ["1", "1.1", "1.1.1", "1.1.2", "1.2"]
    assert structure.unended == ()


def test_lookalikes_are_text() -> None:
    content = corpus("boundary-lookalikes")
    found = bodies(content, walk(content))
    assert found == [("1.1", b"--b x\r\n --b\r\n--b--x\r\ntext --b--"), ("1.2", b"second")]


def test_a_message_in_a_message_is_walked() -> None:
    structure = walk(corpus("nested-message"))
    assert [(p.path, p.kind) for p in structure.parts] == [
        ("1", Kind.MULTIPART),
        ("1.1", Kind.LEAF),
        ("1.2", Kind.MESSAGE),
        ("1.2.1", Kind.MULTIPART),
        ("1.2.1.1", Kind.LEAF),
    ]
    assert not structure.unended


def test_parts_of_a_digest_are_messages_by_default() -> None:
    content = corpus("digest")
    assert [octets for _, octets in bodies(content, walk(content))] == [b"first", b"second"]


@pytest.mark.parametrize(
    ("name", "paths"),
    [
        ("unended-boundary", ["1"]),
        ("unended-inner", ["1.1"]),
        ("boundary-never", ["1"]),
        ("damaged-story", ["1"]),
    ],
)
def test_missing_closing_boundaries_are_named(name: str, paths: list[str]) -> None:
    assert [part.path for part in walk(corpus(name)).unended] == paths


def test_a_multipart_without_a_boundary_is_a_leaf() -> None:
    structure = walk(corpus("boundary-absent"))
    assert [part.kind for part in structure.parts] == [Kind.LEAF]


def test_depth_is_bounded() -> None:
    structure = walk(corpus("deep"))
    assert max(part.depth for part in structure.parts) == MAX_DEPTH
    assert structure.parts[-1].is_leaf


def test_the_number_of_parts_is_bounded() -> None:
    head = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    structure = walk(content_from(head + b"--b\r\n\r\nx\r\n" * (MAX_PARTS + 5) + b"--b--\r\n"))
    assert len(structure.parts) == MAX_PARTS
    assert not structure.is_complete


def test_a_header_section_ends_at_the_next_delimiter() -> None:
    content = content_from(
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/html\r\n--b--\r\n"
    )
    structure = walk(content)
    assert structure.parts[1].content_type == b"text/html"
    assert bodies(content, structure) == [("1.1", b"")]
    assert structure.root.is_ended


def test_a_quoted_parameter_cannot_pass_for_the_boundary() -> None:
    head = b'Content-Type: multipart/mixed; x="; boundary=no"; Boundary="a\\b c"\r\n\r\n'
    structure = walk(content_from(head + b"--ab c\r\n\r\nx\r\n--ab c--\r\n"))
    assert structure.root.boundary == b"ab c"
    assert structure.root.is_ended


@pytest.mark.parametrize("end", [b"\r\n", b"\n", b"\r"])
def test_any_line_end_is_read(end: bytes) -> None:
    octets = (CORPUS / "outlook-related.eml").read_bytes().replace(b"\r\n", end)
    structure = walk(content_from(octets))
    assert [part.path for part in structure.parts] == ["1", "1.1", "1.1.1", "1.1.2", "1.2"]
    assert not structure.unended


class _Cut:
    """A body that gives its octets in pieces of a chosen size."""

    def __init__(self, data: bytes, size: int) -> None:
        self.data = data
        self.cut = size

    @property
    def size(self) -> int:
        return len(self.data)

    def chunks(self, limit: int = CHUNK_SIZE) -> Iterator[bytes]:
        return iter([self.data[at : at + self.cut] for at in range(0, len(self.data), self.cut)])

    def octets(self) -> bytes:
        return self.data


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
@pytest.mark.parametrize("size", [1, 7, 300])
def test_any_chunking_gives_the_same_structure(file: Path, size: int) -> None:
    content = content_from(file.read_bytes())
    cut = Content(
        content.head,
        _Cut(content.body.octets(), size),
        content.head_measure,
        content.body_measure,
    )
    structure = walk(content)
    assert walk(cut) == structure
    whole = {(r, f) for r, f in survey(content.body, structure, encodings=True).items()}
    assert {(r, f) for r, f in survey(cut.body, structure, encodings=True).items()} == whole


@pytest.mark.parametrize("seed", range(60))
def test_leaves_are_those_of_the_standard_library(seed: int) -> None:
    octets = random_message(random.Random(seed))
    assert our_leaves(content_from(octets)) == library_leaves(octets)


@pytest.mark.parametrize("seed", range(20))
def test_regions_cover_the_body_in_order(seed: int) -> None:
    content = content_from(random_message(random.Random(seed)))
    structure = walk(content)
    regions = regions_of(structure, content.body.size)
    place = 0
    for region in regions:
        assert region.start == place < region.end
        place = region.end
    assert place == content.body.size
    assert b"".join(piece for _, piece in by_region(content.body, regions)) == content.body.octets()


@given(st.lists(st.sampled_from([
    b"--b\r\n", b"--b--\r\n", b"--b", b"\r\n", b"\n", b"\r", b" ", b"Content-Type: multipart/mixed; boundary=c\r\n",
    b"Content-Type: message/rfc822\r\n", b"--c\r\n", b"--c--\r\n", b"Content-Transfer-Encoding: base64\r\n", b"\xff",
    b"x: y\r\n", b"text", b"=", b"--", b"Content-Type: multipart/digest; boundary=b\r\n",
]), max_size=40))  # fmt: skip
def test_nothing_raises_and_the_regions_hold(pieces: list[bytes]) -> None:
    head = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    body = MemoryBody(b"".join(pieces))
    content = Content(head, body, measure(head), measure(body.data))
    structure = walk(content)
    assert survey(body, structure, encodings=True).keys() == set(regions_of(structure, body.size))
    for part in structure.parts[1:]:
        assert 0 <= part.header_start <= part.field_end <= part.header_end <= part.body_start <= part.body_end
        assert part.body_end <= body.size


def test_flaws_are_placed() -> None:
    content = corpus("copier-one-line-base64")
    structure = walk(content)
    (flaw,) = [f.long_line for f in survey(content.body, structure).values() if f.long_line >= 0]
    assert content.body.octets()[flaw : flaw + 4] == b"JVBE"
    content = corpus("damaged-story")
    found = survey(content.body, walk(content), encodings=True)
    (place,) = [f.mismatch for r, f in found.items() if r.kind is RegionKind.LEAF]
    assert content.body.octets()[place : place + 4] == b"%PDF"


def test_a_file_is_read_in_chunks(tmp_path: Path) -> None:
    octets = random_message(random.Random(3))
    content = content_from(octets)
    path = tmp_path / "body"
    path.write_bytes(content.body.octets())
    stored = Content(
        content.head, FileBody(path, content.body.size), content.head_measure, content.body_measure
    )
    assert walk(stored) == walk(content)
