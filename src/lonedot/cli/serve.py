"""`lonedot serve`: run the relay until SIGTERM or Ctrl-C, then drain and stop.

The command is run several times: first it becomes the parent (`lonedot.app.supervisor`), which then starts it as each
of the workers.
"""

from __future__ import annotations

import asyncio
import json
import mmap
import os
import pwd
import resource
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import NamedTuple

import click

from lonedot.cli.output import Problem, config_option
from lonedot.config.cores import count_workers
from lonedot.config.faults import Severity
from lonedot.config.load import examine
from lonedot.config.model import Config
from lonedot.observability import log
from lonedot.observability.levels import LogKind
from lonedot.reception.sockets import (
    SOCKETS_ENVIRONMENT,
    ListeningSockets,
    Place,
    from_environment,
    from_systemd,
)
from lonedot.sinks.board import ENVIRONMENT, LOCK_ENVIRONMENT, READY, STOPPED, Board
from lonedot.sinks.watch import Watch
from lonedot.spool.interface import SpoolLocked
from lonedot.spool.lock import SpoolLock

__all__ = ["command", "prepare_process", "run_loop"]

OTHER_RELAY = "stop that relay, or give this one a spool of its own"
SWITCH_INTERVAL_SECONDS = 0.0005
"""How soon the thread that commits gets the interpreter back after its sync (the default is ten times as long)."""


@click.command("serve")
@config_option
@click.option(
    "--no-supervisor",
    is_flag=True,
    help="No parent, one worker: a relay that dies stays dead, and a sink that never returns stops it. For a debugger.",
)
def command(config_file: Path, no_supervisor: bool) -> int:
    """Run the relay.

    SIGTERM or Ctrl-C stops it: sessions and attempts may finish, nothing that was accepted is lost. SIGHUP takes the
    configuration as it is now, as `lonedot reload` does. A small parent has the listening sockets, starts a worker
    again when it dies, and ends it when a sink does not return by its deadline. How many workers there are says
    [server] workers; without a parent there is one.
    """
    parent = _take_parent()
    if parent is None and not no_supervisor and sys.platform == "linux":
        _become_supervisor(config_file)
    found = examine(config_file)
    if found.config is None:
        faults = [fault for fault in found.faults if fault.severity is Severity.FAULT]
        raise Problem(
            "\n".join(["the configuration cannot be used:", *map(str, faults)]),
            do=f"run lonedot check -c {config_file} for all of it",
        )
    if parent is None or parent.number == 0:
        for fault in found.faults:
            click.echo(str(fault), err=True)
    log.configure(found.config.server.log, found.config.server.log_level)
    prepare_process()
    sockets = parent.sockets if parent is not None else _open_sockets(found.config)
    run_loop(_serve(found.config, parent, sockets))
    return 0


class _Parent(NamedTuple):
    """What a worker has of its parent."""

    watch: Watch
    sockets: ListeningSockets
    line: int
    """At its end when the parent has died."""
    number: int
    workers: int
    """How many there are."""
    shared: mmap.mmap | None
    shared_file: int
    """The file of that memory; -1 without."""
    lock: SpoolLock | None


def _take_parent() -> _Parent | None:
    """The parent that started this worker, when one did. No process that the worker starts has anything of it."""
    said = os.environ.pop(ENVIRONMENT, "")
    if not said:
        return None
    listening = dict(os.environ)
    os.environ.pop(SOCKETS_ENVIRONMENT, None)
    try:
        memory, line, number, count, shared, lock = map(int, said.split(","))
        board = Board(memory)
        os.set_inheritable(line, False)
        sockets = ListeningSockets(from_environment(listening), line, follows=number > 0)
        if shared >= 0:
            os.set_inheritable(shared, False)
        page = mmap.mmap(shared, os.fstat(shared).st_size) if shared >= 0 else None
        parent = _Parent(
            Watch(board),
            sockets,
            line,
            number,
            count,
            page,
            shared,
            SpoolLock.handed(lock) if lock >= 0 else None,
        )
    except (OSError, ValueError) as error:
        raise Problem(f"{ENVIRONMENT} in the environment is no parent's: {error}", do="remove it") from error
    os.close(memory)
    return parent


