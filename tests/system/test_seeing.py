"""A running relay as it is seen: over HTTP, on the screen, and in its log."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain

from lonedot import cli
from lonedot.app import Relay
from lonedot.observability import log as relay_log
from lonedot.observability.levels import LogLevel
from lonedot.terms.ids import MessageId
from lonedot.testing.relay import running_relay
from tests.peers.strict_sink import StrictSink
from tests.system.talk import PATIENCE, finished, first_config, submit, until

METRICS = '\n[metrics]\naddress = "127.0.0.1:0"\n'
NOBODY = first_config(1, more=METRICS)
"""Nobody listens at the next hop."""


async def ask(relay: Relay, request: bytes) -> tuple[int, bytes, bytes]:
    """Status, header section and body of an answer over HTTP."""
    assert relay.metrics_address is not None
    reader, writer = await asyncio.open_connection(*relay.metrics_address)
    writer.write(request)
    async with asyncio.timeout(30):
        octets = await reader.read()
    writer.close()
    head, _, body = octets.partition(b"\r\n\r\n")
    return int(head.split()[1]) if head else 0, head, body


def get(path: str, *fields: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: x", *fields, "", ""]).encode()


def names_of(body: bytes) -> set[str]:
    return {family.name for family in openmetrics(body.decode())}  # type: ignore[no-untyped-call]


async def run(folder: Path, *arguments: str) -> tuple[int, str]:
    """A command beside the relay; its exit code and what it printed."""
    out = io.StringIO()

    def there() -> int:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            return cli.run([*arguments, "-c", str(folder / "lonedot.toml")])

    return await asyncio.to_thread(there), out.getvalue()


@pytest.fixture
async def waiting(tmp_path: Path) -> AsyncIterator[tuple[Relay, MessageId]]:
    """A relay whose one message waits, and the message's id."""
    async with running_relay(tmp_path, NOBODY) as relay:
        id = await submit(relay)
        await until(relay, id, lambda stored: bool(stored.attempts))
        yield relay, id


async def values(relay: Relay) -> dict[tuple[str, tuple[str, ...]], float]:
    status, _, body = await ask(relay, get("/metrics"))
    assert status == 200
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in plain(body.decode())
        for sample in family.samples
    }


async def test_figures_of_mail_that_waits(waiting: tuple[Relay, MessageId]) -> None:
    relay, _ = waiting
    found = await values(relay)
    assert found["lonedot_messages_accepted_total", ("smtp",)] == 1
    assert found["lonedot_messages", ("queued",)] == 1
    assert found["lonedot_recipients_total", ("deferred", "connect")] >= 1
    assert found["lonedot_oldest_message_age_seconds", ()] > 0
    assert found["lonedot_commit_seconds_count", ()] >= 1
    assert found["lonedot_last_commit_time_seconds", ()] > 0
    assert found["lonedot_message_size_bytes_count", ()] == 1
    assert found["lonedot_sessions", ("in",)] >= 0
    assert found["lonedot_next_hops", ("backing off",)] == 1


async def test_latency_of_mail_that_is_delivered(tmp_path: Path) -> None:
    with StrictSink() as hop:
        async with running_relay(tmp_path, first_config(hop.port, more=METRICS)) as relay:
            await finished(relay, await submit(relay))
            found = await values(relay)
    assert found["lonedot_delivery_latency_seconds_count", ()] == 1
    assert found["lonedot_messages", ("queued",)] == 0
    assert [value for (name, _), value in found.items() if "recipients_total" in name] == [1]


async def test_nothing_in_the_figures_names_an_address(waiting: tuple[Relay, MessageId]) -> None:
    relay, id = waiting
    _, _, body = await ask(relay, get("/metrics"))
    for word in (b"dest.example", b"office.example", id.encode(), b"127.0.0.1:1"):
        assert word not in body


async def test_openmetrics_when_it_is_asked_for(waiting: tuple[Relay, MessageId]) -> None:
    relay, _ = waiting
    _, head, body = await ask(relay, get("/metrics", "Accept: application/openmetrics-text; version=1.0.0"))
    assert b"application/openmetrics-text" in head
    assert names_of(body) >= {"lonedot_messages_accepted"}


async def test_health(waiting: tuple[Relay, MessageId], monkeypatch: pytest.MonkeyPatch) -> None:
    relay, _ = waiting
    status, _, body = await ask(relay, get("/healthz"))
    assert (status, json.loads(body)["ready"], json.loads(body)["live"]) == (200, True, True)
    monkeypatch.setattr(relay.spool, "has_room", lambda octets: False)
    status, _, body = await ask(relay, get("/healthz"))
    assert status == 503
    assert json.loads(body)["why"] == ["the disk is nearly full"]


