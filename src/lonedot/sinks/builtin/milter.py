"""The milter bridge: any filter that speaks the milter protocol of Sendmail and Postfix is a sink.

`Milter` is shown a whole message and tells the milter the whole session: who connected, EHLO, MAIL, each RCPT, DATA,
the content. `MilterSession` asks it before there is a message, at `connect`, `helo`, `mail`, `rcpt` or `data`. Both
bring the milter up to where they are, telling whatever it has not heard, so that either does without the other; bound
with the same address and the same settings they share one session with the milter for each session with a client.

Rules a change here must keep:
1. What a milter has heard may be told anew at any time: a connection that is lost or was idle costs nothing but that.
2. A milter that cannot be asked is an error of the sink, and `on_error` decides: nothing passes that it was to see.
3. Nothing is kept for a client that is gone: an idle session ends by itself, and there are at most so many.
"""

from __future__ import annotations

import asyncio
import enum
import ipaddress
import socket
import weakref
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import msgspec

from lonedot.message.edits import AnyEdit, Edit, EditFault
from lonedot.sinks.bindings import Role
from lonedot.sinks.builtin.milter_client import Ended, MilterClient, Peer, Said, Word
from lonedot.sinks.builtin.milter_edits import changed, shown_fields
from lonedot.sinks.builtin.milter_line import Line, MilterGone, MilterUnreachable, Patience, place_from
from lonedot.sinks.builtin.milter_wire import Action, MilterFault, ReplaceBody
from lonedot.sinks.calls import Failure
from lonedot.sinks.events import Event
from lonedot.sinks.protocol import Session
from lonedot.sinks.sink import sink
from lonedot.sinks.verdicts import Defer, Discard, Hold, Next, Reject, Verdict
from lonedot.sinks.view import Message
from lonedot.spool.interface import Facts
from lonedot.terms.envelope import Envelope, Recipient

__all__ = ["Milter", "MilterSession", "MilterSettings", "RefusedRecipients"]

SESSIONS_LIMIT = 1000
"""Sessions with milters that are kept for clients; beyond it the one that was idle longest ends."""
IN_MEMORY = 64 * 1024
"""Octets of a message that is read on the loop; a larger one may lie in a file, and a thread reads it."""
BODY_LIMIT = 64 * 1024 * 1024
_OFFERS = {
    "header": Action.ADD_HEADERS | Action.CHANGE_HEADERS,
    "body": Action.CHANGE_BODY,
    "envelope": Action.ADD_RECIPIENTS
    | Action.ADD_RECIPIENTS_WITH
    | Action.DELETE_RECIPIENTS
    | Action.CHANGE_SENDER,
    "quarantine": Action.QUARANTINE,
}
_EARLY = (Event.CONNECT, Event.HELO, Event.MAIL, Event.RCPT, Event.DATA)


class RefusedRecipients(enum.Enum):
    """What is done when a milter refuses some recipients of a message that has come in."""

    REFUSE = "refuse"
    """The message is refused."""
    REMOVE = "remove"
    """They are taken out, and it goes to the others."""


class MilterSettings(msgspec.Struct, frozen=True):
    """The settings of a binding."""

    address: str
    """`unix:/path`, `inet:port@host` or `inet6:port@host`."""
    actions: str = "header body envelope quarantine"
    """What it is told that it may do."""
    hostname: str = ""
    """Macro `j`; empty: the name of this machine."""
    daemon_name: str = ""
    """Macro `{daemon_name}`; empty: as `hostname`, which filters expect there."""
    refused_recipients: RefusedRecipients = RefusedRecipients.REFUSE
    """It refuses some of a message that has come in: the message is refused, or they are taken out."""
    connect_seconds: float = 5.0
    """For the connection."""
    reply_seconds: float = 30.0
    """For the answer to each step."""
    end_seconds: float = 300.0
    """For the answer to the end of the message; a sign of life gives it that time anew."""
    idle_seconds: float = 60.0
    """How long its session is kept for the next command of the client."""
    largest_body: int = BODY_LIMIT
    """Octets of a body that it may hand back."""

    def __post_init__(self) -> None:
        place_from(self.address)
        unknown = [name for name in self.actions.split() if name not in _OFFERS]
        if unknown:
            raise ValueError(f"actions: {unknown[0]!r} is none; write some of {', '.join(_OFFERS)}")
        for name in ("connect_seconds", "reply_seconds", "end_seconds", "idle_seconds"):
            if not 0 < getattr(self, name) <= 3600:
                raise ValueError(f"{name} = {getattr(self, name)}: write seconds above 0, at most 3600")
        if not 0 < self.largest_body <= 1 << 30:
            raise ValueError(f"largest_body = {self.largest_body}: write octets, 1 to {1 << 30}")

    @property
    def offered(self) -> Action:
        actions = Action.CHOOSE_MACROS
        for name in self.actions.split():
            actions |= _OFFERS[name]
        return actions


