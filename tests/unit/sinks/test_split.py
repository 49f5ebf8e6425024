"""Bindings that split: a copy for each recipient, one shared body, and nothing of one recipient in another's copy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lonedot.message.content import Content
from lonedot.message.edits import Edit, Effect
from lonedot.message.encode import canonicalise
from lonedot.message.fold import digests_of, fold
from lonedot.message.intake import content_from
from lonedot.message.ledger import Action
from lonedot.sinks.bindings import Binding, Mode, OnDamage, OnError, Role, guid_for
from lonedot.sinks.builtin.x_recipient import x_recipient
from lonedot.sinks.calls import Decision, Dispatched
from lonedot.sinks.copies import COPIES_LIMIT, NOBODY, Copied
from lonedot.sinks.copying import FAILURES_LIMIT
from lonedot.sinks.dispatch import dispatch
from lonedot.sinks.load import bind
from lonedot.sinks.rules import compile_rule
from lonedot.sinks.sink import sink
from lonedot.sinks.verdicts import Defer, Discard, Hold, Next, Reject, Stop, Verdict
from lonedot.sinks.view import Message
from lonedot.terms.address import Address
from lonedot.terms.envelope import Envelope, Recipient
from lonedot.testing.clock import ManualClock
from tests.unit.sinks.making import CONTENT, FACTS, OCTETS

HEADER, BODY, ENVELOPE = Effect.HEADER, Effect.BODY, Effect.ENVELOPE


def people(*names: str) -> Envelope:
    return Envelope(Address(b"a@a.example"), tuple(Recipient(Address(name.encode())) for name in names))


THREE = people("joe@b.example", "ann@b.example", "max@c.example")


def splitting(
    call: Callable[[Message], Verdict],
    name: str = "splitter",
    effects: Iterable[Effect] = (HEADER,),
    *,
    rule: str = "",
    split: bool = True,
    role: Role = Role.COSMETIC,
    on_damage: OnDamage = OnDamage.UNDO,
    on_error: OnError = OnError.SKIP,
    mode: Mode = Mode.LIVE,
) -> Binding:
    return Binding(
        name,
        guid_for(name),
        call,
        f"tests:{name}",
        rule=compile_rule(rule),
        effects=frozenset(effects),
        role=role,
        on_damage=on_damage,
        on_error=on_error,
        mode=mode,
        split=split,
    )


def who(message: Message) -> str:
    return " ".join(recipient.address.text for recipient in message.envelope.recipients)


def named(message: Message) -> Next:
    return Next([Edit.add_field("X-For", who(message))])


def run(*bindings: Binding, envelope: Envelope = THREE, content: Content = CONTENT) -> Dispatched:
    done = dispatch("id", envelope, FACTS, content, bindings, ManualClock())
    check(content, done)
    return done


def check(content: Content, done: Dispatched) -> None:
    """What holds of every chain that splits: each copy is canonical, and the fold of what the ledger says of it."""
    numbers = range(len(done.envelope.recipients))
    copies = done.copies
    if not copies and not done.discarded:  # nobody to tell apart
        copies = (Copied(tuple(numbers), done.content),)
    told = [number for copy in copies for number in copy.recipients]
    assert sorted([*told, *done.discarded]) == list(numbers), "everybody is in one copy"
    for copy in copies:
        canonicalise(copy.content)
        for number in copy.recipients:
            own = [entry for entry in done.entries if not entry.scope or number in entry.scope]
            before = digests_of(content)
            for entry in own:
                assert entry.before == before
                before = entry.after
            assert before == digests_of(copy.content)
            assert fold(content, done.entries, number, verify=True).octets() == copy.content.octets()
    for entry in done.entries:
        assert entry.scope == (NOBODY,) or set(entry.scope) < set(numbers), "all is written as none"


def heads(done: Dispatched) -> dict[str, bytes]:
    """What each recipient gets above the message that came."""
    return {
        done.envelope.recipients[number].address.text: copy.content.octets().removesuffix(OCTETS)
        for copy in done.copies
        for number in copy.recipients
    }


# -- calls and copies ----------------------------------------------------------------------------------


def test_it_is_called_for_each_recipient_alone() -> None:
    done = run(splitting(named))
    assert heads(done) == {
        name: b"X-For: " + name.encode() + b"\r\n"
        for name in ("joe@b.example", "ann@b.example", "max@c.example")
    }
    assert [entry.scope for entry in done.entries] == [(0,), (1,), (2,)]
    assert all(copy.content.body is CONTENT.body for copy in done.copies), "one body"


def test_copies_that_are_alike_are_one() -> None:
    done = run(splitting(lambda m: Next([Edit.add_field("X-At", who(m).partition("@")[2])])))
    assert [copy.recipients for copy in done.copies] == [(0, 1), (2,)]
    assert [entry.scope for entry in done.entries] == [(0, 1), (2,)]


def test_alike_for_all_is_no_copy_at_all() -> None:
    done = run(splitting(lambda m: Next([Edit.add_field("X-A", "b")])))
    assert [entry.scope for entry in done.entries] == [()]
    assert [copy.recipients for copy in done.copies] == [(0, 1, 2)]
    assert fold(CONTENT, done.entries, verify=True).octets() == b"X-A: b\r\n" + OCTETS


def test_only_for_those_that_the_rule_matches() -> None:
    done = run(splitting(named, rule="RCPT TO=*@b.example"))
    assert heads(done)["max@c.example"] == b""
    assert [entry.scope for entry in done.entries] == [(0,), (1,)]


def test_one_recipient_needs_no_scope() -> None:
    done = run(splitting(named), envelope=people("joe@b.example"))
    assert [entry.scope for entry in done.entries] == [()]


def test_the_order_is_that_of_the_chain() -> None:
    """One behind it is called for each copy, sees what it did, and has an entry for each."""
    seen: list[tuple[str, bytes]] = []

    def look(message: Message) -> Next:
        seen.append((who(message), message.octets().partition(b"\r\n")[0]))
        return Next([Edit.add_field("X-Seen", "yes")])

    done = run(
        splitting(lambda m: Next([Edit.add_field("X-At", who(m).partition("@")[2])])),
        splitting(look, "look", split=False),
    )
    assert seen == [
        ("joe@b.example ann@b.example", b"X-At: b.example"),
        ("max@c.example", b"X-At: c.example"),
    ]
    assert [(entry.binding, entry.scope) for entry in done.entries] == [
        ("splitter", (0, 1)),
        ("splitter", (2,)),
        ("look", (0, 1)),
        ("look", (2,)),
    ]


def noting(called: list[str]) -> Callable[[Message], Verdict]:
    """A sink that only looks, and notes for whom it was called."""

    def note(message: Message) -> Next:
        called.append(who(message))
        return Next()

    return note


def test_stop_is_for_that_copy() -> None:
    called: list[str] = []

    def stop(message: Message) -> Verdict:
        return Stop() if who(message) == "ann@b.example" else Next()

    run(splitting(stop), splitting(noting(called), "note", split=False))
    assert called == ["joe@b.example max@c.example"]


def test_damage_to_one_copy_is_undone_there_alone() -> None:
    def harm(message: Message) -> Next:
        if who(message) == "ann@b.example":
            return Next([Edit.replace_message(message.octets().replace(b"\r\n", b"\n"))])
        return named(message)

    done = run(splitting(harm))
    assert heads(done)["ann@b.example"] == b""
    assert heads(done)["joe@b.example"] == b"X-For: joe@b.example\r\n"
    (booked,) = [entry for entry in done.entries if entry.findings]
    assert (booked.changes, booked.scope) == ((), (1,))


# -- verdicts ------------------------------------------------------------------------------------------


def said(words: Verdict, *to: str) -> Callable[[Message], Verdict]:
    return lambda message: words if who(message) in to else Next()


@pytest.mark.parametrize("verdict", [Hold("look at it"), Reject("no")])
def test_what_cannot_be_said_of_one_holds_all(verdict: Verdict) -> None:
    done = run(splitting(said(verdict, "ann@b.example")))
    assert done.decision is Decision.HOLD
    assert "said of the copy for ann@b.example" in done.words
    assert len(done.envelope.recipients) == 3


def test_refused_for_everybody_is_refused() -> None:
    done = run(splitting(lambda m: Reject("no", 554)))
    assert (done.decision, done.words, done.code) == (Decision.REJECT, "no", 554)


def test_deferred_for_one_is_deferred_for_all() -> None:
    asked: list[str] = []

    def defer(message: Message) -> Verdict:
        asked.append(who(message))
        return Defer("later") if len(asked) == 2 else Next()

    done = run(splitting(defer))
    assert (done.decision, len(asked)) == (Decision.DEFER, 2)


def test_discarded_for_one_is_nobody_elses_business() -> None:
    behind: list[str] = []
    done = run(
        splitting(said(Discard("not for them"), "ann@b.example")),
        splitting(noting(behind), "behind", split=False),
    )
    assert (done.decision, done.discarded) == (Decision.ACCEPT, (1,))
    assert behind == ["joe@b.example max@c.example"]
    assert [entry.scope for entry in done.entries if entry.verdict == "discard"] == [(1,)]


def test_discarded_for_everybody_is_discarded() -> None:
    done = run(splitting(lambda m: Discard("nobody")))
    assert (done.decision, done.discarded, done.words) == (Decision.DISCARD, (0, 1, 2), "nobody")


def test_of_those_left_all_refused_is_refused() -> None:
    done = run(
        splitting(said(Discard("x"), "ann@b.example")),
        splitting(lambda m: Reject("no"), "second", split=False),
    )
    assert done.decision is Decision.REJECT


# -- the envelope --------------------------------------------------------------------------------------


def test_a_recipient_that_is_added_joins_the_copy() -> None:
    def add(message: Message) -> Next:
        return Next([Edit.add_recipient("new@d.example")] if "max@c.example" in who(message) else [])

    done = run(splitting(named), splitting(add, "add", {ENVELOPE}, split=False))
    assert heads(done)["new@d.example"] == b"X-For: max@c.example\r\n"
    assert [entry.scope for entry in done.entries if entry.binding == "splitter"] == [(0,), (1,), (2, 3)]


def test_an_address_stands_in_one_copy_only() -> None:
    add = splitting(lambda m: Next([Edit.add_recipient("archive@d.example")]), "add", {ENVELOPE}, split=False)
    done = run(splitting(named), add)
    assert [r.address.text for r in done.envelope.recipients].count("archive@d.example") == 1


def test_an_entry_for_somebody_removed_is_an_entry_for_nobody() -> None:
    def redirect(message: Message) -> Next:
        if who(message) != "ann@b.example":
            return Next()
        return Next([Edit.remove_recipient("ann@b.example"), Edit.add_recipient("joe@b.example")])

    done = run(splitting(named), splitting(redirect, "redirect", {ENVELOPE}, split=False))
    assert [r.address.text for r in done.envelope.recipients] == ["joe@b.example", "max@c.example"]
    assert heads(done)["joe@b.example"] == b"X-For: joe@b.example\r\n"
    assert [entry.scope for entry in done.entries if entry.binding == "splitter"] == [(0,), (NOBODY,), (1,)]


def test_what_splits_does_not_edit_the_envelope() -> None:
    with pytest.raises(ValueError, match="split with effect 'envelope'"):
        sink("x", effects={"envelope"}, split=True)
    add = splitting(lambda m: Next([Edit.add_recipient("x@y.example")]), effects={HEADER, ENVELOPE})
    done = run(add)
    assert len(done.envelope.recipients) == 3
    assert {entry.action for entry in done.entries} == {Action.SKIPPED}


def test_nothing_is_split_before_there_is_a_message() -> None:
    with pytest.raises(ValueError, match="there is no message yet"):
        sink("x", on="verb", split=True)


def test_a_binding_may_say_otherwise_than_the_code() -> None:
    assert bind(x_recipient, sink_class="x").split
    assert not bind(x_recipient, sink_class="x", split=False).split


# -- bounds --------------------------------------------------------------------------------------------


def test_too_many_recipients_are_not_split() -> None:
    many = people(*(f"r{n}@b.example" for n in range(10 * COPIES_LIMIT)))
    calls: list[str] = []
    done = dispatch("id", many, FACTS, CONTENT, [splitting(noting(calls))], ManualClock())
    (entry,) = done.entries
    assert (calls, entry.action, entry.scope) == ([], Action.SKIPPED, ())
    assert f"no more than {COPIES_LIMIT}" in entry.words
    assert len(done.copies) == 1


def test_as_many_as_may_be_are_split() -> None:
    many = people(*(f"r{n}@b.example" for n in range(COPIES_LIMIT)))
    done = dispatch("id", many, FACTS, CONTENT, [splitting(named)], ManualClock())
    assert len(done.copies) == COPIES_LIMIT


def test_one_that_becomes_two_is_split() -> None:
    add = splitting(lambda m: Next([Edit.add_recipient("new@d.example")]), "add", {ENVELOPE}, split=False)
    done = run(add, splitting(named), envelope=people("joe@b.example"))
    assert heads(done) == {
        "joe@b.example": b"X-For: joe@b.example\r\n",
        "new@d.example": b"X-For: new@d.example\r\n",
    }


def test_what_fails_is_not_called_for_ever() -> None:
    calls: list[str] = []

    def fail(message: Message) -> Verdict:
        calls.append(who(message))
        raise OSError("gone")

    done = run(splitting(fail), envelope=people(*(f"r{n}@b.example" for n in range(20))))
    assert len(calls) == FAILURES_LIMIT
    assert len(done.entries) == 2
    assert "before" in done.entries[1].words


def test_room_for_copies_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lonedot.sinks.copies.COPIES_OCTETS", 3 * len(CONTENT.head))
    done = run(splitting(named), envelope=people(*(f"r{n}@b.example" for n in range(20))))
    assert len(done.copies) < 20
    assert "too much room" in done.entries[-1].words


# -- shadow --------------------------------------------------------------------------------------------


def test_a_shadow_sees_each_copy_and_changes_none() -> None:
    done = run(splitting(named), splitting(named, "shadow", split=False, mode=Mode.SHADOW))
    shadows = [entry for entry in done.entries if entry.binding == "shadow"]
    assert [(entry.action, entry.scope) for entry in shadows] == [
        (Action.SHADOWED, (0,)),
        (Action.SHADOWED, (1,)),
        (Action.SHADOWED, (2,)),
    ]


# -- nobody is disclosed -------------------------------------------------------------------------------

_NAMES = st.sampled_from([f"secret{n}@{domain}.example" for n in range(6) for domain in ("b", "c")])
_SPLITS = st.sampled_from(["own", "domain", "nothing", "stop", "discard", "harm", "raise", "body"])
_WHOLE = st.sampled_from(["stamp", "look", "remove", "stop"])


def _split_call(kind: str) -> Callable[[Message], Verdict]:
    def call(message: Message) -> Verdict:
        own = who(message)
        match kind:
            case "own":
                return Next([Edit.add_field("X-Own", own)])
            case "domain":
                return Next([Edit.add_field("X-Domain", own.partition("@")[2])])
            case "stop":
                return Stop([Edit.add_field("X-Stop", own)])
            case "discard":
                return Discard("odd") if "1" in own else Next()
            case "harm":
                return Next([Edit.replace_message(own.encode() + b"\n" + message.octets())])
            case "raise":
                raise ValueError(own)
            case "body":
                end = message.content.body.size
                return Next([Edit.splice_body(end, end, own.encode() + b"\r\n")])
            case _:
                return Next()

    return call


def _whole_call(kind: str) -> Callable[[Message], Verdict]:
    def call(message: Message) -> Verdict:
        match kind:
            case "stamp":
                return Next([Edit.add_field("X-Stamp", "done")])
            case "remove":
                return Next([Edit.remove_field("Subject")])
            case "stop":
                return Stop()
            case _:
                return Next()

    return call


@settings(max_examples=150, deadline=None)
@given(
    st.lists(_NAMES, min_size=1, max_size=7, unique=True),
    st.lists(st.tuples(st.booleans(), _SPLITS, _WHOLE), max_size=4),
    st.integers(0, 4),
)
def test_no_copy_names_another_recipient(
    names: Sequence[str], chain: Sequence[tuple[bool, str, str]], place: int
) -> None:
    bindings = [
        splitting(_split_call(kind), f"s{n}", {HEADER, BODY})
        if splits
        else splitting(_whole_call(whole), f"w{n}", split=False)
        for n, (splits, kind, whole) in enumerate(chain)
    ]
    bindings.insert(min(place, len(bindings)), bind(x_recipient, sink_class="x"))
    done = run(*bindings, envelope=people(*names))
    for copy in done.copies:
        octets = copy.content.octets()
        for number, recipient in enumerate(done.envelope.recipients):
            if number not in copy.recipients:
                assert recipient.address.octets not in octets
    assert len({id(copy.content.body) for copy in done.copies}) <= 1 or any(k == "body" for _, k, _ in chain)


def test_the_ledger_is_as_small_as_it_can_be() -> None:
    """What a thousand copies cost in custody: their heads' changes, and never the body again."""
    body = b"x" * 70 + b"\r\n"
    content = content_from(b"Subject: s\r\n\r\n" + body * 1000)
    done = run(splitting(named), envelope=people(*(f"r{n}@b.example" for n in range(500))), content=content)
    assert len(msgspec.msgpack.encode(done.entries)) < 500 * 600
