"""The relay: one process, one event loop, one shard. Builds every part from the configuration, starts and stops them.

Start: evidence, spool (takes the lock, recovers), scheduler, control socket, Pickup, listeners last. Stop: the
same backwards, so that nothing is taken that cannot be kept.
"""

from __future__ import annotations

import asyncio
import functools
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lonedot.admin.control import ControlServer
from lonedot.admin.operations import Desk
from lonedot.admin.values import AdminError
from lonedot.app.observer import RelayObserver, Watcher
from lonedot.app.registry import RegistryKeeper, Snapshot
from lonedot.app.settings import listener_from, route_from
from lonedot.app.stalls import Stall, book_stalls
from lonedot.app.standing import StandingDesk
from lonedot.config.model import Config
from lonedot.delivery.courier import Courier
from lonedot.delivery.notify import Notifier
from lonedot.delivery.routing import RouteTable, SmarthostResolver
from lonedot.delivery.transport import Transport
from lonedot.diagnosis.transcripts import StoredTranscripts
from lonedot.evidence.events import EventKind, EventLog
from lonedot.evidence.transcript import TranscriptStore
from lonedot.observability import log
from lonedot.observability.clock import SystemClock
from lonedot.observability.levels import LogLevel
from lonedot.queue.plan import Report
from lonedot.queue.scheduler import Lane, Scheduler
from lonedot.reception.acceptance import Acceptor
from lonedot.reception.listener import Listener, MemoryBudget
from lonedot.reception.pickup import PickupFolder
from lonedot.sinks.bindings import Binding, Chains
from lonedot.sinks.hosts import Hosts
from lonedot.sinks.standing import Fault
from lonedot.sinks.watch import Watch
from lonedot.spool.disk import Disk
from lonedot.spool.interface import Acceptance, Claim, Spool, SpoolFault, SpoolLocked, SpoolPaths
from lonedot.spool.recovery import Recovered
from lonedot.spool.sqlite import KeepContent, Policy, open_spool
from lonedot.terms.address import Address
from lonedot.terms.clock import Clock
from lonedot.terms.ids import IdSource, MessageId

__all__ = ["AppFault", "Relay"]

FLUSH_SECONDS = 0.2
PURGE_SECONDS = 600.0
PURGE_BATCH = 1000
SHARD = 0


class AppFault(Exception):
    """The relay cannot start; the words say what, where and what to do."""


class _PickupNotes:
    """Pickup's observer."""

    def __init__(self, observer: RelayObserver) -> None:
        self.taken = observer.taken
        self.refused = observer.pickup_refused


class _Reporter:
    """The notifier, with its reports told to the log: who has the id of a message finds that of its report."""

    def __init__(self, notifier: Notifier, observer: RelayObserver) -> None:
        self._notifier = notifier
        self._observer = observer

    async def report(self, claim: Claim, reports: Sequence[Report]) -> Sequence[Acceptance]:
        made = await self._notifier.report(claim, reports)
        for report in made:
            self._observer.reported(claim, report)
        return made


