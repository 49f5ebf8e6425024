"""The shard on disk: what the contract does not say. Opening, recovery, damage, checkpoints, the process that syncs."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import apsw
import msgspec
import pytest

from lonedot.message.ledger import Action
from lonedot.spool import schema, writer
from lonedot.spool.disk import Checkpointed, InlineSyncer
from lonedot.spool.interface import (
    Acceptance,
    ContentDamaged,
    Filter,
    KeyUsed,
    MessageState,
    NoSuchMessage,
    SpoolFault,
    SpoolLocked,
    SpoolPaths,
)
from lonedot.spool.sqlite import (
    CONTENT_LIMIT,
    KeepContent,
    Policy,
    SqliteSpool,
    open_offline,
    open_spool,
)
from lonedot.terms.ids import IdSource, MessageId, number_from_id
from lonedot.testing.clock import ManualClock
from lonedot.testing.messages import acceptance, delivered, waiting

QUEUED, HELD, FINISHED, DAMAGED = (
    MessageState.QUEUED,
    MessageState.HELD,
    MessageState.FINISHED,
    MessageState.DAMAGED,
)
INLINE = Policy(inline_sync=True)
LARGE = b"0123456789abcdef" * (CONTENT_LIMIT // 16 + 1)


class Bench:
    """A spool that is opened, killed and opened again."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        self.ids = IdSource()
        self.paths = SpoolPaths(folder / "spool")
        self.shard = self.paths.shard(0)
        self.notices: list[str] = []
        self._open: list[SqliteSpool] = []

    def open(self, policy: Policy = INLINE) -> SqliteSpool:
        spool = open_spool(self.paths, self.clock, policy, notice=self.notices.append)
        self._open.append(spool)
        return spool

    def new(self, **values: object) -> Acceptance:
        return acceptance(self.ids.next(self.clock.now()), self.clock.now(), **values)  # type: ignore[arg-type]

    def kill(self, spool: SqliteSpool) -> None:
        """As the death of the process leaves it: nothing is given back but the lock."""
        spool._writer._close()
        spool._flight.close()
        spool._release_lock()
        self._open.remove(spool)

    def database(self) -> apsw.Connection:
        return apsw.Connection(str(self.shard / "queue.db"))

    def body(self, given: Acceptance) -> Path:
        (path,) = (self.shard / "bodies").glob(f"*/{given.id}.body")
        return path

    async def close(self) -> None:
        for spool in self._open:
            await spool.close()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    await bench.close()


# -- opening -------------------------------------------------------------------------------------------


