"""kill -9 at each step of a message whose addresses are written anew: all leave under their new names, each once."""

from __future__ import annotations

import signal
import smtplib
import threading
import time
from pathlib import Path

import pytest

from lonedot.testing.process import SERVE, RelayProcess
from tests.crash import transport_points
from tests.crash.load import ask
from tests.crash.transport_points import TransportPoint
from tests.peers.strict_sink import StrictSink
from tests.system.talk import MESSAGE, PATIENCE, first_config

REWRITE = """
[[rewrite]]
from = "*@old.example"
to = "*@old.example"
into = "*@new.example"
[[rewrite]]
to = "*@new.example"
into = "*@never.example"
[[domain]]
name = "new.example"
aliases = "aliases"
"""


@pytest.mark.parametrize("point", list(TransportPoint), ids=lambda point: point.value)
def test_each_step(tmp_path: Path, point: TransportPoint) -> None:
    (tmp_path / "aliases").write_text("chief: anna, far@away.example\n")
    with StrictSink() as hop:
        relay = RelayProcess(
            tmp_path,
            first_config(hop.port, more=REWRITE),
            program=(str(Path(transport_points.__file__)),),
        )
        relay.environment = {transport_points.POINT: f"{point.value}:1"}
        relay.start()
        try:
            with smtplib.SMTP("127.0.0.1", relay.ports["in"], timeout=PATIENCE) as client:
                to = ["joe@old.example", "chief@old.example", "x@away.example"]
                client.sendmail("c@old.example", to, MESSAGE)
            assert relay.wait(PATIENCE) == -signal.SIGKILL
            assert hop.arrivals == []
            relay.program, relay.environment = SERVE, {}
            relay.start()
            database = tmp_path / "spool" / "shards" / "0" / "queue.db"
            deadline = time.monotonic() + PATIENCE
            while ask(database, "SELECT id FROM message WHERE state <> 'finished'"):
                assert time.monotonic() < deadline
                threading.Event().wait(0.02)
        finally:
            relay.kill()
    assert {arrival.reverse_path for arrival in hop.arrivals} == {b"c@new.example"}
    assert sorted(recipient for arrival in hop.arrivals for recipient in arrival.recipients) == [
        b"anna@new.example",
        b"far@away.example",
        b"joe@new.example",
        b"x@away.example",
    ]
