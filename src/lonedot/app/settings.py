"""From the configuration's values to the settings of each room. Pure but for TLS files; see also `passwords`."""

from __future__ import annotations

import ssl
from pathlib import Path

import msgspec

from lonedot.app.directory import directory_from
from lonedot.app.rewriting import rewriting_from
from lonedot.config.choices import InboundTls, LineEnds, ListenerProtocol, LongLines
from lonedot.config.code import sink_code
from lonedot.config.domains import Vrfy
from lonedot.config.model import Config, Listener, Route
from lonedot.delivery import routing
from lonedot.delivery.conditions import Conditions
from lonedot.delivery.dns import NameServer, ServerAsker
from lonedot.delivery.mx import Ourselves
from lonedot.delivery.routing import (
    Discard,
    Drop,
    Hold,
    Lmtp,
    LocalNames,
    Maildir,
    Mx,
    NextHop,
    Pipe,
    Smarthosts,
    Timeouts,
)
from lonedot.message import door
from lonedot.message.door import DoorPolicy
from lonedot.protocol.client import Login
from lonedot.protocol.options import DEFAULT_KEYWORDS, ServerLimits, ServerOptions
from lonedot.queue.retry import RetrySchedule
from lonedot.reception.logins import Logins
from lonedot.reception.settings import ListenerSettings
from lonedot.reception.submit import BCC_EDITS, SubmitPlace
from lonedot.sinks.bindings import Binding, Isolation
from lonedot.sinks.child import declare
from lonedot.sinks.inline import load_inline
from lonedot.sinks.load import bind
from lonedot.sinks.registry import Bag, Row
from lonedot.sinks.sink import Sink

__all__ = ["asker_from", "binding_from", "listener_from", "ourselves_from", "route_from", "submit_from"]


def listener_from(listener: Listener, config: Config) -> ListenerSettings:
    """Settings of one listener.

    Raises:
        OSError, ssl.SSLError: a certificate or key cannot be used.
    """
    server = config.server
    context: ssl.SSLContext | None = None
    if listener.tls is not InboundTls.OFF:
        assert listener.tls_certificate is not None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(listener.tls_certificate, listener.tls_key)
    off = frozenset(keyword.upper().encode() for keyword in listener.ehlo_off)
    options = ServerOptions(
        hostname=server.hostname.encode(),
        keywords=DEFAULT_KEYWORDS - off,
        lmtp=listener.protocol is ListenerProtocol.LMTP,
        tls_available=listener.tls is InboundTls.STARTTLS,
        tls_active=listener.tls is InboundTls.IMPLICIT,
        tls_required=listener.require_tls,
        auth_requires_tls=not listener.allow_plaintext_login,
        limits=ServerLimits(
            size=server.max_size,
            recipients=listener.max_recipients,
            errors=listener.max_errors,
        ),
    )
    return ListenerSettings(
        name=listener.name or str(listener.address),
        host=listener.address.host,
        port=listener.address.port,
        group=listener.group,
        options=options,
        tls=context,
        logins=None if listener.logins is None else Logins(listener.logins),
        relay_from=tuple(listener.relay_from),
        proxy_from=tuple(listener.proxy_from),
        xclient_from=tuple(listener.xclient_from),
        relay_to=tuple(domain.lower().encode() for domain in listener.relay_to),
        postmaster=server.postmaster,
        directory=directory_from(config),
        rewriting=rewriting_from(config),
        verifies_for_trusted=listener.vrfy is not Vrfy.NONE,
        verifies_for_all=listener.vrfy is Vrfy.LOCAL,
        door=(_door(listener, trusted=False), _door(listener, trusted=True)),
        max_connections=listener.max_connections,
        max_connections_per_client=listener.max_connections_per_client,
        command_seconds=listener.command_timeout.total_seconds(),
        data_seconds=listener.data_timeout.total_seconds(),
        session_seconds=listener.session_timeout.total_seconds(),
    )


def submit_from(config: Config) -> tuple[ListenerSettings, SubmitPlace] | None:
    """The socket of local programs, when there is one. Its greeting names the domain for bare addresses."""
    sendmail, server = config.sendmail, config.server
    if not sendmail.enabled:
        return None
    settings = ListenerSettings(
        name="sendmail",
        host="",
        port=0,
        options=ServerOptions(
            hostname=sendmail.domain.encode(),
            keywords=DEFAULT_KEYWORDS - {b"AUTH", b"STARTTLS"},
            limits=ServerLimits(size=server.max_size),
        ),
        edits=BCC_EDITS,
        postmaster=server.postmaster,
    )
    return settings, SubmitPlace(sendmail.socket, sendmail.group)