async def test_only_we_may_look_into_a_spool(bench: Bench) -> None:
    spool = bench.open()
    await spool.accept([bench.new(body=LARGE)])
    for path in [bench.paths.root, *bench.paths.root.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        # SQLite's own files take the mode that the umask gives; the folder above them is closed.
        assert mode == 0o700 if path.is_dir() else path.name.startswith("queue.db") or mode == 0o600


async def test_a_second_opening_is_told_who_has_it(bench: Bench) -> None:
    spool = bench.open()
    with pytest.raises(SpoolLocked, match="in use by process"):
        bench.open()
    with pytest.raises(SpoolLocked):
        open_offline(bench.paths, bench.clock)
    await spool.close()
    await open_offline(bench.paths, bench.clock).close()


async def test_offline_makes_no_spool(bench: Bench) -> None:
    with pytest.raises(SpoolFault, match="there is no spool"):
        open_offline(bench.paths, bench.clock)
    assert not bench.paths.root.exists()


async def test_a_newer_schema_is_refused_and_left_alone(bench: Bench) -> None:
    await bench.open().close()
    with bench.database() as database:
        database.pragma("user_version", 99)
    with pytest.raises(SpoolFault, match="newer version"):
        bench.open()
    with bench.database() as database:
        database.pragma("user_version", schema.VERSION)
    assert bench.open().counts()[QUEUED] == 0


async def test_a_file_that_is_no_database_is_refused_and_left_alone(bench: Bench) -> None:
    await bench.open().close()
    (bench.shard / "queue.db").write_bytes(b"not a database" * 1000)
    with pytest.raises(SpoolFault, match="cannot open"):
        bench.open()
    assert (bench.shard / "queue.db").read_bytes() == b"not a database" * 1000


async def test_closed_means_refused(bench: Bench) -> None:
    spool = bench.open()
    waits = spool.accept([bench.new()])
    await spool.close()
    await waits
    await spool.close()
    with pytest.raises(SpoolFault, match="closed"):
        await spool.accept([bench.new()])
    with pytest.raises(SpoolFault, match="closed"):
        spool.counts()
    assert bench.open().counts()[QUEUED] == 1


# -- recovery ------------------------------------------------------------------------------------------


async def test_claims_of_a_dead_process_end_and_epochs_go_on(bench: Bench) -> None:
    spool = bench.open()
    given = bench.new(owner="me")
    await spool.accept([given])
    bench.kill(spool)
    spool = bench.open()
    assert spool.recovered.claims_ended == 1
    assert list(await spool.settle([delivered(given, 1, bench.clock.now())])) == [False]
    (claim,) = await spool.claim("me", bench.clock.now(), 60, 10)
    assert claim.epoch == 2


async def test_claims_are_given_up_at_the_end(bench: Bench) -> None:
    spool = bench.open()
    await spool.accept([bench.new(owner="me")])
    await spool.close()
    spool = bench.open()
    assert spool.recovered.claims_ended == 0
    assert len(await spool.claim("me", bench.clock.now(), 60, 10)) == 1


async def test_a_message_in_flight_at_three_deaths_is_held(bench: Bench) -> None:
    spool = bench.open()
    given, other = bench.new(owner="me"), bench.new(owner="me")
    await spool.accept([given, other])
    for death in (1, 2, 3):
        spool.in_flight(given.id)
        spool.in_flight(other.id)
        spool.landed(other.id)
        bench.kill(spool)
        spool = bench.open()
        assert spool.recovered.in_flight == 1
        assert spool.recovered.held == (death == 3)
        assert spool.show(given.id).state is (HELD if death == 3 else QUEUED)
    assert spool.show(given.id).reason == "in flight at three deaths of the relay"
    assert spool.show(other.id).state is QUEUED
    await spool.release([given.id], bench.clock.now())
    spool.in_flight(given.id)
    bench.kill(spool)
    assert bench.open().show(given.id).state is QUEUED


async def test_an_attempt_that_ends_counts_the_deaths_anew(bench: Bench) -> None:
    spool = bench.open()
    given = bench.new()
    await spool.accept([given])
    for _ in range(6):
        (claim,) = await spool.claim("me", bench.clock.now(), 60, 10)
        spool.in_flight(given.id)
        bench.kill(spool)
        spool = bench.open()
        (claim,) = await spool.claim("me", bench.clock.now(), 60, 10)
        await spool.settle([waiting(given, claim.epoch, bench.clock.now(), bench.clock.now())])
    assert spool.show(given.id).state is QUEUED


async def test_an_orderly_end_is_no_death(bench: Bench) -> None:
    for _ in range(4):
        spool = bench.open()
        given = bench.new(owner="me")
        await spool.accept([given])
        spool.in_flight(given.id)
        await spool.close()
        assert bench.open().recovered.in_flight == 0
        await bench.close()
        bench._open.clear()


async def test_body_files_that_nobody_names_are_removed(bench: Bench) -> None:
    spool = bench.open()
    kept = bench.new(body=LARGE)
    await spool.accept([kept])
    half = spool.body_writer(MessageId(bench.ids.next(bench.clock.now())))
    half.write(b"half a body")
    (bench.body(kept).parent / "stray").write_bytes(b"")
    bench.kill(spool)
    half.finish()
    spool = bench.open()
    assert len(spool.recovered.orphans) == 2
    assert [path.stem for path in (bench.shard / "bodies").glob("*/*")] == [kept.id]
    assert spool.content(kept.id).octets() == kept.arrival.octets()


@pytest.mark.parametrize(("damage", "words"), [(b"short", "has 5 octets"), (None, "is missing")])
async def test_a_body_file_that_is_not_whole_sets_its_message_aside(
    bench: Bench, damage: bytes | None, words: str
) -> None:
    spool = bench.open()
    given, other = bench.new(body=LARGE, owner="me"), bench.new(body=LARGE)
    await spool.accept([given, other])
    path = bench.body(given)
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage)
    with pytest.raises(ContentDamaged, match=words):
        spool.content(given.id)
    bench.kill(spool)
    spool = bench.open()
    assert spool.recovered.damaged == 1
    assert spool.show(given.id).state is DAMAGED
    assert words in spool.show(given.id).reason
    assert [claim.message.id for claim in await spool.claim("me", bench.clock.now(), 60, 10)] == [other.id]
    assert {row.id: row.state for row in spool.listing(Filter())} == {given.id: DAMAGED, other.id: QUEUED}
    assert list(await spool.delete([given.id], bench.clock.now())) == [True]


