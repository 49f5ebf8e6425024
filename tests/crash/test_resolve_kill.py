"""kill -9 at each step of a message to lists and an alias: each copy reaches whom it is for once, and nobody else."""

from __future__ import annotations

import signal
import smtplib
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from lonedot.spool.sqlite import CONTENT_LIMIT
from lonedot.terms.ids import id_from_number
from lonedot.testing.process import SERVE, RelayProcess
from tests.crash import resolve_points
from tests.crash.load import ask
from tests.crash.resolve_points import ResolvePoint
from tests.crash.transport_points import TransportPoint
from tests.peers.strict_sink import StrictSink
from tests.system.talk import MESSAGE, PATIENCE, first_config

DOMAIN = """
[[domain]]
name = "local.example"
aliases = "aliases"
lists = "lists.toml"
"""
ALIASES = "chief: anna, far@away.example\njoe: joe, anna\n"
LISTS = """
[lists.staff]
owner = "owner@away.example"
members = ["anna", "blind@away.example", "crew"]
post = "anyone"
[lists.crew]
owner = "bosun@away.example"
members = ["bert", "joe"]
"""
EXPECTED = {
    b"c@office.example": ["anna@local.example", "far@away.example", "bert@local.example"],
    b"owner@away.example": ["anna@local.example", "blind@away.example"],
    b"bosun@away.example": ["bert@local.example", "joe@local.example", "anna@local.example"],
    b"": ["c@office.example"],
}
"""By reverse-path; the last is the report that the list was reached."""
LARGE = MESSAGE + (b"x" * 70 + b"\r\n") * (CONTENT_LIMIT // 60)
POINTS = [
    *((point.value, "small") for point in TransportPoint),
    *((f"{point.value}:{number}", "in a file") for point in ResolvePoint for number in (1, 2)),
    (TransportPoint.HANDED_IN.value, "in a file"),
    (TransportPoint.COMMITTED.value, "in a file"),
]


def drained(folder: Path) -> None:
    database = folder / "spool" / "shards" / "0" / "queue.db"
    deadline = time.monotonic() + PATIENCE
    while left := ask(database, "SELECT id, state, reason FROM message WHERE state <> 'finished'"):
        assert time.monotonic() < deadline, left
        threading.Event().wait(0.02)


@pytest.mark.parametrize(("point", "size"), POINTS)
def test_each_step(tmp_path: Path, point: str, size: str) -> None:
    (tmp_path / "aliases").write_text(ALIASES)
    (tmp_path / "lists.toml").write_text(LISTS)
    wanted = point if ":" in point else f"{point}:1"
    with StrictSink() as hop:
        relay = RelayProcess(
            tmp_path,
            first_config(hop.port, more=DOMAIN),
            {resolve_points.POINT: wanted},
            program=("-m", resolve_points.__name__),
        )
        relay.start()
        try:
            with smtplib.SMTP("127.0.0.1", relay.ports["in"], timeout=PATIENCE) as client:
                client.ehlo()
                client.mail("c@office.example")
                client.rcpt("staff@local.example", ["NOTIFY=SUCCESS"])
                client.rcpt("chief@local.example", ["NOTIFY=FAILURE"])
                client.rcpt("bert@local.example", ["NOTIFY=FAILURE"])
                assert client.data(LARGE if size == "in a file" else MESSAGE)[0] == 250
                assert relay.wait(PATIENCE) == -signal.SIGKILL
            assert hop.arrivals == []
            relay.program, relay.environment = SERVE, {}
            relay.start()
            drained(tmp_path)
            assert relay.stop() == 0
        finally:
            relay.kill()
    found = Counter(
        (arrival.reverse_path, recipient.decode())
        for arrival in hop.arrivals
        for recipient in arrival.recipients
    )
    assert found == Counter((path, recipient) for path, people in EXPECTED.items() for recipient in people)
    (report,) = [arrival.content for arrival in hop.arrivals if not arrival.reverse_path]
    for hidden in (b"anna@local", b"blind", b"bert", b"joe", b"crew", b"owner@", b"bosun", b"far@"):
        assert hidden not in report
    shard = tmp_path / "spool" / "shards" / "0"
    # A file of a finished message may stay until the next opening: another process removes it.
    known = {
        id_from_number(int(str(number))) for (number,) in ask(shard / "queue.db", "SELECT id FROM message")
    }
    left = {path.stem for path in (shard / "bodies").rglob("*") if path.is_file()}
    assert left <= known, "the file of a copy that was not made"
