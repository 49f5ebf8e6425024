"""The benchmark harness measures what it says it measures."""

from __future__ import annotations

import inspect
import json
import pstats
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import unguarded
from bench.__main__ import main
from bench.cells import QUICK_CELLS, Cell, Mode, all_cells, parse_size, size_text
from bench.load import CountingSink, LoadError, generator_command, send_burst
from bench.micro_server import scan
from bench.processes import MemoryWatch, cpu_seconds, memory, peak_rss, running_cpu_seconds, tree
from bench.relay import Burst, CellResult, SideResult
from bench.relays import LonedotRelay, PostfixRelay, parse_relay
from bench.report import relay_table
from bench.sinks import ENVELOPE, FACTS, field, noop
from lonedot.message.fold import fold
from lonedot.message.intake import content_from
from lonedot.observability.clock import SystemClock
from lonedot.sinks.dispatch import dispatch
from lonedot.sinks.load import bind
from tests.need import need
from tests.peers.postfix import need_postfix

SMALL = Cell(1024, 4, Mode.REUSE)

# A relay without a queue, called as `lonedot` is: it hands every connection on to the next hop, octet for octet.
FORWARDER = """
import asyncio, signal, sys, tomllib
from pathlib import Path

config = tomllib.loads(Path(sys.argv[3]).read_text())
assert sys.argv[1:3] == ["serve", "-c"], sys.argv
here = config["listener"][0]["address"].split(":")
there = config["route"][0]["smarthost"].split(":")

async def pump(reader, writer):
    while chunk := await reader.read(65536):
        writer.write(chunk)
    writer.close()

async def forward(reader, writer):
    next_reader, next_writer = await asyncio.open_connection(there[0], int(there[1]))
    await asyncio.gather(pump(reader, next_writer), pump(next_reader, writer), return_exceptions=True)

async def serve():
    server = await asyncio.start_server(forward, here[0], int(here[1]))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, server.close)
    await server.wait_closed()

asyncio.run(serve())
"""


def need_smtp_source() -> None:
    need("smtp-source", "postfix")


