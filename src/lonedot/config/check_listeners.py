"""Listeners: addresses that collide, networks that would make an open relay, certificates that cannot be used."""

from __future__ import annotations

import ipaddress
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from lonedot.config import disk
from lonedot.config.addresses import Endpoint, Network
from lonedot.config.check_sendmail import is_group
from lonedot.config.choices import InboundTls, ListenerProtocol
from lonedot.config.faults import Severity
from lonedot.config.given import Drafts, Found, Given
from lonedot.config.model import Listener
from lonedot.delivery.tls import is_loopback
from lonedot.reception.one_client import default_gateways, is_container
from lonedot.reception.settings import is_in
from lonedot.sinks.events import Event

__all__ = ["collide", "is_own", "judge", "relay_risk"]

_LARGEST_PUBLIC = {4: 8, 6: 16}
"""Shortest prefix of a public network that may relay; anything shorter is no one's own."""

_OWN = tuple(
    ipaddress.ip_network(words)
    for words in (
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.2.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "::1/128",
        "2001:db8::/32",
        "fc00::/7",
        "fe80::/10",
    )
)
"""Networks that the internet does not route: private, loopback, link-local, documentation."""

_WRITE_LISTENER = 'write [[listener]] and address = "127.0.0.1:2525" below it'

_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")


def judge(drafts: Drafts) -> Iterator[Found]:
    """Everything to say about `[[listener]]`."""
    if "listener" not in drafts.present:
        pickup = drafts.pickup.value
        if pickup is not None and not pickup.enabled:
            yield Found(
                (),
                Severity.FAULT,
                "listener",
                "nothing takes mail: no listener, and pickup is off",
                _WRITE_LISTENER,
            )
        else:
            yield Found(
                (), Severity.WARNING, "listener", "no listener: only Pickup takes mail", _WRITE_LISTENER
            )
    yield from _judge_collisions(drafts.listeners)
    for given in drafts.listeners:
        if given.value is not None:
            if given.value.address.is_unix and given.knows("address"):
                yield from _judge_socket(given, given.value)
            else:
                yield from _judge_rights(given, given.value, drafts)
                if given.has("group"):
                    yield given.fault("group", "is that of a unix socket", "remove it")
            yield from _judge_tls(given, given.value)
            yield from _judge_logins(given, given.value)


# --- addresses -----------------------------------------------------------------------------------


def _judge_collisions(listeners: Sequence[Given[Listener]]) -> Iterator[Found]:
    seen: list[tuple[Endpoint, str]] = []
    names: dict[str, str] = {}
    for given in listeners:
        if given.value is None or not given.knows("address"):
            continue
        address, name = given.value.address, given.value.name
        other = next((where for endpoint, where in seen if collide(endpoint, address)), "")
        if other:
            yield given.fault(
                "address", f"{address} is taken by {other}", "use another port, or remove one of the two"
            )
        if name in names:
            yield given.fault("name", f'"{name}" is also the name of {names[name]}', "use different names")
        seen.append((address, given.where))
        names.setdefault(name, given.where)


def collide(one: Endpoint, other: Endpoint) -> bool:
    """Both cannot be listened at: the same port, and the same address or every address of its kind."""
    if one.is_unix or other.is_unix:
        return one == other
    if one.port != other.port or not one.port:
        return False
    if one.host == other.host:
        return True
    if (":" in one.host) != (":" in other.host):
        return False
    return "0.0.0.0" in (one.host, other.host) or "::" in (one.host, other.host)


# --- unix sockets --------------------------------------------------------------------------------

_NOT_OF_A_SOCKET = ("relay_from", "proxy_from", "xclient_from", "relay_to", "logins")
"""What says who a client of a network is."""


def _judge_socket(given: Given[Listener], listener: Listener) -> Iterator[Found]:
    path = Path(listener.address.host)
    if listener.protocol is not ListenerProtocol.LMTP and given.knows("protocol"):
        yield given.fault(
            "address",
            "is a unix socket, where SMTP is not spoken",
            'write protocol = "lmtp"; local programs have [sendmail]',
        )
    for name in _NOT_OF_A_SOCKET:
        if given.has(name):
            yield given.fault(name, "a unix socket has no clients of a network", "remove it, and write group")
    if listener.tls is not InboundTls.OFF:
        yield given.fault("tls", "there is none over a unix socket", 'write tls = "off"')
    if listener.group not in ("", "*") and given.knows("group") and not is_group(listener.group):
        yield given.fault(
            "group", f'there is no group "{listener.group}"', "name one of /etc/group, or write *"
        )
    state = disk.state_of(path.parent)
    if state is None:
        yield given.fault(
            "address", f"the folder {path.parent} does not exist", f"run mkdir -p {path.parent}"
        )
    elif state.st_mode & stat.S_IWOTH:
        yield given.fault(
            "address",
            f"everybody may write in {path.parent}, and put a socket of their own there",
            f"run chmod o-w {path.parent}, or name another folder",
        )


