"""What several shards answer, as one answer: rows in the order that one shard would have given them.

Rules:
1. Each shard is asked for all up to the end of the page, from the first row on; what is left out is left out here.
2. The order of a row is told by the row alone (`order_key`), and is the one that `search` gives. Two rows never have
   the same place: the id decides.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence

from lonedot.spool.interface import Listed, MessageState, Sort

__all__ = ["merge_counts", "merge_rows", "newest_ids", "order_key"]

Key = tuple[float | bytes | str, ...]


def order_key(row: Listed, sort: Sort) -> Key:
    """Rises along the listing; that of `Sort.AGE` is the one of `Sort.OLDEST`, of which it shows the end."""
    match sort:
        case Sort.AGE | Sort.OLDEST:
            return (row.id,)
        case Sort.SIZE:
            return (-row.size, row.id)
        case Sort.NEXT:
            return (not row.next_at, row.next_at, row.id)
        case Sort.SENDER:
            return (row.sender.encode("utf-8", "surrogatepass").lower(), row.id)  # ASCII alone, as NOCASE


def merge_rows(parts: Iterable[Sequence[Listed]], sort: Sort, skip: int, limit: int) -> list[Listed]:
    """One page of what shards have listed, each from the first row on.

    Args:
        parts: what each has listed in that order.
        sort: the order.
        skip: rows before the page.
        limit: rows of the page.
    """
    rows = sorted((row for part in parts for row in part), key=lambda row: order_key(row, sort))
    if sort is Sort.AGE:
        end = max(len(rows) - skip, 0)
        return rows[max(end - limit, 0) : end]
    return rows[skip : skip + limit]


def newest_ids(parts: Iterable[Sequence[str]], limit: int) -> list[str]:
    """Ids of several shards, each newest first, as one such list."""
    merged = heapq.merge(*parts, reverse=True)
    return [id for _, id in zip(range(limit), merged, strict=False)]


def merge_counts(parts: Iterable[dict[MessageState, int]]) -> dict[MessageState, int]:
    """How many messages there are in all."""
    counts = dict.fromkeys(MessageState, 0)
    for part in parts:
        for state, number in part.items():
            counts[state] += number
    return counts
