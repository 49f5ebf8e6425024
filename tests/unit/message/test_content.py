"""Bodies in memory, in files and spliced: the same octets in any size of chunk."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lonedot.message.content import Body, FileBody, MemoryBody, SplicedBody, spliced


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60), st.data(), st.integers(1, 70))
def test_a_spliced_body_reads_as_the_splices(
    tmp_path: Path, octets: bytes, draw: st.DataObject, limit: int
) -> None:
    path = tmp_path / "body"
    path.write_bytes(octets)
    memory: Body = MemoryBody(octets)
    stored: Body = FileBody(path, len(octets))
    wanted = octets
    for _ in range(draw.draw(st.integers(1, 6))):
        start = draw.draw(st.integers(0, len(wanted)))
        end = draw.draw(st.integers(start, len(wanted)))
        data = draw.draw(st.binary(max_size=20))
        wanted = wanted[:start] + data + wanted[end:]
        memory = spliced(memory, start, end, data)
        stored = spliced(stored, start, end, data)
        for body in (memory, stored):
            chunks = list(body.chunks(limit))
            assert b"".join(chunks) == wanted == body.octets()
            assert all(0 < len(chunk) <= limit for chunk in chunks)
            assert body.size == len(wanted)


def test_hundreds_of_splices_are_one_reading(tmp_path: Path) -> None:
    path = tmp_path / "body"
    path.write_bytes(b"line\r\n" * 500)
    body: Body = FileBody(path, 3000)
    for number in range(500):
        body = spliced(body, number * 6, number * 6 + 4, b"text")
    assert isinstance(body, SplicedBody)
    assert body.octets() == b"text\r\n" * 500


def test_a_file_cut_short_under_its_splices_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "body"
    path.write_bytes(b"0123456789")
    body = spliced(FileBody(path, 10), 0, 1, b"x")
    path.write_bytes(b"01234")
    with pytest.raises(ValueError, match="not the 10 octets"):
        body.octets()


def test_a_range_outside_of_the_body_is_refused() -> None:
    with pytest.raises(ValueError, match="octets 2 to 9 of a body of 4"):
        spliced(MemoryBody(b"text"), 2, 9, b"")


@pytest.mark.parametrize("size", [3, 5])
def test_a_file_of_another_size_is_noticed(tmp_path: Path, size: int) -> None:
    path = tmp_path / "body"
    path.write_bytes(b"text")
    with pytest.raises(ValueError, match=f"not the {size} octets"):
        FileBody(path, size).octets()
