"""Two workers as one relay: mail through both, commands about both, changes in both, and the death of either."""

from __future__ import annotations

import json
import os
import signal
import smtplib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from lonedot.app.standing import STANDING_FILE
from lonedot.cli import run
from lonedot.sinks.standing import Measure, StandingFile
from lonedot.spool.interface import SpoolPaths
from lonedot.terms.ids import id_shard
from lonedot.testing.process import SUPERVISED, RelayProcess
from tests.peers.strict_sink import StrictSink
from tests.system.talk import MESSAGE, PATIENCE, first_config, id_of

SERVER = 'log = "json"\nregistry = "sinks.toml"\nworkers = {workers}'
REGISTRY = """\
[[binding]]
name = "Marks"
sink = "plugin.py:marks"

[[binding]]
name = "Fails"
sink = "plugin.py:fails"
rule = "MAIL FROM=bad@office.example"
maximum_faults = 6
"""
PLUGIN = """
from lonedot import Edit, Message, Next, sink

@sink("Marks", effects={"header"})
def marks(message: Message) -> Next:
    return Next(edits=[Edit.add_field("X-Marked", "yes")])

@sink("Fails", role="cosmetic", on_error="skip")
def fails(message: Message) -> Next:
    raise RuntimeError("on purpose")
"""
SECOND = '\n[[listener]]\nname = "second"\naddress = "127.0.0.1:0"\nrelay_from = ["127.0.0.0/8"]\n'
LOAD_SECONDS = 4.0


@pytest.fixture
def receiver() -> Iterator[StrictSink]:
    with StrictSink() as one:
        yield one


