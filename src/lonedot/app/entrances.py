"""Where mail comes in: acceptors, listeners, Pickup folders; made from a configuration, and again from the next one.

Rules:
1. A listener is never changed: its successor accepts on the same sockets before it stops to.
2. Sessions stay with the listener that they began with, and count for its successor; it is kept until they end.
3. An acceptor stays the same for as long as its virtual server is there: whoever holds one may hold it for ever.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, TypeVar

import msgspec

from lonedot.admin.seeing import Door
from lonedot.app.directory import directory_from
from lonedot.app.observer import RelayObserver
from lonedot.app.passwords import accounts_from
from lonedot.app.rewriting import rewriting_from
from lonedot.app.settings import listener_from, submit_from
from lonedot.app.workers import Post
from lonedot.config.addresses import Endpoint
from lonedot.config.model import Config
from lonedot.delivery.routing import RouteTable
from lonedot.directory.rewriting import Rewriting
from lonedot.observability import log
from lonedot.observability.levels import LogLevel
from lonedot.reception.acceptance import Acceptor, Handover, InCustody
from lonedot.reception.connection import Transcript
from lonedot.reception.listener import Listener, MemoryBudget, Seats
from lonedot.reception.one_client import ClientWatch
from lonedot.reception.pickup import PickupFolder
from lonedot.reception.pop3_account import AccountSettings
from lonedot.reception.session import Session
from lonedot.reception.settings import ListenerSettings
from lonedot.reception.sockets import ListeningSockets, Place
from lonedot.reception.submit import SubmitPlace, SubmitSocket
from lonedot.sinks.protocol import Elsewhere
from lonedot.spool.interface import Spool
from lonedot.terms.address import Address
from lonedot.terms.clock import Clock
from lonedot.terms.ids import IdSource, SessionId

__all__ = ["Entrances", "Face"]

_L = TypeVar("_L", bound=Listener)


class Face(NamedTuple):
    """Settings of all that accepts connections. Making it reads certificates and files of logins."""

    listeners: tuple[tuple[int, ListenerSettings], ...]
    """Each with the number of its virtual server."""
    submit: tuple[ListenerSettings, SubmitPlace] | None
    accounts: tuple[AccountSettings, ...] = ()
    """POP3 mailboxes."""

    @classmethod
    def of(cls, config: Config, *, fetches: bool = True) -> Face:
        """It may block as `accounts_from` does. Raises OSError or ValueError when a file cannot be used."""
        listeners = tuple([(one.source, listener_from(one, config)) for one in config.listeners])
        return cls(listeners, submit_from(config), accounts_from(config) if fetches else ())

    @property
    def places(self) -> list[Place]:
        return [settings.place for _, settings in self.listeners]


class _PickupNotes:
    """Pickup's observer."""

    def __init__(self, observer: RelayObserver) -> None:
        self.taken = observer.taken
        self.refused = observer.pickup_refused


