"""Where mail for an address would go, and why: the routes that are passed over, the hosts in their order.

Rule: nothing is connected to; DNS is asked as a delivery asks it.
"""

from __future__ import annotations

from typing import assert_never

import msgspec

from lonedot.delivery.conditions import Circumstances, matches
from lonedot.delivery.mx import Exchange, HostFinder
from lonedot.delivery.routing import (
    Discard,
    Drop,
    Hold,
    Lmtp,
    Maildir,
    Mx,
    NoNextHop,
    Pipe,
    Route,
    RouteTable,
    Smarthosts,
)
from lonedot.terms.address import Address

__all__ = ["HostTold", "Passed", "Routed", "explain_route"]


class Passed(msgspec.Struct, frozen=True):
    """A route that is not taken."""

    route: str
    why: str


class HostTold(msgspec.Struct, frozen=True):
    """A host in the order in which it would be tried."""

    host: str
    """With its port."""
    preference: int | None = None
    """That of an MX."""
    addresses: tuple[str, ...] = ()
    from_cache: bool = False


class Routed(msgspec.Struct, frozen=True):
    """What would become of mail for an address."""

    address: str
    passed: tuple[Passed, ...]
    """In the order of the configuration, up to the route that is taken."""
    route: str = ""
    """Empty: none takes it."""
    target: str = ""
    """In words."""
    tls: str = ""
    """Empty where no connection is made."""
    hosts: tuple[HostTold, ...] = ()
    left_out: tuple[str, ...] = ()
    """Hosts that are not tried, and why."""
    problem: str = ""
    """Why it would not arrive: with no route, or by DNS."""
    status: str = ""
    is_final: bool = False
    """The sender would be told at once."""


async def explain_route(
    routes: RouteTable, finder: HostFinder, address: Address, message: Circumstances
) -> Routed:
    """What would become of mail for `address`, were a message of this kind to be delivered now."""
    passed: list[Passed] = []
    for route in routes:
        why = _why_not(route, address, message)
        if why:
            passed.append(Passed(route.name, why))
            continue
        return await _over(route, finder, Routed(address.text, tuple(passed), route.name))
    problem = f"no [[route]] takes {address.text}: it would wait until it expires"
    return Routed(address.text, tuple(passed), problem=problem, status="4.4.4")


def _why_not(route: Route, address: Address, message: Circumstances) -> str:
    if not any(matches(pattern, address) for pattern in route.to):
        shown = ", ".join(route.to[:5]) + (", …" if len(route.to) > 5 else "")
        return f"to {address.text} is not under {shown}"
    return "" if route.conditions is None else route.conditions.failed(message)


async def _over(route: Route, finder: HostFinder, routed: Routed) -> Routed:
    change = msgspec.structs.replace
    match route.target:
        case Mx() as target:
            tls = route.tls.value
            try:
                domain = routed.address.rpartition("@")[2] if "@" in routed.address else ""
                exchange = await finder.exchange(domain, target)
            except NoNextHop as error:
                return change(
                    routed,
                    target="mx",
                    tls=tls,
                    problem=str(error),
                    status=error.status,
                    is_final=error.is_final,
                )
            hosts = tuple(
                HostTold(
                    f"{host.name}:{target.port}",
                    None if exchange.is_literal or exchange.is_implicit else host.preference,
                    host.addresses,
                    exchange.from_cache and host.from_cache,
                )
                for host in exchange.hosts
            )
            return change(
                routed, target=_mx_words(exchange), tls=tls, hosts=hosts, left_out=exchange.left_out
            )
        case Smarthosts(hops):
            told = tuple(HostTold(str(hop)) for hop in hops)
            return change(routed, target="smarthost", tls=route.tls.value, hosts=told)
        case Lmtp(hops):
            told = tuple(HostTold(str(hop)) for hop in hops)
            return change(routed, target="lmtp", tls=route.tls.value, hosts=told)
        case Maildir(path):
            return change(routed, target=f"maildir {path}")
        case Pipe(command):
            return change(routed, target=f"pipe {' '.join(command)}")
        case Drop(folders):
            shown = ", ".join(f"{folder} (source {number})" for number, folder in folders)
            return change(routed, target=f"drop {shown if len(folders) > 1 else folders[0][1]}")
        case Discard():
            return change(routed, target="discard: it counts as delivered, and is gone")
        case Hold(words):
            return change(routed, target=f"hold: {words}")
        case _:
            assert_never(route.target)


def _mx_words(exchange: Exchange) -> str:
    if exchange.is_literal:
        return "mx: the address names the host"
    if exchange.is_implicit:
        return f"mx: {exchange.domain} has no MX, so it is its own host"
    return f"mx of {exchange.domain}"
