"""The command as people use it, and sessions that tcpdump caught: of real peers, and of a sender that is broken."""

from __future__ import annotations

import os
import signal
import smtplib
import socket
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from lonedot.cli import run
from lonedot.diagnosis.capture.files import Frame
from lonedot.diagnosis.sniffing import Sniffer
from lonedot.diagnosis.sniffing_values import Code, SessionReport
from lonedot.testing.process import RelayProcess
from lonedot.testing.relay import CONFIG
from tests.need import need
from tests.peers.postfix import Postfix, PostfixSettings, need_postfix
from tests.peers.strict_sink import StrictSink
from tests.peers.tcpdump import Caught
from tests.unit.diagnosis.capture.wire import Talk, lead, pcap

STORY = b"Subject: scan\r\n\r\n%PDF-1.4\r\n%%EOF\n.\r\n"
GOOD = b"Subject: fine\r\n\r\nfine\r\n.\r\n"


def story(sport: int = 40000) -> Talk:
    return Talk(sport=sport).hello().envelope().c(STORY).wait(600).close(1)


def good(sport: int = 40001) -> Talk:
    return Talk(sport=sport).hello().envelope().c(GOOD).s(b"250 ok\r\n").bye()


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    path = tmp_path / "mail.pcap"
    path.write_bytes(pcap([*story().packets, *good().packets]))
    return path


