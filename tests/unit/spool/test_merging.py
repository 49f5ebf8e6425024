"""Several shards listed as one: the same as one shard that has all, whatever the order, the page and the split."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.spool.interface import Listed, MessageState, Sort
from lonedot.spool.merging import merge_counts, merge_rows, newest_ids, order_key
from lonedot.terms.ids import id_from_number


def _row(number: int, size: int, sender: str, next_at: float) -> Listed:
    state = MessageState.QUEUED if next_at else MessageState.HELD
    return Listed(id_from_number(number), state, "", 1.0, 0.0, size, sender, (), next_at, 0)


ROWS = st.lists(
    st.builds(
        _row,
        st.integers(0, 1 << 62),
        st.integers(0, 3),
        st.sampled_from(("a@x", "A@x", "b@x", "é@x")),
        st.sampled_from((0.0, 5.0, 7.0)),
    ),
    unique_by=lambda row: row.id,
    max_size=30,
)


@given(
    rows=ROWS, shards=st.integers(1, 4), sort=st.sampled_from(Sort), limit=st.integers(1, 5), data=st.data()
)
def test_pages_of_shards_are_pages_of_the_whole(
    rows: list[Listed], shards: int, sort: Sort, limit: int, data: st.DataObject
) -> None:
    parts: list[list[Listed]] = [[] for _ in range(shards)]
    for row in rows:
        parts[data.draw(st.integers(0, shards - 1))].append(row)
    ordered = sorted(rows, key=lambda row: order_key(row, sort))
    if sort is Sort.AGE:
        ordered.reverse()
    for page in range(len(rows) // limit + 2):
        skip = page * limit
        upto = [merge_rows([part], sort, 0, skip + limit) for part in parts]
        wanted = ordered[skip : skip + limit]
        assert merge_rows(upto, sort, skip, limit) == (wanted[::-1] if sort is Sort.AGE else wanted)


@given(ids=st.lists(st.lists(st.integers(0, 1 << 60), unique=True), max_size=4), limit=st.integers(1, 9))
def test_the_newest_ids_of_all_come_first(ids: list[list[int]], limit: int) -> None:
    parts = [[id_from_number(number) for number in sorted(part, reverse=True)] for part in ids]
    assert newest_ids(parts, limit) == sorted(itertools.chain(*parts), reverse=True)[:limit]


def test_counts_are_added() -> None:
    one, two = {MessageState.HELD: 1}, {MessageState.HELD: 2, MessageState.QUEUED: 3}
    counts = merge_counts((one, two))
    assert (counts[MessageState.HELD], counts[MessageState.QUEUED], counts[MessageState.DAMAGED]) == (3, 3, 0)


@pytest.mark.parametrize("sort", Sort)
def test_no_two_rows_have_one_place(sort: Sort) -> None:
    one, other = _row(1, 5, "a@x", 0.0), _row(2, 5, "A@x", 0.0)
    assert order_key(one, sort) != order_key(other, sort)
