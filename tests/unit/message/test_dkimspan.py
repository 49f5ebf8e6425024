"""What a DKIM signature covers."""

from __future__ import annotations

import pytest

from lonedot.message.dkimspan import broken_by_head, signatures_of
from lonedot.message.header import HeaderView

SIGNED = (
    b"DKIM-Signature: v=1; a=rsa-sha256; d=a.example; s=k;\r\n\tc=%s;\r\n h=From : to:\r\n  Subject:subject; b=x\r\n"
    b"Received: from x\r\nFrom: a@a.example\r\nTo: one@b.example\r\nSubject: Hello  there\r\n\r\n"
)


def test_its_tags_are_read() -> None:
    (signature,) = signatures_of(HeaderView(SIGNED % b"Relaxed/simple"))
    assert signature.signed == (b"from", b"to", b"subject", b"subject")
    assert (signature.domain, signature.selector, signature.is_relaxed) == (b"a.example", b"k", True)
    assert signature.words == "the DKIM signature of a.example"


@pytest.mark.parametrize(
    "field", [b"", b"DKIM-Signature: \r\n", b"DKIM-Signature: h=; d=x\r\n", b"dkim-signature: \xff;=\r\n"]
)
def test_what_cannot_be_read_is_left_out(field: bytes) -> None:
    assert signatures_of(HeaderView(field + b"A: b\r\n\r\n")) == ()


def test_there_is_an_end_to_signatures() -> None:
    head = b"DKIM-Signature: d=x; h=from\r\n" * 1000 + b"\r\n"
    assert len(signatures_of(HeaderView(head))) == 20


@pytest.mark.parametrize("canon", [b"simple/simple", b"relaxed/simple"])
@pytest.mark.parametrize(
    ("old", "new", "simple", "relaxed"),
    [
        (b"Received: from x", b"Received: from y", None, None),
        (b"Subject: Hello  there", b"Subject: Hello\r\n  there", b"subject", None),
        (b"From: a@", b"FROM: a@", b"from", None),
        (b"Hello", b"Hallo", b"subject", b"subject"),
        (b"To: one", b"To: two@b.example\r\nTo: one", None, None),
        (b"To: one@b.example\r\n", b"To: one@b.example\r\nTo: two@b.example\r\n", b"to", b"to"),
        (b"To: one@b.example\r\n", b"", b"to", b"to"),
        (b"From: a@", b"Subject: another\r\nFrom: a@", b"subject", b"subject"),
    ],
)
def test_changes_to_signed_fields(
    canon: bytes, old: bytes, new: bytes, simple: bytes | None, relaxed: bytes | None
) -> None:
    head = SIGNED % canon
    before, after = HeaderView(head), HeaderView(head.replace(old, new))
    (signature,) = signatures_of(before)
    assert broken_by_head(signature, before, after) == (relaxed if signature.is_relaxed else simple)
