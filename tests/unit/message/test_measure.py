"""The measure against a reading octet by octet, in any chunking."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lonedot.message.measure as measuring
from lonedot.message.content import FileBody, MemoryBody
from lonedot.message.measure import (
    EMPTY_MEASURE,
    Meter,
    has_dot_behind,
    is_plain_fields,
    measure,
    measure_body,
    measured,
    profile_with_fields,
)
from lonedot.message.profile import Profile
from tests.unit.message.messages import chunked, cuts, mail_octets


def read_octet_by_octet(octets: bytes) -> Profile:
    """What a profile means, written without any haste."""
    first = {"bare_cr": -1, "bare_lf": -1, "nul": -1, "eight_bit": -1, "long_line": -1}
    dot_line = False
    line_start = 0

    def note(kind: str, place: int) -> None:
        if first[kind] < 0:
            first[kind] = place

    place = 0
    while place <= len(octets):
        octet = octets[place : place + 1]
        if octet in (b"\r", b"\n", b""):
            if place - line_start > 998:
                note("long_line", line_start)
            dot_line = dot_line or octets[line_start : line_start + 1] == b"."
            if octets[place : place + 2] == b"\r\n":
                place += 1
            elif octet:
                note("bare_cr" if octet == b"\r" else "bare_lf", place)
            line_start = place + 1
        elif octet == b"\0":
            note("nul", place)
        elif octet[0] > 127:
            note("eight_bit", place)
        place += 1
    return Profile(
        size=len(octets),
        lines=octets.count(b"\n"),
        dot_line=dot_line,
        ends_with_crlf=not octets or octets.endswith(b"\r\n"),
        ends_with_line_end=not octets or octets.endswith((b"\r", b"\n")),
        **first,
    )


@given(mail_octets, cuts)
def test_any_chunking_gives_what_a_reader_of_single_octets_finds(octets: bytes, sizes: list[int]) -> None:
    meter = Meter()
    for chunk in chunked(octets, sizes):
        meter.feed(chunk)
    assert meter.finish().profile == read_octet_by_octet(octets)
    assert meter.finish() == measure(octets)
    assert meter.finish().sha256 == hashlib.sha256(octets).digest()
    assert meter.size == len(octets)


@given(mail_octets)
def test_octet_by_octet_gives_the_same(octets: bytes) -> None:
    meter = Meter()
    for octet in octets:
        meter.feed(bytes((octet,)))
    assert meter.finish() == measure(octets)


@pytest.mark.parametrize(
    "octets", [b"a\r\n.b\r\n", b"a\r.b", b"\n.", b"\r\r\n\n\r", b"\r", b"." + b"x" * 998 + b"\r\n"]
)
def test_a_cut_at_any_place_changes_nothing(octets: bytes) -> None:
    for first in range(len(octets) + 1):
        for second in range(first, min(first + 4, len(octets)) + 1):
            meter = Meter()
            for chunk in (octets[:first], octets[first:second], octets[second:]):
                meter.feed(chunk)
            assert meter.finish() == measure(octets)
    assert measure(octets).profile == read_octet_by_octet(octets)


@given(mail_octets, mail_octets, mail_octets)
def test_a_copy_goes_on_by_itself(first: bytes, second: bytes, other: bytes) -> None:
    meter = Meter()
    meter.feed(first)
    twin = meter.copy()
    meter.feed(second)
    twin.feed(other)
    assert meter.finish() == measure(first + second)
    assert twin.finish() == measure(first + other)


@given(st.lists(st.sampled_from([b".", b"\r\n", b"\n", b"\r", b"a"]), max_size=30).map(b"".join))
def test_dots_are_found_behind_what_is_asked_for(octets: bytes) -> None:
    for line_end in (b"\r\n", b"\n", b"\r"):
        assert has_dot_behind(octets, line_end) == (line_end + b"." in octets)
        dots = b"a.b" * 9 + octets
        assert has_dot_behind(dots, line_end) == (line_end + b"." in dots)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    place=st.integers(0, 4000),
    octets=st.sampled_from([b"\r", b"\n", b".", b"\0", b"\xe9", b"\n.", b"\r.", b"x" * 1000]),
    window=st.integers(1, 300),
)
def test_the_window_does_not_matter(
    monkeypatch: pytest.MonkeyPatch, place: int, octets: bytes, window: int
) -> None:
    monkeypatch.setattr(measuring, "_WINDOW", window)
    lines = (b"A" * 70 + b"\r\n") * 50
    text = lines[:place] + octets + lines[place:]
    assert measure(text).profile == read_octet_by_octet(text)


def test_a_line_end_may_lie_across_the_window() -> None:
    for shift in range(4):
        text = b"x" * shift + b"\r\n" + (b"A" * 62 + b"\r\n") * 5000
        assert measure(text).profile.has_clean_line_ends
        assert measure(text + b"\n").profile.bare_lf == len(text)


@pytest.mark.parametrize("size", [997, 998, 999, 1000])
@pytest.mark.parametrize("end", [b"\r\n", b"\n", b"\r", b""])
def test_a_line_is_long_from_999_octets_on(size: int, end: bytes) -> None:
    text = b"a\r\n" + b"x" * size + end
    assert measure(text).profile.long_line == (3 if size > 998 else -1)


def test_nothing_is_canonical() -> None:
    assert EMPTY_MEASURE.profile == Profile()
    assert EMPTY_MEASURE.profile.is_canonical


def test_a_stored_body_measures_as_the_octets(tmp_path: Path) -> None:
    octets = (b"line\r\n" * 100_000) + b".\r\n"
    path = tmp_path / "body"
    path.write_bytes(octets)
    assert measure_body(FileBody(path, len(octets))) == measure(octets) == measure_body(MemoryBody(octets))


def test_measured_content_has_both_measures() -> None:
    content = measured(b"a: b\r\n\r\n", MemoryBody(b"text\n"))
    assert content.head_measure == measure(b"a: b\r\n\r\n")
    assert content.body_measure.profile.bare_lf == 4
    assert not content.is_canonical


LINES = st.lists(
    st.sampled_from(
        [b"A: 1", b"Subject: \xe9", b" folded", b"\tfolded", b".dot: 1", b"", b"x" * 999, b"a\0b"]
    ),
    max_size=6,
)
ENDS = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b""])
FIELDS = st.sampled_from(
    [
        b"X-A: 1\r\n",
        b"X-A: 1\r\n folded\r\nX-B:\r\n",
        b"X-A: " + b"x" * 991 + b"\r\n",
        b"X-A: " + b"x" * 994 + b"\r\n",
        b".X: 1\r\n",
        b"X-A: \xc3\xa9\r\n",
        b"X-A: 1\n",
        b"X-A: 1\r\r\n",
        b"X-A: 1",
        b"X-A: \0\r\n",
        b"no field\r\n",
        b"",
    ]
)


@given(LINES, ENDS, FIELDS, st.integers(0, 200))
@settings(max_examples=1500)
def test_fields_that_are_put_in_give_the_profile_of_the_whole(
    lines: list[bytes], end: bytes, fields: bytes, place: int
) -> None:
    head = b"".join(line + b"\r\n" for line in lines[:-1]) + b"".join(line + end for line in lines[-1:])
    start = min(place, len(head))
    given_profile = profile_with_fields(measure(head).profile, head, start, fields)
    if given_profile is not None:
        assert given_profile == measure(head[:start] + fields + head[start:]).profile


@pytest.mark.parametrize("head", [b"", b"A: 1\r\n\r\n", b"A: \xe9\r\n.b\r\n\r\n"])
def test_plain_fields_in_a_clean_head_need_no_measuring(head: bytes) -> None:
    for fields in (b"X-A: 1\r\n", b"X-A: 1\r\n\t2\r\nB:\r\n"):
        for start in (0, len(head)):
            put_in = profile_with_fields(measure(head).profile, head, start, fields)
            assert put_in == measure(head[:start] + fields + head[start:]).profile


@given(st.binary(max_size=40) | FIELDS)
def test_plain_fields_are_canonical_and_ascii(octets: bytes) -> None:
    if is_plain_fields(octets):
        profile = measure(octets).profile
        assert profile.is_canonical and profile.eight_bit < 0 and not profile.dot_line
