"""Retries, delay notices, expiry and reports, over days that pass at the turn of a clock."""

from __future__ import annotations

import email.message
import email.parser
import email.policy
from pathlib import Path

import pytest

from lonedot.app import Relay
from lonedot.spool.interface import Filter, MessageState, RecipientStatus, Stored
from lonedot.terms.ids import MessageId
from lonedot.testing.clock import ManualClock
from lonedot.testing.relay import running_relay
from tests.system.talk import (
    MESSAGE,
    connected,
    eventually,
    finished,
    first_config,
    id_of,
    reports_of,
    submit,
    until,
)
from tests.unit.delivery.peer import SILENCE, Peer, Received, running

OFFER = (b"PIPELINING", b"8BITMIME", b"SIZE 10000000", b"ENHANCEDSTATUSCODES")
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
EXACT = "jitter = 0"
BUSY = b"<anna@dest.example>"


def busy() -> Peer:
    """A next hop that never has room for anna, and takes everything else."""
    return Peer(OFFER, {BUSY: b"451 4.3.0 her mailbox is full\r\n"})


async def attempted(relay: Relay, id: MessageId, count: int) -> Stored:
    """The message after so many attempts, settled."""
    return await until(
        relay, id, lambda s: s.recipients[0].attempts == count and s.recipients[0].last is not None
    )


async def turn(relay: Relay, clock: ManualClock, seconds: float) -> None:
    """Let time pass when nothing is on its way, and the scheduler see it."""
    await eventually(lambda: relay.scheduler.active == 0)
    clock.advance(seconds)
    relay.scheduler.kick()


def report(received: Received) -> email.message.EmailMessage:
    """A report as a mail program sees it."""
    octets = received.octets[:-3].replace(b"\r\n..", b"\r\n.")
    return email.parser.BytesParser(policy=email.policy.default).parsebytes(octets)


def fields(received: Received) -> str:
    """The machine-readable part of a report."""
    part = next(p for p in report(received).walk() if p.get_content_type() == "message/delivery-status")
    return "\n".join(str(block) for block in part.get_payload())


async def test_a_rate_is_kept_and_the_oldest_go_first(tmp_path: Path) -> None:
    clock = ManualClock()
    async with (
        running(Peer(OFFER)) as peer,
        running_relay(tmp_path, first_config(peer.port, route='rate = "2/min"'), clock=clock) as relay,
    ):
        ids = [await submit(relay)]
        await finished(relay, ids[0])

        def waiting() -> list[int]:
            return [hop.ready for hop in relay.scheduler.hops()]

        for count, seconds in ((1, 0.0), (2, 29.0)):
            clock.advance(seconds)
            ids.append(await submit(relay))
            await eventually(lambda count=count: waiting() == [count])  # type: ignore[misc]
        assert len(peer.messages) == 1
        clock.advance(1.0)  # half a minute after the first
        ids.append(await submit(relay))
        await finished(relay, ids[1])
        assert (waiting(), len(peer.messages)) == ([2], 2)


async def test_the_schedule_is_kept_to_the_minute(tmp_path: Path) -> None:
    clock = ManualClock()
    async with (
        running(busy()) as peer,
        running_relay(tmp_path, first_config(peer.port, route=EXACT), clock=clock) as relay,
    ):
        id = await submit(relay)
        began = clock.now()
        stored = await attempted(relay, id, 1)
        for count, minutes in enumerate((1, 5, 15, 30, 60, 240, 240), 1):
            due = stored.recipients[0].next_at
            assert due - clock.now() == pytest.approx(minutes * MINUTE)
            await turn(relay, clock, due - clock.now() - 1)
            assert relay.spool.show(id).recipients[0].attempts == count
            await turn(relay, clock, 1)
            stored = await attempted(relay, id, count + 1)
    assert len(stored.attempts) == 8
    assert clock.now() - began == pytest.approx(591 * MINUTE)


async def test_a_retry_that_succeeds_ends_it_without_a_report(tmp_path: Path) -> None:
    clock = ManualClock()
    async with (
        running(busy()) as peer,
        running_relay(tmp_path, first_config(peer.port, route=EXACT), clock=clock) as relay,
    ):
        id = await submit(relay)
        await attempted(relay, id, 1)
        peer.answers.clear()
        await turn(relay, clock, 61)
        stored = await finished(relay, id)
        assert reports_of(relay, id) == []
    assert stored.recipients[0].status is RecipientStatus.DELIVERED
    assert [a.outcomes[0][1].result.value for a in stored.attempts] == ["deferred", "delivered"]


