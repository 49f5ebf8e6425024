"""The empty line before what is no header field."""

from __future__ import annotations

from pathlib import Path

import pytest

from lonedot.message import transforms
from lonedot.message.content import FileBody
from lonedot.message.header import HeaderView
from lonedot.message.intake import content_from
from lonedot.message.measure import measure, measured
from tests.unit.message.messages import SCAN


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"From: a\r\nHello all,\r\nbody\r\n", b"From: a\r\n\r\nHello all,\r\nbody\r\n"),
        (b"just text\r\nmore\r\n", b"\r\njust text\r\nmore\r\n"),
        (b"From x Mon\r\nTo: b\r\n\r\nbody\r\n", b"\r\nFrom x Mon\r\nTo: b\r\n\r\nbody\r\n"),
        (b"To: b\r\nno field\r\nX: y\r\n\r\nbody\r\n", b"To: b\r\n\r\nno field\r\nX: y\r\n\r\nbody\r\n"),
    ],
)
def test_what_is_behind_the_fields_becomes_body(before: bytes, after: bytes) -> None:
    made = transforms.apply("end-header", content_from(before))
    assert made == content_from(after)
    assert HeaderView(made.head).malformed == -1


@pytest.mark.parametrize("octets", [SCAN, b"", b"\r\n", b"a: b\r\n", b"\r\ntext\r\n"])
def test_what_is_well_formed_is_left_alone(octets: bytes) -> None:
    content = content_from(octets)
    assert transforms.apply("end-header", content) is content


def test_a_stored_body_is_put_behind_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "body"
    path.write_bytes(b"stored\r\n")
    made = transforms.apply("end-header", measured(b"To: b\r\nno field\r\n\r\n", FileBody(path, 8)))
    assert made.head == b"To: b\r\n\r\n"
    assert made.body.octets() == b"no field\r\n\r\nstored\r\n"
    assert made.body_measure == measure(b"no field\r\n\r\nstored\r\n")
