"""A chain in parts is the chain: whatever bindings there are, and wherever it is cut, everybody gets what they would
have got, the ledger says the same, and nobody is asked under another key.

A cut drops all memory behind a committed step, as the death of the relay does; the message goes on from its ledger.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from lonedot.delivery.transport import Transport
from lonedot.message.door import DoorPolicy, LineEnds, LongLines
from lonedot.message.edits import AnyEdit, Edit, Effect
from lonedot.message.encode import canonicalise
from lonedot.message.fold import fold
from lonedot.message.intake import Intake
from lonedot.message.ledger import Action, Entry
from lonedot.queue.transport import Step
from lonedot.reception.acceptance import Acceptor
from lonedot.reception.acceptance import Verdict as Accepted
from lonedot.sinks.bindings import Binding, Chains, Isolation, Mode, OnDamage, OnError, chains_of, guid_for
from lonedot.sinks.calls import Answer, Call, call_inline
from lonedot.sinks.events import Event
from lonedot.sinks.protocol import Question
from lonedot.sinks.rules import compile_rule
from lonedot.sinks.verdicts import Discard, Hold, Next, Redirect, Reject, Stop, Verdict
from lonedot.sinks.view import Message
from lonedot.spool.interface import (
    Acceptance,
    Claim,
    Facts,
    MessageState,
    RecipientStatus,
    Settlement,
    Stored,
)
from lonedot.terms.address import Address
from lonedot.terms.envelope import Envelope, Recipient
from lonedot.terms.ids import IdSource, MessageId, SessionId
from lonedot.terms.reply import Reply
from lonedot.testing.clock import ManualClock
from lonedot.testing.spool import MemorySpool

OCTETS = (
    b"Date: Thu, 02 Jul 2026 10:00:00 +0000\r\nMessage-ID: <1@a.example>\r\n"
    b"From: copier@a.example\r\nSubject: a scan\r\n\r\nThe first line.\r\n.a line with a dot\r\n"
)
NAMES = ("joe@b.example", "ann@b.example", "max@c.example")
LATE = ("eve@d.example", "kim@b.example")
ROUTES = frozenset({"one", "two"})


def who(message: Message) -> tuple[str, ...]:
    return tuple(recipient.address.text for recipient in message.envelope.recipients)


class Does(msgspec.Struct, frozen=True):
    """What a sink does, to whom."""

    what: str
    to: str

    def __call__(self, message: Message) -> Verdict:
        people = who(message)
        mark: list[AnyEdit] = [Edit.add_field("X-Seen", f"{len(people)} {message.headers.get('Subject')!r}")]
        if self.to and self.to not in people:
            return Next(mark)
        match self.what:
            case "name":
                return Next([Edit.add_field("X-First", str(len(people[0]) * len(people)))])
            case "subject":
                return Next([Edit.replace_field("Subject", f"for {len(people)}")])
            case "body":
                return Next([Edit.replace_body(b"another body\r\nfor %d\r\n" % len(people))])
            case "damage":
                return Redirect("two", [Edit.replace_body(b"no end of line \n")])
            case "stop":
                return Stop(mark)
            case "quiet stop":
                return Stop()
            case "hold":
                return Hold("a look", mark)
            case "reject":
                return Reject("no")
            case "discard":
                return Discard("away")
            case "redirect":
                return Redirect("one", mark)
            case "redirect back":
                return Redirect("two")
            case "nowhere":
                return Redirect("nowhere", mark)
            case "add":
                return Next([Edit.add_recipient(LATE[len(people) % 2])])
            case "remove":
                return Next([Edit.remove_recipient(people[-1])]) if len(people) > 1 else Next()
            case "raise":
                raise ValueError("no")
            case _:
                return Next()


WHATS = (
    "nothing",
    "name",
    "name",
    "subject",
    "body",
    "damage",
    "stop",
    "quiet stop",
    "hold",
    "reject",
    "discard",
    "redirect",
    "redirect back",
    "nowhere",
    "add",
    "remove",
    "raise",
)
TRANSPORT = (Event.ARRIVAL, Event.ARRIVAL, Event.BEFORE_RESOLVE, Event.AFTER_RESOLVE, Event.ROUTE)


@st.composite
def bindings(draw: st.DrawFn) -> tuple[Binding, ...]:
    made: list[Binding] = []
    for number in range(draw(st.integers(1, 6))):
        what = draw(st.sampled_from(WHATS))
        to = draw(st.sampled_from(("", *NAMES, LATE[0])))
        edits_envelope = what in ("add", "remove")
        effects = {Effect.HEADER, Effect.BODY} | ({Effect.ENVELOPE} if edits_envelope else set())
        event = draw(st.sampled_from((Event.END_OF_DATA, *TRANSPORT)))
        says_route = what in ("redirect", "redirect back", "nowhere", "damage")
        if event is Event.END_OF_DATA and says_route:
            event = Event.ARRIVAL
        made.append(
            Binding(
                f"sink {number}",
                guid_for(f"sink {number}"),
                Does(what, to),
                f"tests:{what}",
                priority=draw(st.integers(0, 3)),
                rule=compile_rule(draw(st.sampled_from(("", "", "RCPT TO=*@b.example", "RCPT TO=eve*")))),
                effects=frozenset(effects),
                on_damage=draw(st.sampled_from((OnDamage.UNDO, OnDamage.HOLD))),
                on_error=draw(st.sampled_from((OnError.SKIP, OnError.HOLD))),
                event=event,
                isolation=draw(st.sampled_from(Isolation)),
                mode=draw(st.sampled_from((Mode.LIVE, Mode.LIVE, Mode.LIVE, Mode.SHADOW))),
                split=not edits_envelope and draw(st.booleans()),
            )
        )
    return tuple(made)


class Notes:
    """Satisfies the observers of acceptance and transport."""

    def accepted(self, acceptance: Acceptance) -> None: ...

    def refused(self, id: MessageId, facts: Facts, envelope: Envelope, answer: Reply, words: str) -> None: ...

    def sunk(self, id: MessageId, entries: Sequence[Entry]) -> None: ...

    def spool_failed(self, what: str, error: Exception) -> None:
        raise error

    def transported(self, id: MessageId, step: Step) -> None: ...


class Desk:
    owner = "me"
    has_room = False

    def lease_until(self) -> float:
        return 0.0

    def offer(self, claim: Claim) -> None:
        raise AssertionError("there is no room")


class World:
    """One message, from its acceptance to the moment when it could be delivered."""

    def __init__(self, bound: Sequence[Binding], cuts: Sequence[int], is_trusted: bool) -> None:
        self.clock = ManualClock()
        self.spool = MemorySpool()
        self.chains = chains_of(bound, "r1", ROUTES)
        self.bound = bound
        self.cuts = set(cuts)
        self.is_trusted = is_trusted
        self.keys: dict[tuple[str, tuple[str, ...]], str] = {}
        """By binding and the recipients that it was shown."""
        self.steps = 0
        self.transport = self._new()
        self.holds: list[str] = []

    def _new(self) -> Transport:
        return Transport(self._in_force, self.spool.content, self._call, Notes(), self.clock, lambda: 0.5)

    def _in_force(self, server: int) -> Chains:
        return self.chains

    async def _call(self, call: Call | Question) -> Answer:
        assert isinstance(call, Call)
        shown = call.binding.guid, who(call.message)
        assert self.keys.setdefault(shown, call.message.key) == call.message.key, (
            "asked again under another key"
        )
        return msgspec.structs.replace(call_inline(call), took_seconds=0.0)

    async def accept(self) -> MessageId | None:
        """None: it was refused."""
        acceptor = Acceptor(
            self.spool,
            Desk(),
            self.bound,
            Notes(),
            self.clock,
            IdSource(),
            "relay.example.com",
            30,
            self._call,
            in_custody=self.transport.keep,
            routes=ROUTES,
        )
        acceptor.rebind(self.bound, "r1")
        intake = Intake(lambda: self.spool.body_writer(MessageId("x")))
        intake.feed(OCTETS)
        envelope = Envelope(
            Address(b"copier@a.example"), tuple(Recipient(Address(n.encode())) for n in NAMES)
        )
        facts = Facts("smtp", SessionId("s"), helo="copier", trusted=self.is_trusted)
        done: asyncio.Future[Accepted] = asyncio.get_running_loop().create_future()
        policy = DoorPolicy(LineEnds.NORMALIZE, LongLines.ENCODE, add_missing=True)
        id = acceptor.new_id()
        acceptor.accept(id, envelope, facts, intake.finish(), policy, done.set_result)
        return id if (await done).accepted else None

    async def run(self) -> Stored | None:
        """The message when nothing is left to be asked."""
        id = await self.accept()
        if id is None:
            return None
        for _ in range(40):
            stored = self.spool.show(id)
            if stored.state is MessageState.HELD:
                self.holds.append(stored.reason)
                await self.spool.release([id], self.clock.now())
                continue
            if stored.transport is None:
                return stored
            self.clock.advance(10_000.0)  # whatever was claimed is free again
            (claim,) = await self.spool.claim("me", self.clock.now(), 600.0, 10)
            await self._prepare(claim)
        raise AssertionError("it does not come to an end")

    async def _prepare(self, claim: Claim) -> None:
        async for step in self.transport.prepare(claim):
            settlement = Settlement(
                claim.message.id,
                claim.epoch,
                step.recipients,
                state=step.state,
                reason=step.reason,
                release=step.gives_back,
                entries=step.entries,
                at=self.clock.now(),
                transport=step.message.transport,
            )
            assert await self.spool.settle([settlement]) == [True]
            kept = self.spool.show(claim.message.id)
            assert (kept.ledger, kept.recipients, kept.envelope) == (
                step.message.ledger,
                step.message.recipients,
                step.message.envelope,
            ), "what is in memory is what is in custody"
            self.steps += 1
            if self.steps in self.cuts:
                self.transport = self._new()
                break
            if step.gives_back:
                return
        else:
            assert self.spool.show(claim.message.id).transport is None
            await self.spool.settle([Settlement(claim.message.id, claim.epoch)])


def told(stored: Stored, spool: MemorySpool) -> list[tuple[object, ...]]:
    """What becomes of everybody."""
    arrival = spool.content(stored.id) if stored.state is not MessageState.FINISHED else None
    everybody: list[tuple[object, ...]] = []
    for state in stored.recipients:
        octets = b""
        if state.status is RecipientStatus.WAITING and arrival is not None:
            content = fold(arrival, stored.ledger, state.index, verify=True)
            canonicalise(content)
            octets = content.octets()
        everybody.append((state.recipient.address.text, state.status, state.redirect, state.last, octets))
    return everybody


def ledger(stored: Stored) -> list[Entry]:
    """But for times, and for shadows: what one would have done may be lost with its relay."""
    return [
        msgspec.structs.replace(entry, at=0.0, took_seconds=0.0)
        for entry in stored.ledger
        if entry.action is not Action.SHADOWED
    ]


@settings(max_examples=150, deadline=None)
@given(bindings(), st.lists(st.integers(1, 12), max_size=6), st.booleans())
def test_a_chain_that_is_cut_comes_out_as_one_that_is_not(
    bound: tuple[Binding, ...], cuts: list[int], is_trusted: bool
) -> None:
    async def compare() -> None:
        whole, cut = World(bound, (), is_trusted), World(bound, cuts, is_trusted)
        one, other = await whole.run(), await cut.run()
        assert (one is None) == (other is None)
        if one is None or other is None:
            return
        assert told(other, cut.spool) == told(one, whole.spool)
        assert ledger(other) == ledger(one)
        assert other.envelope == one.envelope
        assert (other.state, cut.holds) == (one.state, whole.holds)

    asyncio.run(compare())


GOES_ON = (
    "nothing",
    "name",
    "subject",
    "body",
    "damage",
    "stop",
    "quiet stop",
    "discard",
    "redirect",
    "add",
    "raise",
)


@settings(max_examples=100, deadline=None)
@given(bindings())
def test_in_custody_comes_out_what_comes_out_before(bound: tuple[Binding, ...]) -> None:
    """Where no sink holds or refuses, it makes no difference to anybody where it runs."""
    plain = [
        msgspec.structs.replace(one, on_error=OnError.SKIP, on_damage=OnDamage.UNDO)
        for one in bound
        if isinstance(one.call, Does) and one.call.what in GOES_ON
    ]

    async def compare() -> None:
        here = [msgspec.structs.replace(one, isolation=Isolation.INLINE) for one in plain]
        apart, inline = World(plain, (), True), World(here, (), True)
        one, other = await apart.run(), await inline.run()
        assert one is not None
        assert other is not None

        def outcomes(stored: Stored, spool: MemorySpool) -> list[tuple[object, ...]]:
            gone = (RecipientStatus.DELETED,)
            return sorted((t for t in told(stored, spool) if t[1] not in gone), key=lambda t: str(t[0]))

        assert outcomes(one, apart.spool) == outcomes(other, inline.spool)

    asyncio.run(compare())
