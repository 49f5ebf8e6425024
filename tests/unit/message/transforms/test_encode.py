"""Re-encoding for 7-bit hops and long lines: only the parts concerned change, and they decode to what they were."""

from __future__ import annotations

import email
import email.header
import email.policy
import random
from pathlib import Path

import pytest

from lonedot.message.content import Content, FileBody, MemoryBody
from lonedot.message.encode import canonicalise
from lonedot.message.intake import content_from
from lonedot.message.measure import measured
from lonedot.message.mime import walk
from lonedot.message.transforms import ENCODE_7BIT, ENCODE_LONG_LINES, CannotTransform, apply
from lonedot.message.transforms.encode import CannotEncode, EncodedBody, encode_7bit, encode_long_lines
from tests.corpus.files import CORPUS, FILES, corpus, library_leaves, our_leaves
from tests.corpus.messages import random_message


def as_stored(content: Content, folder: Path) -> Content:
    """The same content with its body in a file."""
    path = folder / "body"
    path.write_bytes(content.body.octets())
    return Content(
        content.head, FileBody(path, content.body.size), content.head_measure, content.body_measure
    )


def big(content: Content, times: int) -> Content:
    """A text message of some size with 8-bit octets."""
    return measured(content.head, MemoryBody(content.body.octets() * times))


@pytest.mark.parametrize("seed", range(150))
def test_leaves_decode_to_what_they_were(seed: int) -> None:
    octets = random_message(random.Random(seed))
    content = content_from(octets)
    try:
        encoded = encode_7bit(content)
    except CannotEncode:
        pytest.fail("nothing in these messages forbids encoding")
    assert not encoded.has_eight_bit
    assert encoded.octets().isascii()
    assert encoded.body_measure == measured(encoded.head, encoded.body).body_measure
    assert encoded.body_measure.profile.long_line < 0
    assert our_leaves(encoded) == our_leaves(content)
    assert library_leaves(encoded.octets()) == library_leaves(octets)
    assert (encoded is content) == octets.isascii()
    canonicalise(encoded)


@pytest.mark.parametrize("seed", range(40))
def test_other_octets_stay(seed: int) -> None:
    """Every part that was 7-bit is found again octet for octet, header section included."""
    content = content_from(random_message(random.Random(seed)))
    encoded = encode_7bit(content)
    before, after = content.body.octets(), encoded.body.octets()
    old, new = walk(content), walk(encoded)
    assert [part.path for part in old.parts] == [part.path for part in new.parts]
    for one, other in zip(old.parts[1:], new.parts[1:], strict=True):
        octets = before[one.header_start : one.body_end]
        if one.is_leaf and octets.isascii():
            assert after[other.header_start : other.body_end] == octets


def test_what_is_ascii_is_the_same_object() -> None:
    content = corpus("copier-scan")
    assert encode_7bit(content) is content
    assert encode_long_lines(content) is content


def test_text_becomes_quoted_printable() -> None:
    encoded = encode_7bit(corpus("plain-8bit-labelled"))
    assert encoded.octets().endswith(
        b"Content-Transfer-Encoding: quoted-printable\r\n\r\nGr=C3=BC=C3=9Fe aus K=C3=B6ln\r\n"
    )


def test_mime_fields_are_added_where_there_are_none() -> None:
    content = corpus("plain-8bit-unlabelled")
    encoded = encode_7bit(content)
    added = b"MIME-Version: 1.0\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
    assert encoded.head == content.head[:-2] + added


def test_a_message_in_a_message_gets_its_own_fields() -> None:
    encoded = encode_7bit(corpus("nested-message-bare")).octets()
    inner = encoded[encoded.index(b"Subject: Inner") :]
    assert b"MIME-Version: 1.0\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nInnerer Text" in inner
    assert encoded.count(b"MIME-Version") == 2


def test_octets_that_are_no_text_become_base64() -> None:
    encoded = encode_7bit(corpus("binary-8bit"))
    assert library_leaves(encoded.octets()) == [bytes(range(128, 256)) + b"\r\n" + bytes(range(128, 256))]
    assert b"Content-Transfer-Encoding: base64\r\n" in encoded.octets()


def test_composites_are_labelled_anew() -> None:
    octets = (CORPUS / "binary-8bit.eml").read_bytes()
    octets = octets.replace(b"MIME-Version", b"Content-Transfer-Encoding: 8bit\r\nMIME-Version")
    assert b"Content-Transfer-Encoding: 7bit\r\nMIME-Version" in encode_7bit(content_from(octets)).head


def test_signed_parts_are_refused() -> None:
    with pytest.raises(CannotEncode, match=r"part 1\.1 is signed"):
        encode_7bit(corpus("signed"))
    with pytest.raises(CannotTransform):
        apply(ENCODE_7BIT, corpus("signed"))


