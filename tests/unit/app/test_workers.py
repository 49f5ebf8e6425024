"""Which shards a worker has, whatever the numbers of workers were before."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from lonedot.app.workers import Post, remove_shard, shards_of
from lonedot.spool.interface import SpoolPaths
from lonedot.terms.ids import MAX_SHARDS


@given(st.integers(1, MAX_SHARDS), st.sets(st.integers(0, MAX_SHARDS - 1)))
def test_every_shard_that_is_there_is_had_by_one_worker(count: int, there: set[int]) -> None:
    had = [shards_of(Post(number, count), there) for number in range(count)]
    assert [shards[0] for shards in had] == list(range(count))
    every = [shard for shards in had for shard in shards]
    assert len(every) == len(set(every))
    assert set(every) == there | set(range(count))


@given(st.integers(1, MAX_SHARDS), st.integers(1, 10**9))
def test_the_shares_of_all_are_the_limit_or_a_little_more(count: int, limit: int) -> None:
    share = Post(0, count).share_of(limit)
    assert limit <= share * count < limit + count


def test_a_shard_that_is_removed_is_gone_at_once(tmp_path: Path) -> None:
    paths = SpoolPaths(tmp_path)
    for folder in (paths.shard(1), paths.shard(1).with_name("1.gone")):
        folder.mkdir(parents=True)
        (folder / "queue.db").touch()  # of a removal that was cut short
    assert paths.shards() == (1,)
    remove_shard(paths, 1)
    assert list((tmp_path / "shards").iterdir()) == []
