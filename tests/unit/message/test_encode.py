"""What leaves: canonical, stuffed, ended once, hashed; and never an end of data behind altered octets."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from lonedot.message.content import CHUNK_SIZE, Content, FileBody, MemoryBody
from lonedot.message.encode import (
    CanonicalContent,
    DataEncoder,
    NotCanonical,
    Sent,
    StoredAltered,
    canonicalise,
)
from lonedot.message.findings import Code
from lonedot.message.intake import content_from
from lonedot.message.measure import measure, measured
from lonedot.message.transforms.crlf import repair_line_ends
from tests.unit.message.messages import HEAD, SCAN, mail_octets


def sent(content: Content) -> tuple[list[bytes], Sent]:
    encoder = DataEncoder(canonicalise(content), "DATA")
    chunks = list(encoder.chunks())
    return chunks, encoder.record()


def stored(path: Path, body: bytes) -> Content:
    path.write_bytes(body)
    return measured(HEAD, FileBody(path, len(body)))


def unstuffed(wire: bytes) -> bytes:
    """What a strict receiver takes: it knows CRLF.CRLF and nothing else."""
    wire = b"\r\n" + wire
    end = wire.index(b"\r\n.\r\n")
    assert end + 5 == len(wire), "the end of data comes once, and last"
    return wire[: end + 2].replace(b"\r\n.", b"\r\n")[2:]


def test_canonical_content_is_made_by_nothing_else() -> None:
    with pytest.raises(TypeError):
        CanonicalContent(content_from(SCAN), object())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(octets=mail_octets)
def test_a_strict_receiver_gets_the_content(tmp_path: Path, octets: bytes) -> None:
    content = repair_line_ends(content_from(HEAD + octets.replace(b"\0", b"").replace(b"z" * 999, b"z")))
    if content.body_measure.profile.long_line >= 0:
        with pytest.raises(NotCanonical):
            canonicalise(content)
        return
    chunks, record = sent(content)
    assert len(chunks) == 1
    wire = chunks[0]
    assert unstuffed(wire) == content.octets()
    head_end = len(wire) - 3 - len(content.body.octets().replace(b"\r\n.", b"\r\n.."))
    head_end -= content.body.octets().startswith(b".")
    assert record == Sent(
        "DATA",
        len(wire),
        hashlib.sha256(wire[:head_end]).digest(),
        hashlib.sha256(wire[head_end:-3]).digest(),
        wire[-64:],
    )
    from_file, from_file_record = sent(stored(tmp_path / "body", content.body.octets()))
    assert b"".join(from_file) == wire
    assert from_file_record == record


def test_bdat_sends_the_octets_as_they_are() -> None:
    content = content_from(HEAD + b".\r\n..\r\n")
    canonical = canonicalise(content)
    encoder = DataEncoder(canonical, "BDAT")
    assert list(encoder.chunks()) == [HEAD + b".\r\n..\r\n"]
    record = encoder.record()
    assert (record.mode, record.size, record.body_sha256) == (
        "BDAT",
        canonical.size,
        content.body_measure.sha256,
    )


def test_a_field_name_may_begin_with_a_dot() -> None:
    chunks, record = sent(content_from(b".a: b\r\n.c: d\r\n\r\n"))
    assert chunks == [b"..a: b\r\n..c: d\r\n\r\n.\r\n"]
    assert record.head_sha256 == hashlib.sha256(b"..a: b\r\n..c: d\r\n\r\n").digest()


@pytest.mark.parametrize("mode", ["DATA", "BDAT"])
def test_a_large_body_goes_in_pieces_with_dots_at_their_borders(tmp_path: Path, mode: str) -> None:
    line = b"x" * 62 + b"\r\n"
    body = line * (CHUNK_SIZE // 64) + b".dot at the border\r\n" + line * (CHUNK_SIZE // 64)
    for content in (stored(tmp_path / "body", body), measured(HEAD, MemoryBody(body))):
        encoder = DataEncoder(canonicalise(content), "DATA" if mode == "DATA" else "BDAT")
        chunks = list(encoder.chunks())
        wire = b"".join(chunks)
        assert len(chunks) > 2
        assert all(chunks)
        assert chunks[-1] != b".\r\n"
        if mode == "DATA":
            assert wire == HEAD + body.replace(b"\r\n.", b"\r\n..") + b".\r\n"
        else:
            assert wire == HEAD + body
        record = encoder.record()
        sent_body = wire[len(HEAD) : -3] if mode == "DATA" else wire[len(HEAD) :]
        assert record.size == len(wire)
        assert record.body_sha256 == hashlib.sha256(sent_body).digest()
        assert record.tail == wire[-64:]


@pytest.mark.parametrize(
    "altered",
    [
        b"line\r\n" * 99_999 + b"evil\r\n",
        b"line\r\n" * 99_999 + b"\r\n.\r\n.",
        b".\r\n.\r\n" + b"line\r\n" * 99_999,
        b"line\r\n" * 99_999,
        b"line\r\n" * 100_001,
        b"",
    ],
)
def test_an_altered_file_never_gets_its_end_of_data(tmp_path: Path, altered: bytes) -> None:
    content = stored(tmp_path / "body", b"line\r\n" * 100_000)
    canonical = canonicalise(content)
    (tmp_path / "body").write_bytes(altered)
    encoder = DataEncoder(canonical, "DATA")
    wire = b""
    with pytest.raises(StoredAltered):
        for chunk in encoder.chunks():
            wire += chunk
    assert b"\r\n.\r\n" not in wire
    with pytest.raises(RuntimeError):
        encoder.record()


def test_octets_that_are_not_those_measured_do_not_leave() -> None:
    content = content_from(SCAN)
    for forged in (
        Content(content.head, MemoryBody(b"other\r\n"), content.head_measure, content.body_measure),
        Content(HEAD + b"\r\n", content.body, measure(HEAD), content.body_measure),
    ):
        try:
            canonical = canonicalise(forged)
        except NotCanonical:
            continue
        with pytest.raises(StoredAltered):
            list(DataEncoder(canonical, "DATA").chunks())


def test_a_file_that_is_gone_is_an_error_of_the_system(tmp_path: Path) -> None:
    canonical = canonicalise(stored(tmp_path / "body", b"text\r\n"))
    (tmp_path / "body").unlink()
    with pytest.raises(FileNotFoundError):
        list(DataEncoder(canonical, "DATA").chunks())


@pytest.mark.parametrize(
    ("octets", "code"),
    [
        (b"", Code.EMPTY),
        (b"\r\nbody\r\n", Code.NO_HEADER),
        (b"no field\r\n", Code.HEADER_MALFORMED),
        (HEAD + b"text", Code.NO_FINAL_NEWLINE),
        (HEAD + b"text\n", Code.BARE_LF),
        (HEAD + b"text\r", Code.BARE_CR),
        (HEAD + b"a\0b\r\n", Code.NUL),
        (HEAD + b"x" * 999 + b"\r\n", Code.LINE_TOO_LONG),
    ],
)
def test_what_is_not_canonical_is_named_and_not_sent(octets: bytes, code: Code) -> None:
    with pytest.raises(NotCanonical) as caught:
        canonicalise(content_from(octets))
    assert [finding.code for finding in caught.value.findings] == [code]


def test_a_body_without_its_empty_line_is_not_sent() -> None:
    content = content_from(HEAD + b"X-Looks: like a field\r\n")
    for head in (HEAD[:-2], b""):
        damaged = Content(head, content.body, measure(head), content.body_measure)
        with pytest.raises(NotCanonical) as caught:
            canonicalise(damaged)
        assert caught.value.findings


def test_the_record_waits_for_the_last_chunk() -> None:
    encoder = DataEncoder(canonicalise(content_from(SCAN)), "DATA")
    next(encoder.chunks())
    with pytest.raises(RuntimeError):
        encoder.record()
