"""Clients, a next hop, and the judge of what arrived, for relays that are killed under load.

Every message carries the name of its transmission, `CLIENT-NUMBER.TRY`: a client that gets no answer sends the message
again, as clients do, under the next try. The relay's id of a transmission is in its trace field. So what arrives twice
because the client had to send it again is told from what the relay itself sent twice.
"""

from __future__ import annotations

import io
import os
import random
import re
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from lonedot.spool import rows
from lonedot.terms.ids import id_from_number
from lonedot.testing.process import RelayProcess
from tests.crash.chain import Link, marks, work_of
from tests.peers.strict_sink import Arrival, StrictSink

HOP_LIMIT = 500_000
"""SIZE of the next hop: larger messages fail, and their sender is told."""
SENDER = "load@a.example"
BACKLOG = 200
"""So many messages may be on their way before clients pause."""

_LINES = (20, 20, 20, 20, 20, 20, 20, 3000, 6000, 6000)
_TOO_MANY_LINES = 8600
_ID = re.compile(rb"\bid ([0-9a-v]{13})\b")
_REPORT_ID = re.compile(rb"(?im)^message-id: *<dsn\.([0-9a-v]{13})@")
_NAME = re.compile(rb"(?m)^X-Name: (\S+)\r?$")
_QUEUED = re.compile(rb"queued as ([0-9a-v]{13})")


def line_of(name: str) -> bytes:
    """The line, of 60 octets, that the body of a transmission repeats."""
    return name.encode().ljust(58, b"*") + b"\r\n"


def message(name: str, lines: int) -> bytes:
    """Canonical, without a leading dot anywhere; nothing has to be added at the door."""
    return (
        "Date: Thu, 01 Jan 2026 00:00:00 +0000\r\nFrom: load@a.example\r\nTo: x@b.example\r\n"
        f"Message-ID: <{name}@a.example>\r\nX-Name: {name}\r\n\r\n"
    ).encode() + line_of(name) * lines


class Seen(msgspec.Struct, frozen=True):
    """What the next hop got, once."""

    id: str
    name: str
    is_report: bool
    is_whole: bool
    recipients: tuple[str, ...]
    marks: tuple[str, ...]
    """What sinks did to it."""


