"""Standing hold rules: how they are written, and what making and ending one does."""

from __future__ import annotations

import msgspec
import pytest

from lonedot.admin.hold_rules import ADD, REMOVE, RULES, TAKE, NewRule, RuleNumber, held_by, parse_rule
from lonedot.admin.operations import Desk, select
from lonedot.admin.values import AdminError, NoArguments
from lonedot.spool.hold_rules import HoldRule
from lonedot.spool.interface import MessageState
from lonedot.terms.ids import IdSource
from lonedot.testing.messages import acceptance
from lonedot.testing.spool import MemorySpool
from tests.unit.admin.spool_double import FixedClock, Hooks


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("to=*@example.com", {"recipient": "@example.com"}),
        ("to=anna@example.com", {"recipient": "anna@example.com"}),
        ("from=@example.com larger=20k", {"sender": "@example.com", "larger": 20_000}),
        ("sender=a@b recipient=c@d", {"sender": "a@b", "recipient": "c@d"}),
        ("domain=example.com smaller=3M", {"domain": "example.com", "smaller": 3_000_000}),
        ("client=192.0.2.*", {"client": "192.0.2."}),
        ("client=192.0.2.7", {"client": "192.0.2.7"}),
    ],
)
def test_what_a_person_writes(text: str, said: dict[str, str | int]) -> None:
    assert parse_rule(text) == msgspec.convert({"number": 0, "text": text, "reason": "", **said}, HoldRule)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "to",
        "to=",
        "to=*",
        "to=example.com",
        "to=a*@example.com",
        "to=a@",
        "domain=*@*",
        "client=*",
        "client=192.0.2*",
        "larger=0",
        "larger=much",
        "subject=scan",
        "to=a@b to=c@d",
        "x" * 2000,
    ],
)
def test_what_is_no_rule(text: str) -> None:
    with pytest.raises(AdminError):
        parse_rule(text)


async def test_a_rule_holds_what_waits_and_what_comes_until_it_ends() -> None:
    spool, hooks, ids = MemorySpool(), Hooks(), IdSource()
    desk = Desk(spool, FixedClock(100.0), hooks=hooks, asker=7)
    waits, other = (
        acceptance(ids.next(1.0), 1.0, recipients=(address,))
        for address in ("a@example.com", "a@example.net")
    )
    await spool.accept((waits, other))
    rule = await ADD.run(desk, NewRule("to=a@example.com", "moved"))
    assert (rule.number, rule.made_at, rule.made_by) == (1, 100.0, 7)
    assert (await RULES.run(desk, NoArguments())).rules == (rule,)
    assert (await TAKE.run(desk, NoArguments())).held == 1
    assert waits.id in hooks.forgotten
    assert (await TAKE.run(desk, NoArguments())).held == 0
    assert spool.show(waits.id).reason == "held by rule 1: moved"
    assert spool.show(other.id).state is MessageState.QUEUED
    comes = acceptance(ids.next(2.0), 2.0, recipients=("a@example.com",))
    await spool.accept((comes,))
    assert spool.show(comes.id).state is MessageState.HELD
    with pytest.raises(AdminError, match="rule 1 says that already"):
        await ADD.run(desk, NewRule("to=a@example.com"))
    with pytest.raises(AdminError, match="there are: 1"):
        await REMOVE.run(desk, RuleNumber(2))
    assert await REMOVE.run(desk, RuleNumber(1)) == rule
    goes = acceptance(ids.next(3.0), 3.0, recipients=("a@example.com",))
    await spool.accept((goes,))
    assert spool.show(goes.id).state is MessageState.QUEUED
    assert spool.show(comes.id).state is MessageState.HELD
    assert (await ADD.run(desk, NewRule("to=a@example.com"))).number == 2  # a number is given once
    assert set((await select(desk, held_by(rule))).ids) >= {waits.id, comes.id}
