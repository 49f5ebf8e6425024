"""What all commands share: options of the same name, JSON, errors in one form, octets for people."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

__all__ = [
    "Problem",
    "config_option",
    "faults_told",
    "json_option",
    "print_json",
    "signs",
    "tell_fault",
]

C = TypeVar("C", bound=Callable[..., object])


class Problem(click.ClickException):
    """Why a command cannot go on: `what`, `where` and what to `do`, printed as `lonedot: what; where; do`."""

    def __init__(self, what: str, *, where: str = "", do: str = "", code: int = 1) -> None:
        super().__init__("; ".join(part for part in (what, where, do) if part))
        self.code = code

    def __str__(self) -> str:
        return self.message


_told: list[str] = []


def tell_fault(words: str) -> None:
    """Say what is wrong beside what was done: the command goes on, and ends with exit code 1."""
    _told.append(words)
    click.echo(f"lonedot: {words}", err=True)


def faults_told() -> bool:
    """Whether there were any since the last time that this was asked."""
    were = bool(_told)
    _told.clear()
    return were


def json_option(command: C) -> C:
    """`--json`, as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def config_option(command: C) -> C:
    """`-c`, `--config`, as `config_file`."""
    option = click.option(
        "-c",
        "--config",
        "config_file",
        type=click.Path(path_type=Path, dir_okay=False),
        default=Path("lonedot.toml"),
        show_default=True,
        envvar="LONEDOT_CONFIG",
        show_envvar=True,
        help="The configuration.",
    )
    return option(command)


def print_json(value: object) -> None:
    """One JSON value on one line. Octets are made text by the caller (`diagnosis.octets`); here they become base64."""
    import msgspec

    click.echo(msgspec.json.encode(value, enc_hook=str).decode())


def signs(octets: bytes) -> str:
    """Line ends by their names, between spaces: `%%EOF LF . CR LF`."""
    from lonedot.diagnosis.octets import visible

    text = visible(octets)
    for name in ("CR", "LF", "00"):
        text = text.replace(f"<{name}>", f" {'NUL' if name == '00' else name} ")
    return " ".join(text.split())
