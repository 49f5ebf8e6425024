"""`lonedot check`: every fault of the configuration by its line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from lonedot.cli.output import config_option, json_option, print_json
from lonedot.config.faults import Fault, Severity
from lonedot.config.load import examine
from lonedot.config.model import Config
from lonedot.config.origins import Origins
from lonedot.config.positions import Positions
from lonedot.config.registry import beside, examine_registry
from lonedot.sinks.registry import Row

__all__ = ["command"]


@click.command("check")
@config_option
@click.option(
    "--load",
    "loads",
    is_flag=True,
    help="Also load the code of every sink, check its settings, and ask each password_command, as the relay does.",
)
@json_option
def command(config_file: Path, loads: bool, as_json: bool) -> int:
    """Name every fault of the configuration by its line.

    Nothing is started and nothing is changed; without --load no code of a sink and no program is run. Exits 1 when
    the relay would not start.
    """
    found = examine(config_file)
    faults = found.faults
    if loads and found.config is not None and found.origins is not None:
        faults += tuple(_load_sinks(found.origins, found.config))
        faults += tuple(_ask_secrets(found.origins, found.config))
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


def _ask_secrets(origins: Origins, config: Config) -> Iterator[Fault]:
    """What is wrong with programs that tell passwords, as far as running them tells."""
    from lonedot.config.secrets import ask
    from lonedot.config.values import Unfit

    named: list[tuple[str, int, str, Sequence[str]]] = [
        ("route", number, "password_command", route.password_command)
        for number, route in enumerate(config.routes)
    ]
    named += [
        ("domain", number, "recipients", domain.recipients.password_command)
        for number, domain in enumerate(config.domains)
        if domain.recipients is not None
    ]
    for table, number, key, program in named:
        told = ask(program) if program else None
        if isinstance(told, Unfit):
            spot = origins.spot((table, number, key))
            where = f"{table} {number + 1}: {key}"
            yield Fault(str(spot.file), spot.line, spot.column, Severity.FAULT, where, told.what, told.do)


def _load_sinks(origins: Origins, config: Config) -> Iterator[Fault]:
    """What the code of the sinks says against their entries, in the configuration and in its registry."""
    # Files without a fault hold every entry, in its order.
    yield from _load(origins, [sink.row for sink in config.sinks], "sink", "settings")
    registry = config.server.registry
    if registry is not None:
        found = examine_registry(registry, beside(config))
        rows = found.registry.rows if found.registry is not None else ()
        text = registry.read_text(encoding="utf-8") if rows else ""
        yield from _load(Origins(registry, Positions(text)), rows, "binding", "sink_properties")


def _load(origins: Origins, rows: Sequence[Row], table: str, bag: str) -> Iterator[Fault]:
    from lonedot.app.settings import binding_from
    from lonedot.config.values import Unfit
    from lonedot.sinks.load import SinkNotLoaded
    from lonedot.sinks.settings import SettingsFault

    for number, row in enumerate(rows):
        if not row.is_enabled:
            continue
        path: tuple[str | int, ...] = (table, number)
        try:
            binding_from(row, origins.folder(path), {})
            continue
        except SettingsFault as fault:
            path = (*path, bag, fault.key) if fault.key else (*path, bag)
            what, do = str(fault), "write what the class of its settings says"
        except SinkNotLoaded as fault:
            what, do = str(fault), "mend the code, or the name of it"
        except (ValueError, Unfit) as fault:
            what, do = str(fault), "mend the entry"
        spot = origins.spot(path)
        yield Fault(str(spot.file), spot.line, spot.column, Severity.FAULT, f"{table} {number + 1}", what, do)
