"""kill -9 of a relay with sinks of every isolation, and of the processes of its sinks: nothing accepted is lost, and
each copy has the work of every binding exactly once.

A message has three recipients and meets a sink that runs inline, and sinks in processes of their own at `end-of-data`,
`arrival` and `route`; one of them splits. First at each step of a message in transport, then under load at moments that
nobody chose. Short in CI; `./dev crash` runs the long form.
"""

from __future__ import annotations

import os
import random
import re
import signal
import smtplib
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import pytest

from lonedot.terms.ids import id_from_number
from lonedot.testing.process import SERVE, RelayProcess
from tests.crash import transport_points
from tests.crash.chain import STEPS, marks, work_of, write_registry
from tests.crash.kill_points import hosts_of
from tests.crash.load import ask
from tests.crash.transport_points import TransportPoint
from tests.peers.strict_sink import StrictSink
from tests.system.talk import MESSAGE, first_config

LONG = os.environ.get("LONEDOT_CRASH") == "long"
SEED = int(os.environ.get("LONEDOT_SEED", "1"))
KILLS = 40 if LONG else 4
CLIENTS = 4
CONNECTIONS = 4
PEOPLE = ("anna@dest.example", "joe@dest.example", "max@dest.example")
PATIENCE = 60.0

_QUEUED = re.compile(r"queued as ([0-9a-v]{13})")
_ID = re.compile(rb"\bid ([0-9a-v]{13})\b")


class World:
    """A relay with the chain, and its next hop."""

    def __init__(self, folder: Path, hop: StrictSink) -> None:
        self.folder = folder
        self.hop = hop
        self.armed = folder / "armed"
        self.log = write_registry(folder, STEPS)
        toml = first_config(hop.port, server='registry = "sinks.toml"', route=f"connections = {CONNECTIONS}")
        self.hostname = f"relay-{os.getpid()}.example.com"  # a port may pass to the relay of another test
        self.relay = RelayProcess(folder, toml.replace("relay.example.com", self.hostname), program=SERVE)

    @property
    def database(self) -> Path:
        return self.folder / "spool" / "shards" / "0" / "queue.db"

    def send(self) -> str:
        """One message; its id."""
        with smtplib.SMTP("127.0.0.1", self.relay.ports["in"], timeout=PATIENCE) as client:
            if self.hostname.encode() not in client.ehlo()[1]:
                raise ConnectionError("another relay")
            client.mail("c@office.example")
            for name in PEOPLE:
                client.rcpt(name)
            code, words = client.data(MESSAGE)
        found = _QUEUED.search(words.decode())
        if code != 250 or found is None:
            raise ConnectionError(words.decode())
        return found[1]

    def drain(self) -> None:
        """Until nothing lives in the queue; what was put off or held is sent on its way again."""
        deadline = time.monotonic() + PATIENCE * (4 if LONG else 1)
        again_at = time.monotonic() + 1.0
        while left := ask(self.database, "SELECT id, state, reason FROM message WHERE state <> 'finished'"):
            if time.monotonic() > deadline:
                raise TimeoutError(f"still there: {left[:10]}")
            if time.monotonic() > again_at:
                for words in (("release",), ("retry",)):
                    self._queue(words[0])
                again_at = time.monotonic() + 1.0
            threading.Event().wait(0.05)

    def _queue(self, verb: str) -> None:
        state = "held" if verb == "release" else "queued"
        found = ask(self.database, f"SELECT id FROM message WHERE state = '{state}'")  # noqa: S608 — our own word
        ids = [id_from_number(int(str(number))) for (number,) in found][:200]
        if ids:
            command = [sys.executable, "-m", "lonedot", "queue", verb, *ids, "-c", str(self.relay.config)]
            subprocess.run(command, capture_output=True, check=False, timeout=PATIENCE)

    def in_flight(self) -> Counter[str]:
        """What a dead relay was working on."""
        octets = (self.database.parent / "flight").read_bytes()
        numbers = {int.from_bytes(octets[place : place + 8], "little") for place in range(0, len(octets), 8)}
        return Counter(id_from_number(number) for number in numbers - {0})

    def judge(self, accepted: set[str], may_repeat: Mapping[str, int]) -> int:
        """Everybody got every message, with the work of each binding once; the number of duplicates. `may_repeat`: how
        often each copy of a message may have arrived too often."""
        got: Counter[tuple[str, str]] = Counter()
        for arrival in self.hop.arrivals:
            found = _ID.search(arrival.content)
            assert found is not None
            for recipient in arrival.recipients:
                name = recipient.decode()
                done = marks(arrival.content.partition(b"\r\n\r\n")[0])
                assert done == work_of(STEPS, name, len(PEOPLE)), (found[1], name)
                got[found[1].decode(), name] += 1
        lost = [(id, name) for id in accepted for name in PEOPLE if not got[id, name]]
        assert lost == [], lost[:5]
        statuses = ask(self.database, "SELECT DISTINCT status FROM recipient")
        assert statuses == [("delivered",)]
        unexplained = {copy: count for copy, count in got.items() if count - 1 > may_repeat.get(copy[0], 0)}
        assert unexplained == {}, "sent again, and not in flight at so many kills"
        return sum(count - 1 for count in got.values())

    def keys(self, name: str) -> list[str]:
        file = Path(f"{self.log}-{name}")
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with StrictSink() as hop:
        made = World(tmp_path, hop)
        yield made
        made.relay.kill()


