"""POP3 accounts: looks on a schedule, takes each message into custody once, deletes only what is there.

Rules:
1. DELE is said of nothing but what custody has committed; QUIT, which makes it so, only when the journal is synced.
2. Whether a message is known is told by its octets: its key in custody is made of account, UIDL and digest. UIDL and
   size alone spare the fetching, and only of what was never deleted.
3. One message that cannot be taken, whatever is wrong with it, keeps no other from being taken.
4. The reverse-path is null: nobody is ever sent a report about mail that its provider has accepted.

States of a message, and what a crash in each means: `docs/pop3.md`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ssl
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from lonedot.directory.directory import Standing
from lonedot.directory.faults import DirectoryFault
from lonedot.message.content import Content
from lonedot.message.door import DoorPolicy, LineEnds, LongLines
from lonedot.message.header import HeaderView
from lonedot.message.intake import Arrived, HeadTooLarge, Intake
from lonedot.protocol.errors import RemoteProtocolError
from lonedot.protocol.pop3 import Listed, sizes, uidls
from lonedot.reception.acceptance import Acceptor, Verdict
from lonedot.reception.pop3_account import AccountSettings, AccountStatus, Mode, Pop3Tls
from lonedot.reception.pop3_journal import Journal, Known, State, file_name
from lonedot.reception.pop3_recipients import recipients_in
from lonedot.reception.pop3_session import Pop3Fault, Pop3Session, Trouble, client_context, open_session
from lonedot.spool.interface import BodyWriter, Facts, SpoolFault
from lonedot.terms.address import NULL_REVERSE_PATH, Address
from lonedot.terms.envelope import Envelope, Recipient
from lonedot.terms.ids import MessageId, SessionId
from lonedot.terms.reply import Reply

__all__ = ["MAX_FAILURES", "Pop3Account", "Pop3Observer"]

MAX_FAILURES = 5
"""So often a message is tried."""
RECONNECTS = 10
"""Lines in one look that may be dropped because of messages that are too large."""
SYNC_EACH = 100
"""Messages between two syncs of the journal."""
LOGIN_PAUSE_SECONDS = 3600.0
"""Looks after refused logins are no further apart than this, or than the schedule."""
DOOR = DoorPolicy(LineEnds.NORMALIZE, LongLines.ENCODE)


class Pop3Observer(Protocol):
    """Is told how accounts fare. Must not raise."""

    def pop3_taken(self, account: str, uidl: str, id: MessageId) -> None: ...

    def pop3_refused(self, account: str, uidl: str, words: str, for_good: bool) -> None: ...

    def pop3_looked(self, account: str, taken: int, words: str, failed: int) -> None:
        """A look is over; `failed`: it is so many in a row, and `words` say why."""
        ...


class _Unfit(Exception):
    """This message is left at the server for good."""


class _NotNow(Exception):
    """This message is left for the next look. `counts`: it may be the message's fault."""

    def __init__(self, words: str, *, counts: bool) -> None:
        super().__init__(words)
        self.counts = counts


