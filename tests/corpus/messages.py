"""Random messages of the shapes that mail has, for properties. The same seed gives the same message."""

from __future__ import annotations

import base64
import binascii
import random

__all__ = ["random_message"]

_TEXT = (
    "the quick relay takes every scan and hands it on whole; nothing is lost between here and there, and what was "
    "changed has a name that anybody can read in one line of the ledger before lunch"
)
_WORDS = _TEXT.split()


def random_message(rng: random.Random, *, eight_bit: bool = True, depth: int = 0) -> bytes:
    """A well formed message in canonical text: one part or many, short fields and long ones, odd but lawful.

    `depth` is that of its root, so that messages in messages come to an end.
    """
    fields = [_trace(rng) for _ in range(rng.randrange(4))]
    fields += [
        b"From: " + _mailbox(rng),
        b"To: " + b", ".join(_mailbox(rng) for _ in range(rng.randint(1, 6))),
    ]
    fields.append(b"Subject: " + _unstructured(rng))
    fields.append(b"Date: Thu, 02 Jul 2026 10:00:00 +0000")
    fields.append(b"Message-ID: <%s@example.com>" % _token(rng, rng.choice((8, 30, 90))))
    for _ in range(rng.randrange(5)):
        fields.append(b"X-%s: %s" % (_token(rng, 6), _unstructured(rng)))
    if rng.random() < 0.2:
        fields.append(b"X-Empty:" + rng.choice((b"", b" ")))
    if eight_bit and rng.random() < 0.15:
        text = _unstructured(rng).replace(b"e", b"\xc3\xa9" if rng.random() < 0.7 else b"\xe9")
        fields.append(b"X-Raw: " + text)
    if rng.random() < 0.2:
        fields.append(b"References: " + b"\r\n ".join(b"<%s@a.example>" % _token(rng, 20) for _ in range(6)))
    rng.shuffle(fields)
    fields.append(b"MIME-Version: 1.0")
    shape, body = _entity(rng, depth, eight_bit)
    return b"\r\n".join(fields + shape) + b"\r\n\r\n" + body


def _entity(rng: random.Random, depth: int, eight_bit: bool) -> tuple[list[bytes], bytes]:
    if depth < 6 and rng.random() < 0.55 - 0.1 * depth:
        return _multipart(rng, depth, eight_bit)
    if 0 < depth < 6 and rng.random() < 0.12:
        return [b"Content-Type: message/rfc822"], random_message(rng, eight_bit=eight_bit, depth=depth + 1)
    return _leaf(rng, eight_bit)


def _multipart(rng: random.Random, depth: int, eight_bit: bool) -> tuple[list[bytes], bytes]:
    boundary = b"=_%s_%d" % (_token(rng, rng.choice((4, 20, 40))), depth)
    kind = rng.choice((b"mixed", b"alternative", b"related", b"report"))
    gap = rng.choice((b" ", b"\r\n\t", b"\r\n "))
    field = b'Content-Type: multipart/%s;%sboundary="%s"' % (kind, gap, boundary)
    lines = [b"This is a message in parts.\r\n"] if rng.random() < 0.5 else []
    for _ in range(rng.randint(1, 4)):
        shape, body = _entity(rng, depth + 1, eight_bit)
        lines.append(b"--%s\r\n%s\r\n\r\n%s\r\n" % (boundary, b"\r\n".join(shape), body))
    lines.append(b"--%s--\r\n" % boundary)
    if rng.random() < 0.3:
        lines.append(b"An epilogue.\r\n")
    return [field], b"".join(lines)