@pytest.fixture
def nobody() -> Iterator[int]:
    """A port where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def config(folder: Path, port: int, workers: int = 2, more: str = "") -> str:
    (folder / "plugin.py").write_text(PLUGIN)
    if not (folder / "sinks.toml").exists():
        (folder / "sinks.toml").write_text(REGISTRY)
    return first_config(port, server=SERVER.format(workers=workers), more=more)


def relay(folder: Path, toml: str) -> RelayProcess:
    return RelayProcess(folder, toml, program=SUPERVISED)


def wait_until(claim: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not claim():
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)


def both_run(one: RelayProcess) -> None:
    wait_until(lambda: len([line for line in tuple(one.log) if line["event"] == "worker.ready"]) >= 2)


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def send(port: int, sender: str = "c@office.example") -> str:
    """One message over a connection of its own; its id."""
    with smtplib.SMTP("127.0.0.1", port, timeout=PATIENCE) as client:
        client.ehlo("client.example")
        assert client.mail(sender)[0] == 250
        assert client.rcpt("anna@dest.example")[0] == 250
        code, words = client.data(MESSAGE)
        return id_of(f"{code} {words.decode()}")


def send_to_both(port: int, each: int = 2, sender: str = "c@office.example") -> list[str]:
    """Messages until each worker has taken so many; their ids."""
    ids: list[str] = []
    deadline = time.monotonic() + PATIENCE
    while any(sum(id_shard(id) == shard for id in ids) < each for shard in (0, 1)):
        assert time.monotonic() < deadline, ids
        # Some connections wait while another speaks: who is busy leaves the next to the other.
        with socket.create_connection(("127.0.0.1", port)):
            ids.append(send(port, sender))
    return ids


def of_shard(ids: Sequence[str], shard: int) -> str:
    return next(id for id in ids if id_shard(id) == shard)


class Commands:
    """Runs commands about a relay, in this process."""

    def __init__(self, one: RelayProcess, capsys: pytest.CaptureFixture[str]) -> None:
        self._file = str(one.config)
        self._capsys = capsys

    def __call__(self, *words: str, code: int = 0) -> str:
        self._capsys.readouterr()
        assert run([*words, "-c", self._file]) == code, self._capsys.readouterr()
        return self._capsys.readouterr().out


# --- commands ------------------------------------------------------------------------------------


def test_commands_are_about_both(tmp_path: Path, nobody: int, capsys: pytest.CaptureFixture[str]) -> None:
    with relay(tmp_path, config(tmp_path, nobody)) as one:
        both_run(one)
        command = Commands(one, capsys)
        ids = send_to_both(one.ports["in"])
        here, there = of_shard(ids, 0), of_shard(ids, 1)
        listing = json.loads(command("queue", "list", "--json"))
        assert [row["id"] for row in listing["rows"]] == sorted(ids)
        assert listing["counts"]["queued"] == len(ids)
        for id in (here, there):
            assert json.loads(command("queue", "show", id, "--json"))["id"] == id
            assert id in command("why", id)
        assert command("queue", "hold", here, there).count("held") == 2
        held = json.loads(command("queue", "list", "--state", "held", "--json"))
        assert {row["id"] for row in held["rows"]} == {here, there}
        command("queue", "release", "--all")
        command("queue", "retry", "--all")
        command("queue", "delete", there, "--yes")
        gone = json.loads(command("history", "--json"))
        assert [row["id"] for row in gone["rows"]] == [there]
        screen = json.loads(command("status", "--json"))
        assert len(screen["workers"]) == 2
        assert screen["counts"]["queued"] == len(ids) - 1
        assert there in "".join(json.loads(command("logs", there, "--json"))["lines"])
        assert one.stop() == 0


def test_a_worker_that_is_away_is_named(
    tmp_path: Path, nobody: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with relay(tmp_path, config(tmp_path, nobody)) as one:
        both_run(one)
        ids = send_to_both(one.ports["in"], 1)
        pid = one.workers[1]
        os.kill(pid, signal.SIGSTOP)
        SpoolPaths(tmp_path / "spool").control_of(1).unlink()  # as while it starts
        capsys.readouterr()
        assert run(["queue", "list", "--json", "-c", str(one.config)]) == 1
        said = capsys.readouterr()
        assert "worker 1 does not answer" in said.err
        assert {row["id"] for row in json.loads(said.out)["rows"]} == {id for id in ids if id_shard(id) == 0}
        os.kill(pid, signal.SIGCONT)


# --- changes -------------------------------------------------------------------------------------


def test_a_change_of_bindings_is_in_force_in_both_when_the_command_ends(
    tmp_path: Path, receiver: StrictSink, capsys: pytest.CaptureFixture[str]
) -> None:
    with relay(tmp_path, config(tmp_path, receiver.port)) as one:
        both_run(one)
        command = Commands(one, capsys)
        marked = len(send_to_both(one.ports["in"]))
        command("sinks", "disable", "Marks")
        plain = len(send_to_both(one.ports["in"]))
        command("sinks", "enable", "Marks")
        again = len(send_to_both(one.ports["in"]))
        arrivals = receiver.wait_for(marked + plain + again)
        assert sum(b"X-Marked" in arrival.content for arrival in arrivals) == marked + again


def test_faults_of_both_count_together_and_switch_off_in_both(
    tmp_path: Path, receiver: StrictSink, capsys: pytest.CaptureFixture[str]
) -> None:
    with relay(tmp_path, config(tmp_path, receiver.port)) as one:
        both_run(one)
        sent = send_to_both(one.ports["in"], 3, "bad@office.example")
        file = StandingFile(tmp_path / "spool" / STANDING_FILE)
        wait_until(lambda: any(known.measure is Measure.OFF for known in file.read()))
        told = [line for line in tuple(one.log) if line["event"] == "event.binding-switched-off"]
        before = len([line for line in tuple(one.log) if line["event"] == "event.sink-failed"])
        sent += send_to_both(one.ports["in"], 2, "bad@office.example")
        receiver.wait_for(len(sent))
        after = len([line for line in tuple(one.log) if line["event"] == "event.sink-failed"])
        # What had begun when it was switched off may still fail; what both took since does not.
        assert after - before <= 2
        assert len(told) <= 1
        command = Commands(one, capsys)
        command("sinks", "enable", "Fails")
        assert file.read() == ()


class Load:
    """Sends messages one after the other, each over a connection of its own, and counts."""

    def __init__(self, port: int, threads: int = 4) -> None:
        self.port = port
        self.taken: list[str] = []
        self.broken: list[str] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(threads)]

    def _send(self) -> None:
        while not self._over.is_set():
            try:
                self.taken.append(send(self.port))
            except (smtplib.SMTPException, OSError, AssertionError) as error:
                self.broken.append(repr(error))

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


def received(receiver: StrictSink) -> set[str]:
    """Ids in the trace fields of what came."""
    found: set[str] = set()
    for arrival in tuple(receiver.arrivals):
        words = arrival.content.split(b"\r\nFrom:")[0].split()
        found.add(words[words.index(b"id") + 1].rstrip(b";").decode())
    return found


def test_reloads_with_two_workers_reset_nobody(
    tmp_path: Path, receiver: StrictSink, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each time another configuration, with a second listener that comes and goes; both workers take it."""
    toml = config(tmp_path, receiver.port)
    with relay(tmp_path, toml) as one:
        both_run(one)
        command = Commands(one, capsys)
        with Load(one.ports["in"]) as load:
            until = time.monotonic() + LOAD_SECONDS
            count = 0
            while time.monotonic() < until or count < 3:
                count += 1
                one.config.write_text(
                    toml.replace("hop_limit", "") + (SECOND if count % 2 else "") + f"# {count}\n"
                )
                assert json.loads(command("reload", "--json"))["taken"]
            one.config.write_text(toml + SECOND + "# the last\n")
            command("reload")
        assert load.broken == []
        wait_until(lambda: listens(one.ports.get("second", 0)))  # its last port: the log comes in gusts
        send_to_both(one.ports["second"], 1)
        taken = set(load.taken)
        assert len(taken) > count
        wait_until(lambda: taken <= received(receiver))


