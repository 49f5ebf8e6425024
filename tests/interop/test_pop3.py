"""Mail out of a real Dovecot by POP3, POP3S and STLS: each message exactly once, whoever is killed and when."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lonedot.testing.process import RelayProcess
from tests.peers.dovecot_pop3 import PASSWORD, USER, DovecotPop3, need_dovecot_pop3

CONFIG = """
[server]
hostname = "relay.example.com"
spool = "spool"
log = "json"

[[listener]]
name = "in"
address = "127.0.0.1:0"

[[route]]
to = "*"
hold = "kept, to be counted"

[[pop3]]
name = "home"
host = "127.0.0.1"
port = {port}
tls = "{tls}"
{ca}
user = "{user}"
password = "{password}"
mailbox = "ben@example.com"
every = "10s"
timeout = "20s"
{more}
"""
SEED = 7
MESSAGES = 1000
KILLS = 8
PATIENCE_SECONDS = 120.0


@pytest.fixture
def dovecot() -> Iterator[DovecotPop3]:
    need_dovecot_pop3()
    with DovecotPop3() as one:
        yield one


def config(dovecot: DovecotPop3, tls: str = "none", more: str = "") -> str:
    port = dovecot.tls_port if tls == "implicit" else dovecot.port
    ca = "" if tls == "none" else f'tls_ca = "{dovecot.ca}"'
    return CONFIG.format(port=port, tls=tls, ca=ca, user=USER, password=PASSWORD, more=more)


def message(number: int, body: bytes = b"text\n.dot\n..two\n") -> bytes:
    return b"From: c@b.example\nTo: anna@example.org\nSubject: n%d\n\n%s" % (number, body)


def lonedot(relay: RelayProcess, *words: str) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-m", "lonedot", *words, "-c", str(relay.config), "--json"],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr.decode()
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


def taken(relay: RelayProcess) -> list[str]:
    """UIDLs of what the log says was taken."""
    return [str(entry["uidl"]) for entry in relay.log if entry.get("event") == "pop3.taken"]


def in_custody(relay: RelayProcess) -> list[str]:
    rows = lonedot(relay, "queue", "list", "--limit", "5000")["rows"]
    assert isinstance(rows, list)
    return [str(row["id"]) for row in rows]


def wait_until_taken(relay: RelayProcess, count: int) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while len(taken(relay)) < count:
        assert time.monotonic() < until, f"{len(taken(relay))} of {count} were taken: {relay.log[-3:]}"
        time.sleep(0.01)


@pytest.mark.parametrize("tls", ["none", "starttls", "implicit"])
def test_mail_is_taken_and_deleted(dovecot: DovecotPop3, tmp_path: Path, tls: str) -> None:
    dovecot.put([message(number) for number in range(3)] + [message(3, b"x" * 70 + b"\n") * 1])
    with RelayProcess(tmp_path, config(dovecot, tls)) as relay:
        account = lonedot(relay, "pop3", "poll", "home")
        assert (account["words"], account["taken"]) == ("", 4)
        ids = in_custody(relay)
        assert len(ids) == 4
        record = lonedot(relay, "queue", "show", ids[0])
    assert dovecot.left() == 0
    origin = record["origin"]
    assert isinstance(origin, dict)
    assert (origin["source"], origin["listener"]) == ("pop3", "home")
    assert ("verified" in str(origin["tls"])) is (tls != "none")


def test_mail_stays_where_it_is_to_stay(dovecot: DovecotPop3, tmp_path: Path) -> None:
    dovecot.put(message(number) for number in range(5))
    with RelayProcess(tmp_path, config(dovecot, more="leave_on_server = true")) as relay:
        assert lonedot(relay, "pop3", "poll", "home")["taken"] == 5
        assert lonedot(relay, "pop3", "poll", "home")["taken"] == 5
        relay.kill()
        relay.start()
        dovecot.put([message(5)])
        assert lonedot(relay, "pop3", "poll", "home")["taken"] == 1
        assert len(in_custody(relay)) == 6
    assert dovecot.left() == 6


def test_a_wrong_certificate_and_a_wrong_password_are_told(dovecot: DovecotPop3, tmp_path: Path) -> None:
    dovecot.put([message(1)])
    text = config(dovecot, "implicit").replace("tls_ca", "# tls_ca")
    with RelayProcess(tmp_path, text) as relay:
        account = lonedot(relay, "pop3", "poll", "home")
        assert "certificate is not believed" in str(account["words"])
        relay.config.write_text(config(dovecot, "implicit").replace(f'"{PASSWORD}"', '"wrong secret"'))
        lonedot(relay, "reload")
        account = lonedot(relay, "pop3", "poll", "home")
        assert "refuses the login" in str(account["words"])
        assert "wrong secret" not in json.dumps(relay.log)
    assert dovecot.left() == 1


def test_a_thousand_messages_each_once_whoever_is_killed(dovecot: DovecotPop3, tmp_path: Path) -> None:
    """The relay, Dovecot or both are killed again and again while mail is fetched."""
    dovecot.put(message(number, b"%d\n" % number * 40) for number in range(MESSAGES))
    chance = random.Random(SEED)
    with RelayProcess(tmp_path, config(dovecot)) as relay:
        for _ in range(KILLS):
            done = len(set(taken(relay)))
            if done >= MESSAGES:
                break
            wait_until_taken(relay, len(taken(relay)) + chance.randrange(1, MESSAGES // KILLS))
            whom = chance.choice(["relay", "relay", "dovecot", "both"])
            if whom != "relay":
                dovecot.kill()
            if whom != "dovecot":
                relay.kill()
            if whom != "relay":
                dovecot.start()
            if whom != "dovecot":
                relay.start()
        for _ in range(5):
            account = lonedot(relay, "pop3", "poll", "home")
            if not account["words"] and dovecot.left() == 0:
                break
        assert dovecot.left() == 0
        ids = in_custody(relay)
        relay.stop()
    assert len(ids) == MESSAGES
    assert subjects(tmp_path, ids) == {f"n{number}" for number in range(MESSAGES)}


def subjects(folder: Path, ids: list[str]) -> set[str]:
    """Of the messages in custody, read through an export of all of them."""
    out = folder / "out"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "lonedot",
            "queue",
            "export",
            *ids,
            "-c",
            folder / "lonedot.toml",
            "--to",
            out,
        ],
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    found = set()
    for path in out.glob("*.eml"):
        lines = path.read_bytes().split(b"\r\n")
        found |= {line[9:].decode() for line in lines if line.startswith(b"Subject: ")}
    return found
