"""The contract of the built-in sinks: nothing that comes, and nothing that a backend does, loses a message."""

from __future__ import annotations

import importlib
import tracemalloc
from pathlib import Path

import msgspec
import pytest

import lonedot.sinks.builtin
from lonedot.message.content import Content
from lonedot.message.edits import Effect
from lonedot.sinks.calls import Decision, Dispatched
from lonedot.sinks.events import EVENTS, Shows
from lonedot.sinks.sink import declared_by, sink
from lonedot.sinks.verdicts import Discard, Verdict
from lonedot.sinks.view import Message
from tests.unit.sinks.builtin.contract import (
    GARBAGE,
    MESSAGES,
    Fault,
    Given,
    Row,
    Through,
    both_loops,
    content_of,
    huge_content,
    through,
)

FOLDER = Path(__file__).parent
ROWS: tuple[Row, ...] = tuple(
    row
    for path in sorted((FOLDER / "rows").glob("*.py"))
    for row in importlib.import_module(f"tests.unit.sinks.builtin.rows.{path.stem}").ROWS
)
ASKING = tuple(row for row in ROWS if row.backend is not None)
LETTER = MESSAGES[0]
NOT_SUBJECT = frozenset({"lonedot.sinks.builtin.faulty"})
"""It is made to do harm."""
HOUR_SECONDS = 3600
RETRY_SECONDS = 600

anyio_backend = both_loops
every_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
every_asking_row = pytest.mark.parametrize("row", ASKING, ids=lambda row: row.name)

HOW = [
    (Fault.SILENT, GARBAGE[0]),
    (Fault.DEAF, GARBAGE[0]),
    (Fault.CLOSED, GARBAGE[0]),
    (Fault.TORN, GARBAGE[0]),
    (Fault.ENDLESS, GARBAGE[0]),
    (Fault.AWAY, GARBAGE[0]),
    *((Fault.GARBAGE, garbage) for garbage in GARBAGE),
]


def fails(row: Row, fault: Fault) -> frozenset[Decision]:
    return row.fails_by.get(fault, row.fails)


def check_well(one: Through, given: Given, done: Dispatched) -> None:
    """It went through, and is what the sink makes of it."""
    row = one.row
    wanted = row.becomes.get(given.name, Decision.ACCEPT)
    one.check_kept(given, done, frozenset({wanted}))
    if given.name in row.beyond:
        assert not any(entry.fault for entry in done.entries)
        return
    assert all(entry.verdict != "error" for entry in done.entries), done.entries[0]
    if wanted is Decision.ACCEPT:
        for content in [copy.content for copy in done.copies] or [done.content]:
            row.judge(given.octets, content.octets())


def check_untouched(given: Given, done: Dispatched) -> None:
    """What is deferred or held after a fault is what came."""
    if done.decision is not Decision.ACCEPT:
        assert done.content.octets() == given.octets
        assert done.words


@every_row
@pytest.mark.parametrize("given", MESSAGES, ids=lambda given: given.name)
async def test_every_message_goes_through(row: Row, given: Given, tmp_path: Path) -> None:
    async with through(row, tmp_path) as one:
        check_well(one, given, await one.give(given))


@every_asking_row
@pytest.mark.parametrize(("fault", "garbage"), HOW, ids=[f"{f.name}-{HOW.index((f, g))}" for f, g in HOW])
async def test_a_fault_of_the_backend_loses_nothing_and_passes(
    row: Row, fault: Fault, garbage: bytes, tmp_path: Path
) -> None:
    async with through(row, tmp_path) as one:
        assert one.backend is not None
        for torn in row.torn if fault is Fault.TORN else (1,):
            await one.backend.behave(fault, garbage, torn)
            done = await one.give(LETTER)
            one.check_kept(LETTER, done, fails(row, fault))
            check_untouched(LETTER, done)
        await one.backend.behave(Fault.NONE)
        check_well(one, LETTER, await one.give(LETTER))


@every_asking_row
async def test_a_backend_that_goes_away_between_two_messages(row: Row, tmp_path: Path) -> None:
    async with through(row, tmp_path) as one:
        assert one.backend is not None
        check_well(one, LETTER, await one.give(LETTER))
        await one.backend.behave(Fault.AWAY)
        one.check_kept(LETTER, await one.give(LETTER), fails(row, Fault.AWAY))
        await one.backend.behave(Fault.NONE)
        check_well(one, LETTER, await one.give(LETTER))