# --- who may relay -------------------------------------------------------------------------------


def is_own(network: Network) -> bool:
    """All of it lies in a network that the internet does not route."""
    return any(own.version == network.version and _within(network, own) for own in _OWN)


def _as_routed(network: Network) -> Network:
    """IPv4 written as IPv6 means IPv4; an IPv6 network around all of it means everybody."""
    if isinstance(network, ipaddress.IPv6Network) and network.overlaps(_MAPPED):
        if network.prefixlen <= 96:
            return ipaddress.IPv4Network("0.0.0.0/0")
        low = int(network.network_address) & 0xFFFFFFFF
        return ipaddress.IPv4Network((low, network.prefixlen - 96))
    return network


def relay_risk(networks: Sequence[Network]) -> list[Severity | None]:
    """For each network: FAULT when strangers could relay through it, WARNING when it is public, else None.

    Neighbours count together, so an open relay cannot be written in small pieces.
    """
    routed = [_as_routed(network) for network in networks]
    four = [network for network in routed if isinstance(network, ipaddress.IPv4Network)]
    six = [network for network in routed if isinstance(network, ipaddress.IPv6Network)]
    merged: list[Network] = [*ipaddress.collapse_addresses(four), *ipaddress.collapse_addresses(six)]
    too_wide = [
        network
        for network in merged
        if network.prefixlen < _LARGEST_PUBLIC[network.version] and not is_own(network)
    ]
    risks: list[Severity | None] = []
    for network in routed:
        if is_own(network):
            risks.append(None)
        elif any(wide.version == network.version and _within(network, wide) for wide in too_wide):
            risks.append(Severity.FAULT)
        else:
            risks.append(Severity.WARNING if network.num_addresses > 1 else None)
    return risks


def _within(network: Network, wide: Network) -> bool:
    """Both of one version."""
    first, last = int(wide.network_address), int(wide.broadcast_address)
    return first <= int(network.network_address) and int(network.broadcast_address) <= last


def _judge_rights(given: Given[Listener], listener: Listener, drafts: Drafts) -> Iterator[Found]:
    if given.knows("relay_from"):
        for number, risk in enumerate(relay_risk(listener.relay_from)):
            network = listener.relay_from[number]
            place = (*given.path, "relay_from", number)
            where = f"{given.where}: relay_from"
            if risk is Severity.FAULT:
                what = f"{network} lets strangers send anywhere in your name: an open relay"
                yield Found(place, risk, where, what, "name only the networks of your own devices")
            elif risk is Severity.WARNING:
                what = f"{network} is public: every client in it may send anywhere"
                yield Found(place, risk, where, what, "keep it only if all of its addresses are yours")
        yield from _judge_gateway(given, listener)
    if listener.protocol is ListenerProtocol.LMTP and given.knows("protocol", "relay_from"):
        if not listener.relay_from:
            yield given.fault(
                "protocol",
                "LMTP is spoken with trusted clients alone: nobody is",
                'write relay_from = ["127.0.0.0/8"]',
            )
        return
    if not given.knows("relay_from", "relay_to", *_LOGIN_KEYS) or listener.relay_from or listener.relay_to:
        return
    may_log_in = _may_log_in(listener, drafts)
    if not may_log_in:
        unless = "" if may_log_in is False else ", unless a sink at auth lets somebody log in"
        yield given.warning(
            "",
            f"takes mail for postmaster alone{unless}: neither relay_from nor relay_to is given",
            'write relay_from = ["192.168.0.0/16"] with the networks of your devices',
        )


def _judge_gateway(given: Given[Listener], listener: Listener) -> Iterator[Found]:
    """In a container, clients may all come from the gateway."""
    if is_loopback(listener.address.host) or not listener.relay_from or not is_container():
        return
    for gateway in sorted(default_gateways()):
        for number, network in enumerate(listener.relay_from):
            if is_in(gateway, (network,)) and not is_in(gateway, listener.proxy_from):
                yield Found(
                    (*given.path, "relay_from", number),
                    Severity.NOTE,
                    f"{given.where}: relay_from",
                    f"{network} holds {gateway}, the gateway of this container: where its network translates "
                    "addresses, every client has that one, and may send anywhere",
                    "nothing if lonedot history shows the clients' own addresses; else take it out",
                )
                break


