"""Rate limit: how much one sender, network or login may bring in a window of time; beyond it comes later.

Two sinks with the same settings: `RateLimit` counts what comes to its event (connections, messages, recipients), and
`RateLimitOctets` the octets of messages at the end of data.

Rules a change here must keep:
1. In no span of the window's length is more let through than the limit; who waits as long as was said is let through.
2. What is refused does not count: a client that keeps asking is not shut out for longer.
3. What is kept is bounded, whatever strangers call themselves: `keys` of them, a few numbers for each.

Each worker counts for itself, and forgets when the configuration is taken anew.

Settings: see `RateSettings`.
"""

from __future__ import annotations

import enum
import time
from collections import deque
from collections.abc import Callable
from functools import lru_cache
from ipaddress import ip_network
from threading import Lock
from typing import assert_never

import msgspec

from lonedot.sinks.events import Event
from lonedot.sinks.peers import Network, client_address, is_client_in, listed, networks
from lonedot.sinks.protocol import Session
from lonedot.sinks.sink import sink
from lonedot.sinks.verdicts import Defer, Next, Reject, Verdict
from lonedot.sinks.view import Message
from lonedot.terms.address import Address

__all__ = ["Per", "RateLimit", "RateLimitOctets", "RateSettings", "Windows"]

SLOTS = 12
"""A window is counted in so many parts: what was let through frees its room up to one part late."""
KEYS_LIMIT = 1_000_000
_NS = 1_000_000_000


class Per(enum.Enum):
    """Who has a limit of its own."""

    SENDER = "sender"
    SENDER_DOMAIN = "sender-domain"
    NETWORK = "network"
    LOGIN = "login"
    ALL = "all"
    """Everybody together."""