# -- damage --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("column", "words"), [("head", "head"), ("body", "body"), ("measures", "measures")])
async def test_octets_altered_in_the_database_are_found(bench: Bench, column: str, words: str) -> None:
    spool = bench.open()
    given = bench.new()
    await spool.accept([given])
    await spool.close()
    with bench.database() as database:
        database.execute(
            f"UPDATE content SET {column} = x'0a' WHERE message = ?",  # noqa: S608 — a column of ours
            (number_from_id(given.id),),
        )
    with pytest.raises(ContentDamaged, match=words):
        bench.open().content(given.id)


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE record SET value = x'c1' WHERE message = ?",
        "DELETE FROM record WHERE message = ?",
        "UPDATE recipient SET value = x'90' WHERE message = ?",
        "INSERT INTO entry VALUES (?, 0, x'00')",
    ],
)
async def test_a_record_that_cannot_be_read_is_set_aside_alone(bench: Bench, sql: str) -> None:
    spool = bench.open()
    given, other = bench.new(), bench.new()
    await spool.accept([given, other])
    await spool.close()
    with bench.database() as database:
        database.execute(sql, (number_from_id(given.id),))
    spool = bench.open()
    shown = spool.show(given.id)
    assert (shown.state, "cannot be read" in shown.reason) == (DAMAGED, True)
    claimed = await spool.claim("me", bench.clock.now(), 60, 10)
    assert [claim.message.id for claim in claimed] == [other.id]
    assert {row.id: row.state for row in spool.listing(Filter())} == {given.id: DAMAGED, other.id: QUEUED}
    assert spool.counts()[DAMAGED] == 1
    assert list(await spool.delete([given.id], bench.clock.now())) == [True]
    assert spool.counts()[DAMAGED] == 0


# -- content by policy -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "plain", "remarkable"),
    [
        (KeepContent.NONE, False, False),
        (KeepContent.DAMAGED, False, True),
        (KeepContent.ALL, True, True),
    ],
)
@pytest.mark.parametrize("body", [b"small\r\n", LARGE])
@pytest.mark.parametrize("way", ["settle", "claim and settle", "delete"])
async def test_content_is_kept_by_policy(
    bench: Bench, policy: KeepContent, plain: bool, remarkable: bool, body: bytes, way: str
) -> None:
    spool = bench.open(Policy(keep_content=policy, inline_sync=True))
    owner = "me" if way == "settle" else ""
    messages = [bench.new(body=body, owner=owner, action=action) for action in (Action.KEPT, Action.UNDONE)]
    await spool.accept(messages)
    now = bench.clock.now()
    if way == "delete":
        await spool.delete([given.id for given in messages], now)
    else:
        epochs = {claim.message.id: claim.epoch for claim in await spool.claim("me", now, 60, 10)}
        await spool.settle([delivered(given, epochs.get(given.id, 1), now) for given in messages])
    for given, kept in zip(messages, (plain, remarkable), strict=True):
        assert spool.show(given.id).has_content == kept
        if kept:
            assert spool.content(given.id).octets() == given.arrival.octets()
        else:
            with pytest.raises(NoSuchMessage):
                spool.content(given.id)
    files = len(list((bench.shard / "bodies").glob("*/*")))
    assert files == (plain + remarkable if body is LARGE else 0)
    await spool.purge(now + 1000, 10)
    bench.clock.advance(2000)
    await spool.purge(bench.clock.now(), 10)
    assert not list((bench.shard / "bodies").glob("*/*"))


