"""Reduce to intent: of a rewritten message only what was meant is taken."""

from __future__ import annotations

import base64
import email
import email.policy
from collections.abc import Callable
from email.message import Message
from pathlib import Path

import pytest

from lonedot.message.content import Content, FileBody
from lonedot.message.edits import Effect
from lonedot.message.findings import Code, Severity
from lonedot.message.fold import apply_changes
from lonedot.message.header import HeaderView
from lonedot.message.intake import content_from
from lonedot.message.intent import Reduced, reduce
from lonedot.message.ledger import Splice
from lonedot.message.loosely import is_same_field
from tests.corpus.files import CORPUS, FILES, corpus

HEADER = frozenset({Effect.HEADER})
BODY = frozenset({Effect.BODY})
BOTH = HEADER | BODY

POLICIES = {"compat32": email.policy.compat32, "default": email.policy.default, "SMTP": email.policy.SMTP}


def faulty(octets: bytes) -> bytes:
    """The sink of the story: decodes the attachment, saves with LF, loses the last line end; adds one field."""
    content = content_from(octets)
    start = octets.index(b"JVBERi0")
    end = octets.index(b"\r\n------=", start)
    document = base64.b64decode(octets[start:end])
    assert content.size
    return b"X-Processed: yes\n" + octets[:start].replace(b"\r\n", b"\n") + document.rstrip(b"\n")


def taken(before: Content, reduced: Reduced) -> bytes:
    return apply_changes(before, reduced.changes).octets()


def damages(reduced: Reduced) -> set[Code]:
    return {finding.code for finding in reduced.findings if finding.severity is not Severity.NOTE}


def test_the_story() -> None:
    octets = (CORPUS / "copier-scan.eml").read_bytes()
    before = content_from(octets)
    reduced = reduce(before, faulty(octets), HEADER)
    assert taken(before, reduced) == b"X-Processed: yes\r\n" + octets
    assert len(reduced.changes) == 1
    assert damages(reduced) == {
        Code.BARE_LF,
        Code.NO_FINAL_NEWLINE,
        Code.BOUNDARY_MISSING,
        Code.ENCODING_MISMATCH,
        Code.BODY_UNDECLARED,
    }
    assert not reduced.whole_body_taken
    assert any("the message now ends in `%%EOF`" in finding.words for finding in reduced.findings)
    assert reduced.words == "header fields taken: x-processed; the body differs and was not taken"
    assert reduced.attempted.octets() == faulty(octets)


def test_the_story_from_a_stored_body(tmp_path: Path) -> None:
    octets = (CORPUS / "copier-scan.eml").read_bytes()
    content = content_from(octets)
    path = tmp_path / "body"
    path.write_bytes(content.body.octets())
    stored = Content(
        content.head, FileBody(path, content.body.size), content.head_measure, content.body_measure
    )
    assert reduce(stored, faulty(octets), HEADER).changes == reduce(content, faulty(octets), HEADER).changes


def test_nothing_declared_nothing_taken() -> None:
    octets = (CORPUS / "copier-scan.eml").read_bytes()
    reduced = reduce(content_from(octets), faulty(octets), frozenset())
    assert reduced.changes == ()
    assert {Code.HEADER_UNDECLARED, Code.BODY_UNDECLARED} <= damages(reduced)


def test_line_ends_alone_change_nothing() -> None:
    for file in FILES:
        before = content_from(file.read_bytes())
        if before.is_canonical and HeaderView(before.head).is_well_formed:
            reduced = reduce(before, file.read_bytes().replace(b"\r\n", b"\n"), BOTH)
            assert reduced.changes == ()
            assert damages(reduced) == set()
            assert {finding.code for finding in reduced.findings} <= {Code.BARE_LF, Code.NO_FINAL_NEWLINE}
            assert reduced.words == "nothing but the way it is written differs; nothing was taken"


def is_lawful(file: Path) -> bool:
    """What is not well formed is never given to a sink; `deep` has more depth than is read."""
    content = content_from(file.read_bytes())
    view = HeaderView(content.head)
    return content.is_canonical and view.is_well_formed and view.has_separator and file.stem != "deep"


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize("file", [file for file in FILES if is_lawful(file)], ids=lambda file: file.stem)
def test_the_standard_library_adds_one_field(file: Path, policy: email.policy.Policy) -> None:
    octets = file.read_bytes()
    before = content_from(octets)
    message = email.message_from_bytes(octets, policy=policy)  # noqa: TID251 - the rewriter under test
    message["X-Recipient"] = "bob@dest.example"
    reduced = reduce(before, message.as_bytes(), HEADER)
    assert taken(before, reduced) == octets.replace(
        b"\r\n\r\n", b"\r\nX-Recipient: bob@dest.example\r\n\r\n", 1
    )
    # Where a multipart has no parts, the library keeps CRLF in the middle of its LF: a mixture, and named as such.
    assert damages(reduced) <= ({Code.BARE_LF} if b"\r" in message.as_bytes() else set())


def rewritten(octets: bytes, change: Callable[[Message], None]) -> bytes:
    message = email.message_from_bytes(octets, policy=email.policy.default)  # noqa: TID251 - the rewriter under test
    change(message)
    return message.as_bytes()


