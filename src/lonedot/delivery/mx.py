"""The mail exchangers of a domain: which hosts take its mail, in the order in which they are tried (RFC 5321 §5.1).

Rules: hosts by preference, equal ones in random order; a host that is this relay cuts the list, itself and all that are
no better; a domain without MX is its own host; a null MX (RFC 7505) takes no mail. That a name does not exist is
believed; a fault of DNS is not, and puts the mail off. A host whose addresses cannot be had stands back for the others.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
import re
import socket
from collections.abc import Callable, Sequence

import msgspec

from lonedot.delivery.dns import Answer, Dns, DnsFault, Kind, Record, Status, ascii_name
from lonedot.delivery.routing import Family, Lmtp, Mx, NextHop, NoNextHop, Route, Smarthosts

__all__ = ["Exchange", "Host", "HostFinder", "Ourselves", "RouteResolver", "is_here"]

HOSTS = 10
"""Of one domain that are tried; the pool also limits the addresses."""
ADDRESSES = 20
"""Of one host."""

_HOST = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")


class Host(msgspec.Struct, frozen=True):
    """A host that takes mail for a domain."""

    preference: int
    name: str
    addresses: tuple[str, ...]
    from_cache: bool = False
    """Its addresses were kept from an answer before."""
    ttl_seconds: float = 0.0
    """How long they hold."""
    is_missing: bool = False
    """There is no such name."""


class Exchange(msgspec.Struct, frozen=True):
    """The hosts of a domain."""

    domain: str
    hosts: tuple[Host, ...]
    is_implicit: bool = False
    """There is no MX: the domain is the host."""
    is_literal: bool = False
    """The recipient names an address: DNS was not asked."""
    from_cache: bool = False
    """The list was kept from an answer before."""
    ttl_seconds: float = 0.0
    """How long it holds."""
    left_out: tuple[str, ...] = ()
    """Hosts that are not tried, each with the reason."""


def is_here(address: str) -> bool:
    """This machine has the address: a socket can be bound to it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


class Ourselves(msgspec.Struct, frozen=True):
    """By what this relay knows itself in a list of hosts."""

    names: frozenset[str] = frozenset()
    """In lower case."""
    listeners: tuple[NextHop, ...] = ()

    def answers_at(self, address: str, port: int) -> bool:
        """A connection there would come back to this relay."""
        for own in self.listeners:
            if own.port != port:
                continue
            if own.host == address:
                return True
            if own.host in ("0.0.0.0", "::", "") and is_here(address):
                return True
        return False


