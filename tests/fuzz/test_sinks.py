"""Random chains of sinks, good, careless and hostile: what is left is canonical, undone is undone, the ledger true."""

from __future__ import annotations

import os
import random

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from lonedot.message.content import Content
from lonedot.message.edits import Edit, Effect
from lonedot.message.encode import DataEncoder, NotCanonical, canonicalise
from lonedot.message.findings import Severity
from lonedot.message.fold import digests_of, fold, fold_envelope
from lonedot.message.intake import content_from
from lonedot.message.ledger import Action, Entry
from lonedot.message.transforms.crlf import repaired
from lonedot.sinks.bindings import Binding, Mode, OnDamage, OnError, Role
from lonedot.sinks.calls import Decision, Dispatched
from lonedot.sinks.dispatch import dispatch
from lonedot.sinks.verdicts import Discard, Hold, Next, Reject, Stop, Verdict
from lonedot.sinks.view import Message
from lonedot.terms.address import Address
from lonedot.terms.envelope import Envelope, Recipient
from lonedot.testing.clock import ManualClock
from tests.corpus.messages import random_message
from tests.unit.sinks.making import FACTS, binding, check

CHAINS = 10_000 if os.environ.get("HYPOTHESIS_PROFILE") == "deep" else 400
SUBSETS = [frozenset(e for n, e in enumerate(Effect) if bits >> n & 1) for bits in range(8)]
_NOT_IN_FORCE = {
    Action.UNDONE,
    Action.HELD,
    Action.REJECTED,
    Action.SKIPPED,
    Action.DEFERRED,
    Action.UNCHANGED,
}


def canonical_message(rng: random.Random) -> Content:
    """A message as it is behind the door."""
    while True:
        octets = random_message(rng)
        content = content_from(b"Received: by relay\r\n" + repaired(octets).replace(b"\0", b""))
        try:
            canonicalise(content)
        except NotCanonical:
            continue
        return content


def some_edit(rng: random.Random, message: Message) -> Edit:
    """Mostly good, sometimes careless, sometimes about what is not there."""
    size = message.size - len(message.headers.head)
    place = rng.randint(0, size)
    kind = rng.randint(0, 11)
    if kind <= 2:
        return Edit.add_field(rng.choice(["X-A", "X-B", "Subject"]), "v " * rng.randint(0, 60), "top")
    if kind == 3:
        return Edit.add_field("X-C", "größe", "bottom")
    if kind == 4:
        return Edit.remove_field(rng.choice(["Subject", "X-A", "Received"]), rng.choice([None, 1, -1]))
    if kind == 5:
        return Edit.replace_field(rng.choice(["Subject", "X-A", "Received"]), "new")
    if kind == 6:
        return Edit.replace_body(
            rng.choice([b"", b"x\r\n", b"x\ny", b"x\r", b"a\0\r\n", b"l" * 1200 + b"\r\n"])
        )
    if kind == 7:
        return Edit.splice_body(0, place, rng.choice([b"", b"x", b".\r\n", b"\n", b"\r\n"]))
    if kind == 8:
        return Edit.splice_body(place, size, rng.choice([b"", b"x", b"\r\n.\r\n", b"\r"]))
    if kind == 9:
        return Edit.add_recipient("new@b.example")
    if kind == 10:
        return Edit.remove_recipient(rng.choice(["joe@b.example", "ann@b.example", "nobody@b.example"]))
    return Edit.change_reverse_path(rng.choice(["", "other@a.example"]))


def rewritten(rng: random.Random, octets: bytes) -> bytes:
    kind = rng.randint(0, 6)
    place = rng.randint(0, len(octets))
    if kind == 0:
        return octets.replace(b"\r\n", b"\n")
    if kind == 1:
        return b"X-New: yes\r\n" + octets
    if kind == 2:
        return octets[:place]
    if kind == 3:
        return octets[:place] + rng.choice([b"\n", b"\r", b"\0", b"\r\n.\r\n", b"x"]) + octets[place:]
    if kind == 4:
        return octets.replace(b"\r\n", b"\n")[:-1]
    if kind == 5:
        return octets.replace(b"\r\n", b"\r\n ", 1)
    return rng.randbytes(rng.randint(0, 80))


def some_sink(seed: int) -> Binding:
    """A sink that always does the same for the same message."""

    def call(message: Message) -> Verdict:
        rng = random.Random(seed)
        kind = rng.randint(0, 19)
        if kind == 0:
            raise RuntimeError("a fault in the sink")
        if kind == 1:
            return rng.choice([Reject("no"), Discard("no"), None])  # type: ignore[return-value]
        if kind <= 7:
            edits: tuple[Edit, ...] = (Edit.replace_message(rewritten(rng, message.octets())),)
        else:
            edits = tuple(some_edit(rng, message) for _ in range(rng.randint(0, 3)))
        if kind == 18:
            return Hold("look", edits)  # type: ignore[arg-type]
        return (Stop if kind == 19 else Next)(edits)  # type: ignore[arg-type]

    rng = random.Random(-seed - 1)
    role = rng.choice([Role.COSMETIC, Role.COSMETIC, Role.PROTECTIVE])
    damage = rng.choice(list(OnDamage) if role is Role.COSMETIC else [OnDamage.HOLD, OnDamage.REJECT])
    return binding(
        call,
        f"sink {seed}",
        effects=rng.choice(SUBSETS),
        role=role,
        on_damage=damage,
        on_error=rng.choice([OnError.SKIP, OnError.SKIP, OnError.DEFER, OnError.HOLD, OnError.REJECT]),
    )


