"""What several workers answer, as one answer of the relay. Pure: whoever asks them, asks and merges.

Rules: each worker is asked for what `asked_of_each` names; the answers of one worker stand together; a worker that
does not answer is left out of `parts`, and whoever asked says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from lonedot.admin.hold_rules import Taken
from lonedot.admin.values import MAX_LISTED, Changed, ListArguments, Listing, Selected, Status
from lonedot.spool.merging import merge_rows, newest_ids
from lonedot.terms.ids import id_shard

__all__ = [
    "asked_of_each",
    "by_shard",
    "merge_changed",
    "merge_listings",
    "merge_selected",
    "merge_status",
    "merge_taken",
]


def asked_of_each(wanted: ListArguments) -> tuple[ListArguments, ...]:
    """What every worker must list, so that the page can be made: all pages up to it."""
    return tuple([msgspec.structs.replace(wanted, page=page) for page in range(1, max(wanted.page, 1) + 1)])


def merge_listings(wanted: ListArguments, parts: Sequence[Sequence[Listing]]) -> Listing:
    """The page that was wanted. `parts`: of each worker what it answered to each of `asked_of_each`; none is empty."""
    limit = min(wanted.limit, MAX_LISTED)
    every = [[row for listing in pages for row in listing.rows] for pages in parts]
    rows = merge_rows(every, wanted.sort, (wanted.page - 1) * limit, limit)
    return Listing(
        tuple(rows),
        _sums(pages[-1].counts for pages in parts),
        len(rows) >= limit,
        max((pages[-1].asked_at for pages in parts), default=0.0),
    )


def merge_selected(wanted: ListArguments, parts: Sequence[Selected]) -> Selected:
    """Newest first. Where it is cut, what is below its last id is asked for next, of all of them again."""
    limit = min(wanted.limit, MAX_LISTED)
    ids = newest_ids([part.ids for part in parts], limit)
    return Selected(tuple(ids), len(ids) >= limit)


def merge_changed(parts: Sequence[Changed]) -> Changed:
    """What was done, and what was left, in all."""
    return Changed(
        tuple(id for part in parts for id in part.done),
        tuple(left for part in parts for left in part.left),
        any(part.later for part in parts),
    )


def merge_status(parts: Sequence[Status]) -> Status:
    """`parts`: that of the first worker first; it stands for the relay."""
    return Status(
        any(part.running for part in parts),
        parts[0].pid,
        min(part.since for part in parts),
        _sums(part.counts for part in parts),
        min((part.next_due for part in parts if part.next_due), default=0.0),
    )


def merge_taken(parts: Iterable[Taken]) -> Taken:
    """What the workers hold because of a rule, in all."""
    return Taken(sum(part.held for part in parts))


def by_shard(ids: Iterable[str]) -> dict[int, tuple[str, ...]]:
    """Ids by the shard that they were made for; under -1 those that are not whole: everybody is asked for them.

    A message may lie in another shard than its id says (restored, imported): a worker that does not know it says so.
    """
    found: dict[int, list[str]] = {}
    for id in ids:
        try:
            shard = id_shard(id.strip())
        except ValueError:
            shard = -1
        found.setdefault(shard, []).append(id)
    return {shard: tuple(some) for shard, some in found.items()}


def _sums(parts: Iterable[dict[str, int]]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for part in parts:
        for name, number in part.items():
            sums[name] = sums.get(name, 0) + number
    return sums