def test_a_reload_that_one_cannot_take_is_taken_by_none(
    tmp_path: Path, receiver: StrictSink, capsys: pytest.CaptureFixture[str]
) -> None:
    toml = config(tmp_path, receiver.port)
    with relay(tmp_path, toml) as one:
        both_run(one)
        before = json.loads(Commands(one, capsys)("status", "--json"))["revision"]
        one.config.write_text(toml + "\n[[listener]]\nadress = 5\n")
        assert run(["reload", "-c", str(one.config)]) == 1
        one.config.write_text(toml)
        assert json.loads(Commands(one, capsys)("status", "--json"))["revision"] == before


# --- deaths --------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 1])
def test_a_worker_is_killed_under_load_and_nothing_is_lost(
    tmp_path: Path, receiver: StrictSink, number: int
) -> None:
    with relay(tmp_path, config(tmp_path, receiver.port)) as one:
        both_run(one)
        other = one.workers[1 - number]
        with Load(one.ports["in"]) as load:
            wait_until(lambda: len(load.taken) > 10)
            killed = one.workers[number]
            os.kill(killed, signal.SIGKILL)
            count = len(load.taken)
            wait_until(lambda: len(load.taken) > count + 10)
            wait_until(lambda: one.workers.get(number, killed) != killed)
            count = len(load.taken)
            wait_until(lambda: len(load.taken) > count + 10)
        assert one.workers[1 - number] == other
        taken = set(load.taken)
        wait_until(lambda: taken <= received(receiver))
        assert one.stop() == 0


def test_one_worker_adopts_what_two_have_left(tmp_path: Path, receiver: StrictSink, nobody: int) -> None:
    """And two go on where one was."""
    with relay(tmp_path, config(tmp_path, nobody)) as one:
        both_run(one)
        ids = send_to_both(one.ports["in"])
        assert one.stop() == 0
    with relay(tmp_path, config(tmp_path, receiver.port, workers=1)) as one:
        run(["queue", "retry", "--all", "-c", str(one.config)])
        wait_until(lambda: set(ids) <= received(receiver))
        ids.append(send(one.ports["in"]))
        assert id_shard(ids[-1]) == 0
        assert one.stop() == 0
    with relay(tmp_path, config(tmp_path, receiver.port)) as one:
        both_run(one)
        ids += send_to_both(one.ports["in"], 1)
        wait_until(lambda: set(ids) <= received(receiver))
        assert one.stop() == 0
    assert len(receiver.arrivals) == len(ids)


def test_a_shard_in_which_nothing_is_left_is_removed(tmp_path: Path, receiver: StrictSink) -> None:
    for workers in (2, 1):
        with relay(tmp_path, config(tmp_path, receiver.port, workers=workers)) as one:
            if workers == 2:
                both_run(one)
            assert one.stop() == 0
    assert SpoolPaths(tmp_path / "spool").shards() == (0,)


def test_a_second_relay_and_offline_commands_are_refused_while_one_worker_lives(
    tmp_path: Path, receiver: StrictSink, capsys: pytest.CaptureFixture[str]
) -> None:
    with relay(tmp_path, config(tmp_path, receiver.port)) as one:
        both_run(one)
        orphan, parent = one.workers[1], one.pid
        os.kill(orphan, signal.SIGSTOP)
        os.kill(parent, signal.SIGKILL)
        wait_until(lambda: not SpoolPaths(tmp_path / "spool").control.exists())
        try:
            assert run(["restore", str(tmp_path), "-c", str(one.config)]) == 1
            with pytest.raises(RuntimeError, match="in use by process"):
                relay(tmp_path, one.config.read_text()).start()
        finally:
            os.kill(orphan, signal.SIGCONT)
        wait_until(lambda: not Path(f"/proc/{orphan}").exists())
