"""Random messages and random damage: the guard and the reduction hold whatever they are given."""

from __future__ import annotations

import email
import email.policy
import os
import random

from hypothesis import given
from hypothesis import strategies as st

from lonedot.message.content import Content
from lonedot.message.edits import Effect
from lonedot.message.findings import Severity
from lonedot.message.fold import apply_changes
from lonedot.message.guard import inspect
from lonedot.message.header import HeaderView
from lonedot.message.intake import content_from
from lonedot.message.intent import reduce
from lonedot.message.transforms import ENCODE_7BIT, ENCODE_LONG_LINES, CannotTransform, apply
from tests.corpus.messages import random_message

POLICIES = (email.policy.compat32, email.policy.default, email.policy.SMTP)
CASES = 10_000 if os.environ.get("HYPOTHESIS_PROFILE") == "deep" else 600
EFFECTS = st.sets(st.sampled_from(Effect)).map(frozenset)


def test_a_library_that_writes_everything_anew_adds_one_field() -> None:
    rewritten = 0
    for seed in range(CASES):
        rng = random.Random(seed)
        octets = random_message(rng)
        message = email.message_from_bytes(octets, policy=rng.choice(POLICIES))  # noqa: TID251 - the rewriter
        message["X-Recipient"] = "bob@dest.example"
        try:
            after = message.as_bytes()
        except UnicodeEncodeError:
            continue  # the library's own: octets that are no UTF-8, in a field that it folds
        rewritten += after.replace(b"\n", b"\r\n") != octets
        before = content_from(octets)
        reduced = reduce(before, after, frozenset({Effect.HEADER}))
        wanted = octets.replace(b"\r\n\r\n", b"\r\nX-Recipient: bob@dest.example\r\n\r\n", 1)
        assert apply_changes(before, reduced.changes).octets() == wanted, f"seed {seed}"
        assert all(finding.severity is Severity.NOTE for finding in reduced.findings), f"seed {seed}"
    assert rewritten > CASES // 2


@st.composite
def damaged(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A message, and the same after some accidents."""
    octets = random_message(random.Random(draw(st.integers(0, 100_000))))
    after = octets
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(after)))
        match draw(st.integers(0, 4)):
            case 0:
                after = after[:place] + draw(st.binary(max_size=10)) + after[place:]
            case 1:
                after = after[:place] + after[place + draw(st.integers(1, 200)) :]
            case 2:
                after = after.replace(b"\r\n", draw(st.sampled_from([b"\n", b"\r", b"\n\r"])))
            case 3:
                after = after[:place]
            case _:
                after = (
                    after[:place]
                    + b"\r\n"
                    + draw(st.sampled_from([b"X-A: b", b"--", b"=", b".", b" "]))
                    + after[place:]
                )
    return octets, after


@given(damaged(), EFFECTS)
def test_what_is_taken_was_declared(pair: tuple[bytes, bytes], effects: frozenset[Effect]) -> None:
    before = content_from(pair[0])
    reduced = reduce(before, pair[1], effects)
    after = apply_changes(before, reduced.changes)
    if Effect.HEADER not in effects:
        assert after.head == before.head
    if Effect.BODY not in effects:
        assert after.body.octets() == before.body.octets()
        assert not reduced.whole_body_taken
    found = inspect(before, after, effects)
    assert not any(finding.severity is Severity.VIOLATION for finding in found)
    profile = after.body_measure.profile
    assert profile.has_clean_line_ends
    again = reduce(before, after.octets(), effects)
    assert apply_changes(before, again.changes).octets() == after.octets()


@given(damaged())
def test_findings_have_a_place_in_the_message(pair: tuple[bytes, bytes]) -> None:
    before, after = content_from(pair[0]), content_from(pair[1])
    for finding in inspect(before, after, frozenset()):
        assert finding.words
        assert finding.words.isprintable()
        assert len(finding.octets) <= 64
        size = len(after.head) if finding.part.value == "head" else after.body.size
        assert -1 <= finding.offset <= size
        if finding.offset >= 0:
            assert finding.octets in after.octets()


@given(st.binary(max_size=300), st.binary(max_size=300), EFFECTS)
def test_garbage_raises_nothing(one: bytes, other: bytes, effects: frozenset[Effect]) -> None:
    before, after = content_from(one), content_from(other)
    inspect(before, after, effects)
    reduced = reduce(before, other, effects)
    apply_changes(before, reduced.changes)


@given(damaged())
def test_transforms_do_their_work_or_say_why_not(pair: tuple[bytes, bytes]) -> None:
    content = content_from(pair[1])
    for name in (ENCODE_7BIT, ENCODE_LONG_LINES):
        try:
            encoded: Content = apply(name, content)
        except CannotTransform as refusal:
            assert str(refusal)
            continue
        profiles = (encoded.head_measure.profile, encoded.body_measure.profile)
        assert all((p.eight_bit if name == ENCODE_7BIT else p.long_line) < 0 for p in profiles)
        assert HeaderView(encoded.head).malformed < 0 or HeaderView(content.head).malformed >= 0
