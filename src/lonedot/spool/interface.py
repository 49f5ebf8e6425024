"""What the rest of the relay may ask of custody. Batches from the start; one writer; every promise is durable.

A message is *accepted* (the awaitable is done when it is synced), *claimed* by an owner for a lease under a rising
epoch, and *settled* by id and epoch: a late settlement of an older epoch changes nothing. States and what a crash in
each one means: `docs/spool-states.md`.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from lonedot.message.content import Content, FileBody
from lonedot.message.ledger import Entry
from lonedot.spool.hold_rules import HoldRule, HoldRules
from lonedot.terms.envelope import Envelope, Recipient
from lonedot.terms.ids import MessageId, SessionId
from lonedot.terms.outcome import Outcome
from lonedot.terms.transcript import TranscriptRef

__all__ = [
    "Acceptance",
    "Attempt",
    "BodyWriter",
    "Claim",
    "ContentDamaged",
    "Facts",
    "Filter",
    "KeyUsed",
    "Listed",
    "MessageState",
    "NoSuchMessage",
    "Progress",
    "RecipientState",
    "RecipientStatus",
    "Settlement",
    "Sort",
    "Spool",
    "SpoolFault",
    "SpoolFull",
    "SpoolLocked",
    "SpoolPaths",
    "Stored",
    "TranscriptRef",
    "WireRecord",
]


class MessageState(enum.Enum):
    """Where a stored message is."""

    QUEUED = "queued"
    """Some recipient waits, or is being tried right now."""
    HELD = "held"
    """Kept, and tried only after a person (or a rule) releases it."""
    FINISHED = "finished"
    """Nothing is left to do; kept for search until the history ends."""
    DAMAGED = "damaged"
    """Its record or its octets cannot be read; set aside and listed, never dropped."""


class RecipientStatus(enum.Enum):
    WAITING = "waiting"
    DELIVERED = "delivered"
    FAILED = "failed"
    EXPIRED = "expired"
    DELETED = "deleted"
    """By a person, or by a sink's verdict."""
    REPLACED = "replaced"
    """What it leads to stands in its place: an alias, or an address that is written anew."""


class Facts(msgspec.Struct, frozen=True, array_like=True):
    """How a message came to us."""

    source: str
    """`smtp`, `pop3`, `pickup`, `dsn`, `try`."""
    session: SessionId
    listener: str = ""
    client: str = ""
    """Address of the client, or the file name in Pickup."""
    helo: str = ""
    protocol: str = ""
    """With-keyword of the trace field (RFC 3848): SMTP, ESMTP, ESMTPS, ESMTPSA, …"""
    tls: str = ""
    login: str = ""
    trusted: bool = False
    """In `relay_from`, or logged in."""
    revision: str = ""
    """Revision of config and registry that the message met."""
    transcript: TranscriptRef | None = None
    parent: str = ""
    """Id of the message that a DSN speaks of, or that a list's copy was made of."""
    server: int = 1
    """Number of the virtual server that took it."""

    @property
    def is_received(self) -> bool:
        """It came from outside: sinks of `end-of-data` are shown it, too."""
        return self.source in ("smtp", "pop3")


class RecipientState(msgspec.Struct, frozen=True, array_like=True):
    """One recipient with all that has happened to it."""

    index: int
    recipient: Recipient
    status: RecipientStatus = RecipientStatus.WAITING
    attempts: int = 0
    next_at: float = 0.0
    """When it is due, in seconds since 1970."""
    last: Outcome | None = None
    delay_reported: bool = False
    route: str = ""
    """Name of the route chosen at the last attempt."""
    redirect: str = ""
    """Name of the route that a sink has chosen; empty: the one that its address falls under."""
    joined: tuple[int, int] | None = None
    """Of one that a sink has added to a message in custody: the number of a recipient whose copy it gets, and how many
    ledger entries there were. What they have for that recipient alone holds for this one too."""
    addressed: bytes = b""
    """The address that the sender knows, where an alias led from it to this one; empty: the recipient's own."""


class Progress(msgspec.Struct, frozen=True, array_like=True):
    """How far a message has come through the sinks of transport events: its place in the firing order.

    The chain goes on behind the binding that is named here, with the bindings that are in force by then.
    """

    event: str = ""
    """Of the last binding that is done with; empty: none is."""
    priority: int = 0
    name: str = ""
    guid: str = ""
    waits_for: str = ""
    """Display name of the binding whose turn it is."""
    deferrals: int = 0
    """How often in a row that binding put it off."""
    words: str = ""
    """Why it was put off."""
    was_given_back: bool = False
    """It was put off or held since it was accepted."""
    resolves: bool = False
    """Some recipient may be an alias or a list, and is still to be resolved: behind `before-resolve`."""


