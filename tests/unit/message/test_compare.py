"""Alignment of fields and the smallest range that differs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.message.compare import align, differing_range, inserted_fields
from lonedot.message.content import MemoryBody, spliced

HEAD = b"A: 1\r\nB: 2\r\n folded\r\nA: 3\r\n\r\n"


@given(st.text("abc", max_size=12), st.text("abc", max_size=12))
def test_alignment_pairs_equal_values_in_order(before: str, after: str) -> None:
    found = align(before, after)
    assert all(before[one] == after[other] for one, other in found.pairs)
    assert list(found.pairs) == sorted(set(found.pairs))
    ones, others = zip(*found.pairs, strict=True) if found.pairs else ((), ())
    assert sorted([*ones, *found.gone]) == list(range(len(before)))
    assert sorted([*others, *found.come]) == list(range(len(after)))
    rebuilt = dict(found.pairs)
    for gone, come in found.gaps():
        assert all(number not in rebuilt for number in gone)
        assert all(number not in rebuilt.values() for number in come)


@given(st.text("abc", max_size=10), st.lists(st.integers(0, 10), max_size=3))
def test_additions_alone_lose_nothing(before: str, places: list[int]) -> None:
    after = before
    for place in places:
        after = after[:place] + "x" + after[place:]
    found = align(before, after)
    assert found.gone == []
    assert len(found.come) == len(places)


def test_too_many_values_count_as_replaced() -> None:
    before = ["start", *range(600), "end"]
    after = ["start", *reversed(range(600)), "end"]
    assert align(before, after).pairs == ((0, 0), (601, 601))


@pytest.mark.parametrize(
    "place",
    [0, HEAD.index(b"B:"), HEAD.index(b"A: 3"), len(HEAD) - 2],
)
@pytest.mark.parametrize("field", [b"X: y\r\n", b"A: 1\r\n", b"A: 3\r\n", b"B: 2\r\n z\r\nC: d\r\n"])
def test_whole_fields_put_in_are_recognised(place: int, field: bytes) -> None:
    inserted = inserted_fields(HEAD, HEAD[:place] + field + HEAD[place:])
    assert inserted is not None
    assert sorted(inserted.split(b"\r\n")) == sorted(field.split(b"\r\n"))


@pytest.mark.parametrize(
    "after",
    [
        HEAD,
        HEAD[:-1],
        HEAD + b"X: y\r\n",
        HEAD.replace(b" folded", b"X: y\r\n folded"),
        HEAD.replace(b"B: 2", b"B: 22"),
        HEAD.replace(b"A: 3", b"\r\nA: 3"),
        HEAD.replace(b"A: 3", b" more\r\nA: 3"),
        b"X: y\n" + HEAD,
        b"no field\r\n" + HEAD,
    ],
)
def test_anything_else_goes_the_long_way(after: bytes) -> None:
    assert inserted_fields(HEAD, after) is None


class Pieces:
    """A body in pieces of three octets."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    @property
    def size(self) -> int:
        return len(self.data)

    def chunks(self, limit: int = 3) -> object:
        return iter([self.data[at : at + 3] for at in range(0, len(self.data), 3)])

    def octets(self) -> bytes:
        return self.data


@given(st.binary(max_size=20).map(lambda b: b.translate(bytes(o % 3 + 65 for o in range(256)))),
       st.binary(max_size=20).map(lambda b: b.translate(bytes(o % 3 + 65 for o in range(256)))))  # fmt: skip
def test_the_differing_range_is_right_and_small(before: bytes, after: bytes) -> None:
    for body in (MemoryBody(before), Pieces(before)):
        start, end, octets = differing_range(body, after)  # type: ignore[arg-type]
        assert 0 <= start <= end <= len(before)
        assert before[:start] + octets + before[end:] == after
        assert spliced(MemoryBody(before), start, end, octets).octets() == after
        if before == after:
            assert (start, octets) == (end, b"")
        elif start < end and octets:
            assert before[start] != octets[0]
            assert before[end - 1] != octets[-1]
