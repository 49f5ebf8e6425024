"""Copies by recipient in the running relay: sent apart, kept apart through retries, restarts and reports."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from lonedot import Discard, Edit, Hold, Message, Next, Reject, sink
from lonedot.admin.octets import octets_of
from lonedot.admin.values import AdminError, Form, Octets, Remark
from lonedot.app import Relay
from lonedot.sinks.bindings import Binding, firing_order
from lonedot.sinks.builtin.x_recipient import x_recipient
from lonedot.sinks.child import declare
from lonedot.sinks.load import bind
from lonedot.sinks.verdicts import Verdict
from lonedot.spool.interface import MessageState, RecipientStatus, Stored
from lonedot.spool.sqlite import CONTENT_LIMIT
from lonedot.terms.ids import MessageId
from lonedot.testing.clock import ManualClock
from lonedot.testing.relay import running_relay
from tests.peers.strict_sink import StrictSink
from tests.system.talk import MESSAGE, connected, eventually, finished, first_config, submit, until
from tests.unit.delivery.peer import Answer, Peer, Received, running

KEPT = 'keep_content = "all"'
EXACT = "jitter = 0"
OFFER = (b"PIPELINING", b"8BITMIME", b"SIZE 10000000", b"ENHANCEDSTATUSCODES")
X = bind(x_recipient, sink_class="lonedot.sinks.builtin.x_recipient:x_recipient")
ANNA, BLIND, CARL = "anna@dest.example", "blind@dest.example", "carl@dest.example"
LARGE = MESSAGE + (b"x" * 70 + b"\r\n") * (CONTENT_LIMIT // 60)


def splitting(call: Callable[[Message], Verdict], name: str = "splitter", priority: int = 1) -> Binding:
    return bind(sink(name, effects=["header"], split=True)(call), sink_class="tests:split", priority=priority)


def for_one(address: str, verdict: Verdict) -> Binding:
    """A sink that has something to say of one recipient."""
    return splitting(lambda m: verdict if m.envelope.recipients[0].address.text == address else Next())


async def shown(relay: Relay, stored: Stored, form: Form, address: str) -> tuple[bytes, list[Remark]]:
    pieces = [piece async for piece in octets_of(relay.spool, stored, form, 0, address)]
    return (
        b"".join(piece.octets for piece in pieces if isinstance(piece, Octets)),
        [piece for piece in pieces if isinstance(piece, Remark)],
    )


@pytest.mark.parametrize("octets", [MESSAGE, LARGE], ids=["small", "in a file"])
async def test_each_copy_is_sent_recorded_and_shown_apart(tmp_path: Path, octets: bytes) -> None:
    with StrictSink() as receiver:
        toml = first_config(receiver.port, server=KEPT)
        async with running_relay(tmp_path, toml, bindings=[X]) as relay:
            stored = await finished(relay, await submit(relay, octets, ANNA, BLIND, CARL))
            assert {state.status for state in stored.recipients} == {RecipientStatus.DELIVERED}
            assert len(stored.attempts) == 3
            for attempt in stored.attempts:
                assert attempt.wire is not None and attempt.transcript is not None
            by_recipient = {arrival.recipients: arrival for arrival in receiver.arrivals}
            for address in (ANNA, BLIND, CARL):
                arrival = by_recipient[(address.encode(),)]
                assert arrival.content.startswith(b"X-Recipient: " + address.encode() + b"\r\n")
                queued, _ = await shown(relay, stored, Form.QUEUED, address)
                assert queued == arrival.content
                sent, remarks = await shown(relay, stored, Form.SENT, address)
                assert sent == arrival.wire
                assert not any(remark.is_fault for remark in remarks)
            with pytest.raises(AdminError, match="3 different copies"):
                await shown(relay, stored, Form.QUEUED, "")
            with pytest.raises(AdminError, match="not a recipient"):
                await shown(relay, stored, Form.SENT, "nobody@dest.example")
    assert receiver.faults == []


async def test_without_a_difference_it_stays_one_transaction(tmp_path: Path) -> None:
    alike = splitting(lambda m: Next([Edit.add_field("X-All", "yes")]))
    with StrictSink() as receiver:
        async with running_relay(tmp_path, first_config(receiver.port), bindings=[alike]) as relay:
            stored = await finished(relay, await submit(relay, MESSAGE, ANNA, BLIND))
    (arrival,) = receiver.arrivals
    assert len(arrival.recipients) == 2
    assert len(stored.attempts) == 1


async def test_many_recipients_are_not_worked_on_by_the_loop(tmp_path: Path) -> None:
    many = [f"r{number}@dest.example" for number in range(60)]
    with StrictSink() as receiver:
        async with running_relay(tmp_path, first_config(receiver.port), bindings=[X]) as relay:
            stored = await finished(relay, await submit(relay, MESSAGE, *many))
    assert len(stored.attempts) == len(receiver.arrivals) == 60
    assert {arrival.content.split(b"\r\n")[0][13:] for arrival in receiver.arrivals} == {
        name.encode() for name in many
    }


# -- verdicts ------------------------------------------------------------------------------------------


async def test_discarded_for_one_recipient(tmp_path: Path) -> None:
    with StrictSink() as receiver:
        toml = first_config(receiver.port)
        async with running_relay(tmp_path, toml, bindings=[for_one(BLIND, Discard("no"))]) as relay:
            stored = await finished(relay, await submit(relay, MESSAGE, ANNA, BLIND, CARL))
    assert [state.status for state in stored.recipients] == [
        RecipientStatus.DELIVERED,
        RecipientStatus.DELETED,
        RecipientStatus.DELIVERED,
    ]
    (arrival,) = receiver.arrivals
    assert set(arrival.recipients) == {ANNA.encode(), CARL.encode()}


@pytest.mark.parametrize("verdict", [Hold("odd"), Reject("no")])
async def test_what_one_copy_cannot_be_told_holds_the_message(tmp_path: Path, verdict: Verdict) -> None:
    with StrictSink() as receiver:
        toml = first_config(receiver.port)
        async with running_relay(tmp_path, toml, bindings=[for_one(BLIND, verdict)]) as relay:
            id = await submit(relay, MESSAGE, ANNA, BLIND)
            stored = relay.spool.show(id)
            assert stored.state is MessageState.HELD
            assert f"said of the copy for {BLIND}" in stored.reason
    assert receiver.arrivals == []


async def test_refused_for_all_is_refused(tmp_path: Path) -> None:
    refusing = splitting(lambda m: Reject("we do not want it"))
    async with (
        running_relay(tmp_path, first_config(1), bindings=[refusing]) as relay,
        connected(relay) as client,
    ):
        await client.envelope(ANNA, BLIND)
        assert await client.content() == "550 5.7.1 we do not want it"


# -- retries, restarts, reports ------------------------------------------------------------------------


def addressees(received: Received) -> list[bytes]:
    return [line.partition(b"<")[2].partition(b">")[0] for line in received.recipients]


def check_disclosed(peer: Peer, secrets: set[str]) -> None:
    """No copy for a recipient names another one. A report goes to the sender, who named them all."""
    for received in peer.messages:
        own = set(addressees(received))
        if b"MAIL FROM:<>" in received.mail:
            assert own == {b"c@office.example"}
            continue
        for secret in secrets:
            if secret.encode() not in own:
                assert secret.encode() not in received.octets, (own, secret)


async def test_copies_survive_a_restart(tmp_path: Path) -> None:
    """What was accepted in copies is sent in copies, by a relay that has no sinks at all."""
    clock = ManualClock()
    answers: dict[bytes, Answer] = {b"<%s>" % ANNA.encode(): b"452 4.2.2 full\r\n"}
    async with running(Peer(OFFER, answers)) as peer:
        toml = first_config(peer.port, route=EXACT)
        async with running_relay(tmp_path, toml, bindings=[X], clock=clock) as relay:
            id = await submit(relay, MESSAGE, ANNA, BLIND)
            before = await until(relay, id, lambda s: all(r.attempts == 1 for r in s.recipients))
            await eventually(lambda: relay.scheduler.active == 0)
        peer.answers.clear()
        clock.advance(3600)
        async with running_relay(tmp_path, toml, bindings=[], clock=clock) as relay:
            stored = await finished(relay, id)
    assert stored.ledger == before.ledger
    assert [addressees(received) for received in peer.messages] == [[BLIND.encode()], [ANNA.encode()]]
    assert peer.messages[1].octets.startswith(b"X-Recipient: anna@dest.example\r\n")
    assert len(stored.attempts) == 3
    check_disclosed(peer, {ANNA.replace("anna", "blind")})


def _chain(chosen: random.Random) -> list[Binding]:
    """X-Recipient with other sinks before and behind it, some of which split."""

    def own(message: Message) -> Verdict:
        names = " ".join(recipient.address.text for recipient in message.envelope.recipients)
        return Next([Edit.add_field("X-Own", names)])

    def by_kind(message: Message) -> Verdict:
        return Next([Edit.add_field("X-Kind", message.envelope.recipients[0].address.text[6:7])])

    def failing(message: Message) -> Verdict:
        if "3" in message.envelope.recipients[0].address.text:
            raise ValueError("three")
        return Next()

    def stamp(message: Message) -> Verdict:
        return Next([Edit.add_field("X-Stamp", "1")])

    made = [
        splitting(own, "own", chosen.randrange(30000)),
        splitting(by_kind, "kind", chosen.randrange(30000)),
        bind(
            sink("failing", split=True, on_error="skip")(failing),
            sink_class="tests:failing",
            priority=chosen.randrange(30000),
        ),
        bind(
            sink("stamp", effects=["header"])(stamp),
            sink_class="tests:stamp",
            priority=chosen.randrange(30000),
        ),
    ]
    return [X, *chosen.sample(made, chosen.randint(0, len(made)))]


@pytest.mark.parametrize("seed", range(6))
async def test_nobody_is_disclosed_by_retries_or_reports(tmp_path: Path, seed: int) -> None:
    chosen = random.Random(seed)  # which cases are tried, nothing secret
    clock = ManualClock()
    people = [f"secret{number}@dest.example" for number in range(8)]
    answers: dict[bytes, Answer] = {}
    for name in people:
        fate = chosen.choice(["taken", "taken", "busy", "refused"])
        if fate != "taken":
            reply = b"452 4.2.2 full\r\n" if fate == "busy" else b"550 5.1.1 nobody here\r\n"
            answers[b"<%s>" % name.encode()] = reply
    ids: list[MessageId] = []
    async with running(Peer(OFFER, answers)) as peer:
        toml = first_config(peer.port, route=EXACT)
        bindings = firing_order(_chain(chosen))
        async with running_relay(tmp_path, toml, bindings=bindings, clock=clock) as relay:
            for _ in range(3):
                to = chosen.sample(people, chosen.randint(1, len(people)))
                ids.append(await submit(relay, MESSAGE, *to, parameters=" RET=FULL"))
            for id in ids:
                await until(relay, id, lambda s: all(r.attempts == 1 for r in s.recipients))
            await eventually(lambda: relay.scheduler.active == 0)
            peer.answers = {key: reply for key, reply in answers.items() if reply.startswith(b"5")}  # type: ignore[union-attr]
            clock.advance(3600)
            relay.scheduler.kick()
            for id in ids:
                await finished(relay, id)
            await eventually(lambda: relay.scheduler.active == 0)
    copies = [received for received in peer.messages if b"MAIL FROM:<>" not in received.mail]
    assert copies
    for received in copies:
        (only,) = addressees(received)
        assert b"X-Recipient: " + only + b"\r\n" in received.octets
    check_disclosed(peer, set(people))


async def test_a_sink_in_a_process_splits_as_well(tmp_path: Path) -> None:
    where = "lonedot.sinks.builtin.x_recipient:x_recipient"
    declared = declare(where)
    assert declared.split
    apart = bind(declared, sink_class=where, isolation="process")
    with StrictSink() as receiver:
        async with running_relay(tmp_path, first_config(receiver.port), bindings=[apart]) as relay:
            stored = await finished(relay, await submit(relay, MESSAGE, ANNA, BLIND))
    assert [entry.scope for entry in stored.ledger[1:]] == [(0,), (1,)]
    for arrival in receiver.arrivals:
        (recipient,) = arrival.recipients
        assert arrival.content.startswith(b"X-Recipient: " + recipient + b"\r\n")
