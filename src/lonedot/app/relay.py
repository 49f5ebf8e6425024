"""One worker of the relay: one process, one event loop. Builds every part from the configuration, starts and stops
them.

Start: evidence, spool (takes the lock, recovers), scheduler, control socket, Pickup, listeners last. Stop: the
same backwards, so that nothing is taken that cannot be kept.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from lonedot import __version__
from lonedot.admin.control import ControlServer
from lonedot.admin.operations import Desk
from lonedot.admin.queue_operations import finish_bounces
from lonedot.admin.reload import Reloaded
from lonedot.admin.routed import RouteArguments, Routed
from lonedot.admin.routes import Ways, explain_route
from lonedot.admin.values import AdminError
from lonedot.admin.wire import Hello
from lonedot.app.colleagues import Colleagues
from lonedot.app.crew import Crew, CrewKeeper
from lonedot.app.custody import open_custody
from lonedot.app.directory import directory_from, may_lead_on
from lonedot.app.entrances import Entrances, Face
from lonedot.app.leases import shared_leases
from lonedot.app.mailboxes import Mailboxes
from lonedot.app.observer import RelayObserver, Watcher
from lonedot.app.passwords import routes_from
from lonedot.app.registry import RegistryKeeper, Snapshot
from lonedot.app.reload import Prepared, with_what_stays
from lonedot.app.rewriting import rewriting_from
from lonedot.app.seeing import Seeing
from lonedot.app.settings import asker_from, ourselves_from
from lonedot.app.stalls import Stall, book_stalls, left_files
from lonedot.app.standing import StandingDesk
from lonedot.app.whole import Whole
from lonedot.app.workers import Post
from lonedot.config.addresses import Endpoint
from lonedot.config.load import examine
from lonedot.config.model import Config
from lonedot.delivery.choosing import RouteChooser
from lonedot.delivery.courier import Courier
from lonedot.delivery.dns import Dns
from lonedot.delivery.mx import HostFinder, RouteResolver
from lonedot.delivery.notify import Notifier
from lonedot.delivery.resolve import Resolver
from lonedot.delivery.routing import Mx, RouteTable
from lonedot.delivery.transport import Transport
from lonedot.diagnosis.transcripts import StoredTranscripts
from lonedot.evidence.events import EventKind, EventLog
from lonedot.evidence.transcript import TranscriptStore
from lonedot.observability import log
from lonedot.observability.clock import SystemClock
from lonedot.observability.levels import LogLevel
from lonedot.queue.lanes import Lane
from lonedot.queue.plan import Report
from lonedot.queue.scheduler import Scheduler
from lonedot.reception.sockets import ListeningSockets
from lonedot.sinks.bindings import Binding, Chains
from lonedot.sinks.hosts import Hosts
from lonedot.sinks.standing import Fault
from lonedot.sinks.watch import Watch
from lonedot.spool.disk import Disk
from lonedot.spool.interface import Acceptance, Claim, SpoolFault, SpoolLocked, SpoolPaths
from lonedot.spool.recovery import Recovered
from lonedot.spool.sqlite import KeepContent, Policy, SqliteSpool
from lonedot.terms.clock import Clock
from lonedot.terms.ids import IdSource, MessageId

__all__ = ["AppFault", "Relay"]

FLUSH_SECONDS = 0.2
PURGE_SECONDS = 600.0
PURGE_BATCH = 1000
HANDED_SECONDS = 5.0
"""How long a worker waits for a socket that the first one has opened."""


if TYPE_CHECKING:
    from lonedot.app.metrics_endpoint import MetricsEndpoint


class AppFault(Exception):
    """The relay cannot start; the words say what, where and what to do."""


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
    """One running worker, with all virtual servers. Where there is one worker, it is the relay."""

    def __init__(
        self,
        config: Config,
        *,
        bindings: Sequence[Binding] | None = None,
        clock: Clock | None = None,
        disk: Disk | None = None,
        watch: Watch | None = None,
        sockets: ListeningSockets | None = None,
        post: Post | None = None,
    ) -> None:
        """`bindings` take the place of those in the configuration; `clock` and `disk` that of the system's.

        A given disk is synced on the loop: the process that syncs could not know it. `watch`: a parent looks after the
        sinks that run here. `sockets`: those that listen already. `post`: which worker this is; by default
        the only one.
        """
        self.config = config
        self.post = post or Post()
        self.clock: Clock = clock or SystemClock()
        self._standing = StandingDesk(config.server.paths.root, self.clock, follows=not self.post.is_first)
        self._keeper = RegistryKeeper(config, config.server.registry, given=bindings, standing=self._standing)
        self._standing.when_changed = self._standing_changed
        self.colleagues = Colleagues(config.server.paths, self.post)
        self._crew = Crew(self.post, self.colleagues, self, self._keeper, self._standing)
        self._disk = disk
        self._watch = watch
        self._watchers: list[Watcher] = []
        self._sockets = sockets if sockets is not None else ListeningSockets()
        self._expire_seconds: dict[str, float] = {}
        self._control: ControlServer | None = None
        self._metrics: MetricsEndpoint | None = None
        self._metrics_address: Endpoint | None = None
        self._returning: asyncio.Task[None] | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._stopped = False
        self.hosts = Hosts()
        self.spool: SqliteSpool
        self.transcripts: TranscriptStore
        self.events: EventLog
        self.scheduler: Scheduler

    def subscribe(self, watcher: Watcher) -> None:
        """Be told of `message.accepted`, `sink.judged`, `attempt.ended`, `message.settled`, `message.refused`."""
        self._watchers.append(watcher)

    @property
    def addresses(self) -> Mapping[str, tuple[str, int]]:
        """Listener name to host and port as bound."""
        return self._entrances.addresses

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
            self._routes = routes = RouteTable(await asyncio.to_thread(routes_from, config))
            face = await asyncio.to_thread(Face.of, config, fetches=self.post.is_first)
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
            self._custody = custody = await open_custody(
                paths, self.clock, policy, self.post, self._disk, self._store_noted
            )
            self.spool = own = custody.own
            spool = custody.whole
        except SpoolLocked as error:
            raise AppFault(f"{error}; stop that relay, or give this one a spool of its own") from error
        except (SpoolFault, OSError) as error:
            raise AppFault(f"the spool {paths.root} cannot be opened: {error}") from error
        for recovered in custody.recovered:
            self._tell_recovered(recovered)
        self._standing.events = self.events
        self._standing.load()
        for left in left_files(paths.root, self.post.number, self.post.count):
            book_stalls(left, self.events, self._charge)
        try:
            # At once: a sink that ends the relay may do so again before the next gust of writing.
            await self._standing.save()
        except OSError as error:
            self._standing_not_written(error)
        self._seeing = seeing = Seeing(
            spool,
            self.events,
            self.clock,
            lambda: self._entrances.doors(),  # noqa: PLW0108 — they are made later
            lambda: self.config,
            lambda: custody.fault,
            lambda: self.scheduler.hops(),  # noqa: PLW0108 — it is made later
            self.post.number,
        )
        for shard in custody.shards:
            shard.tell_commits(seeing.committed)
        observer = RelayObserver(self.events, self._watchers, self._standing, seeing.meter)
        # One source for messages and sessions: an id found in a log means one thing.
        ids = IdSource(self.post.number)
        self._executor = ThreadPoolExecutor(4, thread_name_prefix="reader")
        self._dns = Dns(asker_from(config), self.clock)
        self._finder = HostFinder(self._dns, lambda: ourselves_from(self.config))
        leases = shared_leases(self.post)
        self._courier = Courier(
            routes,
            RouteResolver(self._finder),
            self.transcripts,
            spool.content,
            lambda: ids.next(self.clock.now()),
            self.clock,
            self._executor,
            self.chains_of_server,
            self.hosts,
            observer.hop_noted,
            leases.of if leases is not None else lambda route, destination: None,
        )
        self._notifier = notifier = Notifier(
            config.server.hostname,
            self._badmail_of,
            routes,
            spool.content,
            lambda: MessageId(ids.next(self.clock.now())),
            self.clock,
            self.chains_of_server,
            self.hosts,
            observer.discarded,
            lambda address: may_lead_on(self.config, address),
        )
        self._reporter = reporter = _Reporter(notifier, observer)
        transport = Transport(self._chains_in_force, spool.content, self.hosts, observer, self.clock)
        transport.resolver = Resolver(
            lambda: directory_from(self.config),
            lambda: MessageId(ids.next(self.clock.now())),
            own.body_writer,
            self.clock,
            observer.copied,
            lambda: rewriting_from(self.config),
        )
        self.scheduler = Scheduler(
            spool,
            self._courier,
            reporter,
            observer,
            _lanes(routes),
            RouteChooser(routes, spool.content).name_for,
            self.clock,
            owner=f"{socket.gethostname()}:{os.getpid()}:{self.post.number}",
            preparer=transport,
            destination=self._courier.destination,
            turn=leases.turn if leases is not None else None,
        )
        self._entrances = Entrances(
            own,
            self.scheduler,
            observer,
            self.clock,
            ids,
            self.hosts,
            transport.keep,
            self.transcripts.session,
            routes,
            self._sockets,
            self.post,
        )
        self._entrances.configure(config)
        self._mailboxes = Mailboxes(
            paths.root / "pop3", lambda: self._entrances.acceptors, self._entrances.has_route, observer
        )
        self._keeper.take = self._take
        self._take(snapshot)
        try:
            async with self._crew.changing:
                await self._open(paths, face)
        except (OSError, AdminError) as error:
            await self.stop()
            raise AppFault(str(error)) from error
        if self.post.count > 1:
            log.event("worker.ready", worker=self.post.number, config=config.revision)
        if self.post.is_first:
            self.events.append(EventKind.STARTED, "", f"{config.server.hostname}, config {config.revision}")

    async def _open(self, paths: SpoolPaths, face: Face) -> None:
        config = self.config
        self.scheduler.start()
        self._expire_seconds.update(_expire_seconds(self._routes))
        desk = Desk(
            self._custody.whole,
            self.clock,
            transcripts=StoredTranscripts(self.transcripts),
            hooks=_Hooks(self.scheduler),
            hops=self.scheduler.hops,
            router=self._explain_route,
            since=self.clock.now(),
            expire_seconds=self._expire_seconds,
            reporter=self._reporter,
            shards=self._custody.shards,
            keeper=CrewKeeper(self._crew),
            reloader=self._crew,
            colleague=self._crew,
            seer=self._seeing,
            # All workers write into one folder: the first reads it for all.
            events=self.events.read if self.post.is_first else None,
            mailboxes=self._mailboxes if self.post.is_first else None,
        )
        shards = tuple(shard.shard for shard in self._custody.shards)
        hello = Hello(__version__, os.getpid(), self.post.number, self.post.count, shards)
        self._control = ControlServer(desk, paths.control_of(self.post.number), hello=hello)
        await self._control.start()
        await self._entrances.open_pickups(config)
        await self._entrances.open(config, face, self._entrances.hold(face))
        await self._mailboxes.open(face.accounts, config.revision)
        self._seeing.start()
        self._returning = asyncio.get_running_loop().create_task(self._finish_bounces(desk))
        await self._open_metrics(config)
        await self._crew.start()
        self._flush()
        self._timers.append(asyncio.get_running_loop().call_later(PURGE_SECONDS, self._tidy))

    async def _explain_route(self, asked: RouteArguments) -> Routed:
        config = self.config
        ways = Ways(
            self._routes, self._finder, directory_from(config), rewriting_from(config), config.revision
        )
        return await explain_route(ways, asked)

    async def _open_metrics(self, config: Config) -> None:
        """The endpoint as this configuration says; its libraries are loaded only when there is one."""
        address = config.metrics.address
        if self._metrics is not None:
            if address == self._metrics_address:
                return
            await self._metrics.stop()
            self._metrics = None
        self._metrics_address = address
        if address is None or not self.post.is_first:
            return
        from lonedot.app.metrics_endpoint import MetricsEndpoint  # noqa: PLC0415

        whole = Whole(self._seeing, self.colleagues, self.post.others)
        await whole.begin()
        endpoint = MetricsEndpoint(address.host, address.port, whole.figures, whole.health)
        await endpoint.start()
        self._metrics = endpoint

    @property
    def metrics_address(self) -> tuple[str, int] | None:
        """Where the metrics are, as bound."""
        return None if self._metrics is None else self._metrics.address

    # -- reload --------------------------------------------------------------------------------------

    async def reload(self, uid: int) -> Reloaded:
        """Take the configuration as its file says now, in all workers.

        Raises:
            AdminError: it has no fault, and still cannot be taken; nothing has changed.
        """
        return await self._crew.reload(uid)

    async def prepare(self) -> Prepared | Reloaded:
        """See `crew.Hand`."""
        running = self.config
        found = await asyncio.to_thread(examine, running.file)
        faults = tuple(map(str, found.faults))
        if found.config is None:
            return Reloaded(False, str(running.file), running.revision, running.revision, faults)
        config, needs_restart = with_what_stays(found.config, running)
        held: list[list[socket.socket]] = []
        try:
            routes = RouteTable(await asyncio.to_thread(routes_from, config))
            face = await asyncio.to_thread(Face.of, config, fetches=self.post.is_first)
            await self._handed_over(face)
            held = self._entrances.hold(face)
            bindings = await self._keeper.prepare(config)
            if self._stopped:
                raise AdminError("the relay stops", "", "the next start reads the configuration")
        except (ValueError, OSError, KeyError) as error:
            self._entrances.let_go(held)
            words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise AdminError(
                words, str(config.file), "mend it and reload again; nothing has changed"
            ) from error
        except BaseException:
            self._entrances.let_go(held)
            raise
        return Prepared(config, needs_restart, faults, routes, face, held, bindings)

    async def _handed_over(self, face: Face) -> None:
        """Wait for the sockets that the first worker has opened; who opens them itself has nothing to wait for."""
        if self.post.is_first:
            return
        loop = asyncio.get_running_loop()
        until = loop.time() + HANDED_SECONDS
        while (  # noqa: ASYNC110 — a reader of the loop takes them, and knows nobody who waits
            not all(self._sockets.has(place) for place in face.places) and loop.time() < until
        ):
            await asyncio.sleep(0.02)

    def let_go(self, prepared: Prepared) -> None:
        """See `crew.Hand`."""
        self._entrances.let_go(prepared.held)

    async def take(self, prepared: Prepared, uid: int) -> Reloaded:
        """See `crew.Hand`."""
        config, before = prepared.config, self.config
        if self._stopped:
            self.let_go(prepared)
            raise AdminError("the relay stops", "", "the next start reads the configuration")
        self._keeper.commit(prepared.bindings, uid)
        await self._put_in_force(config, prepared.routes, prepared.face, prepared.held)
        log.event("config.taken", revision=config.revision, uid=uid)
        return Reloaded(
            True, str(config.file), before.revision, config.revision, prepared.faults, prepared.needs_restart
        )

    async def _put_in_force(
        self, config: Config, routes: RouteTable, face: Face, held: list[list[socket.socket]]
    ) -> None:
        """One step of the loop up to the listeners, which follow."""
        self.config = config
        if tuple(self._routes) != tuple(routes):
            self._routes.take(tuple(routes))
            self.scheduler.take_lanes(_lanes(self._routes))
            self._courier.renew()
            self._expire_seconds.clear()
            self._expire_seconds.update(_expire_seconds(self._routes))
        self._notifier.hostname = config.server.hostname
        log.configure(config.server.log, config.server.log_level)
        self._entrances.configure(config)
        self._keeper.take_again()
        try:
            await self._entrances.open(config, face, held)
            await self._entrances.open_pickups(config)
            await self._mailboxes.open(face.accounts, config.revision)
            await self._open_metrics(config)
        except OSError as error:
            # Out of descriptors, or a folder that cannot be made: what was open stays so.
            raise AdminError(
                f"the rest is in force, but not all listeners and folders are open: {error}",
                str(config.file),
                "mend it and reload again",
            ) from error

    async def reload_told(self) -> None:
        """As `reload`, with what came of it in the log alone."""
        try:
            done = await self.reload(os.geteuid())
        except AdminError as error:
            log.event("config.not-taken", LogLevel.ERROR, words=str(error))
            return
        for fault in done.faults:
            log.event("config.fault", LogLevel.WARNING if done.taken else LogLevel.ERROR, words=fault)
        if not done.taken:
            log.event(
                "config.not-taken", LogLevel.ERROR, words=f"{done.file} has faults; nothing has changed"
            )
        if done.needs_restart:
            log.event("config.needs-restart", LogLevel.WARNING, keys=", ".join(done.needs_restart))

    def chains_of_server(self, number: int) -> Chains:
        """The bindings that are in force for messages of a virtual server; none of one that is no more."""
        acceptor = self._entrances.acceptors.get(number)
        return acceptor.chains if acceptor is not None else Chains()

    def _chains_in_force(self, number: int) -> Chains | None:
        acceptor = self._entrances.acceptors.get(number)
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
        for number, acceptor in self._entrances.acceptors.items():
            acceptor.rebind([binding for binding in bindings if binding.source == number], revision)
        self.hosts.use(bindings)

    def _standing_changed(self) -> None:
        """Other bindings are called than before."""
        self._keeper.take_again()
        self._crew.tell_standing()

    def _standing_not_written(self, error: OSError) -> None:
        self.events.append(EventKind.SPOOL_FAULT, "", f"the state of the bindings is not written: {error}")

    def _charge(self, stall: Stall) -> None:
        self._standing.book(stall.guid, Fault.STALLED, stall.words, stall.id)

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
            self._crew.send_faults()
            self._flusher = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._flush)

    async def _finish_bounces(self, desk: Desk) -> None:
        """Return to their senders what a person said so of while the relay was down."""
        try:
            if returned := await finish_bounces(desk):
                log.event("queue.returned", count=returned)
        except SpoolFault as error:
            self.events.append(EventKind.SPOOL_FAULT, "", f"messages are not returned: {error}")

    def _tidy(self) -> None:
        """Forget what is older than the history."""
        self._tidying = asyncio.get_running_loop().create_task(self._purge())

    async def _purge(self) -> None:
        before = self.clock.now() - self.config.server.keep_history.total_seconds()
        if self.post.is_first:
            self.transcripts.forget(before)
            self.events.forget(before)
        try:
            while await self._custody.whole.purge(before, PURGE_BATCH) == PURGE_BATCH:
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
        if self._returning is not None:
            self._returning.cancel()  # what it has not come to is held until the next start
        self._entrances.close()
        self._seeing.stop()
        if self._metrics is not None:
            await self._metrics.stop()
        await self._entrances.close_pickups()
        await self._mailboxes.close()
        await self._drain_sessions(ends_at)
        await self.scheduler.stop(max(0.0, ends_at - loop.time()))
        await self._crew.stop()
        await self._courier.close(max(0.5, min(5.0, ends_at - loop.time())))
        await self._dns.close()
        await self.hosts.close()
        if self._control is not None:
            await self._control.stop()
        try:
            await self._standing.save()
        except OSError as error:
            self._standing_not_written(error)
        await self._custody.close()
        if self.post.is_first:
            self.events.append(EventKind.STOPPED, "", self.config.server.hostname)
        self.transcripts.close()
        self.events.close()
        self._executor.shutdown(wait=False)
        log.flush()

    async def _drain_sessions(self, ends_at: float) -> None:
        loop = asyncio.get_running_loop()
        while True:
            open_sessions = [session for session in self._entrances.sessions if not session.stop()]
            if not open_sessions:
                return
            if loop.time() >= ends_at:
                for session in open_sessions:
                    session.abort()
                return
            await asyncio.sleep(0.05)


def _lanes(routes: RouteTable) -> list[Lane]:
    return [
        Lane(
            route.name,
            route.connections * 2,
            route.schedule,
            route.rate,
            has_many=isinstance(route.target, Mx),
        )
        for route in routes
    ]


def _expire_seconds(routes: RouteTable) -> dict[str, float]:
    return {route.name: route.schedule.expire_seconds for route in routes}
