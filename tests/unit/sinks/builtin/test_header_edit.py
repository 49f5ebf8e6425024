"""Header edit: which fields a row fits, what becomes of them, and that no stranger's value gets out of its place."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lonedot.message.header import HeaderView
from lonedot.sinks.bindings import Setting
from lonedot.sinks.builtin.header_edit import (
    FIELDS_LIMIT,
    ROWS_LIMIT,
    HeaderEdit,
    HeaderSettings,
    Pattern,
    TooManyFields,
)
from lonedot.sinks.settings import SettingsFault, typed
from lonedot.testing import Ran, make_message, run_sink

MESSAGE = """\
Received: from a
Received: from b
From: Anna <anna@example.com>
To: bert@example.org
Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= from
 the sea
X-Internal-Host: db1
X-Internal-User: anna
X-Spam-Flag: YES

body {value}
"""


def ran(edits: str, content: str | bytes = MESSAGE, **more: str) -> Ran:
    done = run_sink(HeaderEdit, make_message(content, **more), settings={"edits": edits})  # type: ignore[arg-type]
    assert done.error is None, done.error
    return done


def head(edits: str, content: str | bytes = MESSAGE, **more: str) -> list[str]:
    done = ran(edits, content, **more)
    done.assert_sound()
    before, after = done.before.octets().partition(b"\r\n\r\n")[2], done.octets.partition(b"\r\n\r\n")[2]
    assert before == after
    return done.octets.partition(b"\r\n\r\n")[0].decode().split("\r\n")


BEFORE = head("remove X-None")


def test_fields_that_do_not_fit_keep_their_octets() -> None:
    ran("remove X-None\nreplace Subject nothing* : x").assert_untouched()


@pytest.mark.parametrize(
    ("edits", "gone"),
    [
        ("remove X-Internal-*", [6, 7]),
        ("remove x-internal-host", [6]),
        ("remove X-Internal-Host: db1", [6]),
        ("remove X-Internal-* *NN*", [7]),
        ("remove X-Spam-Flag YES", [8]),
        ("remove X-Spam-Flag NO", []),
        ("remove Received *b", [1]),
        ("remove Received", [0, 1]),
        ("remove Subject Grüße from the sea", [4, 5]),
        ("remove X-*", [6, 7, 8]),
    ],
)
def test_remove(edits: str, gone: list[int]) -> None:
    assert head(edits) == [line for number, line in enumerate(BEFORE) if number not in gone]


def test_replace() -> None:
    after = head("replace Subject Gr* : [external] {value}")
    assert HeaderView("\r\n".join([*after, "", ""]).encode()).subject == "[external] Grüße from the sea"
    assert head("replace Received *b : from {{b}}")[:2] == ["Received: from a", "Received: from {b}"]
    assert head("replace X-Internal-* : hidden")[6:8] == [
        "X-Internal-Host: hidden",
        "X-Internal-User: hidden",
    ]


def test_the_first_row_that_fits_a_field_is_the_only_one() -> None:
    edits = "replace X-Internal-Host : kept\nremove X-Internal-*\nreplace X-Internal-Host : no"
    assert head(edits) == [*BEFORE[:6], "X-Internal-Host: kept", BEFORE[8]]


def test_new_fields_stand_in_the_order_of_their_rows() -> None:
    after = head("add A : 1\nadd B : 2\nappend Y : 3\nappend Z : 4\nadd A : 5")
    assert after == ["A: 1", "B: 2", "A: 5", *BEFORE, "Y: 3", "Z: 4"]


def test_add_missing() -> None:
    assert head("add-missing subject : none") == BEFORE
    assert head("add-missing Reply-To : a@example.com")[0] == "Reply-To: a@example.com"
    after = head("remove Received *a\nadd-missing Received : x")
    assert after == BEFORE[1:]
    assert head("remove Received\nadd-missing Received : x")[0] == "Received: x"


def test_places() -> None:
    edits = "add X-Note : {sender} {recipient_count} {client} {helo} {id} {login}|{{date}}"
    assert head(edits, sender="", client="192.0.2.9", helo="copier")[0] == (
        "X-Note: <> 1 192.0.2.9 copier 0000000000000 |{date}"
    )
    edit = HeaderEdit(HeaderSettings("add Date-Seen : {date}"), lambda: 1_795_350_565.0)
    done = run_sink(HeaderEdit, make_message(MESSAGE), settings={"edits": "add D : {date}"})
    done.assert_sound()
    assert re.search(rb"^D: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d \+0000\r\n", done.octets)
    (added,) = edit(make_message(MESSAGE)).edits
    assert b"Sun, 22 Nov 2026 12:29:25 +0000" in getattr(added, "octets", b"")


@given(st.text(st.characters(exclude_characters="\r\n\0", codec="utf-8"), max_size=2500))
@example("x" * 3000)
@example("\x85\u2028\x1c\x0b=?utf-8?b?AAAA?= =?x?=")
@example("=?utf-8?q?a=0D=0AX-Injected:_yes=0D=0A=0D=0Abody?=")
def test_what_strangers_wrote_stays_in_its_place(text: str) -> None:
    octets = b"Subject: " + text.encode() + b"\r\nX-Last: y\r\n\r\nbody\r\n"
    done = ran("replace Subject : [in] {value} for {sender}", octets)
    assert done.verdict is not None, done.words
    section = HeaderView(done.octets)
    assert [field.name for field in section.fields] == [b"Subject", b"X-Last"]
    assert done.octets.endswith(b"X-Last: y\r\n\r\nbody\r\n")
    assert max(map(len, done.octets.split(b"\r\n"))) <= 998


def test_8_bit_becomes_encoded_words() -> None:
    done = ran("add X-Who : Jörg {{ö}}")
    done.assert_added("X-Who", "Jörg {ö}")
    assert done.octets.split(b"\r\n\r\n")[0].isascii()


PIECES = st.text("ab*", max_size=8)


@given(PIECES, st.text("abAB", max_size=12))
def test_a_pattern_is_what_it_looks_like(pattern: str, text: str) -> None:
    wanted = re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text, re.IGNORECASE | re.DOTALL)
    assert Pattern(pattern).fits(text) == (wanted is not None)


def test_a_hostile_text_takes_no_long_time() -> None:
    began = time.process_time()
    assert not Pattern("*a" * 1000 + "*b*").fits("a" * 65536)
    assert not Pattern("*" + "a" * 500 + "b*").fits("a" * 65536)
    assert time.process_time() - began < 2.0


def test_too_many_fields_are_a_fault_and_no_edit() -> None:
    octets = b"X-A: y\r\n" * (FIELDS_LIMIT + 1) + b"B: c\r\n\r\n"
    done = run_sink(HeaderEdit, make_message(octets), settings={"edits": "remove X-*"})
    assert isinstance(done.error, TooManyFields) and done.octets == octets
    assert head("remove X-*", octets[8:]) == ["B: c"]


def test_a_name_that_nobody_could_add_can_be_removed() -> None:
    name = "X-" + "a" * 200
    assert head("remove X-*", f"{name}: y\nB: c\n\n") == ["B: c"]
    assert head("replace X-* : z", f"{name}: y\nB: c\n\n") == [f"{name}: y", "B: c"]


@pytest.mark.parametrize(
    ("edits", "words"),
    [
        (
            "\nchange X : y",
            "line 2: there is no edit 'change'; there are: add, append, add-missing, replace, remove",
        ),
        ("add", "`add` needs the name of a field"),
        ("add X", "`add` needs a value behind ` : `"),
        ("add X-* : y", "`add` takes one name and no pattern"),
        ("add X pattern : y", "`add` takes one name and no pattern"),
        ("remove X : y", "`remove` has no value"),
        ("add X\x07 : y", "is not a field name"),
        ("add Xä : y", "is not a field name"),
        ("add X : {recipient}", "'{recipient}' in the value: there are {sender}"),
        ("add X : {value}", "'{value}' in the value"),
        ("add X : a } b", "'}' in the value"),
        ("add X : a\x07", "a control character"),
        ("remove X\n" * (ROWS_LIMIT + 1), "more than 200 rows"),
    ],
)
def test_a_line_that_is_no_row_is_named(edits: str, words: str) -> None:
    with pytest.raises(SettingsFault, match=re.escape(words)):
        typed(HeaderSettings, {"edits": edits})


@given(st.text(max_size=100), st.sampled_from(["add ", "replace ", "remove ", "append ", ""]))
def test_any_text_is_a_table_or_a_fault_of_the_settings(text: str, start: str) -> None:
    settings: dict[str, Setting] = {"edits": start + text}
    try:
        typed(HeaderSettings, settings)
    except SettingsFault as error:
        assert "edits, line " in str(error)
