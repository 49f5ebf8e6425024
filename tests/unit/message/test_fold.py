"""Folding the ledger: in order, by recipient, verified, and never past a ledger that does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from lonedot.message.content import EMPTY_BODY, Content, FileBody
from lonedot.message.findings import Part
from lonedot.message.fold import FoldFault, apply_changes, digests_of, fold, fold_envelope
from lonedot.message.intake import content_from
from lonedot.message.ledger import Action, Change, Entry, EnvelopeChange, Splice, Transform
from lonedot.message.measure import EMPTY_MEASURE, measure, measured
from lonedot.terms.address import Address
from lonedot.terms.envelope import BodyType, Envelope, Recipient
from tests.unit.message.messages import HEAD, SCAN


def entry(before: Content, *changes: Change, scope: tuple[int, ...] = ()) -> Entry:
    return Entry(
        binding="sink",
        binding_id="1",
        event="arrival",
        at=0.0,
        took_seconds=0.0,
        before=digests_of(before),
        after=digests_of(apply_changes(before, changes)),
        action=Action.KEPT,
        changes=changes,
        scope=scope,
    )


def test_changes_apply_to_the_result_of_those_before() -> None:
    content = content_from(b"a: b\n\nbody\n")
    made = apply_changes(
        content,
        [
            Splice(Part.HEAD, 0, 0, b"x: y\n"),
            Transform("crlf"),
            Splice(Part.BODY, 0, 4, b"text"),
            Splice(Part.HEAD, 0, 6, b""),
        ],
    )
    assert made == content_from(b"a: b\r\n\r\ntext\r\n")


def test_an_entry_for_some_recipients_holds_for_them_alone() -> None:
    arrival = content_from(SCAN)
    ledger = [
        entry(arrival, Splice(Part.HEAD, 0, 0, b"X-All: 1\r\n")),
        entry(arrival, Splice(Part.HEAD, 0, 0, b"X-Some: 1\r\n"), scope=(1, 3)),
    ]
    assert fold(arrival, ledger).octets() == b"X-All: 1\r\n" + SCAN
    assert fold(arrival, ledger, 0).octets() == b"X-All: 1\r\n" + SCAN
    assert fold(arrival, ledger, 3).octets() == b"X-Some: 1\r\nX-All: 1\r\n" + SCAN


def test_a_head_splice_leaves_the_body_and_its_measure_alone(tmp_path: Path) -> None:
    arrival = measured(HEAD, EMPTY_BODY)
    gone = Content(HEAD, FileBody(tmp_path / "gone", 5), arrival.head_measure, measure(b"12345"))
    made = apply_changes(gone, [Splice(Part.HEAD, 0, 0, b"X: 1\r\n")])
    assert made.body is gone.body
    assert made.body_measure is gone.body_measure
    assert made.head_measure == measure(b"X: 1\r\n" + HEAD)


def test_a_stored_body_is_spliced_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "body"
    path.write_bytes(b"line\r\n" * 100_000)
    stored = measured(HEAD, FileBody(path, 600_000))
    made = apply_changes(stored, [Splice(Part.BODY, 300_000, 300_006, b".\n"), Transform("crlf")])
    wanted = b"line\r\n" * 50_000 + b".\r\n" + b"line\r\n" * 49_999
    assert made.body.octets() == wanted
    assert made.body_measure == measure(wanted)
    assert not isinstance(made.body, FileBody)


@pytest.mark.parametrize(
    "change",
    [
        Splice(Part.HEAD, 0, len(HEAD) + 1, b""),
        Splice(Part.BODY, -1, 0, b""),
        Splice(Part.BODY, 5, 4, b""),
        Splice(Part.ENVELOPE, 0, 0, b""),
        Transform("no-such"),
    ],
)
def test_a_ledger_that_does_not_fit_is_a_fault(change: Change) -> None:
    with pytest.raises(FoldFault):
        apply_changes(content_from(HEAD + b"text\r\n"), [change])


def test_digests_are_verified_when_asked() -> None:
    arrival = content_from(SCAN)
    ledger = [entry(arrival, Splice(Part.HEAD, 0, 0, b"X: 1\r\n"))]
    assert fold(arrival, ledger, verify=True).head.startswith(b"X: 1\r\n")
    assert fold(arrival, [], verify=True) == arrival
    altered = content_from(SCAN + b"x\r\n")
    fold(altered, ledger)
    with pytest.raises(FoldFault, match="sink"):
        fold(altered, ledger, verify=True)


def test_octets_that_are_not_those_measured_are_measured_anew_unless_a_digest_tells() -> None:
    scan = content_from(SCAN)
    altered = Content(HEAD.replace(b"\r\n", b"\n", 1), scan.body, scan.head_measure, scan.body_measure)
    change = Splice(Part.HEAD, 0, 0, b"X-A: 1\r\n")
    assert not fold(altered, [entry(scan, change)]).is_canonical
    with pytest.raises(FoldFault, match="not those recorded"):
        fold(altered, [entry(scan, change)], verify=True)


def test_nothing_folds_to_nothing() -> None:
    arrival = Content(b"", EMPTY_BODY, EMPTY_MEASURE, EMPTY_MEASURE)
    assert fold(arrival, []) == arrival


def test_the_envelope_is_folded_too() -> None:
    envelope = Envelope(
        Address(b"s@a.example"),
        (Recipient(Address(b"a@b.example"), 1), Recipient(Address(b"c@b.example"))),
        BodyType.EIGHT_BIT_MIME,
        True,
    )
    made = fold_envelope(
        envelope,
        [
            EnvelopeChange(added=(b"d@b.example", b"a@b.example"), removed=(b"c@b.example",)),
            Transform("crlf"),
            EnvelopeChange(reverse_path=b""),
        ],
    )
    assert made == Envelope(
        Address(b""),
        (Recipient(Address(b"a@b.example"), 1), Recipient(Address(b"d@b.example"))),
        BodyType.EIGHT_BIT_MIME,
        True,
    )
