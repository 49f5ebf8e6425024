"""kill -9 at every step of the table in `docs/spool-states.md`, under load; then the process that syncs, alone.

A life of the relay ends at its point; the next one recovers and is killed at another; the last is left to deliver all.
The notes of each life (`kill_points`) say for which messages the outcome was unknown when it ended: those, and no
others, may arrive twice. Short in CI, where each point kills once; `./dev crash` runs many rounds.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import msgspec
import pytest

from lonedot.terms.ids import id_from_number
from lonedot.testing.process import SERVE, RelayProcess
from tests.crash import kill_points
from tests.crash.chain import EVERYWHERE, Link, write_registry
from tests.crash.kill_points import Fate, Point, Whom
from tests.crash.load import Load, NextHop, ask, drain, judge

LONG = os.environ.get("LONEDOT_CRASH") == "long"
SEED = int(os.environ.get("LONEDOT_SEED", "1"))
ROUNDS = 12 if LONG else 1
LIVES = 9
"""In one spool."""
CLIENTS = 4
CONNECTIONS = 4
LIFE_SECONDS = 60.0
DEATHS = 3
CHECKPOINT_LOCK = 121
"""Octet of `queue.db-shm` that SQLite locks for a checkpoint (WAL_CKPT_LOCK in its unix VFS)."""

CONFIG = """
[server]
hostname = "{hostname}"
spool = "spool"
{sinks}
[pickup]
poll_seconds = 0.05
[[listener]]
name = "in"
address = "127.0.0.1:0"
relay_from = ["127.0.0.0/8"]
[[route]]
name = "out"
to = "*"
smarthost = "127.0.0.1:{port}"
connections = {connections}
"""


class Notes:
    """What one life wrote down."""

    def __init__(self, file: Path) -> None:
        self.killed: list[str] = []
        self.points: set[str] = set()
        self.settled: Counter[str] = Counter()
        """Copies whose outcome is known; none where nothing was written."""
        self.stepped: set[str] = set()
        self.written: Counter[str] = Counter()
        self.in_flight: set[str] = set()
        for line in file.read_text().splitlines() if file.exists() else ():
            kind, _, what = line.partition(" ")
            if kind == "begin":
                self.in_flight.add(what)
            elif kind == "landed":
                self.in_flight.discard(what)
            elif kind == "written":
                self.written[what] += 1
            elif kind == "settled":
                id, _, copies = what.partition(" ")
                self.settled[id] += int(copies)
            elif kind == "stepped":
                self.stepped.add(what)
            elif kind == "at":
                self.points.add(what)
            else:
                self.killed.append(what)
        self.unknown = self.written - self.settled
        """Copies written and not settled: their outcome was unknown at the end."""


class Life(msgspec.Struct, frozen=True):
    point: Point
    passings: str
    whom: Whom
    notes: Notes

    def __str__(self) -> str:
        return f"{self.point.label}:{self.passings} ({self.whom.value})"


class Trial:
    """One spool, a load, and the lives of its relay."""

    def __init__(self, folder: Path, hop: NextHop, seed: int, chain: Sequence[Link] = ()) -> None:
        self.chance = random.Random(seed)
        hostname = f"relay-{os.getpid()}-{seed}.example.com"
        # A sink that died makes a message remarkable; the judge looks that nothing is left of any content.
        sinks = 'registry = "sinks.toml"\nkeep_content = "none"' if chain else ""
        if chain:
            write_registry(folder, chain)
        toml = CONFIG.format(hostname=hostname, port=hop.port, connections=CONNECTIONS, sinks=sinks)
        self.relay = RelayProcess(folder, toml)
        self.pickup = folder / "spool" / "pickup"
        self.hop = hop
        self.load = Load(hop, hostname, seed, clients=2 if chain else CLIENTS, too_large=0.06, chain=chain)
        self.lives: list[Life] = []
        self.released: list[str] = []

    def set_trap(self, point: str, passings: str, whom: Whom) -> Path:
        notes = self.relay.folder / f"notes-{len(self.lives)}"
        self.relay.program = (str(Path(kill_points.__file__)),)
        self.relay.environment = {
            kill_points.POINT: f"{point}:{passings}",
            kill_points.WHOM: whom.value,
            kill_points.NOTES: str(notes),
        }
        return notes

    def live(self, point: Point, passings: str, whom: Whom) -> Life:
        """Start the relay and let it run into its trap."""
        notes = self.set_trap(point.label, passings, whom)
        said = len(self.relay.other_output)
        try:
            self.relay.start()
        except RuntimeError:
            pass  # some points come before the first listener
        else:
            self.load.point_at(self.relay.ports["in"])
            try:
                code = self.relay.wait(LIFE_SECONDS)
            except subprocess.TimeoutExpired:
                raise AssertionError(f"{point.label}:{passings} was never reached") from None
            assert code == -signal.SIGKILL, self.relay.other_output[said:]
        finally:
            self.load.point_at(0)
        life = Life(point, passings, whom, Notes(notes))
        assert len(life.notes.killed) == 1, self.relay.other_output[said:]
        self.lives.append(life)
        return life

    def serve(self) -> None:
        """Start the relay as anybody does."""
        self.relay.program, self.relay.environment = SERVE, {}
        self.relay.start()
        self.load.point_at(self.relay.ports["in"])

    def end(self) -> None:
        """No more mail; wait for all that is in custody, and stop."""
        self.load.stop()
        self.released += drain(self.relay, self.pickup)
        self.relay.stop()

    # -- what may be ---------------------------------------------------------------------------------

    def may_repeat(self) -> Counter[str]:
        return sum((life.notes.unknown for life in self.lives), Counter())

    def poison(self) -> set[str]:
        """Messages that were in flight at three deaths of the relay in turn, with no outcome in between."""
        deaths: Counter[str] = Counter()
        for life in self.lives:
            for id in {*life.notes.settled, *life.notes.stepped}:
                deaths[id] = 0
            deaths.update(life.notes.in_flight)
        return {id for id, count in deaths.items() if count >= DEATHS}

    def check_fates(self) -> None:
        """What happened to the message at each point is what the table says."""
        arrived = {seen.id for seen in self.hop.seen}
        copies = len(self.load.recipients)
        database = self.relay.folder / "spool" / "shards" / "0" / "queue.db"
        kept = {id_from_number(int(str(id))) for (id,) in ask(database, "SELECT id FROM message")}
        for life in self.lives:
            (id,), notes = life.notes.killed, life.notes
            match life.point.fate:
                case Fate.ABSENT:
                    assert id not in kept and id not in arrived, life
                case Fate.KEPT:
                    assert id in kept and max(notes.written[id], notes.settled[id]) < copies, life
                case Fate.WINDOW:
                    assert id in kept and id in notes.unknown, life
                case Fate.DONE:
                    assert id in kept and id in notes.settled and notes.unknown[id] < copies, life
                case Fate.ANY:
                    pass

    def found(self, duplicates: dict[str, int]) -> str:
        """Duplicates by the point of the life that may have caused them."""
        by_point: Counter[str] = Counter()
        for id, more in duplicates.items():
            left = more
            for life in self.lives:
                count = min(left, life.notes.unknown[id])
                by_point[life.point.label] += count
                left -= count
        return ", ".join(f"{count} at {label}" for label, count in by_point.most_common() if count) or "none"


class TrialAt(Protocol):
    def __call__(self, seed: int, chain: Sequence[Link] = ()) -> Trial: ...


@pytest.fixture
def trial_at(tmp_path: Path) -> Iterator[TrialAt]:
    with NextHop() as hop:
        made: list[Trial] = []

        def make(seed: int, chain: Sequence[Link] = ()) -> Trial:
            made.append(Trial(tmp_path, hop, seed, chain))
            return made[-1]

        yield make
        for trial in made:
            trial.load.stop()
            trial.relay.kill()


WITH_SINKS = (
    Point.BODY_SYNCED,
    Point.COMMITTED,
    Point.CLAIMED,
    Point.CONNECTED,
    Point.END_WRITTEN,
    Point.SETTLING,
    Point.SETTLE_COMMITTED,
    Point.REMOVING,
    Point.REPORT_MADE,
)
"""One for each row of the table, for CI: hosts of sinks take their time to start. The long form takes all."""


def lots(of: Sequence[Point] = tuple(Point)) -> Sequence[tuple[int, tuple[Point, ...]]]:
    """Seed and points of each trial: in each round every point once, in another order."""
    given: list[tuple[int, tuple[Point, ...]]] = []
    for number in range(ROUNDS):
        points = list(of)
        random.Random(SEED + number).shuffle(points)
        for start in range(0, len(points), LIVES):
            given.append((SEED * 1000 + len(given), tuple(points[start : start + LIVES])))
    return given


LOTS = [pytest.param((), *lot, id=f"lot{lot[0]}") for lot in lots()]
LOTS += [
    pytest.param(EVERYWHERE, *lot, id=f"sinks-lot{lot[0]}") for lot in (lots() if LONG else lots(WITH_SINKS))
]


@pytest.mark.parametrize(("chain", "seed", "points"), LOTS)
def test_each_point(
    trial_at: TrialAt,
    chain: Sequence[Link],
    seed: int,
    points: tuple[Point, ...],
    capsys: pytest.CaptureFixture[str],
) -> None:
    trial = trial_at(seed, chain)
    chance = trial.chance
    began = time.monotonic()
    trial.load.start(trial.pickup)
    for point in points:
        passing = (
            1 if point is Point.OPENING or chance.random() < 0.5 else chance.randint(2, 40 if LONG else 5)
        )
        whom = chance.choice([Whom.RELAY, Whom.ALL] if chain else [Whom.RELAY, Whom.BOTH])
        trial.live(point, str(passing), whom)
        if LONG:
            trial.serve()
            trial.load.wait_for(20, 30)
            trial.load.point_at(0)
            trial.relay.stop()
            print_now(capsys, ".")
    trial.serve()
    trial.load.wait_for(20, 30)
    trial.end()
    verdict = judge(trial.relay.folder, trial.load, trial.hop, trial.may_repeat())
    trial.check_fates()
    assert set(trial.released) == trial.poison()
    duplicates = trial.found(dict(verdict.duplicates))
    unknown = max(len(life.notes.unknown) for life in trial.lives)
    print_now(
        capsys,
        f"lot {seed}: {len(trial.lives)} kills, {verdict.messages} messages, {verdict.reports} reports, "
        f"{verdict.unanswered} kept without their 250, {len(trial.released)} held as poison, at most {unknown} "
        f"outcomes unknown; duplicates: {duplicates}; {time.monotonic() - began:.1f} s\n",
    )


def test_the_processes_of_sinks_die_alone_at_each_point(trial_at: TrialAt) -> None:
    """The relay starts others and goes on: nothing is lost, and nothing is sent twice."""
    trial = trial_at(SEED, EVERYWHERE)
    passings = sorted({1, *trial.chance.sample(range(2, 20), 6)}) if LONG else [2]
    notes = trial.set_trap(kill_points.EVERY, ",".join(map(str, passings)), Whom.SINKS)
    wanted = {point.label for point in Point} - {Point.OPENING.label}
    trial.relay.start()
    trial.load.start(trial.pickup)
    trial.load.point_at(trial.relay.ports["in"])
    deadline = time.monotonic() + LIFE_SECONDS
    while not wanted <= Notes(notes).points and time.monotonic() < deadline:
        trial.load.wait_for(10, 1)
    assert wanted - Notes(notes).points == set()
    trial.end()
    judge(trial.relay.folder, trial.load, trial.hop, {})
    assert trial.released == []


def print_now(capsys: pytest.CaptureFixture[str], words: str) -> None:
    """A line of progress in the long form, and for `-s`."""
    if LONG:
        with capsys.disabled():
            print(words, end="", flush=True)
    else:
        print(words, end="")


SYNCER_POINTS = (
    Point.BODY_ORDERED,
    Point.COMMITTED,
    Point.SETTLE_COMMITTED,
    Point.REPORT_COMMITTED,
    Point.REMOVING,
    Point.CHECKPOINT,
    Point.CHECKPOINTED,
)


@pytest.mark.parametrize("point", SYNCER_POINTS, ids=[point.label for point in SYNCER_POINTS])
def test_the_process_that_syncs_dies_alone(trial_at: TrialAt, point: Point) -> None:
    """The relay mends and goes on: nothing is lost, nothing is sent twice, and a 451 means not in custody."""
    trial = trial_at(SEED)
    passings = sorted({1, *trial.chance.sample(range(2, 9), 6 if LONG else 2)})
    notes = trial.set_trap(point.label, ",".join(map(str, passings)), Whom.SYNCER)
    trial.relay.start()
    trial.load.start(trial.pickup)
    trial.load.point_at(trial.relay.ports["in"])
    deadline = time.monotonic() + LIFE_SECONDS
    while len(Notes(notes).killed) < len(passings) and time.monotonic() < deadline:
        trial.load.wait_for(10, 1)
    assert len(Notes(notes).killed) == len(passings)
    trial.load.wait_for(20, 30)
    trial.end()
    trial.serve()  # what the dead process was to remove is removed at the next opening
    trial.relay.stop()
    judge(trial.relay.folder, trial.load, trial.hop, {})
    assert trial.released == []


def test_the_process_that_syncs_dies_at_any_moment(trial_at: TrialAt) -> None:
    """As above, under the command itself."""
    trial = trial_at(SEED)
    trial.serve()
    trial.load.start(trial.pickup)
    for _ in range(200 if LONG else 8):
        trial.load.wait_for(trial.chance.randint(1, 30), 30)
        os.kill(syncer_of(trial.relay.pid), signal.SIGKILL)
    trial.load.wait_for(20, 30)
    trial.end()
    trial.serve()
    trial.relay.stop()
    judge(trial.relay.folder, trial.load, trial.hop, {})
    assert trial.released == []


def syncer_of(pid: int) -> int:
    """The process that syncs for this relay, waited for when it is just being started."""
    deadline = time.monotonic() + LIFE_SECONDS
    while time.monotonic() < deadline:
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            with contextlib.suppress(OSError):  # it has just died of the kill before
                if b"sync_process" in Path(f"/proc/{child}/cmdline").read_bytes():
                    return int(child)
    raise AssertionError("no process syncs")


def test_opening_while_the_last_checkpoint_of_a_dead_relay_still_runs(
    trial_at: TrialAt,
) -> None:
    """On a slow disk the process that synced may outlive its relay for as long as one sync takes."""
    trial = trial_at(SEED)
    trial.serve()
    trial.load.start(trial.pickup)
    trial.load.wait_for(50, 30)
    database = trial.relay.folder / "spool" / "shards" / "0" / "queue.db"
    with (
        contextlib.closing(sqlite3.connect(database)) as reader,
        database.with_name("queue.db-shm").open("r+b") as shm,
    ):
        reader.execute("SELECT count(*) FROM message").fetchall()
        trial.relay.kill()
        trial.load.point_at(0)
        fcntl.lockf(shm, fcntl.LOCK_EX, 1, CHECKPOINT_LOCK)
        trial.serve()
        trial.load.wait_for(20, 30)
        fcntl.lockf(shm, fcntl.LOCK_UN, 1, CHECKPOINT_LOCK)
    trial.end()
    judge(trial.relay.folder, trial.load, trial.hop)
