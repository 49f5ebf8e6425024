"""Dispatch: role, `on_damage` and what came back decide what is taken, what is booked, and what becomes of the mail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import msgspec
import pytest

from lonedot.message.content import FileBody
from lonedot.message.edits import Edit, Effect
from lonedot.message.findings import Code, Severity
from lonedot.message.ledger import Action
from lonedot.sinks.bindings import OnDamage, OnError, Role
from lonedot.sinks.calls import WORDS_LIMIT, Decision
from lonedot.sinks.verdicts import Defer, Discard, Hold, Next, Reject, Stop, Verdict
from lonedot.sinks.view import Message
from lonedot.terms.address import Address
from lonedot.terms.envelope import Envelope, Recipient
from tests.unit.sinks.making import CONTENT, ENVELOPE, OCTETS, binding, editing, rewriting, run

HEADER, BODY, ENV = Effect.HEADER, Effect.BODY, Effect.ENVELOPE
FIELD = Edit.add_field("X-Seen", "yes")
SEEN = b"X-Seen: yes\r\n" + OCTETS
TORN = Edit.replace_body(b"one line\nanother")
NUL = Edit.replace_body(b"a\0b\r\n")
LONG = Edit.replace_body(b"x" * 1200 + b"\r\n")
REPAIRED = OCTETS[: OCTETS.index(b"\r\n\r\n") + 4] + b"one line\r\nanother\r\n"

COSMETIC, PROTECTIVE = Role.COSMETIC, Role.PROTECTIVE
UNDO, REPAIR, HOLD, REJECT = OnDamage.UNDO, OnDamage.REPAIR, OnDamage.HOLD, OnDamage.REJECT
ACCEPTED = Decision.ACCEPT


def faulty_header(octets: bytes) -> bytes:
    """A field more, and the body with LF for some of its line ends."""
    return b"X-Seen: yes\r\n" + octets.replace(b"line.\r\n.a", b"line.\n.a")


@pytest.mark.parametrize(
    ("name", "call", "role", "on_damage", "decision", "action", "octets"),
    [
        ("a good edit", editing(FIELD), COSMETIC, UNDO, ACCEPTED, Action.KEPT, SEEN),
        ("a good edit", editing(FIELD), PROTECTIVE, HOLD, ACCEPTED, Action.KEPT, SEEN),
        ("no edit", editing(), COSMETIC, UNDO, ACCEPTED, Action.UNCHANGED, OCTETS),
        ("torn lines", editing(TORN), COSMETIC, UNDO, ACCEPTED, Action.UNDONE, OCTETS),
        ("torn lines", editing(TORN), COSMETIC, REPAIR, ACCEPTED, Action.REPAIRED, REPAIRED),
        ("torn lines", editing(TORN), COSMETIC, HOLD, Decision.HOLD, Action.HELD, OCTETS),
        ("torn lines", editing(TORN), COSMETIC, REJECT, Decision.REJECT, Action.REJECTED, OCTETS),
        ("torn lines", editing(TORN), PROTECTIVE, HOLD, Decision.HOLD, Action.HELD, OCTETS),
        ("torn lines", editing(TORN), PROTECTIVE, REJECT, Decision.REJECT, Action.REJECTED, OCTETS),
        ("NUL", editing(NUL), COSMETIC, UNDO, ACCEPTED, Action.UNDONE, OCTETS),
        ("NUL: beyond repair", editing(NUL), COSMETIC, REPAIR, Decision.HOLD, Action.HELD, OCTETS),
        ("a long line", editing(LONG), COSMETIC, REPAIR, Decision.HOLD, Action.HELD, OCTETS),
        ("field and damage", editing(FIELD, TORN), COSMETIC, UNDO, ACCEPTED, Action.UNDONE, OCTETS),
        ("rewritten", rewriting(faulty_header), COSMETIC, UNDO, ACCEPTED, Action.REDUCED, SEEN),
        ("rewritten", rewriting(faulty_header), COSMETIC, REPAIR, ACCEPTED, Action.REDUCED, SEEN),
        ("rewritten", rewriting(faulty_header), COSMETIC, HOLD, Decision.HOLD, Action.HELD, OCTETS),
        ("rewritten", rewriting(faulty_header), PROTECTIVE, HOLD, Decision.HOLD, Action.HELD, OCTETS),
        ("rewritten", rewriting(faulty_header), COSMETIC, REJECT, Decision.REJECT, Action.REJECTED, OCTETS),
        ("the same", rewriting(bytes), COSMETIC, UNDO, ACCEPTED, Action.UNCHANGED, OCTETS),
    ],
)
def test_what_is_done_about_it(
    name: str,
    call: Callable[[Message], Verdict],
    role: Role,
    on_damage: OnDamage,
    decision: Decision,
    action: Action,
    octets: bytes,
) -> None:
    done = run(binding(call, effects={HEADER, BODY}, role=role, on_damage=on_damage))
    (entry,) = done.entries
    assert (done.decision, entry.action, done.content.octets()) == (decision, action, octets), name
    if decision is not ACCEPTED:
        assert done.binding == "sink"
        assert done.words


@pytest.mark.parametrize("on_damage", [UNDO, REPAIR, HOLD, REJECT])
@pytest.mark.parametrize(
    ("edit", "effects", "code"),
    [
        (FIELD, {BODY}, Code.HEADER_UNDECLARED),
        (Edit.splice_body(0, 0, b"More.\r\n"), {HEADER}, Code.BODY_UNDECLARED),
        (Edit.add_recipient("eve@c.example"), {HEADER, BODY}, Code.ENVELOPE_UNDECLARED),
    ],
)
def test_an_effect_that_was_not_declared_is_never_taken(
    edit: Edit, effects: set[Effect], code: Code, on_damage: OnDamage
) -> None:
    done = run(binding(editing(edit), effects=effects, on_damage=on_damage))  # type: ignore[arg-type]
    (entry,) = done.entries
    assert done.content.octets() == OCTETS
    assert done.envelope == ENVELOPE
    assert entry.changes == ()
    assert code in {finding.code for finding in entry.findings if finding.severity is Severity.VIOLATION}
    expected = {UNDO: ACCEPTED, REPAIR: Decision.HOLD, HOLD: Decision.HOLD, REJECT: Decision.REJECT}
    assert done.decision is expected[on_damage]


def test_an_undeclared_edit_without_effect_is_booked_all_the_same() -> None:
    done = run(binding(editing(Edit.remove_field("X-Not-There"))))
    assert done.entries[0].action is Action.UNDONE
    assert done.entries[0].findings[0].code is Code.HEADER_UNDECLARED
    assert "header" in done.entries[0].findings[0].words


def test_what_was_attempted_is_kept_as_proof() -> None:
    (entry,) = run(binding(editing(TORN), effects={BODY})).entries
    assert entry.attempted is not None
    assert entry.attempted != entry.after
    assert entry.tail_before == OCTETS[-64:]
    assert entry.tail_attempted.endswith(b"one line\nanother")
    assert entry.attempted_size == len(REPAIRED) - 3
    assert entry.words.startswith("sink: ")


# -- what fails ----------------------------------------------------------------------------------------


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def raising(error: BaseException) -> Callable[[Message], Verdict]:
    def call(message: Message) -> NoReturn:
        raise error

    return call


def returning(value: object) -> Callable[[Message], Verdict]:
    return lambda message: value  # type: ignore[return-value]


NONSENSE = [
    pytest.param(raising(RuntimeError("boom")), "RuntimeError: boom", id="raises"),
    pytest.param(raising(SystemExit(3)), "SystemExit", id="exits"),
    pytest.param(raising(asyncio.CancelledError()), "CancelledError", id="cancels"),
    pytest.param(raising(Unprintable()), "Unprintable", id="unprintable"),
    pytest.param(raising(RecursionError("deep")), "RecursionError", id="recursion"),
    pytest.param(returning(None), "returned NoneType", id="none"),
    pytest.param(returning("next"), "returned str", id="text"),
    pytest.param(returning(Next), "a sink returns Next, Stop", id="a class"),
    pytest.param(returning(Next(5)), "not iterable", id="edits that are none"),  # type: ignore[arg-type]
    pytest.param(returning(Next(["X-Seen: yes"])), "AttributeError", id="edits of text"),  # type: ignore[list-item]
    pytest.param(returning(Reject(5)), "not text", id="words that are none"),  # type: ignore[arg-type]
    pytest.param(returning(Hold(None)), "not text", id="no words"),  # type: ignore[arg-type]
    pytest.param(editing(Edit.replace_field("X-Not-There", "x")), "no field", id="a field that is not there"),
    pytest.param(editing(Edit.splice_body(0, 10**9, b"")), "octets 0 to", id="a range that is not there"),
    pytest.param(editing(FIELD, Edit.replace_message(OCTETS)), "stands alone", id="a message among edits"),
    pytest.param(editing(Edit.remove_recipient("joe@b.example")), "every recipient", id="nobody is left"),
]


@pytest.mark.parametrize(
    ("on_error", "decision", "action"),
    [
        (OnError.DEFER, Decision.DEFER, Action.DEFERRED),
        (OnError.SKIP, Decision.ACCEPT, Action.SKIPPED),
        (OnError.HOLD, Decision.HOLD, Action.HELD),
        (OnError.REJECT, Decision.REJECT, Action.REJECTED),
    ],
)
@pytest.mark.parametrize(("call", "words"), NONSENSE)
def test_a_sink_that_fails(
    call: Callable[[Message], Verdict], words: str, on_error: OnError, decision: Decision, action: Action
) -> None:
    done = run(binding(call, effects={HEADER, BODY, ENV}, on_error=on_error))
    (entry,) = done.entries
    assert (done.decision, entry.action, entry.verdict) == (decision, action, "error")
    assert done.content is CONTENT
    assert done.envelope is ENVELOPE
    assert words in entry.words
    assert len(entry.words) <= WORDS_LIMIT


def test_an_interrupt_from_the_keyboard_is_not_the_sinks() -> None:
    with pytest.raises(KeyboardInterrupt):
        run(binding(raising(KeyboardInterrupt())))


@pytest.mark.parametrize("verdict", [Reject("\ud800" + "x" * 9999), Discard("\ud800" + "x" * 9999)])
def test_words_are_bounded_and_can_be_written_down(verdict: Verdict) -> None:
    done = run(binding(returning(verdict)))
    assert len(done.words) <= WORDS_LIMIT + 10
    assert done.words.encode().startswith(b"\\ud800xx")


def test_a_stored_body_that_is_gone_is_a_failure_of_the_sink_that_reads_it(tmp_path: Path) -> None:
    content = msgspec.structs.replace(CONTENT, body=FileBody(tmp_path / "gone", CONTENT.body.size))
    reads = binding(rewriting(bytes), on_error=OnError.HOLD)
    done = run(binding(editing(FIELD), "first", effects={HEADER}), reads, content=content, checked=False)
    assert [entry.action for entry in done.entries] == [Action.KEPT, Action.HELD]
    assert done.decision is Decision.HOLD


# -- the chain -----------------------------------------------------------------------------------------


def test_sinks_see_what_those_before_them_left() -> None:
    seen = []

    def look(message: Message) -> Next:
        seen.append(message.headers.get("X-Seen"))
        return Next()

    run(binding(editing(FIELD), "one", effects={HEADER}), binding(look, "two"))
    assert seen == [b"yes"]


def test_stop_calls_nobody_else_and_the_mail_goes_on() -> None:
    done = run(
        binding(returning(Stop([FIELD])), "one", effects={HEADER}), binding(raising(RuntimeError()), "two")
    )
    assert done.decision is Decision.ACCEPT
    assert [entry.verdict for entry in done.entries] == ["stop"]
    assert done.content.octets() == SEEN


def test_a_stop_whose_edits_were_undone_stops_nothing() -> None:
    scanner = binding(returning(Reject("a virus")), "scanner", role=PROTECTIVE, on_damage=HOLD)
    done = run(binding(returning(Stop([TORN])), "one", effects={BODY}), scanner)
    assert done.decision is Decision.REJECT
    assert done.binding == "scanner"


def test_a_hold_keeps_its_edits_and_ends_the_chain() -> None:
    done = run(
        binding(returning(Hold("look at it", [FIELD])), "one", effects={HEADER}),
        binding(editing(FIELD), "two", effects={HEADER}),
    )
    assert (done.decision, done.words, done.binding) == (Decision.HOLD, "look at it", "one")
    assert done.content.octets() == SEEN
    assert len(done.entries) == 1


def test_a_hold_stands_though_its_edits_were_undone() -> None:
    done = run(binding(returning(Hold("look at it", [TORN])), effects={BODY}))
    assert (done.decision, done.entries[0].action) == (Decision.HOLD, Action.UNDONE)
    assert done.content.octets() == OCTETS


@pytest.mark.parametrize(
    ("verdict", "decision"), [(Reject("no"), Decision.REJECT), (Discard("spam"), Decision.DISCARD)]
)
def test_reject_and_discard_end_the_chain(verdict: Verdict, decision: Decision) -> None:
    done = run(binding(returning(verdict), "one"), binding(raising(RuntimeError()), "two"))
    assert done.decision is decision
    assert [entry.binding for entry in done.entries] == ["one"]


def test_a_rule_that_does_not_match_leaves_no_entry() -> None:
    done = run(
        binding(editing(FIELD), "one", effects={HEADER}, rule="RCPT TO=*@elsewhere.example"),
        binding(editing(FIELD), "two", effects={HEADER}, rule="EHLO=copier"),
    )
    assert [entry.binding for entry in done.entries] == ["two"]


def test_rules_ask_the_envelope_as_it_stands() -> None:
    done = run(
        binding(editing(Edit.add_recipient("copy@archive.example")), "one", effects={ENV}),
        binding(editing(FIELD), "two", effects={HEADER}, rule="RCPT TO=*@archive.example"),
    )
    assert [entry.binding for entry in done.entries] == ["one", "two"]
    assert [r.address.octets for r in done.envelope.recipients] == [b"joe@b.example", b"copy@archive.example"]


def test_the_view_is_what_the_message_is() -> None:
    seen: list[Message] = []

    def look(message: Message) -> Next:
        seen.append(message)
        return Next()

    two = Envelope(Address(b""), (Recipient(Address(b"a@b.example")), Recipient(Address(b"c@d.example"))))
    bound = msgspec.structs.replace(binding(look), settings={"header": "X-Other", "limit": 3})
    run(bound, envelope=two)
    (message,) = seen
    assert message.octets() == OCTETS
    assert message.size == len(OCTETS)
    assert b"".join(message.body_chunks()) == CONTENT.body.octets()
    assert message.headers is message.headers
    assert message.headers.get("subject") == b"a scan"
    assert message.envelope is two
    assert message.facts.helo == "copier"
    assert message.settings == {"header": "X-Other", "limit": 3}
    assert message.id == "id"


def test_a_repair_keeps_the_recipient_that_came_with_it() -> None:
    added = Edit.add_recipient("copy@archive.example")
    done = run(binding(editing(added, TORN), effects={BODY, ENV}, on_damage=REPAIR))
    assert done.entries[0].action is Action.REPAIRED
    assert [r.address.text for r in done.envelope.recipients] == ["joe@b.example", "copy@archive.example"]


@pytest.mark.parametrize(
    ("verdict", "decision", "code"),
    [
        (Reject("no", 554, "5.7.9"), Decision.REJECT, 554),
        (Reject("no"), Decision.REJECT, 550),
        (Defer("later"), Decision.DEFER, 451),
        (Defer("later", 450, "4.2.0"), Decision.DEFER, 450),
        (Reject("no", 450), Decision.DEFER, 0),
        (Defer("later", 550), Decision.DEFER, 0),
        (Reject("no", 550, "no code"), Decision.DEFER, 0),
    ],
)
def test_a_sink_chooses_its_reply_within_the_class_of_its_verdict(
    verdict: Verdict, decision: Decision, code: int
) -> None:
    done = run(binding(lambda message: verdict))
    assert (done.decision, done.code) == (decision, code)
