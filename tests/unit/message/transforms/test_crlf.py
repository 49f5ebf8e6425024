"""Line ends repaired: CRLF, lone CR and lone LF each one CRLF, and a last line end."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from lonedot.message import transforms
from lonedot.message.content import Content, FileBody
from lonedot.message.intake import content_from
from lonedot.message.measure import measure, measured
from lonedot.message.transforms.crlf import CrlfRepair, repair_line_ends, repaired
from tests.unit.message.messages import SCAN, chunked, cuts, mail_octets


def by_the_rule(octets: bytes) -> bytes:
    text = re.sub(rb"\r\n|\r|\n", b"\r\n", octets)
    return text if not text or text.endswith(b"\n") else text + b"\r\n"


@given(mail_octets, cuts)
def test_any_chunking_is_repaired_by_the_rule(octets: bytes, sizes: list[int]) -> None:
    repair = CrlfRepair()
    made = b"".join(repair.feed(chunk) for chunk in chunked(octets, sizes)) + repair.finish()
    assert made == repaired(octets) == by_the_rule(octets)


@given(mail_octets)
def test_content_is_repaired_as_the_whole_would_be(octets: bytes) -> None:
    content = transforms.apply("crlf", content_from(octets))
    whole = by_the_rule(octets)
    assert content.octets() == whole
    assert content == content_from(whole)
    assert transforms.apply("crlf", content) is content


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(octets=mail_octets)
def test_a_stored_body_is_repaired_while_it_is_read(octets: bytes, tmp_path: Path) -> None:
    path = tmp_path / "body"
    path.write_bytes(octets)
    stored = measured(b"a: b\r\n\r\n", FileBody(path, len(octets)))
    content = repair_line_ends(stored)
    assert content.body.octets() == by_the_rule(octets)
    assert content.body.size == len(by_the_rule(octets))
    assert content.body_measure == measure(by_the_rule(octets))
    assert all(0 < len(chunk) <= 7 for chunk in content.body.chunks(7))


def test_clean_content_is_the_same_object() -> None:
    content = content_from(SCAN)
    assert repair_line_ends(content) is content


def test_a_clean_body_stays_when_only_the_head_is_damaged() -> None:
    content = content_from(b"X-Scanned: yes\nFrom: a\r\n\r\nbody\r\n")
    made = repair_line_ends(content)
    assert made.head == b"X-Scanned: yes\r\nFrom: a\r\n\r\n"
    assert made.body is content.body


def test_an_unknown_transform_is_no_silent_nothing() -> None:
    with pytest.raises(KeyError):
        transforms.apply("no-such", content_from(SCAN))


def test_empty_content_gets_no_line_end() -> None:
    content: Content = content_from(b"")
    assert repair_line_ends(content).octets() == b""