def test_verdicts_first_then_the_picture(capture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sniff", str(capture)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "%%EOF LF . CR LF" in lines[0]
    assert "FAULT" in lines[0]
    assert "clean, 1 message taken" in lines[1]
    assert any("C ---->" in line and "DATA" in line for line in lines[2:])
    assert lines[-1] == "2 sessions, 1 with faults"


def test_json(capture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sniff", "--json", str(capture)]) == 1
    reports = [msgspec.json.decode(line, type=SessionReport) for line in capsys.readouterr().out.splitlines()]
    assert [report.code for report in reports] == [Code.END_WRONG, None]
    assert reports[0].findings[0].offset == len(STORY) - 4


def test_page(capture: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert run(["sniff", "--html", str(page), str(capture)]) == 1
    text = page.read_text()
    assert text.count("<details") == 2
    assert "%%EOF LF . CR LF" in text


def test_clean_is_exit_code_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mail.pcap"
    path.write_bytes(pcap(good().packets))
    assert run(["sniff", str(path)]) == 0
    assert "1 sessions, 0 with faults" in capsys.readouterr().out


def test_a_damaged_capture(capture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capture.write_bytes(capture.read_bytes()[:-7])
    assert run(["sniff", str(capture)]) == 1
    told = capsys.readouterr()
    assert "ends in the middle of a record" in told.err
    assert "%%EOF LF . CR LF" in told.out
    none = tmp_path / "none.pcap"
    none.write_bytes(b"GIF89a....")
    assert run(["sniff", str(none)]) == 1
    assert "neither pcap nor pcapng" in capsys.readouterr().err


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sniff"]) == 2
    assert run(["sniff", "--seconds", "1", "-"]) == 2
    assert "goes with -i" in capsys.readouterr().err


def _many(count: int) -> Iterator[Frame]:
    """`count` sessions, one in ten with a text of 1 MB; made as they are read."""
    number = 0
    for session in range(count):
        talk = Talk(sport=20000 + session % 40000).hello().envelope()
        talk.c(b"x" * 998 + b"\r\n" if session % 10 else (b"y" * 998 + b"\r\n") * 1000).c(b".\r\n")
        for packet in talk.s(b"250 ok\r\n").bye().packets:
            number += 1
            octets = lead(1, packet.ip) + packet.ip
            yield Frame(number, packet.at, 1, octets, len(octets))


def test_memory_does_not_grow_with_the_capture() -> None:
    sniffer = Sniffer()
    assert sum(1 for _ in sniffer.read(_many(20))) == 20
    tracemalloc.start()
    try:
        messages = sum(report.messages for report in Sniffer().read(_many(300)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert messages == 300
    assert peak < 16 * 1024 * 1024  # 30 MB went through


def _broken_sender(port: int) -> None:
    """Sends the story's octets and waits, as the old service did; shortened to a fraction of a second."""
    with socket.create_connection(("127.0.0.1", port)) as line:
        answers = line.makefile("rb")

        def asked(command: bytes) -> None:
            line.sendall(command)
            while answers.readline()[3:4] == b"-":
                pass

        asked(b"")
        for command in (
            b"EHLO old.example",
            b"MAIL FROM:<c@old.example>",
            b"RCPT TO:<a@dest.example>",
            b"DATA",
        ):
            asked(command + b"\r\n")
        line.sendall(STORY)
        line.settimeout(0.2)
        with pytest.raises(TimeoutError):
            line.recv(1)


@pytest.mark.peer
def test_the_story_as_it_was_caught() -> None:
    with StrictSink() as sink, Caught([sink.port]) as capture:
        _broken_sender(sink.port)
        (report,) = capture.reports(1)
    assert report.code is Code.END_WRONG
    assert "%%EOF LF . CR LF" in report.verdict
    assert report.findings[0].offset == len(STORY) - 4


BODIES = (
    "one line",
    ".\r\n..\r\n.dots at the start\r\n...\r\n",
    "\r\n" * 50,
    "".join(f"line {n}, and more of it to fill some segments\r\n" for n in range(3000)),
    "x" * 900 + "\r\n.",
    "MAIL FROM:<a@b.example>\r\nDATA\r\n.\r\nQUIT\r\n",
)


def _clean_session(port: int, number: int) -> None:
    head = f"From: <c@office.example>\r\nTo: <a@dest.example>\r\nSubject: {number}\r\n\r\n"
    with smtplib.SMTP("127.0.0.1", port) as client:
        for body in (BODIES[number % len(BODIES)], BODIES[0])[: 1 + number % 2]:
            client.sendmail("c@office.example", ["a@dest.example", "b@dest.example"], (head + body).encode())
        if number % 5 == 0:
            client.noop()
            client.rset()


@pytest.mark.peer
def test_no_false_alarm_on_200_clean_sessions_of_real_peers(tmp_path: Path) -> None:
    """Python's client, our relay and Postfix talk to each other and to the strict receiver."""
    need_postfix()
    count = 80
    with StrictSink() as sink, Postfix(PostfixSettings(relayhost=f"[127.0.0.1]:{sink.port}")) as postfix:
        toml = CONFIG.format(server="", listener="", route="", port=postfix.port)
        with RelayProcess(tmp_path, toml) as relay:
            entrance = relay.ports["in"]
            ports = [sink.port, postfix.port, entrance]
            with Caught(ports) as capture:
                for number in range(count):
                    _clean_session(entrance, number)
                    _clean_session(postfix.port, number)
                sink.wait_for(2 * (count + count // 2), 60)
                reports = capture.reports(200)
    assert sink.faults == []
    assert [report.verdict for report in reports if report.is_fault] == []
    assert sum(report.octets_missing for report in reports) == 0
    servers = {report.server for report in reports if report.messages}
    assert servers == {f"127.0.0.1:{port}" for port in ports}


@pytest.mark.peer
def test_live() -> None:
    need("tcpdump", "tcpdump")
    with StrictSink() as sink:
        program = [sys.executable, "-m", "lonedot", "sniff", "-i", "lo", "-p", str(sink.port), "--json"]
        child = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stderr is not None
        first = child.stderr.readline()
        if b"capturing" not in first:
            child.kill()
            child.communicate()
            pytest.skip(f"no right to capture on lo: {first.decode()}")
        _broken_sender(sink.port)
        report = msgspec.json.decode(child.stdout.readline(), type=SessionReport)
        os.kill(child.pid, signal.SIGINT)
        child.communicate(timeout=20)
    assert report.code is Code.END_WRONG
    assert child.returncode == 1


@pytest.mark.peer
def test_an_interface_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    need("tcpdump", "tcpdump")
    assert run(["sniff", "-i", "no-such-interface"]) == 1
    assert "no-such-interface" in capsys.readouterr().err
