"""What was measured, as a table for people and as JSON for programs."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench.memory import MemoryResult
from bench.relay import CellResult, Plan, file_system

REPOSITORY = Path(__file__).resolve().parent.parent


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Where and when it was measured."""

    measured_at: str  # UTC
    revision: str  # of the repository; "+" when files differ from it
    cores: int
    kernel: str
    python: str
    file_system: str
    load_average: float  # of the last minute, as the run began


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One run."""

    machine: Machine
    plan: Plan
    cells: tuple[CellResult, ...] = ()
    memory: tuple[MemoryResult, ...] = ()


def describe_machine(folder: Path) -> Machine:
    """The machine at this moment; `folder` is where the relays will work."""
    return Machine(
        measured_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        revision=_revision(),
        cores=os.cpu_count() or 1,
        kernel=platform.release(),
        python=platform.python_version(),
        file_system=file_system(folder),
        load_average=os.getloadavg()[0],
    )


def relay_table(results: Sequence[CellResult]) -> str:
    """The results of the relay benchmark as a Markdown table that also reads well as it stands."""
    if not results:
        return "nothing was measured"
    test, beside = (side.name for side in results[0].sides)
    header = (
        *("size", "sessions", "mode", f"{test} msg/s", f"{beside} msg/s", "ratio", "min-max"),
        *("accepted/s", "accepted/s", "CPU s/1000", "CPU s/1000", "RSS MiB", "RSS MiB"),
        *("PSS MiB", "PSS MiB", "direct msg/s", "others"),
    )
    return _table(header, [_row(result) for result in results])


def write_json(path: Path, report: Report) -> None:
    """Write the report, every burst included."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report, enc_hook=str), indent=2) + b"\n")


def _row(result: CellResult) -> tuple[str, ...]:
    size, sessions, mode = str(result.cell).split()
    test, beside = result.sides
    bursts = (*test.bursts, *beside.bursts)
    return (
        *(size, sessions, mode, _figure(test.rate), _figure(beside.rate), f"{result.ratio:.2f}"),
        f"{min(result.ratios):.2f}-{max(result.ratios):.2f}",
        *(_figure(side.accept_rate) for side in result.sides),
        *(f"{side.cpu_per_1000:.2f}" for side in result.sides),
        *(f"{side.peak_rss:.0f}" for side in result.sides),
        *(f"{side.peak_pss:.0f}" for side in result.sides),
        _figure(result.direct_rate),
        f"{sum(burst.foreign_share for burst in bursts) / len(bursts):.0%}",
    )


def _figure(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 100 else f"{rate:.1f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    rule = "|".join("-" * (width + 1) + ":" for width in widths)
    lines = [
        " | ".join(text.rjust(width) for text, width in zip(row, widths, strict=True))
        for row in (header, *rows)
    ]
    return "\n".join((f"| {lines[0]} |", f"|{rule}|", *(f"| {line} |" for line in lines[1:])))


def _revision() -> str:
    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(REPOSITORY), *arguments], capture_output=True, text=True, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    head = git("rev-parse", "--short", "HEAD")
    return (head or "unknown") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
