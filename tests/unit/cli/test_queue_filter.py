"""Spans, sizes, and how far long work has come."""

from __future__ import annotations

import time

import click
import pytest

from lonedot.cli.queue_filter import Instant, Octets, Progress


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("15min", 900), ("2 h", 7200), ("3d", 259200)])
def test_a_span_is_before_now(text: str, seconds: int) -> None:
    assert Instant().convert(text, None, None) == pytest.approx(time.time() - seconds, abs=5)


def test_a_time_of_this_zone() -> None:
    expected = time.mktime((2026, 3, 1, 14, 30, 0, 0, 0, -1))
    assert Instant().convert("2026-03-01 14:30", None, None) == expected


@pytest.mark.parametrize("text", ["", "2", "tomorrow", "-2h", "2026-13-01", "9999999999h"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Instant().convert(text, None, None)


@pytest.mark.parametrize(("text", "octets"), [("0", 0), ("5000", 5000), ("20k", 20_000), ("3M", 3_000_000)])
def test_sizes(text: str, octets: int) -> None:
    assert Octets().convert(text, None, None) == octets


@pytest.mark.parametrize("text", ["", "-1", "3 apples", "1.5M"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Octets().convert(text, None, None)


def test_a_line_every_five_seconds_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    progress = Progress(1000, "held", lambda: now[0])
    for at in (1.0, 6.0, 7.0, 12.0):
        now[0] = at
        progress.step(250)
    progress.end()
    assert capsys.readouterr().err == "500 of 1000 held\n1000 of 1000 held\n"
