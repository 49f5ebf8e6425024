"""Leases over workers: never more than the setting, nobody without for ever, nothing lost with the dead."""

from __future__ import annotations

import mmap
import os
import signal
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lonedot.app.leases import HOLD_SECONDS, FileGuard, LeaseTable, is_running
from lonedot.delivery.leases import ASK_SECONDS

SIZE = 64 * 1024
HOP = "out\texample.com"


class Open:
    """A guard of one process that is never kept out, or always is."""

    is_shut = False

    def enter(self) -> bool:
        return not self.is_shut

    def leave(self) -> None:
        assert not self.is_shut


class Office:
    """Some workers and their table."""

    def __init__(self, workers: int, size: int = SIZE) -> None:
        self.memory = bytearray(size)
        self.alive = set(range(1, workers + 1))
        self.tables = [self.start(number, workers, number + 1) for number in range(workers)]

    def start(self, number: int, workers: int, pid: int) -> LeaseTable:
        self.alive.add(pid)
        return LeaseTable(self.memory, workers, number, pid, Open(), self.alive.__contains__)


def test_no_more_than_the_setting_over_all_workers() -> None:
    one, two = Office(2).tables
    assert [one.take(HOP, 3, 1.0), two.take(HOP, 3, 1.0), one.take(HOP, 3, 1.0)] == [True] * 3
    assert not one.take(HOP, 3, 1.0)
    assert not two.take(HOP, 3, 1.0)
    one.give(HOP)
    assert two.take(HOP, 3, 1.0)
    assert one.take("out\tother.example", 3, 1.0)


def test_one_that_has_all_gives_to_one_that_wants() -> None:
    one, two = Office(2).tables
    assert all(one.take(HOP, 4, 1.0) for _ in range(4))
    assert not one.is_owed(HOP, 4, 0, 1.0)
    assert not two.take(HOP, 4, 1.0)
    assert one.is_owed(HOP, 4, 0, 1.0)
    assert not one.is_owed(HOP, 4, 1, 1.0)  # one is on its way
    one.give(HOP)
    assert not one.take(HOP, 4, 1.05)  # it is for the other
    assert two.take(HOP, 4, 1.1)
    assert not two.take(HOP, 4, 1.1)
    assert one.is_owed(HOP, 4, 0, 1.1)
    one.give(HOP)
    assert two.take(HOP, 4, 1.2)
    assert not two.take(HOP, 4, 1.2)
    assert not one.is_owed(HOP, 4, 0, 1.2)  # both have half


def test_a_wish_that_is_not_repeated_is_forgotten() -> None:
    one, two = Office(2).tables
    assert one.take(HOP, 1, 1.0)
    assert not two.take(HOP, 1, 1.0)
    assert one.is_wanted(HOP, 1, 1.5)
    assert not one.is_wanted(HOP, 1, 2.5)
    assert not two.take(HOP, 1, 2.6)
    two.renounce(HOP)
    assert not one.is_wanted(HOP, 1, 2.6)


def test_one_connection_goes_round_by_time() -> None:
    one, two = Office(2).tables
    assert one.take(HOP, 1, 1.0)
    assert not two.take(HOP, 1, 1.2)
    assert not one.is_owed(HOP, 1, 0, 1.0 + HOLD_SECONDS / 2)
    assert not two.take(HOP, 1, 1.9)
    assert one.is_owed(HOP, 1, 0, 1.0 + HOLD_SECONDS)
    one.give(HOP)
    assert not one.take(HOP, 1, 2.0)
    assert two.take(HOP, 1, 2.0)


def test_what_the_dead_had_comes_back_at_once() -> None:
    office = Office(3)
    one, two, three = office.tables
    assert one.take(HOP, 2, 1.0)
    assert two.take(HOP, 2, 1.0)
    office.alive.discard(2)
    assert three.take(HOP, 2, 1.1)
    two = office.start(1, 3, 77)
    assert not two.take(HOP, 2, 1.2)


