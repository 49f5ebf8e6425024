"""The readable record: changes in words, faults told from notes, JSON and back."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.diagnosis.record import Record, change_in_words, record_of
from lonedot.message.findings import Part
from lonedot.message.ledger import Change, EnvelopeChange, Splice, Transform
from tests.unit.diagnosis.stories import TRACE, stored, the_story


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (Splice(Part.HEAD, 0, 0, b"X-A: 1\r\nX-B: 2\r\n\t3\r\n"), ("added X-A: 1", "added X-B: 2 3")),
        (Splice(Part.HEAD, 10, 20, b""), ("removed 10 octets at octet 10 of the header",)),
        (Splice(Part.HEAD, 10, 20, b"X: y\r\n"), ("replaced 10 octets at octet 10 of the header by X: y",)),
        (Splice(Part.BODY, 5, 6, b"a\n"), ("replaced 1 octet at octet 5 of the body by 2 octets: a<LF>",)),
        (Splice(Part.BODY, 0, 0, b"X: y\r\n"), ("put in 6 octets at octet 0 of the body: X: y<CR><LF>",)),
        (
            Splice(Part.HEAD, 0, 0, b"no field\r\n"),
            ("put in 10 octets at octet 0 of the header: no field<CR><LF>",),
        ),
        (Transform("crlf"), ("ended every line with CR LF",)),
        (Transform("unheard-of"), ("applied the transform unheard-of",)),
        (
            EnvelopeChange(added=(b"a@b",), removed=(b"c@d",), reverse_path=b""),
            ("added the recipient a@b", "removed the recipient c@d", "changed the sender to <>"),
        ),
    ],
)
def test_changes_in_words(change: Change, words: tuple[str, ...]) -> None:
    assert change_in_words(change) == words


@given(st.sampled_from(Part), st.integers(0, 50), st.integers(0, 50), st.binary(max_size=200))
def test_any_splice_has_printable_words(part: Part, start: int, length: int, octets: bytes) -> None:
    said = change_in_words(Splice(part, start, start + length, octets))
    assert said and all(words.isprintable() for words in said)


def test_the_story() -> None:
    record = record_of(the_story())
    door, good, faulty = record.ledger
    assert door.is_ours and not door.is_fault
    assert door.changed == ("added " + TRACE.decode().replace("\r\n\t", " ").strip(),)
    assert not good.is_ours and not good.is_fault
    assert faulty.is_fault and faulty.tail_attempted.endswith("%%EOF<LF>")
    assert record.attempts[0].outcomes[0][1].reply == "250 2.0.0 Ok: queued as 4F1"


def test_it_survives_json() -> None:
    for message in (the_story(), stored(recipients=("a@b", "ü@c"))):
        record = record_of(message)
        assert msgspec.json.decode(msgspec.json.encode(record), type=Record) == record
