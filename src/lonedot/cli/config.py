"""`lonedot config`: what a configuration amounts to, and the schema that editors check it by."""

from __future__ import annotations

from pathlib import Path

import click

from lonedot.cli.commands import Commands
from lonedot.cli.output import Problem, config_option, json_option, print_json

__all__ = ["command"]


@click.group("config", cls=Commands)
def command() -> None:
    """Show what is in force and where it comes from, or print the schema for editors."""


@command.command("show")
@config_option
@click.option("--changed", is_flag=True, help="Leave out what is at its default.")
@click.argument("table", required=False)
@json_option
def show(config_file: Path, changed: bool, table: str | None, as_json: bool) -> int:
    """Print each value that is in force with the file and line it comes from. Secrets are hidden.

    TABLE shows one kind of table only, for example route.
    """
    from lonedot.config.effective import Kind, effective
    from lonedot.config.faults import Severity
    from lonedot.config.load import examine
    from lonedot.config.reference import TABLES

    known = [header.strip("[]") for header, _ in TABLES]
    if table is not None and table.strip("[]") not in known:
        raise Problem(f"there is no table {table[:40]!r}", do=f"one of: {', '.join(known)}", code=2)
    found = examine(config_file)
    if found.config is None or found.origins is None:
        faults = [str(fault) for fault in found.faults if fault.severity is Severity.FAULT]
        raise Problem(
            "\n".join(["the configuration cannot be used:", *faults]),
            do=f"run lonedot check -c {config_file}",
        )
    tables = [
        one
        for one in effective(found.config, found.origins, found.sources)
        if table is None or one.header.strip("[]") == table.strip("[]")
    ]
    if as_json:
        print_json(
            {
                "files": [str(file) for file in found.origins.files],
                "revision": found.config.revision,
                "tables": [
                    {
                        "table": one.header,
                        "values": [
                            {"key": value.key, "value": value.value, "origin": value.origin}
                            for value in one.values
                            if not (changed and value.kind is Kind.DEFAULT)
                        ],
                    }
                    for one in tables
                ],
            }
        )
        return 0
    for one in tables:
        click.echo(click.style(one.header, bold=True))
        lines = [
            (f"{value.key} = {value.value}" if value.value else f"# {value.key}: none", value)
            for value in one.values
            if not (changed and value.kind is Kind.DEFAULT)
        ]
        width = min(max((len(words) for words, _ in lines), default=0), 60)
        for words, value in lines:
            click.echo(f"{words:<{width}}  {click.style('# ' + value.origin, dim=True)}")
        click.echo()
    click.echo(f"# revision {found.config.revision}")
    return 0


@command.command("schema")
@click.option("--json", "as_json", is_flag=True, help="It is JSON in any case; this puts it on one line.")
def print_schema(as_json: bool) -> int:
    """Print the JSON schema of the configuration, for editors."""
    import json

    from lonedot.config.schema import schema

    click.echo(json.dumps(schema(), indent=None if as_json else 2, ensure_ascii=False))
    return 0