class HostFinder:
    """Finds the hosts of domains."""

    def __init__(
        self,
        dns: Dns,
        ourselves: Callable[[], Ourselves] = Ourselves,
        shuffle: Callable[[list[Record]], None] = random.shuffle,
    ) -> None:
        """`ourselves` is asked each time: listeners change while the relay runs."""
        self._dns = dns
        self._ourselves_now = ourselves
        self._shuffle = shuffle

    async def exchange(self, domain: str, target: Mx) -> Exchange:
        """The hosts that are tried for mail to `domain`, at least one.

        Raises:
            NoNextHop: there is none, for now or for good.
        """
        if domain.startswith("["):
            return self._literal(domain, target)
        try:
            name = ascii_name(domain)
        except ValueError as error:
            raise NoNextHop(f"{domain or 'an empty domain'} is no domain: {error}", "5.1.2", True) from error
        answer = await self._ask(name, Kind.MX)
        if answer.status is Status.NO_NAME:
            raise NoNextHop(f"the domain {name} does not exist", "5.1.2", True)
        is_implicit = answer.status is Status.NO_DATA
        records = [Record(0, name)] if is_implicit else list(answer.records)
        if all(record.value == "" for record in records):
            # RFC 7505 §3
            raise NoNextHop(f"the domain {name} takes no mail: it has a null MX", "5.1.10", True)
        self._shuffle(records)
        records.sort(key=lambda record: record.preference)
        return await self._with_addresses(
            Exchange(name, (), is_implicit, from_cache=answer.from_cache, ttl_seconds=answer.ttl_seconds),
            records,
            target,
        )

    @property
    def _ourselves(self) -> Ourselves:
        return self._ourselves_now()

    async def _ask(self, name: str, kind: Kind) -> Answer:
        try:
            return await self._dns.look_up(name, kind)
        except DnsFault as error:
            raise NoNextHop(str(error), "4.4.3") from error

    async def _with_addresses(self, exchange: Exchange, records: Sequence[Record], target: Mx) -> Exchange:
        left_out: list[str] = []
        named: list[Record] = []
        for record in records:
            if record.value in self._ourselves.names:
                left_out += _cut(records, record.preference, record.value)
                named = [one for one in named if one.preference < record.preference]
                break
            if not _HOST.fullmatch(record.value) or len(record.value) > 253:
                left_out.append(f"{record.value[:80] or '.'}: not the name of a host")
                continue
            named.append(record)
        is_loop = bool(left_out) and not named and any(r.value in self._ourselves.names for r in records)
        left_out += [f"{record.value}: only {HOSTS} hosts are tried" for record in named[HOSTS:]]
        named = named[:HOSTS]
        found = await asyncio.gather(*(self._addresses(one.value, target.family) for one in named))
        is_narrow = target.family is not Family.AUTO and any(
            isinstance(one, Host) and not one.is_missing for one in found
        )
        hosts: list[Host] = []
        faults: list[DnsFault] = []
        for record, said in zip(named, found, strict=True):
            if isinstance(said, DnsFault):
                faults.append(said)
                left_out.append(f"{record.value}: {said}")
                continue
            if not said.addresses:
                fault = "does not exist" if said.is_missing else f"has no address{_of(target.family)}"
                left_out.append(f"{record.value}: {fault}")
            elif any(self._ourselves.answers_at(address, target.port) for address in said.addresses):
                left_out += _cut(records, record.preference, record.value)
                hosts = [one for one in hosts if one.preference < record.preference]
                is_loop = not hosts
                break
            else:
                hosts.append(msgspec.structs.replace(said, preference=record.preference))
        if not hosts:
            raise self._no_host(exchange, is_loop, faults, left_out, _of(target.family) if is_narrow else "")
        return msgspec.structs.replace(exchange, hosts=tuple(hosts), left_out=tuple(left_out))

    @staticmethod
    def _no_host(
        exchange: Exchange,
        is_loop: bool,
        faults: Sequence[DnsFault],
        left_out: Sequence[str],
        narrow: str,
    ) -> NoNextHop:
        """RFC 5321 §5.1: no host that can be used is an error, and final. Not where it may be ours: DNS does not
        answer, or the route does not use the addresses that there may be."""
        name = exchange.domain
        if is_loop:
            words = f"mail for {name} would come back to this relay: the best host for it is this one"
            return NoNextHop(f"{words}; give it a [[route]] of its own", "5.4.6", True)
        if faults:
            return NoNextHop(str(faults[0]), "4.4.3")
        if exchange.is_implicit:
            words = f"the domain {name} has neither MX nor address{narrow}"
        else:
            words = f"no host for {name} can be used: {'; '.join(left_out)[:300]}"
        if narrow:
            return NoNextHop(f"{words}; the route takes no other addresses (ip)", "4.4.4")
        return NoNextHop(words, "5.4.4", True)

    async def _addresses(self, host: str, family: Family) -> Host | DnsFault:
        """A host with its addresses in the order in which they are tried."""
        kinds = {
            Family.AUTO: (Kind.AAAA, Kind.A),
            Family.IPV4: (Kind.A,),
            Family.IPV6: (Kind.AAAA,),
        }[family]
        said = await asyncio.gather(
            *(self._dns.look_up(host, kind) for kind in kinds), return_exceptions=True
        )
        lists: list[list[str]] = []
        fault: DnsFault | None = None
        answers: list[Answer] = []
        for one in said:
            if isinstance(one, DnsFault):
                fault = one
            elif isinstance(one, BaseException):
                raise one
            else:
                records = list(one.records)
                self._shuffle(records)
                lists.append([record.value for record in records])
                answers.append(one)
        addresses = _in_turn(lists)[:ADDRESSES]
        if not addresses and fault is not None:
            return fault
        found = [one for one in answers if one.status is Status.FOUND] or answers
        return Host(
            0,
            host,
            addresses,
            all(one.from_cache for one in answers),
            min(one.ttl_seconds for one in found),
            is_missing=all(one.status is Status.NO_NAME for one in answers),
        )

    def _literal(self, domain: str, target: Mx) -> Exchange:
        """RFC 5321 §4.1.3: `[192.0.2.1]`, `[IPv6:2001:db8::1]`."""
        inner = domain[1:-1] if domain.endswith("]") else ""
        try:
            if inner.lower().startswith("ipv6:"):
                address = str(ipaddress.IPv6Address(inner[5:]))
            else:
                address = str(ipaddress.IPv4Address(inner))
        except ValueError:
            raise NoNextHop(f"{domain[:80]} is no address of a host", "5.1.2", True) from None
        if "%" in address:
            raise NoNextHop(f"{domain[:80]} is no address of a host", "5.1.2", True)
        if (":" in address) == (target.family is Family.IPV4) and target.family is not Family.AUTO:
            raise NoNextHop(f"{domain[:80]}: the route uses no such addresses", "5.4.4", True)
        if self._ourselves.answers_at(address, target.port):
            raise NoNextHop(f"mail for {domain} would come back to this relay", "5.4.6", True)
        return Exchange(domain, (Host(0, address, (address,)),), is_literal=True)


class RouteResolver:
    """Satisfies `routing.Resolver`: hosts by MX, or those that the route names."""

    def __init__(self, finder: HostFinder) -> None:
        self._finder = finder

    def destination(self, route: Route, domain: bytes) -> str:
        """The domain under MX: connections are not shared by domains that happen to have the same hosts."""
        if not isinstance(route.target, Mx):
            return ""
        text = domain.decode("utf-8", "replace")
        return text if text.isascii() else text.lower()

    async def next_hops(self, route: Route, destination: str) -> Sequence[NextHop]:
        match route.target:
            case Mx() as target:
                exchange = await self._finder.exchange(destination, target)
                return [NextHop(host.name, target.port, host.addresses) for host in exchange.hosts]
            case Smarthosts(hosts) | Lmtp(hosts):
                return hosts
            case _:
                raise NoNextHop(f"route {route.name} names no host")


def _cut(records: Sequence[Record], preference: int, own: str) -> list[str]:
    """RFC 5321 §5.1: not this relay, and none that is no nearer; else mail would go in a circle."""
    behind = f"is no nearer than {own}, which is this relay"
    return [
        f"{record.value}: {'is this relay' if record.value == own else behind}"
        for record in records
        if record.preference >= preference
    ]


def _of(family: Family) -> str:
    return "" if family is Family.AUTO else f" of IPv{family.value}"


def _in_turn(lists: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """One of each list after the other, so that a machine without IPv6 does not try all of them first."""
    longest = max((len(one) for one in lists), default=0)
    return tuple(one[place] for place in range(longest) for one in lists if place < len(one))