class Pop3Account:
    """Looks after one account."""

    def __init__(
        self,
        settings: AccountSettings,
        folder: Path,
        acceptor: Acceptor,
        has_route: Callable[[Address], bool],
        observer: Pop3Observer,
        revision: str,
    ) -> None:
        """`folder` is that of journals; it is made when it is needed."""
        self.settings = settings
        self.revision = revision
        self._acceptor = acceptor
        self._has_route = has_route
        self._observer = observer
        self._journal_path = folder / file_name(settings.host, settings.user)
        self._journal: Journal | None = None
        self._context: ssl.SSLContext | None = None
        self._session: Pop3Session | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_stopping = False
        self._is_connecting = False
        self._refused_logins = 0
        self._wake = asyncio.Event()
        self._again = False
        protection = "pop3s" if settings.tls is Pop3Tls.IMPLICIT else "pop3"
        self.status = AccountStatus(
            settings.name, f"{protection}://{settings.host}:{settings.port}", settings.user
        )

    # -- schedule ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Look now, and then on schedule."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def poll(self, *, again: bool) -> None:
        """Look now; `again`: also at what was left for good."""
        self._again = self._again or again
        self._wake.set()

    def leave(self) -> None:
        """End the line, and look no more."""
        self._is_stopping = True
        self._wake.set()
        if self._session is not None:
            self._session.abort()
        elif self._is_connecting and self._task is not None:
            self._task.cancel()

    async def stop(self) -> None:
        """Leave, and wait: what is on its way into custody gets there, and is remembered."""
        self.leave()
        if self._task is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._journal is not None:
            self._journal.close()

    async def _run(self) -> None:
        while not self._is_stopping:
            self._wake.clear()
            await self.look()
            pause = self._pause()
            self._set(next_at=self._acceptor.clock.now() + pause)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), pause)

    def _pause(self) -> float:
        every = self.settings.every_seconds
        if not self._refused_logins:
            return every
        return max(every, min(LOGIN_PAUSE_SECONDS, every * 2.0 ** min(self._refused_logins, 20)))

    def _set(self, **changes: object) -> None:
        self.status = msgspec.structs.replace(self.status, **changes)

    # -- a look --------------------------------------------------------------------------------------

    async def look(self) -> None:
        """One look at the mailbox. Never raises."""
        self._set(looking=True, next_at=0.0)
        before = self.status.taken
        words = ""
        try:
            await self._look()
            self._refused_logins = 0
        except Pop3Fault as fault:
            words = str(fault)
            self._refused_logins = self._refused_logins + 1 if fault.trouble is Trouble.LOGIN else 0
        except RemoteProtocolError as error:
            words = error.words
        except (SpoolFault, OSError) as error:
            words = f"the message could not be kept: {error}"
        except Exception as error:  # a fault of ours is told, and no end of looking
            words = f"a fault of ours: {type(error).__name__}: {error}"[:500]
        if self._is_stopping:
            words = ""  # we broke the line ourselves
        status = self.status
        failed = status.failed + 1 if words else 0
        now = self._acceptor.clock.now()
        self._set(looking=False, looks=status.looks + 1, looked_at=now, failed=failed, words=words)
        self._observer.pop3_looked(self.settings.name, status.taken - before, words, failed)

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        if self._journal is None:
            self._journal = await loop.run_in_executor(None, Journal, self._journal_path)
            self._context = await loop.run_in_executor(None, client_context, self.settings)
        journal = self._journal
        if self._again:
            self._again = False
            left = [one.uidl for state in (State.REFUSED, State.FAILED) for one in journal.of_state(state)]
            await loop.run_in_executor(None, journal.forget, *left)
        self._refusals()
        for _ in range(RECONNECTS):
            look = _Look(self, journal)
            self._is_connecting = True
            try:
                async with open_session(self.settings, self._context, self._opened) as session:
                    is_over = await look.work(session)
            finally:
                self._session = None
                self._is_connecting = False
                await loop.run_in_executor(None, journal.sync)
                self._refusals()
            if is_over:
                await loop.run_in_executor(None, journal.tidy, look.listed, self._acceptor.clock.now())
                return

    def _opened(self, session: Pop3Session) -> None:
        self._session = session
        self._is_connecting = False
        if self._is_stopping:
            session.abort()

    def _refusals(self) -> None:
        assert self._journal is not None
        self._set(refused=sum(1 for _ in self._journal.of_state(State.REFUSED)))

    # -- what a look needs ---------------------------------------------------------------------------

    @property
    def is_stopping(self) -> bool:
        return self._is_stopping

    def has_listed(self, count: int) -> None:
        self._set(listed=count)

    def told_refused(self, uidl: str, words: str, for_good: bool) -> None:
        self._observer.pop3_refused(self.settings.name, uidl, words, for_good)

    @property
    def now(self) -> float:
        return self._acceptor.clock.now()

    def has_key(self, key: bytes) -> bool:
        return self._acceptor.spool.has_key(key)

    def body_writer(self, id: MessageId) -> BodyWriter:
        return self._acceptor.spool.body_writer(id)

    def new_id(self) -> MessageId:
        return self._acceptor.new_id()

    async def envelope(self, content: Content) -> Envelope:
        """For whom it is. Raises _NotNow, _Unfit."""
        settings = self.settings
        recipients: tuple[Address, ...] = ()
        if settings.mode is Mode.USER:
            assert settings.mailbox is not None
            recipients = (settings.mailbox,)
        else:
            found = recipients_in(HeaderView(content.head), settings.recipients_from, settings.is_ours)
            recipients = tuple([address for address in found if await self._is_known(address)])
            if not recipients:
                assert settings.undeliverable is not None
                recipients = (settings.undeliverable,)
        for address in recipients:
            if not self._has_route(address):
                raise _NotNow(f"no route to {address.text}", counts=False)
        smtputf8 = any(not address.octets.isascii() for address in recipients)
        return Envelope(NULL_REVERSE_PATH, tuple(map(Recipient, recipients)), smtputf8=smtputf8)

    async def _is_known(self, address: Address) -> bool:
        if not self._has_route(address):
            return False
        directory = self._acceptor.directory
        if directory is None:
            return True
        try:
            judged = await directory.judge(address, NULL_REVERSE_PATH)
        except DirectoryFault as error:
            raise _NotNow(f"{address.text}: {error}", counts=False) from error
        return judged.standing in (Standing.KNOWN, Standing.FOREIGN)

    async def accept(
        self, id: MessageId, arrived: Arrived, session: Pop3Session, uidl: str, key: bytes
    ) -> Verdict:
        settings = self.settings
        facts = Facts(
            source="pop3",
            session=SessionId(id),
            listener=settings.name,
            client=session.address,
            helo=settings.host,
            protocol="POP3S" if session.tls else "POP3",
            tls=session.tls,
            revision=self.revision,
            server=settings.source,
        )
        envelope = await self.envelope(arrived.content)
        future: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._acceptor.accept(id, envelope, facts, arrived, DOOR, future.set_result, key)
        verdict = await future
        if verdict.accepted:
            self._set(taken=self.status.taken + 1)
            self._observer.pop3_taken(settings.name, uidl, id)
        return verdict


