"""Commands as people run them, beside a relay in a process of its own and with that relay down; and its signals."""

from __future__ import annotations

import contextlib
import io
import json
import smtplib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from lonedot import cli
from lonedot.terms.ids import MessageId
from lonedot.testing.process import RelayProcess
from tests.peers.strict_sink import StrictSink
from tests.system.talk import MESSAGE, PATIENCE, first_config, id_of

KEEP = 'keep_content = "all"'
Row = dict[str, object]


def send(port: int, octets: bytes = MESSAGE, *recipients: str) -> MessageId:
    """One message from a client that knows nothing of us; its id."""
    with smtplib.SMTP("127.0.0.1", port, timeout=PATIENCE) as client:
        client.ehlo("client.example")
        client.mail("c@office.example")
        for recipient in recipients or ("anna@dest.example",):
            assert client.rcpt(recipient)[0] == 250
        code, words = client.data(octets)
        return id_of(f"{code} {words.decode()}")


def run(folder: Path, *arguments: str, code: int = 0) -> bytes:
    """A command with this folder's configuration, run here to save time; what it printed."""
    out, err = (
        io.TextIOWrapper(io.BytesIO(), write_through=True),
        io.TextIOWrapper(io.BytesIO(), write_through=True),
    )
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        ended = cli.run([*arguments, "-c", str(folder / "lonedot.toml")])
    said = out.buffer.getvalue(), err.buffer.getvalue()
    assert ended == code, (ended, *said)
    return b"".join(said[: 1 + bool(code)])


def run_apart(folder: Path, *arguments: str, code: int = 0) -> bytes:
    """The same in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "lonedot", *arguments, "-c", str(folder / "lonedot.toml")],
        capture_output=True,
        check=False,
        timeout=2 * PATIENCE,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert b"Traceback" not in done.stderr
    return done.stdout + (done.stderr if code else b"")


def value(folder: Path, *arguments: str, code: int = 0) -> Row:
    """What a command prints with --json."""
    return cast(Row, json.loads(run(folder, *arguments, "--json", code=code)))


def rows(folder: Path, *arguments: str) -> dict[str, Row]:
    """The listing by id."""
    listed = cast("list[Row]", value(folder, "queue", "list", *arguments)["rows"])
    return {str(row["id"]): row for row in listed}


def attempts_of(listing: dict[str, Row]) -> int:
    """Of all messages together."""
    return sum(cast("int", row["attempts"]) for row in listing.values())


def wait_until(claim: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not claim():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def nobody() -> Iterator[int]:
    """A port where connections are refused."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.mark.parametrize("running", [True, False], ids=["running", "down"])
def test_the_queue_by_hand(tmp_path: Path, nobody: int, running: bool) -> None:
    """List, show, hold, release, retry, export, delete: the same through the relay and without it."""
    with RelayProcess(tmp_path, first_config(nobody, server=KEEP)) as relay:
        first = send(relay.ports["in"])
        second = send(relay.ports["in"], MESSAGE, "bert@else.example")
        wait_until(lambda: all("refused" in str(row["recipients"]) for row in rows(tmp_path).values()))
        if not running:
            assert relay.stop() == 0

        assert set(rows(tmp_path)) == {first, second}
        assert set(rows(tmp_path, "--recipient", "@else.example")) == {second}
        assert rows(tmp_path)[first]["state"] == "queued"
        text = run_apart(tmp_path, "queue", "list").decode()
        assert first in text and "anna@dest.example" in text

        shown = value(tmp_path, "queue", "show", first)
        assert shown["id"] == first
        assert first in run(tmp_path, "queue", "show", first).decode()
        assert run(tmp_path, "queue", "show", first, "--octets", "arrival") == MESSAGE
        queued = run(tmp_path, "queue", "show", first, "--octets", "queued")
        assert queued.startswith(b"Received: from client.example") and queued.endswith(MESSAGE)
        assert b"nothing of it was sent yet" in run(
            tmp_path, "queue", "show", first, "--octets", "sent", code=1
        )

        journey = run(tmp_path, "why", first).decode()
        assert "refused" in journey
        why = json.dumps(value(tmp_path, "why", first))
        assert "anna@dest.example" in why and f"127.0.0.1]:{nobody}" in why

        assert value(tmp_path, "queue", "hold", first, "--reason", "on request")["done"] == [first]
        assert rows(tmp_path)[first]["state"] == "held"
        assert rows(tmp_path)[first]["reason"] == "on request"
        assert b"release it first" in run(tmp_path, "queue", "retry", first, code=1)
        assert value(tmp_path, "queue", "release", first)["done"] == [first]
        before = attempts_of(rows(tmp_path))
        assert value(tmp_path, "queue", "retry", second)["done"] == [second]
        if running:
            wait_until(lambda: attempts_of(rows(tmp_path)) > before)  # one of them asks for both

        exported = value(
            tmp_path, "queue", "export", "--to", str(tmp_path / "out"), "--sender", "c@office.example"
        )
        assert sorted(cast("list[str]", exported["files"])) == sorted(
            f"{id}.{kind}" for id in (first, second) for kind in ("eml", "json", "message")
        )
        assert (tmp_path / "out" / f"{first}.eml").read_bytes() == queued
        assert json.loads((tmp_path / "out" / f"{first}.json").read_bytes())["id"] == first

        assert b"add --yes" in run(tmp_path, "queue", "delete", first, code=2)
        assert value(tmp_path, "queue", "delete", first, "--yes")["done"] == [first]
        assert set(rows(tmp_path)) == {second}
        assert rows(tmp_path, "--state", "finished")[first]["state"] == "finished"
        assert b"no message" in run(tmp_path, "queue", "show", "0000000000000", code=1)