ENVELOPE = Envelope(
    Address(b"copier@a.example"),
    (Recipient(Address(b"joe@b.example")), Recipient(Address(b"ann@b.example"))),
)


def check_run(content: Content, bindings: list[Binding], done: Dispatched) -> None:
    check(content, bindings, done)
    assert b"".join(DataEncoder(canonicalise(done.content), "DATA").chunks()).endswith(b"\r\n.\r\n")
    effects = {b.guid: b.effects for b in bindings}
    so_far, envelope = content, ENVELOPE
    for entry in done.entries:
        after = fold(so_far, [entry])
        assert digests_of(after) == entry.after
        envelope_after = fold_envelope(envelope, entry.changes)
        if entry.action in _NOT_IN_FORCE:
            assert entry.changes == ()
            assert after.octets() == so_far.octets(), "undone is undone to the octet"
        declared = effects[entry.binding_id]
        if Effect.HEADER not in declared:
            assert after.head == so_far.head
        if Effect.BODY not in declared:
            assert after.body.octets() == so_far.body.octets()
        if Effect.ENVELOPE not in declared:
            assert envelope_after == envelope
        is_faulty = any(finding.severity is not Severity.NOTE for finding in entry.findings)
        if entry.action in {Action.KEPT, Action.UNCHANGED}:
            assert not is_faulty
        so_far, envelope = after, envelope_after
    assert done.envelope == envelope
    assert envelope.recipients
    last = done.entries[-1] if done.entries else None
    if done.decision is Decision.ACCEPT:
        assert len(done.entries) == len(bindings) or (last is not None and last.verdict == "stop")
    else:
        assert last is not None
        assert last.binding == done.binding
        assert done.words


def check_shadows(
    rng: random.Random, content: Content, bindings: list[Binding], done: Dispatched
) -> set[Action]:
    """With sinks in shadow between them, all comes out as it did without; what the shadows would have done."""
    mixed: list[Binding] = []
    for number in range(len(bindings) * 2 + 1):
        if number % 2:
            mixed.append(bindings[number // 2])
        elif rng.random() < 0.5:
            shadow = some_sink(-1 - rng.getrandbits(40))
            mixed.append(msgspec.structs.replace(shadow, mode=Mode.SHADOW))
    beside = dispatch("id", ENVELOPE, FACTS, content, mixed, ManualClock())
    check(content, mixed, beside)
    live = [entry for entry in beside.entries if entry.action is not Action.SHADOWED]
    assert list(map(timeless, live)) == list(map(timeless, done.entries))
    assert beside.content.octets() == done.content.octets()
    assert (beside.decision, beside.words, beside.envelope) == (done.decision, done.words, done.envelope)
    shadows = [entry for entry in beside.entries if entry.action is Action.SHADOWED]
    assert all((entry.before, entry.changes) == (entry.after, ()) for entry in shadows)
    return {entry.action for entry in shadows}


def timeless(entry: Entry) -> Entry:
    return msgspec.structs.replace(entry, took_seconds=0.0)


def test_random_chains() -> None:
    seen = set()
    for seed in range(CHAINS):
        rng = random.Random(seed)
        content = canonical_message(rng)
        bindings = [some_sink(seed * 10 + number) for number in range(rng.randint(1, 5))]
        done = dispatch("id", ENVELOPE, FACTS, content, bindings, ManualClock())
        check_run(content, bindings, done)
        seen |= {entry.action for entry in done.entries} | {done.decision}
        seen |= check_shadows(rng, content, bindings, done)
    assert seen == set(Action) | set(Decision), "every way it can go was gone"


@given(st.integers(0, 2**40), st.lists(st.integers(0, 2**40), min_size=1, max_size=5, unique=True))
def test_any_chain(message: int, sinks: list[int]) -> None:
    content = canonical_message(random.Random(message))
    bindings = [some_sink(seed) for seed in sinks]
    done = dispatch("id", ENVELOPE, FACTS, content, bindings, ManualClock())
    check_run(content, bindings, done)
    check_shadows(random.Random(message), content, bindings, done)


@given(st.integers(0, 2**40), st.integers(0, 2**40))
def test_the_same_sink_on_the_same_message_does_the_same(message: int, seed: int) -> None:
    content = canonical_message(random.Random(message))
    bound = some_sink(seed)
    one, other = (dispatch("id", ENVELOPE, FACTS, content, [bound], ManualClock()) for _ in range(2))
    assert one.content.octets() == other.content.octets()
    assert [e.changes for e in one.entries] == [e.changes for e in other.entries]
    assert [e.findings for e in one.entries] == [e.findings for e in other.entries]
