"""The span view: lossless, the same for damaged and repaired heads, equal whether it searches or reads all."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.message.header import HeaderView, end_of_head
from tests.unit.message.messages import HEAD, mail_octets

_LINE = re.compile(rb"(?:[^\r\n]*)(?:\r\n|\r(?!\n)|\n)|[^\r\n]+\Z")
_FIELD = re.compile(rb"[!-9;-~]+[ \t]*:")

header_octets = st.lists(
    st.sampled_from(
        [b"a:", b"b :", b"B\t:", b":", b" ", b"x", b"\r\n", b"\r\n", b"\n", b"\r", b"From: q\r\n", b"\xff"]
    ),
    max_size=14,
).map(b"".join)


def body_start_by_lines(octets: bytes) -> int:
    place = 0
    for line in _LINE.findall(octets):
        place += len(line)
        if not line.strip(b"\r\n"):
            return place
    return -1


def fields_by_lines(head: bytes) -> tuple[list[bytes], int]:
    """The fields as octets, and where they end."""
    fields: list[bytes] = []
    for line in _LINE.findall(head):
        if line[:1] in (b" ", b"\t") and fields:
            fields[-1] += line
        elif _FIELD.match(line):
            fields.append(line)
        else:
            break
    return fields, sum(map(len, fields))


@given(mail_octets | header_octets)
def test_the_head_ends_behind_the_first_empty_line(octets: bytes) -> None:
    assert end_of_head(octets) == body_start_by_lines(octets)


@pytest.mark.parametrize(
    ("octets", "end"),
    [
        (b"a: b\r\n\r\nc", 8),
        (b"a: b\n\nc\r\rd\n\re", 6),
        (b"a: b\r\rc\n\nd\n\re", 6),
        (b"a: b\n\rc\n\n", 6),
        (b"a: b\n\r\nc", 7),
        (b"a: b\r\r\nc", 7),
        (b"\r\nc", 2),
        (b"\rc", 1),
        (b"a: b\r\nc", -1),
    ],
)
def test_the_first_empty_line_ends_the_head_by_whatever_it_is_made_of(octets: bytes, end: int) -> None:
    assert end_of_head(octets) == end


@given(header_octets)
def test_the_end_is_found_octet_by_octet(octets: bytes) -> None:
    taken = bytearray()
    end = -1
    for octet in octets:
        taken.append(octet)
        end = end_of_head(taken, max(0, len(taken) - 4), complete=False)
        if end >= 0:
            break
    if end < 0:
        end = end_of_head(taken)
    assert end == end_of_head(octets)


@given(header_octets)
def test_fields_are_the_octets_that_stand_there(octets: bytes) -> None:
    end = end_of_head(octets)
    head = octets if end < 0 else octets[:end]
    view = HeaderView(head)
    fields, section_end = fields_by_lines(head)
    assert [head[field.start : field.end] for field in view.fields] == fields
    assert view.section_end == section_end
    for field in view.fields:
        octets_of_field = head[field.start : field.end]
        assert octets_of_field.startswith(field.name)
        assert field.raw in octets_of_field
        assert not set(field.value) & set(b"\r\n")
    rest = head[section_end:]
    assert view.has_separator == (rest in (b"\r\n", b"\r", b"\n"))
    assert view.malformed == (section_end if rest and not view.has_separator else -1)


@given(header_octets, st.sampled_from(["a", "A", "b", "from", "x", "", ":", "b ", "a:", "b :x"]))
def test_searching_for_a_name_equals_reading_all_fields(octets: bytes, name: str) -> None:
    read = HeaderView(octets)
    wanted = tuple(field for field in read.fields if field.name.lower() == name.lower().encode())
    assert HeaderView(octets).every(name) == read.every(name) == wanted
    assert HeaderView(octets).first(name) == read.first(name) == (wanted[0] if wanted else None)
    assert HeaderView(octets).has(name) == read.has(name) == bool(wanted)


def test_a_value_is_unfolded_and_a_name_has_no_case() -> None:
    view = HeaderView(HEAD)
    assert view.get("SUBJECT") == b"a scan of\ttwo lines"
    assert view.first(b"subject") in view.fields
    assert view.get("X-None") is None
    assert view.has_separator
    assert view.malformed == -1
    assert view.is_well_formed


def test_white_space_before_the_colon_is_the_old_syntax() -> None:
    view = HeaderView(b"Subject \t: old\r\nSubjects: no\r\nsubject: second\r\n\r\n")
    assert view.all("Subject") == (b"old", b"second")
    assert view.fields[0].name == b"Subject"


def test_hops_are_counted_among_the_fields_only() -> None:
    head = b"Received: by a\r\nX: Received: no\r\nreceived : by b\r\n\tReceived: no\r\nRECEIVED:by c\r\n\r\n"
    assert HeaderView(head).count_hops() == 3
    assert HeaderView(b"Received: by a\r\nno field\r\nReceived: by b\r\n").count_hops() == 1


@pytest.mark.parametrize(
    ("head", "place"),
    [
        (b"From: a\r\nHello all,\r\n", 9),
        (b"From a@b Mon\r\nTo: b\r\n\r\n", 0),
        (b" continues nothing\r\nTo: b\r\n\r\n", 0),
        (b"\xff\xfeF\0r\0", 0),
        (b"a: b\n\nrest", 5),
        (b": no name\r\n\r\n", 0),
        (b"a: b\r\n\r\n", -1),
        (b"a: b\r\n", -1),
        (b"a: b", -1),
        (b"", -1),
        (b"\r\n", -1),
    ],
)
def test_the_first_line_that_is_no_field_is_named(head: bytes, place: int) -> None:
    assert HeaderView(head).malformed == place


def test_a_long_line_without_a_colon_is_judged_in_one_pass() -> None:
    assert HeaderView(b"a: b\r\n" + b"x" * 250_000).malformed == 6
    assert HeaderView(b"x" * 250_000).malformed == 0