def test_the_next_worker_of_a_number_begins_with_nothing() -> None:
    office = Office(2)
    assert office.tables[0].take(HOP, 1, 1.0)
    again = office.start(0, 2, 1)  # the system has given the number of the process again
    assert again.take(HOP, 1, 1.0)


def test_a_guard_that_somebody_has_is_not_waited_for() -> None:
    office = Office(1)
    guard = Open()
    table = LeaseTable(office.memory, 1, 0, 1, guard, office.alive.__contains__)
    guard.is_shut = True
    assert not table.take(HOP, 1, 1.0)
    assert table.turn(HOP, 1.0, 0.0, 1.0) == ASK_SECONDS


def test_a_full_table_refuses_and_rows_are_used_again() -> None:
    table = Office(1, 8 * (64 + 16 * 6)).tables[0]
    assert table.capacity == 16
    hops = [f"hop {number}" for number in range(17)]
    assert [table.take(hop, 1, 1.0) for hop in hops] == [True] * 16 + [False]
    table.give(hops[3])
    assert table.take(hops[16], 1, 1.1)
    assert not table.take(hops[3], 1, 1.1)


def test_memory_that_is_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="too little memory"):
        Office(2, 8 * 64)


def test_a_rate_holds_over_workers() -> None:
    one, two = Office(2).tables
    assert one.turn(HOP, 2.0, 0.0, 10.0) == 0
    assert two.turn(HOP, 2.0, 0.0, 10.0) == pytest.approx(2.0)
    assert two.turn(HOP, 2.0, 0.0, 11.5) == pytest.approx(0.5)
    assert two.turn(HOP, 2.0, 0.0, 12.0) == 0
    assert one.turn(HOP, 2.0, 0.0, 12.0) == pytest.approx(2.0)
    assert one.turn(HOP, 2.0, 0.0, 3.0) == pytest.approx(2.0)  # the clock was set back


@given(
    st.integers(1, 100), st.lists(st.tuples(st.integers(0, 2), st.floats(0, 0.3)), min_size=1, max_size=80)
)
def test_no_stretch_of_time_has_more_turns_than_the_rate(
    per_second: int, asked: list[tuple[int, float]]
) -> None:
    tables = Office(3).tables
    interval, burst = 1 / per_second, max(0.0, 1 - 1 / per_second)
    now, sent = 100.0, []
    for number, pause in asked:
        now += pause
        if tables[number].turn(HOP, interval, burst, now) == 0:
            sent.append(now)
    for first, began in enumerate(sent):
        for last in range(first, len(sent)):
            allowed = (sent[last] - began + burst) * per_second + 1
            assert last - first + 1 <= allowed + 0.01


class Bench:
    """Workers with mail for one hop, in steps of a tenth of a second; each message takes one."""

    def __init__(self, limit: int, mail: list[int]) -> None:
        self.office = Office(len(mail))
        self.limit = limit
        self.mail = mail
        self.open = [0] * len(mail)
        self.sent = [0] * len(mail)
        self.now = 5.0

    def step(self) -> None:
        self.now += ASK_SECONDS
        for number, table in enumerate(self.office.tables):
            leaving = 0
            for _ in range(self.open[number]):
                if self.mail[number]:
                    self.mail[number] -= 1
                    self.sent[number] += 1
                    is_over = table.is_owed(HOP, self.limit, leaving, self.now)
                else:
                    is_over = table.is_wanted(HOP, self.limit, self.now)
                leaving += is_over
            for _ in range(leaving):
                self.open[number] -= 1
                table.give(HOP)
            while self.mail[number] > self.open[number] and table.take(HOP, self.limit, self.now):
                self.open[number] += 1
        assert sum(self.open) <= self.limit