@pytest.mark.parametrize(
    "name", ["copier-scan", "header-encoded-words", "outlook-alternative", "header-raw-utf8"]
)
def test_real_changes_are_taken_and_nothing_else(name: str) -> None:
    octets = (CORPUS / f"{name}.eml").read_bytes()
    before = content_from(octets)

    def change(message: Message) -> None:
        message.replace_header(
            "Subject", "Another one, and a longer one that has to be folded somewhere in its middle"
        )
        del message["Date"]

    reduced = reduce(before, rewritten(octets, change), HEADER)
    after = content_from(taken(before, reduced))
    old, new = HeaderView(before.head), HeaderView(after.head)
    assert (
        new.get("Subject") == b"Another one, and a longer one that has to be folded somewhere in its middle"
    )
    assert not new.has("Date")
    kept = [before.head[f.start : f.end] for f in old.fields if f.name not in (b"Subject", b"Date")]
    assert [after.head[f.start : f.end] for f in new.fields if f.name != b"Subject"] == kept
    assert after.body.octets() == before.body.octets()
    assert reduced.words == "header fields taken: date, subject"


def test_a_declared_body_is_taken_as_the_smallest_range() -> None:
    before = corpus("plain-ascii")
    after = before.octets().replace(b"all is well", b"all is very well").replace(b"\r\n", b"\n")
    reduced = reduce(before, after, BODY)
    (change,) = reduced.changes
    assert isinstance(change, Splice)
    assert change.octets == b"very "
    assert taken(before, reduced) == before.octets().replace(b"all is well", b"all is very well")
    assert reduced.whole_body_taken
    assert damages(reduced) == set()


def test_a_body_and_the_fields_that_describe_it_go_together() -> None:
    before = content_from(
        b"Subject: x\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\naGVsbG8=\r\n"
    )
    after = b"X-A: b\nSubject: x\nContent-Type: text/plain\nContent-Transfer-Encoding: 8bit\n\nhello\n"
    only_head = reduce(before, after, HEADER)
    assert taken(before, only_head) == b"X-A: b\r\n" + before.octets()
    only_body = reduce(before, after, BODY)
    assert only_body.changes == ()
    assert Code.HEADER_UNDECLARED in damages(only_body)
    both = reduce(before, after, BOTH)
    assert taken(before, both) == after.replace(b"\n", b"\r\n")


def test_an_unreadable_header_section_takes_everything_with_it() -> None:
    before = corpus("plain-ascii")
    for octets in (b"", b"\r\n", b"no header\r\n", b"X: y\r\nno field\r\n\r\nbody\r\n", b"\x1f\x8b\x08\0"):
        reduced = reduce(before, octets, BOTH)
        assert reduced.changes == ()
        assert damages(reduced)
        assert "nothing of it was taken" in reduced.words


def test_fields_keep_the_place_the_sink_gave_them() -> None:
    before = content_from(b"A: 1\r\nB: 2\r\nC: 3\r\n\r\nx\r\n")
    after = b"N: 0\nA: 1\nM: 5\n folded\nC: 3\nO: 9\n\nx\n"
    reduced = reduce(before, after, HEADER)
    assert taken(before, reduced) == after.replace(b"\n", b"\r\n")
    assert len(reduced.changes) == 3


def test_a_message_without_body_can_get_a_field() -> None:
    before = corpus("header-only")
    reduced = reduce(before, before.octets() + b"X-A: b\r\n", HEADER)
    assert taken(before, reduced) == before.octets() + b"X-A: b\r\n"


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("Subject: a b", "subject:  a  b ", True),
        ("Subject: a b", "Subject: ab", False),
        ("Subject: a b", "Subject: a c", False),
        ("Subject: a b", "Subjects: a b", False),
        ("Subject: =?utf-8?q?=C3=BC?=", "Subject: =?iso-8859-1?b?/A==?=", True),
        ("Subject: =?utf-8?q?=C3=BC?=", "Subject: =?iso-8859-1?b?/Q==?=", False),
        ("Subject: =?utf-8?q?=C3?= =?utf-8?q?=BC?=", "Subject: =?utf-8?q?=C3=BC?=", True),
        ("Subject: =?x-no?q?a?=", "Subject: =?x-no?b?YQ==?=", True),
        ("Subject: =?a\0b?q?a?=", "Subject: =?a\0b?b?YQ==?=", True),
        ("Subject: =?hex?q?a?=", "Subject: =?hex?b?YQ==?=", True),
        ("Subject: =?utf-8?b?!!?=", "Subject: =?utf-8?b?!?=", True),
        ('Content-Type: text/plain;\r\n name="a b"', "Content-Type: text/plain; name*=us-ascii''a%20b", True),
        ("Content-Type: a/b; name*0=one;\r\n name*1=two", "Content-Type: a/b; name=onetwo", True),
        ("Content-Type: a/b; name*0=one;\r\n name*1=two", "Content-Type: a/b; name=one", False),
        ("Content-Type: a/b;\r\n x=1", "Content-Type: a/c;\r\n x=1", False),
        ("X-Token: " + "t" * 80, "X-Token:\r\n =?utf-8?q?" + "t" * 80 + "?=", True),
        ("X-Token: " + "t" * 80, "X-Token: " + "t" * 79, False),
    ],
)
def test_what_says_the_same(old: str, new: str, same: bool) -> None:
    (one,) = HeaderView(old.encode() + b"\r\n").fields
    (other,) = HeaderView(new.encode() + b"\r\n").fields
    assert is_same_field(one, other) == same


@pytest.mark.parametrize("name", [b"X%d", b"A"])
def test_many_fields_are_compared_in_bounded_time(name: bytes) -> None:
    def head(value: bytes) -> bytes:
        return b"".join(
            (name % n if b"%" in name else name) + b": " + value * 30 + b"\r\n" for n in range(3000)
        )

    before = content_from(head(b"one") + b"\r\nx\r\n")
    after = head(b"two") + b"\r\nx\r\n"
    assert taken(before, reduce(before, after, HEADER)) == after