@pytest.mark.parametrize(
    ("request_octets", "status"),
    [
        (get("/"), 404),
        (b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 405),
        (b"EHLO x\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\n\r\n", 400),
        (b"GET /" + b"x" * 100_000, 431),
    ],
)
async def test_what_is_asked_otherwise(tmp_path: Path, request_octets: bytes, status: int) -> None:
    async with running_relay(tmp_path, NOBODY) as relay:
        answer, _, body = await ask(relay, request_octets)
        assert answer == status
        assert b"xxx" not in body
        assert (await ask(relay, get("/healthz")))[0] == 200


async def test_head_has_no_body(tmp_path: Path) -> None:
    async with running_relay(tmp_path, NOBODY) as relay:
        status, head, body = await ask(relay, b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert status == 200 and b"content-length" in head.lower() and not body


async def test_nothing_listens_unless_it_is_configured(tmp_path: Path) -> None:
    async with running_relay(tmp_path, first_config(1)) as relay:
        assert relay.metrics_address is None


async def test_status_says_what_waits_and_why(waiting: tuple[Relay, MessageId], tmp_path: Path) -> None:
    _, id = waiting
    code, said = await run(tmp_path, "status")
    assert code == 0, said
    assert "1 queued, 0 held" in said and "lonedot queue list" in said
    assert f"lonedot queue retry {id}" in said
    assert "next-hop-unreachable" in said
    assert "next hop out: backing off" in said and "lonedot queue list --route out" in said
    code, said = await run(tmp_path, "status", "--json")
    screen = json.loads(said)
    assert screen["running"] and screen["waiting"][0]["example"] == id and screen["workers"][0]["fault"] == ""


async def test_each_command_that_status_names_is_there(
    waiting: tuple[Relay, MessageId], tmp_path: Path
) -> None:
    _, said = await run(tmp_path, "status")
    commands = [line.split("→ ")[1].split() for line in said.splitlines() if "→ lonedot " in line]
    assert len(commands) >= 4
    for _, *arguments in commands:
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            named = [word for word in arguments[:2] if word.isalpha()]
            assert cli.run([*named, "--help"]) == 0, (arguments, out.getvalue())


async def test_status_of_a_relay_that_is_down(tmp_path: Path) -> None:
    async with running_relay(tmp_path, NOBODY) as relay:
        await submit(relay)
    code, said = await run(tmp_path, "status")
    assert code == 1
    assert "The relay is down." in said and "1 queued" in said and "→ lonedot serve" in said


async def test_top_once(waiting: tuple[Relay, MessageId], tmp_path: Path) -> None:
    code, said = await run(tmp_path, "top", "--once", "--interval", "0.1")
    assert code == 0 and said.startswith("per second: 0 accepted")
    code, said = await run(tmp_path, "top", "--once", "--interval", "0.1", "--json")
    assert json.loads(said)["pace"]["accepted"] == 0


async def test_logs_of_a_message(waiting: tuple[Relay, MessageId], tmp_path: Path) -> None:
    relay, id = waiting
    relay.events.flush()  # they are written in gusts
    older = tmp_path / "older.log"
    older.write_text(f"an older line about {id}\nand one about another\n")
    code, said = await run(tmp_path, "logs", id, "--json", "--file", str(older))
    found = json.loads(said)
    assert code == 0
    assert found["lines"][0] == f"an older line about {id}" and len(found["lines"]) >= 1
    assert [event["kind"] for event in found["events"]] == ["next-hop-unreachable"]
    assert found["sessions"] == [relay.spool.show(id).facts.session]
    assert any(words.startswith("session ") for words in found["transcripts"])
    code, said = await run(tmp_path, "logs", "no-such-id")
    assert code == 1 and "nothing is known" in said
    assert (await run(tmp_path, "logs", "abc"))[0] == 2


async def test_logs_follow_what_comes(waiting: tuple[Relay, MessageId], tmp_path: Path) -> None:
    _, id = waiting
    config = str(tmp_path / "lonedot.toml")
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "lonedot", "logs", id, "--follow", "-c", config, stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE):
            while b"recorded: " not in await child.stdout.readline():
                pass
            relay_log.event("message.noted", LogLevel.ERROR, id=id, words="something more")
            while b"something more" not in await child.stdout.readline():
                pass
    finally:
        child.send_signal(signal.SIGINT)
        await child.wait()
    assert child.returncode == 0