def _open_sockets(config: Config) -> ListeningSockets:
    """All that the configuration listens on: systemd's own, or opened here; then no longer root, if so wished."""
    places = [Place(one.name, one.address.host, one.address.port, one.group) for one in config.listeners]
    try:
        sockets = ListeningSockets(from_systemd(os.environ, os.getpid(), places))
        for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
            os.environ.pop(name, None)
        for place in places:
            for copy in sockets.open(place):
                copy.close()
    except OSError as error:
        raise Problem(error.strerror or str(error), do="stop who has it, or change address") from error
    except ValueError as error:
        raise Problem(f"LISTEN_FDS in the environment is not systemd's: {error}", do="remove it") from error
    if config.server.user and os.geteuid() == 0:
        _become_user(config.server.user)
    return sockets


def _become_user(name: str) -> None:
    """For good: group, further groups, then the user."""
    try:
        entry = pwd.getpwnam(name)
        os.initgroups(name, entry.pw_gid)
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)
    except (KeyError, OSError) as error:
        raise Problem(f"cannot become the user {name}: {error}", where="[server] user") from error


def _become_supervisor(config_file: Path) -> None:
    """Turn into the parent of this very command.

    The program is named by its path: whatever is imported here is gone in a moment.
    """
    words = sys.orig_argv[1:]
    if "serve" not in words:
        raise Problem("started from inside another program", do="use --no-supervisor there")
    program = Path(__file__).parents[1] / "app" / "supervisor.py"
    config = examine(config_file, with_registry=False).config
    if config is not None:  # else the worker says what is wrong with it
        sockets = _open_sockets(config)
        numbers = sockets.descriptors()
        for number in numbers.values():
            os.set_inheritable(number, True)
        os.environ[SOCKETS_ENVIRONMENT] = json.dumps(numbers)
        os.environ[LOCK_ENVIRONMENT] = str(_lock(config))
    sys.stdout.flush()
    sys.stderr.flush()
    # -I and -S: no folder of anybody's is searched, and less is loaded.
    count = str(1 if config is None else count_workers(config))
    os.execv(  # noqa: S606 — our own program, without a shell
        sys.executable, [sys.executable, "-I", "-S", str(program), count, sys.executable, *words]
    )


def _lock(config: Config) -> int:
    """Descriptor of the lock of the spool, which the parent and all workers hold; -1: a worker says what is wrong."""
    paths = config.server.paths
    try:
        paths.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = SpoolLock(paths.lock).descriptor
    except SpoolLocked as error:
        raise Problem(str(error), do=OTHER_RELAY) from error
    except OSError:
        return -1
    os.set_inheritable(descriptor, True)
    return descriptor


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


async def _serve(config: Config, parent: _Parent | None, sockets: ListeningSockets) -> None:
    from lonedot.app import AppFault, Relay
    from lonedot.app.workers import Post

    board = parent.watch.board if parent is not None else None
    if board is not None:
        kind = config.server.log
        logs_json = kind is LogKind.JSON or (kind is LogKind.AUTO and not sys.stderr.isatty())
        board.describe(str(config.server.paths.root.absolute()), logs_json=logs_json)
    post = Post()
    if parent is not None:
        post = Post(parent.number, parent.workers, parent.shared, parent.lock, parent.shared_file)
    relay = Relay(config, watch=parent.watch if parent is not None else None, sockets=sockets, post=post)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    reloads: set[asyncio.Task[None]] = set()
    is_up = False

    def reload() -> None:
        if is_up and post.is_first:  # which leads the others; to a terminal's signal they are deaf
            task = loop.create_task(relay.reload_told())
            reloads.add(task)
            task.add_done_callback(reloads.discard)

    # Before anybody is told that it listens: whoever stops it then has it stopped in order.
    loop.add_signal_handler(signal.SIGHUP, reload)
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    try:
        await relay.start()
    except AppFault as fault:
        raise Problem(str(fault)) from fault
    is_up = True
    if parent is not None:

        def heed_parent() -> None:
            if not sockets.heed_parent():
                stop.set()

        loop.add_reader(parent.line, heed_parent)
        parent.watch.board.set_state(READY)
    await stop.wait()
    if parent is None:
        # A second signal ends it at once; the spool is made for that.
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(name)
    else:
        # One signal may come twice, from the terminal or the service manager and from the parent: it is the parent that
        # ends a worker at once.
        loop.remove_reader(parent.line)
    await relay.stop()
    if parent is not None:
        parent.watch.board.set_state(STOPPED)
