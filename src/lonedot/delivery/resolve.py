"""The resolve step: addresses are written anew, then recipients that are aliases or lists become what they lead to;
once, in one settlement.

Rules a change here must keep:
1. An alias is replaced within its message. Whoever it leads to is hidden from the sender: reports name the address that
   the sender knows (RFC 3461 §5.2.7.2 to §5.2.7.4).
2. To be given to a list is to be delivered (RFC 3461 §5.2.7.1). Its members get a message of their own, from the owner,
   committed with the step; nothing of the sender's DSN parameters is passed on, and no field is changed.
3. What cannot be worked out now puts the whole message off: nobody is left out, and nobody gets it twice.
4. A stranger's message causes no report here: what a sender may not do is held.
5. Rewriting comes first and once: the directory is asked of the address that came out, in the name of the sender that
   came out, and nothing that it answers is written anew. It concerns the envelope alone, no header field.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence

import msgspec

from lonedot.delivery.classify import RELAYED
from lonedot.directory.directory import Directory, Standing
from lonedot.directory.expansion import Expansion, ListCopy
from lonedot.directory.faults import DirectoryFault
from lonedot.directory.rewriting import Rewriting
from lonedot.message.content import Content, FileBody
from lonedot.message.fold import digests_of, fold
from lonedot.message.ledger import Action, Digests, Entry, EnvelopeChange
from lonedot.queue.plan import refuse
from lonedot.spool.interface import (
    Acceptance,
    BodyWriter,
    Progress,
    RecipientState,
    RecipientStatus,
    Stored,
)
from lonedot.terms.address import Address
from lonedot.terms.clock import Clock
from lonedot.terms.envelope import Envelope, Notify, Recipient
from lonedot.terms.ids import MessageId
from lonedot.terms.outcome import Outcome, Result, Stage

__all__ = ["NotResolved", "Resolved", "Resolver", "orcpt_of"]

_REWRITE = "rewrite"
_RESOLVE = "resolve"
"""Events of the ledger, in their order."""

COPIES_LIMIT = 100
"""Copies for lists that one message may cause."""


class NotResolved(Exception):
    """The message waits, or is held; the words say why."""

    def __init__(self, words: str, *, is_held: bool = False) -> None:
        super().__init__(words)
        self.is_held = is_held


class Resolved(msgspec.Struct, frozen=True):
    """What the step did."""

    entries: tuple[Entry, ...] = ()
    recipients: tuple[RecipientState, ...] = ()
    """Those that are new, or changed."""
    spawned: tuple[Acceptance, ...] = ()
    failed: tuple[RecipientState, ...] = ()
    """Those of whom the sender is to be told."""
    succeeded: tuple[RecipientState, ...] = ()


class Resolver:
    """Resolves messages by the directory that is in force."""

    def __init__(
        self,
        directory: Callable[[], Directory | None],
        new_id: Callable[[], MessageId],
        body_writer: Callable[[MessageId], BodyWriter],
        clock: Clock,
        copied: Callable[[Stored, Acceptance], object] = lambda stored, copy: None,
        rewriting: Callable[[], Rewriting | None] = lambda: None,
    ) -> None:
        """`body_writer` is `Spool.body_writer`; `copied` is told of each copy for a list; `rewriting` gives the rules
        that are in force."""
        self._directory = directory
        self._new_id = new_id
        self._body_writer = body_writer
        self._clock = clock
        self._copied = copied
        self._rewriting = rewriting

    async def resolve(self, stored: Stored, arrival: Content, after: Progress | None) -> Resolved:
        """What the recipients lead to. `after`: the progress of copies that are to meet further sinks.

        Raises:
            NotResolved: not now.
            SpoolFault, FoldFault, OSError, ValueError: content cannot be read or kept.
        """
        work, directory, rewriting = _Work(stored, self._clock.now()), self._directory(), self._rewriting()
        if rewriting is not None:
            work.rewrite(rewriting)
        for state in stored.recipients:
            if state.status is not RecipientStatus.WAITING:
                continue
            address = work.written(state)
            if directory is not None and directory.covers(address):
                await _look(work, state, directory)
            else:
                work.take(state, Expansion((address,)))
        if not work.is_anything:
            return Resolved()
        if len(work.copies) > COPIES_LIMIT:
            raise NotResolved(f"it is addressed to more than {COPIES_LIMIT} lists")
        entries = tuple(work.entries(arrival, self._clock.now()))
        spawned: list[Acceptance] = []
        for number, copy in work.copies:
            made = await self._copy(stored, arrival, number, copy, after)
            self._copied(stored, made)
            spawned.append(made)
        return Resolved(
            entries,
            tuple([work.changed[number] for number in sorted(work.changed)]),
            tuple(spawned),
            tuple(work.failed),
            tuple(work.succeeded),
        )

    async def _copy(
        self,
        stored: Stored,
        arrival: Content,
        number: int,
        copy: ListCopy,
        after: Progress | None,
    ) -> Acceptance:
        """The message of a list: the octets that its address would have got, for the members, from the owner."""
        id, now = self._new_id(), self._clock.now()
        ledger = [
            msgspec.structs.replace(entry, scope=())
            for entry in stored.ledger
            if not entry.scope or number in entry.scope
        ]
        members = tuple([Recipient(address) for address in copy.members])
        digests = digests_of(fold(arrival, ledger))
        ledger.append(
            _entry(
                _RESOLVE,
                now,
                digests,
                EnvelopeChange(
                    tuple([member.octets for member in copy.members]),
                    tuple([one.address.octets for one in stored.envelope.recipients]),
                    copy.owner.octets,
                ),
                f"the copy of the list {copy.list.text} for its {len(members)} members, made of {stored.id}",
            )
        )
        addresses = (copy.owner, *copy.members)
        return Acceptance(
            id=id,
            accepted_at=now,
            envelope=Envelope(
                copy.owner,
                members,
                stored.envelope.body,
                stored.envelope.smtputf8 or not all(one.octets.isascii() for one in addresses),
            ),
            facts=msgspec.structs.replace(stored.facts, parent=stored.id),
            arrival=await self._kept_apart(id, arrival),
            ledger=tuple(ledger),
            recipients=tuple(
                [RecipientState(place, member, next_at=now) for place, member in enumerate(members)]
            ),
            size=stored.size,
            transport=after,
        )

    async def _kept_apart(self, id: MessageId, arrival: Content) -> Content:
        """The same octets; a body in a file gets a file of its own, for each message removes the one it has."""
        body = arrival.body
        if not isinstance(body, FileBody):
            return arrival
        chunks = body.chunks()
        writer = self._body_writer(id)
        try:
            while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
                writer.write(chunk)
            return msgspec.structs.replace(arrival, body=writer.finish())
        except BaseException:
            writer.discard()
            raise


class _Told(msgspec.Struct, frozen=True):
    """What is told of one recipient."""

    number: int
    change: EnvelopeChange
    words: str


class _Work:
    """What is collected while the recipients are looked at."""

    def __init__(self, stored: Stored, now: float) -> None:
        self.stored = stored
        self.now = now
        self.changed: dict[int, RecipientState] = {}
        self.copies: list[tuple[int, ListCopy]] = []
        self.failed: list[RecipientState] = []
        self.succeeded: list[RecipientState] = []
        self._lists: set[Address] = set()
        self._present = {
            state.recipient.address for state in stored.recipients if state.status is RecipientStatus.WAITING
        }
        self._next = len(stored.recipients)
        self.sender = stored.envelope.reverse_path
        """As it was written anew."""
        self._written: dict[int, Address] = {}
        """What addresses of recipients became, by number."""
        self._became: dict[int, tuple[int, ...]] = {}
        """The new recipients that stand for one, by its number."""
        self._told: dict[str, list[_Told]] = {_REWRITE: [], _RESOLVE: []}

    @property
    def is_anything(self) -> bool:
        """There is something to commit."""
        return bool(self.changed or any(self._told.values()))

    def written(self, state: RecipientState) -> Address:
        """The address of a recipient behind rewriting."""
        return self._written.get(state.index, state.recipient.address)

    def rewrite(self, rewriting: Rewriting) -> None:
        """What the rules make of the envelope. Who is to get what is worked out behind it."""
        told = self._told[_REWRITE]
        waiting = [state for state in self.stored.recipients if state.status is RecipientStatus.WAITING]
        sender = rewriting.sender(self.sender)
        if sender is not None:
            words = f"sender {self.sender.text} is now {sender.address.text} ({sender.rule})"
            change = EnvelopeChange(reverse_path=sender.address.octets)
            told += [_Told(state.index, change, words) for state in waiting]
            self.sender = sender.address
        for state in waiting:
            address = state.recipient.address
            written = rewriting.recipient(address)
            if written is not None:
                self._written[state.index] = written.address
                self._present.discard(address)  # who is meant by it elsewhere gets a copy all the same
                words = f"{address.text} is now {written.address.text} ({written.rule})"
                change = EnvelopeChange((written.address.octets,), (address.octets,))
                told.append(_Told(state.index, change, words))

    def refuse(self, state: RecipientState, words: str, enhanced: str) -> None:
        after, is_told = refuse(state, Outcome(Result.FAILED, Stage.LOCAL, words, status=enhanced))
        self.changed[state.index] = after
        if is_told:
            self.failed.append(after)

    def take(self, state: RecipientState, expansion: Expansion) -> None:
        """An address, with what it leads to."""
        recipient, written = state.recipient, self.written(state)
        if (
            expansion.targets == (recipient.address,)
            and not expansion.copies
            and written == recipient.address
        ):
            return
        is_kept = recipient.address in expansion.targets
        targets = [one for one in expansion.targets if one != recipient.address and one not in self._present]
        copies = [copy for copy in expansion.copies if copy.list not in self._lists]
        self._lists.update(copy.list for copy in copies)
        self.copies += [(state.index, copy) for copy in copies]
        is_split = len(expansion.targets) + len(expansion.copies) > 1
        self._became[state.index] = tuple(self._add(state, target, is_split) for target in targets)
        if not is_kept:
            self._replace(state, expansion, is_split)
        if expansion.targets == (written,) and not expansion.copies:
            return  # it was written anew, and that is told
        if is_kept and written != recipient.address:
            targets.append(recipient.address)  # it leads back to what was written anew
        words = _words(written, targets, copies)
        removed = () if written in expansion.targets else (written.octets,)
        change = EnvelopeChange(tuple([target.octets for target in targets]), removed)
        self._told[_RESOLVE].append(_Told(state.index, change, words))

    def _replace(self, state: RecipientState, expansion: Expansion, is_split: bool) -> None:
        """The address itself gets nothing any more."""
        if expansion.copies and not expansion.targets:
            status, reason, enhanced = RecipientStatus.DELIVERED, "given to the list", "2.1.5"
        else:
            status, reason, enhanced = RecipientStatus.REPLACED, RELAYED, "2.1.5"
        outcome = Outcome(Result.DELIVERED, Stage.LOCAL, reason, status=enhanced)
        after = msgspec.structs.replace(state, status=status, next_at=0.0, last=outcome)
        self.changed[state.index] = after
        if (is_split or not expansion.targets) and state.recipient.notify & Notify.SUCCESS:
            # RFC 3461 §5.2.7.1, §5.2.7.3: whoever stands behind it is not reported on, so success is told here.
            self.succeeded.append(after)

    def _add(self, state: RecipientState, target: Address, is_split: bool) -> int:
        number, self._next = self._next, self._next + 1
        notify = state.recipient.notify
        if is_split and notify & Notify.SUCCESS:
            notify = notify & ~Notify.SUCCESS or int(Notify.NEVER)
        recipient = Recipient(target, notify, state.recipient.orcpt or orcpt_of(state.recipient.address))
        ledger = self.stored.ledger
        is_apart = any(entry.scope for entry in ledger)
        self.changed[number] = RecipientState(
            number,
            recipient,
            next_at=self.now,
            redirect=state.redirect,
            joined=(state.index, len(ledger)) if is_apart else None,
            addressed=state.addressed or state.recipient.address.octets,
        )
        self._present.add(target)
        return number

    def entries(self, arrival: Content, now: float) -> Iterator[Entry]:
        """The ledger of the step: an entry of each kind where all have the same copy, else one for each recipient."""
        ledger = self.stored.ledger
        is_apart = any(entry.scope for entry in ledger)
        for event, told in self._told.items():
            if not told:
                continue
            if not is_apart:
                words = "; ".join(list(dict.fromkeys(one.words for one in told))[:20])
                yield _entry(event, now, digests_of(fold(arrival, ledger)), _together(told), words)
                continue
            for one in told:
                digests = digests_of(fold(arrival, ledger, one.number))
                entry = _entry(event, now, digests, one.change, one.words)
                scope = (one.number, *self._became.get(one.number, ()))
                yield msgspec.structs.replace(entry, scope=scope)


def _together(told: Sequence[_Told]) -> EnvelopeChange:
    reverse_paths = [one.change.reverse_path for one in told if one.change.reverse_path is not None]
    return EnvelopeChange(
        tuple([octets for one in told for octets in one.change.added]),
        tuple([octets for one in told for octets in one.change.removed]),
        reverse_paths[0] if reverse_paths else None,
    )


async def _look(work: _Work, state: RecipientState, directory: Directory) -> None:
    address, facts = work.written(state), work.stored.facts
    try:
        judged = await directory.judge(address, work.sender)
        if judged.standing is Standing.FORBIDDEN and not facts.trusted:
            raise NotResolved(judged.words, is_held=True)
        if judged.standing is Standing.FORBIDDEN:
            work.refuse(state, judged.words, "5.7.2")
        elif judged.standing is Standing.UNKNOWN and facts.trusted:
            work.refuse(state, judged.words, "5.1.1")
        elif judged.standing is Standing.KNOWN:
            work.take(state, await directory.resolve(address))
        else:
            work.take(state, Expansion((address,)))
    except DirectoryFault as error:
        raise NotResolved(f"{address.text} cannot be resolved: {error}") from error


def _entry(event: str, now: float, digests: Digests, change: EnvelopeChange, words: str) -> Entry:
    return Entry(
        binding="lonedot",
        binding_id="",
        event=event,
        at=now,
        took_seconds=0.0,
        before=digests,
        after=digests,
        action=Action.KEPT,
        changes=(change,),
        words=words,
    )


def _words(address: Address, targets: Sequence[Address], copies: Sequence[ListCopy]) -> str:
    parts = []
    if targets:
        parts.append(f"{len(targets)} addresses" if len(targets) > 1 else targets[0].text)
    parts += [f"the list {copy.list.text} ({len(copy.members)} members)" for copy in copies]
    return f"{address.text} leads to {', '.join(parts) or 'addresses that it has already'}"


def orcpt_of(address: Address) -> bytes:
    """The original recipient (RFC 3461 §4.2) of somebody who was addressed without one."""
    if not address.octets.isascii():
        return b""
    xtext = b"".join(
        bytes((octet,)) if 33 <= octet <= 126 and octet not in b"+=" else b"+%02X" % octet
        for octet in address.octets
    )
    return b"rfc822;" + xtext