async def test_a_delay_is_told_once_and_an_expiry_ends_it(tmp_path: Path) -> None:
    """After 4 hours a notice, after 2 days a failure; both say what the next hop said."""
    clock = ManualClock()
    async with (
        running(busy()) as peer,
        running_relay(tmp_path, first_config(peer.port, route=EXACT), clock=clock) as relay,
    ):
        id = await submit(relay)
        count = 1
        stored = await attempted(relay, id, count)
        while stored.state is MessageState.QUEUED:
            await turn(relay, clock, stored.recipients[0].next_at - clock.now())
            count += 1
            stored = await attempted(relay, id, count)
            age = clock.now() - stored.accepted_at
            told = reports_of(relay, id)
            assert len(told) == (0 if age < 4 * HOUR else 1 if age < 2 * DAY else 2), age
        assert stored.recipients[0].status is RecipientStatus.EXPIRED
        assert clock.now() - stored.accepted_at == pytest.approx(2 * DAY)
        await eventually(lambda: len(peer.messages) == 2)
    delay, failure = peer.messages
    for received, action in ((delay, "delayed"), (failure, "failed")):
        assert received.mail.startswith(b"MAIL FROM:<>")
        assert received.recipients[-1] == b"RCPT TO:<c@office.example>"
        assert f"Action: {action}" in fields(received)
        assert "her mailbox is full" in fields(received)
        first = report(received).get_body()
        assert first is not None
        assert "anna@dest.example" in first.get_content()
    assert "Will-Retry-Until:" in fields(delay)
    assert "Will-Retry-Until:" not in fields(failure)


async def test_a_relay_that_was_down_for_days_tries_once_more_before_it_gives_up(tmp_path: Path) -> None:
    clock = ManualClock()
    async with running(busy()) as peer:
        toml = first_config(peer.port, route=EXACT)
        async with running_relay(tmp_path, toml, clock=clock) as relay:
            id = await submit(relay)
            await attempted(relay, id, 1)
        clock.advance(3 * DAY)
        peer.answers.clear()
        async with running_relay(tmp_path, toml, clock=clock) as relay:
            stored = await finished(relay, id)
    assert stored.recipients[0].status is RecipientStatus.DELIVERED


@pytest.mark.parametrize(
    ("notify", "after_delay", "after_expiry"),
    [("", 1, 2), (" NOTIFY=NEVER", 0, 0), (" NOTIFY=FAILURE", 0, 1), (" NOTIFY=DELAY", 1, 1)],
)
async def test_reports_are_those_asked_for(
    tmp_path: Path, notify: str, after_delay: int, after_expiry: int
) -> None:
    clock = ManualClock()
    async with (
        running(busy()) as peer,
        running_relay(tmp_path, first_config(peer.port, route=EXACT), clock=clock) as relay,
    ):
        async with connected(relay) as client:
            await client.say("MAIL FROM:<c@office.example> RET=HDRS ENVID=E1")
            assert (await client.say(f"RCPT TO:<anna@dest.example>{notify}")).startswith("250")
            id = id_of(await client.content())
        await attempted(relay, id, 1)
        await turn(relay, clock, 5 * HOUR)
        await attempted(relay, id, 2)
        assert len(reports_of(relay, id)) == after_delay
        await turn(relay, clock, 2 * DAY)
        await finished(relay, id)
        await eventually(lambda: len(reports_of(relay, id)) == after_expiry)
        await eventually(lambda: len(peer.messages) == after_expiry)
    for received in peer.messages:
        assert "Original-Envelope-Id: E1" in fields(received)
        assert b"first\r\n" not in received.octets  # RET=HDRS