@sink(
    "Milter",
    settings=MilterSettings,
    on="end-of-data",
    effects={"header", "body", "envelope"},
    reads={"body"},
    role=Role.PROTECTIVE,
)
class Milter:
    """Tells a milter the whole session, and takes what it says and changes."""

    def __init__(self, settings: MilterSettings) -> None:
        self._settings = settings

    async def __call__(self, message: Message) -> Verdict:
        facts = message.facts
        telling = _Telling(self._settings, _peer_of_message(facts, self._settings), message.id)
        return await _asked(self._settings, facts.session, lambda one: telling.whole(one, message), False)

    async def close(self) -> None:
        _sessions().close(self._settings)


@sink("Milter session", settings=MilterSettings, on="rcpt", role=Role.PROTECTIVE)
class MilterSession:
    """Asks a milter about a command of the client."""

    def __init__(self, settings: MilterSettings) -> None:
        self._settings = settings

    async def __call__(self, session: Session) -> Verdict:
        if session.event not in _EARLY:
            names = ", ".join(event.value for event in _EARLY)
            raise Failure(
                f"a milter is told nothing at event {session.event.value!r}; bind it to one of {names}"
            )
        telling = _Telling(self._settings, _peer_of_session(session, self._settings), "")
        return await _asked(self._settings, session.id, lambda one: telling.early(one, session), True)

    async def close(self) -> None:
        _sessions().close(self._settings)


# --- sessions with milters ----------------------------------------------------------------------------

_Key = tuple[MilterSettings, str]


class _Open(msgspec.Struct, frozen=True):
    """A session with a milter."""

    line: Line
    client: MilterClient


