"""kill -9 while a standing rule is made: either there is none and nothing is held, or it is there and, when the spool
is next opened, all that it is about is held. Short in CI; `./dev crash` runs the long form.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from pathlib import Path

from lonedot.observability.clock import SystemClock
from lonedot.spool.interface import Filter, MessageState, SpoolPaths
from lonedot.spool.sqlite import Policy, SqliteSpool, open_spool
from lonedot.terms.ids import IdSource
from lonedot.testing.messages import acceptance

LONG = os.environ.get("LONEDOT_CRASH") == "long"
SEED = int(os.environ.get("LONEDOT_SEED", "1"))
KILLS = 60 if LONG else 8
MESSAGES = 3000
BEGAN = 1_700_000_000.0


def _open(folder: Path) -> SqliteSpool:
    return open_spool(SpoolPaths(folder), SystemClock(), Policy(inline_sync=True))


async def _fill(folder: Path) -> None:
    spool = _open(folder)
    ids = IdSource()
    for start in range(0, MESSAGES, 200):
        addresses = ("a@example.org", "b@example.net")
        await spool.accept(
            [
                acceptance(ids.next(BEGAN), BEGAN, recipients=(addresses[number % 2],))
                for number in range(start, start + 200)
            ]
        )
    await spool.close()


async def _look(folder: Path) -> tuple[int, int]:
    """Rules in force, and messages held; then all is as before."""
    spool = _open(folder)
    held = await spool.select(Filter(states=(MessageState.HELD,), limit=MESSAGES))
    rules = spool.rules()
    assert all(spool.show(id).reason == rules.rules[0].words for id in held[:3])
    await spool.release(held, BEGAN)
    spool.write_rules(type(rules)(rules.newest))
    await spool.close()
    return len(rules.rules), len(held)


def _hold(folder: Path) -> subprocess.Popen[bytes]:
    command = (
        sys.executable,
        "-m",
        "lonedot",
        "queue",
        "hold",
        "--rule",
        "to=*@example.org",
        "--spool",
        str(folder),
    )
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_a_rule_is_made_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    asyncio.run(_fill(folder))
    began = time.monotonic()
    assert _hold(folder).wait(120) == 0
    took = time.monotonic() - began
    assert asyncio.run(_look(folder)) == (1, MESSAGES // 2)
    chance = random.Random(SEED)
    seen = set()
    for _ in range(KILLS):
        process = _hold(folder)
        try:
            process.wait(took * chance.uniform(0.3, 1.1))
        except subprocess.TimeoutExpired:
            process.kill()
        process.wait()
        rules, held = asyncio.run(_look(folder))
        assert held == (MESSAGES // 2 if rules else 0), (rules, held, SEED)
        seen.add(rules)
    assert seen
