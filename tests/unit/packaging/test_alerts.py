"""The rules for Prometheus speak of figures and commands that there are, and fire when they should."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from lonedot.observability.metrics import Metric
from lonedot.queue.pace import PaceState
from lonedot.spool.interface import MessageState
from lonedot.terms.outcome import Result
from tests.need import need
from tests.system.test_advice import parses

RULES = Path(__file__).parents[3] / "packaging" / "alerts.yml"
TEXT = RULES.read_text()
ALERTS = re.findall(r"^ +- alert: (\w+)$", TEXT, re.MULTILINE)

RAISED = {
    "LonedotDown": [('up{job="lonedot"}', "0x300")],
    "LonedotWorkerDown": [('lonedot_worker_up{worker="1"}', "0x300")],
    "LonedotMailIsLate": [("lonedot_oldest_message_age_seconds", "14000+60x300")],
    "LonedotQueueGrows": [('lonedot_messages{state="queued"}', "2000+10x300")],
    "LonedotNextHopsInTrouble": [('lonedot_next_hops{state="backing off"}', "1x300")],
    "LonedotMailIsHeld": [('lonedot_messages{state="held"}', "1x300")],
    "LonedotMailIsDamaged": [('lonedot_messages{state="damaged"}', "1x300")],
    "LonedotMailFails": [
        ('lonedot_recipients_total{result="failed", stage="rcpt"}', "0+5x300"),
        ('lonedot_recipients_total{result="delivered", stage="end"}', "0+5x300"),
    ],
    "LonedotSinkFails": [('lonedot_sink_faults_total{sink="stamp"}', "0+1x300")],
    "LonedotRefuses": [('lonedot_messages_refused_total{reply="4xx"}', "0+60x300")],
    "LonedotIsSlow": [("lonedot_loop_lag_seconds", "3x300")],
    "LonedotDiskIsSlow": [
        ('lonedot_commit_seconds_bucket{le="0.3"}', "0+1x300"),
        ('lonedot_commit_seconds_bucket{le="1.0"}', "0+60x300"),
        ('lonedot_commit_seconds_bucket{le="+Inf"}', "0+60x300"),
    ],
    "LonedotEvidenceIsLost": [("lonedot_evidence_lost_total", "0+1x300")],
}
"""Figures, minute by minute, that each must be raised by."""

WELL = [
    ('up{job="lonedot"}', "1x300"),
    ('lonedot_worker_up{worker="0"}', "1x300"),
    ("lonedot_oldest_message_age_seconds", "60x300"),
    ('lonedot_messages{state="queued"}', "20x300"),
    ('lonedot_messages{state="held"}', "0x300"),
    ('lonedot_messages{state="damaged"}', "0x300"),
    ('lonedot_next_hops{state="open"}', "5x300"),
    ('lonedot_recipients_total{result="delivered", stage="end"}', "0+600x300"),
    ('lonedot_recipients_total{result="failed", stage="rcpt"}', "0+10x300"),
    ('lonedot_sink_faults_total{sink="stamp"}', "3x300"),
    ('lonedot_messages_refused_total{reply="5xx"}', "0+60x300"),
    ("lonedot_loop_lag_seconds", "0.01x300"),
    ('lonedot_commit_seconds_bucket{le="0.01"}', "0+60x300"),
    ('lonedot_commit_seconds_bucket{le="+Inf"}', "0+60x300"),
    ("lonedot_evidence_lost_total", "0x300"),
]

_VALUES = {
    ("messages", "state"): {state.value for state in MessageState},
    ("next_hops", "state"): {state.value for state in PaceState},
    ("recipients", "result"): {result.value for result in Result},
    ("messages_refused", "reply"): {"4xx", "5xx"},
}


def exposed() -> dict[str, Metric]:
    """Names as Prometheus has them."""
    names: dict[str, Metric] = {}
    for metric in Metric:
        name = f"lonedot_{metric.value}"
        if metric.facts.bounds:
            names |= {f"{name}_{part}": metric for part in ("bucket", "sum", "count")}
        else:
            names[name if metric.facts.gauge is not None else f"{name}_total"] = metric
    return names


def test_each_figure_is_one_that_there_is() -> None:
    names = exposed()
    found = re.findall(r"\b(lonedot_\w+)(?:\{([^}]*)\})?", TEXT)
    assert len(found) >= len(ALERTS)
    for name, selector in found:
        assert name in names
        for label, value in re.findall(r'(\w+)="([^"]*)"', selector):
            assert label in names[name].facts.labels, (name, label)
            assert value in _VALUES[names[name].value, label], (name, value)


def test_each_has_a_command() -> None:
    commands = re.findall(r'description: ".*: (lonedot [^"]+)"', TEXT)
    assert len(commands) == len(ALERTS)
    for command in commands:
        assert parses(shlex.split(command)[1:]), command


def test_the_rules_can_be_read() -> None:
    promtool = need("promtool", "prometheus")
    done = subprocess.run([promtool, "check", "rules", RULES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{len(ALERTS)} rules found" in done.stdout


def fires(folder: Path, series: list[tuple[str, str]], alert: str, is_raised: bool) -> None:
    """As promtool counts: after four hours of those figures, that alert is raised, or is not."""
    promtool = need("promtool", "prometheus")
    lines = [
        f"rule_files: ['{RULES}']",
        "evaluation_interval: 1m",
        "tests:",
        "- interval: 1m",
        "  input_series:",
    ]
    for name, values in series:
        lines += [f"  - series: '{name}'", f"    values: '{values}'"]
    lines += [
        "  promql_expr_test:",
        f"  - expr: count(ALERTS{{alertname='{alert}', alertstate='firing'}}) > bool 0",
    ]
    lines += ["    eval_time: 4h"]
    lines += (
        ["    exp_samples:", "    - value: 1", "      labels: '{}'"] if is_raised else ["    exp_samples: []"]
    )
    file = folder / "test.yml"
    file.write_text("\n".join(lines) + "\n")
    done = subprocess.run([promtool, "test", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", ALERTS)
def test_it_is_raised_when_it_should_be(alert: str, tmp_path: Path) -> None:
    fires(tmp_path, RAISED[alert], alert, True)


@pytest.mark.parametrize("alert", ALERTS)
def test_it_is_not_raised_while_all_is_well(alert: str, tmp_path: Path) -> None:
    fires(tmp_path, WELL, alert, False)