@pytest.fixture
def forwarder(tmp_path: Path) -> str:
    """The call of a relay that takes lonedot's arguments."""
    script = tmp_path / "forwarder.py"
    script.write_text(FORWARDER)
    return f"command:{sys.executable} {script}"


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that the user `postfix` may enter, which `tmp_path` is not."""
    with tempfile.TemporaryDirectory(prefix="lonedot-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


# --- cells ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "octets"), [("1KiB", 1024), ("5MiB", 5_242_880), ("700B", 700)])
def test_a_size_is_read_and_written(text: str, octets: int) -> None:
    assert parse_size(text) == octets
    assert size_text(octets) == text


@pytest.mark.parametrize("text", ["", "10", "0KiB", "10kB", "-1KiB", "1.5MiB", "10GiB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a size is a number"):
        parse_size(text)


def test_the_cells_are_every_combination() -> None:
    cells = all_cells()
    assert len(set(cells)) == 24
    assert set(QUICK_CELLS) <= set(cells)


def test_the_generator_never_has_more_sessions_than_messages() -> None:
    need_smtp_source()
    command = generator_command(Cell(1024, 100, Mode.REUSE), 30, 25)
    assert command[command.index("-s") + 1] == "30"
    assert "-d" in command
    assert "-d" not in generator_command(Cell(1024, 100, Mode.CONNECT), 30, 25)


# --- relays --------------------------------------------------------------------------------------


def test_relays_have_names() -> None:
    assert isinstance(parse_relay("lonedot"), LonedotRelay)
    assert isinstance(parse_relay("postfix"), PostfixRelay)
    assert parse_relay("postfix", mark="-b").name == "postfix-b"


@pytest.mark.parametrize("text", ["", "exim", "command:", "lonedot:x"])
def test_no_other_relay_is_known(text: str) -> None:
    with pytest.raises(ValueError, match="a relay is"):
        parse_relay(text)


def test_a_relay_that_ends_at_once_tells_its_log(tmp_path: Path) -> None:
    relay = LonedotRelay(command=(sys.executable, "-c", "raise SystemExit('no such setting')"))
    with pytest.raises(LoadError, match="no such setting"):
        relay.start(tmp_path, 25)


# --- sinks ---------------------------------------------------------------------------------------


def test_sinks_without_guard_and_ledger_give_the_same_octets() -> None:
    content, clock = content_from(scan()), SystemClock()
    bindings = [
        bind(made, sink_class="bench.sinks:x", name=f"{made.name} {n}")
        for n, made in enumerate([noop, field] * 2)
    ]
    whole = dispatch("id", ENVELOPE, FACTS, content, bindings, clock)
    bare = unguarded.dispatch("id", ENVELOPE, FACTS, content, bindings, clock)
    assert whole.content == bare.content != content
    assert [len(dispatched.entries) for dispatched in (whole, bare)] == [4, 1]
    for dispatched in (whole, bare):
        assert fold(content, dispatched.entries, verify=True) == whole.content
    assert not unguarded.dispatch("id", ENVELOPE, FACTS, content, bindings[:1], clock).entries
    assert inspect.signature(unguarded.dispatch) == inspect.signature(dispatch)


# --- processes -----------------------------------------------------------------------------------


def test_the_cpu_of_living_and_reaped_children_is_counted() -> None:
    burn = "import time\nwhile time.process_time() < 0.2: pass\n"
    # One child that burns and is reaped, then one that burns and lives on, then a line to say so.
    script = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {burn!r}], check=True)
child = subprocess.Popen([sys.executable, "-c", {burn!r} + "print('burnt', flush=True)\\ninput()"],
                         stdin=subprocess.PIPE)
sys.stdin.read()
child.communicate()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"burnt\n"
        used, running = cpu_seconds(process.pid), running_cpu_seconds(process.pid)
        assert len(tree(process.pid)) == 2
        assert memory(process.pid).processes == 2
        assert peak_rss(process.pid) >= memory(process.pid).pss > 1
        process.communicate()
    assert 0.36 <= used < 5.0
    assert 0.18 <= running < used  # without the one that was reaped
    assert running_cpu_seconds(process.pid) == 0.0
    assert tree(process.pid) == []
    assert cpu_seconds(process.pid) == 0.0


def test_the_watch_keeps_a_peak_that_is_gone() -> None:
    script = """
import sys
for line in sys.stdin:
    if line == "more\\n":
        block = bytearray(64 * 1024 * 1024)
    else:
        block = None
    print("done", flush=True)
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        with MemoryWatch(process.pid, interval_seconds=0.01) as watch:
            before = watch.peak.pss
            process.stdin.write(b"more\n")
            process.stdout.readline()
            deadline = time.monotonic() + 20
            while watch.peak.pss < before + 60:
                assert time.monotonic() < deadline
            process.stdin.write(b"less\n")
            process.stdout.readline()
        assert memory(process.pid).pss < before + 30
        assert watch.peak.pss >= before + 60
        process.communicate()


# --- report --------------------------------------------------------------------------------------


def test_the_table_has_a_row_for_each_cell() -> None:
    burst = Burst(
        messages=100,
        seconds=2.0,
        accept_seconds=1.0,
        cpu_seconds=0.1,
        foreign_share=0.25,
        duplicates=0,
        settled=True,
    )

    def side(name: str, rate: float) -> SideResult:
        return SideResult(
            name=name,
            rate=rate,
            accept_rate=100.0,
            cpu_per_1000=1.0,
            peak_rss=50.0,
            peak_pss=40.0,
            processes=1,
            bursts=(burst,),
        )

    result = CellResult(
        cell=SMALL,
        sides=(side("one", 150.0), side("two", 50.0)),
        direct_rate=1000.0,
        direct_bursts=(burst,),
        ratios=(2.5, 3.0, 3.5),
        ratio=3.0,
    )
    header, _rule, row = relay_table([result]).splitlines()
    assert len(header.split("|")) == len(row.split("|"))
    assert [cell.strip() for cell in row.split("|")[1:8]] == (
        ["1KiB", "4", "reuse", "150", "50.0", "3.00", "2.50-3.50"]
    )
    assert row.rstrip("| ").endswith("25%")
    assert relay_table([]) == "nothing was measured"