@pytest.mark.parametrize(
    ("octets", "words"),
    [
        (b"Content-Type: message/partial\r\n\r\n\xff\r\n", "must not be encoded"),
        (b"Content-Transfer-Encoding: x-uu\r\n\r\n\xff\r\n", "not known here"),
        (b"Content-Transfer-Encoding: base64\r\n\r\n\xff\r\n", "declared base64"),
        (b"Content-Type: multipart/mixed\r\n\r\n\xff\r\n", "no usable boundary"),
        (b"Message-ID: <\xff@a>\r\n\r\n\r\n", "field Message-ID"),
        (b"From: \xff@a.example\r\n\r\n\r\n", "field From"),
        (b"From: a@b.example (\xc3\xbc)\r\n\r\n\r\n", "field From"),
        (b"Content-Type: text/\xff\r\n\r\n\r\n", "field Content-Type"),
        (b"X: y\r\nno field \xff\r\n\r\n", "no field"),
        (b"From: \xc3\xbc =?utf-8?q?x?= <a@b.example>\r\n\r\n\r\n", "mixes"),
        (
            b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\nno header \xff\r\n--b--\r\n',
            "no header section",
        ),
        (
            b'Content-Type: multipart/mixed; boundary="\xff"\r\n\r\n--\xff\r\n\r\nx\r\n--\xff--\r\n',
            "boundary",
        ),
    ],
)
def test_what_would_have_to_be_guessed_is_refused(octets: bytes, words: str) -> None:
    with pytest.raises(CannotEncode, match=words):
        encode_7bit(content_from(octets))


def test_text_between_parts_loses_its_octets_and_nothing_else() -> None:
    content = corpus("preamble-8bit")
    encoded = encode_7bit(content)
    assert encoded.body.octets() == content.body.octets().replace(b"\xc3\xbc", b"**").replace(
        b"\xc3\xb6", b"**"
    ).replace(b"\xc3\x9f", b"**")
    assert len(walk(encoded).parts) == 2


def test_a_sign_that_could_make_a_delimiter_is_not_used() -> None:
    head = b'Content-Type: multipart/mixed; boundary="a*b"\r\n\r\n'
    body = b"--a\xffb\r\n--a*b\r\n\r\nx\r\n--a*b--\r\n"
    encoded = encode_7bit(content_from(head + body))
    assert encoded.body.octets().startswith(b"--a#b\r\n")


def test_a_soft_break_makes_no_delimiter() -> None:
    """The line is long enough for its end to come to the start of a line, where it would close the part."""
    for pad in range(60, 90):
        head = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
        text = b"\xc3\xbc" + b"x" * pad + b"--b--"
        body = b"--b\r\nContent-Type: text/plain\r\n\r\n%s\r\nmore\r\n--b--\r\n" % text
        content = content_from(head + body)
        encoded = encode_7bit(content)
        assert our_leaves(encoded) == [text + b"\r\nmore"]
        assert library_leaves(encoded.octets()) == [text + b"\r\nmore"]


def _field(octets: bytes, name: str) -> str:
    message = email.message_from_bytes(octets)  # noqa: TID251 - the judge, not the relay
    return str(email.header.make_header(email.header.decode_header(message[name])))


def test_unstructured_fields_are_encoded_word_by_word() -> None:
    encoded = encode_7bit(corpus("header-raw-utf8"))
    assert _field(encoded.octets(), "Subject") == "Übergrößen überall"
    assert _field(encoded.octets(), "From") == "Jürgen Groß <juergen@sender.example>"
    assert b"<juergen@sender.example>\r\n" in encoded.head
    assert encoded.body is corpus("header-raw-utf8").body or encoded.body == corpus("header-raw-utf8").body


def test_encoded_words_that_are_there_stay() -> None:
    text = b"Subject: a \xc3\xbc =?utf-8?q?x?= \xc3\xbc\xc3\xbc b =?utf-8?q?y?= c\r\n\r\n"
    encoded = encode_7bit(content_from(text))
    assert _field(encoded.octets(), "Subject") == "a ü x üü b y c"
    assert encoded.head.count(b"=?utf-8?q?") == 2


@pytest.mark.parametrize("count", [1, 5, 40, 300])
def test_long_texts_are_cut_between_signs(count: int) -> None:
    text = "plain ende " + "größer€ " * count + "plain end"
    encoded = encode_7bit(content_from(f"Subject: {text}\r\n\r\n".encode()))
    assert _field(encoded.octets(), "Subject") == text
    assert max(map(len, encoded.head.split(b"\r\n"))) <= 78


def test_octets_in_no_known_charset_are_named_so() -> None:
    encoded = encode_7bit(content_from(b"Subject: Gr\xfc\xdfe\r\n\r\n"))
    assert encoded.head == b"Subject: =?unknown-8bit?b?R3L832U=?=\r\n\r\n"


