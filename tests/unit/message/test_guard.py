"""The guard: every damage is found, named and placed; what was there before is nobody's fault."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lonedot.message.content import Content, MemoryBody
from lonedot.message.defects import offset_in_message
from lonedot.message.edits import AddField, Edit, Effect, lower
from lonedot.message.findings import Code, Finding, Part, Severity
from lonedot.message.fold import apply_changes
from lonedot.message.guard import inspect, shown, with_plain_fields
from lonedot.message.intake import content_from
from lonedot.message.measure import measured
from lonedot.terms.address import Address
from lonedot.terms.envelope import Envelope, Recipient
from tests.corpus.files import CORPUS, corpus
from tests.unit.message.damage_vectors import DamageVector, load

HEADER = frozenset({Effect.HEADER})
BODY = frozenset({Effect.BODY})
BOTH = HEADER | BODY
ALL = BOTH | {Effect.ENVELOPE}
CLEAN = content_from(b"From: <a@b.example>\r\nSubject: x\r\n\r\nbody\r\n")


def codes(findings: tuple[Finding, ...], *severities: Severity) -> list[Code]:
    return [finding.code for finding in findings if not severities or finding.severity in severities]


def envelope(*addresses: str, sender: str = "s@b.example") -> Envelope:
    return Envelope(
        Address(sender.encode()), tuple(Recipient(Address(address.encode())) for address in addresses)
    )


def with_body(content: Content, body: bytes) -> Content:
    return measured(content.head, MemoryBody(body))


def replaced(content: Content, old: bytes, new: bytes) -> Content:
    octets = content.octets()
    assert old in octets
    return content_from(octets.replace(old, new))


# --- octets ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", load(), ids=lambda vector: vector.id)
def test_every_defect_of_the_vectors_is_reported(vector: DamageVector) -> None:
    after = content_from(vector.octets)
    found = inspect(CLEAN, after, ALL)
    named = {(finding.code.value, offset_in_message(finding, after)) for finding in found}
    for defect in vector.defects:
        assert (defect.code, defect.offset) in named
    assert all(finding.words and len(finding.octets) <= 64 for finding in found)
    if not vector.defects:
        assert not codes(found, Severity.DAMAGE)


@pytest.mark.parametrize("vector", load(), ids=lambda vector: vector.id)
def test_what_was_there_before_is_not_the_sinks(vector: DamageVector) -> None:
    before = content_from(vector.octets)
    assert inspect(before, content_from(vector.octets), frozenset()) == ()
    added = content_from(b"X-New: 1\r\n" + vector.octets)
    assert Code.NUL not in codes(inspect(before, added, HEADER))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"%PDF\r\n%%EOF\n", "the message now ends in `%%EOF LF`: the last line end is a bare LF"),
        (
            b"%PDF\n%%EOF\n",
            "`%%EOF LF`: the last line end is a bare LF, and the first one is octet 4 of the body",
        ),
        (b"%PDF\r\n%%EOF\r", "the message now ends in `%%EOF CR`: the last line end is a bare CR"),
        (b"%PDF\r\n%%EOF", "the message now ends in `%%EOF`: the last line has no line end"),
        (b"a\nb\r\n", "octet 1 of the body is a bare LF; lines must end in CRLF"),
        (b"a\0b\r\n", "octet 1 of the body is a NUL"),
        (
            b"ab\r\n" + b"x" * 999 + b"\r\n",
            "the line that starts at octet 4 of the body is longer than 998 octets",
        ),
    ],
)
def test_words_are_for_people(body: bytes, words: str) -> None:
    first = inspect(CLEAN, with_body(CLEAN, body), BODY)[0]
    assert first.severity is Severity.DAMAGE
    assert words in first.words


def test_octets_are_shown_by_name() -> None:
    assert shown(b"%%EOF\n") == "%%EOF LF"
    assert shown(b"a\r\n\0\xff") == "a CRLF NUL \\xff"


# --- header section ----------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["top", "bottom"])
def test_a_declared_field_is_no_news(where: str) -> None:
    edits = (Edit.add_field("X-Recipient", "carol@dest.example", "top" if where == "top" else "bottom"),)
    for name in ("copier-scan", "outlook-related", "header-duplicates"):
        content = corpus(name)
        assert inspect(content, apply_changes(content, lower(edits, content)), HEADER) == ()


def test_an_undeclared_field_is_a_violation() -> None:
    after = apply_changes(CLEAN, lower((Edit.add_field("X-A", "b"),), CLEAN))
    (finding,) = inspect(CLEAN, after, BODY)
    assert (finding.code, finding.severity) == (Code.HEADER_UNDECLARED, Severity.VIOLATION)
    assert "x-a" in finding.words


def test_removed_and_moved_fields_are_noted() -> None:
    before = content_from(b"A: 1\r\nB: 2\r\nC: 3\r\n\r\n")
    (finding,) = inspect(before, content_from(b"A: 1\r\nC: 3\r\n\r\n"), HEADER)
    assert (finding.code, finding.severity) == (Code.FIELD_REMOVED, Severity.NOTE)
    assert finding.words == "header fields are gone: b"
    (finding,) = inspect(before, content_from(b"B: 2\r\nC: 3\r\nA: 1\r\n\r\n"), HEADER)
    assert (finding.code, finding.severity) == (Code.FIELDS_REORDERED, Severity.NOTE)
    assert inspect(before, content_from(b"A: 1\r\nB: 4\r\nC: 3\r\n\r\n"), HEADER) == ()


def test_a_header_section_without_end() -> None:
    after = measured(CLEAN.head[:-2], CLEAN.body)
    first = inspect(CLEAN, after, HEADER)[0]
    assert (first.code, first.severity) == (Code.HEADER_MALFORMED, Severity.DAMAGE)


def test_an_empty_line_in_the_header_section_is_seen() -> None:
    after = measured(b"X-A: b\r\n\r\n" + CLEAN.head, CLEAN.body)
    assert Code.HEADER_MALFORMED in codes(inspect(CLEAN, after, HEADER), Severity.DAMAGE)


def test_a_field_put_into_the_middle_of_another_is_seen() -> None:
    before = content_from(b"A: 1\r\n 2\r\nB: 3\r\n\r\n")
    after = content_from(b"A: 1\r\nX: y\r\n 2\r\nB: 3\r\n\r\n")
    (finding,) = inspect(before, after, frozenset())
    assert finding.words.endswith("a, x")


def test_eight_bit_in_the_header_section_is_noted() -> None:
    after = content_from("X: ü\r\n".encode() + CLEAN.octets())
    assert codes(inspect(CLEAN, after, HEADER), Severity.NOTE) == [Code.EIGHT_BIT_INTRODUCED]


# --- recipients --------------------------------------------------------------------------------------


def disclosed(content: Content, field: str, *recipients: str) -> bool:
    after = apply_changes(content, lower((Edit.add_field("X-Recipient", field),), content))
    found = inspect(content, after, HEADER, envelope(*recipients))
    return codes(found, Severity.DAMAGE) == [Code.RECIPIENT_DISCLOSED]


def test_a_bcc_is_not_shown_to_others() -> None:
    content = corpus("plain-ascii")  # to bob@dest.example
    assert disclosed(content, "carol@dest.example", "bob@dest.example", "carol@dest.example")
    assert disclosed(content, "<CAROL@dest.example>", "bob@dest.example", "carol@dest.example")
    assert not disclosed(content, "bob@dest.example", "bob@dest.example", "carol@dest.example")


def test_the_only_recipient_may_be_shown_to_itself() -> None:
    assert not disclosed(corpus("plain-ascii"), "carol@dest.example", "carol@dest.example")


def test_a_longer_address_is_another_one() -> None:
    content = corpus("plain-ascii")
    recipients = ("bob@dest.example", "ann@dest.example")
    assert not disclosed(content, "joann@dest.example", *recipients)
    assert not disclosed(content, "ann@dest.example.org", *recipients)
    assert disclosed(content, "see ann@dest.example.", *recipients)


def test_envelope_changes_must_be_declared() -> None:
    was = envelope("a@b.example", "c@d.example")
    now = envelope("a@b.example", "e@f.example", sender="t@b.example")
    (finding,) = inspect(CLEAN, CLEAN, BOTH, was, now)
    assert (finding.code, finding.part) == (Code.ENVELOPE_UNDECLARED, Part.ENVELOPE)
    assert "added the recipient e@f.example and removed the recipient c@d.example" in finding.words
    assert "from s@b.example to t@b.example" in finding.words
    assert inspect(CLEAN, CLEAN, ALL, was, now) == ()
    assert inspect(CLEAN, CLEAN, frozenset(), was, was) == ()


# --- body and structure ------------------------------------------------------------------------------


def test_an_undeclared_body_is_a_violation_also_when_it_is_well_formed() -> None:
    found = inspect(CLEAN, with_body(CLEAN, b"other\r\n"), HEADER)
    assert codes(found, Severity.VIOLATION) == [Code.BODY_UNDECLARED]
    assert codes(found, Severity.DAMAGE) == []


def test_a_declared_body_is_noted_by_size() -> None:
    found = inspect(CLEAN, with_body(CLEAN, b"other text\r\n"), BODY)
    assert [(f.code, f.severity, f.words) for f in found] == [
        (Code.SIZE_CHANGED, Severity.NOTE, "the body went from 6 octets to 12")
    ]


def test_a_lost_closing_boundary_is_named() -> None:
    content = corpus("copier-scan")
    body = content.body.octets()
    found = inspect(content, with_body(content, body[: body.rindex(b"\r\n------")] + b"\r\n"), BODY)
    (finding,) = [f for f in found if f.severity is Severity.DAMAGE]
    assert finding.code is Code.BOUNDARY_MISSING
    assert "`--" + "----=_Part_0001_SCAN--` of part 1 is missing" in finding.words


def test_a_boundary_that_was_missing_before_is_not_the_sinks() -> None:
    content = corpus("unended-boundary")
    found = inspect(content, with_body(content, content.body.octets() + b"more\r\n"), BODY)
    assert codes(found, Severity.DAMAGE) == []


def test_a_decoded_attachment_contradicts_its_label() -> None:
    content = corpus("copier-scan")
    found = inspect(content, replaced(content, b"JVBERi0xLjQK", b"%PDF-1.4\r\n"), BODY)
    (finding,) = [f for f in found if f.severity is Severity.DAMAGE]
    assert finding.code is Code.ENCODING_MISMATCH
    assert "part 1.2 (application/pdf) is declared base64" in finding.words
    assert "`%PDF-1.4 CRLF" in finding.words


@pytest.mark.parametrize(
    ("label", "body"),
    [
        (b"quoted-printable", b"50 = 50\r\n"),
        (b"quoted-printable", b"gr\xc3\xbcn\r\n"),
        (b"7bit", b"gr\xc3\xbcn\r\n"),
        (b"base64", b"YWJj\r\nYWJjZ\r\n"),
    ],
)
def test_labels_and_octets(label: bytes, body: bytes) -> None:
    head = b"Content-Transfer-Encoding: %s\r\n\r\n" % label
    good, bad = content_from(head + b"YWJj\r\n"), content_from(head + body)
    assert codes(inspect(good, bad, BODY), Severity.DAMAGE) == [Code.ENCODING_MISMATCH]
    assert codes(inspect(bad, with_body(bad, body + body), BODY), Severity.DAMAGE) == []


def test_a_changed_label_is_compared_with_the_body() -> None:
    content = corpus("plain-8bit-labelled")
    after = measured(content.head.replace(b": 8bit", b": base64"), content.body)
    assert codes(inspect(content, after, HEADER), Severity.DAMAGE) == [Code.ENCODING_MISMATCH]


def test_text_behind_the_last_boundary_is_noted() -> None:
    content = corpus("copier-scan")
    found = inspect(content, with_body(content, content.body.octets() + b"Disclaimer\r\n"), BODY)
    assert any("12 octets stand behind the last boundary" in finding.words for finding in found)
    assert codes(found, Severity.DAMAGE) == []


def test_introduced_eight_bit_is_noted() -> None:
    content = corpus("plain-8bit-labelled")
    before = with_body(content, b"plain\r\n")
    assert Code.EIGHT_BIT_INTRODUCED in codes(inspect(before, content, BODY), Severity.NOTE)


# --- signatures --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "breaks"),
    [("X-Other", "1", False), ("Subject", "second", True), ("To", "carol@dest.example", False)],
)
def test_fields_that_a_signature_covers(name: str, value: str, breaks: bool) -> None:
    """Subject is signed twice with one there: another one breaks it. To is signed once, and the lowest counts."""
    content = corpus("dkim-signed")
    after = apply_changes(content, lower((Edit.add_field(name, value),), content))
    assert (Code.SIGNATURE_BROKEN in codes(inspect(content, after, HEADER), Severity.NOTE)) == breaks
    assert (Code.SIGNATURE_BROKEN in codes(inspect(content, after, BODY), Severity.DAMAGE)) == breaks


def test_a_signature_covers_the_body() -> None:
    content = corpus("dkim-signed")
    found = inspect(content, with_body(content, b"other\r\n"), BODY)
    assert codes(found, Severity.NOTE).count(Code.SIGNATURE_BROKEN) == 1
    assert any("the DKIM signature of sender.example covers the body" in finding.words for finding in found)


def test_relaxed_signatures_stand_a_fold() -> None:
    content = corpus("dkim-signed")
    after = content_from(
        (CORPUS / "dkim-signed.eml").read_bytes().replace(b"Subject: Test", b"Subject:\r\n  Test")
    )
    assert Code.SIGNATURE_BROKEN not in codes(inspect(content, after, HEADER))


# --- cost --------------------------------------------------------------------------------------------


class _Unread:
    """A body that must not be read."""

    size = 10

    def chunks(self, limit: int = 0) -> object:
        raise AssertionError("the body was read")

    def octets(self) -> bytes:
        raise AssertionError("the body was read")


def test_a_body_that_did_not_change_is_not_read() -> None:
    content = corpus("copier-scan")
    unread = Content(content.head, _Unread(), content.head_measure, content.body_measure)  # type: ignore[arg-type]
    other = Content(content.head, _Unread(), content.head_measure, content.body_measure)  # type: ignore[arg-type]
    after = apply_changes(other, lower((Edit.add_field("X-A", "b"),), content))
    assert inspect(unread, after, HEADER, envelope("a@b.example")) == ()


# --- the quick way -----------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [
        b"From: <a@b.example>\r\n",
        b"Subject: x\r\n y\r\n",
        b" folded\r\n",
        b"DKIM-Signature: v=1; d=b.example; s=s; h=from:x-a\r\n",
        b"Content-Type: multipart/mixed; boundary=b\r\n",
        b"no field\r\n",
        b"A: \xe9\r\n",
        b"A: 1\n",
        b"To: c@dest.example\r\n",
    ]
)
ADDED = st.sampled_from(
    [
        b"X-A: 1\r\n",
        b"X-A: 1\r\n 2\r\nX-B: 3\r\n",
        b"X-A: c@dest.example\r\n",
        b"From: <m@b.example>\r\n",
        b"content-TYPE: text/plain\r\n",
        b"MIME-Version: 1.0\r\n",
        b"X-A: \xe9\r\n",
        b"X-A: 1\n",
        b"X-A: 1",
        b"X-A : 1\r\n",
        b" fold\r\n",
        b"\r\nX-A: 1\r\n",
        b"X-A: 1\r\n\r\n",
        b"",
    ]
)


@given(
    st.lists(PIECES, max_size=4).map(b"".join),
    st.sampled_from([b"\r\nbody\r\n", b"\r\n", b"", b"\r\nbody\n", b"\r\n--b\r\n\r\nx\r\n--b--\r\n"]),
    ADDED,
    st.sampled_from([HEADER, BOTH, BODY, frozenset[Effect]()]),
    st.sampled_from([("c@dest.example",), ("c@dest.example", "d@dest.example")]),
)
@settings(max_examples=3000)
def test_the_quick_way_is_gone_only_where_the_long_one_finds_nothing(
    head: bytes, rest: bytes, added: bytes, declared: frozenset[Effect], addresses: tuple[str, ...]
) -> None:
    before, to = content_from(head + rest), envelope(*addresses)
    quick = with_plain_fields(before, added, declared, to)
    if quick is not None:
        after = apply_changes(before, lower((AddField(added),), before))
        assert quick == after == measured(added + before.head, before.body)
        assert inspect(before, after, declared, to) == ()


def test_a_plain_field_goes_the_quick_way() -> None:
    to = envelope("c@dest.example")
    for name in ("copier-scan", "outlook-related", "header-duplicates"):
        assert with_plain_fields(corpus(name), b"X-A: 1\r\n", HEADER, to) is not None


@pytest.mark.parametrize(
    ("head", "added", "declared", "addresses"),
    [
        (b"A: 1\r\n", b"X-A: 1\r\n", BODY, ("c@d.example",)),
        (b"A: 1\r\n", b"X-A: c@d.example\r\n", HEADER, ("c@d.example", "e@d.example")),
        (b"A: 1\r\n", b"Content-Type: text/html\r\n", HEADER, ("c@d.example",)),
        (b"dkim-signature: d=d.example; h=x-a\r\n", b"X-A: 1\r\n", HEADER, ("c@d.example",)),
        (b"A: 1\r\n", b"X-A: 1\n", HEADER, ("c@d.example",)),
    ],
)
def test_whatever_the_guard_might_speak_of_goes_the_long_way(
    head: bytes, added: bytes, declared: frozenset[Effect], addresses: tuple[str, ...]
) -> None:
    assert with_plain_fields(content_from(head + b"\r\nx\r\n"), added, declared, envelope(*addresses)) is None
