"""The disclaimer: behind the text of a mail in both forms, and every other part keeps its octets."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lonedot.message.intake import content_from
from lonedot.message.parts import Part, parts_of
from lonedot.sinks.bindings import Setting
from lonedot.sinks.builtin.disclaimer import Disclaimer
from lonedot.sinks.settings import SettingsFault
from lonedot.testing.sinks import Ran, bound, run_sink
from tests.corpus.files import corpus
from tests.corpus.messages import random_message

HEAD = b"From: <a@office.example>\r\nTo: <b@example.org>\r\nSubject: x\r\n"
MIME = HEAD + b"MIME-Version: 1.0\r\n"
TEXT = "Office Ltd, Vienna.\nConfidential."
PLAIN = b"Office Ltd, Vienna.\r\nConfidential.\r\n"


def added(octets: bytes, **given: Setting) -> Ran:
    ran = run_sink(Disclaimer, octets, settings={"text": TEXT, "marker": "", **given})
    assert ran.error is None, ran.story()
    assert not [found for found in ran.findings if found.severity.value != "note"], ran.story()
    return ran


def parts(octets: bytes) -> list[Part]:
    return list(parts_of(content_from(octets)).walk())


def part(kind: bytes, body: bytes, more: bytes = b"") -> bytes:
    return b"--b\r\nContent-Type: " + kind + b"\r\n" + more + b"\r\n" + body + b"\r\n"


def multipart(kind: bytes, *inner: bytes) -> bytes:
    return (
        MIME + b"Content-Type: multipart/" + kind + b"; boundary=b\r\n\r\n" + b"".join(inner) + b"--b--\r\n"
    )


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        (b"Hello.\r\n", b"Hello.\r\n\r\n" + PLAIN),
        (b"", PLAIN),
        (b"Hello.\r\n\r\n\r\n", b"Hello.\r\n\r\n\r\n\r\n" + PLAIN),
    ],
)
def test_plain_text(body: bytes, wanted: bytes) -> None:
    assert added(HEAD + b"\r\n" + body).octets == HEAD + b"\r\n" + wanted


def test_both_forms_of_an_alternative() -> None:
    octets = multipart(
        b"alternative",
        part(b"text/plain", b"Hello."),
        part(b"text/html", b"<html><body>Hello.</body></html>"),
        part(b"text/calendar", b"BEGIN:VCALENDAR\r\nEND:VCALENDAR"),
    )
    ran = added(octets)
    _, plain, page, calendar = parts(ran.octets)
    assert plain.octets() == b"Hello.\r\n\r\n" + PLAIN.removesuffix(b"\r\n")
    assert page.octets() == (
        b"<html><body>Hello.\r\n<p>Office Ltd, Vienna.<br>\r\nConfidential.</p>\r\n</body></html>"
    )
    assert calendar.octets() == b"BEGIN:VCALENDAR\r\nEND:VCALENDAR"
    assert ran.octets.endswith(b"\r\n--b--\r\n")


def test_attachments_and_what_comes_later_keep_their_octets() -> None:
    attached = part(b"text/plain", b"a file", b"Content-Disposition: attachment; filename=a.txt\r\n")
    octets = multipart(b"mixed", attached, part(b"text/plain", b"Hello."), part(b"text/plain", b"later"))
    _, first, text, later = parts(added(octets).octets)
    assert (first.octets(), later.octets()) == (b"a file", b"later")
    assert text.octets().endswith(b"Confidential.")


@pytest.mark.parametrize("encoding", [b"base64", b"quoted-printable", b"8bit"], ids=lambda one: one.decode())
@pytest.mark.parametrize("charset", ["utf-8", "iso-8859-1"])
def test_charset_and_encoding_are_kept(encoding: bytes, charset: str) -> None:
    import base64
    import quopri

    payload = "Grüße.\r\n".encode(charset)
    body = {
        b"base64": base64.encodebytes(payload).replace(b"\n", b"\r\n"),
        b"quoted-printable": quopri.encodestring(payload).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"),
        b"8bit": payload,
    }[encoding]
    head = MIME + b"Content-Type: text/plain; charset=" + charset.encode() + b"\r\n"
    ran = added(head + b"Content-Transfer-Encoding: " + encoding + b"\r\n\r\n" + body, text="Höflich.")
    (after,) = parts(ran.octets)
    assert after.text() == "Grüße.\r\n\r\nHöflich.\r\n"
    assert ran.octets.startswith(head)


@pytest.mark.parametrize("inside", [False, True])
def test_ascii_becomes_utf_8_where_the_text_needs_it(inside: bool) -> None:
    if inside:
        octets = multipart(b"mixed", part(b"text/plain; charset=us-ascii; format=fixed", b"1 = 1"))
    else:
        octets = HEAD + b"\r\n1 = 1\r\n"
    ran = added(octets, text="Höflich.")
    text = parts(ran.octets)[-1]
    assert text.text().strip() == "1 = 1\r\n\r\nHöflich."
    assert (text.charset, text.encoding) == ("utf-8", "quoted-printable")
    assert ran.octets.isascii()
    assert ran.after.headers.get("MIME-Version") == b"1.0"
    assert not inside or text.parameters["format"] == "fixed"


def test_what_a_charset_does_not_have_is_written_without_it() -> None:
    octets = MIME + b"Content-Type: text/plain; charset=iso-8859-1\r\n\r\nHi \xe4\r\n"
    assert added(octets, text="Čas ä").octets.endswith(b"Hi \xe4\r\n\r\nC?as a?\r\n")


@pytest.mark.parametrize("encoding", [b"base64", b"quoted-printable", b"7bit"])
def test_html_is_added_to_before_its_end(encoding: bytes) -> None:
    import base64

    page = b"<BODY>a</BODY><!-- </body> --></html>\r\n"
    body = base64.encodebytes(page).replace(b"\n", b"\r\n") if encoding == b"base64" else page
    if encoding == b"quoted-printable":
        body = page.replace(b"BODY>a", b"BO=\r\nDY>a")
    octets = (
        MIME + b"Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: "
        + encoding + b"\r\n\r\n" + body
    )  # fmt: skip
    (after,) = parts(added(octets, text="ö & <b>").octets)
    payload = after.payload()
    assert b"<p>&#246; &amp; &lt;b&gt;</p>\r\n</BODY><!--" in payload


def test_flowed_text_is_stuffed_and_no_line_flows_on() -> None:
    octets = MIME + b"Content-Type: text/plain; format=flowed\r\n\r\na line \r\nof two.\r\n"
    ran = added(octets, text="From us \n> mark")
    assert ran.octets.endswith(b"of two.\r\n\r\n From us\r\n > mark\r\n")


@pytest.mark.parametrize(
    "octets",
    [
        multipart(b"signed", part(b"text/plain", b"Hello."), part(b"application/pkcs7-signature", b"x")),
        multipart(b"encrypted", part(b"application/pgp-encrypted", b"Version: 1"), part(b"text/plain", b"x")),
        multipart(b"report", part(b"text/plain", b"It failed.")),
        MIME + b"Content-Type: application/pkcs7-mime\r\n\r\nMIIB\r\n",
        HEAD + b"\r\nHi.\r\n-----BEGIN PGP SIGNED MESSAGE-----\r\n\r\nHello.\r\n",
        MIME + b"Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        b"LS0tLS1CRUdJTiBQR1AgTUVTU0FHRS0tLS0tCg==\r\n",
        MIME
        + b"Content-Type: text/plain; charset=utf-16\r\nContent-Transfer-Encoding: base64\r\n\r\nAGEA\r\n",
        MIME + b"Content-Type: text/calendar\r\n\r\nBEGIN:VCALENDAR\r\n",
        MIME + b"Content-Type: application/pdf\r\n\r\n%PDF\r\n",
        MIME + b"Content-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\ntext\r\n",
    ],
)
def test_what_is_left_alone(octets: bytes) -> None:
    assert added(octets).octets == octets
    assert added(octets, marker="X-Disclaimer", add_part=True).octets == octets


def test_it_is_never_added_twice() -> None:
    octets = multipart(b"alternative", part(b"text/plain", b"Hi."), part(b"text/html", b"<p>Hi.</p>"))
    for marker in ("", "X-Disclaimer"):
        once = added(octets, marker=marker).octets
        assert once != octets
        assert added(once, marker=marker).octets == once
    marked = added(octets, marker="X-Disclaimer")
    assert marked.after.headers.has("X-Disclaimer")
    other = added(marked.octets, marker="X-Disclaimer", text="Another.")
    assert other.octets != marked.octets


def test_mail_of_attachments_alone() -> None:
    octets = multipart(b"mixed", part(b"application/pdf", b"%PDF"), part(b"image/png", b"png"))
    assert added(octets).octets == octets
    ran = added(octets, add_part=True)
    _, pdf, png, text = parts(ran.octets)
    assert (pdf.octets(), png.octets()) == (b"%PDF", b"png")
    assert text.payload() == PLAIN.removesuffix(b"\r\n")
    assert ran.octets.endswith(b"\r\n--b--\r\n")
    unended = octets.removesuffix(b"--b--\r\n")
    assert added(unended, add_part=True).octets == unended


def test_a_text_that_looks_like_a_boundary_is_not_added() -> None:
    octets = multipart(b"mixed", part(b"text/plain", b"Hi."))
    assert added(octets, text="--b--").octets == octets


def unchanged_parts(before: bytes, after: bytes) -> None:
    """Those that are no text in its own form have the octets that they had; none is new, and none has gone."""
    was, now = parts(before), parts(after)
    assert [one.path for one in was] == [one.path for one in now]
    changed = [
        (old, new) for old, new in zip(was, now, strict=True)
        if not old.is_multipart and old.octets() != new.octets()
    ]  # fmt: skip
    assert len(changed) <= 2
    for old, new in changed:
        assert old.content_type == new.content_type
        assert old.content_type in ("text/plain", "text/html")
        assert not old.is_attachment
        if old.content_type == "text/plain":
            assert new.text().startswith(old.text().rstrip("\r\n"))


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), text=st.sampled_from([TEXT, "Höflich €.", "Přesně"]))
def test_of_any_mail_every_other_part_keeps_its_octets(seed: int, text: str) -> None:
    octets = random_message(random.Random(seed))
    if not content_from(octets).is_canonical:
        return
    ran = added(octets, text=text)
    unchanged_parts(octets, ran.octets)
    assert added(ran.octets, text=text).octets == ran.octets or "€" in text or "ř" in text


@pytest.mark.parametrize(
    "name",
    ["outlook-alternative", "outlook-related", "copier-scan", "nested-message", "deep", "qp-raw-8bit", "unended-inner",
     "plain-8bit-unlabelled", "long-line", "signed", "digest", "delivery-report", "winmail-dat"],
)  # fmt: skip
def test_of_the_corpus(name: str) -> None:
    before = corpus(name).octets()
    unchanged_parts(before, added(before).octets)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "either text or text_file"),
        ({"text": "a", "text_file": "/b"}, "either text or text_file"),
        ({"text": "a", "html": "a", "html_file": "/b"}, "either html or html_file"),
        ({"text_file": "b"}, "the whole path"),
        ({"text_file": "/no/such"}, "/no/such: No such file"),
        ({"text": "a" * 1000}, "break it"),
        ({"text": "a\x00"}, "control character"),
        ({"text": "a", "marker": "a b"}, "field name"),
    ],
)
def test_settings_that_cannot_be(given: dict[str, Setting], words: str) -> None:
    with pytest.raises(SettingsFault, match=words):
        bound(Disclaimer, settings=given)


def test_texts_from_files(tmp_path: Path) -> None:
    plain, page = tmp_path / "a.txt", tmp_path / "a.html"
    plain.write_text("Höflich\n", encoding="utf-8")
    page.write_text("<hr>\n", encoding="utf-8")
    octets = multipart(b"alternative", part(b"text/plain; charset=utf-8", b"a"), part(b"text/html", b"b"))
    ran = added(octets, text="", text_file=str(plain), html_file=str(page))
    assert [one.text() for one in parts(ran.octets)[1:]] == ["a\r\n\r\nHöflich", "b\r\n\r\n<hr>"]
    plain.write_bytes(b"\xff")
    with pytest.raises(SettingsFault, match="UTF-8"):
        bound(Disclaimer, settings={"text_file": str(plain)})
