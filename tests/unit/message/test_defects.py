"""Defects by code and place, and the damage vectors through repair and encoder."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from lonedot.message import transforms
from lonedot.message.content import FileBody
from lonedot.message.defects import defects, octets_around, offset_in_message
from lonedot.message.encode import DataEncoder, NotCanonical, canonicalise
from lonedot.message.findings import Code, Part
from lonedot.message.fold import apply_changes
from lonedot.message.intake import content_from
from lonedot.message.ledger import Splice
from lonedot.message.measure import measured
from tests.unit.message.damage_vectors import DamageVector, load
from tests.unit.message.messages import HEAD, SCAN

VECTORS = load()


@pytest.mark.parametrize("vector", VECTORS, ids=str)
def test_every_defect_of_the_vectors_is_named_with_its_octet(vector: DamageVector) -> None:
    content = content_from(vector.octets)
    found = {(finding.code.value, offset_in_message(finding, content)) for finding in defects(content)}
    assert {(defect.code, defect.offset) for defect in vector.defects} <= found
    assert bool(found) == bool(vector.defects)


@pytest.mark.parametrize("vector", VECTORS, ids=str)
def test_repaired_vectors_leave_as_they_should_or_not_at_all(vector: DamageVector) -> None:
    repaired = transforms.apply(transforms.CRLF, content_from(vector.octets))
    outcomes = {outcome.name: outcome for outcome in vector.allow}
    wanted = outcomes[vector.default]
    if wanted.wire is None:
        with pytest.raises(NotCanonical) as caught:
            canonicalise(repaired)
        assert {finding.code.value for finding in caught.value.findings} & set(wanted.refuse)
        return
    encoder = DataEncoder(canonicalise(repaired), "DATA")
    wire = b"".join(encoder.chunks())
    assert len(wire) == wanted.wire.len
    assert hashlib.sha256(wire).hexdigest() == wanted.wire.sha256
    assert repaired.body.size == wanted.wire.body_len
    assert repaired.body_measure.sha256.hex() == wanted.wire.body_sha256


def test_clean_content_has_none() -> None:
    assert defects(SCAN) == []
    assert defects(b"a: b\r\n") == []


def test_an_offset_counts_in_its_part() -> None:
    content = content_from(HEAD + b"text\nmore\r\n")
    (finding,) = defects(content)
    assert (finding.code, finding.part, finding.offset) == (Code.BARE_LF, Part.BODY, 4)
    assert offset_in_message(finding, content) == len(HEAD) + 4
    assert finding.octets == b"text\nmore\r\n"


def test_a_body_without_its_empty_line_is_named() -> None:
    content = apply_changes(content_from(SCAN), [Splice(Part.HEAD, len(HEAD) - 2, len(HEAD), b"")])
    assert [finding.code for finding in defects(content)] == [Code.HEADER_MALFORMED]
    joined = apply_changes(content_from(SCAN), [Splice(Part.HEAD, len(HEAD) - 4, len(HEAD), b"")])
    assert [finding.code for finding in defects(joined)] == [Code.NO_FINAL_NEWLINE, Code.HEADER_MALFORMED]


def test_an_empty_line_within_the_head_is_named() -> None:
    content = apply_changes(content_from(SCAN), [Splice(Part.HEAD, 0, 0, b"a: b\r\n\r\n")])
    (finding,) = defects(content)
    assert (finding.code, finding.offset) == (Code.HEADER_MALFORMED, 6)


@pytest.mark.parametrize("offset", [0, 10, 31, 32, 33, 500, 990, 1000])
def test_octets_around_a_place_are_the_same_from_memory_and_file(tmp_path: Path, offset: int) -> None:
    octets = bytes(range(250)) * 4
    (tmp_path / "body").write_bytes(octets)
    stored = measured(HEAD, FileBody(tmp_path / "body", 1000))
    memory = content_from(HEAD + octets)
    around = octets_around(stored, Part.BODY, offset)
    assert around == octets_around(memory, Part.BODY, offset)
    assert around in octets
    assert len(around) == 64
    assert offset == 1000 or octets[offset : offset + 1] in around