async def test_a_body_elsewhere_is_not_taken(bench: Bench, tmp_path: Path) -> None:
    spool = bench.open()
    given, other = bench.new(body=LARGE), bench.new(body=LARGE)
    body = spool.body_writer(other.id)
    body.write(LARGE)
    arrival = msgspec.structs.replace(given.arrival, body=body.finish())
    with pytest.raises(ValueError, match="not a file of this spool"):
        spool.accept([msgspec.structs.replace(given, arrival=arrival)])


# -- group commit and checkpoints ------------------------------------------------------------------------


async def test_all_that_waits_is_one_transaction(bench: Bench) -> None:
    spool = bench.open()
    before = spool._writer.commits
    messages = [bench.new(owner="me") for _ in range(100)]
    await asyncio.gather(*(spool.accept([given]) for given in messages))
    assert spool._writer.commits == before + 1
    await asyncio.gather(*(spool.settle([delivered(given, 1, 1.0)]) for given in messages))
    assert spool._writer.commits == before + 2
    assert spool.counts()[FINISHED] == 100


async def test_a_transaction_is_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "BATCH_OCTETS", 100_000)
    monkeypatch.setattr(writer, "BATCH_WORKS", 10)
    spool = bench.open()
    await asyncio.gather(*(spool.accept([bench.new()]) for _ in range(25)))
    assert spool._writer.commits == 3
    await asyncio.gather(*(spool.accept([bench.new(body=b"x" * 60_000)]) for _ in range(4)))
    assert spool._writer.commits == 7
    await spool.accept([bench.new(body=b"x" * 200_000)])
    assert spool.counts()[QUEUED] == 30


async def test_a_call_that_is_given_up_is_still_done(bench: Bench) -> None:
    spool = bench.open()
    given = bench.new()
    future = spool.accept([given])
    future.cancel()
    await spool.accept([bench.new()])
    assert spool.show(given.id).state is QUEUED


@pytest.mark.parametrize("inline", [True, False])
async def test_the_log_starts_anew(bench: Bench, monkeypatch: pytest.MonkeyPatch, inline: bool) -> None:
    monkeypatch.setattr(writer, "CHECKPOINT_OCTETS", 256 * 1024)
    spool = bench.open(Policy(inline_sync=inline))

    async def client() -> None:
        for _ in range(40):
            given = bench.new(owner="me", body=b"x" * 10_000)
            await spool.accept([given])
            await spool.settle([delivered(given, 1, bench.clock.now())])

    await asyncio.gather(*(client() for _ in range(5)))
    assert spool.counts()[FINISHED] == 200
    # 200 messages wrote some 4 MiB into it.
    assert (bench.shard / "queue.db-wal").stat().st_size < 2 << 20
    assert bench.notices == []


async def test_a_reader_from_outside_does_not_stop_the_relay(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "CHECKPOINT_OCTETS", 64 * 1024)
    spool = bench.open()
    first = bench.new()
    await spool.accept([first])
    person = apsw.Connection(str(bench.shard / "queue.db"), flags=apsw.SQLITE_OPEN_READONLY)
    person.execute("BEGIN")
    ((state,),) = person.execute("SELECT state FROM message").fetchall()
    for _ in range(40):
        await spool.accept([bench.new(body=b"x" * 10_000)])
    assert state == "queued"
    person.execute("COMMIT")
    person.close()
    assert spool.counts()[QUEUED] == 41


