"""Questions to DNS: asked once, kept for as long as the answer says, never too many at a time.

Rules: an answer is `FOUND`, `NO_DATA` or `NO_NAME`, and each of them is kept by its TTL within bounds; everything else
(SERVFAIL, time-out, a chain of CNAMEs that does not end) is a `DnsFault`: it says nothing about the name, is kept for
some seconds only, and mail waits. A question that is on its way is not asked a second time. What is kept is bounded in
number, since strangers choose the names.
"""

from __future__ import annotations

import asyncio
import enum
import os
from collections.abc import Awaitable, Sequence
from typing import Protocol

import dns.asyncresolver
import dns.exception
import dns.message
import dns.name
import dns.nameserver
import dns.rdatatype
import dns.resolver
import msgspec

from lonedot.terms.clock import Clock

__all__ = [
    "Answer",
    "Asker",
    "Dns",
    "DnsFault",
    "Kind",
    "NameServer",
    "Record",
    "ServerAsker",
    "Status",
    "ascii_name",
]

KEPT = 10_000
"""Answers. Beyond it the oldest are forgotten."""
AT_ONCE = 50
"""Questions on their way."""
SHORTEST_SECONDS = 5.0
"""Also for an answer with TTL 0: one opening of connections asks the same more than once."""
LONGEST_SECONDS = 3600.0
LONGEST_NEGATIVE_SECONDS = 900.0
FAULT_SECONDS = 10.0
RECORDS = 100
"""Of one answer that are read."""
_LINKS = 8
"""CNAMEs that are followed by questions of our own, where a name server leaves them to us."""


class Kind(enum.Enum):
    MX = "MX"
    A = "A"
    AAAA = "AAAA"


class Status(enum.Enum):
    FOUND = "found"
    NO_DATA = "no data"
    """The name exists, with records of other kinds."""
    NO_NAME = "no such name"


class Record(msgspec.Struct, frozen=True, order=True):
    preference: int
    """0 for an address."""
    value: str
    """A name without its final dot (the root is ""), or an address."""


class Answer(msgspec.Struct, frozen=True):
    """What DNS says."""

    status: Status
    records: tuple[Record, ...] = ()
    ttl_seconds: float = 0.0
    """As DNS says; of one that was kept, how long it still is."""
    from_cache: bool = False


class DnsFault(Exception):
    """DNS could not be asked, or did not answer: try again later. The words are for people."""


class NameServer(msgspec.Struct, frozen=True):
    address: str
    port: int = 53


class Asker(Protocol):
    """Asks one question."""

    def ask(self, name: str, kind: Kind) -> Awaitable[Answer]:
        """`name` is ASCII. Raises DnsFault."""
        ...


def ascii_name(name: str) -> str:
    """A domain in the form of DNS (RFC 5890: A-labels), lower case, without a final dot.

    Raises:
        ValueError: it cannot stand in DNS.
    """
    try:
        parsed = dns.name.from_text(name.lower(), idna_codec=dns.name.IDNA_2008_Practical)
        text = parsed.to_text(omit_final_dot=True)
    except (dns.exception.DNSException, UnicodeError) as error:
        raise ValueError(str(error) or type(error).__name__) from error
    if parsed == dns.name.root:
        raise ValueError("an empty name")
    return text


class _Kept(msgspec.Struct, frozen=True):
    until: float
    answer: Answer | None
    fault: str = ""


class Dns:
    """The questions of one worker, with their answers kept. Lives on one event loop."""

    def __init__(self, asker: Asker, clock: Clock, *, kept: int = KEPT, at_once: int = AT_ONCE) -> None:
        self._asker = asker
        self._clock = clock
        self._limit = kept
        self._turns = asyncio.Semaphore(at_once)
        self._kept: dict[tuple[str, Kind], _Kept] = {}
        """In the order of asking."""
        self._asked: dict[tuple[str, Kind], asyncio.Task[_Kept]] = {}

    async def look_up(self, name: str, kind: Kind) -> Answer:
        """The answer, kept or new; `name` as `ascii_name` gives it.

        Raises:
            DnsFault: there is none now.
        """
        key = name, kind
        kept = self._kept.get(key)
        now = self._clock.monotonic()
        is_old = kept is not None and kept.until > now
        if kept is None or not is_old:
            task = self._asked.get(key)
            if task is None:
                task = asyncio.get_running_loop().create_task(self._ask(name, kind))
                self._asked[key] = task
                task.add_done_callback(lambda _: self._asked.pop(key, None))
            # Others may wait for it too, so whoever gives up waiting does not end it.
            kept = await asyncio.shield(task)
        if kept.answer is None:
            raise DnsFault(kept.fault)
        if not is_old:
            return kept.answer
        return msgspec.structs.replace(kept.answer, from_cache=True, ttl_seconds=kept.until - now)

    async def close(self) -> None:
        """Give up what is on its way."""
        tasks = tuple(self._asked.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, name: str, kind: Kind) -> _Kept:
        async with self._turns:
            try:
                answer = await self._asker.ask(name, kind)
            except DnsFault as error:
                kept = _Kept(self._clock.monotonic() + FAULT_SECONDS, None, str(error))
            else:
                longest = LONGEST_SECONDS if answer.status is Status.FOUND else LONGEST_NEGATIVE_SECONDS
                seconds = min(max(answer.ttl_seconds, SHORTEST_SECONDS), longest)
                kept = _Kept(self._clock.monotonic() + seconds, answer)
        self._kept.pop((name, kind), None)
        while len(self._kept) >= self._limit:
            del self._kept[next(iter(self._kept))]
        self._kept[name, kind] = kept
        return kept