class WireRecord(msgspec.Struct, frozen=True, array_like=True):
    """Proof of what left: digests of the octets of head and body as written (stuffed), without the end of data."""

    mode: str
    """`DATA` or `BDAT`."""
    size: int
    """Octets written between 354 and the reply, end of data included."""
    head_sha256: bytes
    body_sha256: bytes
    tail: bytes
    """The last 64 octets written."""


class Attempt(msgspec.Struct, frozen=True, array_like=True):
    """One try at one next hop for one or more recipients: at most one transaction, of one copy."""

    started_at: float
    ended_at: float
    next_hop: str
    route: str
    tls: str
    outcomes: tuple[tuple[int, Outcome], ...]
    """By recipient number."""
    wire: WireRecord | None = None
    suffix: tuple[Entry, ...] = ()
    """Ledger entries that hold for the copy of this attempt only."""
    transcript: TranscriptRef | None = None


class Acceptance(msgspec.Struct, frozen=True):
    """A message for custody. `arrival` is raw; a large body is a file written through `Spool.body_writer`."""

    id: MessageId
    accepted_at: float
    envelope: Envelope
    facts: Facts
    arrival: Content
    ledger: tuple[Entry, ...]
    recipients: tuple[RecipientState, ...]
    size: int
    """Octets of the queued form."""
    state: MessageState = MessageState.QUEUED
    reason: str = ""
    """Why it is held (shown to people)."""
    owner: str = ""
    """Who has it claimed from the first moment (epoch 1); empty: anybody may claim it."""
    lease_until: float = 0.0
    key: bytes = b""
    """Idempotency key of the source (Pickup); a second acceptance with a key already used raises KeyUsed."""
    transport: Progress | None = None
    """Sinks of transport events are still to be called; None: it can be delivered."""


class Stored(msgspec.Struct, frozen=True):
    """A message in custody, without its octets."""

    id: MessageId
    state: MessageState
    reason: str
    accepted_at: float
    finished_at: float
    envelope: Envelope
    facts: Facts
    ledger: tuple[Entry, ...]
    recipients: tuple[RecipientState, ...]
    size: int
    attempts: tuple[Attempt, ...] = ()
    """Filled by `Spool.show` only."""
    has_content: bool = True
    transport: Progress | None = None
    """It is in transport: no attempt is made before its sinks were called."""


class Claim(msgspec.Struct, frozen=True):
    """The right to work on a message until the lease ends."""

    message: Stored
    epoch: int
    arrival: Content | None = None
    """The octets, when they are at hand in memory; else `Spool.content`."""


class Settlement(msgspec.Struct, frozen=True):
    """What came of some work on a claimed message. Applied whole or not at all, in one transaction with `spawned`."""

    id: MessageId
    epoch: int
    recipients: tuple[RecipientState, ...] = ()
    """Only those that changed."""
    attempts: tuple[Attempt, ...] = ()
    """One for each transaction, or for each destination that could not be reached."""
    state: MessageState = MessageState.QUEUED
    reason: str = ""
    release: bool = True
    """Give the claim back; else go on holding it."""
    entries: tuple[Entry, ...] = ()
    """Ledger entries to append."""
    spawned: tuple[Acceptance, ...] = ()
    """DSNs that this outcome causes."""
    at: float = 0.0
    transport: Progress | msgspec.UnsetType | None = msgspec.UNSET
    """How far it has come, None when its transport is over; unset: as before."""
    lane: str = ""
    """Given back for this lane: claimed when somebody asks for the lane, or when it is due, whichever is first."""
    due: float = 0.0
    """With a lane: when it is due, in place of the earliest time of its recipients."""


class Listed(msgspec.Struct, frozen=True):
    """A row of the queue listing. A damaged entry is a row too."""

    id: str
    state: MessageState
    reason: str
    accepted_at: float
    finished_at: float
    size: int
    sender: str
    recipients: tuple[tuple[str, str, str], ...]
    """Address, status, last words."""
    next_at: float
    """0 when it is not waiting."""
    attempts: int
    waits_for: str = ""
    """Of one in transport: the sink whose turn it is."""
    put_off: str = ""
    """Of one in transport: why that sink put it off."""


class Sort(enum.Enum):
    """By what a listing is in order."""

    AGE = "age"
    """The newest are listed, oldest first."""
    OLDEST = "oldest"
    SIZE = "size"
    """Largest first."""
    NEXT = "next"
    """Due first."""
    SENDER = "sender"


