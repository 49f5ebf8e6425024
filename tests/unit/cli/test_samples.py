"""The sample scan is what the story needs it to be, and comes out of its message as it went in."""

from __future__ import annotations

import re

from hypothesis import example, given
from hypothesis import strategies as st

from lonedot.cli.samples import attached_scan, letter, scan_message, scan_pdf
from lonedot.message.encode import DataEncoder, canonicalise
from lonedot.message.header import HeaderView
from lonedot.message.intake import content_from

DATE = b"Sun, 22 Nov 2026 12:29:25 +0000"


def test_the_scan_is_a_pdf_of_three_pictures_that_ends_in_a_lone_lf() -> None:
    pdf = scan_pdf()
    assert 150_000 < len(pdf) < 400_000
    assert pdf.startswith(b"%PDF-1.4\n")
    assert pdf.endswith(b"\n%%EOF\n")
    assert pdf.count(b"/Type /Page ") == 3
    assert pdf.count(b"/Filter /DCTDecode") == 3


def test_every_object_of_the_scan_is_where_its_table_says() -> None:
    pdf = scan_pdf()
    table = int(pdf.rpartition(b"startxref\n")[2].partition(b"\n")[0])
    assert pdf[table:].startswith(b"xref\n0 13\n")
    places = [int(place) for place in re.findall(rb"(\d{10}) 00000 n", pdf[table:])]
    assert len(places) == 12
    for number, place in enumerate(places, 1):
        assert pdf[place:].startswith(b"%d 0 obj\n" % number)


def test_the_message_is_what_copiers_send() -> None:
    octets = scan_message(DATE)
    assert octets.isascii()
    assert octets.count(b"\r\n") == octets.count(b"\n") == octets.count(b"\r")
    assert max(map(len, octets.partition(b"base64")[2].split(b"\r\n"))) == 76
    view = HeaderView(content_from(octets).head)
    assert view.get("Date") == DATE
    assert not view.has("Message-ID")
    assert view.has("X-Mailer")
    canonicalise(content_from(octets))


@given(st.binary(min_size=1, max_size=500))
@example(b"%%EOF\n")
@example(bytes(57))
@example(bytes(58))
def test_what_is_attached_comes_out_again(pdf: bytes) -> None:
    octets = scan_message(DATE, pdf)
    canonicalise(content_from(octets))
    assert attached_scan(octets) == pdf
    assert attached_scan(octets[:-3]) is None


@given(st.binary(max_size=200))
def test_an_attachment_is_never_guessed(octets: bytes) -> None:
    assert attached_scan(octets) is None


def test_base64_that_was_touched_is_no_scan() -> None:
    assert attached_scan(scan_message(DATE, b"%%EOF\n").replace(b"JSVFT0YK", b"JSVF*0YK")) is None


def test_the_letter_has_a_dot_on_a_line_by_itself() -> None:
    octets = letter(DATE)
    assert b"\r\n.\r\n" in octets
    sent = b"".join(DataEncoder(canonicalise(content_from(octets)), "DATA").chunks())
    assert sent.find(b"\r\n.\r\n") == len(sent) - 5
