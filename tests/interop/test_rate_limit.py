"""The rate limit in front of a real client: swaks is told to come again, and when."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from lonedot.testing.process import RelayProcess
from lonedot.testing.relay import CONFIG
from tests.need import need
from tests.peers.strict_sink import StrictSink

pytestmark = pytest.mark.peer

LIMITS = """
[[sink]]
name = "Rate"
import = "lonedot.sinks.builtin.rate_limit:RateLimit"
event = "{event}"
settings = {{ limit = 2, window_seconds = 60, per = "{per}" }}

[[sink]]
name = "Octets"
import = "lonedot.sinks.builtin.rate_limit:RateLimitOctets"
settings = {{ limit = 30000, window_seconds = 60, per = "sender" }}
"""


def swaks(relay: RelayProcess, *more: str, sender: str = "copier@office.example") -> tuple[int, str]:
    command = [
        str(need("swaks", "swaks")),
        *("--server", f"127.0.0.1:{relay.ports['in']}", "--from", sender, "--to", "anna@dest.example"),
        *more,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("event", "per", "what"),
    [("mail", "network", "messages"), ("rcpt", "sender", "recipients"), ("data", "all", "messages")],
)
def test_the_third_comes_later(tmp_path: Path, event: str, per: str, what: str) -> None:
    with StrictSink() as receiver:
        toml = CONFIG.format(server="workers = 1", listener="", route="", port=receiver.port)
        with RelayProcess(tmp_path, toml + LIMITS.format(event=event, per=per)) as relay:
            assert [swaks(relay)[0] for _ in range(2)] == [0, 0]
            code, said = swaks(relay)
            assert code != 0
            told = re.search(rf"<\*\* 451 4\.7\.1 At most 2 {what} in 60 s; try again in (\d+) s", said)
            assert told is not None, said
            assert 55 <= int(told[1]) <= 65
            if per == "sender":
                assert swaks(relay, sender="other@office.example")[0] == 0
            receiver.wait_for(3 if per == "sender" else 2)
            assert receiver.faults == []


def test_connections_are_refused_in_the_greeting(tmp_path: Path) -> None:
    with StrictSink() as receiver:
        toml = CONFIG.format(server="workers = 1", listener="", route="", port=receiver.port)
        with RelayProcess(tmp_path, toml + LIMITS.format(event="connect", per="network")) as relay:
            assert [swaks(relay, "--quit-after", "EHLO")[0] for _ in range(2)] == [0, 0]
            code, said = swaks(relay)
            assert code != 0
            assert re.search(r"421 4\.7\.1 At most 2 connections in 60 s; try again in \d+ s", said), said


def test_octets(tmp_path: Path) -> None:
    with StrictSink() as receiver:
        toml = CONFIG.format(server="workers = 1", listener="", route="", port=receiver.port)
        limits = LIMITS.format(event="mail", per="network").replace("limit = 2,", "limit = 10,")
        (tmp_path / "message.eml").write_text("Subject: large\n\n" + ("x" * 70 + "\n") * 250)
        with RelayProcess(tmp_path, toml + limits) as relay:
            large = ("--data", f"@{tmp_path / 'message.eml'}")
            assert swaks(relay, *large)[0] == 0
            code, said = swaks(relay, *large)
            assert code != 0
            assert re.search(r"451 4\.7\.1 At most 30000 octets in 60 s; try again in \d+ s", said), said
            assert swaks(relay)[0] == 0, "a small one still goes through"
            receiver.wait_for(2)