class _Hooks:
    """What admin operations tell the scheduler."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def kick(self, ids: Sequence[MessageId]) -> None:
        self._scheduler.kick()

    def forget(self, ids: Sequence[MessageId]) -> None:
        self._scheduler.forget(ids)


class Relay:
    """One running relay: a virtual server, or several."""

    def __init__(
        self,
        config: Config,
        *,
        bindings: Sequence[Binding] | None = None,
        clock: Clock | None = None,
        disk: Disk | None = None,
        watch: Watch | None = None,
    ) -> None:
        """`bindings` take the place of those in the configuration; `clock` and `disk` that of the system's.

        A given disk is synced on the loop: the process that syncs could not know it. `watch`: a parent looks after the
        sinks that run here.
        """
        self.config = config
        self.clock: Clock = clock or SystemClock()
        self._standing = StandingDesk(config.server.paths.root, self.clock)
        self._keeper = RegistryKeeper(config, config.server.registry, given=bindings, standing=self._standing)
        self._standing.when_changed = self._keeper.take_again
        self._disk = disk
        self._watch = watch
        self._watchers: list[Watcher] = []
        self._listeners: list[Listener] = []
        self._acceptors: dict[int, Acceptor] = {}
        self._pickups: list[PickupFolder] = []
        self._control: ControlServer | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._stopped = False
        self.hosts = Hosts()
        self.spool: Spool
        self.transcripts: TranscriptStore
        self.events: EventLog
        self.scheduler: Scheduler

    def subscribe(self, watcher: Watcher) -> None:
        """Be told of `message.accepted`, `sink.judged`, `attempt.ended`, `message.settled`, `message.refused`."""
        self._watchers.append(watcher)

    @property
    def addresses(self) -> Mapping[str, tuple[str, int]]:
        """Listener name to host and port as bound."""
        return {listener.settings.name: listener.address for listener in self._listeners}

    # -- start -------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the spool, recover, listen.

        Raises:
            AppFault: something is not as it must be; nothing was left half open.
        """
        config = self.config
        paths = config.server.paths
        try:
            snapshot = self._keeper.load()
            routes = RouteTable([route_from(route, config) for route in config.routes])
            listeners = [(one.source, listener_from(one, config)) for one in config.listeners]
        except (ValueError, OSError, KeyError) as error:
            raise AppFault(f"{config.file}: {error}") from error
        except AdminError as error:
            problem = error.problem
            do = f"; {problem.do}" if problem.do else ""
            raise AppFault(f"{problem.where}: {problem.what}{do}") from error
        try:
            paths.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.transcripts = TranscriptStore(paths.evidence / "transcripts", self.clock)
            self.events = EventLog(paths.evidence / "events", self.clock)
            policy = Policy(
                keep_content=KeepContent(config.server.keep_content.value), inline_sync=self._disk is not None
            )
            self.spool = spool = open_spool(
                paths, self.clock, policy, shard=SHARD, disk=self._disk, notice=self._store_noted
            )
        except SpoolLocked as error:
            raise AppFault(f"{error}; stop that relay, or give this one a spool of its own") from error
        except (SpoolFault, OSError) as error:
            raise AppFault(f"the spool {paths.root} cannot be opened: {error}") from error
        self._tell_recovered(spool.recovered)
        self._standing.events = self.events
        self._standing.load()
        book_stalls(paths.root, self.events, self._charge)
        try:
            # At once: a sink that ends the relay may do so again before the next gust of writing.
            await self._standing.save()
        except OSError as error:
            self._standing_not_written(error)
        observer = RelayObserver(self.events, self._watchers, self._standing)
        # One source for messages and sessions: an id found in a log means one thing.
        ids = IdSource(SHARD)
        self._executor = ThreadPoolExecutor(4, thread_name_prefix="reader")
        self._courier = Courier(
            routes,
            SmarthostResolver(),
            self.transcripts,
            self.spool.content,
            lambda: ids.next(self.clock.now()),
            self.clock,
            self._executor,
            self.chains_of_server,
            self.hosts,
            observer.hop_noted,
        )
        notifier = Notifier(
            config.server.hostname,
            self._badmail_of,
            routes,
            self.spool.content,
            lambda: MessageId(ids.next(self.clock.now())),
            self.clock,
            self.chains_of_server,
            self.hosts,
            observer.discarded,
        )
        transport = Transport(self._chains_in_force, self.spool.content, self.hosts, observer, self.clock)
        self.scheduler = Scheduler(
            self.spool,
            self._courier,
            _Reporter(notifier, observer),
            observer,
            [Lane(route.name, route.connections * 2, route.schedule) for route in routes],
            routes.name_for,
            self.clock,
            owner=f"{socket.gethostname()}:{os.getpid()}:{SHARD}",
            preparer=transport,
        )
        self._acceptors = {
            source.number: Acceptor(
                self.spool,
                self.scheduler,
                (),
                observer,
                self.clock,
                ids,
                config.server.hostname,
                config.server.hop_limit,
                self.hosts,
                source.number,
                transport.keep,
                frozenset(route.name for route in routes),
            )
            for source in config.sources
        }
        self._keeper.take = self._take
        self._take(snapshot)
        budget = MemoryBudget(config.server.memory)
        has_route = functools.partial(_has_route, routes)
        self._listeners = [
            Listener(
                settings,
                self._acceptors[source],
                budget,
                ids,
                self.transcripts.session,
                has_route,
                observer.session_noted,
                config.revision,
            )
            for source, settings in listeners
        ]
        try:
            await self._open(paths, observer, has_route, routes)
        except (OSError, AdminError) as error:
            await self.stop()
            raise AppFault(str(error)) from error
        self.events.append(EventKind.STARTED, "", f"{config.server.hostname}, config {config.revision}")

    async def _open(
        self,
        paths: SpoolPaths,
        observer: RelayObserver,
        has_route: Callable[[Address], bool],
        routes: RouteTable,
    ) -> None:
        config = self.config
        self.scheduler.start()
        desk = Desk(
            self.spool,
            self.clock,
            transcripts=StoredTranscripts(self.transcripts),
            hooks=_Hooks(self.scheduler),
            since=self.clock.now(),
            expire_seconds={route.name: route.schedule.expire_seconds for route in routes},
            keeper=self._keeper,
        )
        self._control = ControlServer(desk, paths.control)
        await self._control.start()
        for source in config.sources:
            if source.pickup is None:
                continue
            pickup = PickupFolder(
                source.pickup,
                source.badmail,
                self._acceptors[source.number],
                has_route,
                _PickupNotes(observer),
                config.pickup.poll_seconds,
                config.server.max_size,
                config.revision,
            )
            pickup.start()
            self._pickups.append(pickup)
        for listener in self._listeners:
            try:
                await listener.start()
            except OSError as error:
                settings = listener.settings
                reason = error.strerror or str(error)
                raise OSError(f"cannot listen on {settings.host}:{settings.port}: {reason}") from error
            host, port = listener.address
            log.event("listening", listener=listener.settings.name, host=host, port=port)
        self._flush()
        self._timers.append(asyncio.get_running_loop().call_later(PURGE_SECONDS, self._tidy))

    def chains_of_server(self, number: int) -> Chains:
        """The bindings that are in force for messages of a virtual server; none of one that is no more."""
        acceptor = self._acceptors.get(number)
        return acceptor.chains if acceptor is not None else Chains()

    def _chains_in_force(self, number: int) -> Chains | None:
        acceptor = self._acceptors.get(number)
        return None if acceptor is None else acceptor.chains

    def _badmail_of(self, number: int) -> Path:
        """The Badmail folder of a virtual server; of one that is no more, that of the first."""
        folders = {source.number: source.badmail for source in self.config.sources}
        return folders.get(number, self.config.badmail.folder)

    def _take(self, snapshot: Snapshot) -> None:
        """A snapshot of the bindings comes into force, in one step."""
        bindings = self._standing.in_force(snapshot.bindings)
        if self._watch is not None:
            bindings = self._watch.over(bindings)
        revision = snapshot.revision + self._standing.mark
        for number, acceptor in self._acceptors.items():
            acceptor.rebind([binding for binding in bindings if binding.source == number], revision)
        self.hosts.use(bindings)

    def _standing_not_written(self, error: OSError) -> None:
        self.events.append(EventKind.SPOOL_FAULT, "", f"the state of the bindings is not written: {error}")

    def _charge(self, stall: Stall) -> None:
        self._standing.book(stall.guid, Fault.STALLED, stall.words, stall.id)

    async def reload_sinks(self) -> None:
        """Take the registry and the code of the sinks as they are now; a fault goes to the log and changes nothing."""
        try:
            await self._keeper.reload(os.geteuid())
        except AdminError as error:
            log.event("sinks.not-taken", LogLevel.ERROR, words=str(error))

    def _store_noted(self, words: str) -> None:
        self.events.append(EventKind.SPOOL_FAULT, "", words)

    def _tell_recovered(self, recovered: Recovered) -> None:
        """What the last end of the relay left behind."""
        if recovered.held:
            words = f"{recovered.held} messages held: the relay died three times while it worked on them"
            self.events.append(EventKind.POISON, "", words)
        if recovered.damaged:
            words = f"{recovered.damaged} messages set aside: record or body cannot be read"
            self.events.append(EventKind.RECORD_DAMAGED, "", words)
        if recovered.claims_ended:
            log.event("recovered", claims=recovered.claims_ended, in_flight=recovered.in_flight)

    # -- by the clock ------------------------------------------------------------------------------

    def _flush(self) -> None:
        """Logs and evidence are written in gusts, not line by line."""
        log.flush()
        self.transcripts.flush()
        self.events.flush()
        if not self._stopped:
            self._standing.save_soon()
            self._flusher = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._flush)

    def _tidy(self) -> None:
        """Forget what is older than the history."""
        self._tidying = asyncio.get_running_loop().create_task(self._purge())

    async def _purge(self) -> None:
        before = self.clock.now() - self.config.server.keep_history.total_seconds()
        self.transcripts.forget(before)
        self.events.forget(before)
        try:
            while await self.spool.purge(before, PURGE_BATCH) == PURGE_BATCH:
                pass  # each batch is a commit of its own: mail goes on in between
        except SpoolFault as error:
            self.events.append(EventKind.SPOOL_FAULT, "", f"purge: {error}")
        if not self._stopped:
            self._timers = [asyncio.get_running_loop().call_later(PURGE_SECONDS, self._tidy)]

    # -- stop --------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """Drain: take nothing new, let what is on its way finish within `drain_seconds`, then close."""
        if self._stopped:
            return
        self._stopped = True
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + self.config.server.drain_seconds
        for timer in self._timers:
            timer.cancel()
        for listener in self._listeners:
            listener.close()
        for pickup in self._pickups:
            await pickup.stop()
        await self._drain_sessions(ends_at)
        await self.scheduler.stop(max(0.0, ends_at - loop.time()))
        await self._courier.close(max(0.5, min(5.0, ends_at - loop.time())))
        await self.hosts.close()
        if self._control is not None:
            await self._control.stop()
        try:
            await self._standing.save()
        except OSError as error:
            self._standing_not_written(error)
        await self.spool.close()
        self.events.append(EventKind.STOPPED, "", self.config.server.hostname)
        self.transcripts.close()
        self.events.close()
        self._executor.shutdown(wait=False)
        log.flush()

    async def _drain_sessions(self, ends_at: float) -> None:
        loop = asyncio.get_running_loop()
        while True:
            open_sessions = [
                session
                for listener in self._listeners
                for session in tuple(listener.sessions)
                if not session.stop()
            ]
            if not open_sessions:
                return
            if loop.time() >= ends_at:
                for session in open_sessions:
                    session.abort()
                return
            await asyncio.sleep(0.05)


def _has_route(routes: RouteTable, address: Address) -> bool:
    return routes.choose(address) is not None