class _Sessions:
    """Sessions that wait for the next command of their client. Who uses one has taken it out."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        self._idle: OrderedDict[_Key, tuple[_Open, asyncio.TimerHandle]] = OrderedDict()

    def take(self, key: _Key) -> _Open | None:
        found = self._idle.pop(key, None)
        if found is None:
            return None
        one, timer = found
        timer.cancel()
        return None if one.line.is_lost else one

    def put(self, key: _Key, one: _Open) -> None:
        loop = self._loop()
        assert loop is not None
        self._end(key)
        timer = loop.call_later(key[0].idle_seconds, self._end, key)
        self._idle[key] = (one, timer)
        if len(self._idle) > SESSIONS_LIMIT:
            self._end(next(iter(self._idle)))

    def close(self, settings: MilterSettings) -> None:
        """End all that were begun with these settings. Who comes back tells it all anew."""
        for key in [key for key in self._idle if key[0] == settings]:
            self._end(key)

    def _end(self, key: _Key) -> None:
        found = self._idle.pop(key, None)
        if found is not None:
            found[1].cancel()
            found[0].line.quit()


_TABLES: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Sessions] = weakref.WeakKeyDictionary()


def _sessions() -> _Sessions:
    loop = asyncio.get_running_loop()
    table = _TABLES.get(loop)
    if table is None:
        table = _TABLES[loop] = _Sessions(loop)
    return table


async def _asked(
    settings: MilterSettings, id: str, ask: Callable[[_Open], Awaitable[Verdict]], keeps: bool
) -> Verdict:
    """Ask over the session that is kept for the client, else over a new one.

    Raises:
        Failure: the milter cannot be asked, or breaks its protocol.
    """
    sessions, key = _sessions(), (settings, id)
    one = sessions.take(key)
    was_kept = one is not None
    try:
        try:
            one = one or await _opened(settings)
            verdict = await ask(one)
        except MilterGone:
            if not was_kept:
                raise
            # It may have closed an idle session just now: all is told anew.
            one = await _opened(settings)
            verdict = await ask(one)
        if keeps or was_kept:
            await one.line.flush()
            sessions.put(key, one)
        else:
            one.line.quit()
    except BaseException as error:
        if one is not None:
            one.line.close()
        if isinstance(error, MilterUnreachable):
            raise Failure(f"the milter at {settings.address}: {error}") from error
        if isinstance(error, MilterFault | EditFault):
            raise Failure(f"the milter at {settings.address} {error}") from error
        raise
    return verdict


async def _opened(settings: MilterSettings) -> _Open:
    patience = Patience(settings.connect_seconds, settings.reply_seconds, settings.end_seconds)
    line = await Line.open(place_from(settings.address), patience)
    return _Open(line, MilterClient(settings.offered, settings.largest_body))


# --- telling ------------------------------------------------------------------------------------------


class _Telling:
    """What one event has to tell. `id`: of the message, or empty before there is one."""

    def __init__(self, settings: MilterSettings, peer: Peer, id: str) -> None:
        self._settings = settings
        self._peer = peer
        self._id = id

    async def early(self, one: _Open, session: Session) -> Verdict:
        """A command of the client."""
        line, client, peer = one.line, one.client, self._peer
        await line.drive(client.greet(peer))
        event = session.event
        if client.session is not None or event is Event.CONNECT or event is Event.HELO:
            return _answer(client.session)
        envelope = session.envelope
        if event is Event.MAIL:
            await line.drive(client.mail(peer, envelope, self._id))
            return _answer(client.message)
        if event is Event.DATA:
            refused = await self._tell(one, envelope, envelope.recipients)
            if client.message is None and not refused:
                await line.drive(client.data(peer, self._id))
            return _answer(client.message or next(iter(refused.values()), None))
        recipient = session.recipient
        if any(known.address == recipient.address for known in envelope.recipients):
            return Next()  # named twice, and taken the first time
        known = client.transaction
        is_told = known is not None and recipient.address.octets in known.told
        await self._tell(one, envelope, envelope.recipients, anew=is_told, more=True)
        if client.message is not None:
            return _answer(client.message)
        return _answer(await line.drive(client.rcpt(peer, recipient, self._id)) or client.message)

    async def whole(self, one: _Open, message: Message) -> Verdict:
        """A whole message."""
        line, client, peer, id = one.line, one.client, self._peer, self._id
        envelope = message.envelope
        await line.drive(client.greet(peer))
        if client.session is not None:
            return _judgement(client.session)
        refused = await self._tell(one, envelope, envelope.recipients)
        gone: list[AnyEdit] = []
        if refused and (client.message is None or client.message.word is Word.ACCEPT):
            # A refusal that is not for good is the answer to all: the client is to come again.
            said = min(refused.values(), key=lambda said: said.word is not Word.DEFER)
            left = [known for known in envelope.recipients if known.address.octets not in refused]
            if not left or self._settings.refused_recipients is RefusedRecipients.REFUSE:
                await line.drive(client.abort())
                return _judgement(said)
            envelope = msgspec.structs.replace(envelope, recipients=tuple(left))
            gone = [Edit.remove_recipient(address) for address in refused]
        if client.said is None:
            await line.drive(client.data(peer, id))
        if client.said is None:
            await line.drive(client.headers(peer, shown_fields(message.headers, message.id), id))
        if client.takes_body():
            async for chunk in _octets(message):
                await line.drive(client.body(chunk))
                if not client.takes_body():
                    break
        if client.said is not None:
            return _judgement(client.said, gone)
        ended = await line.drive(client.end(peer, id))
        return await self._taken(client, message, envelope, ended, gone)

    async def _tell(
        self,
        one: _Open,
        envelope: Envelope,
        recipients: Sequence[Recipient],
        anew: bool = False,
        more: bool = False,
    ) -> dict[bytes, Said]:
        """Bring the milter to these recipients, and no others; with `more` others may have been told too.

        Returns those that it refuses now.
        """
        line, client, peer = one.line, one.client, self._peer
        wanted = {recipient.address.octets: recipient for recipient in recipients}
        heard = client.transaction
        if heard is not None and not anew and heard.sender == envelope.reverse_path.octets:
            taken = heard.taken
            if taken == list(wanted) or (more and wanted.keys() <= set(taken) and not heard.is_begun):
                return {}
        await line.drive(client.mail(peer, envelope, self._id))
        refused: dict[bytes, Said] = {}
        for address, recipient in wanted.items():
            if client.message is not None:
                break
            said = await line.drive(client.rcpt(peer, recipient, self._id))
            if said is not None:
                refused[address] = said
        return refused

    async def _taken(
        self, client: MilterClient, message: Message, envelope: Envelope, ended: Ended, gone: list[AnyEdit]
    ) -> Verdict:
        """The verdict on a message that was told to its end."""
        if not ended.modifications:
            return _judgement(ended.said, gone)
        replaces = any(isinstance(one, ReplaceBody) for one in ended.modifications)
        if replaces and message.headers.malformed >= 0:
            raise MilterFault("hands back the body of a message whose header section is malformed")
        leads = client.leads_with_space
        arguments = (ended.modifications, message.content, envelope, message.id, leads)
        if replaces and message.size > IN_MEMORY:
            done = await asyncio.to_thread(changed, *arguments)
        else:
            done = changed(*arguments)
        if done.nobody:
            return Discard("the milter has left no recipient")
        edits = (*gone, *done.edits)
        return Hold(done.quarantine, edits) if done.quarantine else Next(edits)


async def _octets(message: Message) -> AsyncIterator[bytes]:
    """What a milter takes for the body. A line that is no header field begins it, as with other mail servers."""
    headers = message.headers
    if headers.malformed >= 0:
        yield headers.head[headers.malformed :]
    chunks = message.body_chunks()
    if message.size <= IN_MEMORY:
        for chunk in chunks:
            yield chunk
        return
    while chunk := await asyncio.to_thread(next, chunks, b""):
        yield chunk


def _answer(said: Said | None) -> Verdict:
    """To a command. Who accepts or discards the message lets the command pass."""
    return _refusal(said) if said is not None and said.refuses else Next()


def _judgement(said: Said | None, edits: Sequence[AnyEdit] = ()) -> Verdict:
    """Of a message."""
    if said is None or said.word is Word.ACCEPT:
        return Next(tuple(edits))
    if said.word is Word.DISCARD:
        return Discard("the milter discards it")
    return _refusal(said)


def _refusal(said: Said) -> Verdict:
    if said.word is Word.REJECT:
        return Reject(said.words or "Refused by a filter", said.code or 550, said.enhanced or "5.7.1")
    return Defer(said.words or "A filter says: try again later", said.code or 451, said.enhanced or "4.7.1")


# --- who brings it ------------------------------------------------------------------------------------


def _peer_of_session(session: Session, settings: MilterSettings) -> Peer:
    hostname = settings.hostname or socket.gethostname()
    return Peer(
        hostname=hostname,
        daemon=settings.daemon_name or hostname,
        client=_address(session.client),
        helo=session.helo,
        tls=session.tls,
        login=session.login,
    )


def _peer_of_message(facts: Facts, settings: MilterSettings) -> Peer:
    hostname = settings.hostname or socket.gethostname()
    is_session = facts.source == "smtp"
    return Peer(
        hostname=hostname,
        daemon=settings.daemon_name or hostname,
        client=_address(facts.client if is_session else ""),
        helo=facts.helo or hostname,
        tls=facts.tls,
        login=facts.login,
    )


def _address(client: str) -> str:
    """Of whom a milter is told. A program of this machine, which has none, is told of as localhost."""
    try:
        return str(ipaddress.ip_address(client.partition("%")[0]))
    except ValueError:
        return "127.0.0.1"
