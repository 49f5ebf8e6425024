"""Several workers as one relay: who is asked, how answers are put together, and what is said of one that is gone."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from lonedot.admin import control
from lonedot.admin.client import Caller, RelayDown, whole_relay
from lonedot.admin.control import ControlServer
from lonedot.admin.fleet import NO_SUCH_MESSAGE, WAYS, Fleet
from lonedot.admin.operations import EXPORT, HOLD, LIST, OCTETS, SELECT, SHOW, STATUS, Desk
from lonedot.admin.sinks_operations import BINDINGS
from lonedot.admin.values import (
    AdminError,
    ExportArguments,
    FileBegins,
    Form,
    HoldArguments,
    IdArguments,
    ListArguments,
    NoArguments,
    OctetsArguments,
)
from lonedot.admin.wire import Hello
from lonedot.spool.interface import MessageState, SpoolPaths
from lonedot.terms.ids import IdSource, MessageId
from tests.unit.admin.spool_double import DoubleSpool, FixedClock, Hooks
from tests.unit.diagnosis.stories import BEGAN, content, stored

HERE = MessageId(IdSource(0).next(BEGAN))
THERE = MessageId(IdSource(1).next(BEGAN + 1))
STRAYED = MessageId(IdSource(0).next(BEGAN + 2))
"""Its id says the first shard; it lies in the second."""
NOWHERE = MessageId(IdSource(1).next(BEGAN + 3))


def _desk(*ids: MessageId) -> Desk:
    spool = DoubleSpool(*[(stored(id=id), content()) for id in ids])
    return Desk(spool, FixedClock(BEGAN + 10), hooks=Hooks(), since=BEGAN)


@asynccontextmanager
async def relay(folder: Path, running: Sequence[int] = (0, 1)) -> AsyncIterator[Caller]:
    """Two workers, of which those run that are named."""
    folder.mkdir(mode=0o700, exist_ok=True)
    paths = SpoolPaths(folder)
    desks = {0: _desk(HERE), 1: _desk(THERE, STRAYED)}
    async with AsyncExitStack() as stack:
        for number in running:
            hello = Hello("1", os.getpid(), number, 2, (number,))
            server = ControlServer(desks[number], paths.control_of(number), hello=hello)
            await server.start()
            stack.push_async_callback(server.stop)
        yield await stack.enter_async_context(whole_relay(paths))


def test_every_operation_has_its_way() -> None:
    assert set(WAYS) == {*control._ANSWERS, *control._STREAMS}


async def test_listings_are_one(tmp_path: Path) -> None:
    async with relay(tmp_path / "spool") as caller:
        assert isinstance(caller, Fleet)
        listing = await caller.call(LIST, ListArguments())
        assert [row.id for row in listing.rows] == [HERE, THERE, STRAYED]
        assert listing.counts["queued"] == 3
        chosen = await caller.call(SELECT, ListArguments(limit=2))
        assert chosen.ids == (STRAYED, THERE) and chosen.cut
        status = await caller.call(STATUS, NoArguments())
        assert status.counts["queued"] == 3 and status.running
        assert caller.missing == ()


async def test_who_has_a_message_is_asked_for_it(tmp_path: Path) -> None:
    async with relay(tmp_path / "spool") as caller:
        for id in (HERE, THERE, STRAYED, STRAYED[5:]):
            assert (await caller.call(SHOW, IdArguments(id))).id == (STRAYED if id in STRAYED else id)
        pieces = [
            piece
            async for piece in caller.stream(OCTETS, OctetsArguments(STRAYED, Form.ARRIVAL))
            if isinstance(piece, FileBegins)
        ]
        assert [piece.name for piece in pieces] == [f"{STRAYED}.arrival"]
        with pytest.raises(AdminError, match="there is no message"):
            await caller.call(SHOW, IdArguments(NOWHERE))
        with pytest.raises(AdminError, match="may mean"):
            await caller.call(SHOW, IdArguments(HERE[:5]))


async def test_each_changes_what_it_has(tmp_path: Path) -> None:
    async with relay(tmp_path / "spool") as caller:
        changed = await caller.call(HOLD, HoldArguments((THERE, NOWHERE, STRAYED[5:], HERE, THERE)))
        assert changed.done == (THERE, STRAYED, HERE)
        assert [(one.id, one.why) for one in changed.left] == [(NOWHERE, NO_SUCH_MESSAGE)]
        listing = await caller.call(LIST, ListArguments(states=(MessageState.HELD,)))
        assert {row.id for row in listing.rows} == {HERE, THERE, STRAYED}


async def test_an_export_goes_through_all(tmp_path: Path) -> None:
    async with relay(tmp_path / "spool") as caller:
        for arguments, wanted in (
            (ExportArguments(), {HERE, THERE, STRAYED}),
            (ExportArguments(ids=(STRAYED, HERE)), {STRAYED, HERE}),
        ):
            names = [
                piece.name
                async for piece in caller.stream(EXPORT, arguments)
                if isinstance(piece, FileBegins)
            ]
            assert {name.partition(".")[0] for name in names} == wanted


async def test_one_that_is_gone_is_named_and_the_others_answer(tmp_path: Path) -> None:
    async with relay(tmp_path / "spool", running=(1,)) as caller:
        assert caller.missing == ("worker 0 does not answer (it does not run)",)
        listing = await caller.call(LIST, ListArguments())
        assert [row.id for row in listing.rows] == [THERE, STRAYED]
        with pytest.raises(AdminError, match="the first worker"):
            await caller.call(BINDINGS, NoArguments())
        with pytest.raises(AdminError, match=f"worker 0, which has {HERE}, does not answer"):
            await caller.call(SHOW, IdArguments(HERE))
        changed = await caller.call(HOLD, HoldArguments((HERE, THERE)))
        assert changed.done == (THERE,)
        assert changed.left[0].why == "worker 0, which has it, does not answer"


async def test_nobody_answers(tmp_path: Path) -> None:
    with pytest.raises(RelayDown):
        async with relay(tmp_path / "spool", running=()):
            pass