class ServerAsker:
    """Asks name servers: those given, or those of the system, whose file is read again when it changes."""

    def __init__(
        self,
        servers: Sequence[NameServer] = (),
        *,
        timeout_seconds: float = 2.0,
        lifetime_seconds: float = 10.0,
        system_file: str = "/etc/resolv.conf",
    ) -> None:
        """`timeout_seconds` for one packet, `lifetime_seconds` for one question to all servers."""
        self._servers = tuple(servers)
        self._timeout_seconds = timeout_seconds
        self._lifetime_seconds = lifetime_seconds
        self._system_file = system_file
        self._read_at = -1
        self._resolver: dns.asyncresolver.Resolver | None = None

    async def ask(self, name: str, kind: Kind) -> Answer:
        """See `Asker`."""
        wanted = dns.name.from_text(name)
        rdtype = dns.rdatatype.from_text(kind.value)
        ttl = LONGEST_SECONDS
        for _ in range(_LINKS):
            try:
                response = await self._current().resolve(
                    wanted,
                    rdtype,
                    lifetime=self._lifetime_seconds,
                    search=False,
                    raise_on_no_answer=False,
                )
            except dns.resolver.NXDOMAIN as error:
                said: dns.message.QueryMessage = error.response(wanted)  # type: ignore[no-untyped-call]
                chain = said.resolve_chaining()
                return Answer(Status.NO_NAME, (), min(ttl, chain.minimum_ttl))
            except dns.resolver.LifetimeTimeout as error:
                words = f"no answer from DNS for {name} {kind.value} in {self._lifetime_seconds:g} seconds"
                raise DnsFault(words) from error
            except dns.resolver.NoNameservers as error:
                words = "; ".join(sorted({str(one[3])[:80] for one in error.kwargs["errors"]}))
                raise DnsFault(
                    f"DNS fails for {name} {kind.value}: {words or 'no server answers'}"
                ) from error
            except (dns.exception.DNSException, OSError) as error:
                words = str(error)[:200] or type(error).__name__
                raise DnsFault(f"DNS fails for {name} {kind.value}: {words}") from error
            ttl = min(ttl, response.chaining_result.minimum_ttl)
            if response.rrset is not None:
                records = [_record(item, kind) for item in list(response.rrset)[:RECORDS]]
                return Answer(Status.FOUND, tuple(records), ttl)
            if response.canonical_name == wanted:
                return Answer(Status.NO_DATA, (), ttl)
            # RFC 1034 §4.3.2: a server without recursion stops where the next name is not its own.
            wanted = response.canonical_name
        raise DnsFault(f"DNS fails for {name} {kind.value}: its CNAMEs do not come to an end")

    def _current(self) -> dns.asyncresolver.Resolver:
        changed_at = 0
        if not self._servers:
            try:
                changed_at = os.stat(self._system_file).st_mtime_ns
            except OSError as error:
                raise DnsFault(f"{self._system_file} cannot be read: {error.strerror}") from error
        if self._resolver is None or changed_at != self._read_at:
            resolver = dns.asyncresolver.Resolver(self._system_file, configure=not self._servers)
            if self._servers:
                resolver.nameservers = [
                    dns.nameserver.Do53Nameserver(server.address, server.port) for server in self._servers
                ]
            resolver.timeout = self._timeout_seconds
            resolver.use_edns(0, 0, 1232)
            self._resolver, self._read_at = resolver, changed_at
        return self._resolver


def _record(item: object, kind: Kind) -> Record:
    if kind is Kind.MX:
        name: dns.name.Name = item.exchange  # type: ignore[attr-defined]
        preference: int = item.preference  # type: ignore[attr-defined]
        value = "" if name == dns.name.root else name.to_text(omit_final_dot=True).lower()
        return Record(preference, value)
    address: str = item.address  # type: ignore[attr-defined]
    return Record(0, address)
