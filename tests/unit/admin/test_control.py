"""The control socket: round trips, wrong input, strangers, streams, and who acts when the relay is down."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from lonedot.admin.client import ControlClient, LocalCaller, RelayDown, connect, reach
from lonedot.admin.control import ControlServer
from lonedot.admin.operations import EXPORT, HOLD, LIST, OCTETS, SHOW, STATUS, WHY, Desk
from lonedot.admin.values import (
    AdminError,
    ExportArguments,
    FileBegins,
    Form,
    HoldArguments,
    IdArguments,
    ListArguments,
    NoArguments,
    Octets,
    OctetsArguments,
)
from lonedot.admin.wire import MAX_REQUEST, socket_address
from lonedot.diagnosis.record import record_of
from lonedot.message.content import Content, MemoryBody
from lonedot.message.measure import measure
from lonedot.spool.interface import MessageState, SpoolLocked, SpoolPaths
from lonedot.terms.ids import MessageId
from tests.unit.admin.spool_double import DoubleSpool, FixedClock, Hooks
from tests.unit.diagnosis.stories import BEGAN, BODY, HEAD, content, stored, the_story

DONE = the_story().id
QUEUED = MessageId("1jkq0b0000000")
LARGE = MessageId("1jkq0c0000000")
LARGE_BODY = b"0123456789abcdef\r\n" * 60_000


def _desk(hooks: Hooks | None = None) -> Desk:
    large = Content(HEAD, MemoryBody(LARGE_BODY), measure(HEAD), measure(LARGE_BODY))
    spool = DoubleSpool(
        (the_story(), content()), (stored(id=QUEUED), content()), (stored(id=LARGE, ledger=()), large)
    )
    return Desk(spool, FixedClock(BEGAN + 10), hooks=hooks or Hooks(), since=BEGAN)


@asynccontextmanager
async def _serving(
    folder: Path, desk: Desk | None = None, uids: frozenset[int] | None = None, patience: float = 60.0
) -> AsyncIterator[SpoolPaths]:
    folder.mkdir(mode=0o700, exist_ok=True)
    paths = SpoolPaths(folder)
    server = ControlServer(
        desk or _desk(), paths.control, allowed_uids=uids, patience=patience, max_connections=2
    )
    await server.start()
    try:
        yield paths
    finally:
        await server.stop()


@asynccontextmanager
async def _talking(folder: Path, desk: Desk | None = None) -> AsyncIterator[ControlClient]:
    async with _serving(folder, desk) as paths:
        client = await connect(paths)
        try:
            yield client
        finally:
            await client.close()


async def _raw(paths: SpoolPaths, octets: bytes) -> list[dict[str, object]]:
    """What the server says to these octets until it closes."""
    reader, writer = await asyncio.open_unix_connection(str(paths.control))
    writer.write(octets)
    writer.write_eof()
    lines = (await reader.read()).splitlines()
    writer.close()
    return [json.loads(line) for line in lines]


class TestRoundTrip:
    async def test_answers_are_the_same_values(self, tmp_path: Path) -> None:
        async with _talking(tmp_path / "spool") as client:
            assert await client.call(SHOW, IdArguments(DONE)) == record_of(the_story())
            listing = await client.call(LIST, ListArguments(states=tuple(MessageState)))
            assert [row.id for row in listing.rows] == [DONE, QUEUED, LARGE]
            journey = await client.call(WHY, IdArguments(DONE))
            assert journey.suspects[0].binding == "XRecipientList (faulty)"
            status = await client.call(STATUS, NoArguments())
            assert status.running and status.pid == os.getpid()

    async def test_the_scheduler_hears_of_a_hold(self, tmp_path: Path) -> None:
        hooks = Hooks()
        async with _talking(tmp_path / "spool", _desk(hooks)) as client:
            changed = await client.call(HOLD, HoldArguments((QUEUED,), "by a test"))
        assert changed.done == (QUEUED,)
        assert hooks.forgotten == [QUEUED]

    async def test_an_error_comes_through_whole_and_the_conversation_goes_on(self, tmp_path: Path) -> None:
        async with _talking(tmp_path / "spool") as client:
            with pytest.raises(AdminError) as caught:
                await client.call(SHOW, IdArguments("1jkq0v0000000"))
            assert caught.value.problem.do
            assert (await client.call(STATUS, NoArguments())).running

    async def test_octets_come_in_pieces(self, tmp_path: Path) -> None:
        async with _talking(tmp_path / "spool") as client:
            pieces = [piece async for piece in client.stream(OCTETS, OctetsArguments(LARGE, Form.ARRIVAL))]
            chunks = [piece.octets for piece in pieces if isinstance(piece, Octets)]
            assert len(chunks) > 2
            assert b"".join(chunks) == HEAD + LARGE_BODY
            small = [piece async for piece in client.stream(OCTETS, OctetsArguments(DONE, Form.ARRIVAL))]
            assert b"".join(p.octets for p in small if isinstance(p, Octets)) == HEAD + BODY

    async def test_export_names_the_files(self, tmp_path: Path) -> None:
        async with _talking(tmp_path / "spool") as client:
            pieces = [piece async for piece in client.stream(EXPORT, ExportArguments((QUEUED,)))]
        names = [piece.name for piece in pieces if isinstance(piece, FileBegins)]
        assert names == [f"{QUEUED}.{kind}" for kind in ("json", "message", "eml")]

    async def test_an_error_before_the_first_piece(self, tmp_path: Path) -> None:
        async with _talking(tmp_path / "spool") as client:
            with pytest.raises(AdminError, match="nothing of it was sent"):
                _ = [p async for p in client.stream(OCTETS, OctetsArguments(QUEUED, Form.SENT))]
            assert (await client.call(STATUS, NoArguments())).running


class TestWrongInput:
    @pytest.mark.parametrize(
        "line",
        [
            b"\n",
            b"not json\n",
            b"[]\n",
            b'{"do": 1}\n',
            b'{"do": "list", "with": {"limit": "many"}}\n',
            b'{"do": "list", "with": {"unknown": 1}}\n',
            b'{"do": "list", "more": 1}\n',
            b'{"do": "show"}\n',
            b'{"do": "\xff"}\n',
            b'{"do": "octets", "with": {"id": "x", "form": "nonsense"}}\n',
            b'{"do": "rm -rf"}\n',
        ],
    )
    async def test_is_answered_by_an_error_and_the_next_request_is_served(
        self, tmp_path: Path, line: bytes
    ) -> None:
        async with _serving(tmp_path / "spool") as paths:
            hello, error, answer = await _raw(paths, line + b'{"do": "status"}\n')
        assert "hello" in hello
        assert set(error) == {"error"}
        assert "answer" in answer

    async def test_too_large(self, tmp_path: Path) -> None:
        async with _serving(tmp_path / "spool") as paths:
            _, error = await _raw(paths, b"x" * (MAX_REQUEST + 2))
        assert "longer than" in str(error)

    async def test_our_own_side_does_not_send_what_is_too_large(self, tmp_path: Path) -> None:
        async with _talking(tmp_path / "spool") as client:
            with pytest.raises(AdminError, match="too much at once"):
                await client.call(HOLD, HoldArguments((QUEUED,), "x" * MAX_REQUEST))
            assert (await client.call(STATUS, NoArguments())).running

    async def test_a_line_without_an_end_is_no_request(self, tmp_path: Path) -> None:
        async with _serving(tmp_path / "spool") as paths:
            assert len(await _raw(paths, b'{"do": "status"}')) == 1

    async def test_a_silent_peer_is_let_go(self, tmp_path: Path) -> None:
        async with _serving(tmp_path / "spool", patience=0.01) as paths:
            reader, writer = await asyncio.open_unix_connection(str(paths.control))
            assert len((await reader.read()).splitlines()) == 1
            writer.close()

    async def test_a_fault_of_the_relay_is_an_answer(self, tmp_path: Path) -> None:
        class Broken(DoubleSpool):
            def counts(self) -> dict[MessageState, int]:
                raise RuntimeError("boom")

        async with _serving(tmp_path / "spool", Desk(Broken(), FixedClock(BEGAN))) as paths:
            _, error = await _raw(paths, b'{"do": "status"}\n')
        assert "RuntimeError: boom" in str(error)


class TestWhoMayAsk:
    async def test_another_user_is_refused(self, tmp_path: Path) -> None:
        async with _serving(tmp_path / "spool", uids=frozenset({os.geteuid() + 12345})) as paths:
            with pytest.raises(AdminError, match=f"user {os.geteuid()} may not control"):
                await connect(paths)
            assert [set(line) for line in await _raw(paths, b"")] == [{"error"}]

    async def test_the_socket_is_for_its_owner_alone(self, tmp_path: Path) -> None:
        async with _serving(tmp_path / "spool") as paths:
            assert stat.S_IMODE(paths.control.stat().st_mode) == 0o600

    async def test_a_folder_that_others_may_write_to_is_refused(self, tmp_path: Path) -> None:
        folder = tmp_path / "open"
        folder.mkdir()
        folder.chmod(0o770)
        with pytest.raises(AdminError, match="others may write"):
            await ControlServer(_desk(), folder / "control.sock").start()

    async def test_too_many_connections(self, tmp_path: Path) -> None:
        async with _serving(tmp_path / "spool") as paths:
            first, second = await connect(paths), await connect(paths)
            with pytest.raises(AdminError, match="too many connections"):
                await connect(paths)
            await first.close()
            assert (await second.call(STATUS, NoArguments())).running
            await second.close()


class TestPlace:
    async def test_a_dead_relays_socket_is_replaced_and_removed_at_the_end(self, tmp_path: Path) -> None:
        path = tmp_path / "control.sock"
        left_over = socket.socket(socket.AF_UNIX)
        left_over.bind(str(path))
        left_over.close()
        async with _serving(tmp_path):
            assert path.is_socket()
        assert not path.exists()

    async def test_a_file_in_its_place_is_not_removed(self, tmp_path: Path) -> None:
        path = tmp_path / "control.sock"
        path.write_text("precious")
        with pytest.raises(AdminError, match="not a socket"):
            await ControlServer(_desk(), path).start()
        assert path.read_text() == "precious"

    async def test_a_path_too_long_for_a_socket(self, tmp_path: Path) -> None:
        folder = tmp_path / ("long" * 20) / ("longer" * 10)
        folder.mkdir(parents=True)
        async with _talking(folder) as client:
            assert (await client.call(STATUS, NoArguments())).running

    def test_a_short_path_is_taken_as_it_is(self, tmp_path: Path) -> None:
        with socket_address(Path("/run/lonedot/control.sock")) as address:
            assert address == "/run/lonedot/control.sock"

    async def test_stop_ends_conversations(self, tmp_path: Path) -> None:
        async with _serving(tmp_path) as paths:
            client = await connect(paths)
        with pytest.raises(AdminError, match="closed the connection"):
            await client.call(STATUS, NoArguments())
        await client.close()


class TestReach:
    async def test_the_running_relay_is_asked(self, tmp_path: Path) -> None:
        async def never() -> Desk:
            raise AssertionError("the relay runs: the spool is not opened")

        async with _serving(tmp_path) as paths, reach(paths, never) as caller:
            assert (await caller.call(STATUS, NoArguments())).running

    async def test_with_the_relay_down_the_spool_is_opened_and_closed(self, tmp_path: Path) -> None:
        spool = DoubleSpool((the_story(), content()))

        async def opened() -> Desk:
            return Desk(spool, FixedClock(BEGAN))

        async with reach(SpoolPaths(tmp_path), opened) as caller:
            assert isinstance(caller, LocalCaller)
            assert not (await caller.call(STATUS, NoArguments())).running
        assert spool.is_closed

    async def test_a_socket_that_nobody_serves_counts_as_down(self, tmp_path: Path) -> None:
        left_over = socket.socket(socket.AF_UNIX)
        left_over.bind(str(tmp_path / "control.sock"))
        left_over.close()
        with pytest.raises(RelayDown):
            await connect(SpoolPaths(tmp_path))

    async def test_locked_and_no_socket_is_an_error(self, tmp_path: Path) -> None:
        async def locked() -> Desk:
            raise SpoolLocked("process 4711")

        with pytest.raises(AdminError, match="process 4711"):
            async with reach(SpoolPaths(tmp_path), locked):
                pytest.fail("nothing to work with")

    async def test_a_relay_that_says_nothing_is_an_error(self, tmp_path: Path) -> None:
        silent = socket.socket(socket.AF_UNIX)
        silent.bind(str(tmp_path / "control.sock"))
        silent.listen(1)
        with pytest.raises(AdminError, match="does not answer"):
            await connect(SpoolPaths(tmp_path), patience=0.01)
        silent.close()

    async def test_no_spool_at_all(self, tmp_path: Path) -> None:
        async def never() -> Desk:
            raise AssertionError

        with pytest.raises(AdminError, match="there is no spool"):
            async with reach(SpoolPaths(tmp_path / "none"), never):
                pytest.fail("nothing to work with")


def test_every_answer_survives_json() -> None:
    record = record_of(the_story())
    assert msgspec.json.decode(msgspec.json.encode(record), type=type(record)) == record