_LOGIN_KEYS = ("logins", "source", "tls", "ehlo_off", "allow_plaintext_login")
"""What decides whether somebody may log in."""


def _may_log_in(listener: Listener, drafts: Drafts) -> bool | None:
    """Whether there is anybody to ask; None when only a sink's code, or a registry that was not read, could tell."""
    if listener.logins is not None:
        return True
    if "AUTH" in listener.ehlo_off or (listener.tls is InboundTls.OFF and not listener.allow_plaintext_login):
        return False
    sinks = [given.value.row for given in drafts.sinks if given.value is not None]
    events = {
        row.event
        for row in (*sinks, *(drafts.rows or ()))
        if row.is_enabled and row.source == listener.source
    }
    if Event.AUTH in events:
        return True
    is_unknown = None in events or drafts.rows is None or len(sinks) < len(drafts.sinks)
    return None if is_unknown else False


# --- logins --------------------------------------------------------------------------------------


def _judge_logins(given: Given[Listener], listener: Listener) -> Iterator[Found]:
    if listener.logins is None or not given.knows("logins"):
        return
    if "AUTH" in listener.ehlo_off:
        yield given.fault("ehlo_off", "switches AUTH off, and logins asks for it", "remove one of the two")
    is_closed = listener.tls is InboundTls.OFF and not listener.allow_plaintext_login
    if is_closed and given.knows("tls", "allow_plaintext_login"):
        yield given.fault(
            "logins",
            "nobody can log in: AUTH is offered inside TLS alone, and tls is off",
            'write tls = "starttls", or allow_plaintext_login = true when the network is your own',
        )
    unfit = disk.check_logins(listener.logins)
    if disk.state_of(listener.logins) is None:
        yield given.warning(
            "logins",
            f"{listener.logins} does not exist: nobody can log in yet",
            "run lonedot logins add NAME",
        )
    elif unfit is not None:
        yield given.fault("logins", unfit.what, unfit.do)
    mode = disk.mode_of(listener.logins)
    if mode & 0o037:
        yield given.fault(
            "logins",
            f"{listener.logins} can be read or changed by others (mode {mode:04o})",
            f"run chmod 600 {listener.logins}",
        )


# --- TLS -----------------------------------------------------------------------------------------


def _judge_tls(given: Given[Listener], listener: Listener) -> Iterator[Found]:
    if listener.tls is InboundTls.IMPLICIT and listener.proxy_from and given.knows("tls", "proxy_from"):
        yield given.fault(
            "proxy_from",
            "the PROXY header would have to come inside TLS, where no load balancer puts it",
            'write tls = "starttls", or let the load balancer do TLS',
        )
    if not given.knows("tls", "tls_certificate", "tls_key", "require_tls", "ehlo_off"):
        return
    if listener.tls is InboundTls.OFF:
        if listener.require_tls:
            yield given.fault("require_tls", "asks for TLS, but tls is off", 'write tls = "starttls"')
        for name in ("tls_certificate", "tls_key"):
            if given.has(name):
                yield given.warning(name, "is not used: tls is off", 'write tls = "starttls" or "implicit"')
        return
    if listener.tls is InboundTls.STARTTLS and "STARTTLS" in listener.ehlo_off:
        yield given.fault(
            "ehlo_off", "switches STARTTLS off, and tls asks for it", 'write tls = "off", or remove it here'
        )
    missing = [name for name in ("tls_certificate", "tls_key") if not given.has(name)]
    for name in missing:
        yield given.fault("tls", f"needs {name}", f'write {name} = "…"')
    if missing or listener.tls_certificate is None or listener.tls_key is None:
        return
    unfit = disk.check_certificate(listener.tls_certificate, listener.tls_key)
    if unfit is not None:
        name = "tls_key" if unfit.what.startswith(str(listener.tls_key)) else "tls_certificate"
        yield given.fault(name, unfit.what, unfit.do)
    mode = disk.mode_of(listener.tls_key)
    if mode & 0o007:
        yield given.fault(
            "tls_key",
            f"{listener.tls_key} can be read by everybody (mode {mode:04o})",
            f"run chmod 600 {listener.tls_key}",
        )
