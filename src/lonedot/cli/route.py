"""`lonedot route`: where mail for an address would go, and why."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lonedot.admin.routed import HostTold, RouteArguments, Routed
from lonedot.cli.output import Problem, config_option, json_option, print_json

if TYPE_CHECKING:
    from lonedot.config.model import Config

__all__ = ["command"]

_TLS = {
    "off": "never",
    "opportunistic": "STARTTLS where offered, any certificate",
    "required": "nothing without it, any certificate",
    "verified": "nothing without it, name and issuer are checked",
}


@click.command("route")
@click.argument("address")
@click.option("--from", "sender", default="<>", help="The sender; by default nobody, as of a report.")
@click.option("--listener", default="", help="The listener by its name, or pickup, dsn, …")
@click.option("--client", default="", help="Address of the client.")
@click.option("--size", default=0, type=click.IntRange(0), help="Octets of the message.")
@click.option("--header", "fields", multiple=True, help='A header field, as "Subject: invoice".')
@click.option("--from-file", is_flag=True, help="By the file, also where a relay runs.")
@config_option
@json_option
def command(
    address: str,
    sender: str,
    listener: str,
    client: str,
    size: int,
    fields: tuple[str, ...],
    from_file: bool,
    config_file: Path,
    as_json: bool,
) -> int:
    """Tell where mail for ADDRESS would go, and why.

    The running relay is asked, with the configuration that is in force and the answers of DNS that it has kept; without
    one, this command reads the file and asks DNS itself. Nothing is connected to for delivery. Exits 1 when it would
    not arrive.
    """
    from lonedot.config.faults import ConfigFaults
    from lonedot.config.load import load

    if any(":" not in field or not field.isprintable() for field in fields):
        raise Problem("a header field has no colon", do='write it as --header "Subject: invoice"', code=2)
    try:
        config = load(config_file, with_registry=False)
    except ConfigFaults as error:
        raise Problem(
            "the configuration has faults", where=str(config_file), do=f"run lonedot check -c {config_file}"
        ) from error
    asked = RouteArguments(address, "" if sender == "<>" else sender, listener, client, size, fields)
    routed = None if from_file else asyncio.run(_of_relay(config, asked))
    is_running = routed is not None
    if routed is None:
        try:
            routed = asyncio.run(_of_file(config, asked))
        except (OSError, ValueError) as error:
            raise Problem(str(error), where=str(config_file), do="run lonedot check --load") from error
    if is_running and routed.revision != config.revision:
        click.echo(
            f"the relay runs {routed.revision}, and {config_file} is {config.revision}: lonedot reload takes it, "
            "--from-file asks it",
            err=True,
        )
    if as_json:
        print_json(routed)
    else:
        for line in _lines(routed):
            click.echo(line)
    return 1 if routed.problem else 0


async def _of_relay(config: Config, asked: RouteArguments) -> Routed | None:
    """What the running relay says; None when there is none, or it does not let us ask."""
    from lonedot.admin.client import RelayDown, connect_any
    from lonedot.admin.route_operations import ROUTE
    from lonedot.admin.values import AdminError

    try:
        client = await connect_any(config.server.paths)
    except (RelayDown, AdminError):
        return None
    try:
        return await client.call(ROUTE, asked)
    except AdminError as error:
        raise Problem(error.problem.what, where=error.problem.where, do=error.problem.do) from error
    finally:
        await client.close()


async def _of_file(config: Config, asked: RouteArguments) -> Routed:
    from lonedot.admin.routes import Ways, explain_route
    from lonedot.app.directory import directory_from
    from lonedot.app.rewriting import rewriting_from
    from lonedot.app.settings import asker_from, ourselves_from, route_from
    from lonedot.delivery.dns import Dns
    from lonedot.delivery.mx import HostFinder
    from lonedot.delivery.routing import RouteTable
    from lonedot.observability.clock import SystemClock

    dns = Dns(asker_from(config), SystemClock())
    ways = Ways(
        RouteTable([route_from(route, config) for route in config.routes]),
        HostFinder(dns, lambda: ourselves_from(config)),
        directory_from(config),
        rewriting_from(config),
        config.revision,
    )
    try:
        return await explain_route(ways, asked)
    finally:
        await dns.close()


def _lines(routed: Routed) -> Iterator[str]:
    for written in routed.written:
        yield f"{written.before} is now {written.after} ({written.rule})"
    if routed.members:
        yield from _led_lines(routed)
    else:
        yield from _route_lines(routed)
    if routed.problem:
        fate = "returned to the sender" if routed.is_final else "put off"
        yield f"{fate} ({routed.status}): {routed.problem}"


def _led_lines(routed: Routed) -> Iterator[str]:
    yield f"{routed.address} leads to {routed.members} address{'es' if routed.members > 1 else ''}"
    for one in routed.lists:
        yield f"list {one.address}: {one.members} members, in the name of {one.owner}"
    for led in routed.leads_to:
        of_list = f", of the list {led.list}" if led.list else ""
        yield f"  {led.routed.address}{of_list}"
        for line in _route_lines(led.routed, with_passed=False):
            yield f"    {line}"
        if led.routed.problem:
            yield f"    {led.routed.status}: {led.routed.problem}"
    left = routed.members - len(routed.leads_to)
    if left:
        yield f"  and {left} more"


def _route_lines(routed: Routed, *, with_passed: bool = True) -> Iterator[str]:
    for passed in routed.passed if with_passed else ():
        yield f"not {passed.route}: {passed.why}"
    if routed.route:
        source = f" ({_source(routed)})" if routed.ttl_seconds else ""
        ca = f", issuers of {routed.tls_ca}" if routed.tls_ca else ""
        tls = f", TLS {routed.tls} ({_TLS.get(routed.tls, '')}{ca})" if routed.tls else ""
        yield f"route {routed.route}: {routed.target}{source}{tls}"
    for host in routed.hosts:
        preference = "" if host.preference is None else f"{host.preference:>5}  "
        source = f"  ({_source(host)})" if host.ttl_seconds else ""
        yield f"  {preference}{host.host}  {', '.join(host.addresses)}{source}".rstrip()
    for words in routed.left_out:
        yield f"  not tried: {words}"


def _source(told: Routed | HostTold) -> str:
    where = "kept" if told.from_cache else "from DNS"
    return f"{where}, good for {told.ttl_seconds:.0f} s"
