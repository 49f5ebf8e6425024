"""`lonedot route`: where mail for an address would go, and why."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from lonedot.cli.output import Problem, config_option, json_option, print_json

__all__ = ["command"]


@click.command("route")
@click.argument("address")
@click.option("--from", "sender", default="<>", help="The sender; by default nobody, as of a report.")
@click.option("--listener", default="", help="The listener by its name, or pickup, dsn, …")
@click.option("--client", default="", help="Address of the client.")
@click.option("--size", default=0, type=click.IntRange(0), help="Octets of the message.")
@click.option("--header", "fields", multiple=True, help='A header field, as "Subject: invoice".')
@config_option
@json_option
def command(
    address: str,
    sender: str,
    listener: str,
    client: str,
    size: int,
    fields: tuple[str, ...],
    config_file: Path,
    as_json: bool,
) -> int:
    """Tell where mail for ADDRESS would go, and why.

    Nothing is connected to; DNS is asked. Exits 1 when it would not arrive.
    """
    from lonedot.admin.routes import explain_route
    from lonedot.app.settings import asker_from, ourselves_from, route_from
    from lonedot.config.faults import ConfigFaults
    from lonedot.config.load import load
    from lonedot.delivery.conditions import Circumstances
    from lonedot.delivery.dns import Dns
    from lonedot.delivery.mx import HostFinder
    from lonedot.delivery.routing import RouteTable
    from lonedot.observability.clock import SystemClock
    from lonedot.terms.address import Address

    if any(":" not in field or not field.isprintable() for field in fields):
        raise Problem("a header field has no colon", do='write it as --header "Subject: invoice"', code=2)
    try:
        config = load(config_file, with_registry=False)
    except ConfigFaults as error:
        raise Problem(
            "the configuration has faults", where=str(config_file), do=f"run lonedot check -c {config_file}"
        ) from error
    try:
        table = RouteTable([route_from(route, config) for route in config.routes])
    except (OSError, ValueError) as error:
        raise Problem(str(error), where=str(config_file), do="run lonedot check --load") from error
    head = "".join(f"{field}\r\n" for field in fields).encode() + b"\r\n"
    message = Circumstances(
        Address(b"" if sender == "<>" else sender.encode()), listener, client, size, lambda: head
    )

    async def explained() -> int:
        dns = Dns(asker_from(config), SystemClock())
        finder = HostFinder(dns, lambda: ourselves_from(config))
        routed = await explain_route(table, finder, Address(address.encode()), message)
        await dns.close()
        if as_json:
            print_json(routed)
            return 1 if routed.problem else 0
        for passed in routed.passed:
            click.echo(f"not {passed.route}: {passed.why}")
        if routed.route:
            click.echo(
                f"route {routed.route}: {routed.target}" + (f", TLS {routed.tls}" if routed.tls else "")
            )
        for host in routed.hosts:
            preference = "" if host.preference is None else f"{host.preference:>5}  "
            click.echo(f"  {preference}{host.host}  {', '.join(host.addresses)}".rstrip())
        for words in routed.left_out:
            click.echo(f"  not tried: {words}")
        if routed.problem:
            fate = "returned to the sender" if routed.is_final else "put off"
            click.echo(f"{fate} ({routed.status}): {routed.problem}")
        return 1 if routed.problem else 0

    return asyncio.run(explained())
