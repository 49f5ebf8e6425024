"""Connections to one destination: few, reused, and never more than the route allows.

Rules: the connection used last is used first, so that the others may go; one that dies while idle is nobody's
fault; a message whose connection turns out to have been closed before its first reply is given another once, since
nothing of it can have been taken. When no session can be opened, everything that waits learns why, unless another
connection still works. Where workers share what the route allows, a connection is leased before it is opened, and the
lease given back when it is gone. What is decided here is decided in callbacks; a task runs only while a session is
opened, or while a sink is told that one ends.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor

import msgspec

from lonedot.delivery.connection import Connection, Opened
from lonedot.delivery.jobs import Job, SessionFault, TransactionReport, error_words
from lonedot.delivery.leases import ASK_SECONDS, Leases
from lonedot.delivery.routing import IMPLICIT_TLS_PORT, Lmtp, NextHop, NoNextHop, Resolver, Route, TlsPolicy
from lonedot.delivery.session_sinks import SessionSinks
from lonedot.delivery.tls import is_loopback, outbound_context, starttls_of, tls_words
from lonedot.delivery.transcript import NOTE, Line
from lonedot.protocol.client import ClientOptions, StartTls
from lonedot.sinks.events import Event
from lonedot.sinks.hop import Hop
from lonedot.terms.outcome import Stage

__all__ = ["Pool", "PoolState"]

_CANDIDATES = 10
"""Addresses that are tried for one connection, over all hosts of a destination."""

_NO_CHUNKS = frozenset((b"CHUNKING",))
"""In LMTP content goes by DATA alone (see `protocol.client`)."""

_GONE_SECONDS = 0.02
"""After which the system has closed a connection for certain; its lease is given back then."""

_CROWDED_SECONDS = 30.0
"""How long no further connection is tried when one was refused while there is hope for others."""


class PoolState(msgspec.Struct, frozen=True):
    """What a pool is doing, for people."""

    route: str
    destination: str
    connections: int
    idle: int
    opening: int
    waiting: int


class _Candidate(msgspec.Struct, frozen=True):
    """One address of one host, or a socket of this machine."""

    hop: NextHop
    address: str

    def __str__(self) -> str:
        if self.hop.is_socket:
            return str(self.hop)
        name = self.hop.host if self.hop.host != self.address else ""
        return f"{name}[{self.address}]:{self.hop.port}"


class Pool:
    """All connections of one route to one destination. Lives on one event loop."""

    def __init__(
        self,
        route: Route,
        destination: str,
        resolver: Resolver,
        new_session: Callable[[], str],
        executor: Executor | None = None,
        sinks: SessionSinks | None = None,
        leases: Leases | None = None,
    ) -> None:
        """`leases`: None where this worker has all that the route allows.

        Raises:
            TlsSettingsFault: the route's TLS settings cannot be used.
        """
        self._loop = asyncio.get_running_loop()
        self._route = route
        self._destination = destination
        self._resolver = resolver
        self._new_session = new_session
        self._executor = executor
        self._sinks = sinks
        self._leases = leases
        self._leased: set[Connection] = set()
        """Open, with a lease; those that are leaving, too."""
        self._wants_lease = False
        self._owed_at = 0.0
        """When it was last asked whether another worker is owed a connection."""
        self._lease_timer: asyncio.TimerHandle | None = None
        self._is_lmtp = isinstance(route.target, Lmtp)
        self._context = outbound_context(route)
        self._waiting: deque[Job] = deque()
        self._live: set[Connection] = set()
        """Open, and in use or idle; not those that said QUIT."""
        self._leaving: set[Connection] = set()
        self._idle: list[Connection] = []
        """The one used last stands last."""
        self._opening: set[asyncio.Task[bool]] = set()
        self._parting: set[asyncio.Task[None]] = set()
        """A sink is being told that a session ends; its connection stands in `_leaving`."""
        self._crowded_until = 0.0
        self._idle_timer: asyncio.TimerHandle | None = None
        self._closing = False
        self._empty = asyncio.Event()

    @property
    def state(self) -> PoolState:
        return PoolState(
            self._route.name,
            self._destination,
            len(self._live),
            len(self._idle),
            len(self._opening),
            len(self._waiting),
        )

    @property
    def is_unused(self) -> bool:
        return not (self._live or self._leaving or self._opening or self._waiting)

    def submit(self, job: Job) -> None:
        """Send the job as soon as a connection is free. The job is told what came of it, always later than this."""
        if self._closing:
            self._loop.call_soon(job.not_tried)
            return
        self._waiting.append(job)
        if self._idle:
            # Not from within the caller, who may be in the middle of another job's end.
            connection = self._idle.pop()
            self._loop.call_soon(self._serve, connection)
        else:
            self._grow()

    async def close(self, grace_seconds: float) -> None:
        """Begin nothing new, let what runs end for so long, then drop it (and it will be tried again)."""
        self._closing = True
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        if self._lease_timer is not None:
            self._lease_timer.cancel()
            self._lease_timer = None
        while self._waiting:
            self._waiting.popleft().not_tried()
        for task in tuple(self._opening):
            task.cancel()
        while self._idle:
            self._leave(self._idle.pop())
        if self._live or self._leaving or self._opening:
            try:
                await asyncio.wait_for(self._empty.wait(), grace_seconds)
            except TimeoutError:
                pass
        for parting in tuple(self._parting):
            parting.cancel()
        for connection in (*self._live, *self._leaving):
            connection.abort()
        if self._opening or self._parting:
            await asyncio.gather(*self._opening, *self._parting, return_exceptions=True)

    # --- what connections say ---------------------------------------------------------------------------

    def ended(self, connection: Connection, job: Job, report: TransactionReport) -> None:
        """As `ConnectionOwner`: the connection goes on with the next message before this one is told."""
        if _is_stale(connection, report) and not job.retried and not self._closing:
            # RFC 5321 §3.8: the server had closed, or was about to. Other idle connections are as old.
            job.retried = True
            self._waiting.appendleft(job)
            while self._idle:
                self._leave(self._idle.pop())
            self._serve(connection)
            self._grow()
            return
        self._serve(connection)
        job.finished(report)

    def withdrawn(self, connection: Connection) -> None:
        self._serve(connection)

    def gone(self, connection: Connection) -> None:
        self._leaving.discard(connection)
        if connection in self._leased:
            self._leased.remove(connection)
            self._loop.call_later(_GONE_SECONDS, self._give)
        if connection in self._idle:
            self._idle.remove(connection)
        if connection in self._live:
            # One that never worked is its opener's affair.
            self._live.remove(connection)
            if self._waiting:
                self._grow()
        self._check_empty()

    # --- giving work ----------------------------------------------------------------------------------------

    def _serve(self, connection: Connection) -> None:
        """Let a free connection take the next message, or lie idle, or leave."""
        if not connection.is_usable:
            if connection.is_gone or connection not in self._live:
                self._live.discard(connection)
            else:
                self._leave(connection)
            if self._waiting:
                self._grow()
            return
        waiting = self._waiting
        while waiting:
            if connection.messages >= self._route.messages_per_connection:
                self._leave(connection)
                self._grow()
                return
            if self._leases is not None and self._is_owed(self._leases):
                self._leave(connection)
                self._grow()
                return
            if connection.start(waiting.popleft()):
                return
        if self._closing or connection.messages >= self._route.messages_per_connection:
            self._leave(connection)
            return
        if self._leases is not None:
            self._watch_leases()
        connection.idle_since = self._loop.time()
        self._idle.append(connection)
        if self._idle_timer is None:
            self._idle_timer = self._loop.call_later(self._route.idle_seconds, self._retire)

    def _retire(self) -> None:
        """Let go of what has lain idle long enough; the longest idle stand first."""
        self._idle_timer = None
        now = self._loop.time()
        keep = self._route.idle_seconds
        idle = self._idle
        while idle and idle[0].idle_since + keep <= now + 0.001:
            self._leave(idle.pop(0))
        if idle:
            self._idle_timer = self._loop.call_at(idle[0].idle_since + keep, self._retire)

    # --- what workers share ---------------------------------------------------------------------------------

    def _is_owed(self, leases: Leases) -> bool:
        """Whether this connection is another worker's turn; asked now and then, not for each message."""
        now = self._loop.time()
        if now - self._owed_at < ASK_SECONDS / 2:
            return False
        self._owed_at = now
        return leases.is_owed(sum(connection in self._leased for connection in self._leaving))

    def _watch_leases(self) -> None:
        """Look again soon: for a lease that is wanted here, or at idle connections that are wanted elsewhere."""
        if self._lease_timer is None and not self._closing:
            self._lease_timer = self._loop.call_later(ASK_SECONDS, self._look_at_leases)

    def _look_at_leases(self) -> None:
        self._lease_timer = None
        leases = self._leases
        if leases is None or self._closing:
            return
        if self._wants_lease and len(self._waiting) <= len(self._opening):
            self._wants_lease = False
            leases.renounce()
        self._grow()
        if self._idle and not self._waiting and leases.is_wanted():
            self._leave(self._idle.pop(0))
        if self._idle or self._wants_lease:
            self._watch_leases()

    def _has_lease(self) -> bool:
        """One more connection may be opened, by what the workers have in all."""
        if self._leases is None:
            return True
        self._wants_lease = not self._leases.take()
        if self._wants_lease:
            self._watch_leases()
        return not self._wants_lease

    def _give(self) -> None:
        if self._leases is not None:
            self._leases.give()

    def _leave(self, connection: Connection) -> None:
        self._live.discard(connection)
        if connection.is_gone:
            return
        self._leaving.add(connection)
        sinks = self._sinks
        if sinks is None or not connection.is_usable or not sinks.at(Event.SESSION_END):
            connection.quit()
            return
        task = self._loop.create_task(self._part(connection, sinks))
        self._parting.add(task)
        task.add_done_callback(self._parting.discard)

    async def _part(self, connection: Connection, sinks: SessionSinks) -> None:
        """Tell the sinks that the session ends, then end it, whatever they say."""
        try:
            await sinks.ask(connection, Event.SESSION_END)
        except SessionFault:
            pass  # a sink failed, which is booked; there is nothing left to refuse
        finally:
            connection.quit()

    def _check_empty(self) -> None:
        if self._closing and not (self._live or self._leaving or self._opening):
            self._empty.set()

    # --- opening --------------------------------------------------------------------------------------------

    def _grow(self) -> None:
        """Open connections while messages wait for which none is on its way."""
        while (
            not self._closing
            and len(self._opening) < len(self._waiting)
            and len(self._opening) + len(self._live) < self._route.connections
            and not (self._has_hope and self._loop.time() < self._crowded_until)
            and self._has_lease()
        ):
            task = self._loop.create_task(self._open())
            self._opening.add(task)
            task.add_done_callback(self._opened)

    @property
    def _has_hope(self) -> bool:
        """A connection works, or another one is on its way."""
        current = asyncio.current_task()
        return bool(self._live) or any(task is not current and not task.done() for task in self._opening)

    def _opened(self, task: asyncio.Task[bool]) -> None:
        self._opening.discard(task)
        if task.cancelled() or task.exception() is not None or not task.result():
            self._give()
        if not task.cancelled() and (error := task.exception()) is not None:
            # A bug, not a peer: still nobody may wait for ever.
            self._fail_waiting(
                SessionFault(Stage.LOCAL, f"the relay failed to open a session: {error!r}"), "", []
            )
        self._check_empty()

    async def _open(self) -> bool:
        """One more session, over the first host and address that takes us. False: none came of it."""
        lines: list[Line] = []
        began = self._loop.time()
        place = ""
        fault: SessionFault
        try:
            hops = await self._resolver.next_hops(self._route, self._destination)
            fault = SessionFault(Stage.ROUTE, f"route {self._route.name} names no host to send to")
        except NoNextHop as error:
            hops = ()
            fault = SessionFault(Stage.ROUTE, str(error), status=error.status, is_final=error.is_final)
        tried = 0
        for hop in hops:
            try:
                candidates = await self._look_up(hop)
            except SessionFault as error:
                fault, place = error, str(hop)
                lines.append((self._loop.time() - began, NOTE, error.words.encode()))
                continue
            for candidate in candidates:
                if tried == _CANDIDATES:
                    break
                tried += 1
                try:
                    connection = await self._session(candidate, lines)
                except SessionFault as error:
                    if not error.is_final or tried == 1 or fault.is_final:
                        # One host that a sink refuses for good says nothing of the others.
                        fault, place = error, str(candidate)
                    if error.stage is Stage.AUTH:
                        # The same name and password elsewhere only bring the account nearer to being locked.
                        self._fail_waiting(fault, place, lines)
                        return False
                    continue
                self._live.add(connection)
                if connection.is_gone:
                    self._live.discard(connection)
                    continue
                if self._leases is not None:
                    self._leased.add(connection)
                self._serve(connection)
                return True
        self._fail_waiting(fault, place, lines)
        return False

    def _fail_waiting(self, fault: SessionFault, place: str, lines: list[Line]) -> None:
        """No session: all that waits is told, unless others work, or are about to, and can take it."""
        if self._has_hope:
            self._crowded_until = self._loop.time() + _CROWDED_SECONDS
            return
        self._crowded_until = 0.0
        waiting = tuple(self._waiting)
        self._waiting.clear()
        for job in waiting:
            job.unreachable(fault, place, lines)

    async def _look_up(self, hop: NextHop) -> list[_Candidate]:
        """The addresses of a host: those that are known, or all in the system's order (RFC 6724)."""
        if hop.addresses:
            return [_Candidate(hop, address) for address in hop.addresses]
        if hop.is_socket:
            return [_Candidate(hop, hop.host)]
        try:
            found = await self._loop.getaddrinfo(hop.host, hop.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            words = f"the name {hop.host} could not be looked up: {error_words(error)}"
            raise SessionFault(Stage.CONNECT, words) from error
        addresses = dict.fromkeys(str(entry[4][0]) for entry in found)
        return [_Candidate(hop, address) for address in addresses]

    async def _session(self, candidate: _Candidate, lines: list[Line]) -> Connection:
        """A session with one address, ready for messages.

        Raises:
            SessionFault: it could not be had. What was said is added to `lines`.
        """
        policy = self._route.tls
        try:
            starttls = StartTls.NEVER if candidate.hop.is_socket else starttls_of(policy)
            return await self._attempt(candidate, starttls, lines)
        except _HandshakeFault as error:
            if policy is not TlsPolicy.OPPORTUNISTIC or candidate.hop.port == IMPLICIT_TLS_PORT:
                raise
            # RFC 7435 §3: no worse than a host that never offered it; the transcript says so.
            lines.append((0.0, NOTE, f"{error.words}; once more without TLS".encode()))
        return await self._attempt(candidate, StartTls.NEVER, lines)

    async def _attempt(self, candidate: _Candidate, starttls: StartTls, lines: list[Line]) -> Connection:
        route, loop = self._route, self._loop
        implicit = self._context if candidate.hop.port == IMPLICIT_TLS_PORT else None
        ignored = frozenset(keyword.upper().encode() for keyword in route.ehlo_ignore)
        options = ClientOptions(
            ehlo_name=route.ehlo_name.encode("ascii"),
            starttls=starttls,
            tls_active=implicit is not None,
            login=route.login,
            plaintext_login=(
                route.allow_plaintext_login or candidate.hop.is_socket or is_loopback(candidate.address)
            ),
            ignored=ignored | _NO_CHUNKS if self._is_lmtp else ignored,
            asks_at_greeting=self._sinks is not None and bool(self._sinks.at(Event.SESSION_START)),
            lmtp=self._is_lmtp,
        )
        hop = Hop(
            event=Event.SESSION_START,
            id=self._new_session(),
            route=route.name,
            destination=self._destination,
            next_hop=str(candidate),
            host=candidate.hop.host,
            address=candidate.address,
            port=candidate.hop.port,
        )
        connection = Connection(loop, self, options, route.timeouts, hop, self._executor)
        connection.note(f"connecting to {candidate}")
        ready = False
        try:
            await self._connect(connection, candidate, implicit)
            opened: Opened = await connection.opening
            if opened.wants_leave:
                assert self._sinks is not None
                try:
                    await self._sinks.ask(connection, Event.SESSION_START)
                except SessionFault:
                    connection.quit()
                    raise
                connection.go_on()
                opened = await connection.opening
            if opened.wants_handshake:
                await self._shake_hands(connection, candidate)
                await connection.opening
            ready = True
            return connection
        except SessionFault as error:
            connection.note(error.words)
            raise
        finally:
            if not ready:
                lines.extend(connection.take_lines())
                if connection.is_leaving:
                    self._leave(connection)
                else:
                    connection.opening.cancel()
                    connection.abort("no session came of it")

    async def _connect(
        self, connection: Connection, candidate: _Candidate, implicit: ssl.SSLContext | None
    ) -> None:
        seconds = self._route.timeouts.connect
        try:
            async with asyncio.timeout(seconds):
                transport: asyncio.Transport
                if candidate.hop.is_socket:
                    transport, _ = await self._loop.create_unix_connection(
                        lambda: connection, candidate.address
                    )
                else:
                    transport, _ = await self._loop.create_connection(
                        lambda: connection,
                        candidate.address,
                        candidate.hop.port,
                        ssl=implicit,
                        server_hostname=candidate.hop.host if implicit is not None else None,
                    )
        except TimeoutError as error:
            raise SessionFault(Stage.CONNECT, f"no connection within {seconds:g} seconds") from error
        except ssl.SSLError as error:
            raise _handshake_fault(error) from error
        except OSError as error:
            raise SessionFault(Stage.CONNECT, f"no connection: {error_words(error)}") from error
        if implicit is not None:
            connection.tls = tls_words(transport, self._route.tls)
            connection.note(f"TLS began: {connection.tls}")

    async def _shake_hands(self, connection: Connection, candidate: _Candidate) -> None:
        context = self._context
        assert context is not None
        try:
            transport = await self._loop.start_tls(
                connection.transport,
                connection,
                context,
                server_hostname=candidate.hop.host,
                ssl_handshake_timeout=self._route.timeouts.connect,
            )
        except (ssl.SSLError, OSError) as error:
            raise _handshake_fault(error) from error
        if transport is None:
            raise _HandshakeFault(Stage.STARTTLS, "the connection was closed during the TLS handshake")
        connection.tls_started(transport, tls_words(transport, self._route.tls))


class _HandshakeFault(SessionFault):
    """TLS could not be begun."""


def _handshake_fault(error: OSError) -> _HandshakeFault:
    if isinstance(error, ssl.SSLCertVerificationError):
        return _HandshakeFault(
            Stage.STARTTLS, f"the certificate of the next hop is not believed: {error.verify_message}"
        )
    if isinstance(error, ssl.SSLError):
        return _HandshakeFault(Stage.STARTTLS, f"the TLS handshake failed: {error.reason or error}")
    return _HandshakeFault(
        Stage.STARTTLS, f"the connection was lost in the TLS handshake: {error_words(error)}"
    )


def _is_stale(connection: Connection, report: TransactionReport) -> bool:
    """The connection had been closed, or was being closed, before it took anything of this message."""
    if report.fault is not None:
        return report.fault.is_stale
    return (
        connection.messages > 1
        and report.reply is not None
        and report.reply.code == 421
        and report.stage is Stage.MAIL
    )
