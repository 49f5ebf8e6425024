"""The recording receiver as a command."""

import json
import queue
import smtplib
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lonedot.cli import run


class Receiver:
    """The running command; `line` gives what it printed next."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))

    def line(self) -> str:
        return self._lines.get(timeout=20)

    def end(self) -> int:
        code = self.process.wait(timeout=20)
        self._reader.join(timeout=20)
        return code


@contextmanager
def receiving(*arguments: str) -> Iterator[tuple[Receiver, int]]:
    """The command with these arguments, and its port."""
    command = [sys.executable, "-u", "-m", "lonedot", "receive", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        receiver = Receiver(process)
        try:
            first = receiver.line()
            found = (
                json.loads(first)["listening"]["port"]
                if first.startswith("{")
                else first.split(":")[1].split(" ")[0]
            )
            yield receiver, int(found)
        finally:
            process.terminate()
            receiver.end()


def send(port: int, octets: bytes = b"Subject: x\r\n\r\nhello\r\n") -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=10) as client:
        client.sendmail("a@example.com", ["b@example.com"], octets)


def test_messages_become_files(tmp_path: Path) -> None:
    folder = tmp_path / "received"
    folder.mkdir()
    (folder / "0007.eml").write_text("an older one", encoding="utf-8")
    with receiving("--folder", str(folder), "--raw", "--count", "2") as (receiver, port):
        send(port)
        assert receiver.line().startswith(
            "1: from a@example.com to b@example.com, 21 octets, ended by CR LF . CR LF, client 127.0.0.1:"
        )
        send(port, b"Subject: y\r\n\r\n.dot\r\n")
        assert receiver.line().endswith(f"-> {folder}/0009.eml")
        assert receiver.end() == 0
    assert (folder / "0007.eml").read_text(encoding="utf-8") == "an older one"
    assert (folder / "0008.eml").read_bytes() == b"Subject: x\r\n\r\nhello\r\n"
    assert (folder / "0009.eml").read_bytes() == b"Subject: y\r\n\r\n.dot\r\n"
    assert (folder / "0009.wire").read_bytes() == b"Subject: y\r\n\r\n..dot\r\n.\r\n"
    assert stat.S_IMODE((folder / "0008.eml").stat().st_mode) == 0o600
    account = json.loads((folder / "0008.transcript").read_bytes())
    assert (account["reverse_path"], account["recipients"], account["mode"]) == (
        "a@example.com",
        ["b@example.com"],
        "DATA",
    )
    assert account["tail"] == "Subject: x<CR><LF><CR><LF>hello<CR><LF>.<CR><LF>"
    assert any(line["who"] == "client" and "MAIL" in line["text"].upper() for line in account["conversation"])


def test_a_client_that_waits_is_named() -> None:
    with (
        receiving("--silence", "0.05") as (receiver, port),
        socket.create_connection(("127.0.0.1", port)) as client,
    ):
        heard = client.makefile("rb")
        for line in (
            b"HELO x\r\n",
            b"MAIL FROM:<a@example.com>\r\n",
            b"RCPT TO:<b@example.com>\r\n",
            b"DATA\r\n",
        ):
            heard.readline()
            client.sendall(line)
        heard.readline()
        client.sendall(b"Subject: x\n\n%%EOF\n.\r\n")
        assert receiver.line().endswith(
            " is waiting inside DATA after 21 octets: it ended with LF . CR LF; "
            "a strict receiver is still waiting for CR LF . CR LF"
        )


def test_json_and_scripted_answers() -> None:
    with receiving(
        "--json", "--lenient", "--no-offer", "8bitmime", "--answer", "rcpt=550 5.1.1 No such user"
    ) as (
        receiver,
        port,
    ):
        with smtplib.SMTP("127.0.0.1", port, timeout=10) as client:
            client.ehlo()
            assert not client.has_extn("8bitmime")
            client.mail("a@example.com")
            assert client.rcpt("b@example.com") == (550, b"5.1.1 No such user")
        receiver.process.terminate()
        assert receiver.end() == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["--listen", "25"],
        ["--raw"],
        ["--answer", "lunch=250 OK"],
        ["--answer", "mail=99 OK"],
        ["--no-offer", "TURBO"],
        ["--hang-up", "lunch"],
    ],
)
def test_usage(arguments: list[str]) -> None:
    assert run(["receive", *arguments]) == 2


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert run(["receive", "--listen", f"127.0.0.1:{taken.getsockname()[1]}"]) == 1
    assert "cannot listen at" in capsys.readouterr().err
