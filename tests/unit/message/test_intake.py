"""Taking a message in: any chunking the same, bounded memory, the raw form kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lonedot.message.content import FileBody, MemoryBody
from lonedot.message.intake import HeadTooLarge, Intake, content_from
from lonedot.message.transforms.crlf import repair_line_ends
from tests.unit.message.messages import HEAD, SCAN, TemporaryBody, chunked, cuts, mail_octets


def no_file() -> TemporaryBody:
    raise AssertionError("no body file is wanted here")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    octets=mail_octets,
    sizes=cuts,
    memory=st.sampled_from([0, 7, 60, 100_000]),
    spill_at=st.none() | st.integers(0, 9),
)
def test_any_chunking_arrives_as_the_whole(
    tmp_path: Path, octets: bytes, sizes: list[int], memory: int, spill_at: int | None
) -> None:
    intake = Intake(lambda: TemporaryBody(tmp_path / "body"), memory)
    for number, chunk in enumerate(chunked(octets, sizes)):
        if number == spill_at:
            intake.spill()
        intake.feed(chunk)
    arrived = intake.finish()
    whole = content_from(octets)
    assert arrived.content.octets() == octets
    assert arrived.content.head == whole.head
    assert arrived.content.head_measure == whole.head_measure
    assert arrived.content.body_measure == whole.body_measure
    repaired = repair_line_ends(whole)
    if arrived.repaired_body is not None:
        assert arrived.repaired_body == repaired.body_measure
    elif isinstance(arrived.content.body, FileBody):
        assert repaired.body_measure == whole.body_measure
    made = repair_line_ends(arrived.content, arrived.repaired_body)
    assert made.octets() == repaired.octets()
    assert made.body_measure == repaired.body_measure
    assert intake.size == len(octets)


@given(mail_octets, cuts, st.integers(1, 60))
def test_the_limit_of_the_head_does_not_depend_on_the_chunking(
    octets: bytes, sizes: list[int], limit: int
) -> None:
    intake = Intake(no_file, 1 << 20, limit)

    def take_in() -> None:
        for chunk in chunked(octets, sizes):
            intake.feed(chunk)
        intake.finish()

    if len(content_from(octets).head) > limit:
        with pytest.raises(HeadTooLarge):
            take_in()
    else:
        take_in()


def test_a_small_body_stays_in_memory() -> None:
    intake = Intake(no_file)
    intake.feed(SCAN)
    arrived = intake.finish()
    assert isinstance(arrived.content.body, MemoryBody)
    assert arrived.content.head == HEAD
    assert arrived.repaired_body is None


def test_a_large_body_leaves_memory(tmp_path: Path) -> None:
    intake = Intake(lambda: TemporaryBody(tmp_path / "body"), memory_limit=1000)
    for _ in range(50):
        intake.feed(SCAN)
        assert intake.in_memory <= 1000 + len(HEAD)
    arrived = intake.finish()
    assert isinstance(arrived.content.body, FileBody)
    assert arrived.content.octets() == SCAN * 50


def test_single_octets_of_a_body_do_not_cost_an_object_each() -> None:
    intake = Intake(no_file)
    for octet in SCAN:
        intake.feed(bytes((octet,)))
    assert intake.in_memory == len(SCAN)
    assert intake.finish().content == content_from(SCAN)


def test_spilling_takes_what_is_there_out_of_memory(tmp_path: Path) -> None:
    intake = Intake(lambda: TemporaryBody(tmp_path / "body"))
    intake.feed(SCAN)
    intake.spill()
    assert intake.in_memory == len(HEAD)
    intake.feed(b"more\r\n")
    assert intake.finish().content.octets() == SCAN + b"more\r\n"


def test_discard_removes_the_file(tmp_path: Path) -> None:
    body = TemporaryBody(tmp_path / "body")
    intake = Intake(lambda: body, memory_limit=10)
    intake.feed(SCAN)
    intake.discard()
    intake.discard()
    assert body.is_discarded
    assert not body.path.exists()
