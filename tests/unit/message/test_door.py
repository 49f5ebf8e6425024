"""The decision at the door: what is refused and in which words, what is repaired, what entry 0 says."""

from __future__ import annotations

from pathlib import Path

import pytest

from lonedot.message.door import Admitted, Door, DoorPolicy, LineEnds, LongLines, Refusal, at_the_door
from lonedot.message.encode import canonicalise
from lonedot.message.findings import Code, Part
from lonedot.message.fold import digests_of, fold
from lonedot.message.header import HeaderView
from lonedot.message.intake import Arrived, Intake, content_from
from lonedot.message.ledger import Action, Splice, Transform
from lonedot.message.trace import TraceFacts, received_field
from tests.unit.message.messages import HEAD, SCAN, TemporaryBody

FACTS = TraceFacts("scanner", "192.0.2.1", "relay.example.com", "ESMTP", "0l2v3k4m5n6o7", 1e9)
STRICT = DoorPolicy()
KIND = DoorPolicy(LineEnds.NORMALIZE, LongLines.ENCODE, add_missing=True)
TRACE = received_field(FACTS)


def decide(octets: bytes, policy: DoorPolicy) -> Door:
    return at_the_door(Arrived(content_from(octets)), policy, FACTS)


def admitted(octets: bytes, policy: DoorPolicy) -> Admitted:
    door = decide(octets, policy)
    assert isinstance(door, Admitted), door
    content = content_from(octets)
    entry = door.entry(1e9, 0.001, "r1")
    assert fold(content, [entry], verify=True).octets() == door.content.octets()
    assert door.before == digests_of(content)
    canonicalise(door.content)
    return door


def refused(octets: bytes, policy: DoorPolicy) -> Refusal:
    door = decide(octets, policy)
    assert isinstance(door, Refusal), door
    assert (door.reply.code, door.reply.enhanced) == (550, "5.6.0")
    return door


@pytest.mark.parametrize("policy", [STRICT, KIND])
def test_clean_content_gets_the_trace_field_and_nothing_else(policy: DoorPolicy) -> None:
    door = admitted(SCAN, policy)
    assert door.changes == (Splice(Part.HEAD, 0, 0, TRACE),)
    assert door.content.octets() == TRACE + SCAN
    assert door.words == ""
    entry = door.entry(5.0, 0.5)
    assert (entry.action, entry.event, entry.binding) == (Action.KEPT, "door", "lonedot")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"one\r\ntwo\nthree\r\n", b"bare LF at octet %d; lines must end in CRLF" % (len(HEAD) + 8)),
        (b"one\rtwo\nthree\r\n", b"bare CR at octet %d; lines must end in CRLF" % (len(HEAD) + 3)),
        (b"a\0b\n", b"NUL at octet %d; text must not hold it" % (len(HEAD) + 1)),
        (
            b"x" * 999 + b"\r\n",
            b"line of more than 998 octets at octet %d; lines have at most 998 octets" % len(HEAD),
        ),
    ],
)
def test_a_stranger_is_told_kind_and_octet(body: bytes, words: bytes) -> None:
    assert refused(HEAD + body, STRICT).reply.lines == (words,)


def test_nul_is_never_let_in() -> None:
    assert refused(HEAD + b"a\0b\r\n", KIND).finding.code is Code.NUL


def test_line_ends_are_repaired_for_those_who_may() -> None:
    door = admitted(HEAD + b"one\ntwo\r\r\n", KIND)
    assert door.changes == (Transform("crlf"), Splice(Part.HEAD, 0, 0, TRACE))
    assert door.content.octets() == TRACE + HEAD + b"one\r\ntwo\r\n\r\n"
    assert door.words == f"192.0.2.1 sent bare LF at octet {len(HEAD) + 3}: each CR or LF alone became CRLF"
    entry = door.entry(1.0, 0.0)
    assert entry.action is Action.REPAIRED
    assert [(finding.code, finding.offset) for finding in entry.findings] == [(Code.BARE_LF, 3)]


@pytest.mark.parametrize("octets", [HEAD + b"no line end", b"From: a"])
def test_a_missing_last_line_end_is_added_for_everybody(octets: bytes) -> None:
    door = admitted(octets, STRICT)
    assert door.changes == (Transform("crlf"), Splice(Part.HEAD, 0, 0, TRACE))
    assert door.content.octets() == TRACE + octets + b"\r\n"
    assert door.findings[0].code is Code.NO_FINAL_NEWLINE


def test_text_without_a_header_section_becomes_body() -> None:
    door = admitted(b"just text\nmore\r\n", KIND)
    assert [change.name for change in door.changes if isinstance(change, Transform)] == ["crlf", "end-header"]
    assert door.content.body.octets() == b"just text\r\nmore\r\n"
    view = HeaderView(door.content.head)
    assert [field.name for field in view.fields] == [b"Received", b"Date", b"Message-ID"]


@pytest.mark.parametrize("octets", [b"", b"\r\n", b"\r\nbody\r\n", HEAD, b"From: a\r\n"])
def test_what_has_little_is_taken_with_its_trace_field(octets: bytes) -> None:
    assert admitted(octets, STRICT).content.octets() == TRACE + octets


def test_date_and_message_id_are_added_behind_the_fields_where_they_are_missing() -> None:
    door = admitted(b"From: a\r\n\r\nbody\r\n", KIND)
    assert door.content.octets() == TRACE + (
        b"From: a\r\n"
        b"Date: Sun, 09 Sep 2001 01:46:40 +0000\r\n"
        b"Message-ID: <0l2v3k4m5n6o7@relay.example.com>\r\n"
        b"\r\nbody\r\n"
    )
    assert admitted(b"date: now\r\nMESSAGE-id: <1>\r\n\r\n", KIND).changes == (
        Splice(Part.HEAD, 0, 0, TRACE),
    )


def test_long_lines_are_encoded_for_those_who_may() -> None:
    door = admitted(HEAD + b"x" * 5000 + b"\r\n", KIND)
    assert Transform("encode-long-lines") in door.changes
    assert door.findings[0].code is Code.LINE_TOO_LONG


def test_a_repaired_stored_body_keeps_the_measure_taken_on_the_way(tmp_path: Path) -> None:
    intake = Intake(lambda: TemporaryBody(tmp_path / "body"), memory_limit=100)
    octets = HEAD + b"a line\n" * 1000
    for start in range(0, len(octets), 61):
        intake.feed(octets[start : start + 61])
    arrived = intake.finish()
    door = at_the_door(arrived, KIND, FACTS)
    assert isinstance(door, Admitted)
    assert door.content.body_measure is arrived.repaired_body
    assert door.content.body.octets() == b"a line\r\n" * 1000