def test_file_names_are_encoded_as_parameters() -> None:
    encoded = encode_7bit(corpus("copier-raw-umlaut")).octets()
    assert b"name*=unknown-8bit''%DCbersicht.pdf" in encoded
    message = email.message_from_bytes(  # noqa: TID251 - the judge, not the relay
        encode_7bit(
            content_from('Content-Disposition: attachment; x=y; filename="Ü b.pdf"\r\n\r\n'.encode())
        ).octets()
    )
    assert message.get_filename() == "Ü b.pdf"
    assert message.get_param("x", header="content-disposition") == "y"


@pytest.mark.parametrize(
    ("value", "want"),
    [
        ('"Müller, Jo" <a@b.example>', "=?utf-8?b?TcO8bGxlciwgSm8=?= <a@b.example>"),
        ("a@b.example, Ü <c@d.example>", "a@b.example, =?utf-8?b?w5w=?= <c@d.example>"),
        ("Grüße: a@b.example, c@d.example;", "=?utf-8?b?R3LDvMOfZQ==?=: a@b.example, c@d.example;"),
        ("Ü <c@d.example> (x)", "=?utf-8?b?w5w=?= <c@d.example> (x)"),
    ],
)
def test_display_names(value: str, want: str) -> None:
    encoded = encode_7bit(content_from(f"To: {value}\r\n\r\n".encode()))
    assert encoded.head == f"To: {want}\r\n\r\n".encode()


def test_long_text_lines_become_quoted_printable() -> None:
    content = corpus("long-line")
    encoded = encode_long_lines(content)
    assert encoded.is_canonical
    assert our_leaves(encoded) == our_leaves(content)
    assert apply(ENCODE_LONG_LINES, corpus("long-line-no-space")).is_canonical


def test_base64_in_one_line_is_wrapped_and_not_encoded_twice() -> None:
    content = corpus("copier-one-line-base64")
    encoded = encode_long_lines(content)
    assert encoded.is_canonical
    assert encoded.head == content.head
    assert our_leaves(encoded) == our_leaves(content)
    assert encoded.octets().count(b"Content-Transfer-Encoding") == 1


def test_quoted_printable_is_not_encoded_twice() -> None:
    for octets in (
        b"Content-Transfer-Encoding: quoted-printable\r\n\r\n" + b"=C3=BC und " * 200 + b"\r\nEnde=\r\n.\r\n",
        (CORPUS / "qp-raw-8bit.eml").read_bytes(),
    ):
        content = content_from(octets)
        encoded = encode_7bit(encode_long_lines(content))
        assert encoded.is_canonical
        assert our_leaves(encoded) == our_leaves(content)


def test_long_fields_are_folded_where_there_is_white_space() -> None:
    content = corpus("header-long-line")
    encoded = encode_long_lines(content)
    assert encoded.is_canonical
    assert encoded.head.replace(b"\r\n ", b" ") == content.head
    with pytest.raises(CannotEncode, match="X-Token"):
        encode_long_lines(corpus("header-long-word"))


def test_long_lines_between_parts_are_broken_without_making_a_delimiter() -> None:
    head = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    for pad in range(994, 1002):
        body = b"x" * pad + b"--b\r\n\r\nno part\r\n--b\r\n\r\ntext\r\n--b--\r\n"
        content = content_from(head + body)
        encoded = encode_long_lines(content)
        assert encoded.is_canonical
        assert our_leaves(encoded) == [b"text"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_corpus_is_encoded_or_refused(file: Path, tmp_path: Path) -> None:
    content = content_from(file.read_bytes())
    for transform, profile in ((encode_7bit, "eight_bit"), (encode_long_lines, "long_line")):
        try:
            encoded = transform(content)
        except CannotEncode as refusal:
            assert str(refusal)
            continue
        assert getattr(encoded.head_measure.profile, profile) < 0
        assert getattr(encoded.body_measure.profile, profile) < 0
        assert transform(as_stored(content, tmp_path)).octets() == encoded.octets()
        assert transform(encoded) is encoded


def test_a_large_body_is_encoded_while_it_is_read(tmp_path: Path) -> None:
    content = big(corpus("plain-8bit-labelled"), 90_000)
    stored = encode_7bit(as_stored(content, tmp_path))
    assert isinstance(stored.body, EncodedBody)
    assert stored.body.size == stored.body_measure.profile.size
    assert max(len(chunk) for chunk in stored.body.chunks(10_000)) <= 10_000
    assert our_leaves(stored) == our_leaves(content)
    assert stored.octets() == encode_7bit(content).octets()


def test_a_field_of_many_parameters_is_not_looked_at_for_long() -> None:
    octets = b'Content-Type: text/plain; x="' + b'\\"' * 60_000 + b"\xff\r\n\r\n"
    with pytest.raises(CannotEncode, match="too long"):
        encode_7bit(content_from(octets))
