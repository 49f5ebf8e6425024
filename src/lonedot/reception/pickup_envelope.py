"""The envelope of a Pickup file: `x-sender` and `x-receiver` lines at the very top, else the header fields.

A file is unstuffed text: a lone dot is a lone dot. Pure functions over its first octets.
"""

from __future__ import annotations

import msgspec

from lonedot.message.header import HeaderView
from lonedot.message.mailboxes import MAX_MAILBOXES, VALUE_LIMIT, ends_in_comment, read_mailboxes
from lonedot.protocol.errors import RemoteProtocolError
from lonedot.protocol.grammar import GivenPath, parse_forward_path, parse_reverse_path
from lonedot.terms.address import NULL_REVERSE_PATH, Address
from lonedot.terms.envelope import BodyType, Envelope, Recipient

__all__ = ["PickupFault", "PickupStart", "read_start"]

TOP_LIMIT = 1000
"""Envelope lines at the top at most."""


class PickupFault(Exception):
    """The file cannot be sent; the words say why and what to do."""


class PickupStart(msgspec.Struct, frozen=True):
    """What the first octets of a file say."""

    envelope: Envelope
    content_at: int
    """Offset of the first octet of the message proper (behind the envelope lines)."""


def read_start(octets: bytes) -> PickupStart:
    """The envelope from the start of a file (which must hold its whole header section).

    `x-sender: <>` gives the null reverse-path. Without `x-receiver` lines the recipients are those of To, Cc and
    Bcc; without `x-sender` the reverse-path is that of Sender, else of From.

    Raises:
        PickupFault: no sender, no recipient, an address that is none, too many envelope lines, or no From field.
    """
    sender: Address | None = None
    recipients: list[Address] = []
    at = 0
    for _ in range(TOP_LIMIT):
        end = octets.find(b"\n", at)
        line = octets[at : end if end >= 0 else len(octets)].rstrip(b"\r")
        name, colon, value = line.partition(b":")
        match name.strip().lower() if colon else b"":
            case b"x-sender":
                sender = _sender(value.strip())
            case b"x-receiver":
                recipients.append(_recipient(value.strip()))
            case _:
                break
        if end < 0:
            at = len(octets)
            break
        at = end + 1
    else:
        # What is left of them would go out as header fields, and nobody there would get the message.
        raise PickupFault(f"more than {TOP_LIMIT} envelope lines: divide the recipients among several files")
    head = HeaderView(octets[at:])
    if not head.all("From"):
        raise PickupFault("there is no From field: add one, or the receiver will refuse the message")
    if sender is None:
        sender = _first(head, ("Sender", "From"))
    if not recipients:
        recipients = [
            _recipient(address.encode())
            for field in ("To", "Cc", "Bcc")
            for address in _addresses(head, field)
        ]
    if not recipients:
        raise PickupFault("no recipient: add a line `x-receiver: address` at the top, or a To field")
    given = tuple(Recipient(address) for address in dict.fromkeys(recipients))
    everything = (sender, *recipients)
    smtputf8 = any(not address.octets.isascii() for address in everything)
    return PickupStart(Envelope(sender, given, BodyType.UNSTATED, smtputf8), at)


def _addresses(head: HeaderView, field: str) -> list[str]:
    """Every address in the fields of that name, also what is none: nobody is passed over in silence."""
    addresses: list[str] = []
    for value in head.all(field):
        if len(value) > VALUE_LIMIT or ends_in_comment(value):
            raise PickupFault(f"the field {field} cannot be read: it is too long, or a comment has no end")
        addresses += [mailbox.address for mailbox in read_mailboxes(value, bare=True)]
        if len(addresses) >= MAX_MAILBOXES:
            raise PickupFault(f"the field {field} has more than {MAX_MAILBOXES} addresses: divide them")
    return addresses


def _first(head: HeaderView, fields: tuple[str, ...]) -> Address:
    for field in fields:
        for address in _addresses(head, field):
            return _sender(address.encode())
    raise PickupFault("no sender: add a line `x-sender: address` at the top, or an address in From")


def _bare(value: bytes) -> bytes:
    return value[1:-1] if value.startswith(b"<") and value.endswith(b">") else value


def _sender(value: bytes) -> Address:
    address = _bare(value)
    if not address:
        return NULL_REVERSE_PATH
    try:
        return _alone(parse_reverse_path(b"FROM:<" + address + b">"))
    except RemoteProtocolError as error:
        raise PickupFault(f"the sender {_shown(value)} is not an address: {error}") from error


def _recipient(value: bytes) -> Address:
    try:
        return _alone(parse_forward_path(b"TO:<" + _bare(value) + b">"))
    except RemoteProtocolError as error:
        raise PickupFault(f"the recipient {_shown(value)} is not an address: {error}") from error


def _alone(path: GivenPath) -> Address:
    """An address with nothing behind it."""
    if path.parameters:
        raise RemoteProtocolError("there is more than a mailbox")
    return path.address


def _shown(value: bytes) -> str:
    return repr(value[:200].decode("utf-8", "backslashreplace"))