@pytest.mark.parametrize("running", [True, False], ids=["running", "down"])
def test_what_was_sent_can_be_shown_octet_for_octet(tmp_path: Path, running: bool) -> None:
    octets = b"Subject: scan\n\n%PDF\n.\n%%EOF\n"
    with StrictSink() as sink, RelayProcess(tmp_path, first_config(sink.port, server=KEEP)) as relay:
        with smtplib.SMTP("127.0.0.1", relay.ports["in"], timeout=PATIENCE) as client:
            client.ehlo("client.example")
            client.mail("c@office.example")
            client.rcpt("anna@dest.example")
            client.docmd("DATA")
            client.send(octets.replace(b"\n.", b"\n..") + b"\r\n.\r\n")
            code, words = client.getreply()
            id = id_of(f"{code} {words.decode()}")
        wire = sink.wait_for(1)[0].wire
        wait_until(lambda: id in rows(tmp_path, "--state", "finished"))
        if not running:
            assert relay.stop() == 0
        assert run(tmp_path, "queue", "show", id, "--octets", "sent") == wire
        shown = value(tmp_path, "queue", "show", id, "--octets", "sent")
        assert "SHA-256 compared" in json.dumps(shown["remarks"])
        journey = run(tmp_path, "why", id, "--transcript").decode()
        assert "bare LF" in journey
        assert "250 2.0.0 taken" in journey


def test_a_config_with_faults_is_not_served_and_check_names_them(tmp_path: Path) -> None:
    (tmp_path / "lonedot.toml").write_text(
        first_config(1).replace('"127.0.0.0/8"', '"0.0.0.0/0"').replace("smarthost", "smart_host")
    )
    found = value(tmp_path, "check", code=1)
    faults = cast("list[dict[str, object]]", found["faults"])
    words = json.dumps(faults)
    assert "open relay" in words and "smart_host" in words
    assert all(fault["line"] for fault in faults)
    said = run_apart(tmp_path, "serve", code=1)
    assert b"open relay" in said
    assert not (tmp_path / "spool").exists()


def test_a_sound_config_is_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "lonedot.toml").write_text(first_config(1))
    assert value(tmp_path, "check")["usable"] is True


def test_a_second_relay_on_the_same_spool_is_refused_with_words(tmp_path: Path) -> None:
    with RelayProcess(tmp_path, first_config(1)) as relay:
        said = run_apart(tmp_path, "serve", code=1).decode()
        assert str(relay.pid) in said
        assert "spool" in said
        with socket.create_connection(("127.0.0.1", relay.ports["in"]), timeout=PATIENCE) as line:
            assert line.recv(100).startswith(b"220")  # the first one was not disturbed