async def test_a_failure_returns_the_whole_message_where_that_was_asked(tmp_path: Path) -> None:
    async with (
        running(Peer(OFFER, {BUSY: b"550 5.1.1 no anna here\r\n"})) as peer,
        running_relay(tmp_path, first_config(peer.port)) as relay,
    ):
        id = await submit(relay, parameters=" RET=FULL")
        await finished(relay, id)
        await eventually(lambda: len(peer.messages) == 1)
        assert [stored.envelope.reverse_path.octets for stored in reports_of(relay, id)] == [b""]
    words = report(peer.messages[0]).get_body()
    assert words is not None
    assert "550 5.1.1 no anna here" in words.get_content()
    assert b"Subject: hello\r\n\r\nfirst\r\n..second\r\n" in peer.messages[0].octets
    assert "Status: 5.1.1" in fields(peer.messages[0])
    assert "Diagnostic-Code: smtp; 550 5.1.1 no anna here" in fields(peer.messages[0])


async def test_a_report_that_expires_ends_in_badmail_and_causes_no_other(tmp_path: Path) -> None:
    clock = ManualClock()
    answers = {BUSY: b"550 5.1.1 no anna\r\n", b"<c@office.example>": b"450 4.2.0 the sender is away\r\n"}
    async with (
        running(Peer(OFFER, answers)) as peer,
        running_relay(tmp_path, first_config(peer.port, route=EXACT), clock=clock) as relay,
    ):
        id = await submit(relay)
        await finished(relay, id)
        (dsn,) = reports_of(relay, id)
        await attempted(relay, dsn.id, 1)
        await turn(relay, clock, 3 * DAY)
        await finished(relay, dsn.id)
        assert reports_of(relay, dsn.id) == []
        assert relay.spool.listing(Filter()) == []
    assert peer.messages == []
    badmail = tmp_path / "spool" / "badmail"
    (mail,) = badmail.glob("*.eml")
    assert b"no anna" in mail.read_bytes()
    (words,) = badmail.glob("*.txt")
    assert "neither delivered nor returned" in words.read_text()
    assert "the sender is away" in words.read_text()


async def test_mail_without_a_route_any_more_waits_and_goes_when_there_is_one(tmp_path: Path) -> None:
    """The configuration changed while mail waited."""
    clock = ManualClock()
    async with running(busy()) as peer:
        async with running_relay(tmp_path, first_config(peer.port, route=EXACT), clock=clock) as relay:
            id = await submit(relay)
            await attempted(relay, id, 1)
        peer.answers.clear()
        narrow = first_config(peer.port, route=EXACT).replace('to = "*"', 'to = "office.example"')
        clock.advance(MINUTE)
        async with running_relay(tmp_path, narrow, clock=clock) as relay:
            stored = await attempted(relay, id, 2)
            last = stored.recipients[0].last
            assert last is not None
            assert "no [[route]] takes anna@dest.example" in last.reason
        clock.advance(6 * MINUTE)  # without a route the usual jitter applies
        async with running_relay(tmp_path, first_config(peer.port, route=EXACT), clock=clock) as relay:
            await finished(relay, id)
    assert len(peer.messages) == 1


async def test_a_machine_that_slept_sends_nothing_twice(tmp_path: Path) -> None:
    """Hours pass between two turns of the loop, with a message on the wire: it is still ours."""
    clock = ManualClock()
    silent = Peer((b"8BITMIME",), {b"DATA": SILENCE})
    async with running(silent) as peer:
        toml = first_config(peer.port, server="drain_seconds = 0")
        async with running_relay(tmp_path, toml, clock=clock) as relay:
            id = await submit(relay)
            await eventually(lambda: b"DATA" in peer.commands)
            clock.advance(12 * HOUR)
            for _ in range(3):
                relay.scheduler.kick()
                await submit(relay, MESSAGE, "b@d.example")
            await eventually(lambda: peer.commands.count(b"DATA") == 4)
            assert peer.commands.count(b"RCPT TO:<anna@dest.example>") == 1
            assert relay.spool.show(id).recipients[0].attempts == 0


async def test_history_ends(tmp_path: Path) -> None:
    clock = ManualClock()
    async with (
        running(Peer(OFFER)) as peer,
        running_relay(tmp_path, first_config(peer.port), clock=clock) as relay,
    ):
        old = await submit(relay, MESSAGE)
        await finished(relay, old)
        clock.advance(8 * DAY)
        young = await submit(relay, MESSAGE)
        await finished(relay, young)
        await relay._purge()
        rows = relay.spool.listing(Filter(states=(MessageState.FINISHED,)))
    assert [row.id for row in rows] == [young]
