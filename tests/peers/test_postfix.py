"""The private Postfix does what tests rely on: it relays, refuses, keeps, and leaves nothing behind."""

from __future__ import annotations

import os
import smtplib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.postfix import Postfix, PostfixError, PostfixSettings, need_postfix
from tests.peers.strict_sink import StrictSink

pytestmark = pytest.mark.peer

MESSAGE = b"From: a@example.com\r\nTo: b@example.net\r\nSubject: dots\r\n\r\n.one\r\n..two\r\nlast\r\n"


@pytest.fixture(autouse=True)
def _postfix_is_there() -> None:
    need_postfix()


@pytest.fixture
def strict_sink() -> Iterator[StrictSink]:
    with StrictSink() as sink:
        yield sink


def send(postfix: Postfix) -> None:
    with smtplib.SMTP(*postfix.address, local_hostname="client.example.com", timeout=20) as client:
        client.sendmail("a@example.com", ["b@example.net"], MESSAGE)


def test_a_message_goes_through(strict_sink: StrictSink) -> None:
    settings = PostfixSettings(relayhost=f"[127.0.0.1]:{strict_sink.port}")
    with Postfix(settings) as postfix:
        send(postfix)
        [arrival] = strict_sink.wait_for(1)
        master = postfix.master_pid
    assert arrival.helo == b"postfix.example.net"
    assert (arrival.reverse_path, arrival.recipients) == (b"a@example.com", (b"b@example.net",))
    assert arrival.content.endswith(b"\r\n\r\n.one\r\n..two\r\nlast\r\n")
    assert arrival.content.startswith(b"Received: from client.example.com")
    assert strict_sink.faults == []
    assert not os.path.exists(f"/proc/{master}")
    assert not postfix.folder.exists()


def test_without_a_relayhost_mail_waits_in_the_queue() -> None:
    with Postfix() as postfix:
        assert postfix.queue_files() == 0
        send(postfix)
        # The queue manager moves the file, and the log is written by a process of its own: both in a moment.
        moments = threading.Event()
        for _ in range(200):
            if postfix.queue_files() == 1 and "from=<a@example.com>" in postfix.log_text():
                return
            moments.wait(0.05)
        pytest.fail(f"{postfix.queue_files()} files; the log says: {postfix.log_text()[-500:]}")


def test_networks_decide_who_may_relay(strict_sink: StrictSink) -> None:
    settings = PostfixSettings(networks=("192.0.2.0/24",), relayhost=f"[127.0.0.1]:{strict_sink.port}")
    with Postfix(settings) as postfix, pytest.raises(smtplib.SMTPRecipientsRefused):
        send(postfix)


def test_parameters_win_and_a_fault_in_them_is_told() -> None:
    with Postfix(PostfixSettings(parameters={"smtpd_banner": "$myhostname ESMTP of a test"})) as postfix:
        with smtplib.SMTP(timeout=20) as client:
            _code, greeting = client.connect(*postfix.address)
        assert greeting == b"postfix.example.net ESMTP of a test"
    with pytest.raises(PostfixError, match="no_such_program_folder"):
        Postfix(PostfixSettings(parameters={"daemon_directory": "/no_such_program_folder"})).start()


def test_a_folder_too_deep_for_sockets_is_told(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    with pytest.raises(PostfixError, match="too long"):
        Postfix(parent=deep).start()
    assert list(deep.iterdir()) == []
