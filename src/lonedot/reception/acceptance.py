"""From the end of data to custody: hop count, the door, arrival sinks, the commit, and the reply that follows it.

The same for SMTP, POP3 and Pickup. A 250 is given after the commit and never before; our own faults answer 4xx.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from lonedot.directory.directory import Directory
from lonedot.directory.rewriting import Rewriting
from lonedot.message.content import FileBody
from lonedot.message.door import DoorPolicy, Refusal, at_the_door
from lonedot.message.edits import AnyEdit, lower
from lonedot.message.fold import apply_changes, digests_of
from lonedot.message.header import HeaderView
from lonedot.message.intake import Arrived
from lonedot.message.ledger import Action, Entry
from lonedot.message.trace import TraceFacts
from lonedot.sinks.bindings import Binding, Chains, chains_of
from lonedot.sinks.calls import Apart, Decision, Dispatched, Steps
from lonedot.sinks.dispatch import advance, dispatch, dispatch_with, steps
from lonedot.sinks.protocol import Elsewhere
from lonedot.sinks.transit import parted_at_resolve, progress_behind
from lonedot.spool.interface import (
    Acceptance,
    Claim,
    Facts,
    MessageState,
    Progress,
    RecipientState,
    RecipientStatus,
    Spool,
    SpoolFault,
    SpoolFull,
    Stored,
)
from lonedot.terms.clock import Clock
from lonedot.terms.envelope import Envelope
from lonedot.terms.ids import IdSource, MessageId
from lonedot.terms.reply import Reply, reply

__all__ = ["Acceptor", "Handover", "Observer", "Verdict", "on_the_wire"]

MANY_RECIPIENTS = 20
"""Beyond this number sinks that are called for each work in a thread."""

DISK_FULL = reply(452, "4.3.1", "Not enough room on the disk; try again later")
DISK_FAULT = reply(451, "4.3.0", "The message could not be stored; try again later")
SINK_FAULT = reply(451, "4.3.0", "The message could not be checked; try again later")


class Handover(Protocol):
    """The scheduler, as acceptance sees it."""

    owner: str

    @property
    def has_room(self) -> bool: ...

    def lease_until(self) -> float: ...

    def offer(self, claim: Claim) -> None: ...


class Observer(Protocol):
    """Is told what became of a message at the door. Must not raise."""

    def accepted(self, acceptance: Acceptance) -> None: ...

    def refused(self, id: MessageId, facts: Facts, envelope: Envelope, answer: Reply, words: str) -> None: ...

    def sunk(self, id: MessageId, entries: Sequence[Entry]) -> None: ...

    def spool_failed(self, what: str, error: Exception) -> None: ...


class Verdict(msgspec.Struct, frozen=True):
    """What became of a message: the reply, and whether it is in custody."""

    reply: Reply
    accepted: bool


Done = Callable[[Verdict], None]
InCustody = Callable[[int, Chains], None]
"""Number of the virtual server, and the bindings that the message began with."""


class Acceptor:
    """Takes messages into custody. One for each virtual server of a worker."""

    def __init__(
        self,
        spool: Spool,
        handover: Handover,
        bindings: Sequence[Binding],
        observer: Observer,
        clock: Clock,
        ids: IdSource,
        hostname: str,
        hop_limit: int,
        elsewhere: Elsewhere | None = None,
        server: int = 1,
        in_custody: InCustody | None = None,
        routes: frozenset[str] | None = None,
        directory: Directory | None = None,
    ) -> None:
        """`elsewhere` calls the sinks that do not run here; without it they fail. `in_custody` is told of bindings that
        a message still has to meet when it was accepted; without it all of them are called before that. `routes` are
        the names to which a sink may redirect (None: any).

        `server` is the number of the virtual server for which it takes messages. What `directory` may lead to other
        addresses is resolved in custody.
        """
        self.directory = directory
        self.rewriting: Rewriting | None = None
        """What addresses become; that, too, is done in custody."""
        self.server = server
        self.spool = spool
        self.clock = clock
        self.hostname = hostname
        self._handover = handover
        self.chains = chains_of(bindings, routes=routes)
        """Read once by whoever begins a message, and handed to `accept` with it."""
        self._observer = observer
        self._ids = ids
        self._hop_limit = hop_limit
        self.elsewhere = elsewhere
        self._in_custody = in_custody
        self._waiting: set[asyncio.Task[Dispatched]] = set()
        """Kept here, or a task could be collected while it waits."""

    def rebind(self, bindings: Sequence[Binding], revision: str) -> None:
        """Take another set of bindings, in one step; a message that has begun keeps those it began with."""
        self.chains = chains_of(bindings, revision, self.chains.routes)

    def configure(self, hostname: str, hop_limit: int, routes: frozenset[str]) -> None:
        """Values of another configuration; they hold from the next message on."""
        self.hostname = hostname
        self._hop_limit = hop_limit
        self.chains = msgspec.structs.replace(self.chains, routes=routes)

    def new_id(self) -> MessageId:
        return MessageId(self._ids.next(self.clock.now()))

    def accept(
        self,
        id: MessageId,
        envelope: Envelope,
        facts: Facts,
        arrived: Arrived,
        policy: DoorPolicy,
        done: Done,
        key: bytes = b"",
        edits: Sequence[AnyEdit] = (),
        chains: Chains | None = None,
    ) -> None:
        """Judge a received message and commit it; `done` is called exactly once, now or after the commit.

        `edits` are the source's own (Pickup takes Bcc out); they get an entry behind that of the door. `chains` are the
        sinks that the message began with; by default those bound now.

        On refusal the caller drops what the body writer holds.
        """
        if chains is None:
            chains = self.chains
        if chains.revision:
            facts = msgspec.structs.replace(facts, revision=chains.revision)
        now = self.clock.now()
        head = HeaderView(arrived.content.head)
        if head.count_hops() >= self._hop_limit:
            words = f"{self._hop_limit} Received fields: the message goes in a circle"
            self._refuse(id, facts, envelope, reply(554, "5.4.6", f"Too many hops: {words}"), words, done)
            return
        began = self.clock.monotonic()
        try:
            door = at_the_door(arrived, policy, self._trace(id, envelope, facts, now))
        except (OSError, ValueError) as error:
            self._observer.spool_failed("read what has just arrived", error)
            done(Verdict(DISK_FAULT, False))
            return
        if isinstance(door, Refusal):
            self._refuse(id, facts, envelope, door.reply, door.finding.words, done)
            return
        entries: tuple[Entry, ...] = (
            door.entry(now, round(self.clock.monotonic() - began, 6), facts.revision),
        )
        content = door.content
        changes = lower(edits, content) if edits else ()
        if changes:
            before = content
            content = apply_changes(before, changes)
            entries += (
                Entry(
                    binding="lonedot",
                    binding_id="",
                    event=facts.source,
                    at=now,
                    took_seconds=0.0,
                    before=digests_of(before),
                    after=digests_of(content),
                    action=Action.KEPT,
                    changes=changes,
                    revision=facts.revision,
                ),
            )
        bindings = self._asked_of(chains, envelope, facts)
        if not bindings:
            transport = self._to_resolve(None, bindings, envelope, facts)
            self._commit(
                id, now, envelope, facts, arrived, entries, content.size, done, key, transport=transport
            )
            if transport is not None and self._in_custody is not None:
                self._in_custody(facts.server, chains)
            return
        in_thread = _is_long(chains, envelope) or (
            isinstance(arrived.content.body, FileBody) and any(binding.reads_body for binding in bindings)
        )
        if chains.has_apart and self.elsewhere is not None:
            until_custody = chains.waits and self._in_custody is not None
            chain = steps(
                id,
                envelope,
                facts,
                content,
                bindings,
                self.clock,
                routes=chains.routes,
                until_custody=until_custody,
            )
            self._dispatch_apart(
                chain,
                self.elsewhere,
                id,
                now,
                envelope,
                facts,
                arrived,
                entries,
                done,
                key,
                chains,
                in_thread,
            )
            return
        if in_thread:
            # A sink may read the whole body, or be called for many recipients: not on the loop.
            loop = asyncio.get_running_loop()
            future = loop.run_in_executor(
                None, dispatch, id, envelope, facts, content, bindings, self.clock, chains.routes
            )
            future.add_done_callback(
                lambda f: self._dispatched(f, id, now, envelope, facts, arrived, entries, done, key, chains)
            )
            return
        dispatched = dispatch(id, envelope, facts, content, bindings, self.clock, chains.routes)
        self._sunk(id, now, envelope, facts, arrived, entries, dispatched, done, key, chains)

    def _dispatch_apart(
        self,
        chain: Steps,
        apart: Apart,
        id: MessageId,
        now: float,
        envelope: Envelope,
        facts: Facts,
        arrived: Arrived,
        entries: tuple[Entry, ...],
        done: Done,
        key: bytes,
        chains: Chains,
        in_thread: bool,
    ) -> None:
        """Some sinks run elsewhere: the message waits for those that it meets, and nobody else does."""
        step = None if in_thread else advance(chain)
        if isinstance(step, Dispatched):
            self._sunk(id, now, envelope, facts, arrived, entries, step, done, key, chains)
            return
        task = asyncio.get_running_loop().create_task(dispatch_with(chain, step, apart, in_thread))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)
        task.add_done_callback(
            lambda t: self._dispatched(t, id, now, envelope, facts, arrived, entries, done, key, chains)
        )

    def _dispatched(
        self,
        future: asyncio.Future[Dispatched],
        id: MessageId,
        now: float,
        envelope: Envelope,
        facts: Facts,
        arrived: Arrived,
        entries: tuple[Entry, ...],
        done: Done,
        key: bytes,
        chains: Chains,
    ) -> None:
        """The thread is done; when it failed (the body could not be read), the client is told all the same."""
        if future.cancelled():
            done(Verdict(SINK_FAULT, False))
        elif (error := future.exception()) is not None:
            words = f"the sinks could not be run: {type(error).__name__}: {error}"
            self._refuse(id, facts, envelope, SINK_FAULT, words, done)
        else:
            self._sunk(id, now, envelope, facts, arrived, entries, future.result(), done, key, chains)

    def _trace(self, id: MessageId, envelope: Envelope, facts: Facts, now: float) -> TraceFacts:
        recipients = envelope.recipients
        return TraceFacts(
            hostname=self.hostname,
            id=id,
            at=now,
            helo=facts.helo,
            client=facts.client,
            protocol=facts.protocol,
            recipient=recipients[0].address.octets if len(recipients) == 1 else b"",
        )

    def _sunk(
        self,
        id: MessageId,
        now: float,
        envelope: Envelope,
        facts: Facts,
        arrived: Arrived,
        before: tuple[Entry, ...],
        dispatched: Dispatched,
        done: Done,
        key: bytes,
        chains: Chains,
    ) -> None:
        self._observer.sunk(id, dispatched.entries)
        entries = (*before, *dispatched.entries)
        words = dispatched.words
        named = words if words.startswith(dispatched.binding) else f"{dispatched.binding}: {words}"
        transport: Progress | None = None
        if dispatched.rest >= 0 and self._in_custody is not None:
            bindings = _chain_of(chains, facts)
            behind = bindings[dispatched.rest - 1] if dispatched.rest else None
            transport = progress_behind(behind, bindings[dispatched.rest].name)
        if self.directory is not None or self.rewriting is not None:
            asked = self._asked_of(chains, envelope, facts)
            transport = self._to_resolve(transport, asked, dispatched.envelope, facts)
        match dispatched.decision:
            case Decision.REJECT:
                told = on_the_wire(words) or b"Refused"
                answer = Reply(dispatched.code or 550, dispatched.enhanced or "5.7.1", (told,))
                self._refuse(id, facts, envelope, answer, named, done)
            case Decision.DEFER:
                answer = SINK_FAULT
                if dispatched.code:  # a sink's own answer; that of one that failed is not for strangers
                    told = on_the_wire(words) or b"Try again later"
                    answer = Reply(dispatched.code, dispatched.enhanced, (told,))
                self._refuse(id, facts, envelope, answer, named, done)
            case Decision.ACCEPT:
                self._commit(
                    id,
                    now,
                    dispatched.envelope,
                    facts,
                    arrived,
                    entries,
                    _size(dispatched),
                    done,
                    key,
                    discarded=dispatched.discarded,
                    redirects=dispatched.redirects,
                    transport=transport,
                )
                if transport is not None and self._in_custody is not None:
                    self._in_custody(facts.server, chains)
            case Decision.HOLD:
                self._commit(
                    id,
                    now,
                    dispatched.envelope,
                    facts,
                    arrived,
                    entries,
                    _size(dispatched),
                    done,
                    key,
                    MessageState.HELD,
                    named,
                    dispatched.discarded,
                    dispatched.redirects,
                    transport and msgspec.structs.replace(transport, was_given_back=True),
                )
            case Decision.DISCARD:
                self._commit(
                    id,
                    now,
                    dispatched.envelope if dispatched.discarded else envelope,
                    facts,
                    arrived,
                    entries,
                    _size(dispatched),
                    done,
                    key,
                    MessageState.FINISHED,
                    f"discarded by {dispatched.binding}: {words}",
                )

    def _asked_of(self, chains: Chains, envelope: Envelope, facts: Facts) -> tuple[Binding, ...]:
        """The bindings that a message meets before it is in custody: what follows the resolve step waits for it."""
        bindings = _chain_of(chains, facts)
        if self._is_to_resolve(envelope, facts):
            return parted_at_resolve(bindings)[0]
        return bindings

    def _to_resolve(
        self, transport: Progress | None, asked: Sequence[Binding], envelope: Envelope, facts: Facts
    ) -> Progress | None:
        """The progress of a message, with the resolve step before it when some recipient needs one."""
        if not self._is_to_resolve(envelope, facts):
            return transport
        if transport is None:
            transport = progress_behind(asked[-1] if asked else None, "resolve")
        return msgspec.structs.replace(transport, resolves=True)

    def _is_to_resolve(self, envelope: Envelope, facts: Facts) -> bool:
        directory, rewriting = self.directory, self.rewriting
        if (directory is None and rewriting is None) or self._in_custody is None:
            return False
        addresses = [recipient.address for recipient in envelope.recipients]
        if rewriting is not None and rewriting.touches(envelope.reverse_path, addresses):
            return True
        if directory is None:
            return False
        # Who was not asked for at RCPT is looked up there.
        needs = directory.is_to_resolve if facts.source == "smtp" else directory.covers
        return any(needs(address) for address in addresses)

    def _refuse(
        self, id: MessageId, facts: Facts, envelope: Envelope, answer: Reply, words: str, done: Done
    ) -> None:
        self._observer.refused(id, facts, envelope, answer, words)
        done(Verdict(answer, False))

    def _commit(
        self,
        id: MessageId,
        now: float,
        envelope: Envelope,
        facts: Facts,
        arrived: Arrived,
        entries: tuple[Entry, ...],
        size: int,
        done: Done,
        key: bytes,
        state: MessageState = MessageState.QUEUED,
        reason: str = "",
        discarded: Sequence[int] = (),
        redirects: Sequence[tuple[int, str]] = (),
        transport: Progress | None = None,
    ) -> None:
        if state is MessageState.QUEUED and (words := self.spool.held_by(envelope, facts, size)):
            state, reason = MessageState.HELD, words
            transport = transport and msgspec.structs.replace(transport, was_given_back=True)
        is_discarded = state is MessageState.FINISHED
        status = RecipientStatus.DELETED if is_discarded else RecipientStatus.WAITING
        queued = state is MessageState.QUEUED
        recipients = tuple([RecipientState(i, r, status, 0, now) for i, r in enumerate(envelope.recipients)])
        if discarded and not is_discarded:
            gone = RecipientStatus.DELETED
            apart = frozenset(discarded)
            recipients = tuple(
                [RecipientState(r.index, r.recipient, gone) if r.index in apart else r for r in recipients]
            )
        if redirects:
            routes = dict(redirects)
            recipients = tuple(
                [
                    msgspec.structs.replace(r, redirect=routes[r.index]) if r.index in routes else r
                    for r in recipients
                ]
            )
        owned = queued and self._handover.has_room
        acceptance = Acceptance(
            id=id,
            accepted_at=now,
            envelope=envelope,
            facts=facts,
            arrival=arrived.content,
            ledger=entries,
            recipients=recipients,
            size=size,
            state=state,
            reason=reason,
            owner=self._handover.owner if owned else "",
            lease_until=self._handover.lease_until() if owned else 0.0,
            key=key,
            transport=transport,
        )
        try:
            future = self.spool.accept((acceptance,))
        except Exception as error:  # our own fault: nothing was promised, and the client must hear so
            self._not_committed(error, done)
        else:
            future.add_done_callback(lambda f: self._committed(acceptance, f, owned, done))

    def _committed(
        self, acceptance: Acceptance, future: asyncio.Future[None], owned: bool, done: Done
    ) -> None:
        error = future.exception() if not future.cancelled() else SpoolFault("the relay is stopping")
        if error is not None:
            self._not_committed(error, done)
            return
        self._observer.accepted(acceptance)
        done(Verdict(Reply(250, "2.0.0", (b"Ok: queued as " + acceptance.id.encode(),)), True))
        if owned:
            self._handover.offer(Claim(_stored(acceptance), 1, acceptance.arrival))

    def _not_committed(self, error: BaseException, done: Done) -> None:
        if isinstance(error, SpoolFault):
            fault = error
        else:
            fault = SpoolFault(f"{type(error).__name__}: {error}")
        self._observer.spool_failed("accept", fault)
        done(Verdict(DISK_FULL if isinstance(fault, SpoolFull) else DISK_FAULT, False))


def _chain_of(chains: Chains, facts: Facts) -> tuple[Binding, ...]:
    """The bindings that are shown a message that came in this way."""
    return chains.received if facts.is_received else chains.submitted


def _is_long(chains: Chains, envelope: Envelope) -> bool:
    """The sinks may be called so often that others would notice."""
    return chains.splits and len(envelope.recipients) > MANY_RECIPIENTS


def _size(dispatched: Dispatched) -> int:
    """Octets of the queued form; of several, the largest."""
    return max([dispatched.content.size, *(copy.content.size for copy in dispatched.copies)])


def on_the_wire(words: str) -> bytes:
    """A sink's words as the text of a reply: one line of printable ASCII (RFC 5321 §4.2), not too long."""
    plain = "".join(sign if " " <= sign <= "~" else "?" for sign in " ".join(words.split()))
    return plain.encode("ascii")[:400]


def _stored(acceptance: Acceptance) -> Stored:
    return Stored(
        id=acceptance.id,
        state=acceptance.state,
        reason=acceptance.reason,
        accepted_at=acceptance.accepted_at,
        finished_at=0.0,
        envelope=acceptance.envelope,
        facts=acceptance.facts,
        ledger=acceptance.ledger,
        recipients=acceptance.recipients,
        size=acceptance.size,
        transport=acceptance.transport,
    )
