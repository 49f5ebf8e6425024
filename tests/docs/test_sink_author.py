"""The page for the author of a sink: its examples work, and it names everything that is there for him."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import lonedot
import lonedot.testing
from lonedot import Effect, Message, Part, Sink
from lonedot.config.load import examine
from lonedot.sinks.calls import Decision
from lonedot.sinks.load import GROUP, load_file
from lonedot.testing import ask_sink, bound, make_message, make_session, run_sink

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "sink-author.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_example_and_its_test(tmp_path: Path) -> None:
    example, _, _, test, _ = blocks("python")
    (tmp_path / "department.py").write_text(example, encoding="utf-8")
    (tmp_path / "test_department.py").write_text(test, encoding="utf-8")
    environment = {
        **os.environ,
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTEST_PLUGINS": "lonedot.testing.plugin",
    }
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "3 passed" in ran.stdout, ran.stdout + ran.stderr


def test_a_class(tmp_path: Path) -> None:
    (tmp_path / "flood.py").write_text(blocks("python")[1], encoding="utf-8")
    flood = bound(load_file(tmp_path / "flood.py"), settings={"most": 1})
    run_sink(flood).assert_untouched()
    assert run_sink(flood).words == "too many from this sender"


def test_a_coroutine(tmp_path: Path) -> None:
    (tmp_path / "policy.py").write_text(blocks("python")[2], encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as thread:
        port = server.getsockname()[1]
        (tmp_path / "policy.py").write_text(
            (tmp_path / "policy.py").read_text(encoding="utf-8").replace("10040", str(port)), encoding="utf-8"
        )

        def answered() -> bytes:
            with server.accept()[0] as connection, connection.makefile("rwb") as stream:
                asked: bytes = stream.readline()
                stream.write(b"no\n")
                return asked

        asked = thread.submit(answered)
        policy = load_file(tmp_path / "policy.py")
        ask_sink(policy, make_session("rcpt", recipient="joe@example.com")).assert_refused("Try again later")
        assert asked.result() == b"joe@example.com\n"


def test_parts(tmp_path: Path) -> None:
    (tmp_path / "footer.py").write_text(blocks("python")[4], encoding="utf-8")
    footer = load_file(tmp_path / "footer.py")
    lead = b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\n\r\nhello'
    tail = b"\r\n--b\r\nContent-Type: application/pdf\r\n\r\nx\r\n--b--\r\n"
    ran = run_sink(footer, lead + tail)
    ran.assert_sound()
    assert ran.octets == lead + b"\r\n-- \r\nExample Ltd\r\n" + tail


def test_what_is_shown_is_on_the_page() -> None:
    members = {name for shown in (Part, Message) for name in dir(shown) if not name.startswith("_")}
    own = {"content", "departure", "scope", "binding_id", "reads_body"}  # the relay's
    elsewhere = {"hop", "recipient", "replies", "outcomes", "report"}  # events.md
    assert not {name for name in members - own - elsewhere - {"id", "size"} if f"{name}" not in PAGE}


@pytest.fixture
def department(tmp_path: Path) -> Sink:
    (tmp_path / "sinks").mkdir()
    (tmp_path / "sinks" / "department.py").write_text(blocks("python")[0], encoding="utf-8")
    return load_file(tmp_path / "sinks" / "department.py")


@pytest.mark.parametrize(
    ("recipients", "largest", "decision", "lead"),
    [
        (["sales@example.com"], 1000, Decision.ACCEPT, b"X-Department: sales\r\n"),
        (["sales@example.com", "it@example.com"], 1000, Decision.ACCEPT, b""),
        (["sales@example.org"], 1, Decision.ACCEPT, b""),
        (["sales@example.com"], 10, Decision.HOLD, b""),
    ],
)
def test_the_example_runs(
    department: Sink, recipients: list[str], largest: int, decision: Decision, lead: bytes
) -> None:
    message = make_message("Subject: an order\n\nten crates\n", recipients=recipients)
    ran = run_sink(department, message, settings={"largest": largest})
    assert ran.decision is decision
    assert ran.octets == lead + message.octets()


def test_the_configuration_takes_it(department: Sink, tmp_path: Path) -> None:
    entry, offered = blocks("toml")
    config = tmp_path / "lonedot.toml"
    config.write_text(
        '[server]\nhostname = "relay.example.com"\n\n[[listener]]\naddress = "127.0.0.1:0"\n\n'
        f'[[route]]\nto = "*"\nsmarthost = "127.0.0.1:2526"\n\n{entry}',
        encoding="utf-8",
    )
    found = examine(config)
    assert found.config is not None, found.faults
    (sink,) = found.config.sinks
    assert sink.name == department.name == "Department"
    assert sink.settings == {"largest": 20_000_000}
    assert department.effects == {Effect.HEADER}
    assert GROUP in tomllib.loads(offered)["project"]["entry-points"]


def test_every_name_of_the_kit_is_on_the_page() -> None:
    missing = {name for name in lonedot.testing.__all__ if name not in PAGE}
    # Types of what others return; `arrivals` tells of its fields, `RelayThread` of its methods.
    assert missing <= {"Arrival", "RunningRelay"}


def test_every_verdict_is_on_the_page() -> None:
    for verdict in ("Next", "Stop", "Hold", "Reject", "Defer", "Discard", "Redirect", "Accept"):
        assert verdict in lonedot.__all__
        assert f"`{verdict}(" in PAGE
