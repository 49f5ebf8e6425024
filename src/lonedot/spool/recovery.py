"""What is put right when a shard is opened: `docs/spool-states.md` column by column.

Runs in one transaction, before anybody else has the connection. Nothing that was promised is removed.
"""

from __future__ import annotations

from pathlib import Path

import apsw
import msgspec

from lonedot.spool import schema
from lonedot.spool.bodies import Bodies
from lonedot.spool.flight import Flight
from lonedot.terms.ids import id_from_number

__all__ = ["DEATHS_LIMIT", "Recovered", "recover"]

DEATHS_LIMIT = 3
POISON = "in flight at three deaths of the relay"


class Recovered(msgspec.Struct, frozen=True):
    """What was found at opening."""

    claims_ended: int = 0
    in_flight: int = 0
    held: int = 0
    """Held now because of their third death."""
    damaged: int = 0
    orphans: tuple[Path, ...] = ()
    """Body files that no row names. They are removed only when what was found is durable."""


def recover(connection: apsw.Connection, bodies: Bodies, flight: Flight) -> Recovered:
    """Raises apsw.Error or OSError."""
    left_behind = flight.left_behind()
    with connection:
        held = _count_deaths(connection, left_behind)
        connection.execute("UPDATE message SET owner = NULL WHERE state <> 'finished' AND owner IS NOT NULL")
        ended = connection.changes()
        named, damaged = _check_body_files(connection, bodies)
        connection.execute(schema.PROGRESS_STEP)
    return Recovered(ended, len(left_behind), held, damaged, tuple(bodies.orphans(named)))


def _count_deaths(connection: apsw.Connection, numbers: list[int]) -> int:
    connection.executemany(
        "UPDATE message SET deaths = deaths + 1 WHERE id = ? AND state = 'queued'",
        [(number,) for number in numbers],
    )
    connection.executemany(
        "UPDATE message SET state = 'held', reason = ? WHERE id = ? AND state = 'queued' AND deaths >= ?",
        [(POISON, number, DEATHS_LIMIT) for number in numbers],
    )
    if not numbers:
        return 0
    marks = ", ".join("?" * len(numbers))
    ((held,),) = schema.query(
        connection,
        f"SELECT count(*) FROM message WHERE state = 'held' AND reason = ? AND id IN ({marks})",  # noqa: S608
        (POISON, *numbers),
    )
    return int(held)


def _check_body_files(connection: apsw.Connection, bodies: Bodies) -> tuple[set[str], int]:
    """Ids that name a body file, and how many live ones had none, or another than was stored."""
    named: set[str] = set()
    damaged = 0
    found = schema.query(
        connection,
        "SELECT c.message, c.size, m.state FROM content c JOIN message m ON m.id = c.message WHERE c.file = 1",
    )
    for number, size, state in found:
        id = id_from_number(number)
        named.add(id)
        if state == "finished":
            continue
        words = _missing(bodies.path(id), size)
        if words:
            connection.execute(
                "UPDATE message SET state = 'damaged', reason = ? WHERE id = ?", (words, number)
            )
            damaged += 1
    return named, damaged


def _missing(path: Path, size: int) -> str:
    try:
        there = path.stat().st_size
    except FileNotFoundError:
        return f"the body file {path} is missing"
    return "" if there == size else f"the body file {path} has {there} octets, {size} were stored"
