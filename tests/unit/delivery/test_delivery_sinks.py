"""Sinks of delivery events against a next hop that says what a test wants."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import msgspec
import pytest

from lonedot.delivery.routing import NextHop, Smarthosts
from lonedot.message.content import Content
from lonedot.message.edits import Edit, Effect
from lonedot.message.fold import fold
from lonedot.message.intake import content_from
from lonedot.message.ledger import Action
from lonedot.sinks.bindings import (
    Binding,
    Chains,
    Isolation,
    Mode,
    OnDamage,
    OnError,
    SinkCall,
    chains_of,
    guid_for,
)
from lonedot.sinks.calls import Answer, Call, call_inline
from lonedot.sinks.events import Event
from lonedot.sinks.hop import Hop
from lonedot.sinks.inquiry import HopCall
from lonedot.sinks.rules import compile_rule
from lonedot.sinks.standing import Fault
from lonedot.sinks.verdicts import Defer, Hold, Next, Reject, Stop, Verdict
from lonedot.sinks.view import Message
from lonedot.spool.interface import Claim
from lonedot.terms.address import Address
from lonedot.terms.envelope import Recipient
from lonedot.terms.outcome import Result, Stage
from tests.unit.delivery.outbound import claim, message, outbound, route
from tests.unit.delivery.peer import HANG_UP, Peer, running

EIGHT = (
    b"Subject: test\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Transfer-Encoding: 8bit\r\n\r\n"
)
OFFER = (b"PIPELINING", b"8BITMIME", b"SIZE 10000000", b"ENHANCEDSTATUSCODES")


def bound(
    event: Event,
    call: Callable[[Message], Verdict] | Callable[[Hop], Verdict],
    name: str = "sink",
    *,
    apart: bool = False,
    on_error: OnError = OnError.DEFER,
    on_damage: OnDamage = OnDamage.UNDO,
    rule: str = "",
    mode: Mode = Mode.LIVE,
) -> Binding:
    effects = {Effect.HEADER, Effect.BODY} if event in (Event.MESSAGE_START, Event.DSN) else set[Effect]()
    return Binding(
        name,
        guid_for(name),
        cast(SinkCall, call),
        f"tests:{name}",
        event=event,
        effects=frozenset(effects),
        isolation=Isolation.PROCESS if apart else Isolation.INLINE,
        on_error=on_error,
        on_damage=on_damage,
        rule=compile_rule(rule),
        mode=mode,
    )


def chains(*bindings: Binding) -> Callable[[int], Chains]:
    made = chains_of(bindings, "r7")
    return lambda server: made


async def elsewhere(call: Call | HopCall) -> Answer:
    """As a process would answer: later."""
    await asyncio.sleep(0)
    if isinstance(call, Call):
        return call_inline(call)
    try:
        return Answer(cast(Callable[[Hop], object], call.binding.call)(call.hop))
    except Exception as error:
        return Answer(error=error)


class Seen:
    """A sink that remembers what it was shown."""

    def __init__(self, verdict: Verdict | None = None) -> None:
        self.hops: list[Hop] = []
        self.messages: list[Message] = []
        self.verdict = verdict or Next()

    def hop(self, hop: Hop) -> Verdict:
        self.hops.append(hop)
        return self.verdict

    def message(self, shown: Message) -> Verdict:
        self.messages.append(shown)
        return self.verdict


def raising(shown: object) -> Verdict:
    raise RuntimeError("secret inside")


BOTH = pytest.mark.parametrize("apart", [False, True], ids=["inline", "apart"])
REFUSALS = pytest.mark.parametrize(
    ("verdict", "result", "status"),
    [
        (Reject("not there", enhanced="5.7.9"), Result.FAILED, "5.7.9"),
        (Defer("not now", enhanced="4.7.8"), Result.DEFERRED, "4.7.8"),
    ],
    ids=["reject", "defer"],
)


# --- sessions ---------------------------------------------------------------------------------------------


@BOTH
async def test_session_start_comes_before_ehlo_and_session_end_before_quit(apart: bool) -> None:
    peer, seen = Peer(), Seen()
    said: list[tuple[Event, list[bytes]]] = []

    def look(hop: Hop) -> Verdict:
        said.append((hop.event, list(peer.commands)))
        return seen.hop(hop)

    both = chains(
        bound(Event.SESSION_START, look, "start", apart=apart),
        bound(Event.SESSION_END, look, "end", apart=apart),
    )
    async with running(peer), outbound(route(peer.port), chains=both, elsewhere=elsewhere) as out:
        assert (await out.outcome(claim())).result is Result.DELIVERED
        assert (await out.outcome(claim())).result is Result.DELIVERED
    assert [(event, [line[:4] for line in lines]) for event, lines in said] == [
        (Event.SESSION_START, []),
        (Event.SESSION_END, [b"EHLO", b"MAIL", b"RCPT", b"DATA", b"MAIL", b"RCPT", b"DATA"]),
    ]
    assert peer.commands[-1] == b"QUIT"
    start, end = seen.hops
    assert (start.route, start.host, start.address, start.port) == (
        "out",
        "127.0.0.1",
        "127.0.0.1",
        peer.port,
    )
    assert start.id == end.id == "session1"
    assert start.offered == ()
    assert end.offered == ("PIPELINING", "8BITMIME", "SIZE 10000000", "ENHANCEDSTATUSCODES")


@BOTH
@REFUSALS
async def test_a_session_that_a_sink_refuses_is_not_used(
    apart: bool, verdict: Verdict, result: Result, status: str
) -> None:
    peer = Peer()
    refuses = chains(bound(Event.SESSION_START, Seen(verdict).hop, "gate", apart=apart))
    async with running(peer), outbound(route(peer.port), chains=refuses, elsewhere=elsewhere) as out:
        outcome = await out.outcome(claim())
    assert (outcome.result, outcome.stage, outcome.status) == (result, Stage.LOCAL, status)
    assert "sink gate" in outcome.reason
    assert outcome.next_hop == f"[127.0.0.1]:{peer.port}"
    assert peer.commands == [b"QUIT"]
    assert b"sink gate at session-start refuses: not" in out.transcripts.text
    assert [(note.binding, note.fault) for _, note in out.notes] == [("gate", None)]


async def test_another_host_is_used_when_a_sink_refuses_the_first() -> None:
    one, two = Peer(), Peer()

    def only_two(hop: Hop) -> Verdict:
        return Next() if hop.port == two.port else Reject("not this one")

    async with running(one), running(two):
        hosts = (NextHop("127.0.0.1", one.port), NextHop("127.0.0.1", two.port))
        over = route(one.port, target=Smarthosts(hosts))
        async with outbound(over, chains=chains(bound(Event.SESSION_START, only_two))) as out:
            assert (await out.outcome(claim())).result is Result.DELIVERED
    assert (len(one.messages), len(two.messages)) == (0, 1)


async def test_a_host_that_is_down_is_not_made_final_by_a_refusal_of_another() -> None:
    peer, gone = Peer(), Peer()
    async with running(gone):
        pass
    async with running(peer):
        hosts = (NextHop("127.0.0.1", gone.port), NextHop("127.0.0.1", peer.port))
        over = route(peer.port, target=Smarthosts(hosts))
        refuses = chains(bound(Event.SESSION_START, Seen(Reject("no")).hop))
        async with outbound(over, chains=refuses) as out:
            outcome = await out.outcome(claim())
    assert (outcome.result, outcome.stage) == (Result.DEFERRED, Stage.CONNECT)


@pytest.mark.parametrize(
    ("on_error", "result"),
    [
        (OnError.DEFER, Result.DEFERRED),
        (OnError.HOLD, Result.DEFERRED),
        (OnError.REJECT, Result.FAILED),
        (OnError.SKIP, Result.DELIVERED),
    ],
)
async def test_a_sink_of_sessions_that_fails(on_error: OnError, result: Result) -> None:
    peer = Peer()
    fails = chains(bound(Event.SESSION_START, raising, "broken", on_error=on_error))
    async with running(peer), outbound(route(peer.port), chains=fails) as out:
        assert (await out.outcome(claim())).result is result
    assert [(note.binding, note.guid, note.fault) for _, note in out.notes] == [
        ("broken", guid_for("broken"), Fault.RAISED)
    ]


async def test_an_edit_is_a_fault_where_there_is_no_message() -> None:
    peer = Peer()
    edits = chains(bound(Event.SESSION_START, lambda hop: Next([Edit.add_field("X", "y")]), "odd"))
    async with running(peer), outbound(route(peer.port), chains=edits) as out:
        assert (await out.outcome(claim())).result is Result.DEFERRED
    ((_, note),) = out.notes
    assert note.fault is Fault.NONSENSE


async def test_stop_ends_the_asking() -> None:
    peer, seen = Peer(), Seen()
    two = chains(
        bound(Event.SESSION_START, lambda hop: Stop(), "a"), bound(Event.SESSION_START, seen.hop, "b")
    )
    async with running(peer), outbound(route(peer.port), chains=two) as out:
        assert (await out.outcome(claim())).result is Result.DELIVERED
    assert seen.hops == []


async def test_a_connection_that_dies_while_a_sink_thinks_is_an_opening_that_failed() -> None:
    peer = Peer(answers={b"GREETING": b"220 hello\r\n421 going down\r\n"})
    slow = asyncio.Event()

    async def thinks(call: Call | HopCall) -> Answer:
        await slow.wait()
        return Answer(Next())

    asks = chains(bound(Event.SESSION_START, Seen().hop, apart=True))
    async with running(peer), outbound(route(peer.port), chains=asks, elsewhere=thinks) as out:
        sent = out.post(claim())
        asyncio.get_running_loop().call_later(0.05, slow.set)
        delivery = await asyncio.wait_for(sent, 10)
    ((_, outcome),) = delivery.outcomes
    assert outcome.result is Result.DEFERRED
    assert not peer.messages


async def test_a_session_end_that_hangs_does_not_delay_the_stop() -> None:
    async def never(call: Call | HopCall) -> Answer:
        await asyncio.Event().wait()
        raise AssertionError

    peer = Peer()
    ends = chains(bound(Event.SESSION_END, Seen().hop, apart=True))
    async with running(peer), outbound(route(peer.port), chains=ends, elsewhere=never) as out:
        assert (await out.outcome(claim())).result is Result.DELIVERED
        async with asyncio.timeout(5):
            await out.courier.close(0.1)
    assert peer.open == 0 or b"QUIT" not in peer.commands


async def test_connections_are_shared_by_servers_unless_sinks_ask_about_them() -> None:
    peer, seen = Peer(), Seen()
    asks = chains_of([bound(Event.SESSION_START, seen.hop)])

    def of_server(server: int) -> Chains:
        return Chains() if server < 3 else asks

    def from_server(number: int) -> Claim:
        made = claim()
        facts = msgspec.structs.replace(made.message.facts, server=number)
        return msgspec.structs.replace(made, message=msgspec.structs.replace(made.message, facts=facts))

    async with running(peer), outbound(route(peer.port), chains=of_server) as out:
        for number in (1, 2, 3, 4, 3):
            await out.outcome(from_server(number))
        assert [state.connections for state in out.courier.pools()] == [1, 1, 1]
    assert len(seen.hops) == 2


# --- the copy -----------------------------------------------------------------------------------------------


def stamp(name: str = "X-Stamp") -> Callable[[Message], Verdict]:
    return lambda shown: Next([Edit.add_field(name, "yes")])


@BOTH
@pytest.mark.parametrize("offer", [OFFER, (*OFFER, b"CHUNKING"), ()], ids=["data", "bdat", "bare"])
async def test_edits_at_message_start_are_of_this_attempt(apart: bool, offer: tuple[bytes, ...]) -> None:
    peer, seen = Peer(offer=offer), Seen(Next([Edit.add_field("X-Stamp", "yes")]))
    asks = chains(bound(Event.MESSAGE_START, seen.message, "stamp", apart=apart))
    what = claim(b"b@example.org", b"c@example.org")
    async with running(peer), outbound(route(peer.port), chains=asks, elsewhere=elsewhere) as out:
        (attempt,) = (await out.send(what)).attempts
    (received,) = peer.messages
    assert received.octets.startswith(b"X-Stamp: yes\r\nSubject: test\r\n")
    (entry,) = attempt.suffix
    assert (entry.binding, entry.event, entry.action, entry.revision) == (
        "stamp",
        "message-start",
        Action.KEPT,
        "r7",
    )
    content = fold(cast(Content, what.arrival), attempt.suffix, 0, verify=True)
    assert received.octets.startswith(content.octets())
    (shown,) = seen.messages
    assert [one.address.text for one in shown.envelope.recipients] == ["b@example.org", "c@example.org"]
    assert shown.hop.event is Event.MESSAGE_START
    assert shown.key.endswith("r7 0,1")
    for what_is_not_shown in ("recipient", "replies", "outcomes", "report"):
        with pytest.raises(LookupError, match="message-start"):
            getattr(shown, what_is_not_shown)


@BOTH
async def test_damage_at_message_start_is_undone_and_named(apart: bool) -> None:
    def faulty(shown: Message) -> Verdict:
        return Next([Edit.replace_message(shown.octets().replace(b"\r\n", b"\n") + b"%%EOF\n")])

    peer = Peer()
    header_only = msgspec.structs.replace(
        bound(Event.MESSAGE_START, faulty, "faulty", apart=apart), effects=frozenset({Effect.HEADER})
    )
    asks = chains(header_only)
    async with running(peer), outbound(route(peer.port), chains=asks, elsewhere=elsewhere) as out:
        (attempt,) = (await out.send(claim())).attempts
    (received,) = peer.messages
    assert received.octets == message().octets() + b".\r\n"
    (entry,) = attempt.suffix
    assert entry.fault == Fault.DAMAGE.value
    assert entry.before == entry.after


@BOTH
@REFUSALS
async def test_a_copy_that_a_sink_refuses_is_not_sent(
    apart: bool, verdict: Verdict, result: Result, status: str
) -> None:
    peer = Peer()
    asks = chains(bound(Event.MESSAGE_START, Seen(verdict).message, "gate", apart=apart))
    async with running(peer), outbound(route(peer.port), chains=asks, elsewhere=elsewhere) as out:
        delivery = await out.send(claim(b"b@example.org", b"c@example.org"))
    (attempt,) = delivery.attempts
    assert [(n, o.result, o.stage, o.status) for n, o in attempt.outcomes] == [
        (0, result, Stage.MAIL, status),
        (1, result, Stage.MAIL, status),
    ]
    assert all("sink gate refuses: not" in outcome.reason for _, outcome in attempt.outcomes)
    assert [entry.binding for entry in attempt.suffix] == ["gate"]
    assert peer.messages == []
    assert not any(line.startswith(b"MAIL") for line in peer.commands)


@BOTH
@pytest.mark.parametrize(
    "event", [Event.MESSAGE_START, Event.PER_RECIPIENT, Event.BEFORE_DATA, Event.OUTCOME]
)
async def test_on_error_hold_holds_what_is_left(apart: bool, event: Event) -> None:
    peer = Peer()
    asks = chains(bound(event, raising, "broken", apart=apart, on_error=OnError.HOLD))
    async with (
        running(peer),
        outbound(route(peer.port, recipients_per_transaction=1), chains=asks, elsewhere=elsewhere) as out,
    ):
        delivery = await out.send(claim(b"b@example.org", b"c@example.org"))
    assert "broken" in delivery.hold
    assert len(peer.messages) == (1 if event is Event.OUTCOME else 0)
    assert len(delivery.outcomes) == (1 if event is Event.OUTCOME else 0)
    assert [entry.fault for entry in delivery.attempts[0].suffix] == [Fault.RAISED.value]


async def test_what_went_wrong_inside_a_sink_is_not_told_to_the_sender() -> None:
    peer = Peer()
    asks = chains(bound(Event.MESSAGE_START, raising, "broken", on_error=OnError.REJECT))
    async with running(peer), outbound(route(peer.port), chains=asks) as out:
        outcome = await out.outcome(claim())
    assert outcome.result is Result.FAILED
    assert "secret inside" not in outcome.reason


@BOTH
async def test_a_copy_for_a_hop_without_8bitmime_is_made_7_bit_before_and_behind_the_sinks(
    apart: bool,
) -> None:
    peer = Peer(offer=(b"PIPELINING",))

    def adds_eight_bit(shown: Message) -> Verdict:
        assert shown.octets().isascii()
        whole = EIGHT + "wörter\r\n".encode() * 2
        return Next([Edit.replace_message(whole)])

    asks = chains(bound(Event.MESSAGE_START, adds_eight_bit, "footer", apart=apart))
    what = claim(content=content_from(EIGHT + "wörter\r\n".encode()))
    async with running(peer), outbound(route(peer.port), chains=asks, elsewhere=elsewhere) as out:
        (attempt,) = (await out.send(what)).attempts
    (received,) = peer.messages
    assert received.octets.isascii()
    assert received.octets.count(b"w=C3=B6rter") == 2
    assert [entry.event for entry in attempt.suffix] == ["downgrade", "message-start", "downgrade"]
    content = fold(cast(Content, what.arrival), attempt.suffix, 0, verify=True)
    assert received.octets == content.octets() + b".\r\n"


async def test_a_large_copy_is_worked_on_beside_the_loop() -> None:
    peer = Peer()
    large = content_from(b"Subject: test\r\n\r\n" + b"x" * 70 + b"\r\n" * 1 + b"0123456789\r\n" * 40_000)
    asks = chains(bound(Event.MESSAGE_START, stamp()))
    async with running(peer), outbound(route(peer.port), chains=asks) as out:
        assert (await out.outcome(claim(content=large))).result is Result.DELIVERED
    (received,) = peer.messages
    assert received.octets.startswith(b"X-Stamp: yes\r\n")


async def test_a_message_in_shadow_is_sent_as_it_was() -> None:
    peer = Peer()
    asks = chains(bound(Event.MESSAGE_START, stamp(), mode=Mode.SHADOW))
    async with running(peer), outbound(route(peer.port), chains=asks) as out:
        (attempt,) = (await out.send(claim())).attempts
    assert peer.messages[0].octets.startswith(b"Subject: test\r\n")
    (entry,) = attempt.suffix
    assert entry.action is Action.SHADOWED


async def test_a_message_is_prepared_anew_when_the_connection_was_stale() -> None:
    peer, seen = Peer(hang_up_after=1), Seen(Next([Edit.add_field("X-Stamp", "yes")]))
    asks = chains(bound(Event.MESSAGE_START, seen.message))
    async with running(peer), outbound(route(peer.port), chains=asks) as out:
        first, second = out.post(claim()), out.post(claim())
        for sent in (first, second):
            (attempt,) = (await asyncio.wait_for(sent, 10)).attempts
            assert len(attempt.suffix) == 1
    assert [received.octets.count(b"X-Stamp") for received in peer.messages] == [1, 1]


# --- recipients -----------------------------------------------------------------------------------------------


@BOTH
@REFUSALS
async def test_a_recipient_that_a_sink_refuses_is_not_named_and_the_others_are(
    apart: bool, verdict: Verdict, result: Result, status: str
) -> None:
    peer = Peer()
    seen: list[tuple[str, str]] = []

    def gate(shown: Message) -> Verdict:
        address = shown.recipient.address.text
        assert [one.address.text for one in shown.envelope.recipients] == [address]
        seen.append((address, shown.key))
        return verdict if address == "c@example.org" else Next()

    asks = chains(bound(Event.PER_RECIPIENT, gate, "gate", apart=apart))
    async with running(peer), outbound(route(peer.port), chains=asks, elsewhere=elsewhere) as out:
        delivery = await out.send(claim(b"b@example.org", b"c@example.org", b"d@example.org"))
    assert {n: (o.result, o.stage) for n, o in delivery.outcomes} == {
        0: (Result.DELIVERED, Stage.CONTENT),
        1: (result, Stage.RCPT),
        2: (Result.DELIVERED, Stage.CONTENT),
    }
    assert dict(delivery.outcomes)[1].status == status
    (received,) = peer.messages
    assert received.recipients == [b"RCPT TO:<b@example.org>", b"RCPT TO:<d@example.org>"]
    (attempt,) = delivery.attempts
    assert sorted(entry.scope for entry in attempt.suffix) == [(0,), (1,), (2,)]
    assert len({key for _, key in seen}) == 3


async def test_nothing_is_begun_when_no_recipient_is_left() -> None:
    peer = Peer()
    asks = chains(bound(Event.PER_RECIPIENT, Seen(Reject("nobody")).message))
    async with running(peer), outbound(route(peer.port), chains=asks) as out:
        delivery = await out.send(claim(b"b@example.org", b"c@example.org"))
    assert [outcome.result for _, outcome in delivery.outcomes] == [Result.FAILED, Result.FAILED]
    assert not any(line.startswith(b"MAIL") for line in peer.commands)


async def test_a_rule_is_asked_of_the_recipient_that_is_decided() -> None:
    peer = Peer()
    asks = chains(bound(Event.PER_RECIPIENT, Seen(Reject("no")).message, rule="RCPT TO=c@*"))
    async with running(peer), outbound(route(peer.port), chains=asks) as out:
        delivery = await out.send(claim(b"b@example.org", b"c@example.org"))
    assert {n: o.result for n, o in delivery.outcomes} == {0: Result.DELIVERED, 1: Result.FAILED}


# --- before DATA ------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("offer", [OFFER, (*OFFER, b"CHUNKING"), ()], ids=["data", "bdat", "bare"])
async def test_before_data_shows_the_replies_and_lets_the_content_go(
    apart: bool, offer: tuple[bytes, ...]
) -> None:
    peer, seen = Peer(offer=offer, answers={b"<c@example.org>": b"550 5.1.1 unknown\r\n"}), Seen()
    asks = chains(bound(Event.BEFORE_DATA, seen.message, "late", apart=apart))
    async with running(peer), outbound(route(peer.port), chains=asks, elsewhere=elsewhere) as out:
        delivery = await out.send(claim(b"b@example.org", b"c@example.org"))
    assert {n: o.result for n, o in delivery.outcomes} == {0: Result.DELIVERED, 1: Result.FAILED}
    (shown,) = seen.messages
    assert [(one.address.text, own and own.code) for one, own in shown.replies] == [
        ("b@example.org", 250),
        ("c@example.org", 550),
    ]
    assert [one.address.text for one in shown.envelope.recipients] == ["b@example.org"]
    assert len(peer.messages) == 1
    assert [entry.event for entry in delivery.attempts[0].suffix] == ["before-data"]


@BOTH
@REFUSALS
@pytest.mark.parametrize("offer", [OFFER, (*OFFER, b"CHUNKING")], ids=["data", "bdat"])
async def test_content_that_a_sink_withholds_is_not_announced(
    apart: bool, verdict: Verdict, result: Result, status: str, offer: tuple[bytes, ...]
) -> None:
    peer = Peer(offer=offer, answers={b"<c@example.org>": b"550 5.1.1 unknown\r\n"})
    answers = iter([verdict, Next()])
    asks = chains(bound(Event.BEFORE_DATA, lambda shown: next(answers), "late", apart=apart))
    async with running(peer), outbound(route(peer.port), chains=asks, elsewhere=elsewhere) as out:
        delivery = await out.send(claim(b"b@example.org", b"c@example.org"))
        assert (await out.outcome(claim(b"d@example.org"))).result is Result.DELIVERED
    outcomes = dict(delivery.outcomes)
    assert (outcomes[0].result, outcomes[0].stage, outcomes[0].status) == (result, Stage.DATA, status)
    assert (outcomes[1].result, outcomes[1].stage) == (Result.FAILED, Stage.RCPT)
    verbs = [line.split(b" ")[0] for line in peer.commands]
    content = b"BDAT" if b"CHUNKING" in offer else b"DATA"
    assert verbs == [b"EHLO", b"MAIL", b"RCPT", b"RCPT", b"RSET", b"MAIL", b"RCPT", content, b"QUIT"]
    assert peer.sessions == 1
    assert len(peer.messages) == 1


async def test_a_connection_lost_before_data_is_an_attempt_that_failed() -> None:
    peer = Peer(answers={b"RCPT": b"250 ok\r\n421 going down\r\n"})
    slow = asyncio.Event()

    async def thinks(call: Call | HopCall) -> Answer:
        asyncio.get_running_loop().call_later(0.05, slow.set)
        await slow.wait()
        return Answer(Next())

    asks = chains(bound(Event.BEFORE_DATA, Seen().message, apart=True))
    async with running(peer), outbound(route(peer.port), chains=asks, elsewhere=thinks) as out:
        outcome = await out.outcome(claim())
    assert outcome.result is Result.DEFERRED
    assert peer.messages == []


# --- the outcome --------------------------------------------------------------------------------------------------


@BOTH
async def test_outcome_is_shown_what_came_of_each_attempt(apart: bool) -> None:
    peer, seen = Peer(answers={b"<c@example.org>": b"550 5.1.1 unknown\r\n"}), Seen()
    asks = chains(bound(Event.OUTCOME, seen.message, "track", apart=apart))
    async with running(peer), outbound(route(peer.port), chains=asks, elsewhere=elsewhere) as out:
        (attempt,) = (await out.send(claim(b"b@example.org", b"c@example.org"))).attempts
    (shown,) = seen.messages
    assert [(one.address.text, outcome.result) for one, outcome in shown.outcomes] == [
        ("b@example.org", Result.DELIVERED),
        ("c@example.org", Result.FAILED),
    ]
    assert shown.hop.next_hop == attempt.next_hop
    assert [entry.event for entry in attempt.suffix] == ["outcome"]


@BOTH
async def test_outcome_is_shown_a_next_hop_that_was_not_reached(apart: bool) -> None:
    peer, seen = Peer(answers={b"GREETING": HANG_UP}), Seen()
    asks = chains(bound(Event.OUTCOME, seen.message, "track", apart=apart))
    async with running(peer), outbound(route(peer.port), chains=asks, elsewhere=elsewhere) as out:
        assert (await out.outcome(claim())).result is Result.DEFERRED
    (shown,) = seen.messages
    assert shown.hop.route == "out"
    assert shown.hop.address == ""
    ((_, outcome),) = shown.outcomes
    assert outcome.stage is Stage.GREETING


@BOTH
async def test_hold_at_outcome_keeps_what_is_left(apart: bool) -> None:
    peer = Peer()
    asks = chains(bound(Event.OUTCOME, Seen(Hold("look at it")).message, "track", apart=apart))
    async with (
        running(peer),
        outbound(route(peer.port, recipients_per_transaction=1), chains=asks, elsewhere=elsewhere) as out,
    ):
        delivery = await out.send(claim(b"b@example.org", b"c@example.org"))
    assert delivery.hold == "track: look at it"
    assert [n for n, _ in delivery.outcomes] == [0]


@pytest.mark.parametrize("on_error", [OnError.DEFER, OnError.REJECT, OnError.SKIP])
async def test_a_sink_that_fails_at_outcome_changes_no_outcome(on_error: OnError) -> None:
    peer = Peer()
    asks = chains(bound(Event.OUTCOME, raising, on_error=on_error))
    async with running(peer), outbound(route(peer.port), chains=asks) as out:
        (attempt,) = (await out.send(claim())).attempts
    assert attempt.outcomes[0][1].result is Result.DELIVERED
    assert attempt.suffix[0].fault == Fault.RAISED.value


async def test_a_stop_does_not_wait_for_a_sink_of_outcome_nor_forget_the_outcome() -> None:
    asked = asyncio.Event()

    async def never(call: Call | HopCall) -> Answer:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    peer = Peer()
    asks = chains(bound(Event.OUTCOME, Seen().message, apart=True))
    async with running(peer), outbound(route(peer.port), chains=asks, elsewhere=never) as out:
        sent = out.post(claim())
        async with asyncio.timeout(10):
            await asked.wait()
            await out.courier.close(0.2)
            delivery = await sent
    assert delivery.attempts[0].outcomes[0][1].result is Result.DELIVERED


# --- all together ---------------------------------------------------------------------------------------------------


@BOTH
async def test_the_order_of_the_events_is_that_of_the_table(apart: bool) -> None:
    order: list[Event] = []

    def note(shown: Message | Hop) -> Verdict:
        order.append(
            shown.event if isinstance(shown, Hop) else cast(Event, shown.departure and shown.departure.event)
        )
        return Next()

    events = [event for event in Event if event in DELIVERY]
    asks = chains(*[bound(event, note, event.value, apart=apart) for event in events])
    peer = Peer()
    async with running(peer), outbound(route(peer.port), chains=asks, elsewhere=elsewhere) as out:
        assert (await out.outcome(claim(Recipient(Address(b"b@example.org"))))).result is Result.DELIVERED
    order = [event for n, event in enumerate(order) if event not in order[:n]]
    assert order == [
        Event.SESSION_START,
        Event.MESSAGE_START,
        Event.PER_RECIPIENT,
        Event.BEFORE_DATA,
        Event.OUTCOME,
        Event.SESSION_END,
    ]


DELIVERY = {
    Event.SESSION_START,
    Event.MESSAGE_START,
    Event.PER_RECIPIENT,
    Event.BEFORE_DATA,
    Event.SESSION_END,
    Event.OUTCOME,
}


async def test_where_nothing_is_bound_the_envelope_goes_with_its_data() -> None:
    peer = Peer()
    async with running(peer), outbound(route(peer.port)) as out:
        (attempt,) = (await out.send(claim())).attempts
    assert attempt.suffix == ()
    assert any(segment.startswith(b"MAIL") and segment.endswith(b"DATA\r\n") for segment in peer.segments)
