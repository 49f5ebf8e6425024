"""Finding messages: every filter, every order, pages, and that the first page reads no more than it shows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import msgspec
import pytest

from lonedot.spool import schema, search
from lonedot.spool.interface import (
    Facts,
    Filter,
    MessageState,
    Progress,
    Settlement,
    Sort,
    SpoolPaths,
)
from lonedot.spool.sqlite import Policy, SqliteSpool, open_spool
from lonedot.terms.ids import IdSource, MessageId, SessionId
from lonedot.terms.outcome import Outcome, Result, Stage
from lonedot.testing.clock import ManualClock
from lonedot.testing.messages import acceptance, make_content

BEGAN = 1_700_000_000.0
NAMES = ("scan", "bill", "alarm")


class Filled:
    """Three messages: a deferred one, a held one, one that waits for a sink."""

    def __init__(self, spool: SqliteSpool, ids: dict[str, MessageId], paths: SpoolPaths) -> None:
        self.spool = spool
        self.paths = paths
        self._names = {id: name for name, id in ids.items()}
        self.ids = ids

    async def names(self, wanted: Filter) -> list[str]:
        return [self._names[id] for id in await self.spool.select(wanted)]


@pytest.fixture
async def filled(tmp_path: Path) -> AsyncIterator[Filled]:
    paths = SpoolPaths(tmp_path / "spool")
    spool = open_spool(paths, ManualClock(), Policy(inline_sync=True))
    source = IdSource()
    ids = {name: MessageId(source.next(BEGAN + n * 100)) for n, name in enumerate(NAMES)}
    scan = acceptance(
        ids["scan"], BEGAN, sender="Scanner@example.com", recipients=("a@example.org", "b@example.net")
    )
    scan = msgspec.structs.replace(
        scan,
        facts=Facts("smtp", SessionId("s"), client="192.0.2.7"),
        arrival=make_content(head=b"Subject: Floor =?utf-8?q?gr=C3=BCn?=\r\n\r\n"),
    )
    bill = acceptance(ids["bill"], BEGAN + 100, sender="erp@example.com", state=MessageState.HELD)
    bill = msgspec.structs.replace(bill, reason="Scan for viruses: 50% sure_", size=9000)
    alarm = acceptance(ids["alarm"], BEGAN + 200, sender="probe@10.example", next_at=BEGAN + 200)
    alarm = msgspec.structs.replace(
        alarm, size=50, transport=Progress(name="Before", waits_for="Disclaimer", words="busy")
    )
    await spool.accept((scan, bill, alarm))
    claim, other = await spool.claim("me", BEGAN + 300, 60, 10)
    outcome = Outcome(Result.DEFERRED, Stage.RCPT, "mailbox busy", None, "mx.example.org[192.0.2.1]:25")
    first = msgspec.structs.replace(
        claim.message.recipients[0], attempts=1, last=outcome, route="out", next_at=BEGAN + 900
    )
    await spool.settle(
        (Settlement(claim.message.id, claim.epoch, (first,)), Settlement(other.message.id, other.epoch))
    )
    yield Filled(spool, ids, paths)
    await spool.close()


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Filter(), ["alarm", "bill", "scan"]),
        (Filter(states=(MessageState.HELD,)), ["bill"]),
        (Filter(states=(MessageState.FINISHED,)), []),
        (Filter(sender="scanner@EXAMPLE.com"), ["scan"]),
        (Filter(sender="@example.com"), ["bill", "scan"]),
        (Filter(recipient="A@example.org"), ["scan"]),
        (Filter(recipient="@example.net"), ["scan"]),
        (Filter(domain="example.org"), ["alarm", "bill", "scan"]),
        (Filter(domain="ample.org"), []),
        (Filter(next_hop="192.0.2.1"), ["scan"]),
        (Filter(route="out"), ["scan"]),
        (Filter(route="out", recipient="b@example.net"), []),
        (Filter(reason="BOX BUSY"), ["scan"]),
        (Filter(reason="50% sure_"), ["bill"]),
        (Filter(reason="5_% sure"), []),
        (Filter(sink="Scan for viruses"), ["bill"]),
        (Filter(sink="Disclaimer"), ["alarm"]),
        (Filter(sink="Before"), []),
        (Filter(client="192.0.2.7"), ["scan"]),
        (Filter(client="192.0."), ["scan"]),
        (Filter(client="192.0"), []),
        (Filter(subject="floor  GRÜN"), ["scan"]),
        (Filter(subject="floor"), []),
        (Filter(after=BEGAN + 100), ["alarm", "bill"]),
        (Filter(before=BEGAN + 100), ["scan"]),
        (Filter(larger=9000), ["bill"]),
        (Filter(smaller=51), ["alarm"]),
        (Filter(sort=Sort.OLDEST), ["scan", "bill", "alarm"]),
        (Filter(sort=Sort.SIZE), ["bill", "scan", "alarm"]),
        (Filter(sort=Sort.SENDER), ["bill", "alarm", "scan"]),
        (Filter(states=(MessageState.QUEUED,), sort=Sort.NEXT), ["scan", "alarm"]),
        (Filter(limit=2), ["alarm", "bill"]),
        (Filter(limit=2, skip=2), ["scan"]),
        (Filter(ids=("no id",)), []),
    ],
)
async def test_a_filter_selects(filled: Filled, wanted: Filter, found: list[str]) -> None:
    assert await filled.names(wanted) == found


async def test_a_walk_goes_on_below_an_id(filled: Filled) -> None:
    assert await filled.names(Filter(below=filled.ids["bill"])) == ["scan"]


async def test_the_listing_is_what_is_selected_the_newest_last(filled: Filled) -> None:
    wanted = Filter(domain="example.org", limit=2)
    rows = await filled.spool.search(wanted)
    assert [row.id for row in rows] == [filled.ids["bill"], filled.ids["alarm"]]
    assert rows == filled.spool.listing(wanted)
    assert rows[1].waits_for == "Disclaimer"


async def test_the_first_page_walks_an_index_and_sorts_nothing_but_itself(filled: Filled) -> None:
    sql, values = search._statement(
        schema.open_reader(filled.paths.shard(0) / "queue.db", None), Filter(), "id"
    )
    connection = apsw.Connection(str(filled.paths.shard(0) / "queue.db"))
    plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
    assert sum("message_live" in step for step in plan) == 3, plan
    assert not any(step.startswith("SCAN message") for step in plan), plan


async def test_a_person_takes_what_nobody_has_in_flight(filled: Filled) -> None:
    spool, ids = filled.spool, filled.ids
    (claim,) = await spool.claim("relay", BEGAN + 300, 60, 1)
    assert claim.message.id == ids["scan"]
    spool.in_flight(ids["scan"])
    nowhere = MessageId("0000000000000")
    taken = await spool.take("admin", [ids["scan"], ids["bill"], ids["alarm"], nowhere], BEGAN + 300, 60)
    assert [None if one is None else one.message.state for one in taken] == [
        None,
        MessageState.HELD,
        MessageState.QUEUED,
        None,
    ]
    spool.landed(ids["scan"])
    (again,) = await spool.take("admin", [ids["scan"]], BEGAN + 300, 60)
    assert again is not None and again.epoch > claim.epoch
    held = taken[1]
    assert held is not None
    stale = Settlement(claim.message.id, claim.epoch)
    assert list(await spool.settle((stale, Settlement(held.message.id, held.epoch)))) == [False, True]
    assert spool.show(ids["bill"]).state is MessageState.HELD
    assert spool.show(ids["bill"]).reason.startswith("Scan for viruses")
