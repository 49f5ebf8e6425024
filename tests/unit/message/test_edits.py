"""Edits: what cannot be is refused when it is made; what is made lowers to splices that touch nothing else."""

from __future__ import annotations

from email.header import decode_header, make_header
from typing import Literal

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lonedot.message.content import Content
from lonedot.message.edits import AddField, AnyEdit, Edit, EditFault, Effect, format_field, lower
from lonedot.message.findings import Part
from lonedot.message.fold import apply_changes
from lonedot.message.header import HeaderView
from lonedot.message.intake import content_from
from lonedot.message.ledger import EnvelopeChange, Splice
from lonedot.message.measure import measure
from tests.unit.message.messages import HEAD, SCAN

CONTENT = content_from(HEAD + b"body\r\n")


def edited(*edits: AnyEdit, content: Content = CONTENT) -> bytes:
    return apply_changes(content, lower(edits, content)).octets()


@pytest.mark.parametrize(
    ("where", "names"),
    [(0, b"nab"), (1, b"anb"), (2, b"abn"), (9, b"abn"), ("top", b"nab"), ("bottom", b"abn")],
)
def test_a_field_goes_where_it_is_told(where: int | Literal["top", "bottom"], names: bytes) -> None:
    content = content_from(b"a: 1\r\n 2\r\nb: 3\r\n\r\nbody\r\n")
    after = HeaderView(edited(Edit.add_field("n", "4", where), content=content))
    assert b"".join(field.name for field in after.fields) == names
    assert after.get("a") == b"1 2"


def test_there_is_no_place_before_the_first() -> None:
    with pytest.raises(EditFault):
        Edit.add_field("n", "4", -1)
    with pytest.raises(EditFault):
        lower([AddField(b"n: 4\r\n", -1)], CONTENT)


@pytest.mark.parametrize("name", ["", "a b", "a:b", "ä", "a\r\n", "X" * 129, "a\tb", "\x7f"])
def test_what_is_no_field_name_is_refused(name: str) -> None:
    with pytest.raises(EditFault):
        Edit.add_field(name, "value")
    with pytest.raises(EditFault):
        Edit.remove_field(name)


@pytest.mark.parametrize(
    "value",
    [
        "a\nb",
        "a\rb",
        "a\r\nb",
        "a\r\n",
        "a\r\n \r\n b",
        "a\r\n\t",
        "a\0b",
        "\x1b[0m",
        "x" * 999,
        "a\r\n " + "y" * 998,
        "\ud800",
        "ä\nBcc: x",
        "a\n b",
        "a\r\r\n b",
    ],
)
def test_what_would_leave_its_field_is_refused(value: str) -> None:
    with pytest.raises(EditFault):
        Edit.add_field("X-Value", value)


@given(st.text(max_size=400))
def test_a_formatted_field_is_one_field(value: str) -> None:
    try:
        octets = format_field("X-Value", value)
    except EditFault:
        return
    view = HeaderView(octets + b"\r\n")
    assert [field.name for field in view.fields] == [b"X-Value"]
    assert view.has_separator
    assert octets.isascii()
    assert measure(octets).profile.is_canonical


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=600))
def test_ascii_is_folded_without_changing_it(value: str) -> None:
    assume(max(map(len, value.replace("\t", " ").split(" "))) < 900)
    octets = format_field("X-Value", value)
    assert octets.replace(b"\r\n", b"") == b"X-Value: " + value.encode()
    lines = octets.split(b"\r\n")[:-1]
    assert all(line.strip(b" \t") for line in lines)
    for line in lines[1:]:
        assert len(line) <= 78 or b" " not in line.strip(b" ")


@given(st.text(st.characters(min_codepoint=32, exclude_categories=("Cs", "Cc", "Zl", "Zp")), max_size=200))
def test_text_that_is_not_ascii_is_encoded_and_comes_back(value: str) -> None:
    assume(not value.isascii())
    octets = format_field("X-Value", value)
    unfolded = HeaderView(octets).get("X-Value")
    assert unfolded is not None
    assert str(make_header(decode_header(unfolded.decode()))).strip() == value.strip()
    assert max(map(len, octets.split(b"\r\n"))) <= 78


def test_a_long_name_still_gives_a_field() -> None:
    assert format_field("X" * 128, "value ä") == b"X" * 128 + b": =?utf-8?q?value_=C3=A4?=\r\n"


def test_a_value_that_is_folded_stays_as_it_is() -> None:
    assert format_field("DKIM-Signature", "v=1;\r\n\tb=abc") == b"DKIM-Signature: v=1;\r\n\tb=abc\r\n"


def test_fields_are_added_at_either_end() -> None:
    assert edited(Edit.add_field("X-A", "1")) == b"X-A: 1\r\n" + HEAD + b"body\r\n"
    assert edited(Edit.add_field("X-A", "1", "bottom")) == HEAD[:-2] + b"X-A: 1\r\n\r\nbody\r\n"


