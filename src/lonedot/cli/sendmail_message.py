"""One message from a local program: read to its end, given what it lacks, its recipients found. Pure but for reading.

Rules: lines end in LF here and leave as CRLF; nothing else of the body is touched. Of the header section, a From field
that is missing is written, and a From or Sender that is one bare name gets the domain, because receivers refuse both.
Bcc stays: the relay takes it out, in the ledger.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import IO

import msgspec

from lonedot.message.header import HeaderView
from lonedot.message.mailboxes import MAX_MAILBOXES, VALUE_LIMIT, ends_in_comment, read_mailboxes
from lonedot.protocol.errors import RemoteProtocolError
from lonedot.protocol.grammar import parse_forward_path, parse_reverse_path
from lonedot.terms.address import NULL_REVERSE_PATH, Address

__all__ = ["DataFault", "Recipients", "Sender", "find_recipients", "given_head", "lines_of", "split_head"]

HEAD_LIMIT = 1024 * 1024
"""Octets of a header section that are read; the relay takes less."""
_LINE_PIECE = 256 * 1024
_BARE_NAME = re.compile(rb"(\s*)([A-Za-z0-9._+-]+)(\s*(?:\([^()]*\)\s*)?)")
_ANGLE_NAME = re.compile(rb"(.*<)([A-Za-z0-9._+-]+)(>\s*)", re.DOTALL)
_CONTROL = re.compile(rb"[\0-\x08\x0a-\x1f\x7f]")
_RESENT = tuple(f"Resent-{name}" for name in ("From", "Sender", "To", "Cc", "Bcc", "Date"))


class DataFault(Exception):
    """What was given is no message that can be sent; the words say why."""


class Sender(msgspec.Struct, frozen=True):
    """Who sends, as far as the system knows."""

    login: str
    full_name: str
    domain: str
    """For addresses without one."""

    @property
    def address(self) -> str:
        return f"{self.login}@{self.domain}"


def lines_of(stream: IO[bytes], *, ignores_dots: bool) -> Iterator[bytes]:
    """The input in pieces that end in CRLF where it had LF or CRLF, up to the lone dot when that is the end.

    A line of any length comes in pieces of bounded size.
    """
    is_start = True
    kept = b""
    while piece := stream.readline(_LINE_PIECE):
        piece = kept + piece
        kept = b""
        if is_start and not ignores_dots and piece in (b".\n", b".\r\n", b"."):
            return
        if piece.endswith(b"\n"):
            yield piece[:-2] + b"\r\n" if piece.endswith(b"\r\n") else piece[:-1] + b"\r\n"
            is_start = True
        elif piece.endswith(b"\r"):
            kept, piece = b"\r", piece[:-1]  # its LF may come in the next piece
            if piece:
                yield piece
                is_start = False
        else:
            yield piece
            is_start = False
    if kept:
        yield kept


def split_head(lines: Iterable[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """The header section with its empty line, and what follows.

    A first line that is no field makes a message without a header section: an empty one is put before it. A line
    `From ` of a mailbox file at the very top is left out.

    Raises:
        DataFault: the header section is too long.
    """
    pieces = iter(lines)
    head: list[bytes] = []
    size = 0
    for piece in pieces:
        if not head and piece.startswith((b"From ", b">From ")):
            continue
        if piece == b"\r\n":
            head.append(piece)
            return b"".join(head), pieces
        if not _belongs(piece, bool(head)):
            return b"".join([*head, b"\r\n"]), _before(piece, pieces)
        head.append(piece)
        size += len(piece)
        if size > HEAD_LIMIT:
            raise DataFault(f"the header section has more than {HEAD_LIMIT} octets")
    return b"".join([*head, b"\r\n"]), pieces


_FIELD = re.compile(rb"[!-9;-~]+[ \t]*:")


def _belongs(line: bytes, has_field: bool) -> bool:
    return _FIELD.match(line) is not None or (has_field and line[:1] in b" \t")


def _before(piece: bytes, pieces: Iterator[bytes]) -> Iterator[bytes]:
    yield piece
    yield from pieces


def given_head(head: bytes, sender: Sender, full_name: str | None) -> bytes:
    """The header section with a From field, and with a domain at a From or Sender that is one bare name."""
    view = HeaderView(head)
    domain = sender.domain.encode()
    if not view.has(b"from"):
        name = (sender.full_name if full_name is None else full_name).encode("ascii", "ignore")
        name = re.sub(rb'[^ -~]|["\\]', b"", name).strip()
        mailbox = b'"%b" <%b>' % (name, sender.address.encode()) if name else sender.address.encode()
        return b"From: " + mailbox + b"\r\n" + head
    lines = re.split(rb"(?<=\r\n)(?![ \t])", head)
    return b"".join(_with_domain(line, domain) for line in lines)


def _with_domain(field: bytes, domain: bytes) -> bytes:
    name, colon, value = field.partition(b":")
    if name.strip().lower() not in (b"from", b"sender", b"resent-from", b"resent-sender"):
        return field
    for form in (_BARE_NAME, _ANGLE_NAME):
        if found := form.fullmatch(value):
            return name + colon + found[1] + found[2] + b"@" + domain + found[3]
    return field


class Recipients(msgspec.Struct, frozen=True):
    """The envelope, checked."""

    reverse_path: Address
    recipients: tuple[Address, ...]


def find_recipients(
    head: bytes, given: Iterable[str], *, from_header: bool, from_address: str | None, sender: Sender
) -> Recipients:
    """Envelope from the arguments and, when asked, from the fields To, Cc and Bcc (of the Resent- ones, if any).

    Raises:
        DataFault: an address that is none, no recipient, or a field that cannot be read to its end.
    """
    domain = sender.domain
    wanted = [box for word in given for box in _boxes(word.encode("utf-8", "surrogateescape"), word)]
    if from_header:
        view = HeaderView(head)
        prefix = "Resent-" if any(view.has(name.lower().encode()) for name in _RESENT) else ""
        for name in ("To", "Cc", "Bcc"):
            for field in view.every(prefix + name):
                wanted += _boxes(field.value, prefix + name)
    recipients = tuple(dict.fromkeys(_forward(address, domain) for address in wanted))
    if not recipients:
        where = "the message has none in To, Cc or Bcc" if from_header else "name one, or give -t"
        raise DataFault(f"no recipient: {where}")
    if from_address is None:
        return Recipients(_reverse(sender.address), recipients)
    bare = from_address.strip()
    if bare.startswith("<") and bare.endswith(">"):
        bare = bare[1:-1]
    if not bare:
        return Recipients(NULL_REVERSE_PATH, recipients)
    return Recipients(_reverse(_qualified(bare, domain)), recipients)


def _boxes(value: bytes, where: str) -> list[str]:
    if _CONTROL.search(value):
        raise DataFault(f"{where[:200]!r} is no address: it holds a control character")
    if len(value) > VALUE_LIMIT:
        raise DataFault(f"{where} has more than {VALUE_LIMIT} octets: send to a list instead")
    if ends_in_comment(value):
        raise DataFault(f"{where} opens a comment and never closes it: recipients behind it are not seen")
    boxes = read_mailboxes(value, bare=True)
    if len(boxes) >= MAX_MAILBOXES:
        raise DataFault(f"{where} names {MAX_MAILBOXES} recipients or more: send to a list instead")
    return [box.address for box in boxes]


def _qualified(address: str, domain: str) -> str:
    return address if "@" in address else f"{address}@{domain}"


def _forward(address: str, domain: str) -> Address:
    octets = _qualified(address, domain).encode("utf-8", "surrogateescape")
    return _checked(b"TO:<" + octets + b">", address)


def _reverse(address: str) -> Address:
    octets = address.encode("utf-8", "surrogateescape")
    try:
        path = parse_reverse_path(b"FROM:<" + octets + b">")
    except RemoteProtocolError as error:
        raise DataFault(f"{address[:200]!r} is no address: {error}") from error
    if path.parameters:
        raise DataFault(f"{address[:200]!r} is no address")
    return path.address


def _checked(argument: bytes, address: str) -> Address:
    try:
        path = parse_forward_path(argument)
    except RemoteProtocolError as error:
        raise DataFault(f"{address[:200]!r} is no address: {error}") from error
    if path.parameters:
        raise DataFault(f"{address[:200]!r} is no address")
    return path.address
