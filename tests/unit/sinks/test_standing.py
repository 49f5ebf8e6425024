"""Faults are counted by GUID within an hour; a cosmetic binding goes off at its maximum, a protective one holds."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.message.edits import Edit, Effect
from lonedot.message.findings import Code
from lonedot.message.fold import digests_of
from lonedot.message.ledger import Action, Entry
from lonedot.sinks.bindings import Binding, Isolation, Mode, OnDamage, OnError, Role
from lonedot.sinks.calls import Answer, Call, Decision, Dispatched, Failure, NotAwaited
from lonedot.sinks.dispatch import advance, dispatch_with, steps
from lonedot.sinks.shadow import PROPOSED_LIMIT, SHADOW_CALLS
from lonedot.sinks.standing import (
    WINDOW_SECONDS,
    Fault,
    Measure,
    Standing,
    StandingFile,
    Standings,
    StandingUnreadable,
    faults_in_words,
)
from lonedot.sinks.verdicts import Defer, Discard, Hold, Next, Reject, Stop
from lonedot.sinks.view import Message
from lonedot.terms.address import Address
from lonedot.terms.envelope import Recipient
from lonedot.testing.clock import ManualClock
from tests.unit.sinks.making import CONTENT, ENVELOPE, FACTS, OCTETS, binding, editing, rewriting, run


def bound(
    name: str = "stamp", *, maximum: int = 3, role: Role = Role.COSMETIC, on_error: OnError = OnError.DEFER
) -> Binding:
    made = binding(editing(), name, role=role, on_error=on_error)
    return msgspec.structs.replace(made, maximum_faults=maximum)


# --- counting ------------------------------------------------------------------------------------


def test_a_cosmetic_binding_goes_off_at_its_maximum() -> None:
    clock = ManualClock()
    standings = Standings(clock.now)
    stamp, other = bound(), bound("other")
    first = clock.now()
    assert standings.book(stamp, Fault.RAISED, "one") is None
    clock.advance(10)
    assert standings.book(stamp, Fault.DAMAGE, "two") is None
    assert standings.book(other, Fault.RAISED, "elsewhere") is None
    assert standings.in_force([stamp, other]) == (stamp, other)
    clock.advance(10)
    taken = standings.book(stamp, Fault.RAISED, "three")
    assert taken is not None
    assert (taken.measure, taken.at, taken.since, taken.words) == (Measure.OFF, clock.now(), first, "three")
    assert taken.in_words == "3 faults: 2 raised, 1 damage"
    assert standings.in_force([stamp, other]) == (other,)
    clock.advance(WINDOW_SECONDS * 100)
    assert standings.in_force([stamp]) == (), "no passing of time brings it back"
    assert standings.book(stamp, Fault.RAISED, "of a call that had begun") is None
    assert standings.of(stamp.guid) == taken
    assert standings.clear([stamp.guid]) == (taken,)
    assert standings.in_force([stamp]) == (stamp,)
    assert standings.book(stamp, Fault.RAISED, "again") is None, "it begins at nothing"


def test_what_is_older_than_the_window_does_not_count() -> None:
    clock = ManualClock()
    standings = Standings(clock.now)
    stamp = bound()
    for _ in range(20):
        clock.advance(WINDOW_SECONDS / 2)
        assert standings.book(stamp, Fault.RAISED, "") is None
    clock.advance(WINDOW_SECONDS)
    assert standings.of(stamp.guid) is None
    assert standings.all() == ()


def test_a_protective_binding_is_never_switched_off_and_holds() -> None:
    standings = Standings(ManualClock().now)
    scanner = bound(role=Role.PROTECTIVE)
    taken = [standings.book(scanner, Fault.RAISED, "no answer") for _ in range(10)]
    assert [one.measure for one in taken if one is not None] == [Measure.HOLDS]
    (now,) = standings.in_force([scanner])
    assert (now.guid, now.on_error) == (scanner.guid, OnError.HOLD)
    assert standings.in_force([scanner])[0] is now, "the same value, or its process would be made anew"
    standings.clear([scanner.guid])
    assert standings.in_force([scanner]) == (scanner,)


@pytest.mark.parametrize("on_error", [OnError.HOLD, OnError.REJECT])
def test_a_protective_binding_that_holds_or_rejects_goes_on_so(on_error: OnError) -> None:
    standings = Standings(ManualClock().now)
    scanner = bound(role=Role.PROTECTIVE, on_error=on_error)
    assert [standings.book(scanner, Fault.RAISED, "") for _ in range(10)] == [None] * 10
    assert standings.in_force([scanner]) == (scanner,)


def test_a_maximum_of_nothing_means_never() -> None:
    standings = Standings(ManualClock().now)
    stamp = bound(maximum=0)
    assert {standings.book(stamp, Fault.RAISED, "") for _ in range(1500)} == {None}
    standing = standings.of(stamp.guid)
    assert standing is not None and len(standing.faults) == 1000, "what is kept is bounded"


@pytest.mark.parametrize(
    ("role", "maximum", "measure"),
    [
        (Role.COSMETIC, 20, Measure.OFF),
        (Role.COSMETIC, 0, None),
        (Role.PROTECTIVE, 20, Measure.HOLDS),
    ],
)
def test_three_stalls_are_enough(role: Role, maximum: int, measure: Measure | None) -> None:
    standings = Standings(ManualClock().now)
    one = bound(role=role, maximum=maximum)
    booked = [standings.book(one, fault, "") for fault in (Fault.STALLED, Fault.RAISED, Fault.STALLED)]
    assert booked == [None] * 3
    third = standings.book(one, Fault.STALLED, "")
    assert (None if third is None else third.measure) == measure


def test_one_that_is_made_protective_is_called_again() -> None:
    standings = Standings(ManualClock().now)
    standings.book(bound(maximum=1), Fault.RAISED, "")
    now = bound(role=Role.PROTECTIVE)
    assert standings.in_force([now]) == (now,)


def test_bindings_that_are_no_more_are_forgotten() -> None:
    standings = Standings(ManualClock().now)
    stamp, other = bound(), bound("other")
    for one in (stamp, other):
        standings.book(one, Fault.RAISED, "")
    assert standings.keep({stamp.guid})
    assert not standings.keep({stamp.guid})
    assert [one.name for one in standings.all()] == ["stamp"]


@given(
    st.lists(st.tuples(st.floats(0, WINDOW_SECONDS), st.integers(0, 2), st.sampled_from(Fault)), max_size=60),
    st.integers(1, 5),
)
def test_it_goes_off_exactly_when_the_window_holds_the_maximum(
    happened: list[tuple[float, int, Fault]], maximum: int
) -> None:
    clock = ManualClock()
    standings = Standings(clock.now)
    bindings = [bound(str(number), maximum=maximum) for number in range(3)]
    times: list[list[float]] = [[], [], []]
    off: set[int] = set()
    for seconds, number, fault in happened:
        clock.advance(seconds)
        taken = standings.book(bindings[number], fault, fault.value)
        if number in off:
            assert taken is None
            continue
        times[number].append(clock.now())
        counting = [at for at in times[number] if at > clock.now() - WINDOW_SECONDS]
        assert (taken is not None) == (len(counting) >= maximum)
        if taken is not None:
            assert taken.since == counting[0]
            off.add(number)
    assert {int(one.name) for one in standings.in_force(bindings)} == {0, 1, 2} - off


def test_faults_in_words() -> None:
    assert faults_in_words([]) == "0 faults"
    assert faults_in_words([Fault.DIED]) == "1 fault: 1 died"


# --- on disk -------------------------------------------------------------------------------------


def test_the_file_keeps_all_of_it(tmp_path: Path) -> None:
    clock = ManualClock()
    standings = Standings(clock.now)
    stamp, scanner = bound(maximum=2), bound("scanner", role=Role.PROTECTIVE, maximum=1)
    for _ in range(2):
        standings.book(stamp, Fault.RAISED, "a word")
    standings.book(scanner, Fault.DIED, "gone")
    file = StandingFile(tmp_path / "bindings.json")
    assert file.read() == ()
    file.write(standings.all())
    (tmp_path / ".bindings.json.new").write_bytes(b"what a crash left")
    file.write(standings.all())
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["bindings.json"]
    again = Standings(clock.now, file.read())
    assert again.all() == standings.all()
    assert [one.name for one in again.in_force([stamp, scanner])] == ["scanner"]


@pytest.mark.parametrize("octets", [b"", b"{", b"[]", b'{"version": 2}', b"\xff\xfe", b'{"bindings": 1}'])
def test_a_file_that_cannot_be_used_says_so(tmp_path: Path, octets: bytes) -> None:
    file = StandingFile(tmp_path / "bindings.json")
    file.path.write_bytes(octets)
    with pytest.raises(StandingUnreadable, match=r"bindings\.json"):
        file.read()


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    file = StandingFile(tmp_path / "bindings.json")
    file.write([Standing("{1}", "one")])
    (tmp_path / ".bindings.json.new").mkdir()
    with pytest.raises(OSError):
        file.write([])
    assert [one.name for one in file.read()] == ["one"]


# --- what is booked ------------------------------------------------------------------------------

TORN = Edit.replace_body(b"torn\nlines\n")
FIELD = Edit.add_field("X-Seen", "yes")


def raising(message: object) -> Next:
    raise RuntimeError("no database")


@pytest.mark.parametrize(
    ("call", "fault"),
    [
        (editing(), ""),
        (editing(FIELD), ""),
        (lambda m: Hold("odd"), ""),
        (lambda m: Discard("odd"), ""),
        (raising, "raised"),
        (lambda m: None, "nonsense"),
        (lambda m: Reject("no", code=200), "nonsense"),
        (editing(TORN), "damage"),
        (editing(Edit.remove_recipient("joe@b.example"), Edit.add_recipient("x@b.example")), "violation"),
    ],
)
def test_what_an_entry_is_booked_as(call: object, fault: str) -> None:
    made = binding(call, effects={Effect.HEADER, Effect.BODY})  # type: ignore[arg-type]
    assert run(made, checked=False).entries[0].fault == fault


def test_an_inline_sink_that_is_late_is_booked() -> None:
    late = msgspec.structs.replace(binding(editing()), deadline_seconds=0.0)
    assert run(late).entries[0].fault == "deadline"


# --- shadow --------------------------------------------------------------------------------------


def in_shadow(made: Binding) -> Binding:
    return msgspec.structs.replace(made, mode=Mode.SHADOW)


LIVE = binding(editing(FIELD), "live", effects={Effect.HEADER})
AFTER = binding(editing(Edit.add_field("X-After", "yes")), "after", effects={Effect.HEADER})


def with_shadow(call: object, **options: object) -> tuple[Entry, Dispatched]:
    """One in shadow between two live ones; its entry, and all of it."""
    made = binding(call, "shadow", effects={Effect.HEADER}, **options)  # type: ignore[arg-type]
    done = run(LIVE, in_shadow(made), AFTER)
    plain = run(LIVE, AFTER)
    assert (done.decision, done.words, done.envelope) == (plain.decision, plain.words, plain.envelope)
    assert done.content.octets() == plain.content.octets()
    assert [entry.binding for entry in done.entries] == ["live", "shadow", "after"]
    entry = done.entries[1]
    assert (entry.action, entry.changes, entry.before) == (Action.SHADOWED, (), entry.after)
    return entry, done


@pytest.mark.parametrize(
    ("call", "options", "words", "verdict", "fault"),
    [
        (editing(), {}, "changed nothing", "next", ""),
        (lambda m: Stop(), {}, "changed nothing, and ended the event", "stop", ""),
        (editing(Edit.add_field("X-New", "1")), {}, "would have changed the message", "next", ""),
        (lambda m: Hold("odd"), {}, "would have held the message (odd)", "hold", ""),
        (lambda m: Discard("odd"), {}, "would have discarded the message", "discard", ""),
        (lambda m: Reject("no scans"), {}, "would have been refused (no scans)", "reject", ""),
        (lambda m: Defer("not now"), {}, "told to try again later (not now)", "defer", ""),
        (raising, {}, "told to try again later (shadow failed", "error", "raised"),
        (raising, {"on_error": OnError.SKIP}, "it failed", "error", "raised"),
        (lambda m: 5, {"on_error": OnError.HOLD}, "would have been held", "error", "nonsense"),
        (editing(TORN), {}, "its change would have been undone", "next", "damage"),
        (editing(TORN), {"on_damage": OnDamage.HOLD}, "would have been held", "next", "damage"),
        (editing(TORN), {"on_damage": OnDamage.REJECT}, "would have been refused", "next", "damage"),
        (rewriting(lambda o: o.replace(b"first", b"1st")), {}, "in shadow", "next", "violation"),
    ],
)
def test_a_shadow_never_counts(
    call: object, options: dict[str, object], words: str, verdict: str, fault: str
) -> None:
    entry, _ = with_shadow(call, **options)
    assert words in entry.words
    assert entry.words.startswith("in shadow: ")
    assert (entry.verdict, entry.fault) == (verdict, fault)
    if fault == "damage":
        assert any(finding.code is not Code.HEADER_UNDECLARED for finding in entry.findings)
        assert entry.attempted is not None


def test_it_is_shown_the_message_as_it_stands_at_its_place() -> None:
    seen: list[bytes] = []

    def look(message: object) -> Next:
        seen.append(message.octets())  # type: ignore[attr-defined]
        return Next()

    with_shadow(look)
    assert b"X-Seen: yes" in seen[0] and b"X-After" not in seen[0]


def test_what_it_would_have_changed_is_kept_and_compared() -> None:
    new, done = with_shadow(editing(Edit.add_field("X-New", "1")))
    assert new.attempted is not None and new.attempted != digests_of(done.content)
    assert b"X-New: 1" in new.proposed[0].octets  # type: ignore[union-attr]
    assert new.words.endswith("not what after did")
    same, _ = with_shadow(editing(Edit.add_field("X-After", "yes")))
    assert same.words.endswith("the same as after did")


def test_large_changes_leave_only_their_digest() -> None:
    large = in_shadow(binding(editing(Edit.replace_body(b"a" * 70 + b"\r\n")), "s", effects={Effect.BODY}))
    assert run(large).entries[0].proposed
    lines = (b"a" * 70 + b"\r\n") * (PROPOSED_LIMIT // 70)
    large = in_shadow(binding(editing(Edit.replace_body(lines)), "s", effects={Effect.BODY}))
    entry = run(large).entries[0]
    assert (entry.proposed, entry.attempted is not None) == ((), True)
    assert "too large to be kept" in entry.words


def test_a_shadow_behind_a_stop_or_of_a_refused_message_is_not_asked() -> None:
    asked: list[Message] = []

    def ask(message: Message) -> Next:
        asked.append(message)
        return Next()

    shadow = in_shadow(binding(ask, "shadow"))
    stopping = binding(lambda m: Stop(), "stop")
    assert [entry.binding for entry in run(stopping, shadow).entries] == ["stop"]
    refused = run(shadow, binding(lambda m: Reject("no"), "no"))
    assert (refused.decision, [entry.binding for entry in refused.entries]) == (Decision.REJECT, ["no"])
    assert asked == []
    held = run(shadow, binding(lambda m: Hold("odd"), "hold"))
    assert (held.decision, len(held.entries), len(asked)) == (Decision.HOLD, 2, 1)


async def test_a_message_does_not_wait_for_a_shadow_in_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lonedot.sinks.dispatch.SHADOW_SECONDS", 0.05)
    never: list[asyncio.Future[Answer]] = []

    def apart(call: Call) -> asyncio.Future[Answer]:
        never.append(asyncio.get_running_loop().create_future())
        return never[-1]

    shadows = [
        msgspec.structs.replace(
            in_shadow(binding(editing(), name)), isolation=Isolation.PROCESS, on_error=OnError.HOLD
        )
        for name in ("slow", "next")
    ]
    chain = steps("id", ENVELOPE, FACTS, CONTENT, [LIVE, *shadows], ManualClock())
    done = await dispatch_with(chain, advance(chain), apart, False)
    assert done.decision is Decision.ACCEPT
    assert done.content.octets() != OCTETS
    assert [future.cancelled() for future in never] == [True]
    _, slow, unasked = done.entries
    assert (slow.fault, slow.action) == (Fault.DEADLINE.value, Action.SHADOWED)
    assert "no answer after 0.05 s" in slow.words
    assert (unasked.fault, unasked.action) == ("", Action.SHADOWED)
    assert issubclass(NotAwaited, Failure)


def test_inline_shadows_share_the_time_too() -> None:
    clock = ManualClock()
    shadows = [in_shadow(binding(editing(), name)) for name in ("slow", "next")]
    chain = steps("id", ENVELOPE, FACTS, CONTENT, [LIVE, *shadows], clock)
    asked: list[str] = []
    step: Answer | None = None
    with pytest.raises(StopIteration) as end:
        while True:
            call = chain.send(step) if step is not None else next(chain)
            asked.append(call.binding.name)
            step = Answer(Next(), took_seconds=0.4 if call.binding is LIVE else 5.0)
    done: Dispatched = end.value.value
    assert asked == ["live", "slow"]
    assert ["not asked" in entry.words for entry in done.entries] == [False, False, True]
    assert done.entries[1].fault == ""


def test_a_shadow_that_splits_is_called_a_bounded_number_of_times() -> None:
    asked: list[bytes] = []

    def look(message: Message) -> Next:
        asked.append(message.envelope.recipients[0].address.octets)
        return Next()

    people = tuple(Recipient(Address(b"p%d@b.example" % number)) for number in range(SHADOW_CALLS * 3))
    split = msgspec.structs.replace(in_shadow(binding(look, "shadow")), split=True)
    done = run(split, envelope=msgspec.structs.replace(ENVELOPE, recipients=people), checked=False)
    assert len(asked) == SHADOW_CALLS
    assert (done.decision, done.content.octets()) == (Decision.ACCEPT, OCTETS)
    assert {entry.action for entry in done.entries} == {Action.SHADOWED}
