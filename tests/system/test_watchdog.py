"""The relay under its parent: sinks that never return or end the process, workers and parents that are killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import smtplib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import TimeoutExpired

import pytest

from lonedot.app.standing import STANDING_FILE
from lonedot.sinks.board import ENVIRONMENT, STALLED_FILE
from lonedot.sinks.standing import StandingFile
from lonedot.spool.interface import SpoolPaths
from lonedot.spool.sqlite import CONTENT_LIMIT
from lonedot.testing.process import SUPERVISED, RelayProcess
from tests.peers.strict_sink import StrictSink
from tests.system.talk import MESSAGE, PATIENCE, first_config

PARENT_MIB = 15
GOOD, BAD = "good@office.example", "bad@office.example"

PLUGIN = """
import ctypes, os, time
from pathlib import Path
from lonedot import Edit, Message, Next, sink

@sink("Loops")
def loops(message: Message) -> Next:
    while True:
        pass

@sink("Reads", reads={"body"})
def reads(message: Message) -> Next:
    while True:
        pass

@sink("Swallows")
def swallows(message: Message) -> Next:
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass

@sink("Sleeps in C")
def sleeps(message: Message) -> Next:
    ctypes.PyDLL(None).sleep(600)  # keeps the interpreter lock
    return Next()

@sink("Edits without end", effects=["header"])
def edits(message: Message) -> Next:
    def made():
        while True:
            yield Edit.add_field("X-Field", "value")
            time.sleep(1)
    return Next(made())

@sink("Exits")
def exits(message: Message) -> Next:
    os._exit(0)

@sink("Breaks memory")
def breaks(message: Message) -> Next:
    ctypes.string_at(0)
    return Next()

@sink("Waits")
def waits(message: Message) -> Next:
    Path(__file__).with_name("began").touch()
    time.sleep(600)
    return Next()

@sink("Second exits", reads={"body"})
def second(message: Message) -> Next:
    began = Path(__file__).with_name("began")
    if began.exists():
        os._exit(7)
    began.touch()
    time.sleep(600)
    return Next()

@sink("Slow")
def slow(message: Message) -> Next:
    time.sleep(0.8)
    return Next()

@sink("Forks")
def forks(message: Message) -> Next:
    os.fork()
    return Next()

@sink("Verb", on="mail")
def verb(session) -> Next:
    while True:
        pass