def test_an_address_that_is_taken_is_said(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (tmp_path / "lonedot.toml").write_text(first_config(1).replace("127.0.0.1:0", f"127.0.0.1:{port}"))
        said = run_apart(tmp_path, "serve", code=1).decode()
    assert f"cannot listen on 127.0.0.1:{port}" in said
    # Nothing is left behind that would hinder the next start.
    with RelayProcess(tmp_path, first_config(1)) as relay:
        assert relay.ports["in"]


def test_sigterm_lets_a_message_finish_and_ends_with_0(tmp_path: Path) -> None:
    """The session in the middle of its message gets its 250; what was accepted is delivered by the next start."""
    with StrictSink() as sink:
        relay = RelayProcess(tmp_path, first_config(sink.port))
        relay.start()
        line = socket.create_connection(("127.0.0.1", relay.ports["in"]), timeout=PATIENCE)
        idle = socket.create_connection(("127.0.0.1", relay.ports["in"]), timeout=PATIENCE)
        with line, idle:
            replies, goodbye = line.makefile("rb"), idle.makefile("rb")
            assert replies.readline().startswith(b"220")
            assert goodbye.readline().startswith(b"220")
            line.sendall(b"HELO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n")
            assert [replies.readline()[:3] for _ in range(4)] == [b"250", b"250", b"250", b"354"]
            codes: list[int] = []
            stopping = threading.Thread(target=lambda: codes.append(relay.stop(PATIENCE)))
            stopping.start()
            assert goodbye.readline().startswith(b"421 4.3.2")
            assert goodbye.readline() == b""
            line.sendall(b"Subject: late\r\n\r\ntext\r\n.\r\n")
            assert replies.readline().startswith(b"250 2.0.0")
            stopping.join(PATIENCE)
            assert codes == [0]
            replies.close()
            goodbye.close()
        with RelayProcess(tmp_path, first_config(sink.port)):
            sink.wait_for(1)
    assert len(sink.arrivals) == 1
    assert relay.other_output == []


# --- logs ----------------------------------------------------------------------------------------


def test_one_id_from_the_socket_to_the_report_and_always_the_remotes_words(tmp_path: Path) -> None:
    """Log lines of a message that was delivered, and of one that was refused and returned."""
    secret = "hunter2-but-longer"
    route = f'login = "relay-user"\npassword = "{secret}"\ntls = "off"'
    with StrictSink(extensions=("PIPELINING", "8BITMIME", "SIZE 3000")) as sink:
        toml = first_config(sink.port) + (
            '\n[[route]]\nname = "closed"\nto = "closed.example"\nsmarthost = "127.0.0.1:9"\n' + route
        )
        toml = toml.replace('to = "*"', 'to = ["dest.example", "office.example"]')
        with RelayProcess(tmp_path, toml) as relay:
            delivered = send(relay.ports["in"])
            returned = send(relay.ports["in"], MESSAGE + b"x\r\n" * 2000)
            waiting = send(relay.ports["in"], MESSAGE, "a@closed.example")
            sink.wait_for(2)
            wait_until(lambda: rows(tmp_path)[waiting]["attempts"] == 1)
            assert relay.stop() == 0
        log = list(relay.log)

    def told(id: str) -> dict[str, dict[str, object]]:
        return {str(line["event"]): line for line in log if line.get("id") == id}

    one = told(delivered)
    assert one["message.accepted"]["client"] == "127.0.0.1"
    assert one["message.accepted"]["session"]
    assert one["message.delivered"]["reply"] == "250 2.0.0 taken"
    two = told(returned)
    assert "3000" in str(two["message.failed"]["reason"])
    assert two["message.reported"]["recipient"] == "c@office.example"
    assert told(str(two["message.reported"]["report"]))["message.delivered"]["reply"] == "250 2.0.0 taken"
    three = told(waiting)
    assert "refused" in str(three["message.deferred"]["reason"])
    said = "\n".join(relay.other_output)
    assert "Traceback" not in said
    assert all({"at", "level", "event"} <= set(line) for line in log)
    everything = (
        said
        + json.dumps(log)
        + "".join(path.read_text("latin-1") for path in (tmp_path / "spool").rglob("*") if path.is_file())
    )
    assert secret not in everything
