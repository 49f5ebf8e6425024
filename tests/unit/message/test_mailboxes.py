"""Mailboxes in header fields, as people and programs write them."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.message.header import HeaderView
from lonedot.message.mailboxes import Mailbox, read_mailboxes


@pytest.mark.parametrize(
    ("value", "boxes"),
    [
        (b"ann@example.com", [("", "ann@example.com")]),
        (b"Ann <ann@example.com>", [("Ann", "ann@example.com")]),
        (
            b'"Ann, the first" <ann@example.com>, b@c.example',
            [("Ann, the first", "ann@example.com"), ("", "b@c.example")],
        ),
        (b"=?utf-8?q?Gr=C3=BC=C3=9Fe?= aus Rom <a@b.example>", [("Grüße aus Rom", "a@b.example")]),
        (
            b"Team: a@b.example, C <c@d.example>; e@f.example",
            [("", "a@b.example"), ("C", "c@d.example"), ("", "e@f.example")],
        ),
        (b"undisclosed-recipients:;", []),
        (b"a@b.example (a comment, (nested) with commas)", [("", "a@b.example")]),
        (b'"a b"@c.example', [("", '"a b"@c.example')]),
        (b"ann @ example.com", [("", "ann@example.com")]),
        (b"<@relay.example:a@b.example>", [("", "a@b.example")]),
        (b"nobody", []),
        (b"", []),
    ],
)
def test_mailboxes(value: bytes, boxes: list[tuple[str, str]]) -> None:
    assert read_mailboxes(value) == tuple(Mailbox(*box) for box in boxes)


def test_those_of_all_fields_of_a_name() -> None:
    view = HeaderView(
        b"To: a@b.example\r\nTo: =?utf-8?q?C?= <c@d.example>\r\nSubject: =?utf-8?q?=C3=A4?=\r\n\r\n"
    )
    assert [str(box) for box in view.mailboxes("to")] == ["a@b.example", "C <c@d.example>"]
    assert view.subject == view.get_text("Subject") == "ä"
    assert [field.text for field in view.fields][-1] == "ä"
    assert (view.get_text("X-None"), HeaderView(b"\r\n").subject) == (None, "")


@given(
    st.lists(
        st.sampled_from([b'"', b"\\", b"(", b")", b"<", b">", b",", b";", b":", b"a@b.c", b" ", b"\xff"])
    ).map(b"".join)
)
def test_anything_is_read(value: bytes) -> None:
    for box in read_mailboxes(value):
        assert "@" in box.address


@pytest.mark.parametrize("piece", [b'"', b'\\"', b"(", b"<", b"<a", b"a@b,", b"=?utf-8?q?", b":"])
def test_the_work_grows_with_the_length(piece: bytes) -> None:
    began = time.process_time()
    read_mailboxes(piece * (400_000 // len(piece)))
    assert time.process_time() - began < 5
