"""Standing rules: they hold what a listing with the same filter shows, and no crash leaves one half applied."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lonedot.spool.hold_rules import HoldRule, HoldRules, read_rules, write_rules
from lonedot.spool.interface import (
    Acceptance,
    Facts,
    Filter,
    MessageState,
    Settlement,
    SpoolFault,
    SpoolPaths,
)
from lonedot.spool.sqlite import Policy, SqliteSpool, open_spool
from lonedot.terms.ids import IdSource, MessageId, SessionId
from lonedot.testing.clock import ManualClock
from lonedot.testing.messages import acceptance

BEGAN = 1_700_000_000.0
RULE = HoldRule(1, "to=*@example.org", "broken", recipient="@example.org")


def _open(folder: Path) -> SqliteSpool:
    return open_spool(SpoolPaths(folder / "spool"), ManualClock(), Policy(inline_sync=True))


def _new(ids: IdSource, *recipients: str, client: str = "192.0.2.1", owner: str = "") -> Acceptance:
    made = acceptance(ids.next(BEGAN), BEGAN, recipients=recipients, owner=owner)
    return msgspec.structs.replace(made, facts=Facts("smtp", SessionId("s"), client=client))


ADDRESSES = st.sampled_from(
    ("a@x.example", "A@X.example", "b@x.example", "a@y.example", "ä@x.example", "x.example")
)
ASKED = st.sampled_from(
    ("", "a@x.example", "@x.example", "@X.EXAMPLE", "@example", "ä@x.example", "Ä@x.example")
)
MESSAGES = st.tuples(
    ADDRESSES,
    st.lists(ADDRESSES, min_size=1, max_size=3),
    st.sampled_from(("192.0.2.1", "192.0.20.1", "2001:db8::1", "A.eml", "")),
    st.integers(0, 3),
)
RULES = st.builds(
    HoldRule,
    number=st.just(1),
    text=st.just("x"),
    reason=st.just("x"),
    sender=ASKED,
    recipient=ASKED,
    domain=st.sampled_from(("", "x.example", "Y.example")),
    client=st.sampled_from(("", "192.0.2.", "192.0.2.1", "2001:DB8:", "a.EML")),
    larger=st.integers(0, 3),
    smaller=st.integers(0, 3),
)


async def test_a_rule_holds_what_the_listing_shows(tmp_path: Path) -> None:
    """One spool for all examples; each empties it."""
    spool = _open(tmp_path)
    ids = IdSource()

    async def judge(messages: list[tuple[str, list[str], str, int]], rule: HoldRule) -> None:
        expected = set()
        for sender, recipients, client, size in messages:
            made = acceptance(ids.next(BEGAN), BEGAN, sender=sender, recipients=tuple(recipients))
            facts = Facts("smtp", SessionId("s"), client=client)
            await spool.accept((msgspec.structs.replace(made, facts=facts, size=size),))
            if rule.holds(sender, recipients, client, size):
                expected.add(made.id)
        found = await spool.select(Filter.of_rule(rule, 100))
        assert set(found) == expected
        await spool.delete(await spool.select(Filter()), BEGAN)
        await spool.purge(BEGAN * 2, 100)

    import asyncio

    loop = asyncio.get_running_loop()

    @settings(suppress_health_check=list(HealthCheck), deadline=None)
    @given(messages=st.lists(MESSAGES, max_size=5), rule=RULES)
    def examples(messages: list[tuple[str, list[str], str, int]], rule: HoldRule) -> None:
        asyncio.run_coroutine_threadsafe(judge(messages, rule), loop).result()

    await asyncio.to_thread(examples)
    await spool.close()


async def test_new_messages_are_held_before_anybody_has_them(tmp_path: Path) -> None:
    spool = _open(tmp_path)
    ids = IdSource()
    before = _new(ids, "a@example.org")
    await spool.accept((before,))
    spool.write_rules(HoldRules(1, (RULE,)))
    assert spool.held_by(before.envelope, before.facts, before.size) == ""
    assert await spool.take_rules() == [RULE]
    held, free = _new(ids, "b@example.net", "c@EXAMPLE.org"), _new(ids, "b@example.net")
    assert spool.held_by(held.envelope, held.facts, held.size) == "held by rule 1: broken"
    await spool.accept((held, free))
    assert spool.show(held.id).state is MessageState.HELD
    assert spool.show(held.id).reason == "held by rule 1: broken"
    claims = await spool.claim("me", BEGAN + 1, 60, 10)
    assert {claim.message.id for claim in claims} == {before.id, free.id}
    (mine,) = [claim for claim in claims if claim.message.id == free.id]
    copy = _new(ids, "d@example.org")
    await spool.settle((Settlement(free.id, mine.epoch, spawned=(copy,)),))
    assert spool.show(copy.id).state is MessageState.HELD
    await spool.close()


async def test_the_next_opening_applies_what_was_not_applied_and_nothing_twice(tmp_path: Path) -> None:
    ids = IdSource()
    message = _new(ids, "a@example.org")
    spool = _open(tmp_path)
    await spool.accept((message,))
    spool.write_rules(HoldRules(1, (RULE,)))
    await spool.close()

    spool = _open(tmp_path)
    assert spool.show(message.id).reason == RULE.words
    assert await spool.take_rules() == []
    await spool.release((message.id,), BEGAN)
    await spool.close()

    spool = _open(tmp_path)
    assert spool.show(message.id).state is MessageState.QUEUED  # a person has let this one go
    await spool.close()


async def test_taking_rules_waits_for_what_was_accepted_before(tmp_path: Path) -> None:
    spool = _open(tmp_path)
    ids = IdSource()
    large = acceptance(ids.next(BEGAN), BEGAN, body=b"large\r\n" * 60_000)
    body = spool.body_writer(large.id)
    for chunk in large.arrival.body.chunks():
        body.write(chunk)
    arrival = msgspec.structs.replace(large.arrival, body=body.finish())
    accepting = spool.accept((msgspec.structs.replace(large, arrival=arrival),))
    spool.write_rules(HoldRules(1, (RULE,)))
    await spool.take_rules()
    assert accepting.done()
    assert await spool.select(Filter.of_rule(RULE, 10)) == [MessageId(large.id)]
    await spool.close()


def test_a_file_that_is_no_list_of_rules_says_what_to_do(tmp_path: Path) -> None:
    write_rules(tmp_path, HoldRules(1, (RULE,)))
    assert read_rules(tmp_path) == HoldRules(1, (RULE,))
    (tmp_path / "holds.json").write_text('{"newest": "x"}')
    with pytest.raises(ValueError, match="move it away"):
        read_rules(tmp_path)


async def test_a_spool_with_such_a_file_does_not_open(tmp_path: Path) -> None:
    await _open(tmp_path).close()
    (tmp_path / "spool" / "holds.json").write_text("[")
    with pytest.raises(SpoolFault, match=r"holds\.json"):
        _open(tmp_path)
    (tmp_path / "spool" / "holds.json").unlink()
    await _open(tmp_path).close()


def test_the_first_rule_that_is_about_it_says_why() -> None:
    other = HoldRule(2, "larger=10", "too large", larger=10)
    rules = HoldRules(2, (RULE, other))
    assert rules.words_for("", ["a@example.org"], "", 50) == "held by rule 1: broken"
    assert rules.words_for("", ["a@example.net"], "", 50) == "held by rule 2: too large"
    assert rules.words_for("", ["a@example.net"], "", 5) == ""