# --- with the real programs ----------------------------------------------------------------------


@pytest.mark.peer
def test_a_burst_to_the_sink_is_counted() -> None:
    need_smtp_source()
    with CountingSink() as sink:
        assert sink.count() == 0
        passage = send_burst(SMALL, 25, sink.port, sink, limit_seconds=30)
        assert sink.count() == 25
    assert passage.messages == 25
    assert 0 < passage.seconds < 30


@pytest.mark.peer
def test_a_burst_that_does_not_arrive_is_told() -> None:
    need_smtp_source()
    with (
        CountingSink() as sink,
        CountingSink() as other,
        pytest.raises(LoadError, match="5 messages are missing"),
    ):
        send_burst(SMALL, 5, other.port, sink, limit_seconds=0.3)


@pytest.mark.peer
def test_two_relays_are_measured_by_turns(
    forwarder: str, open_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    need_postfix()
    report = open_folder / "report.json"
    where = ["--folder", str(open_folder), "--json", str(report)]
    cell = ["--size", "1KiB", "--sessions", "4", "--mode", "reuse", "--seconds", "0.05", "--rounds", "2"]
    assert main(["relay", "--test", forwarder, "--beside", "postfix", *cell, *where]) == 0
    lines = capsys.readouterr().out.splitlines()
    turns = [line.split()[2] for line in lines if line.startswith("  round")]
    assert turns == ["command", "postfix", "direct"] * 2
    [cell_result] = json.loads(report.read_bytes())["cells"]
    assert [side["name"] for side in cell_result["sides"]] == ["command", "postfix"]
    assert cell_result["ratio"] > 0
    assert cell_result["sides"][1]["cpu_per_1000"] > 0
    assert cell_result["sides"][1]["processes"] > cell_result["sides"][0]["processes"] >= 1
    assert all(burst["duplicates"] == 0 for side in cell_result["sides"] for burst in side["bursts"])
    assert [path.name for path in open_folder.iterdir()] == ["report.json"]


@pytest.mark.peer
def test_the_memory_of_a_crowd_is_measured(
    forwarder: str, open_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    need_smtp_source()
    report = open_folder / "report.json"
    where = ["--folder", str(open_folder), "--json", str(report)]
    assert main(["memory", "--test", forwarder, "--clients", "5", "--octets", "200000", *where]) == 0
    large, idle = json.loads(report.read_bytes())["memory"]
    assert (large["accepted"], large["delivered"], large["replies"]) == (5, 5, {"250": 5})
    assert (idle["accepted"], idle["octets"]) == (5, 0)
    assert large["peak"]["pss"] >= large["before"]["pss"] > 1
    assert "5 clients sending 0 MB" in capsys.readouterr().out


@pytest.mark.peer
def test_a_profile_names_the_functions_that_took_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    need_smtp_source()
    package = tmp_path / "lonedot"  # stands before the real one on the path
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(FORWARDER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    kept = tmp_path / "kept"
    where = ["--folder", str(tmp_path), "--keep", str(kept)]
    assert main(["profile", "--size", "1KiB", "--sessions", "2", "--messages", "20", *where]) == 0
    printed = capsys.readouterr().out
    assert "20 messages in" in printed
    assert "Ordered by: internal time" in printed
    assert "pump" in pstats.Stats(str(kept)).get_stats_profile().func_profiles


@pytest.mark.peer
def test_a_cell_that_breaks_is_told_and_the_run_fails(
    open_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    need_smtp_source()
    cell = ["--size", "1KiB", "--sessions", "4", "--mode", "reuse", "--folder", str(open_folder)]
    broken = f"command:{sys.executable} -c 1"
    assert main(["relay", "--test", broken, "--beside", "postfix", *cell]) == 1
    assert "broken off: command did not start" in capsys.readouterr().out
