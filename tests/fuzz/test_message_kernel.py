"""Random edits on random messages: what leaves is canonical, undo is exact, the ledger replays to what was sent.

The relay is played here in its smallest form: a message comes in by chunks, is repaired at the door, and edits that
may do any damage are applied; what they damage is repaired or undone, as a binding may say. Sequences come from a
seeded source, so that a failure names its number and is repeated by it.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.message import transforms
from lonedot.message.content import Content
from lonedot.message.defects import defects
from lonedot.message.door import Admitted, DoorPolicy, LineEnds, LongLines, Refusal, at_the_door
from lonedot.message.edits import AnyEdit, Edit, EditFault, lower
from lonedot.message.encode import DataEncoder, NotCanonical, canonicalise
from lonedot.message.fold import apply_changes, digests_of, fold
from lonedot.message.header import HeaderView
from lonedot.message.intake import Intake, content_from
from lonedot.message.ledger import Action, Change, Entry, Transform
from lonedot.message.measure import measure
from lonedot.message.trace import TraceFacts
from tests.unit.message.messages import HEAD, TemporaryBody, mail_octets

SEQUENCES = 10_000
FACTS = TraceFacts("device", "192.0.2.1", "relay.example.com", "ESMTP", "0l2v3k4m5n6o7", 1e9, b"a@b.example")
NAMES = ("Subject", "X-A", "x-a", "Received", "To", "X-B", "Nothing")
VALUES = ("1", "", "two words", "ä\u2028ö", "long " * 40, "w" * 300, "folded\r\n already", ".dot")
PIECES = (
    b"\r\n",
    b"\r\n",
    b"\n",
    b"\r",
    b".",
    b".\r\n",
    b"text",
    b"\r\n.\r\n",
    b"x" * 90,
    b"%%EOF\n",
    b"\xe9",
)
RARE = (b"\0", b"y" * 999)


def octets_from(source: random.Random, most: int = 12) -> bytes:
    return b"".join(
        source.choice(PIECES if source.randrange(30) else RARE) for _ in range(source.randrange(most))
    )


def edit_from(source: random.Random, content: Content) -> AnyEdit:
    size = content.body.size
    match source.randrange(7):
        case 0 | 1:
            return Edit.add_field(
                source.choice(NAMES), source.choice(VALUES), "top" if source.randrange(2) else "bottom"
            )
        case 2:
            return Edit.replace_field(source.choice(NAMES), source.choice(VALUES), source.choice((1, 2, -1)))
        case 3:
            return Edit.remove_field(source.choice(NAMES), source.choice((None, 1, -1)))
        case 4:
            return Edit.replace_body(octets_from(source))
        case 5:
            start = source.randint(0, size)
            return Edit.splice_body(start, source.randint(start, size), octets_from(source, 4))
        case _:
            return Edit.add_recipient("c@d.example")


def arrive(source: random.Random, octets: bytes, path: Path) -> tuple[Content, Admitted] | None:
    """The arrival form and what the door makes of it; None when it is refused, for a reason that is there."""
    intake = Intake(lambda: TemporaryBody(path), memory_limit=source.choice((0, 50, 100_000)))
    while octets:
        size = source.choice((1, 7, 100, 5000))
        intake.feed(octets[:size])
        octets = octets[size:]
    arrived = intake.finish()
    policy = DoorPolicy(LineEnds.NORMALIZE, source.choice(list(LongLines)), add_missing=True)
    door = at_the_door(arrived, policy, FACTS)
    if isinstance(door, Refusal):
        profile = arrived.content.body_measure.profile
        assert profile.nul >= 0 or profile.long_line >= 0
        return None
    return arrived.content, door


def entry_of(before: Content, action: Action, changes: tuple[Change, ...]) -> Entry:
    after = apply_changes(before, changes)
    return Entry(
        binding="sink",
        binding_id="1",
        event="arrival",
        at=0.0,
        took_seconds=0.0,
        before=digests_of(before),
        after=digests_of(after),
        action=action,
        changes=changes,
    )


def entry_for(before: Content, edits: list[AnyEdit], is_repaired: bool) -> Entry:
    """What the edits of a sink come to: kept, repaired, or undone."""
    changes = lower(edits, before)
    action = Action.KEPT
    if is_repaired:
        changes = (*changes, Transform(transforms.CRLF))
        action = Action.REPAIRED
    after = apply_changes(before, changes)
    try:
        canonicalise(after)
    except NotCanonical as damage:
        assert damage.findings
        assert list(damage.findings) == defects(after)
        return entry_of(before, Action.UNDONE, ())
    assert defects(after) == []
    return entry_of(before, action, changes)


def check_message(source: random.Random, path: Path) -> int:
    """One message from the client to the next hop; the number of entries that took hold."""
    taken = arrive(source, HEAD + octets_from(source), path)
    if taken is None:
        return 0
    arrival, door = taken
    ledger = [door.entry(1e9, 0.0)]
    content = door.content
    history = [content.octets()]
    for _ in range(source.randrange(5)):
        try:
            edits = [edit_from(source, content) for _ in range(source.randint(1, 3))]
            entry = entry_for(content, edits, is_repaired=source.randrange(3) == 0)
        except EditFault:
            continue
        ledger.append(entry)
        content = apply_changes(content, entry.changes)
        history.append(content.octets())
        if entry.action is Action.UNDONE:
            assert history[-1] == history[-2]

    encoder = DataEncoder(canonicalise(content), "DATA")
    wire = b"".join(encoder.chunks())
    assert strict_receiver(wire) == history[-1]
    assert encoder.record().size == len(wire)

    for length in range(len(ledger), 0, -1):
        folded = fold(arrival, ledger[:length], verify=True)
        assert folded.octets() == history[length - 1]
        assert digests_of(folded) == digests_of(content_from(folded.octets()))
    return len(ledger)


def strict_receiver(wire: bytes) -> bytes:
    """The content that a server takes which knows CRLF lines, and CRLF.CRLF as the end."""
    lines = wire.split(b"\r\n")
    assert lines[-2:] == [b".", b""]
    assert b"." not in lines[:-2]
    text = [line[1:] if line.startswith(b".") else line for line in lines[:-2]]
    assert not any(b"\r" in line or b"\n" in line or b"\0" in line or len(line) > 998 for line in text)
    return b"".join(line + b"\r\n" for line in text)


@pytest.mark.parametrize("part", range(4))
def test_ten_thousand_sequences_of_edits(part: int, tmp_path: Path) -> None:
    entries = 0
    for number in range(part, SEQUENCES, 4):
        source = random.Random(number)
        try:
            entries += check_message(source, tmp_path / "body")
        except Exception as error:
            error.add_note(f"sequence {number}")
            raise
    assert entries > SEQUENCES // 2  # most messages were taken, with edits that took hold or were undone


@given(st.binary(max_size=300) | mail_octets)
def test_any_octets_are_read_without_a_fault(octets: bytes) -> None:
    content = content_from(octets)
    assert content.octets() == octets
    view = HeaderView(content.head)
    assert len(view.fields) >= view.count_hops()
    found = defects(content)
    try:
        canonical = canonicalise(content)
    except NotCanonical as damage:
        assert list(damage.findings) == found
    else:
        assert found == []
        assert strict_receiver(b"".join(DataEncoder(canonical, "DATA").chunks())) == octets
    repaired = transforms.apply(transforms.CRLF, content)
    assert measure(repaired.body.octets()) == repaired.body_measure
    ended = transforms.apply(transforms.END_HEADER, repaired)
    assert HeaderView(ended.head).malformed == -1


@given(st.text(max_size=60), st.text(max_size=120), st.integers(-3, 3))
def test_an_edit_is_made_or_refused(name: str, value: str, number: int) -> None:
    content = content_from(HEAD)
    for make in (
        lambda: Edit.add_field(name, value),
        lambda: Edit.replace_field(name, value, number),
        lambda: Edit.remove_field(name, number),
        lambda: Edit.add_recipient(value),
    ):
        try:
            edit: AnyEdit = make()
            made = apply_changes(content, lower([edit], content))
        except EditFault:
            continue
        canonicalise(made)