def test_a_field_behind_a_head_without_a_line_end_gets_one_before_it() -> None:
    assert (
        edited(Edit.add_field("X-A", "1", "bottom"), content=content_from(b"a: b")) == b"a: b\r\nX-A: 1\r\n"
    )


def test_one_of_several_fields_is_replaced_or_removed() -> None:
    content = content_from(b"A: 1\r\nb: 2\r\n c\r\nB: 3\r\nC: 4\r\n\r\n")
    assert edited(Edit.replace_field("B", "x"), content=content) == b"A: 1\r\nB: x\r\nB: 3\r\nC: 4\r\n\r\n"
    assert (
        edited(Edit.replace_field("B", "x", -1), content=content)
        == b"A: 1\r\nb: 2\r\n c\r\nB: x\r\nC: 4\r\n\r\n"
    )
    assert edited(Edit.remove_field("B", 2), content=content) == b"A: 1\r\nb: 2\r\n c\r\nC: 4\r\n\r\n"
    assert edited(Edit.remove_field("B"), content=content) == b"A: 1\r\nC: 4\r\n\r\n"
    assert edited(Edit.remove_field("B", 3), content=content) == content.octets()
    assert lower([Edit.remove_field("none")], content) == ()
    with pytest.raises(EditFault):
        lower([Edit.replace_field("B", "x", 3)], content)


def test_edits_see_what_those_before_them_did() -> None:
    assert edited(Edit.add_field("X", "1"), Edit.replace_field("X", "2")) == b"X: 2\r\n" + HEAD + b"body\r\n"
    assert edited(Edit.replace_body(b"longer body\r\n"), Edit.splice_body(11, 13, b"!\r\n")) == (
        HEAD + b"longer body!\r\n"
    )


def test_a_range_outside_of_the_body_is_refused() -> None:
    with pytest.raises(EditFault):
        lower([Edit.splice_body(0, 7, b"")], CONTENT)
    with pytest.raises(EditFault):
        Edit.splice_body(2, 1, b"")


@pytest.mark.parametrize("head", [b"", b"a: b", b"a: b\r\n", b"a: b\r\n\r\n"])
def test_a_body_for_a_message_of_header_alone_gets_its_empty_line(head: bytes) -> None:
    content = content_from(head)
    made = apply_changes(content, lower([Edit.replace_body(b"body\r\n")], content))
    assert made == content_from(made.octets())
    assert made.body.octets() == b"body\r\n"


def test_an_added_field_leaves_the_body_alone() -> None:
    content = content_from(SCAN)
    changes = lower([Edit.add_field("X-Recipient", "joe@example.net")], content)
    assert changes == (Splice(Part.HEAD, 0, 0, b"X-Recipient: joe@example.net\r\n"),)
    assert apply_changes(content, changes).body is content.body


def test_envelope_edits_are_envelope_changes() -> None:
    edits: list[AnyEdit] = [
        Edit.add_recipient("a@example.net"),
        Edit.remove_recipient(b"b@example.net"),
        Edit.change_reverse_path(""),
    ]
    assert lower(edits, CONTENT) == (
        EnvelopeChange(added=(b"a@example.net",)),
        EnvelopeChange(removed=(b"b@example.net",)),
        EnvelopeChange(reverse_path=b""),
    )


@pytest.mark.parametrize(
    "address",
    [
        "",
        "a",
        "@b",
        "a@",
        "a b@c",
        "a@b>\r\nRCPT TO:<x@y",
        "a@b\0",
        "<a@b>",
        '"a\r"@b',
        "x" * 250 + "@long",
        "\ud800@b",
    ],
)
def test_what_would_leave_its_command_is_no_recipient(address: str) -> None:
    with pytest.raises(EditFault):
        Edit.add_recipient(address)


@pytest.mark.parametrize("address", ["a@b.example", '"a b"@c', "postmaster", "ä@b.example", "a@[192.0.2.1]"])
def test_addresses_are_taken(address: str) -> None:
    assert Edit.add_recipient(address).address == address.encode()


def test_effects_follow_from_the_kind() -> None:
    assert Edit.add_field("X", "1").effect is Effect.HEADER
    assert Edit.splice_body(0, 0, b"").effect is Effect.BODY
    assert Edit.change_reverse_path("a@b").effect is Effect.ENVELOPE


def test_a_whole_message_is_not_lowered() -> None:
    with pytest.raises(EditFault):
        lower([Edit.replace_message(b"")], CONTENT)


def test_edits_travel_as_octets() -> None:
    edits: list[AnyEdit] = [Edit.add_field("X", "1"), Edit.splice_body(1, 2, b"x"), Edit.add_recipient("a@b")]
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(edits), type=list[AnyEdit]) == edits
    assert isinstance(edits[0], AddField)


@pytest.mark.parametrize(
    "make", [Edit.replace_field, lambda name, value, number: Edit.remove_field(name, number)]
)
def test_occurrences_are_counted_from_one(make: object) -> None:
    assert callable(make)
    with pytest.raises(EditFault):
        make("X", "1", 0)
