"""A person sees next hops by the command line, and the advice it gives can be followed."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path

import pytest

from lonedot.admin.hops import Hops
from lonedot.cli import run
from lonedot.terms.ids import MessageId
from lonedot.testing.relay import running_relay
from tests.system.talk import MESSAGE, eventually, finished, first_config, submit
from tests.unit.delivery.peer import Peer, running

ADVICE = "→ lonedot "


def _dead_port() -> socket.socket:
    """A port of loopback that refuses connections as long as this is open."""
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    return taken


async def _asked(folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    code = await asyncio.to_thread(run, [*arguments, "--spool", str(folder / "spool")])
    assert code == 0
    return capsys.readouterr().out


def _config(dead: int, alive: int) -> str:
    """A route to a host that refuses, before the one that the first configuration has."""
    toml = first_config(alive)
    refuses = f'[[route]]\nname = "dead letters"\nto = "dead.example"\nsmarthost = "127.0.0.1:{dead}"\ntls = "off"\n\n'
    return toml.replace("[[route]]", refuses + "[[route]]", 1)


async def test_next_hops_with_the_relay_running_and_down(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with _dead_port() as dead:
        port = dead.getsockname()[1]
        async with running(Peer()) as peer, running_relay(tmp_path, _config(port, peer.port)) as relay:
            ids: list[MessageId] = [await submit(relay, MESSAGE, f"{n}@dead.example") for n in range(3)]
            await finished(relay, await submit(relay, MESSAGE, "a@alive.example"))
            await eventually(lambda: relay.spool.count_lane("dead letters") == 3)
            first, second = json.loads(await _asked(tmp_path, capsys, "queue", "hops", "--json"))["hops"]
            assert (first["route"], first["state"], first["parked"]) == ("dead letters", "backing off", 3)
            assert first["next_try_at"] > relay.clock.now()
            assert "onnection refused" in first["reason"]
            assert (second["route"], second["state"], second["failures"]) == ("out", "open", 0)

            lines = (await _asked(tmp_path, capsys, "queue", "hops")).splitlines()
            assert lines[0].startswith("dead letters: backing off, next try in ")
            assert lines[0].endswith("waiting: 0 in memory, 3 in the spool")
            advice = [line.partition(ADVICE)[2] for line in lines if ADVICE in line]
            assert advice == [
                "queue retry --route 'dead letters'",
                "queue list --route 'dead letters'",
            ]
            listed = await _asked(tmp_path, capsys, "queue", "list", "--route", "dead letters", "--json")
            assert [row["id"] for row in json.loads(listed)["rows"]] == ids

        down = json.loads(await _asked(tmp_path, capsys, "queue", "hops", "--json"))
        (hop,) = down["hops"]
        assert (down["running"], hop["route"], hop["state"], hop["parked"]) == (
            False,
            "dead letters",
            "unknown",
            3,
        )
        assert "onnection refused" in hop["reason"]
        assert "The relay is down." in await _asked(tmp_path, capsys, "queue", "hops")


async def test_nothing_waits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with running_relay(tmp_path, first_config(1)):
        assert (await _asked(tmp_path, capsys, "queue", "hops")) == "Nothing waits for a next hop.\n"
        empty = await _asked(tmp_path, capsys, "queue", "hops", "--json")
        assert not Hops(**json.loads(empty)).hops
    assert await _asked(tmp_path, capsys, "queue", "hops") == "No message is set aside for a next hop.\n"