PASSINGS = {TransportPoint.ACCEPTED: 1, TransportPoint.THROUGH: 1}
POINTS = [
    (point, passing)
    for point in TransportPoint
    for passing in range(1, PASSINGS.get(point, 4) + 1)
    if LONG or passing in (1, 2, PASSINGS.get(point, 4))
]


@pytest.mark.parametrize(("point", "passing"), POINTS, ids=[f"{p.value}-{n}" for p, n in POINTS])
def test_each_step_of_a_message_in_transport(world: World, point: TransportPoint, passing: int) -> None:
    relay = world.relay
    relay.program = (str(Path(transport_points.__file__)),)
    relay.environment = {transport_points.POINT: f"{point.value}:{passing}"}
    relay.start()
    id = world.send()
    assert relay.wait(PATIENCE) == -signal.SIGKILL
    assert world.hop.arrivals == []
    relay.program, relay.environment = SERVE, {}
    relay.start()
    world.drain()
    assert world.judge({id}, may_repeat={}) == 0
    names = [link.name for link in STEPS]
    for name in names:
        keys = world.keys(name)
        copies = 3 if name in ("split", "behind", "route") else 1
        assert len(set(keys)) == copies, "asked again under the same key"
        assert len(keys) <= 2 * copies
    again = sum(len(world.keys(name)) > len(set(world.keys(name))) for name in names)
    is_lost = point in (TransportPoint.ANSWERED, TransportPoint.HANDED_IN)
    assert again <= is_lost, "only what was not committed is asked again"


def test_between_two_copies(world: World) -> None:
    """The sink itself kills the relay when it is called for the second of three recipients."""
    world.armed.touch()
    world.relay.start()
    id = world.send()
    assert world.relay.wait(PATIENCE) == -signal.SIGKILL
    world.relay.start()
    world.drain()
    assert world.judge({id}, may_repeat={}) == 0
    anna, joe, *rest = world.keys("split")
    assert [anna, joe] == rest[:2]
    assert len(rest) == 3
    assert len(world.keys("arrival")) == 1


def test_a_message_whose_sinks_kill_the_relay_is_held_at_the_third_death(world: World) -> None:
    world.armed.touch()
    for _ in range(3):
        world.relay.start()
        if (world.hop.port and not world.database.exists()) or not world.keys("split"):
            world.send()
        assert world.relay.wait(PATIENCE) == -signal.SIGKILL
        world.armed.touch()
    world.relay.start()
    ((state, reason),) = ask(world.database, "SELECT state, reason FROM message")
    assert (state, reason) == ("held", "in flight at three deaths of the relay")
    world.armed.unlink()
    world.drain()
    assert len(world.hop.arrivals) == 3


class Clients(msgspec.Struct):
    """Send until they are told to stop, over all lives of the relay."""

    world: World
    accepted: set[str] = msgspec.field(default_factory=set)
    stopped: threading.Event = msgspec.field(default_factory=threading.Event)
    threads: list[threading.Thread] = msgspec.field(default_factory=list)

    def start(self) -> None:
        self.threads = [threading.Thread(target=self._run) for _ in range(CLIENTS)]
        for thread in self.threads:
            thread.start()

    def _run(self) -> None:
        while not self.stopped.is_set():
            try:
                self.accepted.add(self.world.send())
            except (TimeoutError, OSError, smtplib.SMTPException, KeyError):
                self.stopped.wait(0.02)
            while len(self.accepted) * 3 - len(self.world.hop.arrivals) > 300 and not self.stopped.is_set():
                self.stopped.wait(0.02)

    def stop(self) -> None:
        self.stopped.set()
        for thread in self.threads:
            thread.join()

    def wait_for(self, count: int, seconds: float) -> None:
        wanted, deadline = len(self.accepted) + count, time.monotonic() + seconds
        while len(self.accepted) < wanted and time.monotonic() < deadline:
            self.stopped.wait(0.005)


def test_kills_under_load(world: World) -> None:
    chance = random.Random(SEED)
    clients = Clients(world)
    world.relay.start()
    sinks_killed = 0
    in_flight: Counter[str] = Counter()
    try:
        clients.start()
        for _ in range(KILLS):
            for _ in range(3):
                clients.wait_for(chance.randint(1, 15), seconds=10)
                hosts = hosts_of(world.relay.pid)
                if hosts:
                    os.kill(chance.choice(hosts), signal.SIGKILL)
                    sinks_killed += 1
            clients.wait_for(chance.randint(1, 40), seconds=10)
            threading.Event().wait(chance.uniform(0, 0.02))
            world.relay.kill()
            in_flight += world.in_flight()
            world.relay.start()
        clients.wait_for(20, seconds=20)
    finally:
        clients.stop()
    world.drain()
    duplicates = world.judge(clients.accepted, may_repeat=in_flight)
    assert world.relay.stop() == 0
    assert [fault for fault in world.hop.faults if not fault.startswith("closed inside")] == []
    assert len(clients.accepted) >= KILLS
    print(
        f"{KILLS} kills of the relay, {sinks_killed} of sinks: {len(clients.accepted)} accepted, "
        f"{len(world.hop.arrivals)} arrivals, {duplicates} duplicates, "
        f"{in_flight.total()} in flight at a kill"
    )