class RateSettings(msgspec.Struct, frozen=True):
    """The settings of a binding."""

    limit: int
    """So many in a window; octets for `RateLimitOctets`."""
    window_seconds: int = 3600
    per: Per = Per.NETWORK
    ipv4_prefix: int = 32
    """Clients whose addresses begin with the same bits are one network."""
    ipv6_prefix: int = 64
    exempt_networks: str = ""
    """Clients from there have no limit."""
    exempt_logins: str = ""
    """Who has logged in under one of these names has none; `*`: any login."""
    code: int = 451
    """Of the refusal; 421 also ends the session."""
    workers: int = 1
    """Each gets its part of the limit."""
    keys: int = 10_000
    """So many are known at a time; the one that was not seen for longest is forgotten."""

    def __post_init__(self) -> None:
        bounds = {
            "limit": (1, 1 << 62),
            "window_seconds": (1, 366 * 86400),
            "ipv4_prefix": (0, 32),
            "ipv6_prefix": (0, 128),
            "code": (400, 499),
            "workers": (1, 1024),
            "keys": (1, KEYS_LIMIT),
        }
        for key, (least, most) in bounds.items():
            if not least <= (value := getattr(self, key)) <= most:
                raise ValueError(f"{key}: {value}; write {least} to {most}")
        networks(self.exempt_networks, "exempt_networks")
        listed(self.exempt_logins)

    @property
    def share(self) -> int:
        """Of one worker."""
        return max(1, self.limit // self.workers)

    def is_exempt(self, client: str, login: str) -> bool:
        if login and {login, "*"} & listed(self.exempt_logins):
            return True
        return is_client_in(client, networks(self.exempt_networks, "exempt_networks"))

    def key(self, client: str, login: str, sender: Address | None) -> str:
        """Whom a limit counts for; empty: it has none here.

        Raises:
            ValueError: the sender is not known yet.
        """
        match self.per:
            case Per.ALL:
                return "*"
            case Per.LOGIN:
                return login
            case Per.NETWORK:
                return _network(client, self.ipv4_prefix, self.ipv6_prefix)
            case Per.SENDER | Per.SENDER_DOMAIN:
                if sender is None:
                    raise ValueError(
                        f"per = {self.per.value!r}: no sender is known here; bind it to 'mail' or later"
                    )
                if sender.is_null:
                    return ""  # reports: what others send must not hold them up
                return (sender.text if self.per is Per.SENDER else _domain(sender)).casefold()
            case _:
                assert_never(self.per)


class Windows:
    """What was let through, by key, in the last window."""

    def __init__(self, limit: int, window_seconds: int, keys: int) -> None:
        self._limit = limit
        self._slot_ns = -(-window_seconds * _NS // SLOTS)
        self._keys = keys
        self._seen: dict[str, deque[tuple[int, int]]] = {}
        self._lock = Lock()  # a large message is judged in a thread

    def __len__(self) -> int:
        return len(self._seen)

    def admit(self, key: str, amount: int, now_ns: int) -> int:
        """Counts an amount for a key and gives 0; or, where it is too much, counts nothing and gives the nanoseconds
        after which it would be let through. An amount beyond the limit never is: -1."""
        if amount > self._limit:
            return -1
        with self._lock:
            return self._admit(key, amount, now_ns)

    def _admit(self, key: str, amount: int, now_ns: int) -> int:
        slot = now_ns // self._slot_ns
        parts = self._seen.pop(key, None)
        if parts is None:
            parts = deque()
            if len(self._seen) >= self._keys:
                del self._seen[next(iter(self._seen))]
        self._seen[key] = parts  # the last seen is the last in the order
        # A span of the window's length touches one part more than it has.
        while parts and parts[0][0] < slot - SLOTS:
            parts.popleft()
        too_much = sum(part for _, part in parts) + amount - self._limit
        for number, part in parts:
            if too_much <= 0:
                break
            too_much -= part
            free_at = (number + SLOTS + 1) * self._slot_ns
            if too_much <= 0:
                return free_at - now_ns
        if parts and parts[-1][0] == slot:
            parts[-1] = (slot, parts[-1][1] + amount)
        else:
            parts.append((slot, amount))
        return 0


class _Limit:
    """What both sinks do."""

    def __init__(self, settings: RateSettings, now_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._settings = settings
        self._now_ns = now_ns
        self.windows = Windows(settings.share, settings.window_seconds, settings.keys)

    def judge(self, client: str, login: str, sender: Address | None, amount: int, what: str) -> Verdict:
        settings = self._settings
        if settings.is_exempt(client, login):
            return Next()
        key = settings.key(client, login, sender)
        wait_ns = self.windows.admit(key, amount, self._now_ns()) if key else 0
        if not wait_ns:
            return Next()
        bound = f"At most {settings.share} {what} in {settings.window_seconds} s"
        if wait_ns < 0:
            return Reject(f"{bound}, and this has {amount}", code=552, enhanced="5.3.4")
        return Defer(f"{bound}; try again in {-(-wait_ns // _NS)} s", code=settings.code, enhanced="4.7.1")


_COUNTED = {
    Event.CONNECT: "connections",
    Event.HELO: "greetings",
    Event.RCPT: "recipients",
    Event.VERB: "commands",
}
"""What one call of an event is; else a message."""


@sink("Rate limit", on="mail", settings=RateSettings)
class RateLimit(_Limit):
    """Counts one for each call: at `connect`, `helo`, `mail`, `rcpt` or `data`."""

    def __call__(self, session: Session) -> Verdict:
        envelope = session.moment.envelope
        sender = None if envelope is None else envelope.reverse_path
        return self.judge(session.client, session.login, sender, 1, _COUNTED.get(session.event, "messages"))


@sink("Rate limit, octets", on="end-of-data", settings=RateSettings)
class RateLimitOctets(_Limit):
    """Counts the octets of each message."""

    def __call__(self, message: Message) -> Verdict:
        facts = message.facts
        return self.judge(facts.client, facts.login, message.envelope.reverse_path, message.size, "octets")


@lru_cache(maxsize=4096)
def _network(client: str, ipv4_prefix: int, ipv6_prefix: int) -> str:
    one = client_address(client)
    if one is None:
        return ""
    network: Network = ip_network(
        (one.network_address, ipv4_prefix if one.version == 4 else ipv6_prefix), strict=False
    )
    return str(network)


def _domain(sender: Address) -> str:
    return sender.domain.decode("utf-8", "backslashreplace")