class Filter(msgspec.Struct, frozen=True):
    """Which messages; empty fields do not select. What is said of a recipient must hold for one and the same."""

    states: tuple[MessageState, ...] = (MessageState.QUEUED, MessageState.HELD, MessageState.DAMAGED)
    ids: tuple[str, ...] = ()
    sender: str = ""
    recipient: str = ""
    """Address or `@domain`."""
    limit: int = 1000
    domain: str = ""
    """Of a recipient."""
    address: str = ""
    """Of the sender or of a recipient; or `@domain`."""
    next_hop: str = ""
    """Part of the name of a recipient's last next hop."""
    route: str = ""
    """Of a recipient: chosen by a sink or a person, else at the last attempt."""
    reason: str = ""
    """Part of the words that say why it is held, waits or failed."""
    sink: str = ""
    """Binding that holds it or that it waits for."""
    client: str = ""
    """Address of the device, or a beginning of it that ends in a dot or a colon."""
    subject: str = ""
    """The words of it; compared by their fingerprint."""
    after: float = 0.0
    """Accepted at this time or later."""
    before: float = 0.0
    """Accepted before this time."""
    larger: int = 0
    """Octets, at least."""
    smaller: int = 0
    """Octets, less than."""
    sort: Sort = Sort.AGE
    skip: int = 0
    """So many of the order are left out: pages."""
    below: str = ""
    """Only ids below this one: where a long walk goes on. With `Sort.AGE` only."""
    held_for: str = ""
    """Held, and for this reason alone."""

    @classmethod
    def of_rule(cls, rule: HoldRule, limit: int) -> Filter:
        """Queued messages that a standing rule is about."""
        return cls(
            states=(MessageState.QUEUED,),
            sender=rule.sender,
            recipient=rule.recipient,
            domain=rule.domain,
            client=rule.client,
            larger=rule.larger,
            smaller=rule.smaller,
            limit=limit,
        )


class SpoolFault(Exception):
    """The disk or the store failed. Nothing was promised: answer 451."""


class SpoolFull(SpoolFault):
    """Too little room on the disk. Nothing was promised: answer 452."""


class SpoolLocked(Exception):
    """Another process has this spool; the words name it."""


class NoSuchMessage(Exception):
    """No message with that id."""


class KeyUsed(Exception):
    """An acceptance with this key was committed before, or is on its way. None of the batch was taken."""


class ContentDamaged(Exception):
    """The stored octets are not those that were stored (digest or size); the words say which file and how."""


class BodyWriter(Protocol):
    """Writes a large body to its spool file while it arrives. Not durable until `Spool.accept`."""

    def write(self, octets: bytes) -> None:
        """Raises SpoolFull or SpoolFault."""
        ...

    def finish(self) -> FileBody: ...

    def discard(self) -> None:
        """Remove the file. May be called at any time, also twice."""
        ...