@every_asking_row
async def test_a_backend_that_is_away_for_an_hour(row: Row, tmp_path: Path) -> None:
    async with through(row, tmp_path) as one:
        assert one.backend is not None
        await one.backend.behave(Fault.AWAY)
        for _ in range(0, HOUR_SECONDS, RETRY_SECONDS):
            done = await one.give(LETTER)
            one.check_kept(LETTER, done, fails(row, Fault.AWAY))
            check_untouched(LETTER, done)
            one.clock.advance(RETRY_SECONDS)
        await one.backend.behave(Fault.NONE)
        check_well(one, LETTER, await one.give(LETTER))


@every_asking_row
@pytest.mark.parametrize("given", MESSAGES, ids=lambda given: given.name)
async def test_any_message_while_the_backend_is_away(row: Row, given: Given, tmp_path: Path) -> None:
    async with through(row, tmp_path) as one:
        assert one.backend is not None
        await one.backend.behave(Fault.AWAY)
        done = await one.give(given)
        # A message that the sink does not take to its backend at all goes through as ever.
        one.check_kept(given, done, fails(row, Fault.AWAY) | {row.becomes.get(given.name, Decision.ACCEPT)})
        check_untouched(given, done)
        if given is LETTER:
            assert done.decision in fails(row, Fault.AWAY)


@pytest.fixture(scope="module")
def huge(tmp_path_factory: pytest.TempPathFactory) -> Content:
    return huge_content(tmp_path_factory.mktemp("huge"))


@every_row
async def test_a_huge_message_is_not_held_in_memory(row: Row, huge: Content, tmp_path: Path) -> None:
    given = Given("huge", b"")
    wide = _patient(row)
    async with through(wide, tmp_path) as one:
        await one.give(LETTER)  # what is made once does not count
        tracemalloc.start()
        try:
            done = await one.give(given, huge)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        one.check_kept(given, done, frozenset({row.huge}))
        assert peak <= row.memory_octets, f"{peak / 2**20:.1f} MiB"
        if Effect.BODY not in one.binding.effects:
            assert done.content.body_measure == huge.body_measure


@every_asking_row
@pytest.mark.parametrize("fault", [Fault.DEAF, Fault.CLOSED, Fault.TORN], ids=lambda fault: fault.name)
async def test_a_huge_message_and_a_backend_at_fault(
    row: Row, fault: Fault, huge: Content, tmp_path: Path
) -> None:
    given = Given("huge", b"")
    async with through(row if fault is Fault.DEAF else _patient(row), tmp_path) as one:
        assert one.backend is not None
        await one.backend.behave(fault, torn=row.torn[0])
        done = await one.give(given, huge)
        # What is too large for the sink may be decided without its backend.
        one.check_kept(given, done, fails(row, fault) | {row.huge})
        assert done.content.body is huge.body or done.decision is Decision.ACCEPT


def test_every_builtin_sink_has_a_row() -> None:
    names = {path.stem for path in Path(lonedot.sinks.builtin.__path__[0]).glob("*.py")} - {"__init__"}
    subject = set()
    for name in sorted(names):
        module = importlib.import_module(f"lonedot.sinks.builtin.{name}")
        if module.__name__ in NOT_SUBJECT:
            continue
        for value in vars(module).values():
            sink = declared_by(value)
            if sink is not None and EVENTS[sink.event].shows is Shows.MESSAGE:
                subject.add(sink.name)
    has_row = {found.name for row in ROWS if (found := declared_by(row.sink)) is not None}
    assert not subject - has_row, "write tests/unit/sinks/builtin/rows/NAME.py for these"


def test_the_messages_are_told_apart_as_they_are_named() -> None:
    """The suite gives what it says: an 8-bit body is none of a header alone."""
    for given in MESSAGES:
        content = content_of(given)
        profile = content.body_measure.profile
        assert (given.name == "8-bit body") == (profile.eight_bit >= 0), given.name
        assert (given.name == "NUL") == (profile.nul >= 0), given.name


@sink("Careless")
async def careless(message: Message) -> Verdict:
    return Discard("its scanner is away")


async def test_the_suite_finds_what_loses_a_message(tmp_path: Path) -> None:
    async with through(Row("careless", careless), tmp_path) as one:
        done = await one.give(LETTER)
        with pytest.raises(AssertionError):
            one.check_kept(LETTER, done, Row("careless", careless).fails)


def _patient(row: Row) -> Row:
    """The same with time for 64 MiB on a busy machine."""
    return msgspec.structs.replace(row, deadline_seconds=120.0)
