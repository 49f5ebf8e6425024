"""`lonedot logins`: who may log in at a listener. A password is asked for or read, never an argument."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from lonedot.admin.logins import LoginsFile
from lonedot.admin.values import AdminError
from lonedot.cli.commands import Commands
from lonedot.cli.output import Problem, config_option, json_option, print_json
from lonedot.cli.registry_access import config_of
from lonedot.reception.logins import PASSWORD_LIMIT

__all__ = ["command"]

C = TypeVar("C", bound=Callable[..., object])


def _file_options(command: C) -> C:
    """`-c` as `config_file`, `--listener` as `listener`, `--file` as `logins_file`."""
    listener = click.option(
        "--listener", default="", metavar="NAME", help="Of the listener with this name or address."
    )
    file = click.option(
        "--file",
        "logins_file",
        type=click.Path(path_type=Path, dir_okay=False),
        default=None,
        help="A file of logins; then no configuration is asked.",
    )
    return config_option(listener(file(command)))


def _logins(config_file: Path, listener: str, logins_file: Path | None) -> LoginsFile:
    """The file that is meant.

    Raises:
        Problem: none, or more than one.
    """
    if logins_file is not None:
        return LoginsFile(logins_file)
    chosen = [
        one
        for one in config_of(config_file).listeners
        if not listener or listener in (one.name, str(one.address))
    ]
    files = sorted({one.logins for one in chosen if one.logins is not None})
    if not files:
        what = "no listener has logins" if not listener else f"listener {listener!r} has no logins"
        raise Problem(what, where=str(config_file), do='write logins = "logins.txt" below [[listener]]')
    if len(files) > 1:
        raise Problem(
            "there are several files of logins", where=str(config_file), do="choose with --listener"
        )
    return LoginsFile(files[0])


def _password(name: str) -> bytes:
    if sys.stdin.isatty():
        text: str = click.prompt(
            f"Password for {name}", hide_input=True, confirmation_prompt=True, err=True, type=str
        )
        return text.encode()
    octets = sys.stdin.buffer.readline(PASSWORD_LIMIT + 3)
    return octets.removesuffix(b"\n").removesuffix(b"\r")


@click.group("logins", cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Let people and devices log in, and see who can.

    The running relay takes a change at the next login.
    """


@command.command("add")
@click.argument("name")
@_file_options
def add(name: str, config_file: Path, listener: str, logins_file: Path | None) -> int:
    """Let NAME log in, or give it another password.

    The password is asked for; from a pipe, it is the first line of standard input.
    """
    logins = _logins(config_file, listener, logins_file)
    try:
        is_new = logins.put(name, _password(name))
    except AdminError as error:
        raise _problem(error) from error
    click.echo(f"{name} can log in" if is_new else f"{name} has another password")
    return 0


@command.command("remove")
@click.argument("name")
@_file_options
def remove(name: str, config_file: Path, listener: str, logins_file: Path | None) -> int:
    """Let NAME log in no more."""
    logins = _logins(config_file, listener, logins_file)
    try:
        logins.remove(name)
    except AdminError as error:
        raise _problem(error) from error
    click.echo(f"{name} cannot log in any more")
    return 0


@command.command("list")
@_file_options
@json_option
def show(config_file: Path, listener: str, logins_file: Path | None, as_json: bool) -> int:
    """Name all who can log in."""
    logins = _logins(config_file, listener, logins_file)
    try:
        names = logins.names()
    except AdminError as error:
        raise _problem(error) from error
    if as_json:
        print_json({"file": str(logins.path), "logins": names})
        return 0
    for name in names:
        click.echo(name)
    return 0


def _problem(error: AdminError) -> Problem:
    problem = error.problem
    return Problem(problem.what, where=problem.where, do=problem.do)
