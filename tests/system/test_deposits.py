"""A whole relay whose routes end on this machine, and what is left when it is killed."""

from __future__ import annotations

import smtplib
import time
from pathlib import Path

from lonedot.testing.process import RelayProcess

CONFIG = """
[server]
hostname = "relay.example.com"
spool = "spool"

[[listener]]
name = "in"
address = "127.0.0.1:0"
relay_from = ["127.0.0.0/8"]

[[route]]
name = "mailboxes"
to = "*"
maildir = "{folder}/mail/{{local}}"
maildir_create = true
"""


def marks(folder: Path) -> list[str]:
    """The number in each message of a mailbox."""
    found = []
    for path in (folder / "mail" / "anna").glob("new/*"):
        octets = path.read_bytes()
        assert octets.startswith(b"Return-Path: <") and octets.endswith(b"\nthe end\n")
        assert b"\r" not in octets
        found.append(octets.rpartition(b"number ")[2].partition(b"\n")[0].decode())
    return sorted(found)


def send(port: int, numbers: range) -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
        for number in numbers:
            client.sendmail(
                "copier@office.example",
                ["anna@dest.example"],
                f"Subject: scan\r\n\r\nnumber {number}\r\nthe end\r\n",
            )


def wait_for(folder: Path, numbers: range) -> list[str]:
    deadline = time.monotonic() + 60
    wanted = {str(number) for number in numbers}
    while not wanted <= set(found := marks(folder)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert wanted <= set(found)
    return found


def test_killed_while_it_delivers_it_loses_nothing_and_doubles_what_was_in_flight(tmp_path: Path) -> None:
    (tmp_path / "mail").mkdir()
    numbers = range(60)
    with RelayProcess(tmp_path, CONFIG.format(folder=tmp_path)) as relay:
        send(relay.ports["in"], numbers)
        relay.kill()
        before = marks(tmp_path)
        relay.start()
        found = wait_for(tmp_path, numbers)
        # One message more: behind it nothing of the others is still to come.
        send(relay.ports["in"], range(60, 61))
        found = wait_for(tmp_path, range(61))
    doubled = len(found) - len(set(found))
    assert doubled <= len(before)
    # No message arrived more often than twice: once before the kill, once after it.
    assert all(found.count(one) <= 2 for one in set(found))
    assert all(found.count(one) == 1 for one in found if one not in before)
