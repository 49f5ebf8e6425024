"""What ends on this machine, seen from the courier: nowhere, held, sinks of attempts, reports of success."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from lonedot.delivery.classify import HANDED_OVER
from lonedot.delivery.drop import DROPPED
from lonedot.delivery.maildir import DELIVERED
from lonedot.delivery.notify import due_reports
from lonedot.delivery.pipe import TAKEN
from lonedot.delivery.routing import Discard, Hold, Maildir
from lonedot.message.edits import Edit
from lonedot.message.fold import fold
from lonedot.message.report import ReportKind
from lonedot.queue import plan
from lonedot.sinks.events import Event
from lonedot.sinks.verdicts import Defer, Next, Reject, Verdict
from lonedot.sinks.view import Message
from lonedot.spool.interface import RecipientState, RecipientStatus
from lonedot.terms.address import Address
from lonedot.terms.envelope import Recipient
from lonedot.terms.outcome import Outcome, Result, Stage
from tests.unit.delivery.outbound import claim, message, outbound, route
from tests.unit.delivery.test_delivery_sinks import BOTH, Seen, bound, chains, elsewhere

ANNA, BEN = b"anna@example.org", b"ben@example.org"


def mailboxes(folder: Path) -> Path:
    for user in ("anna", "ben"):
        for name in ("tmp", "new", "cur"):
            (folder / user / name).mkdir(parents=True)
    return folder


def filed(folder: Path, user: str) -> list[bytes]:
    return [path.read_bytes() for path in (folder / user / "new").iterdir()]


async def test_what_is_discarded_counts_as_delivered_and_is_not_read() -> None:
    async with outbound(route(0, target=Discard())) as out:
        what = claim(ANNA, BEN)
        out.stored[what.message.id] = RuntimeError("it must not be read")
        delivery = await out.send(type(what)(what.message, what.epoch, None))
    (attempt,) = delivery.attempts
    assert [index for index, _ in attempt.outcomes] == [0, 1]
    for _, outcome in attempt.outcomes:
        assert (outcome.result, outcome.stage) == (Result.DELIVERED, Stage.ROUTE)
        assert outcome.reason == "discarded by route out"
    assert attempt.wire is None


async def test_a_route_holds_with_its_words() -> None:
    async with outbound(route(0, target=Hold("to be looked at"))) as out:
        delivery = await out.send(claim(ANNA))
    assert delivery.hold == "route out: to be looked at"
    assert delivery.outcomes == () and not delivery.is_altered


def test_success_is_reported_as_delivered_but_for_what_was_discarded() -> None:
    reasons = (DELIVERED, TAKEN, HANDED_OVER, DROPPED, "discarded by route out")
    states = tuple(
        RecipientState(
            index,
            Recipient(Address(ANNA)),
            RecipientStatus.DELIVERED,
            last=Outcome(Result.DELIVERED, Stage.CONTENT, reason),
        )
        for index, reason in enumerate(reasons)
    )
    report = plan.Report(plan.ReportKind.SUCCESS, states)
    ((kind, told),) = due_reports(claim(ANNA).message, [report])
    assert kind is ReportKind.SUCCESS
    assert [state.index for state in told] == [0, 1, 2, 3]


@BOTH
async def test_sinks_see_and_edit_a_copy_that_is_filed(tmp_path: Path, apart: bool) -> None:
    seen = Seen()

    def add(shown: Message) -> Verdict:
        return Next(edits=[Edit.add_field("X-Filed", shown.hop.next_hop)])

    over = route(0, target=Maildir(f"{mailboxes(tmp_path)}/{{local}}"))
    both = chains(
        bound(Event.MESSAGE_START, add, "edits", apart=apart),
        bound(Event.OUTCOME, seen.message, "looks", apart=apart),
    )
    what = claim(ANNA, content=message(b"text\r\n"))
    async with outbound(over, chains=both, elsewhere=elsewhere) as out:
        delivery = await out.send(what)
    (octets,) = filed(tmp_path, "anna")
    head = octets.partition(b"\n\n")[0]
    # The trace fields are the last thing that is done to it, so they stand first.
    assert head.startswith(b"Return-Path: <a@example.com>\nDelivered-To: anna@example.org\n")
    assert f"X-Filed: maildir:{tmp_path}/anna".encode() in head
    (attempt,) = delivery.attempts
    assert what.arrival is not None
    made = fold(what.arrival, attempt.suffix, 0).octets().replace(b"\r\n", b"\n")
    assert made == octets
    assert [outcome.result for _, outcome in seen.messages[0].outcomes] == [Result.DELIVERED]


@BOTH
@pytest.mark.parametrize(
    ("verdict", "result"), [(Reject("no"), Result.FAILED), (Defer("later"), Result.DEFERRED)]
)
async def test_a_sink_refuses_one_recipient_and_the_other_is_filed(
    tmp_path: Path, apart: bool, verdict: Verdict, result: Result
) -> None:
    def judge(shown: Message) -> Verdict:
        return verdict if shown.recipient.address.octets == ANNA else Next()

    over = route(0, target=Maildir(f"{mailboxes(tmp_path)}/{{local}}"))
    one = chains(bound(Event.PER_RECIPIENT, judge, apart=apart))
    async with outbound(over, chains=one, elsewhere=elsewhere) as out:
        delivery = await out.send(claim(ANNA, BEN))
    found = {index: outcome.result for index, outcome in delivery.outcomes}
    assert found == {0: result, 1: Result.DELIVERED}
    assert filed(tmp_path, "anna") == [] and len(filed(tmp_path, "ben")) == 1


async def test_many_messages_for_one_mailbox_have_names_of_their_own(tmp_path: Path) -> None:
    over = route(0, target=Maildir(f"{mailboxes(tmp_path)}/{{local}}"), connections=4)
    async with outbound(over) as out:
        deliveries = await asyncio.gather(*(out.send(claim(ANNA, BEN)) for _ in range(25)))
    assert all(outcome.result is Result.DELIVERED for one in deliveries for _, outcome in one.outcomes)
    assert len(filed(tmp_path, "anna")) == len(filed(tmp_path, "ben")) == 25


async def test_what_waits_when_the_relay_stops_is_not_tried(tmp_path: Path) -> None:
    over = route(0, target=Maildir(f"{mailboxes(tmp_path)}/{{local}}"), connections=1)
    async with outbound(over) as out:
        waiting = [out.post(claim(ANNA)) for _ in range(3)]
        await out.courier.close(5)
        deliveries = [await asyncio.wait_for(one, 5) for one in waiting]
    # The first had begun, and was waited for.
    assert [len(one.outcomes) for one in deliveries] == [1, 0, 0]
    assert len(filed(tmp_path, "anna")) == 1
    assert list((tmp_path / "anna" / "tmp").iterdir()) == []