class _Look:
    """One line's work."""

    def __init__(self, account: Pop3Account, journal: Journal) -> None:
        self._account = account
        self._journal = journal
        self._doomed: list[str] = []
        """DELE was said of these."""
        self._unsynced = 0
        self.listed: frozenset[str] = frozenset()

    async def work(self, session: Pop3Session) -> bool:
        """Take what is new. False: the line was dropped at a message; the others want another.

        Raises:
            Pop3Fault, RemoteProtocolError, SpoolFault, OSError.
        """
        account = self._account
        listed = await _list(session)
        account.has_listed(len(listed))
        counts = Counter(one.uidl for one in listed)
        self.listed = frozenset(counts)
        # What failed before comes last: it may break the line.
        for one in sorted(listed, key=lambda one: (self._failures(one), one.number)):
            if account.is_stopping:
                raise Pop3Fault(Trouble.OURS, "the relay is stopping")
            if not await self._one(session, one, is_alone=counts[one.uidl] == 1):
                return False
        await _run(self._journal.sync)
        status = await session.ask(b"QUIT")
        if status.ok:
            await _run(self._journal.write, *[self._with(uidl, State.DELETED) for uidl in self._doomed])
        return True

    def _failures(self, one: Listed) -> int:
        known = self._journal.get(one.uidl)
        return known.failures if known is not None and known.state is State.FAILED else 0

    def _with(self, uidl: str, state: State) -> Known:
        known = self._journal.get(uidl)
        assert known is not None
        return msgspec.structs.replace(known, state=state)

    async def _one(self, session: Pop3Session, one: Listed, *, is_alone: bool) -> bool:
        known = self._journal.get(one.uidl)
        if known is not None and known.size == one.size:
            if known.state is State.REFUSED:
                return True
            if known.state is State.TAKEN and is_alone:
                await self._delete(session, one, known)
                return True
        account = self._account
        account_failures = self._failures(one)
        writers: list[BodyWriter] = []
        try:
            taken = await self._take(session, one, known, writers, is_alone=is_alone)
        except _Unfit as unfit:
            await self._left(one, State.REFUSED, 0, str(unfit))
            return not session.is_broken
        except _NotNow as fault:
            await self._failed(one, account_failures, str(fault), counts=fault.counts)
            return True
        except Pop3Fault as fault:
            if fault.trouble in (Trouble.LOST, Trouble.PROTOCOL) and not account.is_stopping:
                await self._failed(one, account_failures, str(fault), counts=True)
            raise
        finally:
            for writer in writers:
                writer.discard()
        await self._delete(session, one, taken)
        return True

    async def _failed(self, one: Listed, before: int, words: str, *, counts: bool) -> None:
        failures = before + counts
        if failures >= MAX_FAILURES:
            await self._left(one, State.REFUSED, failures, f"tried {failures} times: {words}")
        else:
            await self._left(one, State.FAILED, failures, words)

    async def _left(self, one: Listed, state: State, failures: int, words: str) -> None:
        now = self._account.now
        known = self._journal.get(one.uidl)
        if state is State.REFUSED or known is None or known.state is State.FAILED:
            fresh = Known(one.uidl, state, now, size=one.size, failures=failures, words=words[:300])
            await _run(self._journal.write, fresh)
        self._account.told_refused(one.uidl, words, state is State.REFUSED)

    async def _take(
        self,
        session: Pop3Session,
        one: Listed,
        known: Known | None,
        writers: list[BodyWriter],
        *,
        is_alone: bool,
    ) -> Known:
        """Fetch it, and have it in custody once. `writers` gets what must be thrown away if it is not taken."""
        account = self._account
        id = account.new_id()
        arrived = await self._fetch(session, one, id, writers)
        digest = digest_of(arrived.content)
        name = one.uidl if is_alone else f"{one.uidl} {digest.hex()[:16]}"
        now = account.now
        apart = self._journal.get(f"{one.uidl} {digest.hex()[:16]}")
        for same in (known, apart, self._journal.moved(digest, self.listed)):
            if same is not None and same.digest == digest and same.state in (State.TAKEN, State.DELETED):
                found = Known(name, State.TAKEN, now, same.taken_at, one.size, digest)
                break
        else:
            key = key_of(account.settings, one.uidl, digest)
            if not account.has_key(key):
                verdict = await account.accept(id, arrived, session, one.uidl, key)
                if not verdict.accepted:
                    _refuse(verdict.reply)
                writers.clear()
            found = Known(name, State.TAKEN, now, now, one.size, digest)
        await _run(self._journal.write, found)
        self._unsynced += 1
        if self._unsynced >= SYNC_EACH:
            await _run(self._journal.sync)
            self._unsynced = 0
        return found

    async def _fetch(
        self, session: Pop3Session, one: Listed, id: MessageId, writers: list[BodyWriter]
    ) -> Arrived:
        limit = self._account.settings.max_size

        def open_body() -> BodyWriter:
            writers.append(self._account.body_writer(id))
            return writers[0]

        intake = Intake(open_body)

        def take(piece: bytes) -> None:
            if intake.size + len(piece) > limit:
                raise _Unfit(f"it is larger than {limit} octets")
            intake.feed(piece)

        try:
            status = await session.retrieve(one.number, take)
            if not status.ok:
                raise _NotNow(f"the server does not give it: {status.text}", counts=True)
            return intake.finish()
        except HeadTooLarge as error:
            session.abort()
            raise _Unfit(str(error)) from error
        except _Unfit:
            session.abort()
            raise

    async def _delete(self, session: Pop3Session, one: Listed, known: Known) -> None:
        settings = self._account.settings
        if settings.leave_on_server and self._account.now - known.taken_at < settings.delete_after_seconds:
            return
        status = await session.ask(b"DELE", b"%d" % one.number)
        if status.ok:
            self._doomed.append(known.uidl)


