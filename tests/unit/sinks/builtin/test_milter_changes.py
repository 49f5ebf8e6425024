"""What a milter changes: each change as an edit that touches nothing else."""

from __future__ import annotations

import pytest

from lonedot.message.ledger import Action
from lonedot.sinks.builtin.milter import Milter
from lonedot.sinks.calls import Decision, Dispatched
from lonedot.sinks.load import bind
from tests.peers.milter import CONTINUE, ScriptedMilter, change, pack
from tests.unit.sinks.builtin.milter_driver import (
    MAIL,
    ONE,
    TRACE,
    after,
    binding,
    dispatched,
)


def header_after(done: Dispatched) -> bytes:
    """What stands behind our own trace field."""
    assert done.content.head.startswith(TRACE)
    return done.content.head[len(TRACE) :]


HEAD = MAIL.partition(b"\r\n\r\n")[0][len(TRACE) :] + b"\r\n\r\n"


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        (change(b"h", b"X-New", b"v"), HEAD[:-2] + b"X-New: v\r\n\r\n"),
        (change(b"h", b"X-New", b"one\n\ttwo"), HEAD[:-2] + b"X-New: one\r\n\ttwo\r\n\r\n"),
        (change(b"h", b"X-New", b"one\r\n\ttwo\n"), HEAD[:-2] + b"X-New: one\r\n\ttwo\r\n\r\n"),
        (change(b"i", b"X-New", b"v", index=1), b"X-New: v\r\n" + HEAD),
        (change(b"i", b"X-New", b"v", index=2), HEAD.replace(b"Subject", b"X-New: v\r\nSubject")),
        (change(b"i", b"X-New", b"v", index=99), HEAD[:-2] + b"X-New: v\r\n\r\n"),
        (
            change(b"i", b"X-A", b"1", index=1) + change(b"i", b"X-B", b"2", index=1),
            b"X-B: 2\r\nX-A: 1\r\n" + HEAD,
        ),
        (change(b"m", b"x-n", b"w", index=2), HEAD.replace(b"X-N:2", b"x-n: w")),
        (change(b"m", b"X-N", b"", index=2), HEAD.replace(b"X-N:2\r\n", b"")),
        (change(b"m", b"X-N", b"", index=0), HEAD.replace(b"X-N: 1\r\n", b"")),
        (change(b"m", b"X-N", b"", index=9), HEAD),
        (change(b"m", b"X-N", b"w", index=9), HEAD[:-2] + b"X-N: w\r\n\r\n"),
        (change(b"m", b"X-Other", b"w", index=1), HEAD[:-2] + b"X-Other: w\r\n\r\n"),
        # Those behind one that is taken away move up.
        (
            change(b"m", b"X-N", b"", index=1) + change(b"m", b"X-N", b"", index=1),
            HEAD.replace(b"X-N: 1\r\nX-N:2\r\n", b""),
        ),
        (
            change(b"h", b"X-N", b"4") + change(b"m", b"X-N", b"five", index=4),
            HEAD[:-2] + b"X-N: five\r\n\r\n",
        ),
        # What says the same keeps its octets, folds and all.
        (change(b"m", b"Subject", b"one two", index=1), HEAD),
        # Our own trace field is neither shown nor counted.
        (change(b"m", b"Received", b"", index=1), HEAD),
        (change(b"m", b"Received", b"by x; now", index=1), HEAD[:-2] + b"Received: by x; now\r\n\r\n"),
    ],
)
async def test_header_fields(changes: bytes, wanted: bytes) -> None:
    with ScriptedMilter({b"E": changes + CONTINUE}) as milter:
        done = await dispatched(binding(milter))
    assert (done.decision, done.words) == (Decision.ACCEPT, "")
    assert header_after(done) == wanted
    assert done.content.body.octets() == b"text\r\n.dot\r\n"


async def test_index_0_is_above_our_own_trace_field() -> None:
    with ScriptedMilter({b"E": change(b"i", b"X-New", b"v", index=0) + CONTINUE}) as milter:
        done = await dispatched(binding(milter))
    assert after(done) == b"X-New: v\r\n" + MAIL


async def test_received_fields_above_and_below_ours() -> None:
    octets = TRACE + b"Received: old\r\n" + MAIL[len(TRACE) :]
    changes = change(b"i", b"Received", b"new", index=0) + change(b"m", b"Received", b"", index=2)
    with ScriptedMilter({b"E": changes + CONTINUE}) as milter:
        done = await dispatched(binding(milter), octets=octets)
    assert after(done) == b"Received: new\r\n" + MAIL


