"""POP3 mailboxes of a whole relay: commands, the screen, and a reload."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from lonedot.app import Relay
from lonedot.testing.relay import running_relay
from tests.unit.reception.pop3_server import Pop3Server

CONFIG = """
[server]
hostname = "relay.example.com"
spool = "spool"

[[listener]]
name = "in"
address = "127.0.0.1:0"

[[route]]
to = "*"
hold = "kept"

[[pop3]]
name = "home"
host = "127.0.0.1"
port = {port}
tls = "none"
user = "anna"
password = "{password}"
mailbox = "anna@example.com"
{more}
"""


def mail(number: int) -> bytes:
    return b"From: c@b.example\r\nSubject: n%d\r\n\r\ntext\r\n" % number


async def lonedot(relay: Relay, *words: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "lonedot",
        *words,
        "-c",
        str(relay.config.file),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


async def test_a_mailbox_is_polled_listed_and_shown(tmp_path: Path) -> None:
    async with Pop3Server().running() as server:
        server.mailbox = [("u1", mail(1)), ("bad", mail(2) + b"\0\r\n")]
        toml = CONFIG.format(port=server.port, password="secret", more="")
        async with running_relay(tmp_path, toml) as relay:
            code, said = await lonedot(relay, "pop3", "poll", "home", "--json")
            account = json.loads(said)
            assert (code, account["taken"], account["refused"], account["words"]) == (0, 1, 1, "")
            code, said = await lonedot(relay, "pop3", "list")
            assert code == 0
            assert f"home: anna at pop3://127.0.0.1:{server.port}" in said
            assert "1 left there for good" in said
            _, said = await lonedot(relay, "status")
            assert "1 message left there" in said and "lonedot pop3 list" in said
            _, said = await lonedot(relay, "queue", "list", "--json")
            (row,) = json.loads(said)["rows"]
            assert row["sender"] in ("", "<>")
            _, said = await lonedot(relay, "why", row["id"])
            assert "fetched it from the mailbox home" in said
            code, said = await lonedot(relay, "pop3", "poll", "nobody")
            assert code == 1 and "name one of these: home" in said
        code, said = await lonedot(relay, "pop3", "list")
        assert code == 1 and "the relay is down" in said


@pytest.mark.parametrize("more", ["", 'every = "1h"'])
async def test_a_reload_takes_other_accounts_and_leaves_equal_ones(tmp_path: Path, more: str) -> None:
    async with Pop3Server().running() as server:
        server.has_sasl = False
        server.mailbox = [("u1", mail(1))]
        toml = CONFIG.format(port=server.port, password="wrong", more="")
        async with running_relay(tmp_path, toml) as relay:
            code, said = await lonedot(relay, "pop3", "poll", "home")
            assert code == 1 and "refuses the login" in said and "wrong" not in said
            relay.config.file.write_text(CONFIG.format(port=server.port, password="secret", more=more))
            assert (await lonedot(relay, "reload"))[0] == 0
            code, said = await lonedot(relay, "pop3", "poll", "home", "--json")
            assert (code, json.loads(said)["taken"]) == (0, 1)
            looks = len(server.verbs("QUIT"))
            assert (await lonedot(relay, "reload"))[0] == 0
            _, said = await lonedot(relay, "pop3", "list", "--json")
            (account,) = json.loads(said)["accounts"]
            assert account["looks"] == looks == len(server.verbs("QUIT"))
            relay.config.file.write_text(CONFIG.partition("[[pop3]]")[0])
            assert (await lonedot(relay, "reload"))[0] == 0
            assert (await lonedot(relay, "pop3", "list"))[1].strip() == "no [[pop3]] in the configuration"
