"""`lonedot check`: every fault of the configuration by its line."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click

from lonedot.cli.output import config_option, json_option, print_json
from lonedot.config.faults import Severity
from lonedot.config.load import examine

__all__ = ["command"]


@click.command("check")
@config_option
@json_option
def command(config_file: Path, as_json: bool) -> int:
    """Name every fault of the configuration by its line.

    Nothing is started and nothing is changed. Exits 1 when the relay would not start.
    """
    found = examine(config_file)
    if as_json:
        print_json(
            {
                "file": str(config_file),
                "usable": found.config is not None,
                "revision": found.config.revision if found.config is not None else None,
                "faults": found.faults,
            }
        )
        return 0 if found.config is not None else 1
    for fault in found.faults:
        click.echo(str(fault))
    counts = Counter(fault.severity for fault in found.faults)
    parts = [
        f"{counts[severity]} {severity.value}{'s' if counts[severity] != 1 else ''}"
        for severity in Severity
        if counts[severity]
    ]
    click.echo(f"{config_file}: {', '.join(parts) or 'no fault'}")
    return 0 if found.config is not None else 1
