"""Whether all clients of a listener look like one that is trusted: behind a network that translates addresses (that of
a container) or a proxy that does not say for whom it speaks, whoever reaches the port has the rights of that one.

Rules: only what is closed is counted, and a listener has one small record, whatever its clients do. What is found is
told once a day; after a day the record begins anew, so that a network that was mended is seen to be.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from pathlib import Path

import msgspec

from lonedot.terms.clock import Clock

__all__ = ["ClientWatch", "OneClient", "default_gateways", "is_container"]

DAY_SECONDS = 86400.0
GATEWAY_SECONDS = 3600.0
"""So long the gateways that were read are believed."""
ENOUGH_SESSIONS = 3
"""From a gateway, before it is told."""
ENOUGH_NAMES = 5
"""Names at EHLO from another address, before it is told: one machine has one or two."""


def default_gateways(folder: Path = Path("/proc/net")) -> frozenset[str]:
    """Addresses of the gateways that default routes name; none where the system does not say."""
    found: set[str] = set()
    for line in _lines(folder / "route"):
        words = line.split()
        if len(words) > 2 and words[1] == "00000000" and words[2] != "00000000":
            found.add(socket.inet_ntoa(bytes.fromhex(words[2])[::-1]))
    for line in _lines(folder / "ipv6_route"):
        words = line.split()
        if len(words) > 4 and words[0] == "0" * 32 and words[1] == "00" and words[4] != "0" * 32:
            found.add(str(ip_address(bytes.fromhex(words[4]))))
    return frozenset(found)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("ascii").splitlines()
    except (OSError, ValueError):
        return []


def is_container(root: Path = Path("/"), environment: Mapping[str, str] = os.environ) -> bool:
    """As Docker, Podman, systemd and Kubernetes tell the programs in one."""
    return (
        (root / ".dockerenv").exists()
        or (root / "run" / ".containerenv").exists()
        or "container" in environment
        or "KUBERNETES_SERVICE_HOST" in environment
    )


class OneClient(msgspec.Struct, frozen=True):
    """What was found."""

    listener: str
    client: str
    words: str


class _Record:
    """What is known of the clients of one listener."""

    __slots__ = ("began_at", "client", "is_over", "names", "sessions")

    def __init__(self, client: str, now: float) -> None:
        self.began_at = now
        self.client = client
        self.sessions = 0
        self.names: set[int] = set()
        self.is_over = False
        """Another address was seen, or it has been told."""


class ClientWatch:
    """Looks at the sessions of all listeners of a relay. Lives on one event loop."""

    def __init__(
        self,
        told: Callable[[OneClient], None],
        clock: Clock,
        gateways: Callable[[], frozenset[str]] = default_gateways,
    ) -> None:
        self._told = told
        self._now = clock.monotonic
        self._read_gateways = gateways
        self._gateways: frozenset[str] = frozenset()
        self._read_at = float("-inf")
        self._records: dict[str, _Record] = {}

    def closed(self, listener: str, client: str, trusted: bool, helo: str) -> None:
        """A session has ended; `trusted`: for its address."""
        record = self._records.get(listener)
        now = self._now()
        if record is None or now - record.began_at >= DAY_SECONDS:
            record = self._records[listener] = _Record(client, now)
        if record.is_over:
            return
        if client != record.client:
            record.is_over = True
            return
        if not trusted or not helo:
            return
        record.sessions += 1
        if len(record.names) < ENOUGH_NAMES:
            record.names.add(hash(helo.casefold()))
        words = self._words(listener, record, now)
        if words:
            record.is_over = True
            self._told(OneClient(listener, client, words))

    def _words(self, listener: str, record: _Record, now: float) -> str:
        if record.sessions < ENOUGH_SESSIONS:
            return ""
        danger = "which relay_from trusts: whoever reaches the port through it may send anywhere"
        if self._is_gateway(record.client, now):
            return (
                f"all sessions at {listener} come from the gateway of this machine, {record.client}, {danger}"
            )
        if len(record.names) >= ENOUGH_NAMES:
            many = f"clients of {ENOUGH_NAMES} names and more"
            return f"{many} all come to {listener} from {record.client}, {danger}, if it is a proxy"
        return ""

    def _is_gateway(self, client: str, now: float) -> bool:
        if now - self._read_at >= GATEWAY_SECONDS:
            self._gateways, self._read_at = self._read_gateways(), now
        return client.removeprefix("::ffff:") in self._gateways