"""

BINDING = """
[[sink]]
name = "Plug-in"
file = "plugin.py:{function}"
rule = "MAIL FROM={sender}"
deadline = {deadline}
"""


def config(folder: Path, port: int, function: str = "", deadline: float = 0.3, more: str = "") -> str:
    (folder / "plugin.py").write_text(PLUGIN)
    binding = BINDING.format(function=function, sender=BAD, deadline=deadline) if function else ""
    return first_config(port, more=binding + more)


@pytest.fixture
def receiver() -> Iterator[StrictSink]:
    with StrictSink() as one:
        yield one


def send(relay: RelayProcess, sender: str, octets: bytes = MESSAGE) -> int:
    """The reply code to one message; 0 when the connection broke."""
    try:
        with smtplib.SMTP("127.0.0.1", relay.ports["in"], timeout=PATIENCE) as client:
            client.ehlo("client.example")
            code, _ = client.mail(sender)
            if code == 250:
                client.rcpt("anna@dest.example")
                code, _ = client.data(octets)
            return code
    except (smtplib.SMTPServerDisconnected, ConnectionError):
        return 0


def events(relay: RelayProcess, name: str) -> list[dict[str, object]]:
    return [line for line in tuple(relay.log) if line["event"] == name]


def wait_until(claim: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not claim():
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)


def is_gone(pid: int) -> bool:
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return True


def kill_next_worker(relay: RelayProcess, last: int) -> int:
    """Kill the one that comes behind `last` as soon as it is there."""
    wait_until(lambda: relay.worker not in (0, last))
    worker = relay.worker
    os.kill(worker, signal.SIGKILL)
    return worker


# --- sinks ---------------------------------------------------------------------------------------

LARGE = MESSAGE + (b"x" * 70 + b"\r\n") * (CONTENT_LIMIT // 60)


@pytest.mark.parametrize(
    ("function", "octets", "words"),
    [
        ("loops", MESSAGE, "deadline 0.3 s"),
        ("reads", LARGE, "deadline 0.3 s"),
        ("swallows", MESSAGE, "deadline 0.3 s"),
        ("sleeps", MESSAGE, "deadline 0.3 s"),
        ("edits", MESSAGE, "deadline 0.3 s"),
        ("verb", MESSAGE, "deadline 0.3 s"),
        ("exits", MESSAGE, "ended with code 0"),
        ("breaks", MESSAGE, "died of signal 11"),
    ],
    ids=["loops", "loops-in-thread", "swallows", "sleeps-in-c", "edits", "verb", "exits", "breaks"],
)
def test_a_sink_that_does_not_return(
    tmp_path: Path, receiver: StrictSink, function: str, octets: bytes, words: str
) -> None:
    """It is named; its message is not accepted; the mail before it and behind it goes out."""
    with RelayProcess(tmp_path, config(tmp_path, receiver.port, function), program=SUPERVISED) as relay:
        assert send(relay, GOOD) == 250
        # On record, or the kill could fall into the window in which a message is sent twice.
        wait_until(lambda: bool(events(relay, "message.delivered")))
        assert send(relay, BAD, octets) == 0
        relay.wait_for_start(2)
        assert send(relay, GOOD) == 250
        receiver.wait_for(2)
        assert relay.stop() == 0
    (told,) = events(relay, "event.sink-stalled")
    assert told["binding"] == "Plug-in"
    assert told["id"]
    assert words in str(told["words"])
    assert relay.starts == 2
    assert not (SpoolPaths(tmp_path / "spool").root / STALLED_FILE).exists()
    assert len(receiver.arrivals) == 2
    assert "1 stalled" in standing(tmp_path)


def standing(folder: Path) -> str:
    """What counts against the one binding there is, in words; empty when nothing does."""
    found = StandingFile(folder / "spool" / STANDING_FILE).read()
    return " ".join(one.in_words for one in found)


def test_a_sink_that_forks_does_not_make_two_relays(tmp_path: Path, receiver: StrictSink) -> None:
    toml = config(tmp_path, receiver.port, "forks", deadline=60)
    with RelayProcess(tmp_path, toml, program=SUPERVISED) as relay:
        assert [send(relay, sender) for sender in (BAD, GOOD, BAD, GOOD)] == [250] * 4
        receiver.wait_for(4)
        wait_until(lambda: len(events(relay, "message.delivered")) == 4)
        assert relay.stop() == 0
    assert len(receiver.arrivals) == 4
    assert relay.starts == 1


def test_of_two_that_ran_nobody_can_say_which_it_was(tmp_path: Path, receiver: StrictSink) -> None:
    toml = config(tmp_path, receiver.port, "second", 300)
    with RelayProcess(tmp_path, toml, program=SUPERVISED) as relay:
        first = threading.Thread(target=send, args=(relay, BAD, LARGE))
        first.start()
        wait_until((tmp_path / "began").exists)
        assert send(relay, BAD, LARGE) == 0
        first.join(PATIENCE)
        relay.wait_for_start(2)
        assert relay.stop() == 0
    told = events(relay, "event.sink-stalled")
    assert len({line["id"] for line in told}) == len(told) == 2
    assert all("ended with code 7" in str(line["words"]) for line in told)
    assert standing(tmp_path) == ""


@pytest.mark.parametrize("role", ["cosmetic", "protective"])
def test_the_third_stall(tmp_path: Path, receiver: StrictSink, role: str) -> None:
    """A cosmetic binding is not called any more; nothing goes past a protective one."""
    protective = f'role = "{role}"\non_damage = "{"undo" if role == "cosmetic" else "hold"}"\n'
    toml = config(tmp_path, receiver.port, "loops", more=protective)
    with RelayProcess(tmp_path, toml, program=SUPERVISED) as relay:
        for stalls in range(1, 4):
            assert send(relay, BAD) == 0
            relay.wait_for_start(stalls + 1)
        if role == "cosmetic":
            assert send(relay, BAD) == 250
            receiver.wait_for(1)
            assert [line["binding"] for line in events(relay, "event.binding-switched-off")] == ["Plug-in"]
        else:
            assert send(relay, BAD) == 0
            relay.wait_for_start(5)
            assert receiver.arrivals == []
        assert relay.stop() == 0
    assert len(events(relay, "event.sink-stalled")) == (3 if role == "cosmetic" else 4)


def test_a_shadow_that_stalls_costs_a_restart_until_it_is_off(tmp_path: Path, receiver: StrictSink) -> None:
    toml = config(tmp_path, receiver.port, "loops", more='mode = "shadow"\n')
    with RelayProcess(tmp_path, toml, program=SUPERVISED) as relay:
        for stalls in range(1, 4):
            assert send(relay, BAD) == 0
            relay.wait_for_start(stalls + 1)
        assert send(relay, BAD) == 250
        receiver.wait_for(1)
        assert relay.stop() == 0
    assert len(events(relay, "event.sink-stalled")) == 3
    assert [line["binding"] for line in events(relay, "event.binding-switched-off")] == ["Plug-in"]


def test_who_was_running_when_somebody_kills_the_worker_is_not_blamed(
    tmp_path: Path, receiver: StrictSink
) -> None:
    toml = config(tmp_path, receiver.port, "waits", 300)
    with RelayProcess(tmp_path, toml, program=SUPERVISED) as relay:
        sending = threading.Thread(target=send, args=(relay, BAD))
        sending.start()
        wait_until((tmp_path / "began").exists)
        os.kill(relay.worker, signal.SIGKILL)
        sending.join(PATIENCE)
        relay.wait_for_start(2)
        assert relay.stop() == 0
    assert events(relay, "event.sink-stalled") == []
    assert [line["code"] for line in events(relay, "worker.died")] == [-signal.SIGKILL]


def test_a_sink_within_its_deadline_is_left_alone(tmp_path: Path, receiver: StrictSink) -> None:
    toml = config(tmp_path, receiver.port, "slow", 5)
    with RelayProcess(tmp_path, toml, program=SUPERVISED) as relay:
        assert [send(relay, BAD) for _ in range(2)] == [250, 250]
        assert relay.stop() == 0
    assert relay.starts == 1


# --- deaths --------------------------------------------------------------------------------------


def test_a_worker_that_dies_again_and_again_is_started_ever_later(
    tmp_path: Path, receiver: StrictSink
) -> None:
    with RelayProcess(tmp_path, config(tmp_path, receiver.port), program=SUPERVISED) as relay:
        last = 0
        for _ in range(5):
            last = kill_next_worker(relay, last)
        relay.wait_for_start(2)
        assert send(relay, GOOD) == 250
        receiver.wait_for(1)
        assert relay.stop() == 0
    pauses = [line["again_in_seconds"] for line in events(relay, "worker.died")]
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6]


def test_sigterm_while_no_worker_runs(tmp_path: Path) -> None:
    with RelayProcess(tmp_path, config(tmp_path, 1), program=SUPERVISED) as relay:
        last = 0
        for _ in range(4):
            last = kill_next_worker(relay, last)
        wait_until(lambda: len(events(relay, "worker.died")) == 4)  # 0.8 s until the next one
        assert relay.stop() == 0


def test_a_parent_that_is_killed_takes_its_worker_with_it_in_order(
    tmp_path: Path, receiver: StrictSink
) -> None:
    relay = RelayProcess(tmp_path, config(tmp_path, receiver.port), program=SUPERVISED)
    relay.start()
    worker = relay.worker
    assert send(relay, GOOD) == 250
    relay.kill()  # returns when the log has ended: nobody writes to it any more
    wait_until(lambda: is_gone(worker))
    assert events(relay, "event.stopped")
    with relay:
        assert send(relay, GOOD) == 250
        receiver.wait_for(2)
    assert len(receiver.arrivals) == 2


def test_a_configuration_that_is_broken_meanwhile_is_tried_again(
    tmp_path: Path, receiver: StrictSink
) -> None:
    toml = config(tmp_path, receiver.port)
    with RelayProcess(tmp_path, toml, program=SUPERVISED) as relay:
        assert send(relay, GOOD) == 250
        relay.config.write_text("[[listener")
        os.kill(relay.worker, signal.SIGKILL)
        wait_until(lambda: 1 in [line["code"] for line in events(relay, "worker.died")])
        relay.config.write_text(toml)
        relay.wait_for_start(2)
        assert send(relay, GOOD) == 250
        assert relay.stop() == 0
    assert any("the configuration cannot be used" in line for line in relay.other_output)


# --- signals -------------------------------------------------------------------------------------


@contextlib.contextmanager
def in_data(relay: RelayProcess) -> Iterator[socket.socket]:
    """A session in the middle of its message."""
    with socket.create_connection(("127.0.0.1", relay.ports["in"]), timeout=PATIENCE) as line:
        replies = line.makefile("rb")
        assert replies.readline().startswith(b"220")
        line.sendall(b"HELO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n")
        assert [replies.readline()[:3] for _ in range(4)] == [b"250", b"250", b"250", b"354"]
        replies.close()
        yield line


@pytest.mark.parametrize("whom", ["parent", "both"])
def test_sigterm_lets_a_message_finish_and_ends_with_0(
    tmp_path: Path, receiver: StrictSink, whom: str
) -> None:
    """A service manager may send it to both at once: that is one request to stop, not two."""
    relay = RelayProcess(tmp_path, config(tmp_path, receiver.port), program=SUPERVISED)
    relay.start()
    with in_data(relay) as line:
        if whom == "both":
            os.kill(relay.worker, signal.SIGTERM)
        os.kill(relay.pid, signal.SIGTERM)
        with pytest.raises(TimeoutExpired):
            relay.wait(0.7)
        line.sendall(b"Subject: late\r\n\r\ntext\r\n.\r\n")
        assert line.recv(100).startswith(b"250 2.0.0")
    assert relay.wait(PATIENCE) == 0
    assert relay.other_output == []
    with relay:
        receiver.wait_for(1)


def test_a_second_sigterm_ends_it_at_once(tmp_path: Path) -> None:
    relay = RelayProcess(tmp_path, config(tmp_path, 1), program=SUPERVISED)
    relay.start()
    with in_data(relay):
        os.kill(relay.pid, signal.SIGTERM)
        with pytest.raises(TimeoutExpired):
            relay.wait(0.7)
        os.kill(relay.pid, signal.SIGTERM)
        assert relay.wait(PATIENCE) == 128 + signal.SIGKILL


@pytest.mark.parametrize("said", ["nonsense", "0,0", "3", "999,998"])
def test_what_only_a_parent_may_say_is_not_believed_of_others(tmp_path: Path, said: str) -> None:
    relay = RelayProcess(tmp_path, config(tmp_path, 1), {ENVIRONMENT: said}, program=SUPERVISED)
    with pytest.raises(RuntimeError, match="is no parent's"):
        relay.start()


def test_sighup_reaches_the_worker(tmp_path: Path) -> None:
    (tmp_path / "sinks.toml").write_text("")
    toml = config(tmp_path, 1).replace('spool = "spool"', 'spool = "spool"\nregistry = "sinks.toml"')
    with RelayProcess(tmp_path, toml, program=SUPERVISED) as relay:
        (tmp_path / "sinks.toml").write_text("this is no registry")
        os.kill(relay.pid, signal.SIGHUP)
        wait_until(lambda: bool(events(relay, "config.not-taken")))
        assert relay.stop() == 0
    assert relay.starts == 1


def test_the_service_manager_is_told(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(PATIENCE)
        told = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        with RelayProcess(tmp_path, config(tmp_path, 1), told, program=SUPERVISED) as relay:
            assert manager.recv(100) == b"READY=1"
            assert b"NOTIFY_SOCKET" not in Path(f"/proc/{relay.worker}/environ").read_bytes()
            assert relay.stop() == 0
            assert manager.recv(100) == b"STOPPING=1"


def test_the_parent_is_small_and_has_no_relay_in_it(tmp_path: Path) -> None:
    with RelayProcess(tmp_path, config(tmp_path, 1), program=SUPERVISED) as relay:
        status = Path(f"/proc/{relay.pid}/status").read_text()
        maps = Path(f"/proc/{relay.pid}/maps").read_text()
        (size,) = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")]
        print(f"parent: {size / 1024:.1f} MiB at most")
        assert size < PARENT_MIB * 1024
        assert "site-packages" not in maps
        # No process of the worker's has the descriptors that it has of its parent.
        for child in Path(f"/proc/{relay.worker}/task/{relay.worker}/children").read_text().split():
            held = [os.readlink(one) for one in Path(f"/proc/{child}/fd").iterdir()]
            assert not any("lonedot-watch" in one for one in held)
            assert b"LONEDOT_WATCH" not in Path(f"/proc/{child}/environ").read_bytes()


def test_a_file_that_cannot_be_read_keeps_nobody_from_starting(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir(mode=0o700)
    stalled = tmp_path / "spool" / STALLED_FILE
    stalled.write_text(json.dumps({"not": "a list"}))
    with RelayProcess(tmp_path, config(tmp_path, 1)) as relay:
        assert relay.stop() == 0
    assert not stalled.exists()
    assert events(relay, "stalled.not-read")
