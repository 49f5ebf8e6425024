"""The courier: takes a claimed message and some of its recipients, hands them to a next hop, says what came of it.

Rules: `done` is called once, never from within `deliver`; connections are shared by the messages of one route and
destination, and belong to one virtual server where its sinks are asked about them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor

from lonedot.delivery.attempt import Parcel
from lonedot.delivery.deposit import Carrier, Depot
from lonedot.delivery.drop import DropCarrier
from lonedot.delivery.leases import Leases
from lonedot.delivery.maildir import MaildirCarrier
from lonedot.delivery.message_sinks import NO_CHAINS, Elsewhere, nobody_elsewhere
from lonedot.delivery.pipe import PipeCarrier
from lonedot.delivery.pool import Pool, PoolState
from lonedot.delivery.routing import Drop, Maildir, Pipe, Resolver, Route, RouteTable
from lonedot.delivery.session_sinks import SessionSinks
from lonedot.delivery.transcript import TranscriptSink
from lonedot.message.content import Content
from lonedot.queue.courier import Delivery
from lonedot.sinks.bindings import Chains
from lonedot.sinks.inquiry import HopNote
from lonedot.spool.interface import Claim, RecipientState
from lonedot.terms.clock import Clock
from lonedot.terms.ids import MessageId

__all__ = ["Courier"]

_POOLS_KEPT = 1000
"""Pools beyond this number that nobody uses are forgotten."""
_LEAVING_SECONDS = 7200.0
"""Longer than the timeouts of any transaction: what ends a connection of a route as it was is its own end."""


class Courier:
    """Delivers over the routes of one configuration. One per worker, on its event loop."""

    def __init__(
        self,
        routes: RouteTable,
        resolver: Resolver,
        transcripts: TranscriptSink,
        content_of: Callable[[MessageId], Content],
        new_session: Callable[[], str],
        clock: Clock,
        executor: Executor | None = None,
        chains_of: Callable[[int], Chains] = lambda server: NO_CHAINS,
        elsewhere: Elsewhere = nobody_elsewhere,
        noted: Callable[[str, HopNote], None] = lambda session, note: None,
        leases: Callable[[Route, str], Leases | None] = lambda route, destination: None,
    ) -> None:
        """`content_of` is `Spool.content`; `executor` (default: the loop's) reads and encodes what lies in files.

        `chains_of` gives the bindings of a virtual server, `elsewhere` calls sinks that do not run here, and `noted` is
        told what sinks of sessions did (see `SessionSinks`). `leases` gives what workers share of a route and
        destination, where they do.
        """
        self._routes = routes
        self.resolver = resolver
        self.transcripts = transcripts
        self.content_of = content_of
        self._new_session = new_session
        self.clock = clock
        self.executor = executor
        self.chains_of = chains_of
        self.elsewhere = elsewhere
        self._noted = noted
        self._leases = leases
        self.loop = asyncio.get_running_loop()
        self._pools: dict[tuple[int, str, str], Pool] = {}
        self._observing: set[asyncio.Task[None]] = set()
        self._depots: dict[tuple[str, int], Depot] = {}
        self._leaving: dict[asyncio.Task[None], Pool | Depot] = {}
        """Pools of routes as they were, until their last connection is gone."""
        self._closing = False

    def deliver(
        self,
        claim: Claim,
        recipients: Sequence[RecipientState],
        route: str,
        done: Callable[[Delivery], None],
    ) -> None:
        """Try to hand the message on to these recipients. Later `done` is told, exactly once.

        A recipient without an outcome in the attempt was not tried.
        """
        found = self._routes.by_name(route)
        parcel = Parcel(self, claim, found, recipients, route, done)
        if found is None or self._closing:
            self.loop.call_soon(parcel.not_routed if found is None else parcel.not_tried)
        else:
            parcel.begin()

    def destination(self, route: str, domain: bytes) -> str:
        """What mail for a domain over this route is told apart by (see `Resolver.destination`)."""
        found = self._routes.by_name(route)
        return "" if found is None else self.resolver.destination(found, domain)

    def pools(self) -> tuple[PoolState, ...]:
        """What each pool is doing."""
        pools: tuple[Pool | Depot, ...] = (*self._pools.values(), *self._depots.values())
        return tuple(pool.state for pool in pools)

    def renew(self) -> None:
        """Routes have changed: what begins from now on has connections of its own. What runs ends over those it has,
        within the time that the protocol gives it; what waits for one is given back at once, untried."""
        pools: tuple[Pool | Depot, ...] = (*self._pools.values(), *self._depots.values())
        self._pools, self._depots = {}, {}
        for pool in pools:
            task = asyncio.ensure_future(pool.close(_LEAVING_SECONDS))
            self._leaving[task] = pool
            task.add_done_callback(self._leaving.pop)

    async def close(self, grace_seconds: float) -> None:
        """Begin nothing new; what runs has so long to end. What does not is reported as lost and tried again."""
        self._closing = True
        ends_at = self.loop.time() + grace_seconds
        pools = (*self._pools.values(), *self._depots.values(), *self._leaving.values())
        await asyncio.gather(*(pool.close(grace_seconds) for pool in pools))
        while self._observing:
            _, late = await asyncio.wait(self._observing, timeout=max(0.0, ends_at - self.loop.time()))
            for task in late:
                task.cancel()

    def depot(self, route: Route, server: int) -> Depot:
        """Where a route that ends on this machine puts its copies; made when it is not there.

        `server`: the virtual server that took the message; only Drop folders differ by it.
        """
        route = self._routes.by_name(route.name) or route
        key = (route.name, server if isinstance(route.target, Drop) else 0)
        depot = self._depots.get(key)
        if depot is None:
            carrier: Carrier
            match route.target:
                case Maildir():
                    carrier = MaildirCarrier(route.target, route.ehlo_name)
                case Pipe():
                    carrier = PipeCarrier(route.target)
                case Drop(envelope=envelope):
                    carrier = DropCarrier(route.target.folder_of(server), envelope)
                case _:
                    raise ValueError(f"route {route.name} delivers nothing on this machine")
            # Files of one folder do not mind how many write them; programs do.
            leases = self._leases(route, "") if isinstance(route.target, Pipe) else None
            depot = self._depots[key] = Depot(route, carrier, leases)
            if self._closing:
                depot.end()
        return depot

    def observe(self, work: Awaitable[None]) -> None:
        """Let the sinks of `outcome` be told; the outcome is recorded at the latest when the courier closes."""
        task = asyncio.ensure_future(work)
        self._observing.add(task)
        task.add_done_callback(self._observing.discard)

    def pool(self, route: Route, destination: str, server: int = 0) -> Pool:
        """The pool of a destination; made when it is not there.

        `server`: the virtual server whose sinks are asked about its sessions; 0: nobody is asked.

        Raises:
            TlsSettingsFault: the route's TLS settings cannot be used.
        """
        route = (
            self._routes.by_name(route.name) or route
        )  # as it is now: an attempt may have begun before a reload
        key = (server, route.name, destination)
        pool = self._pools.get(key)
        if pool is None:
            if len(self._pools) >= _POOLS_KEPT:
                self._pools = {key: pool for key, pool in self._pools.items() if not pool.is_unused}
            sinks = None
            if server:
                sinks = SessionSinks(lambda: self.chains_of(server), self.elsewhere, self._noted)
            leases = self._leases(route, destination)
            pool = Pool(route, destination, self.resolver, self._new_session, self.executor, sinks, leases)
            self._pools[key] = pool
        return pool
