"""Two workers, seen as one relay: over HTTP and on the screen, also while one of them hangs or is dead."""

from __future__ import annotations

import json
import os
import signal
import smtplib
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families as plain

from lonedot.terms.ids import id_shard
from lonedot.testing.process import SUPERVISED, RelayProcess
from tests.system.talk import MESSAGE, PATIENCE, first_config

METRICS = '\n[metrics]\naddress = "127.0.0.1:0"\n'
MESSAGES = 12


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[RelayProcess]:
    """Two workers with mail that waits: nobody listens at the next hop."""
    toml = first_config(1, server="workers = 2", more=METRICS)
    with RelayProcess(tmp_path, toml, program=SUPERVISED) as process:
        eventually(lambda: value(process, "lonedot_worker_up", worker="1") == 1)
        for _ in range(MESSAGES):
            with smtplib.SMTP("127.0.0.1", process.ports["in"], timeout=PATIENCE) as client:
                client.sendmail("c@office.example", ["anna@dest.example"], MESSAGE)
        yield process


def eventually(claim: Callable[[], object]) -> None:
    until = time.monotonic() + PATIENCE
    while not claim():
        assert time.monotonic() < until
        time.sleep(0.05)


def ask(relay: RelayProcess, path: str) -> tuple[int, str]:
    """Status and body of the endpoint that listens last."""
    port = [entry["port"] for entry in relay.log if entry.get("event") == "metrics.listening"][-1]
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def value(relay: RelayProcess, name: str, **labels: str) -> float:
    """The sum of all samples of that name and labels."""
    status, body = ask(relay, "/metrics")
    assert status == 200
    return sum(
        sample.value
        for family in plain(body)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def run(relay: RelayProcess, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "lonedot", *arguments, "-c", str(relay.config)],
        capture_output=True,
        timeout=PATIENCE,
        check=False,
        text=True,
    )
    return done.returncode, done.stdout


def test_both_are_one_over_http_and_on_the_screen(relay: RelayProcess) -> None:
    assert value(relay, "lonedot_messages_accepted_total") == MESSAGES
    assert value(relay, "lonedot_messages", state="queued") == MESSAGES
    assert value(relay, "lonedot_message_size_bytes_count") == MESSAGES
    assert value(relay, "lonedot_workers") == 2
    assert [value(relay, "lonedot_worker_up", worker=number) for number in "01"] == [1, 1]
    health = json.loads(ask(relay, "/healthz")[1])
    assert health["ready"] and health["workers"] == 2

    code, said = run(relay, "status", "--json")
    screen = json.loads(said)
    assert code == 0 and screen["counts"]["queued"] == MESSAGES
    assert sum(group["count"] for group in screen["waiting"]) == MESSAGES
    assert [worker["number"] for worker in screen["workers"]] == [0, 1]
    code, said = run(relay, "top", "--once", "--interval", "0.1", "--json")
    assert code == 0 and json.loads(said)["screen"]["counts"]["queued"] == MESSAGES


def test_one_that_hangs_takes_nothing_from_the_other(relay: RelayProcess) -> None:
    assert value(relay, "lonedot_messages_accepted_total") == MESSAGES
    hung = relay.workers[1]
    os.kill(hung, signal.SIGSTOP)
    try:
        began = time.monotonic()
        assert value(relay, "lonedot_worker_up", worker="1") == 0
        assert time.monotonic() - began < 9
        assert value(relay, "lonedot_worker_up", worker="0") == 1
        assert value(relay, "lonedot_messages_accepted_total") == MESSAGES  # counters do not fall
        status, body = ask(relay, "/healthz")
        assert status == 503 and "worker 1 does not answer" in body
    finally:
        os.kill(hung, signal.SIGCONT)
    eventually(lambda: value(relay, "lonedot_worker_up", worker="1") == 1)
    eventually(lambda: ask(relay, "/healthz")[0] == 200)


def test_one_that_is_killed_is_started_again_and_counts_on(relay: RelayProcess) -> None:
    assert value(relay, "lonedot_messages_accepted_total") == MESSAGES
    killed = relay.workers[1]
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: relay.workers.get(1, killed) != killed)
    eventually(lambda: value(relay, "lonedot_worker_up", worker="1") == 1)
    assert value(relay, "lonedot_messages_accepted_total") == MESSAGES
    assert value(relay, "lonedot_messages", state="queued") == MESSAGES


def test_lines_of_a_message_are_found_whichever_worker_has_it(relay: RelayProcess) -> None:
    code, said = run(relay, "queue", "list", "--json")
    ids = [row["id"] for row in json.loads(said)["rows"]]
    assert len(ids) == MESSAGES
    for id in ids[:4]:
        code, said = run(relay, "logs", id, "--json")
        assert code == 0 and any(id in line for line in json.loads(said)["lines"])


def test_a_log_is_followed_whichever_worker_writes_it(relay: RelayProcess) -> None:
    _, said = run(relay, "queue", "list", "--json")
    ids = [row["id"] for row in json.loads(said)["rows"]]
    for id in {id_shard(id): id for id in ids}.values():  # one of each worker that has any
        following = subprocess.Popen(
            [sys.executable, "-m", "lonedot", "logs", id, "--follow", "-c", str(relay.config)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert following.stdout is not None
        try:
            for line in following.stdout:
                if line.startswith("recorded: "):
                    break
            assert run(relay, "queue", "hold", id)[0] == 0
            assert any('"queue.hold"' in line and id in line for line in following.stdout)
        finally:
            following.send_signal(signal.SIGINT)
            assert following.wait(PATIENCE) == 0
            following.stdout.close()
