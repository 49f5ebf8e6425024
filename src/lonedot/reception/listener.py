"""A listener: an address, its sessions, its limits by client. The memory budget is shared by all listeners.

A listener never changes. When the configuration does, another takes its place on the same sockets: sessions stay with
the one that they began with, and `Seats` count them all.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

from lonedot.reception.acceptance import Acceptor
from lonedot.reception.connection import Transcript
from lonedot.reception.one_client import ClientWatch
from lonedot.reception.session import Session
from lonedot.reception.settings import ListenerSettings, is_in
from lonedot.reception.sharing import SharedServer
from lonedot.reception.sockets import Place, bound, resolved
from lonedot.sinks.protocol import Note
from lonedot.terms.address import Address
from lonedot.terms.ids import IdSource, SessionId
from lonedot.terms.reply import Reply, reply

__all__ = ["Listener", "MemoryBudget", "Seats"]

TOO_MANY = reply(421, "4.7.0", "Too many connections; try again later")
TOO_MANY_FROM_CLIENT = reply(421, "4.7.0", "Too many connections from your address; try again later")
NOT_TRUSTED = reply(554, "5.7.1", "This is spoken with trusted clients alone")
KNOWN_CLIENTS = 4096
HANDSHAKE_SECONDS = 30.0


class Noted(Protocol):
    """Takes what a session has for the log; `note` says which sink it is about."""

    def __call__(self, session: Session, what: str, words: str, note: Note | None = None, /) -> None: ...


class MemoryBudget:
    """Octets of messages being received that may be in memory at one time."""

    __slots__ = ("limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    def take(self, octets: int) -> bool:
        """Count `octets`; False when that is more than the budget (they are counted all the same)."""
        self.used += octets
        return self.used <= self.limit

    def give(self, octets: int) -> None:
        self.used -= octets


class Seats:
    """Open sessions at one address, in all and by client."""

    __slots__ = ("by_client", "taken")

    def __init__(self) -> None:
        self.taken = 0
        self.by_client: Counter[str] = Counter()

    def take(self, client: str) -> None:
        self.taken += 1
        self.by_client[client] += 1

    def give(self, client: str) -> None:
        self.taken -= 1
        self.by_client[client] -= 1
        if not self.by_client[client]:
            del self.by_client[client]


class Listener:
    """Accepts connections for one `[[listener]]`. Satisfies `host.Host`."""

    def __init__(
        self,
        settings: ListenerSettings,
        acceptor: Acceptor,
        budget: MemoryBudget,
        ids: IdSource,
        transcripts: Callable[[SessionId, str], Transcript],
        has_route: Callable[[Address], bool],
        noted: Noted,
        revision: str,
        seats: Seats | None = None,
        watch: ClientWatch | None = None,
    ) -> None:
        """`seats`: those of the listener whose place this one takes. `watch` looks at clients of the network."""
        self.settings = settings
        self.acceptor = acceptor
        self.revision = revision
        self.transcript = transcripts
        self.has_route = has_route
        self.noted = noted
        self.take_memory = budget.take
        self.give_memory = budget.give
        self.sessions: set[Session] = set()
        self._ids = ids
        self.seats = seats if seats is not None else Seats()
        self._watch = watch
        self._trusted: dict[str, bool] = {}
        self._servers: list[asyncio.Server | SharedServer] = []

    @property
    def place(self) -> Place:
        return self.settings.place

    async def start(self, listening: Sequence[socket.socket] = (), *, shares: bool = False) -> None:
        """Accept on these sockets, which are this listener's own from now on; without any, on new ones.

        `shares`: other workers accept on them too.

        Raises:
            OSError: the address is taken or not ours.
        """
        settings = self.settings
        implicit = settings.tls if settings.options.tls_active else None
        for one in listening or [bound(at) for _, at in resolved(self.place)]:
            if one.family == socket.AF_UNIX:
                loop = asyncio.get_running_loop()
                self._servers.append(await loop.create_unix_server(self._new_session, sock=one, backlog=1024))
                continue
            seconds = HANDSHAKE_SECONDS if implicit is not None else None
            if shares:
                self._servers.append(SharedServer(self._new_session, one, implicit, seconds))
                continue
            server = await asyncio.get_running_loop().create_server(
                self._new_session,
                sock=one,
                backlog=1024,
                ssl=implicit,
                ssl_handshake_timeout=seconds,
            )
            self._servers.append(server)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port as bound (port 0 in the settings becomes a real one); of a unix socket its path, and 0."""
        if self.place.is_unix:
            return self.place.host, 0
        host, port = self._servers[0].sockets[0].getsockname()[:2]
        return str(host), int(port)

    @property
    def is_idle(self) -> bool:
        """It has no session, and none begins."""
        return not self.sessions and not any(
            isinstance(server, SharedServer) and server.is_opening for server in self._servers
        )

    def close(self) -> None:
        """Take no more connections."""
        for server in self._servers:
            server.close()

    def _new_session(self) -> Session:
        return Session(self, SessionId(self._ids.next(self.acceptor.clock.now())))

    # -- host.Host ---------------------------------------------------------------------------------

    def opened(self, session: Session) -> Reply | None:
        self.sessions.add(session)
        self.seats.take(session.client)
        if self.seats.taken > self.settings.max_connections:
            self.noted(session, "session.refused", f"more than {self.settings.max_connections} connections")
            return TOO_MANY
        if self.settings.options.lmtp and not session.trusted:
            self.noted(
                session, "session.refused", f"{session.client} is not trusted, and LMTP is spoken here"
            )
            return NOT_TRUSTED
        limit = self.settings.max_connections_per_client
        if not session.trusted and self.seats.by_client[session.client] > limit:
            self.noted(session, "session.refused", f"more than {limit} connections from {session.client}")
            return TOO_MANY_FROM_CLIENT
        return None

    def closed(self, session: Session) -> None:
        if session in self.sessions:
            self.sessions.discard(session)
            self.seats.give(session.client)
            if self._watch is not None and not self.place.is_unix:
                client = session.client
                self._watch.closed(self.settings.name, client, self.is_trusted(client), session.helo)

    def login_of(self, transport: asyncio.BaseTransport) -> str:
        return ""

    def is_trusted(self, client: str) -> bool:
        if self.place.is_unix:
            return True  # who may not connect, cannot
        known = self._trusted.get(client)
        if known is None:
            if len(self._trusted) >= KNOWN_CLIENTS:
                self._trusted.clear()
            known = self._trusted[client] = is_in(client, self.settings.relay_from)
        return known