async def test_closing_while_the_rest_of_a_checkpoint_waits_for_a_pause(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "CHECKPOINT_OCTETS", 0)
    ordered: list[Callable[[Checkpointed], None]] = []
    sync_log = InlineSyncer.sync_log

    def sync_behind_half_a_checkpoint(self: InlineSyncer, done: Callable[[OSError | None], None]) -> None:
        sync_log(self, done)
        while ordered:
            ordered.pop()(Checkpointed(complete=False))

    monkeypatch.setattr(InlineSyncer, "checkpoint", lambda self, done: ordered.append(done))
    monkeypatch.setattr(InlineSyncer, "sync_log", sync_behind_half_a_checkpoint)
    faults: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: faults.append(context))
    spool = bench.open()
    await spool.accept([bench.new()])
    assert ordered
    await spool.close()
    assert not ordered
    await spool.close()
    await asyncio.sleep(0)
    assert faults == []


async def test_closing_in_haste_answers_everybody_who_waits(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(InlineSyncer, "sync_log", lambda self, done: None)
    spool = bench.open()
    sent = spool.accept([bench.new()])
    await asyncio.sleep(0)
    closing = asyncio.create_task(spool.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert sent.done()
    with pytest.raises(SpoolFault, match="is closed"):
        await sent


async def test_the_process_that_syncs_may_die(bench: Bench) -> None:
    spool = bench.open(Policy())
    given = bench.new(owner="me")
    await spool.accept([given])
    _kill_syncer(spool)
    await spool.settle([delivered(given, 1, bench.clock.now())])
    large = bench.new(body=LARGE)
    _kill_syncer(spool)
    try:
        await spool.accept([large])
    except SpoolFault:  # its body was with the process when that died
        large = bench.new(body=LARGE)
        await spool.accept([large])
    assert spool.content(large.id).octets() == large.arrival.octets()
    assert spool.show(given.id).state is FINISHED
    assert any("process that syncs" in words for words in bench.notices)


def _kill_syncer(spool: SqliteSpool) -> None:
    process = getattr(spool._writer._syncer, "_process")  # noqa: B009 — a Syncer in general has none
    process.kill()
    process.wait()


# -- when it is due ----------------------------------------------------------------------------------------


async def test_an_ended_lease_is_due(bench: Bench) -> None:
    spool = bench.open()
    given = bench.new(owner="me", lease_seconds=60.0)
    await spool.accept([given])
    assert spool.next_due() is None
    bench.clock.advance(61)
    assert spool.next_due() == bench.clock.now()


async def test_while_nothing_can_be_read_a_claim_is_asked_for_and_told_why(bench: Bench) -> None:
    spool = bench.open()
    await spool.accept([bench.new(next_at=bench.clock.now() + 900)])
    await spool.close()
    assert spool.next_due() == bench.clock.now()
    with pytest.raises(SpoolFault):
        await spool.claim("me", bench.clock.now(), 60, 10)


async def test_no_body_stays_of_a_batch_that_was_refused(bench: Bench) -> None:
    spool = bench.open()
    await spool.accept([bench.new(key=b"one")])
    with pytest.raises(KeyUsed):
        await spool.accept([bench.new(body=LARGE), bench.new(key=b"one")])
    assert not list((bench.shard / "bodies").glob("*/*"))


async def test_the_queue_is_read_by_its_index(bench: Bench) -> None:
    """A long history must not make a claim slow."""
    spool = bench.open()
    await spool.close()
    from lonedot.spool import actions

    checks: list[tuple[str, Callable[[str], bool]]] = [
        (actions._DUE, lambda plan: "message_due" in plan and "TEMP B-TREE" not in plan),
        (
            "SELECT state, count(*) FROM message WHERE state <> 'finished' GROUP BY state",
            lambda plan: "message_live" in plan,
        ),
    ]
    with bench.database() as database:
        for sql, is_good in checks:
            plan = " / ".join(
                str(row[3])
                for row in database.execute(f"EXPLAIN QUERY PLAN {sql}", (1.0, 10)[: sql.count("?")])
            )
            assert is_good(plan), plan