class NextHop(StrictSink):
    """Keeps of an arrival what the judge asks, not its octets."""

    def __init__(self) -> None:
        super().__init__(extensions=("PIPELINING", f"SIZE {HOP_LIMIT}", "8BITMIME", "ENHANCEDSTATUSCODES"))
        self.seen: list[Seen] = []

    def _arrived(self, arrival: Arrival) -> None:
        head, _, body = arrival.wire.partition(b"\r\n\r\n")
        found = _NAME.search(arrival.wire if not arrival.reverse_path else head)
        name = found[1].decode() if found is not None else "?"
        people = tuple(recipient.decode() for recipient in arrival.recipients)
        done = marks(head)
        if not arrival.reverse_path:
            id = _REPORT_ID.search(head)
            seen = Seen(id[1].decode() if id is not None else "?", name, True, True, people, done)
        else:
            id = _ID.search(head)
            line = line_of(name)
            whole = line * (len(body) // len(line)) + b".\r\n" == body
            seen = Seen(id[1].decode() if id is not None else "?", name, False, whole, people, done)
        with self._changed:
            self.seen.append(seen)
            self._changed.notify_all()


class Load:
    """Clients that send until they are told to stop, over as many lives of the relay as there are."""

    def __init__(
        self,
        hop: NextHop,
        hostname: str,
        seed: int,
        *,
        clients: int,
        too_large: float = 0.0,
        chain: Sequence[Link] = (),
    ) -> None:
        """`too_large`: which part of the messages the next hop will not take. With a chain, each message is for two."""
        self.chain = chain
        self.recipients = ("x@b.example", "y@b.example") if chain else ("x@b.example",)
        self.answered: dict[str, str] = {}
        """Id to transmission: those answered 250."""
        self.refused: set[str] = set()
        """Transmissions answered 4xx: not in custody."""
        self.dropped: set[str] = set()
        """Files left in the Pickup folder."""
        self.tries = 0
        self._hop = hop
        self._greeting = f"220 {hostname} ".encode()
        self._port = 0
        self._too_large = too_large
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(f"c{number}", random.Random(seed * 1000 + number)))
            for number in range(clients)
        ]

    def start(self, pickup: Path | None = None) -> None:
        if pickup is not None:
            self._threads.append(threading.Thread(target=self._drop, args=(pickup,)))
        for thread in self._threads:
            thread.start()

    def point_at(self, port: int) -> None:
        """Where the relay listens now; 0: nowhere."""
        self._port = port

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def wait_for(self, count: int, seconds: float) -> None:
        """Until so many more were answered 250, and at most so long."""
        wanted, deadline = len(self.answered) + count, time.monotonic() + seconds
        while len(self.answered) < wanted and time.monotonic() < deadline:
            self._stop.wait(0.005)

    # -- SMTP ------------------------------------------------------------------------------------------

    def _run(self, client: str, chance: random.Random) -> None:
        number, tried, lines = 0, 0, 0
        while not self._stop.is_set():
            port = self._port
            try:
                if not port:
                    raise ConnectionError("there is no relay now")
                with socket.create_connection(("127.0.0.1", port), timeout=30) as line:
                    reader = line.makefile("rb")
                    self._expect(reader.readline(), self._greeting)  # a port may have passed to another relay
                    line.sendall(b"EHLO load\r\n")
                    while reader.readline()[3:4] == b"-":
                        pass
                    while not self._stop.is_set():
                        if self._is_far_ahead():
                            self._stop.wait(0.005)
                            continue
                        if not tried:
                            number += 1
                            lines = self._choose_lines(chance)
                        tried += 1
                        if self._send(line, reader, f"{client}-{number}.{tried}", lines):
                            tried = 0
            except OSError:
                self._stop.wait(0.01)

    def _choose_lines(self, chance: random.Random) -> int:
        return _TOO_MANY_LINES if chance.random() < self._too_large else chance.choice(_LINES)

    def _is_far_ahead(self) -> bool:
        return len(self.answered) - len(self._hop.seen) > BACKLOG

    def _send(self, line: socket.socket, reader: io.BufferedReader, name: str, lines: int) -> bool:
        """False: refused for now. Raises OSError when the connection ends."""
        with self._lock:
            self.tries += 1
        people = "".join(f"RCPT TO:<{recipient}>\r\n" for recipient in self.recipients)
        line.sendall(f"MAIL FROM:<load@a.example>\r\n{people}DATA\r\n".encode())
        for code in (b"250", *(b"250" for _ in self.recipients), b"354"):
            self._expect(reader.readline(), code)
        line.sendall(message(name, lines) + b".\r\n")
        answer = reader.readline()
        if answer.startswith(b"4"):
            with self._lock:
                self.refused.add(name)
            return False
        found = _QUEUED.search(answer)
        if found is None:
            raise ConnectionError(answer.decode("latin-1"))
        with self._lock:
            self.answered[found[1].decode()] = name
        return True

    @staticmethod
    def _expect(line: bytes, start: bytes) -> None:
        if not line.startswith(start):
            raise ConnectionError(line.decode("latin-1"))

    # -- Pickup ----------------------------------------------------------------------------------------

    def _drop(self, folder: Path) -> None:
        number = 0
        while not self._stop.is_set():
            if self._port and folder.is_dir() and len(os.listdir(folder)) < 4:
                number += 1
                name = f"p-{number}.1"
                part = folder / f"{name}.part"
                part.write_bytes(
                    "".join(f"x-receiver: {recipient}\r\n" for recipient in self.recipients).encode()
                    + message(name, 6000 if number % 5 == 0 else 20)
                )
                part.rename(folder / name)
                self.dropped.add(name)
            self._stop.wait(0.01)


