"""`lonedot check`: every fault of the configuration by its line."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click

from lonedot.cli.output import config_option, json_option, print_json
from lonedot.config.faults import Fault, Severity
from lonedot.config.load import examine
from lonedot.config.model import Config

__all__ = ["command"]


@click.command("check")
@config_option
@click.option(
    "--load",
    "loads",
    is_flag=True,
    help="Also load the code of every sink, as the relay does when it starts, and check its settings.",
)
@json_option
def command(config_file: Path, loads: bool, as_json: bool) -> int:
    """Name every fault of the configuration by its line.

    Nothing is started and nothing is changed; without --load no code of a sink is run. Exits 1 when the relay would
    not start.
    """
    found = examine(config_file)
    faults = found.faults
    if loads and found.config is not None:
        faults += _load_sinks(config_file, found.config)
    usable = all(fault.severity is not Severity.FAULT for fault in faults)
    if as_json:
        print_json(
            {
                "file": str(config_file),
                "usable": usable,
                "revision": found.config.revision if found.config is not None else None,
                "faults": faults,
            }
        )
        return 0 if usable else 1
    for fault in faults:
        click.echo(str(fault))
    counts = Counter(fault.severity for fault in faults)
    parts = [
        f"{counts[severity]} {severity.value}{'s' if counts[severity] != 1 else ''}"
        for severity in Severity
        if counts[severity]
    ]
    click.echo(f"{config_file}: {', '.join(parts) or 'no fault'}")
    return 0 if usable else 1


def _load_sinks(file: Path, config: Config) -> tuple[Fault, ...]:
    """What the code of the sinks says against their entries."""
    from lonedot.app.settings import bindings_from
    from lonedot.config.positions import Positions
    from lonedot.sinks.load import SinkNotLoaded
    from lonedot.sinks.settings import SettingsFault

    positions = Positions(file.read_text(encoding="utf-8"))
    faults = []
    # A configuration without a fault holds every [[sink]] of the file, in its order.
    for number, sink in enumerate(config.sinks):
        path: tuple[str | int, ...] = ("sink", number)
        try:
            bindings_from((sink,))
            continue
        except SettingsFault as fault:
            path = (*path, "settings", fault.key) if fault.key else (*path, "settings")
            what, do = str(fault), "write what the class of its settings says"
        except SinkNotLoaded as fault:
            what, do = str(fault), "mend the code, or the name of it"
        except ValueError as fault:
            what, do = str(fault), "mend the entry"
        line, column = positions.of(path) or (0, 0)
        faults.append(Fault(str(file), line, column, Severity.FAULT, f"sink {number + 1}", what, do))
    if config.server.registry is not None:
        faults += _load_registry(config, config.server.registry)
    return tuple(faults)


def _load_registry(config: Config, registry: Path) -> list[Fault]:
    """What the code of the bindings in the registry says against them: the first of it."""
    from lonedot.admin.values import AdminError
    from lonedot.app.registry import RegistryKeeper

    try:
        RegistryKeeper(config, registry, given=()).load()
    except AdminError as error:
        problem = error.problem
        return [Fault(str(registry), 0, 0, Severity.FAULT, problem.where, problem.what, problem.do)]
    return []
