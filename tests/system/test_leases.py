"""Two workers and a next hop that counts: never more connections in all than the route allows, and all mail arrives."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lonedot.terms.ids import id_shard
from lonedot.testing.process import SUPERVISED, RelayProcess
from tests.system.talk import PATIENCE, first_config
from tests.system.test_workers import both_run, send, send_to_both, wait_until

SERVER = 'log = "json"\nworkers = 2'
_ID = re.compile(rb"\n?\s+id ([0-9a-v]{13})")


class CountingHop:
    """Takes messages, each after a while, and knows how many connections were open at one time."""

    def __init__(self) -> None:
        self.most = 0
        self.ids: list[str] = []
        self.times: list[float] = []
        self.seen: list[str] = []
        """Ids of messages that came, answered or not."""
        self.gate = threading.Event()
        self.gate.set()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.gate.set()
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            with self._lock:
                self._open = {one for one in self._open if not _is_closed(one)} | {connection}
                self.most = max(self.most, len(self._open))
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        try:
            self._converse(connection)
        except OSError:
            pass
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()

    def _converse(self, connection: socket.socket) -> None:
        connection.sendall(b"220 hop ESMTP\r\n")
        lines = connection.makefile("rb")
        while line := lines.readline():
            match line[:4].upper():
                case b"EHLO":
                    connection.sendall(b"250-hop\r\n250 PIPELINING\r\n")
                case b"DATA":
                    connection.sendall(b"354 go on\r\n")
                    octets = b"".join(iter(lines.readline, b".\r\n"))
                    found = _ID.search(octets)
                    assert found is not None, octets
                    self.seen.append(found[1].decode())
                    self.gate.wait(PATIENCE)
                    threading.Event().wait(0.01)
                    with self._lock:
                        self.ids.append(found[1].decode())
                        self.times.append(time.monotonic())
                    connection.sendall(b"250 2.0.0 taken\r\n")
                case b"QUIT":
                    connection.sendall(b"221 bye\r\n")
                    return
                case _:
                    connection.sendall(b"250 2.0.0 ok\r\n")


def _is_closed(connection: socket.socket) -> bool:
    """The other side has closed it, whether or not its thread has noticed."""
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


@pytest.fixture
def hop() -> Iterator[CountingHop]:
    one = CountingHop()
    yield one
    one.close()


def _relay(folder: Path, hop: CountingHop, route: str) -> RelayProcess:
    return RelayProcess(folder, first_config(hop.port, server=SERVER, route=route), program=SUPERVISED)


@pytest.mark.parametrize("connections", [1, 3])
def test_connections_are_shared(tmp_path: Path, hop: CountingHop, connections: int) -> None:
    with _relay(tmp_path, hop, f"connections = {connections}") as one:
        both_run(one)
        hop.gate.clear()
        ids = send_to_both(one.ports["in"], each=15)
        hop.gate.set()
        wait_until(lambda: len(hop.ids) >= len(ids))
        late = [send(one.ports["in"]) for _ in range(10)]
        wait_until(lambda: len(hop.ids) >= len(ids) + len(late))
        assert sorted(hop.ids) == sorted([*ids, *late])
        assert hop.most <= connections


def test_the_lease_of_a_worker_that_was_killed_comes_back(tmp_path: Path, hop: CountingHop) -> None:
    with _relay(tmp_path, hop, "connections = 1") as one:
        both_run(one)
        hop.gate.clear()
        ids = send_to_both(one.ports["in"], each=3)
        wait_until(lambda: bool(hop.seen))
        holder = id_shard(hop.seen[0])
        os.kill(one.workers[holder], signal.SIGKILL)
        hop.gate.set()
        wait_until(lambda: set(hop.ids) >= set(ids))
        assert hop.most == 1


def test_a_rate_is_shared(tmp_path: Path, hop: CountingHop) -> None:
    with _relay(tmp_path, hop, 'rate = "4/s"') as one:
        both_run(one)
        ids = send_to_both(one.ports["in"], each=6)
        wait_until(lambda: len(hop.ids) >= len(ids))
        for first, began in enumerate(hop.times):
            for last in range(first, len(hop.times)):
                allowed = (hop.times[last] - began) * 4 + 5
                assert last - first + 1 <= allowed + 1  # what was slow to answer may come closer together