class Entrances:
    """Those of one worker."""

    def __init__(
        self,
        spool: Spool,
        handover: Handover,
        observer: RelayObserver,
        clock: Clock,
        ids: IdSource,
        elsewhere: Elsewhere,
        in_custody: InCustody,
        transcripts: Callable[[SessionId, str], Transcript],
        routes: RouteTable,
        sockets: ListeningSockets,
        post: Post,
    ) -> None:
        """`routes` is read at each question: they may change. `post`: Pickup and local programs are the first's."""
        self._post = post
        self._spool = spool
        self._handover = handover
        self._observer = observer
        self._clock = clock
        self._ids = ids
        self._elsewhere = elsewhere
        self._in_custody = in_custody
        self._transcripts = transcripts
        self._routes = routes
        self._sockets = sockets
        self._rewriting: Rewriting | None = None
        self._budget = MemoryBudget(0)
        self._watch = ClientWatch(observer.one_client, clock)
        self.acceptors: dict[int, Acceptor] = {}
        """By number of the virtual server."""
        self._listeners: list[Listener] = []
        self._leaving: list[Listener] = []
        """Closed ones with sessions."""
        self._pickups: list[PickupFolder] = []

    @property
    def addresses(self) -> Mapping[str, tuple[str, int]]:
        """Listener name to host and port as bound."""
        return {listener.settings.name: listener.address for listener in self._listeners}

    def doors(self) -> list[Door]:
        """Listeners with the number of their sessions."""
        return [
            Door(one.settings.name, str(Endpoint(*one.address)), len(one.sessions)) for one in self._listeners
        ]

    @property
    def sessions(self) -> list[Session]:
        """All that are open."""
        return [session for one in (*self._listeners, *self._leaving) for session in tuple(one.sessions)]

    # -- a configuration -----------------------------------------------------------------------------

    def configure(self, config: Config) -> None:
        """Acceptors and bounds, in one step; bindings are given to the acceptors by whoever has them."""
        server = config.server
        self._budget.limit = self._post.share_of(server.memory)
        routes = frozenset(route.name for route in self._routes)
        before = self.acceptors
        self.acceptors = {}
        self._rewriting = rewriting_from(config)
        for source in config.sources:
            acceptor = before.get(source.number)
            if acceptor is None:
                acceptor = Acceptor(
                    self._spool,
                    self._handover,
                    (),
                    self._observer,
                    self._clock,
                    self._ids,
                    server.hostname,
                    server.hop_limit,
                    self._elsewhere,
                    source.number,
                    self._in_custody,
                    routes,
                )
            else:
                acceptor.configure(server.hostname, server.hop_limit, routes)
            acceptor.directory = directory_from(config)
            acceptor.rewriting = self._rewriting
            self.acceptors[source.number] = acceptor

    def hold(self, face: Face) -> list[list[socket.socket]]:
        """Sockets for each listener, in its order; those that do not listen yet are opened.

        Raises:
            OSError: an address is taken or not ours; nothing has changed.
        """
        held: list[list[socket.socket]] = []
        try:
            for place in face.places:
                held.append(self._sockets.open(place))
        except OSError:
            self.let_go(held)
            raise
        return held

    def let_go(self, held: Iterable[Iterable[socket.socket]]) -> None:
        """Of sockets that are not to be used after all."""
        for sockets in held:
            for one in sockets:
                one.close()
        self._sockets.keep_only([one.place for one in self._listeners if not isinstance(one, SubmitSocket)])

    async def open(self, config: Config, face: Face, held: list[list[socket.socket]]) -> None:
        """Listen as this configuration says, and no longer as the one before did.

        Raises:
            OSError: a socket cannot be used; what listened before goes on.
        """
        before = self._listeners
        known = {(one.settings.name, one.address) for one in before}
        seats = {one.place.key: one.seats for one in before}
        after: list[Listener] = []
        try:
            for (source, settings), sockets in zip(face.listeners, held, strict=True):
                share = self._post.share_of(settings.max_connections)
                shared = msgspec.structs.replace(settings, max_connections=share)
                listener = self._listener(Listener, shared, source, config, seats)
                after.append(listener)
                await listener.start(sockets, shares=self._post.count > 1)
            by_programs = await self._open_submit(face, config)
        except OSError:
            for listener in after:
                listener.close()
            raise
        if by_programs is not None:
            after.append(by_programs)
        self._listeners = after
        for listener in before:
            if listener not in after:
                listener.close()
                self._leaving.append(listener)
        self._leaving = [one for one in self._leaving if not one.is_idle]
        self._sockets.keep_only(face.places)
        for listener in after:
            host, port = listener.address
            if self._post.is_first and (listener.settings.name, (host, port)) not in known:
                log.event("listening", listener=listener.settings.name, host=host, port=port)

    async def _open_submit(self, face: Face, config: Config) -> SubmitSocket | None:
        there = next((one for one in self._listeners if isinstance(one, SubmitSocket)), None)
        if face.submit is None or not self._post.is_first:
            return None
        settings, place = face.submit
        if there is not None and there.settings == settings and there.at == place:
            return there
        if there is not None:
            there.close()  # its file has one place
        seats = {} if there is None else {there.place.key: there.seats}
        by_programs = self._listener(SubmitSocket, settings, 1, config, seats)
        by_programs.at = place
        await by_programs.start()
        return by_programs

    def _listener(
        self,
        kind: type[_L],
        settings: ListenerSettings,
        source: int,
        config: Config,
        seats: Mapping[str, Seats],
    ) -> _L:
        return kind(
            settings,
            self.acceptors[source],
            self._budget,
            self._ids,
            self._transcripts,
            self.has_route,
            self._observer.session_noted,
            config.revision,
            seats.get(settings.place.key),
            self._watch if kind is Listener else None,
        )

    async def open_pickups(self, config: Config) -> None:
        """Stop those that run, behind the file at hand, and start those of this configuration."""
        await self.close_pickups()
        if not self._post.is_first:
            return
        for source in config.sources:
            if source.pickup is None:
                continue
            pickup = PickupFolder(
                source.pickup,
                source.badmail,
                self.acceptors[source.number],
                self.has_route,
                _PickupNotes(self._observer),
                config.pickup.poll_seconds,
                config.server.max_size,
                config.revision,
            )
            try:
                pickup.start()
            except OSError as error:
                log.event("pickup.not-started", LogLevel.ERROR, words=str(error))
                raise
            self._pickups.append(pickup)

    # -- stop ----------------------------------------------------------------------------------------

    async def close_pickups(self) -> None:
        pickups, self._pickups = self._pickups, []
        for pickup in pickups:
            await pickup.stop()

    def has_route(self, address: Address) -> bool:
        rewriting = self._rewriting
        return self._routes.choose(address if rewriting is None else rewriting.goes_to(address)) is not None

    def close(self) -> None:
        """Take no more connections."""
        for listener in self._listeners:
            listener.close()
        self._sockets.close()
