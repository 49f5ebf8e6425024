"""`lonedot serve`: run the relay until SIGTERM or Ctrl-C, then drain and stop."""

from __future__ import annotations

import asyncio
import resource
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path

import click

from lonedot.cli.output import Problem, config_option
from lonedot.config.faults import Severity
from lonedot.config.load import examine
from lonedot.config.model import Config
from lonedot.observability import log

__all__ = ["command", "prepare_process", "run_loop"]

SWITCH_INTERVAL_SECONDS = 0.0005
"""How soon the thread that commits gets the interpreter back after its sync (the default is ten times as long)."""


@click.command("serve")
@config_option
def command(config_file: Path) -> int:
    """Run the relay.

    SIGTERM or Ctrl-C stops it: sessions and attempts may finish, nothing that was accepted is lost. SIGHUP takes the
    registry of bindings as it is now, as `lonedot sinks reload` does.
    """
    found = examine(config_file)
    if found.config is None:
        faults = [fault for fault in found.faults if fault.severity is Severity.FAULT]
        raise Problem(
            "\n".join(["the configuration cannot be used:", *map(str, faults)]),
            do=f"run lonedot check -c {config_file} for all of it",
        )
    for fault in found.faults:
        click.echo(str(fault), err=True)
    log.configure(found.config.server.log, found.config.server.log_level)
    prepare_process()
    run_loop(_serve(found.config))
    return 0


def prepare_process() -> None:
    """Files as many as the system allows, and a quick hand-over between loop and commit thread."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)


def run_loop(main: Coroutine[None, None, None]) -> None:
    """Run on uvloop where it is installed, else on asyncio's own loop."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


async def _serve(config: Config) -> None:
    from lonedot.app import AppFault, Relay

    relay = Relay(config)
    try:
        await relay.start()
    except AppFault as fault:
        raise Problem(str(fault)) from fault
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    reloads: set[asyncio.Task[None]] = set()

    def reload_sinks() -> None:
        task = loop.create_task(relay.reload_sinks())
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    loop.add_signal_handler(signal.SIGHUP, reload_sinks)
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    await stop.wait()
    # A second signal ends it at once; the spool is made for that.
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.remove_signal_handler(name)
    await relay.stop()
