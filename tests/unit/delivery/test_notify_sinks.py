"""Sinks of `dsn`: what they see of a report, and what becomes of it."""

from __future__ import annotations

import asyncio
from itertools import count
from pathlib import Path

import pytest

from lonedot.delivery.notify import Notifier
from lonedot.delivery.routing import RouteTable
from lonedot.message.edits import Edit
from lonedot.message.findings import Code
from lonedot.message.fold import fold
from lonedot.message.ledger import Action
from lonedot.message.report import ReportKind
from lonedot.queue import plan
from lonedot.sinks.bindings import Binding, Chains, OnDamage, OnError, chains_of
from lonedot.sinks.calls import Answer, Call
from lonedot.sinks.events import Event
from lonedot.sinks.inquiry import HopCall
from lonedot.sinks.verdicts import Discard, Hold, Next, Redirect, Verdict
from lonedot.sinks.view import Message
from lonedot.spool.interface import Acceptance, Claim, MessageState
from lonedot.terms.ids import MessageId
from tests.unit.delivery.outbound import claim, message
from tests.unit.delivery.test_delivery_sinks import BOTH, Seen, bound, elsewhere, raising
from tests.unit.delivery.test_notify import FAILED, StoppedClock, state

FAILURE = plan.Report(plan.ReportKind.FAILURE, (state(0, FAILED), state(1, FAILED)))


class Made:
    """What a notifier made of one failure."""

    def __init__(self, folder: Path, *bindings: Binding) -> None:
        self.discarded: list[tuple[Claim, Acceptance]] = []
        chains = chains_of(bindings, "r7", frozenset({"out", "other"}))
        numbers = count(1)
        self.notifier = Notifier(
            "relay.example.com",
            lambda server: folder,
            RouteTable([]),
            lambda id: message(),
            lambda: MessageId(f"dsn{next(numbers)}"),
            StoppedClock(),
            lambda server: chains if server == 1 else Chains(),
            elsewhere,
            lambda of, report: self.discarded.append((of, report)),
        )

    async def reports(self) -> list[Acceptance]:
        return list(await self.notifier.report(claim(b"r0@example.org", b"r1@example.org"), [FAILURE]))

    async def report(self) -> Acceptance:
        (made,) = await self.reports()
        return made


@BOTH
async def test_a_sink_sees_the_report_and_what_it_speaks_of(tmp_path: Path, apart: bool) -> None:
    seen = Seen(Next([Edit.add_field("X-Desk", "help@example.com")]))
    report = await Made(tmp_path, bound(Event.DSN, seen.message, "desk", apart=apart)).report()
    (shown,) = seen.messages
    assert shown.report is ReportKind.FAILURE
    assert [(one.address.text, outcome.status) for one, outcome in shown.outcomes] == [
        ("r0@example.org", "5.1.1"),
        ("r1@example.org", "5.1.1"),
    ]
    assert [one.address.text for one in shown.envelope.recipients] == ["a@example.com"]
    with pytest.raises(LookupError):
        _ = shown.hop
    (entry,) = report.ledger
    assert (entry.binding, entry.event, entry.action, entry.revision) == ("desk", "dsn", Action.KEPT, "r7")
    content = fold(report.arrival, report.ledger, 0, verify=True)
    assert content.head.startswith(b"X-Desk: help@example.com\r\n")
    assert report.size == content.size
    assert report.state is MessageState.QUEUED


def spoiling(shown: Message) -> Verdict:
    return Next([Edit.replace_field("Content-Type", "text/plain")])


def forging(shown: Message) -> Verdict:
    octets = shown.octets()
    place = octets.index(b"Status: 5.1.1") - len(shown.content.head)
    return Next([Edit.splice_body(place, place + 13, b"Status: 4.1.1")])


@BOTH
@pytest.mark.parametrize("call", [spoiling, forging])
@pytest.mark.parametrize("on_damage", [OnDamage.UNDO, OnDamage.REPAIR, OnDamage.HOLD])
async def test_what_would_be_no_report_any_more_is_damage(
    tmp_path: Path, apart: bool, call: object, on_damage: OnDamage
) -> None:
    assert call in (spoiling, forging)
    spoils = bound(
        Event.DSN, spoiling if call is spoiling else forging, "spoiler", apart=apart, on_damage=on_damage
    )
    report = await Made(tmp_path, spoils).report()
    (entry,) = report.ledger
    assert entry.changes == ()
    assert Code.REPORT_BROKEN in [finding.code for finding in entry.findings]
    held = on_damage is OnDamage.HOLD
    assert report.state is (MessageState.HELD if held else MessageState.QUEUED)
    assert report.reason.startswith("spoiler") if held else not report.reason


def adding_words(shown: Message) -> Verdict:
    place = shown.octets().index(b"\r\n\r\n", len(shown.content.head)) + 4 - len(shown.content.head)
    return Next([Edit.splice_body(place, place, b"Ask the help desk.\r\n")])


async def test_words_for_people_may_be_added(tmp_path: Path) -> None:
    report = await Made(tmp_path, bound(Event.DSN, adding_words)).report()
    assert report.ledger[0].action is Action.KEPT
    assert b"Ask the help desk." in fold(report.arrival, report.ledger, 0, verify=True).octets()


@BOTH
async def test_a_report_that_a_sink_discards_is_not_sent_and_told_of(tmp_path: Path, apart: bool) -> None:
    made = Made(tmp_path, bound(Event.DSN, Seen(Discard("known")).message, "desk", apart=apart))
    assert await made.reports() == []
    ((_, report),) = made.discarded
    assert [(entry.verdict, entry.words) for entry in report.ledger] == [("discard", "known")]


async def test_a_report_that_a_sink_holds_waits_for_a_person(tmp_path: Path) -> None:
    report = await Made(tmp_path, bound(Event.DSN, Seen(Hold("look")).message, "desk")).report()
    assert (report.state, report.reason) == (MessageState.HELD, "desk: look")


async def test_a_report_goes_over_the_route_that_a_sink_names(tmp_path: Path) -> None:
    report = await Made(tmp_path, bound(Event.DSN, Seen(Redirect("other")).message)).report()
    assert [one.redirect for one in report.recipients] == ["other"]


@pytest.mark.parametrize(
    ("on_error", "held"),
    [(OnError.DEFER, True), (OnError.REJECT, True), (OnError.HOLD, True), (OnError.SKIP, False)],
)
async def test_a_sink_that_fails_costs_nobody_a_report(tmp_path: Path, on_error: OnError, held: bool) -> None:
    report = await Made(tmp_path, bound(Event.DSN, raising, "broken", on_error=on_error)).report()
    assert report.state is (MessageState.HELD if held else MessageState.QUEUED)
    assert report.ledger[0].fault == "raised"


async def test_another_server_has_sinks_of_its_own(tmp_path: Path) -> None:
    seen = Seen()
    made = Made(tmp_path, bound(Event.OUTCOME, seen.message))
    assert (await made.report()).ledger == ()


async def test_a_stop_while_a_sink_thinks_reaches_who_waits(tmp_path: Path) -> None:
    async def never(call: Call | HopCall) -> Answer:
        await asyncio.Event().wait()
        raise AssertionError

    made = Made(tmp_path, bound(Event.DSN, Seen().message, apart=True))
    made.notifier._elsewhere = never
    task = asyncio.ensure_future(made.reports())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
