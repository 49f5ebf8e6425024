"""Where mail for an address would go, and why: what it is written as, whom an alias or a list leads to, the routes that
are passed over, the hosts in their order.

Rule: nothing is connected to for delivery; DNS, and those who know recipients, are asked as sessions and deliveries ask
them. Whoever may ask is an administrator: members are shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

import msgspec

from lonedot.admin.routed import HostTold, Led, ListTold, Passed, RouteArguments, Routed, Written
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
from lonedot.directory.directory import Directory, Standing
from lonedot.directory.expansion import Expansion
from lonedot.directory.faults import DirectoryFault
from lonedot.directory.rewriting import Rewriting
from lonedot.terms.address import Address

__all__ = ["Ways", "explain_route"]

SHOWN = 50
"""Addresses behind an alias or a list of which it is told how they would go."""


@dataclass(frozen=True, slots=True)
class Ways:
    """What decides where mail goes."""

    routes: RouteTable
    finder: HostFinder
    directory: Directory | None = None
    rewriting: Rewriting | None = None
    revision: str = ""


async def explain_route(ways: Ways, asked: RouteArguments) -> Routed:
    """What would become of such mail, were it to come and to be delivered now."""
    address, sender = Address(asked.address.encode()), Address(asked.sender.encode())
    written: list[Written] = []
    if ways.rewriting is not None:
        to, by = ways.rewriting.recipient(address), ways.rewriting.sender(sender)
        if by is not None:
            written.append(Written(sender.text, by.address.text, by.rule))
            sender = by.address
        if to is not None:
            written.append(Written(address.text, to.address.text, to.rule))
            address = to.address
    head = "".join(f"{field}\r\n" for field in asked.fields).encode() + b"\r\n"
    message = Circumstances(sender, asked.listener, asked.client, asked.size, lambda: head)
    routed = await _resolved(ways, address, message)
    return msgspec.structs.replace(routed, written=tuple(written), revision=ways.revision)


async def _resolved(ways: Ways, address: Address, message: Circumstances) -> Routed:
    directory = ways.directory
    if directory is None or not directory.covers(address):
        return await _routed(ways, address, message)
    nowhere = Routed(address.text, ())
    try:
        judged = await directory.judge(address, message.sender)
        if judged.standing is Standing.UNKNOWN:
            return _not_taken(nowhere, judged.words, "5.1.1")
        if judged.standing is Standing.FORBIDDEN:
            return _not_taken(nowhere, judged.words, "5.7.2")
        expansion = await directory.resolve(address)
    except DirectoryFault as error:
        return msgspec.structs.replace(nowhere, problem=str(error), status="4.3.0")
    if expansion.targets == (address,) and not expansion.copies:
        return await _routed(ways, address, message)
    return await _led(ways, nowhere, expansion, message)


def _not_taken(routed: Routed, words: str, status: str) -> Routed:
    return msgspec.structs.replace(routed, problem=words, status=status, is_final=True)


async def _led(ways: Ways, routed: Routed, expansion: Expansion, message: Circumstances) -> Routed:
    """How the addresses behind one would go."""
    members = [("", message.sender, target) for target in expansion.targets]
    members += [(copy.list.text, copy.owner, member) for copy in expansion.copies for member in copy.members]
    leads_to: list[Led] = []
    for name, sender, member in members[:SHOWN]:
        as_sent = msgspec.structs.replace(message, sender=sender)
        leads_to.append(Led(name, sender.text, await _routed(ways, member, as_sent)))
    faulty = [one.routed for one in leads_to if one.routed.problem]
    problem = ""
    if faulty:
        problem = f"{len(faulty)} of {len(leads_to)} would not arrive: {faulty[0].problem}"
    return msgspec.structs.replace(
        routed,
        lists=tuple(ListTold(one.list.text, one.owner.text, len(one.members)) for one in expansion.copies),
        members=len(members),
        leads_to=tuple(leads_to),
        problem=problem,
        status=faulty[0].status if faulty else "",
        is_final=bool(faulty) and faulty[0].is_final,
    )


async def _routed(ways: Ways, address: Address, message: Circumstances) -> Routed:
    routes, finder = ways.routes, ways.finder
    passed: list[Passed] = []
    for route in routes:
        why = _why_not(route, address, message)
        if why:
            passed.append(Passed(route.name, why))
            continue
        ca = str(route.tls_ca or "")
        return await _over(route, finder, Routed(address.text, tuple(passed), route.name, tls_ca=ca))
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
                    host.from_cache,
                    round(host.ttl_seconds, 1),
                )
                for host in exchange.hosts
            )
            return change(
                routed,
                target=_mx_words(exchange),
                tls=tls,
                hosts=hosts,
                left_out=exchange.left_out,
                from_cache=exchange.from_cache,
                ttl_seconds=round(exchange.ttl_seconds, 1),
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