@given(st.integers(1, 8), st.lists(st.integers(0, 400), min_size=2, max_size=6))
def test_every_worker_with_mail_sends_before_long(limit: int, mail: list[int]) -> None:
    bench = Bench(limit, list(mail))
    turns = HOLD_SECONDS / ASK_SECONDS + 2
    for _ in range(round(turns * len(mail) * (1 + len(mail) // limit))):
        bench.step()
    assert all(sent or not had for sent, had in zip(bench.sent, mail, strict=True))


def test_who_has_the_mail_has_all_connections() -> None:
    bench = Bench(10, [5, 5, 10_000])
    for _ in range(20):
        bench.step()
    assert bench.open == [0, 0, 10]


def test_all_with_mail_have_about_the_same() -> None:
    bench = Bench(10, [100_000, 0, 100_000, 0])
    bench.step()
    for _ in range(40):
        bench.step()
    assert bench.open == [5, 0, 5, 0]


class Machine(RuleBasedStateMachine):
    """Takes, gifts, deaths and starts in any order."""

    workers = 3

    @initialize(limit=st.integers(1, 4))
    def begin(self, limit: int) -> None:
        self.office = Office(self.workers)
        self.limit = limit
        self.held = [0] * self.workers
        self.is_dead = [False] * self.workers
        self.pids = list(range(1, self.workers + 1))
        self.now = 1.0

    @rule(number=st.integers(0, 2), pause=st.floats(0, 2))
    def take(self, number: int, pause: float) -> None:
        self.now += pause
        if not self.is_dead[number] and self.office.tables[number].take(HOP, self.limit, self.now):
            self.held[number] += 1

    @rule(number=st.integers(0, 2))
    def give(self, number: int) -> None:
        if self.held[number]:
            self.held[number] -= 1
            self.office.tables[number].give(HOP)

    @rule(number=st.integers(0, 2))
    def die(self, number: int) -> None:
        self.office.alive.discard(self.pids[number])
        self.is_dead[number] = True
        self.held[number] = 0

    @precondition(lambda self: any(self.is_dead))
    @rule()
    def start(self) -> None:
        number = self.is_dead.index(True)
        self.is_dead[number] = False
        self.pids[number] += 100
        self.office.tables[number] = self.office.start(number, self.workers, self.pids[number])

    @rule()
    def all_is_free_when_nobody_holds(self) -> None:
        if any(self.held) or all(self.is_dead):
            return
        alone = self.is_dead.index(False)
        self.now += 2.0
        assert all(self.office.tables[alone].take(HOP, self.limit, self.now) for _ in range(self.limit))
        self.held[alone] = self.limit

    @invariant()
    def never_more(self) -> None:
        if hasattr(self, "held"):
            assert sum(self.held) <= self.limit


TestMachine = Machine.TestCase


def test_processes_share_it_and_one_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    """Real processes, one connection: whoever has it makes a file that must not be there."""
    descriptor = os.memfd_create("leases")
    os.ftruncate(descriptor, SIZE)
    memory = mmap.mmap(descriptor, SIZE)
    token = tmp_path / "token"

    def work(number: int, rounds: int) -> None:
        table = LeaseTable(memory, 3, number, os.getpid(), FileGuard(descriptor))
        while rounds:
            if table.take(HOP, 1, time.monotonic()):
                os.close(os.open(token, os.O_CREAT | os.O_EXCL))
                token.unlink()
                table.give(HOP)
                rounds -= 1

    def forked(number: int, rounds: int) -> int:
        if pid := os.fork():
            return pid
        try:
            work(number, rounds)
        except BaseException:
            os._exit(1)
        os._exit(0)

    pids = [forked(number, 200) for number in range(2)]
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0, 0]

    table = LeaseTable(memory, 3, 2, os.getpid(), FileGuard(descriptor))
    reading, writing = os.pipe()
    if not (pid := os.fork()):
        holder = LeaseTable(memory, 3, 0, os.getpid(), FileGuard(descriptor))
        os.write(writing, b"1" if holder.take(HOP, 1, time.monotonic()) else b"0")
        FileGuard(descriptor).enter()
        os.write(writing, b"2")
        signal.pause()
    assert os.read(reading, 1) == b"1"
    assert os.read(reading, 1) == b"2"
    assert not table.take(HOP, 1, time.monotonic())
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert not is_running(pid)
    assert table.take(HOP, 1, time.monotonic())
    for one in (descriptor, reading, writing):
        os.close(one)