async def test_a_long_line_is_folded() -> None:
    value = b"word " * 300
    with ScriptedMilter({b"E": change(b"h", b"X-Long", value) + CONTINUE}) as milter:
        done = await dispatched(binding(milter))
    assert done.decision is Decision.ACCEPT
    assert max(map(len, done.content.head.split(b"\r\n"))) <= 78
    (field,) = done.content.head.split(b"X-Long")[1:]
    assert field.split() == [b":", *[b"word"] * 300]


@pytest.mark.parametrize("size", [10, 400_000])
async def test_another_body_comes_in_pieces(size: int) -> None:
    body = b"new line\r\n" * (size // 10)
    pieces = b"".join(pack(b"b", body[start : start + 65535]) for start in range(0, len(body), 65535))
    with ScriptedMilter({b"E": pieces + CONTINUE}) as milter:
        done = await dispatched(binding(milter), octets=MAIL + b"more\r\n" * 30_000)
    assert (done.decision, done.words) == (Decision.ACCEPT, "")
    assert done.content.body.octets() == body
    (entry,) = done.entries
    assert entry.action is Action.KEPT


@pytest.mark.parametrize("body", [b"text\r\n.dot\r\n", b"text\n.dot\n"])
async def test_the_same_body_is_no_change(body: bytes) -> None:
    with ScriptedMilter({b"E": pack(b"b", body) + CONTINUE}) as milter:
        done = await dispatched(binding(milter))
    assert after(done) == MAIL
    assert done.entries[0].changes == ()


async def test_a_body_with_lf_for_line_ends_is_put_right() -> None:
    with ScriptedMilter({b"E": pack(b"b", b"other\ntext\n") + CONTINUE}) as milter:
        done = await dispatched(binding(milter))
    assert (done.decision, done.content.body.octets()) == (Decision.ACCEPT, b"other\r\ntext\r\n")


async def test_a_body_that_is_damage_is_held() -> None:
    with ScriptedMilter({b"E": pack(b"b", b"other\r\ntext\nmore\0") + CONTINUE}) as milter:
        done = await dispatched(binding(milter))
    assert done.decision is Decision.HOLD
    assert after(done) == MAIL


async def test_the_envelope() -> None:
    changes = (
        change(b"+", b"<new@example.org>")
        + change(b"+", b"<b@example.org>")
        + change(b"2", b"<more@example.org>", b"NOTIFY=NEVER")
        + change(b"-", b"<C@example.org>")
        + change(b"-", b"<nobody@example.org>")
        + change(b"e", b"<bounces@example.com>", b"RET=HDRS")
    )
    with ScriptedMilter({b"E": changes + CONTINUE}) as milter:
        done = await dispatched(binding(milter), ONE, "c@example.org")
    assert done.envelope.reverse_path.octets == b"bounces@example.com"
    assert [one.address.local for one in done.envelope.recipients] == [b"b", b"new", b"more"]


async def test_the_null_sender() -> None:
    with ScriptedMilter({b"E": change(b"e", b"<>") + CONTINUE}) as milter:
        done = await dispatched(binding(milter))
    assert done.envelope.reverse_path.is_null


async def test_nobody_left_is_discarded() -> None:
    with ScriptedMilter({b"E": change(b"-", b"<b@example.org>") + CONTINUE}) as milter:
        done = await dispatched(binding(milter))
    assert (done.decision, done.words) == (Decision.DISCARD, "the milter has left no recipient")


async def test_a_refusal_takes_nothing_of_what_was_changed() -> None:
    with ScriptedMilter({b"E": change(b"h", b"X-New", b"v") + pack(b"r")}) as milter:
        done = await dispatched(binding(milter))
    assert done.decision is Decision.REJECT
    assert after(done) == MAIL


async def test_what_the_binding_does_not_declare_is_not_taken() -> None:
    with ScriptedMilter({b"E": pack(b"b", b"other\r\n") + CONTINUE}) as milter:
        bound = bind(
            Milter,
            sink_class="lonedot.sinks.builtin.milter:Milter",
            settings={"address": milter.address},
            effects=["header"],
        )
        done = await dispatched(bound)
    assert done.decision is Decision.HOLD
    assert after(done) == MAIL