def _door(listener: Listener, trusted: bool) -> DoorPolicy:
    """`auto` mends for clients that we trust and refuses strangers. A stranger's long lines are never encoded unless
    the listener says so."""
    mends = trusted if listener.line_ends is LineEnds.AUTO else listener.line_ends is LineEnds.NORMALIZE
    encodes = trusted if listener.long_lines is LongLines.AUTO else listener.long_lines is LongLines.ENCODE
    return DoorPolicy(
        door.LineEnds.NORMALIZE if mends else door.LineEnds.REJECT,
        door.LongLines.ENCODE if encodes else door.LongLines.REJECT,
        add_missing=trusted,
    )


def route_from(route: Route, config: Config, login: Login | None = None) -> routing.Route:
    """One route with all that an attempt needs; `login` is what it says at the smarthost."""
    command = route.command_timeout.total_seconds()
    data = route.data_timeout.total_seconds()
    return routing.Route(
        name=route.name,
        to=route.to,
        conditions=_conditions(route),
        target=_target(route, config),
        tls=route.tls,
        tls_ca=route.tls_ca,
        login=login,
        ehlo_name=config.server.hostname,
        ehlo_ignore=frozenset(keyword.upper() for keyword in route.ehlo_off),
        connections=route.connections,
        rate=route.rate,
        messages_per_connection=route.messages_per_connection,
        timeouts=Timeouts(
            connect=route.connect_timeout.total_seconds(),
            greeting=command,
            command=command,
            data=data,
            block=data,
            end=route.final_timeout.total_seconds(),
        ),
        schedule=RetrySchedule(
            minutes=route.retry_minutes,
            expire_seconds=route.expire.total_seconds(),
            delay_notice_seconds=route.delay_notice.total_seconds() or float("inf"),
            jitter=route.jitter,
        ),
    )


def _target(route: Route, config: Config) -> routing.Target:
    if route.mx:
        return Mx(route.ip, route.mx_port)
    if route.lmtp:
        return Lmtp(tuple(NextHop(hop.host, hop.port) for hop in route.lmtp))
    if route.maildir:
        names = [
            LocalNames(domain.name.encode(), domain.extension, domain.case_sensitive)
            for domain in config.domains
        ]
        return Maildir(route.maildir, route.line_end, create=route.maildir_create, names=tuple(names))
    if route.pipe:
        return Pipe(
            route.pipe,
            route.pipe_user,
            route.pipe_seconds,
            route.pipe_memory,
            tuple(sorted(route.pipe_environment.items())),
            route.line_end,
        )
    if route.drop:
        return Drop(tuple((source.number, source.drop) for source in config.sources), config.drop.envelope)
    if route.discard:
        return Discard()
    if route.hold:
        return Hold(route.hold)
    return Smarthosts(tuple(NextHop(hop.host, hop.port) for hop in route.smarthost))


def _conditions(route: Route) -> Conditions | None:
    conditions = Conditions(
        senders=route.sender,
        listeners=route.listener,
        networks=route.network,
        over=-1 if route.size_over is None else route.size_over,
        under=-1 if route.size_under is None else route.size_under,
        headers=route.header,
    )
    return None if conditions == Conditions() else conditions


def asker_from(config: Config) -> ServerAsker:
    """Who asks DNS."""
    return ServerAsker([NameServer(server.host, server.port) for server in config.server.nameservers])


def ourselves_from(config: Config) -> Ourselves:
    """By what the relay knows itself among mail exchangers."""
    return Ourselves(
        frozenset({config.server.hostname}),
        tuple(NextHop(one.address.host, one.address.port) for one in config.listeners),
    )


def binding_from(row: Row, folder: Path, loaded: dict[str, Sink]) -> Binding:
    """The binding of a row, with its code.

    Args:
        folder: files of sinks are counted from there.
        loaded: code of sinks in this process by its name; what is not there yet is loaded and put there.

    Raises:
        SinkNotLoaded: the code cannot be used.
        ValueError, Unfit: a combination that is not allowed, or settings (`SettingsFault`) that the sink does not take.
    """
    sink_class = str(sink_code(row.sink, folder))
    if row.isolation is Isolation.PROCESS:
        sink = declare(sink_class, row.sink_properties, memory_octets=row.memory_octets, user=row.user)
    elif sink_class in loaded:
        sink = loaded[sink_class]
    else:
        sink = loaded[sink_class] = load_inline(sink_class)
    bound = bind(
        sink,
        sink_class=sink_class,
        name=row.name,
        guid=row.guid,
        source=row.source,
        event=row.event,
        priority=row.priority,
        rule=row.rule,
        reads=row.reads,
        effects=row.effects,
        role=row.role,
        on_damage=row.on_damage,
        on_error=row.on_error,
        settings=row.sink_properties,
        isolation=row.isolation,
        deadline_seconds=row.deadline_seconds,
        memory_octets=row.memory_octets,
        user=row.user,
        mode=row.mode,
        maximum_faults=row.maximum_faults,
        split=row.split,
    )
    return msgspec.structs.replace(bound, settings=Bag(row.sink_properties))