class Spool(Protocol):
    """Durable custody of one shard. Called on the event loop's thread only."""

    def has_room(self, octets: int) -> bool:
        """False when taking `octets` more would leave less than the reserve free (cheap; asked at MAIL)."""
        ...

    def body_writer(self, id: MessageId) -> BodyWriter: ...

    def accept(self, batch: Sequence[Acceptance]) -> asyncio.Future[None]:
        """Done when all of the batch is synced. Raises SpoolFull, SpoolFault or KeyUsed: then none of it was taken.

        A queued message without a waiting recipient is finished at once.
        """
        ...

    def claim(
        self, owner: str, now: float, lease_seconds: float, limit: int, lane: str = ""
    ) -> Awaitable[Sequence[Claim]]:
        """Messages that are due and not claimed (or whose lease has ended), oldest due first; now owned.

        With a lane: those that were given back for it, due or not, oldest first.
        """
        ...

    def lanes(self) -> Sequence[str]:
        """Lanes for which unclaimed messages wait; no more than some thousands of them. Raises SpoolFault."""
        ...

    def count_lane(self, lane: str) -> int:
        """Unclaimed messages that wait for a lane. Raises SpoolFault."""
        ...

    def renew(self, owner: str, lease_until: float) -> Awaitable[None]:
        """Extend the lease of everything this owner holds."""
        ...

    def next_due(self) -> float | None:
        """When the next unclaimed message is due; None when nothing waits."""
        ...

    def settle(self, batch: Sequence[Settlement]) -> asyncio.Future[Sequence[bool]]:
        """Durable when done. False at a place: the epoch was stale, nothing of that settlement was applied.

        Raises SpoolFault: none of it was applied; it may be handed in again.

        Custody never ends a recipient by omission: `finished` while a recipient waits means `queued`; `queued` when
        none waits, with the claim given back, means `finished`; a message that was held meanwhile stays held.
        """
        ...

    def owns(self, id: MessageId, epoch: int) -> bool:
        """The claim is still good, and nobody has held or deleted the message (cheap; asked before each beginning)."""
        ...

    def in_flight(self, id: MessageId) -> None:
        """Note (cheap, survives the death of the process) that work on this message begins now."""
        ...

    def landed(self, id: MessageId) -> None:
        """That work has ended, whatever came of it."""
        ...

    def content(self, id: MessageId) -> Content:
        """The arrival form. Small ones are verified against their digest here; a file body while it is read.

        Raises: NoSuchMessage, ContentDamaged, SpoolFault.
        """
        ...

    def show(self, id: MessageId) -> Stored:
        """Raises NoSuchMessage."""
        ...

    def listing(self, wanted: Filter) -> Sequence[Listed]: ...

    def search(self, wanted: Filter) -> Awaitable[Sequence[Listed]]:
        """As `listing`; may take long, and holds nobody up."""
        ...

    def select(self, wanted: Filter) -> Awaitable[Sequence[MessageId]]:
        """The ids alone, newest first; holds nobody up."""
        ...

    def take(
        self, owner: str, ids: Sequence[MessageId], now: float, lease_seconds: float
    ) -> Awaitable[Sequence[Claim | None]]:
        """Claim these for a person, whoever has them now; None: it is in flight, finished, damaged or not there.

        One that is held stays held under the claim.
        """
        ...

    def counts(self) -> dict[MessageState, int]: ...

    def has_key(self, key: bytes) -> bool:
        """An acceptance with this key was committed."""
        ...

    def hold(self, ids: Sequence[MessageId], reason: str) -> Awaitable[Sequence[bool]]:
        """Held from now on. A claim that is out may still settle what it has sent; the message stays held."""
        ...

    def release(self, ids: Sequence[MessageId], now: float) -> Awaitable[Sequence[bool]]: ...

    def retry(self, ids: Sequence[MessageId], now: float) -> Awaitable[Sequence[bool]]:
        """Due now."""
        ...

    def delete(self, ids: Sequence[MessageId], now: float) -> Awaitable[Sequence[bool]]:
        """No further attempt; finished with its recipients marked deleted. Content goes by policy."""
        ...

    def rules(self) -> HoldRules:
        """The standing rules in force."""
        ...

    def held_by(self, envelope: Envelope, facts: Facts, size: int) -> str:
        """Why a standing rule holds such a new message; empty: none does.

        `accept` and `settle` ask it of what nobody has claimed from the first moment; whoever claims asks before.
        """
        ...

    def write_rules(self, rules: HoldRules) -> None:
        """Durable when it returns, and in force after `take_rules`. Raises SpoolFault."""
        ...

    def take_rules(self) -> Awaitable[Sequence[HoldRule]]:
        """Read the standing rules anew: they are in force at once.

        Done when what was accepted before that can be found; gives the rules that were not yet applied to it. When they
        are, `rules_applied` says so; until then the next opening does it.

        Raises:
            SpoolFault: they cannot be read; those in force stay so.
        """
        ...

    def rules_applied(self, number: int) -> Awaitable[None]:
        """All messages that are queued were judged by the rules up to this number."""
        ...

    def purge(self, before: float, limit: int) -> Awaitable[int]:
        """Forget finished messages older than `before`; the number forgotten."""
        ...

    def close(self) -> Awaitable[None]:
        """Commit what waits, give up claims, release the lock."""
        ...


class SpoolPaths(msgspec.Struct, frozen=True):
    """The folders of a spool; all below `root`."""

    root: Path

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def control(self) -> Path:
        return self.root / "control.sock"

    def control_of(self, worker: int) -> Path:
        """The control socket of a worker."""
        return self.control if worker == 0 else self.root / f"control.{worker}.sock"

    @property
    def submit(self) -> Path:
        return self.root / "submit.sock"

    @property
    def pickup(self) -> Path:
        return self.root / "pickup"

    @property
    def badmail(self) -> Path:
        return self.root / "badmail"

    @property
    def damaged(self) -> Path:
        return self.root / "damaged"

    @property
    def evidence(self) -> Path:
        return self.root / "evidence"

    def shard(self, number: int) -> Path:
        return self.root / "shards" / str(number)

    def shards(self) -> tuple[int, ...]:
        """Numbers of the shards that are there."""
        folder = self.root / "shards"
        if not folder.is_dir():
            return ()
        found = [one.name for one in folder.iterdir() if one.name.isdigit() and (one / "queue.db").exists()]
        return tuple(sorted(int(name) for name in found))
