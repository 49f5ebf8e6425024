"""kill -9 of the whole relay under load, again and again, at moments that nobody chose: nothing that was answered 250
is lost, and nothing is left half done. Without a parent, under one that starts the relay again, and with two workers.

The relay is the command itself, with nothing wrapped: what `test_kill_points` proves step by step is tried here as a
whole. A message arrives twice when the relay died between the next hop's 250 and its own record of it; which messages
those are nobody can say from outside, so duplicates are counted and bounded by what can be on its way at a kill.
Short in CI; `./dev crash` runs the long form.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from lonedot.testing.process import SERVE, SUPERVISED, RelayProcess
from lonedot.testing.relay import CONFIG
from tests.crash.load import Load, NextHop, drain, judge, shards

LONG = os.environ.get("LONEDOT_CRASH") == "long"
SEED = int(os.environ.get("LONEDOT_SEED", "1"))
KILLS = 60 if LONG else 6
CLIENTS = 8
CONNECTIONS = 4


def restart(relay: RelayProcess, chance: random.Random) -> None:
    """Without a parent."""
    relay.kill()
    relay.start()


def restart_under_parent(relay: RelayProcess, chance: random.Random) -> None:
    """Mostly the worker is killed, and the parent starts it again; or the parent is; or both are."""
    whom = chance.choice(["worker", "worker", "parent", "both"])
    starts, worker = relay.starts, relay.worker
    if whom != "parent":
        os.kill(worker, signal.SIGKILL)
    if whom == "worker":
        relay.wait_for_start(starts + 1)
        return
    relay.kill()  # the worker, where it lives, stops in order: nobody else has the spool when this returns
    relay.start()


def restart_any(relay: RelayProcess, chance: random.Random) -> None:
    """Any process of a relay with two workers: a worker, one that syncs or has sinks, the parent, or all of them."""
    whom = chance.choice(["worker", "worker", "helper", "parent", "all"])
    workers = relay.workers
    match whom:
        case "worker":
            number = chance.choice(sorted(workers))
            starts = relay.starts
            os.kill(workers[number], signal.SIGKILL)
            if number == 0:
                relay.wait_for_start(starts + 1)
        case "helper":
            helpers = [pid for worker in workers.values() for pid in children_of(worker)]
            if helpers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(chance.choice(helpers), signal.SIGKILL)
        case _:
            for pid in workers.values() if whom == "all" else ():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            relay.kill()
            relay.start()


def children_of(pid: int) -> list[int]:
    try:
        words = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return []
    return [int(word) for line in words for word in line.split()]


def test_nothing_accepted_is_lost(tmp_path: Path) -> None:
    survive(tmp_path, SERVE, restart)


def test_nothing_accepted_is_lost_under_a_parent(tmp_path: Path) -> None:
    survive(tmp_path, SUPERVISED, restart_under_parent)


def test_nothing_accepted_is_lost_with_two_workers(tmp_path: Path) -> None:
    survive(tmp_path, SUPERVISED, restart_any, server="workers = 2")
    assert [shard.name for shard in shards(tmp_path)] == ["0", "1"]


def survive(
    folder: Path,
    program: Sequence[str],
    restart: Callable[[RelayProcess, random.Random], None],
    server: str = "workers = 1",
) -> None:
    """Mail flows, the relay is killed again and again, and nothing is lost."""
    chance = random.Random(SEED)
    with NextHop() as hop:
        toml = CONFIG.format(server=server, listener="", route=f"connections = {CONNECTIONS}", port=hop.port)
        hostname = f"relay-{os.getpid()}.example.com"  # a port may pass to the relay of another test
        relay = RelayProcess(folder, toml.replace("relay.example.com", hostname), program=program)
        load = Load(hop, hostname, SEED, clients=CLIENTS, too_large=0.02)
        try:
            relay.start()
            load.point_at(relay.ports["in"])
            load.start(relay.folder / "spool" / "pickup")
            for _ in range(KILLS):
                load.wait_for(chance.randint(1, 300), seconds=20)  # by work done: the machine may be slow
                threading.Event().wait(chance.uniform(0, 0.02))
                load.point_at(0)
                restart(relay, chance)
                load.point_at(relay.ports["in"])
            load.wait_for(50, seconds=20)
            load.stop()
            released = drain(relay, relay.folder / "spool" / "pickup")
            relay.stop()
        finally:
            load.stop()
            relay.kill()
    # A kill inside DATA is seen as a message that never ended, which is just what it must look like.
    assert [fault for fault in hop.faults if not fault.startswith("closed inside")] == []
    verdict = judge(relay.folder, load, hop)
    duplicates = sum(verdict.duplicates.values())
    print(
        f"{KILLS} kills: {len(load.answered)} accepted, {verdict.messages} in the history, {duplicates} duplicates, "
        f"{verdict.unanswered} kept whose 250 was lost with the connection, {len(released)} held as poison"
    )
    # Each kill can catch every connection between the next hop's 250 and our record of it, and what waited for
    # the commit that the kill prevented.
    assert duplicates <= KILLS * CONNECTIONS * 4
    assert len(load.answered) >= KILLS
