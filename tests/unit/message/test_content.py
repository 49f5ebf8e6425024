"""Bodies in memory, in files and spliced: the same octets in any size of chunk."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lonedot.message.content import FileBody, MemoryBody, SplicedBody, spliced


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60), st.binary(max_size=20), st.data(), st.integers(1, 70))
def test_a_spliced_body_reads_as_the_splice(
    tmp_path: Path, octets: bytes, data: bytes, draw: st.DataObject, limit: int
) -> None:
    start = draw.draw(st.integers(0, len(octets)))
    end = draw.draw(st.integers(start, len(octets)))
    path = tmp_path / "body"
    path.write_bytes(octets)
    wanted = octets[:start] + data + octets[end:]
    for base in (MemoryBody(octets), FileBody(path, len(octets))):
        for body in (SplicedBody(base, start, end, data), spliced(base, start, end, data)):
            chunks = list(body.chunks(limit))
            assert b"".join(chunks) == wanted == body.octets()
            assert all(0 < len(chunk) <= limit for chunk in chunks)
            assert body.size == len(wanted)


def test_a_range_outside_of_the_body_is_refused() -> None:
    with pytest.raises(ValueError, match="octets 2 to 9 of a body of 4"):
        spliced(MemoryBody(b"text"), 2, 9, b"")


@pytest.mark.parametrize("size", [3, 5])
def test_a_file_of_another_size_is_noticed(tmp_path: Path, size: int) -> None:
    path = tmp_path / "body"
    path.write_bytes(b"text")
    with pytest.raises(ValueError, match=f"not the {size} octets"):
        FileBody(path, size).octets()