async def _list(session: Pop3Session) -> list[Listed]:
    status, octets = await session.listing(b"UIDL")
    if not status.ok:
        raise Pop3Fault(
            Trouble.PROTOCOL, f"the server has no UIDL, so messages cannot be told apart: {status.text}"
        )
    ids = uidls(octets)
    status, octets = await session.listing(b"LIST")
    known_sizes = sizes(octets) if status.ok else {}
    return [Listed(number, uidl, known_sizes.get(number, 0)) for number, uidl in ids.items()]


def _refuse(answer: Reply) -> None:
    if answer.is_permanent:
        raise _Unfit(answer.text)
    raise _NotNow(answer.text, counts=False)


async def _run(work: Callable[..., None], *arguments: object) -> None:
    await asyncio.get_running_loop().run_in_executor(None, work, *arguments)


def digest_of(content: Content) -> bytes:
    """Of the octets as they came, by the digests that were taken while they did."""
    return hashlib.sha256(content.head_measure.sha256 + content.body_measure.sha256).digest()


def key_of(settings: AccountSettings, uidl: str, digest: bytes) -> bytes:
    """The idempotency key: what tells this message from every other."""
    whose = f"pop3\0{settings.host.lower()}\0{settings.user}\0{uidl}\0".encode()
    return hashlib.sha256(whose + digest).digest()