class Verdict(msgspec.Struct, frozen=True):
    """What the judge found."""

    messages: int
    """In the history, reports among them."""
    duplicates: Mapping[str, int]
    """By id: how often too many."""
    unanswered: int
    """Arrived, though their 250 was lost with the connection."""
    reports: int


def ask(database: Path, sql: str) -> list[tuple[object, ...]]:
    """Read the spool as anybody may, with a stock tool."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def ask_all(folder: Path, sql: str) -> list[tuple[object, ...]]:
    """The same of every shard of the spool in a folder."""
    return [row for shard in shards(folder) for row in ask(shard / "queue.db", sql)]


def shards(folder: Path) -> list[Path]:
    """Folders of the shards that are there."""
    return sorted(path.parent for path in (folder / "spool" / "shards").glob("*/queue.db"))


def drain(relay: RelayProcess, pickup: Path | None = None, seconds: float = 90.0) -> list[str]:
    """Wait until nothing lives in the queue; ids of what had been held as poison, and was released. What was put off,
    because a sink had died, is tried again.

    Raises:
        TimeoutError: something stays.
    """
    released: list[str] = []
    deadline = time.monotonic() + seconds
    again_at = time.monotonic() + 1.0
    while True:
        left = ask_all(relay.folder, "SELECT id, state, reason FROM message WHERE state <> 'finished'")
        files = [file for file in pickup.rglob("*") if file.is_file()] if pickup is not None else []
        if not left and not files:
            return released
        held = [id_from_number(int(str(id))) for id, state, _ in left if state == "held"]
        if held and len(held) == len(left):
            _lonedot(relay, "queue", "release", *held)
            released += held
        if time.monotonic() > again_at:
            put_off = [id_from_number(int(str(id))) for id, state, _ in left if state == "queued"]
            if put_off:
                _lonedot(relay, "queue", "retry", *put_off[:BACKLOG], check=False)  # some end meanwhile
            again_at = time.monotonic() + 1.0
        if time.monotonic() > deadline:
            raise TimeoutError(f"still there: {left[:10]} {files[:10]}")
        threading.Event().wait(0.05)


def _lonedot(relay: RelayProcess, *words: str, check: bool = True) -> bytes:
    command = [sys.executable, "-m", "lonedot", *words, "-c", str(relay.config)]
    return subprocess.run(command, capture_output=True, check=check, timeout=60).stdout


def judge(folder: Path, load: Load, hop: NextHop, may_repeat: Mapping[str, int] | None = None) -> Verdict:
    """The promises of custody, over a spool whose relay has stopped with an empty queue.

    `may_repeat`: how often each id may have arrived too often; None: no bound here.
    """
    _check_rest(folder)
    statuses: dict[str, tuple[str, int]] = {}
    for number, status, size in ask_all(
        folder, "SELECT m.id, r.status, m.size FROM message m JOIN recipient r ON r.message = m.id"
    ):
        statuses[id_from_number(int(str(number)))] = str(status), int(str(size))
    copies = Counter((seen.id, recipient) for seen in hop.seen for recipient in seen.recipients)
    arrived = {id for id, _ in copies}
    assert set(load.answered) <= set(statuses), "answered 250 and not kept"
    assert arrived <= set(statuses), "sent, and in no history"
    broken = [seen for seen in hop.seen if not seen.is_whole]
    assert broken == [], broken[:5]
    failed = {id for id, (status, _) in statuses.items() if status == "failed"}
    reports = _reports(folder)
    lost = [
        id
        for id, (status, _) in statuses.items()
        if status != "failed"
        and any(not copies[id, name] for name in ((SENDER,) if id in reports else load.recipients))
    ]
    assert lost == [], f"lost: {[(id, statuses[id], load.answered.get(id)) for id in lost[:10]]}"
    assert {status for status, _ in statuses.values()} <= {"delivered", "failed"}
    assert not failed & arrived
    assert all(statuses[id][1] > HOP_LIMIT for id in failed)
    told = Counter(reports.values())
    assert set(told) == failed, f"reported: {told}, failed: {failed}"
    assert all(count <= len(load.recipients) for count in told.values()), f"reported: {told}"
    _check_work(folder, load, hop)
    names: dict[str, set[str]] = {}
    for seen in hop.seen:
        if not seen.is_report:
            names.setdefault(seen.name, set()).add(seen.id)
    assert [name for name, ids in names.items() if len(ids) > 1] == [], "one transmission, two messages"
    assert load.refused & set(names) == set(), "refused, and sent all the same"
    assert load.dropped <= set(names), "Pickup lost a file"
    duplicates: Counter[str] = Counter()
    for (id, _), count in copies.items():
        if count > 1:
            duplicates[id] += count - 1
    if may_repeat is not None:
        unexplained = {id: more for id, more in duplicates.items() if more > may_repeat.get(id, 0)}
        assert unexplained == {}, f"sent again though the outcome was known: {unexplained}"
    answered = set(load.answered.values())
    unanswered = sum(not name.startswith("p-") and name not in answered for name in names)
    return Verdict(len(statuses), duplicates, unanswered, len(reports))


def _check_work(folder: Path, load: Load, hop: NextHop) -> None:
    """Each copy shows the work of every binding once; what became of each was told."""
    wrong: list[Seen] = []
    for seen in hop.seen:
        events: tuple[str, ...] = ()
        if seen.is_report:
            events = ("message-start",)
        elif seen.name.startswith("p-"):
            events = ("arrival", "message-start")  # a file has no session
        (recipient, *others) = seen.recipients
        if others or seen.marks != work_of(load.chain, recipient, len(load.recipients), events=events):
            wrong.append(seen)
    assert wrong == [], wrong[:5]
    for link in load.chain:
        if link.event == "outcome":
            told = set((folder / f"keys-{link.name}").read_text().splitlines())
            untold = {f"{seen.id} {seen.recipients[0]} delivered" for seen in hop.seen} - told
            assert untold == set(), sorted(untold)[:5]


def _check_rest(folder: Path) -> None:
    """Nothing is half done."""
    for shard in shards(folder):
        _check_shard(shard)
    assert _files(folder / "spool" / "badmail") == []


def _check_shard(shard: Path) -> None:
    assert ask(shard / "queue.db", "PRAGMA integrity_check") == [("ok",)]
    assert ask(shard / "queue.db", "SELECT id, state, reason FROM message WHERE state <> 'finished'") == []
    assert ask(shard / "queue.db", "SELECT count(*) FROM message WHERE owner IS NOT NULL") == [(0,)]
    assert ask(shard / "queue.db", "SELECT count(*) FROM content") == [(0,)]
    ((finished,),) = ask(shard / "queue.db", "SELECT finished FROM progress")
    assert ask(shard / "queue.db", "SELECT count(*) FROM message") == [(finished,)]
    assert _files(shard / "bodies") == []
    assert (shard / "flight").read_bytes().strip(b"\0") == b""


def _files(folder: Path) -> Sequence[Path]:
    return [file for file in folder.rglob("*") if file.is_file()]


def _reports(folder: Path) -> dict[str, str]:
    """Id of each report to that of the message it tells of."""
    found: dict[str, str] = {}
    for number, value in ask_all(
        folder,
        "SELECT m.id, r.value FROM message m JOIN record r ON r.message = m.id WHERE m.sender = '<>'",
    ):
        assert isinstance(value, bytes)
        parent = rows.record_from(value).facts.parent
        assert parent is not None
        found[id_from_number(int(str(number)))] = parent
    return found
