"""Octets made visible can be read by people and turned back."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lonedot.diagnosis.octets import visible, visible_lines, visible_start


def _back(text: str) -> bytes:
    def one(found: re.Match[str]) -> str:
        return {"CR": "\r", "LF": "\n"}.get(found[1]) or chr(int(found[1], 16))

    return re.sub(r"<(CR|LF|[0-9A-F]{2})>", one, text).encode("latin-1")


@pytest.mark.parametrize(
    ("octets", "text"),
    [
        (b"%%EOF\n\r\n.\r\n", "%%EOF<LF><CR><LF>.<CR><LF>"),
        (b"caf\xe9\0", "caf<E9><00>"),
        (b"<a@b> <CR> <0D>", "<a@b> <3C>CR> <3C>0D>"),
        (b"\x1b[2J", "<1B>[2J"),
    ],
)
def test_examples(octets: bytes, text: str) -> None:
    assert visible(octets) == text


@given(st.binary())
@example(b"<<CR>>")
@example(b"<3C>")
def test_it_can_be_turned_back_and_holds_no_control_sign(octets: bytes) -> None:
    text = visible(octets)
    assert _back(text) == octets
    assert text.isascii() and (text.isprintable() or not text)


@given(st.binary())
def test_lines_are_the_same_with_a_new_line_behind_each_lf(octets: bytes) -> None:
    text = visible_lines(octets)
    assert text.replace("\n", "") == visible(octets)
    assert not text or text.endswith("\n")


def test_a_cut_is_said() -> None:
    assert visible_start(b"abcdef", 3) == "abc…"
    assert visible_start(b"abc", 3) == "abc"