def _leaf(rng: random.Random, eight_bit: bool) -> tuple[list[bytes], bytes]:
    match rng.randrange(4 if eight_bit else 3):
        case 0:
            return _shape(rng, b"text/plain; charset=us-ascii", b"7bit"), _text(rng)
        case 1:
            octets = base64.encodebytes(rng.randbytes(rng.randrange(1, 600))).replace(b"\n", b"\r\n")
            name = _file_name(rng)
            shape = _shape(rng, b"application/pdf;\r\n " + name, b"base64")
            return [*shape, b"Content-Disposition: attachment;\r\n file" + name], octets
        case 2:
            text = _text(rng).decode().replace("e", "é").encode().replace(b"\r\n", b"\n")
            octets = binascii.b2a_qp(text, istext=True).replace(b"\n", b"\r\n")
            return _shape(rng, b"text/html; charset=utf-8", b"quoted-printable"), octets
        case _:
            text = _text(rng).decode().replace("a", "ä").encode(rng.choice(("utf-8", "iso-8859-1")))
            return _shape(rng, b"text/plain; charset=utf-8", b"8bit"), text


def _shape(rng: random.Random, content_type: bytes, encoding: bytes) -> list[bytes]:
    fields = [b"Content-Type: " + content_type, b"Content-Transfer-Encoding: " + encoding]
    if rng.random() < 0.2:
        fields.append(b"Content-Description: " + _unstructured(rng))
    rng.shuffle(fields)
    return fields


def _text(rng: random.Random) -> bytes:
    lines = []
    for _ in range(rng.randint(0, 12)):
        line = " ".join(rng.choices(_WORDS, k=rng.randrange(0, 14)))
        lines.append(rng.choice(("", "", ".", "From ", "> ", "-- ", "--")) + line + rng.choice(("", "", " ")))
    return "".join(line + "\r\n" for line in lines).encode()


def _token(rng: random.Random, size: int) -> bytes:
    return "".join(rng.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=size)).encode()


def _file_name(rng: random.Random) -> bytes:
    match rng.randrange(4):
        case 0:
            return b"name=scan.pdf"
        case 1:
            return b'name="scan of %s.pdf"' % _token(rng, rng.choice((4, 70)))
        case 2:
            return b"name*=utf-8''%C3%9Cbersicht.pdf"
        case _:
            return b"name*0=%s;\r\n name*1=%s.pdf" % (_token(rng, 30), _token(rng, 30))


def _mailbox(rng: random.Random) -> bytes:
    address = b"<%s@%s.example>" % (_token(rng, rng.choice((3, 12, 40))), _token(rng, 6))
    match rng.randrange(5):
        case 0:
            return address
        case 1:
            return address[1:-1]
        case 2:
            return b'"Doe, %s" ' % _token(rng, 5) + address
        case 3:
            return _encoded_word(rng, "Büro Süd") + b" " + address
        case _:
            return b"Jane Roe " + address + rng.choice((b"", b" (scanner)"))


def _encoded_word(rng: random.Random, text: str) -> bytes:
    charset = rng.choice(("utf-8", "UTF-8", "iso-8859-1"))
    octets = text.encode(charset)
    if rng.random() < 0.5:
        return b"=?%s?B?%s?=" % (charset.encode(), binascii.b2a_base64(octets, newline=False))
    quoted = binascii.b2a_qp(octets, header=True).replace(b"=\n", b"")
    return b"=?%s?Q?%s?=" % (charset.encode(), quoted)


def _unstructured(rng: random.Random) -> bytes:
    words = [word.encode() for word in rng.choices(_WORDS, k=rng.randint(1, rng.choice((4, 30))))]
    if rng.random() < 0.3:
        words.insert(rng.randrange(len(words)), _encoded_word(rng, "Größe überall"))
    if rng.random() < 0.1:
        words.insert(rng.randrange(len(words)), _token(rng, 100))
    lines = b""
    room = 70
    folds = rng.random() < 0.7
    for number, word in enumerate(words):
        if number and folds and len(lines.rpartition(b"\n")[2]) + len(word) > room:
            lines += rng.choice((b"\r\n ", b"\r\n\t", b"\r\n  ")) + word
        else:
            lines += (b" " if number else b"") + word
    return lines


def _trace(rng: random.Random) -> bytes:
    return (
        b"Received: from %s.example (%s.example [192.0.2.%d])\r\n\tby relay.example with ESMTP id %s;\r\n"
        b"\tThu, 02 Jul 2026 10:00:00 +0000"
    ) % (_token(rng, 5), _token(rng, 5), rng.randrange(255), _token(rng, 13))
