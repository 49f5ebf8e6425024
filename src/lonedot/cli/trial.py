"""`lonedot try`: no configuration, one story. A scan, two sinks, a relay and a strict receiver, on this machine alone.

Here are the command and its folder; `trial_run` does the work, `trial_checks` judges it, `trial_story` tells it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click

from lonedot.cli.output import Problem, json_option

__all__ = ["command"]


@click.command("try")
@click.option("--once", is_flag=True, help="Tell the story and end; exits 1 when something did not hold.")
@click.option(
    "--keep",
    "keep_folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep configuration, queue and scan in this folder, new or empty.",
)
@json_option
def command(once: bool, keep_folder: Path | None, as_json: bool) -> int:
    """Start a relay and a strict receiver on this machine, and send a scan through a sink that damages it.

    Nothing leaves this machine. It stays up, to take mail of your own, until Ctrl-C.
    """
    from lonedot.cli.serve import prepare_process
    from lonedot.cli.trial_run import Trial
    from lonedot.cli.trial_show import Screen
    from lonedot.observability import log
    from lonedot.observability.levels import LogLevel

    with _folder(keep_folder) as folder:
        log.configure(level=LogLevel.ERROR)
        prepare_process()
        trial = Trial(folder, None if as_json else Screen(), once=once, command=_command_name())
        asyncio.run(trial.run())  # the recorder needs asyncio's own loop
        if keep_folder is not None and not as_json:
            click.echo(
                f"\nKept: {_command_name()} queue list --state all -c {shlex.quote(str(trial.config_file))}"
            )
    return 0 if trial.held else 1


@contextlib.contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """The folder to work in; removed at the end unless it is to be kept."""
    if keep is None:
        folder = Path(tempfile.mkdtemp(prefix="lonedot-try-"))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return
    try:
        keep.mkdir(mode=0o700, parents=True, exist_ok=True)
        is_empty = not any(keep.iterdir())
    except OSError as error:
        raise Problem(f"cannot use the folder: {error.strerror}", where=str(keep)) from error
    if not is_empty:
        raise Problem(
            "the folder holds something already", where=str(keep), do="name a new or empty one", code=2
        )
    yield keep.absolute()


def _command_name() -> str:
    """How a shell in this folder finds the command: by its name where it is installed, else by its path."""
    path = os.path.abspath(sys.argv[0])
    if os.path.dirname(path) in os.environ.get("PATH", "").split(os.pathsep) and not _is_in_environment(path):
        return "lonedot"
    near = os.path.relpath(path)
    return shlex.quote(path if near.startswith("..") else near)


def _is_in_environment(path: str) -> bool:
    """It lies in a virtual environment, whose folder another terminal need not have in its PATH."""
    return os.path.exists(os.path.join(os.path.dirname(path), os.pardir, "pyvenv.cfg"))
