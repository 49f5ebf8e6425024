"""`python -m bench`: the command line of the benchmarks. See bench/README.md."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from bench import fairness, memory, profile, queue, sinks
from bench.cells import QUICK_CELLS, SESSIONS, SIZES, Cell, Mode, all_cells, parse_size
from bench.load import LoadError
from bench.relay import Plan, measure_cells
from bench.relays import LonedotRelay, PostfixRelay, Relay, parse_relay
from bench.report import Report, describe_machine, relay_table, write_json

T = TypeVar("T")

LONEDOT_CONNECTIONS = 900  # what its default limit leaves room for
QUICK_PLAN_SECONDS = 0.6
FULL_PLAN_SECONDS = 1.5
ROUNDS = 3
SINK_ROUNDS = 40
SINK_SECONDS = 0.5
"""Many short bursts tell a difference of a few parts in a hundred sooner than a few long ones."""
DEFAULT_FOLDER = Path("/var/tmp")  # kept on a disk where /tmp may be in memory


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one benchmark; 0 when it was measured, 1 when some of it broke."""
    chosen = _parser().parse_args(arguments)
    try:
        match chosen.bench:
            case "fairness":
                return _run_fairness(chosen)
            case "memory":
                return _run_memory(chosen)
            case "profile":
                return _run_profile(chosen)
            case "queue":
                return _run_queue(chosen)
            case "sinks":
                return _run_sinks(chosen)
            case _:
                return _run_relay(chosen)
    except LoadError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Lonedot beside Postfix.")
    parser.add_argument(
        "bench",
        nargs="?",
        default="relay",
        choices=("relay", "fairness", "memory", "profile", "queue", "sinks"),
        help="default: relay",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured")
    parser.add_argument("--quick", action="store_true", help="six cells and short bursts, or a small crowd")
    parser.add_argument(
        "--folder", type=Path, default=DEFAULT_FOLDER, help=f"where the queues are; default {DEFAULT_FOLDER}"
    )
    cells = parser.add_argument_group("cells (relay, profile)")
    cells.add_argument("--size", action="append", type=_parsed(parse_size), help="such as 10KiB; repeatable")
    cells.add_argument("--sessions", action="append", type=int, help="repeatable")
    cells.add_argument("--mode", action="append", type=Mode, help="reuse or conn; repeatable")
    cells.add_argument("--rounds", type=int, help="bursts through each relay; default 3, for sinks 40")
    cells.add_argument("--seconds", type=float, help="wanted length of a burst")
    cells.add_argument(
        "--test",
        default="lonedot",
        help="lonedot, lonedot:WORKERS, postfix or command:CALL; default lonedot (one worker)",
    )
    cells.add_argument("--beside", default="postfix", help="the same; default postfix")
    crowd = parser.add_argument_group("crowd (memory; --test chooses the relay)")
    crowd.add_argument("--load", choices=("large", "idle"), help="default: both")
    crowd.add_argument("--clients", type=int, help="default 200 large, 5000 idle")
    crowd.add_argument("--octets", type=int, default=25_000_000, help="of each large message")
    costs = parser.add_argument_group("sinks")
    costs.add_argument("--part", action="append", choices=sinks.PARTS, help="repeatable; default: all")
    queues = parser.add_argument_group("queue, fairness")
    queues.add_argument(
        "--queued", action="append", type=int, help="messages; for queue repeatable; default 100000"
    )
    profiling = parser.add_argument_group("profile")
    profiling.add_argument("--messages", type=int, default=3000, help="in the one burst")
    profiling.add_argument("--top", type=int, default=40, help="how many functions to print")
    profiling.add_argument("--keep", type=Path, metavar="FILE", help="keep the profile for other tools")
    return parser


def _run_relay(chosen: argparse.Namespace) -> int:
    cells = _cells(chosen)
    seconds = chosen.seconds or (QUICK_PLAN_SECONDS if chosen.quick else FULL_PLAN_SECONDS)
    plan = Plan(rounds=chosen.rounds or ROUNDS, burst_seconds=seconds, folder=chosen.folder)
    machine = describe_machine(plan.folder)
    mark = "-b" if chosen.test == chosen.beside else ""
    _relay(chosen.test), _relay(chosen.beside)  # a mistyped name is told before anything is measured

    def make_relays() -> tuple[Relay, Relay]:
        return _relay(chosen.test), _relay(chosen.beside, mark)

    results = measure_cells(cells, make_relays, plan, _say)
    print()
    print(
        f"{machine.measured_at}, revision {machine.revision}, {machine.cores} cores, {machine.file_system},"
    )
    print(f"load {machine.load_average:.1f} at the start; medians of {plan.rounds} bursts.")
    print(f"Of two columns with one name the first is {chosen.test}, the second {chosen.beside}.")
    print()
    print(relay_table(results))
    if chosen.json is not None:
        write_json(chosen.json, Report(machine=machine, plan=plan, cells=tuple(results)))
    return 0 if len(results) == len(cells) else 1


def _run_memory(chosen: argparse.Namespace) -> int:
    machine = describe_machine(chosen.folder)
    results: list[memory.MemoryResult] = []
    for load in (chosen.load,) if chosen.load else ("large", "idle"):
        if load == "large":
            clients = chosen.clients or (20 if chosen.quick else 200)
            _say(f"{clients} clients send {chosen.octets} octets each")
            relay = _crowd_relay(chosen.test, clients)
            results.append(memory.measure_large(relay, clients, chosen.octets, chosen.folder, _say))
        else:
            clients = chosen.clients or (500 if chosen.quick else 5000)
            _say(f"{clients} clients stay idle")
            results.append(memory.measure_idle(_crowd_relay(chosen.test, clients), clients, chosen.folder))
        print(results[-1].sentence)
    if chosen.json is not None:
        plan = Plan(folder=chosen.folder)
        write_json(chosen.json, Report(machine=machine, plan=plan, memory=tuple(results)))
    return 0


def _run_profile(chosen: argparse.Namespace) -> int:
    cells = all_cells(chosen.size or (10 * 1024,), chosen.sessions or (20,), chosen.mode or (Mode.REUSE,))
    cell = cells[0]
    print(profile.profile_cell(cell, chosen.messages, chosen.folder, chosen.top, _say, chosen.keep))
    return 0


def _run_queue(chosen: argparse.Namespace) -> int:
    found = []
    for messages in chosen.queued or (5000 if chosen.quick else 100_000,):
        _say(f"{messages} messages are put into a queue")
        found.append(asyncio.run(queue.measure_queue(messages, chosen.folder)))
        _say(queue.queue_table(found[-1]))
    if chosen.json is not None:
        chosen.json.write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    return 0


def _run_fairness(chosen: argparse.Namespace) -> int:
    healthy, rounds = (500, 1) if chosen.quick else (3000, chosen.rounds or fairness.ROUNDS)
    (waiting,) = chosen.queued or (5000 if chosen.quick else 100_000,)
    found = asyncio.run(fairness.measure_fairness(healthy, waiting, chosen.folder, _say, rounds))
    print(fairness.fairness_table(found))
    if chosen.json is not None:
        chosen.json.write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    return 0


def _run_sinks(chosen: argparse.Namespace) -> int:
    rounds = chosen.rounds or (SINK_ROUNDS // 4 if chosen.quick else SINK_ROUNDS)
    seconds = chosen.seconds or SINK_SECONDS
    plan = Plan(rounds=rounds, burst_seconds=seconds, folder=chosen.folder)
    found = sinks.measure_all(plan, chosen.quick, _say, chosen.part or ())
    if chosen.json is not None:
        chosen.json.write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    return 0


def _cells(chosen: argparse.Namespace) -> tuple[Cell, ...]:
    if chosen.quick and not (chosen.size or chosen.sessions or chosen.mode):
        return QUICK_CELLS
    return all_cells(chosen.size or SIZES, chosen.sessions or SESSIONS, chosen.mode or tuple(Mode))


def _relay(text: str, mark: str = "") -> Relay:
    try:
        return parse_relay(text, mark=mark)
    except ValueError as error:
        raise LoadError(str(error)) from None


def _crowd_relay(text: str, clients: int) -> Relay:
    """The relay with its limits on connections out of the way, and nothing else changed."""
    match _relay(text):
        case PostfixRelay():
            return PostfixRelay(process_limit=clients + 50)
        case LonedotRelay(name=name, workers=workers) if text == name and clients > LONEDOT_CONNECTIONS:
            # Each worker has its part of the limit, and may be given more of the clients.
            most = workers * (clients + 100)
            return LonedotRelay(name, listener_lines=f"max_connections = {most}\n", workers=workers)
        case relay:
            return relay


def _parsed(parse: Callable[[str], T]) -> Callable[[str], T]:
    """`parse` with its complaint shown by argparse."""

    def parse_argument(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse_argument


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
