"""kill -9 of the whole relay under load, again and again: nothing that was answered 250 is lost.

Duplicates are counted and explained: a message is sent again only when the relay died between the next hop's 250 and
its own record of it, so there are at most as many as attempts were on the wire at the kills. Short in CI;
`./dev crash` runs the long form.
"""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

from lonedot.testing.process import RelayProcess
from lonedot.testing.relay import CONFIG
from tests.peers.strict_sink import StrictSink

LONG = os.environ.get("LONEDOT_CRASH") == "long"
KILLS = 60 if LONG else 6
CLIENTS = 8
CONNECTIONS = 4
SMALL = b"x" * 60 + b"\r\n"


class Load:
    """Clients that send numbered messages and remember which were answered 250."""

    def __init__(self, seed: int) -> None:
        self.port = 0
        self.accepted: list[str] = []
        self.asked = 0
        self._random = random.Random(seed)  # repeatable, nothing secret
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(CLIENTS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def _run(self, number: int) -> None:
        count = 0
        while not self._stop.is_set():
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=10) as line:
                    reader = line.makefile("rb")
                    self._expect(reader.readline(), b"220")
                    line.sendall(b"EHLO load\r\n")
                    while reader.readline()[3:4] == b"-":
                        pass
                    while not self._stop.is_set():
                        count += 1
                        name = f"{number}-{count}"
                        large = self._random.random() < 0.1
                        octets = SMALL * (3000 if large else 20)
                        with self._lock:
                            self.asked += 1
                        line.sendall(b"MAIL FROM:<load@a.example>\r\nRCPT TO:<x@b.example>\r\nDATA\r\n")
                        for code in (b"250", b"250", b"354"):
                            self._expect(reader.readline(), code)
                        line.sendall(
                            f"From: load@a.example\r\nX-Name: {name}\r\n\r\n".encode() + octets + b".\r\n"
                        )
                        self._expect(reader.readline(), b"250")
                        with self._lock:
                            self.accepted.append(name)
            except (OSError, ConnectionError):
                self._stop.wait(0.02)

    @staticmethod
    def _expect(line: bytes, code: bytes) -> None:
        if not line.startswith(code):
            raise ConnectionError(line.decode("latin-1"))


def names(sink: StrictSink) -> Counter[str]:
    found: Counter[str] = Counter()
    for arrival in list(sink.arrivals):
        head = arrival.wire.partition(b"\r\n\r\n")[0]
        place = head.index(b"X-Name: ") + 8
        found[head[place:].split(b"\r\n")[0].decode()] += 1
    return found


def test_nothing_accepted_is_lost(tmp_path: Path) -> None:
    seed = int(os.environ.get("LONEDOT_SEED", "1"))
    chance = random.Random(seed)
    with StrictSink() as sink:
        toml = CONFIG.format(server="", listener="", route=f"connections = {CONNECTIONS}", port=sink.port)
        relay = RelayProcess(tmp_path, toml)
        load = Load(seed)
        kills = 0
        try:
            relay.start()
            load.port = relay.ports["in"]
            load.start()
            while kills < KILLS:
                deadline = time.monotonic() + chance.uniform(0.05, 0.6)
                threading.Event().wait(max(0.0, deadline - time.monotonic()))
                relay.kill()
                kills += 1
                relay.start()
                load.port = relay.ports["in"]
            threading.Event().wait(0.3)
        finally:
            load.stop()
        deadline = time.monotonic() + 60
        missing = set(load.accepted)
        while missing and time.monotonic() < deadline:
            threading.Event().wait(0.2)
            missing = set(load.accepted) - set(names(sink))
        held = _held(relay)
        relay.stop()
        arrived = names(sink)
    # A kill inside DATA is seen as a message that never ended, which is just what it must look like.
    assert [fault for fault in sink.faults if not fault.startswith("closed inside")] == []
    assert len(missing) <= held, f"lost after {kills} kills: {sorted(missing)[:10]}, {held} held as poison"
    duplicates = sum(count - 1 for count in arrived.values())
    unasked = set(arrived) - set(load.accepted)
    print(
        f"{kills} kills: {len(load.accepted)} accepted, {len(arrived)} arrived, {duplicates} duplicates, "
        f"{len(unasked)} arrived whose 250 was lost with the connection, {held} held as poison"
    )
    # Each kill can catch every connection between the next hop's 250 and our record of it, and what waited for
    # the commit that the kill prevented: at most two messages per connection.
    assert duplicates <= kills * CONNECTIONS * 2
    assert len(load.accepted) > kills * 5


def _held(relay: RelayProcess) -> int:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "lonedot",
            "queue",
            "list",
            "--state",
            "held",
            "--json",
            "-c",
            str(relay.config),
        ],
        capture_output=True,
        check=False,
        timeout=30,
    )
    return done.stdout.count(b'"state":"held"')
