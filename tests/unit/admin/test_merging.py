"""Answers of several workers as one."""

from __future__ import annotations

from lonedot.admin.merging import (
    asked_of_each,
    by_shard,
    merge_changed,
    merge_listings,
    merge_selected,
    merge_status,
)
from lonedot.admin.values import Changed, Left, ListArguments, Listing, Selected, Status
from lonedot.spool.interface import Listed, MessageState, Sort
from lonedot.terms.ids import IdSource


def _listing(*numbers: int, asked_at: float = 1.0) -> Listing:
    rows = [Listed(f"id{number}", MessageState.QUEUED, "", 1.0, 0.0, 1, "", (), 1.0, 0) for number in numbers]
    return Listing(tuple(rows), {"queued": 3}, False, asked_at)


def test_a_later_page_is_made_of_all_pages_before_it() -> None:
    wanted = ListArguments(limit=2, page=2, sort=Sort.OLDEST)
    assert [one.page for one in asked_of_each(wanted)] == [1, 2]
    one = [_listing(1, 3), _listing(5)]
    other = [_listing(2, 4, asked_at=9.0), _listing(asked_at=9.0)]
    merged = merge_listings(wanted, [one, other])
    assert [row.id for row in merged.rows] == ["id3", "id4"]
    assert merged.counts == {"queued": 6}
    assert merged.cut
    assert merged.asked_at == 9.0


def test_the_newest_are_listed_oldest_first() -> None:
    merged = merge_listings(ListArguments(limit=2), [[_listing(1, 4)], [_listing(2, 3)]])
    assert [row.id for row in merged.rows] == ["id3", "id4"]


def test_a_selection_goes_on_where_it_was_cut() -> None:
    wanted = ListArguments(limit=2)
    merged = merge_selected(wanted, [Selected(("c", "a"), True), Selected(("b",), False)])
    assert merged == Selected(("c", "b"), True)
    assert merge_selected(wanted, [Selected(("a",), False), Selected((), False)]) == Selected(("a",), False)


def test_changes_are_added() -> None:
    left = Left("c", "it is held already")
    assert merge_changed([Changed(("a",)), Changed(("b",), (left,))]) == Changed(("a", "b"), (left,))


def test_the_first_worker_stands_for_the_relay() -> None:
    merged = merge_status(
        [Status(True, 7, 20.0, {"queued": 1}, 0.0), Status(True, 8, 10.0, {"queued": 2, "held": 1}, 5.0)]
    )
    assert merged == Status(True, 7, 10.0, {"queued": 3, "held": 1}, 5.0)


def test_ids_go_to_the_shard_they_were_made_for() -> None:
    first, second = IdSource(0).next(1000.0), IdSource(3).next(1000.0)
    assert by_shard([first, "part", second]) == {0: (first,), -1: ("part",), 3: (second,)}
